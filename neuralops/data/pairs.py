"""Trajectories read as pairs of chosen frames and of what is kept beside them: the tasks one set is good for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralops.data.files.source import HDF5Source
from neuralops.data.samples import Samples, checked_index

Item = int | str | tuple[str, int]


class Pairs:
    """Inputs and outputs cut from trajectories when they are read; built by `pairs`.

    With `len` and indexing over samples: an integer gives one sample, a slice or numbers give `Samples`; `load()` gives
    all of them.
    """

    def __init__(self, trajectories: Samples, names: tuple[str, ...], grid: Any, inputs: Any, outputs: Any) -> None:
        self.trajectories, self.names, self.grid = trajectories, names, grid
        self.inputs, self.outputs = self._checked(inputs, "inputs"), self._checked(outputs, "outputs")
        self._query = None
        points = [self._points(items, name) for items, name in ((self.inputs, "inputs"), (self.outputs, "outputs"))]
        if points[0] != points[1]:
            if grid is None or points[1] != grid.shape:
                raise ValueError(
                    f"inputs, outputs: expected both on the same points, or outputs on the grid, got {points[0]} and "
                    f"{points[1]}; take trajectories that data.open returns, which know their grid."
                )
            self._query = grid.coordinates().astype(trajectories.inputs.dtype)

    def __len__(self) -> int:
        return len(self.trajectories)

    def __getitem__(self, index: Any) -> Samples:
        index = checked_index(index, len(self))
        rows = np.arange(len(self))[index]
        one = np.ndim(rows) == 0
        rows = rows[None] if one else rows
        residual, used = self.trajectories.residual_norm, {*self.inputs, *self.outputs}
        samples = Samples(
            self._taken(self.inputs, rows),
            self._taken(self.outputs, rows),
            None if residual is None else np.asarray(residual[rows]),
            query=self._query,
            extras={name: np.asarray(x[rows]) for name, x in self.trajectories.extras.items() if name not in used},
            shared=() if self._query is None else ("query",),
        )
        return samples[0] if one else samples

    def load(self) -> Samples:
        """All pairs in memory."""
        return self[:]

    def _checked(self, items: Any, argument: str) -> tuple[Item, ...]:
        items = tuple(items) if isinstance(items, list | tuple) and not self._is_field(items) else (items,)
        steps, extras = self.trajectories.inputs.shape[1], self.trajectories.extras
        for item in items:
            frame = item[1] if self._is_field(item) else item
            known = isinstance(item, str) and item in extras
            fits = isinstance(frame, int) and not isinstance(frame, bool) and -steps <= frame < steps
            if not (known or (fits and (isinstance(item, int) or item[0] in self.names))):
                raise ValueError(
                    f"{argument}: expected frames -{steps} to {steps - 1}, fields of a frame as (name, frame), names"
                    f" among {list(self.names)}, or extras among {sorted(extras)}, got {item!r}; name what is there."
                )
        if not items:
            raise ValueError(f"{argument}: expected at least one frame or extra, got none; give 0, the first frame.")
        return items

    @staticmethod
    def _is_field(item: Any) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and not isinstance(item[1], str)

    def _points(self, items: Sequence[Item], argument: str) -> tuple[int, ...]:
        """The points of all items, which must be the same."""
        frames = tuple(self.trajectories.inputs.shape[3:])
        shapes = [self.trajectories.extras[item].shape[1:] if isinstance(item, str) else frames for item in items]
        if any(tuple(shape) != tuple(shapes[0]) for shape in shapes):
            raise ValueError(
                f"{argument}: expected items on the same points, got {shapes} for {list(items)}; take them apart."
            )
        return tuple(shapes[0])

    def _taken(self, items: Sequence[Item], rows: np.ndarray) -> np.ndarray:
        return np.concatenate([self._channels(item, rows) for item in items], axis=1)

    def _channels(self, item: Item, rows: np.ndarray) -> np.ndarray:
        """One item, `(samples, channels, *points)`; of a file only what is asked for is read."""
        if isinstance(item, str):
            return np.asarray(self.trajectories.extras[item][rows])[:, None]
        frame = item[1] if isinstance(item, tuple) else item
        at = frame % self.trajectories.inputs.shape[1]
        whole = np.asarray(self.trajectories.inputs[rows, at : at + 1])[:, 0]
        return whole[:, self.names.index(item[0])][:, None] if isinstance(item, tuple) else whole


def pairs(trajectories: Any, *, inputs: Any, outputs: Any) -> Pairs:
    """Inputs and outputs from the frames of trajectories, and from what is kept beside them.

    ```python
    source = no.data.open("waves.h5")
    forward = no.data.pairs(source, inputs=[0, "sound_speed"], outputs=-1)
    backward = no.data.pairs(source, inputs=[-1, "sound_speed"], outputs=0)
    heard = no.data.pairs(source, inputs="records", outputs=("pressure", 0))
    ```

    **Arguments:**

    - `trajectories`: what `data.open` returns, or `Samples` with inputs `(samples, time, channels, *grid)`.
    - `inputs`, `outputs`: one item or a list, whose channels are stacked. An integer is a frame with all its fields, a
      pair `(name, frame)` one field of a file, a word one of the extras, `(samples, *points)`, as one channel.

    **Returns:** a source that `fit` and `evaluate` read sample by sample; `load()` gives `Samples`. Extras that are not
    used stay extras. Where inputs lie on other points than the grid, the outputs' points are the samples' `query`.

    **Raises:** `ValueError` on items that are not there, or that do not lie on the same points.
    """
    names: tuple[str, ...] = ()
    grid = None
    if isinstance(trajectories, HDF5Source):
        names, grid, trajectories = trajectories.input_fields, trajectories.grid, trajectories.lazy()
    shape = tuple(getattr(getattr(trajectories, "inputs", None), "shape", ()))
    if not isinstance(trajectories, Samples) or len(shape) < 4 or trajectories.outputs is not None:
        raise ValueError(
            "trajectories: expected frames alone, inputs (samples, time, channels, *grid), got "
            f"{type(trajectories).__name__} with inputs of shape {shape}; generate them with trajectories='pressure'."
        )
    return Pairs(trajectories, names, grid, inputs, outputs)
