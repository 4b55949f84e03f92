"""Fitting an operator to samples.

An epoch over arrays is one compiled loop on the device: the samples stay there, and each step gathers its batch
by a random permutation. The loop takes its bounds as arguments, so that a long epoch comes back every few seconds
(for the progress bar and Ctrl-C) without compiling again. A source that does not fit in memory goes through the
same loop, a few batches at a time, while a thread reads ahead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from neuralops.arguments import count, flag
from neuralops.checkpoint import leaves_of
from neuralops.operator import as_operator, original
from neuralops.training.evaluation import as_mesh, counted_by, named
from neuralops.training.feeds import Loaded, as_data
from neuralops.training.objectives import Supervised, supervised
from neuralops.training.outline import check_judges, check_objective
from neuralops.training.state import STATE, DivergedError, Folder, History, Run, copied, key_words, operator_words
from neuralops.training.steps import Pace, finite, per_batch, per_sample, run_feed

_RESERVED = ("loss", "validation", "seconds", "op", "optimizer_state")
_STEPS, _VALIDATION = 2**32 - 1, 2**32 - 2  # streams of the key beside those of the epochs


def fit(
    op: Any,
    data: Any,
    *,
    loss: Callable[..., Any] | None = None,
    objective: Callable[..., Any] | None = None,
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
    average: float | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[Any, History]:
    """Fits an operator to samples by stochastic gradient descent.

    **Arguments:**

    - `op`: an operator, or any callable pytree `(channels, *grid) -> (channels_out, *grid_out)` whose floating arrays
      are trained. It is left untouched. When it declares `op.project()`, that is applied after every step.
    - `data`: `Samples`, a pair `(inputs, outputs)` of arrays `(samples, channels, *grid)`, a mapping with `inputs` and
      `outputs` or `x` and `y`, or a source with `len` and integer indexing (`data.open(path)`, `data.windows(...)`),
      which is read lazily. Converted to the dtype of `op`. With `objective`, outputs may be missing, and any pytree
      of arrays with the samples first will do.
    - `loss`: `loss(prediction, target)` of one unbatched sample, one number, as in `neuralops.losses`; it is averaged
      over the batch. Stands for `objective=losses.supervised(loss)`.
    - `objective`: `objective(op, batch, *, key) -> scalar`, or `-> (scalar, report)` with a dictionary of scalars:
      anything that can be said of an operator and a batch, see `neuralops.training.objectives`. `key` is new at every
      step and the same again after a resume.
    - `optimizer`: any optax transformation; `value`, `grad` and `value_fn` are passed to those that want them.
    - `num_epochs`, `batch_size`: a last, smaller batch is trained on too, as it is, unless `drop_last`. It compiles a
      program of its own; choose a divisor of the number of samples where that matters.
    - `key`: fixes the order of the samples in every epoch, and what objectives draw.
    - `callback`: called as `callback(epoch, report)` after each epoch with `"loss"`, `"seconds"`, `"op"`,
      `"optimizer_state"`, what the objective reports and, with validation data, `"validation"` and the metrics;
      returning true ends the training.
    - `progress`: a bar on standard error.
    - `validation`: data like `data`, on which loss and `metrics` (as in `evaluate`) are taken after each epoch. A loss
      is taken sample by sample; an objective batch by batch, with keys that stay the same.
    - `checkpoint`: a folder that receives `state.safetensors`, from which the run can go on, and
      `best.safetensors`, the best operator for `neuralops.load`, every `checkpoint_every` epochs and at the end.
    - `resume`: goes on from that folder, or starts when it is empty. The parameters at the end are the same to
      the bit as without the interruption, on one device or on the same mesh.
    - `average`: a decay such as 0.999, for the exponential average of the parameters over the steps. It is what is
      validated, kept as the best and returned; `history.iterate` holds the parameters themselves. The first steps
      are averaged plainly, so that the start does not linger.
    - `mesh`: divides every batch over the first axis of a `jax.sharding.Mesh`, the operator being the same on each
      device: one all-reduce of the gradients per step. A batch that the devices do not divide is computed on each.

    **Returns:** the operator after the last epoch, and a `History` that also holds the best one. Ctrl-C ends the
    training early and returns what there is.

    **Raises:** `ValueError` on arguments that do not fit, before anything is computed (a source is checked batch
    by batch); `DivergedError` when a loss or a parameter becomes NaN or infinite.
    """
    op = as_operator(op)
    leaves = leaves_of(op)
    num_epochs, batch_size = count(num_epochs, "num_epochs"), count(batch_size, "batch_size")
    checkpoint_every = count(checkpoint_every, "checkpoint_every")
    resume, drop_last, progress = flag(resume, "resume"), flag(drop_last, "drop_last"), flag(progress, "progress")
    if not callable(getattr(optimizer, "init", None)) or not callable(getattr(optimizer, "update", None)):
        raise ValueError(
            f"optimizer: expected an optax transformation, got {type(optimizer).__name__}; use optax.adam(1e-3)."
        )
    if average is not None and not (isinstance(average, float | np.floating) and 0 < average < 1):
        raise ValueError(f"average: expected a decay between 0 and 1 or None, got {average!r}; give e.g. 0.999.")
    goal: Any = _as_objective(loss, objective)
    labels = isinstance(goal, Supervised) and goal.where is None
    words, generator = key_words(key)
    mesh = as_mesh(mesh)
    if mesh is None and any(len(x.sharding.device_set) > 1 for x in jax.tree.leaves(op) if isinstance(x, jax.Array)):
        raise ValueError("op: expected parameters on one device, got some that are spread over several; give mesh=.")
    loaded = Loaded(jnp.result_type(*leaves.values()), mesh)
    judges = named(metrics, _RESERVED)
    metric_names = tuple(judges)
    if labels:
        judges = {"validation": goal.loss, **judges}
    train = as_data(data, loaded, "data", labels=labels, counted=counted_by({"loss": goal.loss} if labels else {}))
    if batch_size > train.num_samples:
        raise ValueError(
            f"batch_size: expected at most the {train.num_samples} samples there are, got {batch_size}; "
            "take a smaller batch."
        )
    if labels:
        check_judges(op, train.like(1), {"loss": goal.loss}, "data", scalar=True)
    reports, looped = check_objective(op, goal, train.like(batch_size), (*_RESERVED, *metric_names))
    test = None
    if validation is not None:
        test = as_data(validation, loaded, "validation", labels=bool(judges), counted=counted_by(judges))
        if judges:
            check_judges(op, test.like(1), judges, "validation", scalar=True)
    elif metric_names:
        raise ValueError("metrics: they are taken on validation data, got none; give validation=(inputs, outputs).")
    if resume and checkpoint is None:
        raise ValueError("resume: expected a folder to go on from, got checkpoint=None; give checkpoint='folder'.")
    folder = None
    if checkpoint is not None:
        settings = {"operator": operator_words(op), "num_samples": train.num_samples,
                    "shapes": [list(x.shape[1:]) for x in jax.tree.leaves(train.like(1))],
                    "batch_size": batch_size, "drop_last": drop_last, "key": words, "generator": generator,
                    "validated": sorted({*judges, "validation"}) if test is not None else [], "average": average,
                    "devices": 1 if mesh is None else mesh.shape[mesh.axis_names[0]]}  # fmt: skip
        folder = Folder(checkpoint, settings)
        if not resume and (folder.path / STATE).exists():
            raise ValueError(
                f"checkpoint: expected a folder without a training state, got {str(checkpoint)!r}, which holds one; "
                "pass resume=True to go on from it, or choose another folder."
            )

    start = copied(op)
    run = Run(start, copied(optimizer.init(start)), None if average is None else copied(op), good=op, best=op)
    if folder is not None and resume and (folder.path / STATE).exists():
        run = folder.read(run)
    if mesh is not None:
        run.op, run.opt_state, run.average = jax.device_put((run.op, run.opt_state, run.average), loaded.place)
    pace, stopped, unsaved = Pace(looped), "finished", False
    size = train.num_samples - train.num_samples % batch_size if drop_last else train.num_samples
    steps = -(-size // batch_size)
    bar = tqdm(total=num_epochs * steps, initial=run.epoch * steps, unit="step", disable=not progress)
    draws, fixed = jax.random.fold_in(key, _STEPS), jax.random.fold_in(key, _VALIDATION)
    names = tuple(name for name in reports if name != "loss")

    def history(stopped: str = "finished") -> History:
        return run.history(metric_names, names, test is not None, stopped, original)

    try:
        while run.epoch < num_epochs:
            epoch = run.epoch
            bar.set_description(f"epoch {epoch + 1}/{num_epochs}", refresh=False)
            began = time.perf_counter()
            order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), train.num_samples))[:size]
            log: dict[str, list[float]] = {name: [] for name in reports}
            counts: list[int] = []
            for feed in train.feeds(order, batch_size):
                first = epoch * steps + len(counts)
                for values in run_feed(run, feed, goal, optimizer, pace, key=draws, first=first, reports=reports,
                                       average=average, mesh=mesh):  # fmt: skip
                    if not np.isfinite(values["loss"]).all():
                        step = len(log["loss"]) + int(np.flatnonzero(~np.isfinite(values["loss"]))[0])
                        raise DivergedError(epoch, step, original(run.good), history())
                    for name, column in values.items():
                        log[name].extend(column)
                    bar.update(len(values["loss"]))
                counts.extend([feed.rows.shape[1]] * feed.steps)
            if not bool(finite(run.judged)) or not bool(finite(run.op)):
                raise DivergedError(epoch, None, original(run.good), history())
            row = {name: float(np.average(column, weights=counts)) for name, column in log.items()}
            row["seconds"] = time.perf_counter() - began
            run.good = copied(run.judged)
            if test is not None:
                if not labels:
                    row["validation"] = per_batch(run.good, test, goal, batch_size, fixed, mesh)
                if judges:
                    taken = per_sample(run.good, test, judges, batch_size, mesh)
                    row |= {name: float(x.mean()) for name, x in taken.items()}
            unsaved |= run.finish_epoch(row)
            bar.set_postfix({name: f"{x:.3g}" for name, x in row.items() if name != "seconds"}, refresh=False)
            due = run.epoch % checkpoint_every == 0 or run.epoch >= num_epochs
            if folder is not None and due:  # before the callback, which may fail
                folder.write(run, unsaved)
                unsaved = False
            if callback is not None:
                report = {**row, "op": original(run.good), "optimizer_state": copied(run.opt_state)}
                answer = callback(epoch, report)
                if answer is not None and flag(answer, "callback"):
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
    return original(run.good), history(stopped)


def _as_objective(loss: Any, objective: Any) -> Any:
    """The one thing that is minimised."""
    if (loss is None) == (objective is None):
        came = "neither" if loss is None else "both"
        raise ValueError(
            f"loss, objective: expected one of them, got {came}; give loss=losses.l2() for pairs, or "
            "objective=losses.weighted_sum({...}) for several terms."
        )
    if objective is None:
        return supervised(loss)
    if not callable(objective):
        raise ValueError(
            f"objective: expected a function (op, batch, *, key), got {objective!r}; "
            "use losses.supervised(loss) or losses.physics(problem)."
        )
    return objective
