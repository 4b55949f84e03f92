"""y' = -decay y + f(y) with the decay taken exactly: Runge-Kutta pairs under an integrating factor (Lawson 1967)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

_TABLEAUS = {"tsit5": diffrax.Tsit5.tableau, "dopri5": diffrax.Dopri5.tableau}
_MAX_STEPS = 2**18


def tolerance(rtol: float | None, dtype: Any) -> float:
    """The error allowed per step, by default what the precision allows."""
    if rtol is not None:
        return rtol
    return 1e-10 if dtype == jnp.float64 else 1e-6


def frames(
    vector_field: Callable[[Any, Array, Any], Array],
    y: Float[Array, " *state"],
    times: tuple[float, ...],
    decay: Float[Array, " *modes"],
    args: Any = None,
    *,
    size: Float[Array, ""],
    first_step: Float[Array, ""],
    scheme: str,
    rtol: float,
) -> tuple[Float[Array, " times *state"], Bool[Array, " times"]]:
    """The solution at `times`, increasing and above 0, from y at time 0, under step control.

    **Arguments:**

    - `vector_field`: f(t, y, (decay, args)).
    - `decay`: at least 0, what y broadcasts against.
    - `size`: against which the error of a step is judged; `rtol` is its part that is allowed.
    - `first_step`: the first guess of a step.
    - `scheme`: `"tsit5"` or `"dopri5"`.

    **Returns:** the states, zero from where a run fails, and whether each run up to there has succeeded.
    """
    dtype = y.dtype
    finite = jnp.isfinite(l2(y)) & jnp.isfinite(size)
    y, size = jnp.where(finite, y, 0), jnp.where(finite & (size > 0), size, 1)
    first_step = jnp.where(jnp.isfinite(first_step) & (first_step > 0), first_step, times[0])

    def advance(state: tuple[Array, Array, Array], duration: Any) -> Any:
        y, succeeded, step = state
        shortest = 4 * float(jnp.finfo(dtype).eps) * duration
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field),
            IntegratingFactor(scheme),
            t0=0.0,
            t1=jnp.asarray(duration, dtype),
            dt0=jnp.clip(step, shortest, duration),
            y0=y,
            args=(decay, args),
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(
                rtol=0.0, atol=rtol * size, dtmin=shortest, force_dtmin=False, norm=l2
            ),
            max_steps=_MAX_STEPS,
            throw=False,
        )
        assert solution.ys is not None
        succeeded = succeeded & (solution.result == diffrax.RESULTS.successful)
        y = jnp.where(succeeded, solution.ys[0], 0)
        taken = jnp.maximum(solution.stats["num_accepted_steps"], 1)
        return (y, succeeded, jnp.asarray(duration / taken, dtype)), (y, succeeded)

    # One run from each time to the next: diffrax would draw a straight line between the ends of its own steps.
    state = y, finite, jnp.asarray(first_step, dtype)
    if len(times) == 1:
        return jax.tree.map(lambda x: x[None], advance(state, times[0])[1])
    return jax.lax.scan(advance, state, jnp.asarray(np.diff(times, prepend=0.0), dtype))[1]


def to_pair(c: Array) -> Array:
    return jnp.stack([c.real, c.imag])  # diffrax's complex support is young; the state is real


def to_complex(y: Array) -> Array:
    return jax.lax.complex(y[0], y[1])


def l2(y: Array) -> Array:
    # Of Fourier coefficients, by Parseval, the size of the function itself, whatever the number of points (up to a
    # factor sqrt(2)). Infinity for NaN makes the step control shrink the step and give up; with NaN it would try again
    # until the last step.
    size = jnp.sqrt(jnp.sum(y * y))
    return jnp.where(jnp.isnan(size), jnp.inf, size)


class IntegratingFactor(diffrax.AbstractSolver):
    """One step of an explicit Runge-Kutta pair for y' = -decay y + f(y), with the decay taken exactly.

    The pair is applied to exp(decay (t - t_step)) y. Restarting the factor at each step keeps every
    exponent at or below zero as long as the pair's nodes do not decrease, which both of ours satisfy.
    """

    scheme: str = eqx.field(static=True)
    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int:
        return 5

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> None:
        return None

    def func(self, terms: Any, t0: Any, y0: Array, args: Any) -> Array:
        return terms.vf(t0, y0, args)

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Array, args: Any, solver_state: None, made_jump: Any
    ) -> tuple[Array, Array, dict[str, Array], None, Any]:
        del solver_state, made_jump
        decay, h, tableau = args[0], t1 - t0, _TABLEAUS[self.scheme]
        nodes = [0.0, *map(float, tableau.c)]
        slopes: list[Array] = []

        def combine(weights: Any, node: float) -> Array:
            """h times the weighted slopes, each decayed from its own node to `node`."""
            terms_ = [
                float(w) * jnp.exp(-decay * (h * (node - c))) * f
                for w, c, f in zip(weights, nodes, slopes, strict=False)
                if w != 0
            ]
            return h * sum(terms_[1:], terms_[0])

        for i, node in enumerate(nodes):
            y = y0 if i == 0 else jnp.exp(-decay * (h * node)) * y0 + combine(tableau.a_lower[i - 1], node)
            slopes.append(terms.vf(t0 + node * h, y, args))
        y1 = jnp.exp(-decay * h) * y0 + combine(tableau.b_sol, 1.0)
        return y1, combine(tableau.b_error, 1.0), {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful
