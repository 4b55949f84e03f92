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
from jax.sharding import NamedSharding, PartitionSpec

from neuralops.data.samples import Samples, take
from neuralops.operator import ByIdentity, original
from neuralops.training.feeds import ArrayData, Feed, SourceData
from neuralops.training.numbers import Fixed, split
from neuralops.training.objectives import split_report
from neuralops.training.predict import judged, predict_one
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


def run_feed(
    run: Run, feed: Feed, objective: Any, optimizer: Any, pace: Pace, *,
    key: jax.Array, first: int, reports: dict[str, Any], average: float | None, mesh: Any,
) -> Iterator[dict[str, np.ndarray]]:  # fmt: skip
    """Trains on one feed, updating `run`; yields loss and reports of the steps as they are done.

    `first` is the number of the feed's first step in the whole run, which the step's key is drawn from; `reports` are
    shapes and dtypes of what the objective reports, `"loss"` among them.
    """
    fixed, numbers = split(objective)
    step = _stepper(fixed, ByIdentity.of(optimizer), pace.looped, average is not None, mesh)
    rows = jnp.asarray(feed.rows)
    log = {name: jnp.zeros((len(rows), *x.shape), x.dtype) for name, x in reports.items()}
    decay = jnp.float32(0 if average is None else average)
    if mesh is not None:
        rows, log, decay = jax.device_put((rows, log, decay), NamedSharding(mesh, PartitionSpec()))
    done = 0
    while done < feed.steps:
        until, began = min(feed.steps, done + pace.steps()), time.perf_counter()
        (run.op, run.opt_state, run.average, log) = step(
            (run.op, run.opt_state, run.average, log), feed.data, numbers, rows, key, decay, first, done, until
        )
        values = {name: np.asarray(x)[done:until] for name, x in log.items()}
        if len(feed.rows) > 1:  # a rest of one batch would compile within the time that is measured
            pace.saw(until - done, time.perf_counter() - began)
        yield values
        done = until


def _divided(batch: Any, mesh: Any) -> Any:
    """A batch over the first axis of a mesh; one that its devices do not divide stays whole on each."""
    size = len(jax.tree.leaves(batch)[0])
    axis = mesh.axis_names[0]
    if size % mesh.shape[axis]:
        return batch

    def part(x: Any) -> Any:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(axis)))

    return batch.map(part) if isinstance(batch, Samples) else jax.tree.map(part, batch)


@functools.lru_cache(maxsize=16)  # compiled loops are found again for equal objectives and the same optimiser
def _stepper(goal: Fixed, optimizer: Any, looped: bool, averaged: bool, mesh: Any) -> Callable[..., Any]:
    optimizer = optax.with_extra_args_support(ByIdentity.value_of(optimizer))

    @functools.partial(jax.jit, donate_argnums=0)
    def run(
        state: Any, data: Any, numbers: Any, rows: Any, key: Any, decay: Any, first: Any, start: Any, stop: Any
    ) -> Any:
        objective = goal.with_numbers(numbers)

        def step(i: Any, state: Any) -> Any:
            op, opt_state, average, log = state
            batch = take(data, rows[i])
            if mesh is not None:
                batch = _divided(batch, mesh)
            at = jax.random.fold_in(key, first + i)

            def value(op: Any) -> tuple[Any, dict[str, Any]]:
                return split_report(objective(original(op), batch, key=at))

            (loss, report), grad = jax.value_and_grad(value, has_aux=True)(op)
            updates, opt_state = optimizer.update(
                grad, opt_state, op, value=loss, grad=grad, value_fn=lambda op: value(op)[0]
            )
            op = optax.apply_updates(op, updates)
            if hasattr(op, "project"):
                op = op.project()
            if averaged:  # the plain mean of the first parameters, until it is as long as the exponential one
                share = jnp.maximum(1 - decay, 1 / (1 + first + i).astype(jnp.float32))
                average = jax.tree.map(lambda a, x: a + share.astype(x.dtype) * (x - a), average, op)
            values = {"loss": loss, **report}
            log = {name: x.at[i].set(jnp.asarray(values[name], x.dtype)) for name, x in log.items()}
            return op, opt_state, average, log

        return jax.lax.fori_loop(start, stop, step, state) if looped else step(start, state)

    return run


@jax.jit
def finite(op: Any) -> jax.Array:
    """Whether every parameter is."""
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(op)]))


@functools.lru_cache(maxsize=16)
def _judge(judges: Fixed, mesh: Any) -> Callable[..., Any]:
    def one(functions: Any, op: Any, sample: Samples) -> list[jax.Array]:
        prediction = predict_one(original(op), sample)
        return [judged(function, prediction, sample) for function in functions]

    @jax.jit
    def run(op: Any, data: Samples, numbers: Any, rows: jax.Array) -> Any:
        functions = judges.with_numbers(numbers)

        def batch(rows: jax.Array) -> Any:
            taken = take(data, rows)
            taken = taken if mesh is None else _divided(taken, mesh)
            return jax.vmap(functools.partial(one, functions, op), in_axes=(taken.axes,))(taken)

        return jax.lax.map(batch, rows)

    return run


def per_sample(
    op: Any, data: ArrayData | SourceData, judges: dict[str, Callable[..., Any]], batch_size: int, mesh: Any = None
) -> dict[str, np.ndarray]:
    """The value of each function on each sample, in order."""
    fixed, numbers = split(tuple(judges.values()))
    run = _judge(fixed, mesh)
    total = data.num_samples
    size = -(-total // -(-total // batch_size))  # batches of nearly equal size
    if mesh is not None:
        size += -size % mesh.shape[mesh.axis_names[0]]
    # The order is filled up to whole batches, whose last values are thrown away: samples are judged one by one.
    parts = []
    for feed in data.feeds(np.arange(-(-total // size) * size) % total, size):
        group = min(STEPS_PER_CALL, len(feed.rows))
        for start in range(0, feed.steps, group):
            values = run(op, feed.data, numbers, np.resize(feed.rows[start : start + group], (group, size)))
            steps = min(group, feed.steps - start)
            parts.append([np.asarray(v)[:steps].reshape(steps * size, *v.shape[2:]) for v in values])
    return {name: np.concatenate([part[i] for part in parts])[:total] for i, name in enumerate(judges)}


@functools.lru_cache(maxsize=16)
def _judge_batch(goal: Fixed, mesh: Any) -> Callable[..., Any]:
    @jax.jit
    def run(op: Any, data: Any, numbers: Any, rows: jax.Array, key: jax.Array) -> Any:
        batch = take(data, rows)
        batch = batch if mesh is None else _divided(batch, mesh)
        return split_report(goal.with_numbers(numbers)(original(op), batch, key=key))[0]

    return run


def per_batch(
    op: Any, data: ArrayData | SourceData, objective: Any, batch_size: int, key: jax.Array, mesh: Any = None
) -> float:
    """The mean of an objective over batches in order, each weighted by its samples, with keys that stay the same."""
    fixed, numbers = split(objective)
    run = _judge_batch(fixed, mesh)
    values: list[Any] = []
    counts: list[int] = []
    for feed in data.feeds(np.arange(data.num_samples), min(batch_size, data.num_samples)):
        for rows in feed.rows[: feed.steps]:
            values.append(run(op, feed.data, numbers, rows, jax.random.fold_in(key, len(values))))
            counts.append(len(rows))
    return float(np.average([float(value) for value in values], weights=counts))
