"""Many steps of a scheme in two time levels, and three ways to differentiate them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["GRADIENTS", "march"]

GRADIENTS = ("stored", "recomputed", "reversed")

Step = Callable[[Any, Any, Any], tuple[Any, Any]]  # (parameters, state, what belongs to this step) -> state, output


def march(step: Step, parameters: Any, state: Any, inputs: Any, num_steps: int, gradient: str) -> tuple[Any, Any]:
    """`num_steps` steps; `inputs` has one entry per step, and so has the output.

    `gradient`: `"stored"` keeps every step, `"recomputed"` some sqrt(num_steps) states and computes the steps between
    two of them again, one stretch at a time. `"reversed"` keeps the last state alone and steps back from it: the
    state needs two time levels, `previous` and `current`, and the scheme must be the same in both directions of time.
    """
    if gradient == "reversed":
        return _reversible(step, num_steps)(parameters, state, inputs)
    body = lambda carried, x: step(parameters, carried, x)
    # Two steps at a time: with one, the two time levels change places and have to be copied.
    if gradient == "stored":
        return lax.scan(body, state, inputs, length=num_steps, unroll=2)
    short = max(math.isqrt(num_steps), 1)
    whole = num_steps // short
    stretch = jax.checkpoint(lambda carried, xs: lax.scan(jax.checkpoint(body), carried, xs, length=short, unroll=2))
    cut = lambda x: x[: whole * short].reshape(whole, short, *x.shape[1:])
    state, outputs = lax.scan(stretch, state, jax.tree.map(cut, inputs), length=whole)
    outputs = jax.tree.map(lambda y: y.reshape(whole * short, *y.shape[2:]), outputs)
    rest = num_steps - whole * short
    if rest:
        state, last = jax.checkpoint(lambda s, xs: lax.scan(body, s, xs, length=rest))(
            state, jax.tree.map(lambda x: x[whole * short :], inputs)
        )
        outputs = jax.tree.map(lambda y, z: jnp.concatenate([y, z]), outputs, last)
    return state, outputs


def _reversible(step: Step, num_steps: int) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """The march with a derivative that steps back, from the last state with its time levels exchanged."""
    turned = lambda state: state._replace(previous=state.current, current=state.previous)

    @jax.custom_vjp
    def run(parameters: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        return lax.scan(lambda s, x: step(parameters, s, x), state, inputs, length=num_steps, unroll=2)

    def forward(parameters: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        out = run(parameters, state, inputs)
        return out, (parameters, out[0], inputs)

    def backward(kept: Any, cotangents: Any) -> tuple[Any, Any, Any]:
        parameters, last, inputs = kept

        def body(carried: Any, x: Any) -> tuple[Any, Any]:
            (back, behind, total), (given, output) = carried, x
            back, _ = step(parameters, back, given)
            _, pull = jax.vjp(step, parameters, turned(back), given)
            grown, behind, of_input = pull((behind, output))
            total = jax.tree.map(jnp.add, total, eqx.filter(grown, eqx.is_inexact_array))
            return (back, behind, total), of_input

        total = jax.tree.map(jnp.zeros_like, eqx.filter(parameters, eqx.is_inexact_array))
        start = (turned(last), cotangents[0], total)
        (_, behind, total), of_inputs = lax.scan(body, start, (inputs, cotangents[1]), length=num_steps, reverse=True)
        integers = jax.tree.map(
            lambda p: None if eqx.is_inexact_array(p) else np.zeros(p.shape, jax.dtypes.float0), parameters
        )
        return eqx.combine(total, integers), behind, of_inputs

    run.defvjp(forward, backward)
    return run
