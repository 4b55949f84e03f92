"""Arrays that stay in a file until they are indexed."""

from __future__ import annotations

from typing import Any

import numpy as np


class LazyArray:
    """One or several arrays of a file as one, read where it is indexed.

    **Arguments:**

    - `source`: what has `array(path)`, an array of HDF5 with the samples first. It is opened anew in each process, so
      a lazy array can be pickled and survives a fork.
    - `paths`: several are the channels of one array.
    - `axis`: where the channel axis stands; `None` for a single array without.

    Indexing with an integer, a slice or sample numbers in any order along the samples, and beside them a slice along
    time where the channels stand behind it, gives a NumPy array.
    """

    def __init__(self, source: Any, paths: tuple[str, ...], axis: int | None = None) -> None:
        self.source, self.paths, self.axis = source, paths, axis
        first = source.array(paths[0])
        shape = list(first.shape)
        if axis is not None:
            shape.insert(axis, len(paths))
        self.shape, self.dtype = tuple(shape), first.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        index = index if isinstance(index, tuple) else (index,)
        rows, rest = index[0], index[1:]
        if rest and (self.axis is None or len(rest) >= self.axis or not all(isinstance(i, slice) for i in rest)):
            raise IndexError(f"index: expected samples and slices before the channels of {self}, got {index!r}.")
        runs, back = self._runs(rows)
        channels = []
        for path in self.paths:
            parts = [np.asarray(self.source.array(path)[(run, *rest)]) for run in runs]
            channels.append((parts[0] if len(parts) == 1 else np.concatenate(parts))[back])
        return channels[0] if self.axis is None else np.stack(channels, self.axis - isinstance(runs[0], int))

    def _runs(self, rows: Any) -> tuple[list[int | slice], Any]:
        """What to read, and the rows in that: HDF5 reads forwards, each row once, and neighbours best together."""
        if isinstance(rows, slice):
            chosen = range(*rows.indices(len(self)))
            forwards = chosen if chosen.step > 0 else chosen[::-1]
            run = slice(forwards.start, forwards.stop, forwards.step) if len(chosen) else slice(0, 0)
            return [run], slice(None, None, 1 if chosen.step > 0 else -1)
        numbers = np.arange(len(self))[rows]
        if numbers.ndim == 0:
            return [int(numbers)], ...
        read, back = np.unique(numbers, return_inverse=True)
        runs = np.split(read, np.flatnonzero(np.diff(read) != 1) + 1)
        return [slice(int(run[0]), int(run[-1]) + 1) if len(run) else slice(0, 0) for run in runs], back

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)}, {', '.join(self.paths)})"
