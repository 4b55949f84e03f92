"""A training run that can be written down after every epoch and taken up again to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import as_path, file_to_write
from neuralops.checkpoint import describe, leaves_of, load, read_arrays, save, to_device, write_arrays
from neuralops.operator import named_leaves

STATE, BEST = "state.safetensors", "best.safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """What happened in a training run; epochs are counted from 0.

    **Fields:**

    - `loss`: `(epochs,)`, the mean training loss while each epoch ran.
    - `validation`: `(epochs,)`, the mean loss on the validation data after it; `None` without such data.
    - `metrics`: by name, `(epochs,)`, the mean of each metric on the validation data.
    - `seconds`: `(epochs,)`, wall time of training without validation; the first epoch includes compiling.
    - `best_epoch`, `best`: the epoch with the smallest validation loss (training loss without validation
      data) and the operator after it; -1 and the operator given when no epoch was finished.
    - `stopped`: why it ended: `"finished"`, `"callback"` or `"interrupted"` (Ctrl-C).
    - `reports`: by name, `(epochs,)`, the mean of each number that the objective reports.
    - `optimizer_state`: what the optimiser carries after the last epoch; schedule-free optimisers need it to tell the
      parameters that they mean (`optax.contrib.schedule_free_eval_params`).
    - `iterate`: the operator as the optimiser left it; with `fit(average=)`, what the average was taken of.
    """

    loss: np.ndarray
    validation: np.ndarray | None
    metrics: dict[str, np.ndarray]
    seconds: np.ndarray
    best_epoch: int
    best: Any
    stopped: str = "finished"
    reports: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    optimizer_state: Any = None
    iterate: Any = None


class DivergedError(FloatingPointError):
    """Training met a loss or a parameter that is NaN or infinite.

    **Attributes:** `epoch` and `step` (counted from 0; `step` is `None` when the parameters went wrong after the
    last step), `op` (after the last epoch that stayed finite; the operator given to `fit` when there was none) and
    `history` of those epochs, with its `best`. A checkpoint folder still holds the last such state.
    """

    def __init__(self, epoch: int, step: int | None, op: Any, history: History) -> None:
        where = f"epoch {epoch}, step {step}" if step is not None else f"the parameters after epoch {epoch}"
        super().__init__(
            f"training met NaN or infinity in {where} (counted from 0); take a smaller learning rate, clip the "
            "gradients (optax.clip_by_global_norm) or look at the loss. The last good operator is this error's .op."
        )
        self.epoch, self.step, self.op, self.history = epoch, step, op, history

    def __reduce__(self) -> Any:  # exceptions are pickled by their message alone otherwise
        return type(self), (self.epoch, self.step, self.op, self.history)


def copied(tree: Any) -> Any:
    """Fresh, strongly typed buffers, so that donating them does not take the caller's away."""
    return jax.tree.map(lambda x: jnp.array(x, dtype=jnp.asarray(x).dtype, copy=True), tree)


@dataclasses.dataclass
class Run:
    """The state of a training run between two epochs."""

    op: Any
    opt_state: Any
    average: Any  # of `op` over the steps, `None` when nobody asked
    good: Any  # a copy of what is judged, `op` or its average, never donated
    best: Any
    best_epoch: int = -1
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)  # one per epoch

    @property
    def epoch(self) -> int:
        return len(self.rows)

    @property
    def judged(self) -> Any:
        return self.op if self.average is None else self.average

    def finish_epoch(self, row: dict[str, float]) -> bool:
        """Adds an epoch; says whether it is the best so far."""
        judged = "validation" if "validation" in row else "loss"
        best = self.rows[self.best_epoch][judged] if self.rows else math.inf
        better = self.best_epoch < 0 or row[judged] < best or (math.isnan(best) and not math.isnan(row[judged]))
        self.rows.append(row)
        if better:
            self.best, self.best_epoch = self.good, self.epoch - 1
        return better

    def history(
        self, metrics: tuple[str, ...], reports: tuple[str, ...], validated: bool, stopped: str, back: Any
    ) -> History:
        """The history, with operators handed through `back`, as their owner knows them."""

        def column(name: str) -> np.ndarray:
            return np.array([row[name] for row in self.rows], np.float64)

        return History(
            loss=column("loss"),
            validation=column("validation") if validated else None,
            metrics={name: column(name) for name in metrics},
            seconds=column("seconds"),
            best_epoch=self.best_epoch,
            best=back(self.best),
            stopped=stopped,
            reports={name: column(name) for name in reports},
            optimizer_state=copied(self.opt_state),
            iterate=back(self.good if self.average is None else copied(self.op)),
        )


def _plain(leaf: Any) -> np.ndarray:
    """A leaf of an optimiser's state as an array; random keys by their data."""
    return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)


def key_words(key: Any) -> tuple[list[int], str]:
    """The numbers and the generator of a random key.

    **Raises:** `ValueError` when it is none.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ():
        return np.asarray(jax.random.key_data(key)).tolist(), str(jax.random.key_impl(key))
    if dtype == jnp.uint32 and key.ndim == 1:
        return np.asarray(key).tolist(), "raw"
    raise ValueError(f"key: expected one random key, got {type(key).__name__}; use jax.random.key(0).")


class Folder:
    """The files of a training run: its whole state, and the best operator by itself.

    **Arguments:**

    - `path`: the folder; made when absent.
    - `settings`: what must agree for a run to be continued, as JSON values.
    """

    def __init__(self, path: str | os.PathLike[str], settings: dict[str, Any]) -> None:
        self.path, self.settings = as_path(path, "checkpoint"), json.loads(json.dumps(settings))  # as it is read back
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                f"checkpoint: expected a folder, got the file {str(path)!r}; give a folder, which receives two files."
            )
        file_to_write(self.path / STATE, "checkpoint")

    def write(self, run: Run, best_is_new: bool) -> None:
        """Writes the state, each file complete or not at all; the best operator first, so that a state never
        speaks of one that is not there."""
        if best_is_new:
            save(self.path / BEST, run.best)
        arrays = {f"op.{name}": x for name, x in leaves_of(run.op).items()}
        if run.average is not None:
            arrays |= {f"average.{name}": x for name, x in leaves_of(run.average).items()}
        arrays |= {f"optimizer.{name}": _plain(leaf) for name, leaf in named_leaves(run.opt_state).items()}
        names = list(run.rows[0])
        arrays |= {f"history.{name}": np.array([row[name] for row in run.rows], np.float64) for name in names}
        about = {"kind": "training state", "settings": self.settings, "best_epoch": run.best_epoch, "rows": names}
        write_arrays(self.path / STATE, arrays, about)

    def read(self, fresh: Run) -> Run:
        """The state in the folder, with the structure of `fresh`.

        **Raises:** `ValueError` when the run in the folder was another one, or a file is damaged.
        """
        for left_over in self.path.glob(".*.safetensors.*.tmp"):  # of a run that was killed while it wrote
            left_over.unlink(missing_ok=True)
        arrays, about = read_arrays(self.path / STATE, "training state")
        stored = about.get("settings")
        for name, value in self.settings.items():
            if not isinstance(stored, dict) or stored.get(name) != value:
                there = stored.get(name) if isinstance(stored, dict) else stored
                raise ValueError(
                    f"resume: the run in {str(self.path)!r} had {name} = {there!r}, now it is {value!r}; "
                    "use the same arguments, or another folder for a new run."
                )
        try:
            op, opt_state, average = (
                copied(self._filled(part, tree, arrays))
                for part, tree in (("op", fresh.op), ("optimizer", fresh.opt_state), ("average", fresh.average))
            )
            columns = [(name, arrays[f"history.{name}"]) for name in about["rows"]]
            rows = [{name: float(column[i]) for name, column in columns} for i in range(len(columns[0][1]))]
            best_epoch = int(about["best_epoch"])
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"resume: the state in {str(self.path)!r} is damaged ({error}); start again in another folder."
            ) from error
        best = load(self.path / BEST, like=fresh.op)
        return Run(op, opt_state, average, copied(op if average is None else average), best, best_epoch, rows)

    def _filled(self, part: str, tree: Any, arrays: dict[str, np.ndarray]) -> Any:
        wanted = named_leaves(tree)
        stored = {name.removeprefix(part + "."): x for name, x in arrays.items() if name.startswith(part + ".")}
        for name in sorted(set(wanted) | set(stored)):
            here = _plain(wanted[name]) if name in wanted else None
            there = stored.get(name)
            if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
                said = [None if x is None else f"{x.dtype}{list(x.shape)}" for x in (there, here)]
                raise ValueError(
                    f"resume: the run in {str(self.path)!r} had another {part}: {name!r} is {said[0]} there and "
                    f"{said[1]} here; use the same arguments, or another folder for a new run."
                )
        leaves = []
        for name, leaf in wanted.items():
            x = to_device(stored[name], str(self.path / STATE))
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            leaves.append(jax.random.wrap_key_data(x, impl=jax.random.key_impl(leaf)) if is_key else x)
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def operator_words(op: Any) -> Any:
    """Class and arguments of an operator for comparison, `None` when they are no plain values."""
    about = describe(op)
    extra = [about[name] for name in ("parts", "ensemble") if name in about]
    return [about["class"], about["config"], *extra] if about["class"] else None
