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
        back: Any = ...
        if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"index: expected one of {len(self)} samples, got {rows}.")
            rows = int(rows) % len(self)
        elif not isinstance(rows, slice) or (rows.step or 1) < 0:
            # HDF5 reads forwards, each row once.
            rows, back = np.unique(np.arange(len(self))[rows], return_inverse=True)
        parts = [np.asarray(self.source.array(path)[(rows, *rest)])[back] for path in self.paths]
        return parts[0] if self.axis is None else np.stack(parts, self.axis - isinstance(rows, int))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)}, {', '.join(self.paths)})"
