"""The compiled part of training: steps in one loop on the device, and functions applied sample by sample.

A loop on the device is not only fewer calls. XLA allocates the temporaries of a call afresh, and on a CPU the
operating system hands them out page by page: an FNO at 16 x 16, batch 64, took 35 ms per step when called step by
step (18 000 page faults each) and 17 ms in the loop (1 100), measured on two cores with jax 0.10.2. Gradients of
convolutions are the exception: inside a loop the CPU backend runs them some sixty times slower (jax-ml/jax#12868),
so operators that convolve are stepped one call at a time there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neuralops.training.feeds import Feed
from neuralops.training.state import Run

SECONDS_PER_CALL, STEPS_PER_CALL = 2.0, 10  # how long a call lasts before the bar moves and Ctrl-C is heard


class Pace:
    """How many steps to run before looking up, from the time that earlier steps took."""

    def __init__(self, looped: bool = True) -> None:
        self.looped = looped  # whether steps run in a loop on the device or one per call
        self.calls, self.seconds = 0, 0.0

    def steps(self) -> int:
        """One at first (that one compiles), then as many as fill `SECONDS_PER_CALL`, `STEPS_PER_CALL` at least."""
        if self.calls == 0 or not self.looped:
            return 1
        return STEPS_PER_CALL if self.calls == 1 else max(STEPS_PER_CALL, int(SECONDS_PER_CALL / self.seconds))

    def saw(self, steps: int, seconds: float) -> None:
        self.calls, self.seconds = self.calls + 1, max(seconds / steps, 1e-9)


def loops_well(op: Any, loss: Any, shapes: Any, dtypes: Any) -> bool:
    """Whether the gradient of this loss runs as fast inside a device loop as outside it."""
    leaves, structure = jax.tree.flatten(op)
    fields = tuple(zip(map(tuple, shapes), map(jnp.dtype, dtypes), strict=True))
    parameters = tuple((x.shape, x.dtype) for x in leaves)
    return jax.default_backend() != "cpu" or not _convolves(_Static.of(loss), structure, parameters, fields)


@functools.lru_cache(maxsize=64)
def _convolves(loss: Any, structure: Any, parameters: Any, fields: Any) -> bool:
    op = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*x) for x in parameters])
    sample = [jax.ShapeDtypeStruct(*x) for x in fields]
    jaxpr = jax.make_jaxpr(lambda op, u, v: _unwrap(loss)(op(u), v))(op, *sample)
    return "conv_general_dilated" in str(jaxpr)


def run_feed(run: Run, feed: Feed, loss: Any, optimizer: Any, dtype: Any, pace: Pace) -> Iterator[np.ndarray]:
    """Trains on one feed, updating `run`; yields the losses of the steps as they are done."""
    step = _stepper(_Static.of(loss), _Static.of(optimizer), pace.looped)
    rows, counts = jnp.asarray(feed.rows), jnp.asarray(feed.counts)
    losses = jnp.zeros(len(rows), jnp.promote_types(dtype, jnp.float32))
    done = 0
    while done < feed.steps:
        until, began = min(feed.steps, done + pace.steps()), time.perf_counter()
        run.op, run.opt_state, losses = step(
            run.op, run.opt_state, losses, feed.inputs, feed.outputs, rows, counts, done, until
        )
        values = np.asarray(losses)[done:until]
        pace.saw(until - done, time.perf_counter() - began)
        yield values
        done = until


class _Static:
    """A hashable stand-in for any object: its own hash where it has one, else its identity."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @classmethod
    def of(cls, value: Any) -> Any:
        try:
            hash(value)
        except TypeError:
            return cls(value)
        return value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self.value is other.value


def _unwrap(value: Any) -> Any:
    return value.value if isinstance(value, _Static) else value


@functools.lru_cache(maxsize=16)  # compiled loops are found again for equal losses and the same optimiser
def _stepper(loss: Any, optimizer: Any, looped: bool) -> Callable[..., Any]:
    loss, optimizer = _unwrap(loss), optax.with_extra_args_support(_unwrap(optimizer))

    def objective(op: Any, inputs: jax.Array, outputs: jax.Array, count: jax.Array) -> jax.Array:
        values = jax.vmap(lambda u, v: loss(op(u), v))(inputs, outputs)
        return jnp.sum(jnp.where(jnp.arange(len(values)) < count, values, 0)) / count

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def run(
        op: Any, opt_state: Any, losses: Any, inputs: Any, outputs: Any, rows: Any, counts: Any, start: Any, stop: Any
    ) -> Any:
        def step(i: jax.Array, carry: tuple[Any, Any, jax.Array]) -> tuple[Any, Any, jax.Array]:
            op, opt_state, losses = carry
            batch = *(x.at[rows[i]].get(mode="promise_in_bounds") for x in (inputs, outputs)), counts[i]
            value, grad = jax.value_and_grad(objective)(op, *batch)
            updates, opt_state = optimizer.update(
                grad, opt_state, op, value=value, grad=grad, value_fn=lambda op: objective(op, *batch)
            )
            op = optax.apply_updates(op, updates)
            if hasattr(op, "project"):
                op = op.project()
            return op, opt_state, losses.at[i].set(value.astype(losses.dtype))

        carry = (op, opt_state, losses)
        return jax.lax.fori_loop(start, stop, step, carry) if looped else step(start, carry)

    return run


@jax.jit
def finite(op: Any) -> jax.Array:
    """Whether every parameter is."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(op)]))


@functools.lru_cache(maxsize=16)
def _judge(functions: tuple[Any, ...]) -> Callable[..., Any]:
    def one(op: Any, u: jax.Array, v: jax.Array) -> list[jax.Array]:
        prediction = op(u)
        return [_unwrap(function)(prediction, v) for function in functions]

    @jax.jit
    def run(op: Any, inputs: jax.Array, outputs: jax.Array, rows: jax.Array) -> Any:
        return jax.lax.map(lambda r: jax.vmap(functools.partial(one, op))(inputs[r], outputs[r]), rows)

    return run


def per_sample(op: Any, data: Any, judges: dict[str, Callable[..., Any]], batch_size: int) -> dict[str, np.ndarray]:
    """The value of each function on each sample, in order."""
    run = _judge(tuple(_Static.of(function) for function in judges.values()))
    count = -(-data.num_samples // batch_size)
    size = -(-data.num_samples // count)  # batches of nearly equal size
    parts = []
    for feed in data.feeds(np.arange(data.num_samples), size):
        group = min(STEPS_PER_CALL, len(feed.rows))
        for start in range(0, feed.steps, group):
            values = run(op, feed.inputs, feed.outputs, np.resize(feed.rows[start : start + group], (group, size)))
            counts = feed.counts[start : min(start + group, feed.steps)]
            parts.append([np.concatenate([v[i, :c] for i, c in enumerate(counts)]) for v in map(np.asarray, values)])
    return {name: np.concatenate([part[i] for part in parts]) for i, name in enumerate(judges)}
