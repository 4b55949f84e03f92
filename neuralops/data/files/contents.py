"""What a file holds beside plain fields on a grid: times, points, masks and extras, and where each of them lies.

The Well has words for fields on a grid and for their times; the rest stands under names of our own:

| in the file | holds |
| --- | --- |
| `t0_fields/<field>` | a field on the grid, `(samples, *grid)`; of a trajectory `(samples, steps, *grid)` |
| `dimensions/time` | the times of the steps |
| `t0_fields/<name>` | also an array of `samples.extras` that is a field beside a trajectory, constant in time |
| `neuralops_fields/<field>` | a field on points without a grid, or an output on other points than the inputs, alike |
| `neuralops_points/<name>` | `coords`, `query`, `mask`, `query_mask`, as in `Samples` |
| `neuralops_extras/<name>` | an array of `samples.extras` |

An array that all samples share has no sample axis and says `sample_varying = False`. The root attribute
`neuralops_contents` (JSON) promises all of it. Files without any of this have no such attribute and schema 1.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from neuralops.arguments import check_plain
from neuralops.data.samples import POINTS, Samples, as_samples, check_samples
from neuralops.grid import Grid

FIELDS_GROUP, POINTS_GROUP, EXTRAS_GROUP = "neuralops_fields", "neuralops_points", "neuralops_extras"
_KINDS = "biufc"  # truth values, integers, real and complex numbers


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array beside the fields: its name in `Samples` or among its extras, shape of one sample, dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    shared: bool = False
    extra: bool = False
    constant: bool = False  # an extra that is a field on the grid of a trajectory, which does not change with time

    def __post_init__(self) -> None:
        if self.extra:
            check_name(self.name, "extras")
        elif self.name not in POINTS:
            raise ValueError(f"name: expected one of {POINTS}, got {self.name!r}; use these names.")
        if type(self.shared) is not bool or type(self.extra) is not bool or (self.shared and self.extra):
            raise ValueError(
                f"{self.name}: expected points to be shared or not, extras not, got {self}; write it again."
            )
        if type(self.constant) is not bool or self.constant > self.extra:
            raise ValueError(f"{self.name}: expected only extras to be fields, got {self}; write it again.")
        truth = self.dtype == "bool"
        if (
            not isinstance(self.dtype, str)
            or np.dtype(self.dtype).kind not in _KINDS
            or (not self.extra and truth != self.name.endswith("mask"))
        ):
            raise ValueError(
                f"{self.name}: expected truth values for masks, numbers for points and either for extras, got dtype "
                f"{self.dtype}; convert it with astype."
            )

    @property
    def group(self) -> str:
        return "t0_fields" if self.constant else EXTRAS_GROUP if self.extra else POINTS_GROUP

    @property
    def path(self) -> str:
        return f"{self.group}/{self.name}"

    def whole_shape(self, num_samples: int) -> tuple[int, ...]:
        """The shape in the file."""
        return self.shape if self.shared else (num_samples, *self.shape)

    def of(self, samples: Samples) -> Any:
        """The array in `Samples`."""
        return samples.extras[self.name] if self.extra else getattr(samples, self.name)


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds beside plain fields on a grid.

    **Fields:** `steps`, how many times a trajectory has, 0 when fields have none; `points`, the shape of the inputs'
    points where there is no grid; `points_out`, that of the outputs' where they lie elsewhere; the other `arrays`.
    """

    steps: int = 0
    points: tuple[int, ...] | None = None
    points_out: tuple[int, ...] | None = None
    arrays: tuple[Stored, ...] = ()

    def as_json(self) -> str:
        """In one fixed order, so that equal contents give equal bytes."""
        values = dataclasses.asdict(self)
        for array in values["arrays"]:
            if not array["constant"]:  # a later word: what has no use for it keeps its bytes
                del array["constant"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def of(cls, text: str) -> Contents:
        """What `as_json` wrote.

        **Raises:** `ValueError`, `TypeError` or `KeyError` on anything else.
        """
        values = json.loads(text)
        arrays = [Stored(**{**entry, "shape": _sizes(entry["shape"])}) for entry in values["arrays"]]
        steps, points, points_out = values["steps"], values["points"], values["points_out"]
        _sizes([steps])
        names = [array.path for array in arrays]
        if set(values) != {field.name for field in dataclasses.fields(cls)} or len(set(names)) != len(names):
            raise ValueError(f"contents: expected distinct arrays, got {text[:200]}; write the file again.")
        return cls(
            steps,
            None if points is None else _sizes(points),
            None if points_out is None else _sizes(points_out),
            tuple(arrays),
        )

    @property
    def shared(self) -> tuple[str, ...]:
        """The fields of `Samples` that hold one array for all samples."""
        return tuple(array.name for array in self.arrays if array.shared)

    @property
    def constants(self) -> tuple[str, ...]:
        """The extras that are fields which do not change with time."""
        return tuple(array.name for array in self.arrays if array.constant)

    def get(self, name: str) -> Stored | None:
        """The entry of a field of `Samples`."""
        return next((array for array in self.arrays if array.name == name and not array.extra), None)

    def misfits(self, grid: Grid | None, labels: bool) -> list[str]:
        """Points and masks whose shapes are not those of the fields beside them, in words."""
        found = []
        for array in self.arrays:
            output = array.name.startswith("query")
            if array.constant and grid is not None and array.shape != grid.shape:
                found.append(f"{array.path} has shape {array.shape} in a sample, but the grid is {grid.shape}")
            if array.extra or (output and not labels):
                continue
            shape, points = array.shape, self.place(output, grid)[1][bool(self.steps) :]
            if shape[not array.name.endswith("mask") :] != points:
                found.append(f"{array.path} has shape {shape} in a sample, which does not fit fields on {points}")
        return found

    def place(self, output: bool, grid: Grid | None) -> tuple[str, tuple[int, ...]]:
        """The group of the fields and the shape of one of them in one sample."""
        points = self.points_out if output and self.points_out is not None else self.points
        group = "t0_fields" if points is None else FIELDS_GROUP
        if points is None:
            assert grid is not None
            points = grid.shape
        return group, (self.steps, *points) if self.steps else points


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError(f"expected a list of sizes, got {values!r}")
    return tuple(values)


def check_name(name: Any, argument: str) -> None:
    """Refuses what cannot name an array in a file.

    **Raises:** `ValueError`.
    """
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise ValueError(f"{argument}: expected plain names, got {name!r}; use letters.")


def describe(samples: Any, grid: Grid | None, times: Any) -> tuple[Samples, Contents, np.ndarray | None]:
    """Samples to be written, checked, with what the file will hold and the times of its steps.

    **Raises:** `ValueError` on what `check_samples` refuses, on times that do not fit, points without coordinates and
    extras that are no numbers.
    """
    samples = as_samples(samples)
    rank = np.ndim(samples.inputs)
    if times is None and (grid is None or rank != grid.ndim + 3):
        steps = 0
        coords, inputs = np.shape(samples.coords), np.shape(samples.inputs)
        if grid is None and rank > 3 and inputs[2:] != coords[1:] and inputs[3:] in (coords[1:], coords[2:]):
            raise ValueError(
                f"times: expected the times of trajectories on points, got none beside inputs {inputs} at coords "
                f"{coords}; give times=np.arange({inputs[1]}.0)."
            )
    else:
        times = _check_times(samples, rank, times)
        steps = len(times)
    fields = {name: getattr(samples, name) for name in ("residual_norm", *POINTS)}
    # Time goes among the channels while we look: points, masks and what is shared are then judged by their ranks.
    folded = {name: _folded(getattr(samples, name), steps) for name in ("inputs", "outputs")}
    checked = check_samples(Samples(**folded, **fields, extras=samples.extras), labels=False)
    if grid is None and checked.coords is None:
        raise ValueError(
            "grid: expected a grid, or samples with coords, got neither; give grid=Grid(...) for fields on a grid and "
            "Samples(..., coords=...) for points."
        )
    checked = checked.map(np.asarray, np.asarray)
    arrays = []
    for name in POINTS:
        x, shared = getattr(checked, name), name in checked.shared
        if x is not None:
            dtype = "bool" if x.dtype == bool else str(np.promote_types(x.dtype, np.float32))
            arrays.append(Stored(name, x.shape if shared else x.shape[1:], dtype, shared))
    for name, x in sorted(checked.extras.items()):
        check_name(name, "samples.extras")
        if x.dtype.kind not in _KINDS:
            raise ValueError(
                f"samples.extras[{name!r}]: expected numbers or truth values, got dtype {x.dtype}; convert it with "
                "astype."
            )
        constant = bool(steps) and grid is not None and x.shape[1:] == grid.shape and x.dtype.kind == "f"
        arrays.append(Stored(name, x.shape[1:], str(x.dtype), extra=True, constant=constant))
    inside = checked.inputs.shape[2:]
    outside = None if checked.outputs is None else checked.outputs.shape[2:]
    apart = outside is not None and (checked.query is not None or (grid is None and outside != inside))
    contents = Contents(steps, inside if grid is None else None, outside if apart else None, tuple(arrays))
    back = {name: _unfolded(getattr(checked, name), steps) for name in ("inputs", "outputs")}
    return checked.replace(**back, shared=checked.shared), contents, times if steps else None


def _check_times(samples: Samples, rank: int, times: Any) -> np.ndarray:
    if rank < 4:
        raise ValueError(
            f"times: expected inputs (samples, time, channels, *points) beside times, got shape "
            f"{np.shape(samples.inputs)}; leave times out for fields at one time."
        )
    steps = np.shape(samples.inputs)[1]
    times = np.arange(steps, dtype=np.float64) if times is None else np.asarray(times)
    if times.dtype.kind in "iu":
        times = times.astype(np.float64)
    fits = times.shape == (steps,) and times.dtype.kind == "f" and bool(np.isfinite(times).all())
    if not fits or not steps or not (np.diff(times) > 0).all():
        raise ValueError(
            f"times: expected {steps} increasing numbers, one per frame of inputs {np.shape(samples.inputs)}, got "
            f"{times.dtype} of shape {times.shape}; give np.linspace(start, end, {steps})."
        )
    outputs = samples.outputs
    if outputs is not None and (np.ndim(outputs) < 4 or np.shape(outputs)[1] != steps):
        raise ValueError(
            f"samples.outputs: expected trajectories of {steps} frames beside those of the inputs, got shape "
            f"{np.shape(outputs)}; give one output per frame, or none."
        )
    return times.astype(np.promote_types(times.dtype, np.float32))


def _folded(x: Any, steps: int) -> Any:
    if x is None or not steps:
        return x
    check_plain(x, "samples")
    shape = np.shape(x)
    return np.asarray(x).reshape(shape[0], steps * shape[2], *shape[3:])


def _unfolded(x: Any, steps: int) -> Any:
    return x if x is None or not steps else x.reshape(len(x), steps, x.shape[1] // steps, *x.shape[2:])
