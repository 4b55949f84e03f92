"""Fitting an operator to samples, and judging one on samples.

An epoch over arrays is one compiled loop on the device: the samples stay there, and each step gathers its batch
by a random permutation. The loop takes its bounds as arguments, so that a long epoch comes back every few seconds
(for the progress bar and Ctrl-C) without compiling again. A source that does not fit in memory goes through the
same loop, a few batches at a time, while a thread reads ahead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from neuralops.checkpoint import leaves_of
from neuralops.operator import as_operator
from neuralops.training.feeds import ArrayData, SourceData, as_data
from neuralops.training.metrics import relative_l2
from neuralops.training.state import STATE, DivergedError, Folder, History, Run, copied, key_words, operator_words
from neuralops.training.steps import Pace, finite, loops_well, per_sample, run_feed

__all__ = ["DivergedError", "History", "evaluate", "fit"]

EVALUATION_BATCH = 32


def fit(
    op: Any,
    data: Any,
    *,
    loss: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    num_epochs: int,
    batch_size: int,
    key: jax.Array,
    callback: Callable[[int, dict[str, Any]], Any] | None = None,
    progress: bool = True,
    validation: Any = None,
    metrics: Any = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    resume: bool = False,
    drop_last: bool = False,
) -> tuple[Any, History]:
    """Fits an operator to pairs of functions by stochastic gradient descent.

    **Arguments:**

    - `op`: an operator, or any callable pytree `(channels, *grid) -> (channels_out, *grid_out)` with real
      floating leaves. It is left untouched. When it declares `op.project()`, that is applied after every step.
    - `data`: `Samples`, a pair `(inputs, outputs)` of arrays `(samples, channels, *grid)`, or a source with
      `len` and integer indexing (`data.open(path)`), which is read lazily. Converted to the dtype of `op`.
    - `loss`: `loss(prediction, target)` of one unbatched sample, one number, as in `neuralops.losses`; it is
      averaged over the batch.
    - `optimizer`: any optax transformation; `value`, `grad` and `value_fn` are passed to those that want them.
    - `num_epochs`, `batch_size`: a last, smaller batch is trained on too, unless `drop_last`.
    - `key`: fixes the order of the samples in every epoch.
    - `callback`: called as `callback(epoch, report)` after each epoch with `"loss"`, `"seconds"`, `"op"` and, with
      validation data, `"validation"` and the metrics; returning `True` ends the training.
    - `progress`: a bar on standard error.
    - `validation`: data like `data`, on which loss and `metrics` (as in `evaluate`) are taken after each epoch.
    - `checkpoint`: a folder that receives `state.safetensors`, from which the run can go on, and
      `best.safetensors`, the best operator for `neuralops.load`, every `checkpoint_every` epochs and at the end.
    - `resume`: goes on from that folder, or starts when it is empty. The parameters at the end are the same to
      the bit as without the interruption, on one device.

    **Returns:** the operator after the last epoch, and a `History` that also holds the best one. Ctrl-C ends the
    training early and returns what there is.

    **Raises:** `ValueError` on arguments that do not fit, before anything is computed (a source is checked batch
    by batch); `DivergedError` when a loss or a parameter becomes NaN or infinite.
    """
    op = as_operator(op)
    leaves = leaves_of(op)
    for name, count in (("num_epochs", num_epochs), ("batch_size", batch_size), ("checkpoint_every", checkpoint_every)):
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"{name}: expected a positive integer, got {count!r}; give 1 or more.")
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        raise ValueError(
            f"optimizer: expected an optax transformation, got {type(optimizer).__name__}; use optax.adam(1e-3)."
        )
    words, generator = key_words(key)
    dtype = jnp.result_type(*leaves.values())
    train = as_data(data, dtype, "data")
    if batch_size > train.num_samples:
        raise ValueError(
            f"batch_size: expected at most the {train.num_samples} samples there are, got {batch_size}; "
            "take a smaller batch."
        )
    _check_shapes(op, train, {"loss": loss}, "data")
    judges = {"validation": loss, **_named(metrics, ("loss", "validation", "seconds", "op"))}
    test = None if validation is None else as_data(validation, dtype, "validation")
    if test is not None:
        _check_shapes(op, test, judges, "validation")
    elif len(judges) > 1:
        raise ValueError("metrics: they are taken on validation data, got none; give validation=(inputs, outputs).")
    if resume and checkpoint is None:
        raise ValueError("resume: expected a folder to go on from, got checkpoint=None; give checkpoint='folder'.")
    folder = None
    if checkpoint is not None:
        settings = {"operator": operator_words(op), "num_samples": train.num_samples, "shapes": list(train.shapes),
                    "batch_size": int(batch_size), "drop_last": bool(drop_last), "key": words, "generator": generator,
                    "validated": sorted(judges) if test is not None else []}  # fmt: skip
        folder = Folder(checkpoint, settings)
        if not resume and (folder.path / STATE).exists():
            raise ValueError(
                f"checkpoint: expected a folder without a training state, got {str(checkpoint)!r}, which holds one; "
                "pass resume=True to go on from it, or choose another folder."
            )

    start = copied(op)
    run = Run(start, copied(optimizer.init(start)), good=op, best=op)
    if folder is not None and resume and (folder.path / STATE).exists():
        run = folder.read(run)
    pace, stopped, unsaved = Pace(loops_well(op, loss, train.shapes, train.dtypes)), "finished", False
    size = train.num_samples - train.num_samples % batch_size if drop_last else train.num_samples
    steps = -(-size // batch_size)
    bar = tqdm(total=num_epochs * steps, initial=run.epoch * steps, unit="step", disable=not progress)
    names = tuple(name for name in judges if name != "validation")

    def history(stopped: str = "finished") -> History:
        return run.history(names, test is not None, stopped)

    try:
        while run.epoch < num_epochs:
            epoch = run.epoch
            bar.set_description(f"epoch {epoch + 1}/{num_epochs}", refresh=False)
            began = time.perf_counter()
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), train.num_samples))[:size]
            losses: list[float] = []
            counts: list[int] = []
            for feed in train.feeds(order, batch_size):
                for values in run_feed(run, feed, loss, optimizer, dtype, pace):
                    if not np.isfinite(values).all():
                        step = len(losses) + int(np.flatnonzero(~np.isfinite(values))[0])
                        raise DivergedError(epoch, step, run.good, history())
                    losses.extend(values)
                    bar.update(len(values))
                counts.extend(feed.counts[: feed.steps])
            if not bool(finite(run.op)):
                raise DivergedError(epoch, None, run.good, history())
            row = {"loss": float(np.average(losses, weights=counts)), "seconds": time.perf_counter() - began}
            run.good = copied(run.op)
            if test is not None:
                row |= {name: float(x.mean()) for name, x in per_sample(run.good, test, judges, batch_size).items()}
            unsaved |= run.finish_epoch(row)
            bar.set_postfix({name: f"{x:.3g}" for name, x in row.items() if name != "seconds"}, refresh=False)
            due = run.epoch % checkpoint_every == 0 or run.epoch >= num_epochs
            if folder is not None and due:  # before the callback, which may fail
                folder.write(run, unsaved)
                unsaved = False
            if callback is not None and callback(epoch, {**row, "op": run.good}) is True:
                stopped = "callback"
                if folder is not None and not due:
                    folder.write(run, unsaved)
                break
    except KeyboardInterrupt:
        stopped = "interrupted"
        where = "" if folder is None else f"; resume=True goes on from {str(folder.path)!r}"
        tqdm.write(f"interrupted after {run.epoch} of {num_epochs} epochs{where}", file=sys.stderr)
    finally:
        bar.close()
    return run.good, history(stopped)


def evaluate(
    op: Any, data: Any, *, metrics: Any = (relative_l2,), batch_size: int = EVALUATION_BATCH
) -> dict[str, Any]:
    """Applies metrics to every sample.

    **Arguments:**

    - `op`: an operator, a function, or any callable pytree.
    - `data`: as in `fit`, in physical units: wrap an operator between scaled fields in `data.Normalized`.
    - `metrics`: a metric `(prediction, target) -> number` of one unbatched sample, several of them, or a
      dictionary that names them, such as `{"h1": losses.h1(grid)}`.
    - `batch_size`: samples at once, a matter of memory only.

    **Returns:** a dictionary from the metric's name to its values, `(samples,)`, in the order of the data. The
    caller reduces: `result["relative_l2"].mean()`.

    **Raises:** `ValueError` when `data` or `metrics` do not fit.
    """
    op = as_operator(op)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(f"batch_size: expected a positive integer, got {batch_size!r}; give 1 or more.")
    judges = _named(metrics)
    if not judges:
        raise ValueError("metrics: expected at least one metric, got none; use (metrics.relative_l2,).")
    leaves = [x for x in jax.tree.leaves(op) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]
    dtype = jnp.result_type(*leaves) if leaves else None
    test = as_data(data, dtype, "data")
    _check_shapes(op, test, judges, "data")
    return per_sample(op, test, judges, batch_size)


def _named(metrics: Any, reserved: tuple[str, ...] = ()) -> dict[str, Callable[..., Any]]:
    """Metrics by name, whichever way they were given."""
    if callable(metrics):
        metrics = (metrics,)
    if not isinstance(metrics, Mapping):
        listed = list(metrics) if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
        metrics = {getattr(metric, "__name__", type(metric).__name__): metric for metric in listed}
        if len(metrics) != len(listed):
            raise ValueError(
                f"metrics: expected distinct names, got {list(metrics)} for {len(listed)} metrics; "
                "name them: metrics={'low': ..., 'high': ...}."
            )
    for name, metric in metrics.items():
        if not callable(metric) or not isinstance(name, str) or name in reserved:
            raise ValueError(
                f"metrics: expected functions (prediction, target) under free names, got {metric!r} under {name!r}; "
                "use those of neuralops.metrics."
            )
    return dict(metrics)


def _check_shapes(op: Any, data: ArrayData | SourceData, judges: dict[str, Callable[..., Any]], name: str) -> None:
    """Refuses an operator whose output is not shaped like the targets, and a loss that is not one number."""
    shape, wanted = data.shapes
    prediction = jax.eval_shape(lambda op, u: op(u), op, jax.ShapeDtypeStruct(shape, data.dtypes[0]))
    if tuple(getattr(prediction, "shape", ())) != tuple(wanted):
        raise ValueError(
            f"{name}: expected outputs of shape {getattr(prediction, 'shape', None)}, what op makes of {shape}, got "
            f"{tuple(wanted)}; build the operator with these channels or bring the outputs to its grid."
        )
    for judge, function in judges.items():
        if not callable(function):
            raise ValueError(f"{judge}: expected a function (prediction, target), got {function!r}; use losses.l2().")
        value = jax.eval_shape(function, prediction, jax.ShapeDtypeStruct(wanted, data.dtypes[1]))
        if getattr(value, "shape", None) != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"{judge}: expected one real number per sample, got {value}; reduce it with jnp.mean "
                "(batches are averaged for you)."
            )
