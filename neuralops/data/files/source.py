"""Samples on disk: opened lazily, read sample by sample, checked before they are believed."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import h5py
import numpy as np

from neuralops.arguments import existing_file
from neuralops.data.files.checking import blocks, spoiled, violations
from neuralops.data.files.layout import Header, little_endian
from neuralops.data.files.lazy import LazyArray
from neuralops.data.samples import FIELDS, Samples
from neuralops.grid import Grid

_FAILURES = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError)


class HDF5Source:
    """A file written by `generate` or `write`, read lazily.

    `source[i]` is a dictionary of NumPy arrays, `"inputs"` `(channels, *grid)` and `"outputs"` alike, and where the
    file has them `"coords"`, `"query"`, `"mask"`, `"query_mask"` and a dictionary `"extras"`, as in `Samples`;
    `source[i:j]`, `source[[3, 1, 1]]` and `source[mask]` the same with a sample axis in front, as an array gives
    them; `source.load()` all of it as `Samples`. With `len` and integer indexing alone it is a data source for
    Grain and a map-style data set for PyTorch's loader: plain dictionaries are what both put together into batches.

    The fields named in `source.shared` hold one array for all samples. It is read once, is the same object in
    every item (do not write into it) and has no sample axis in `source[i:j]`; `fit` and `evaluate` keep it single. A
    loader that stacks all fields makes one array per sample of it, which means the same.

    Of a trajectory `"inputs"` are `(time, channels, *grid)`; `data.windows(source)` reads the frames it needs.

    The file is opened at the first read in each process, so a source can be pickled and survives a fork. Use
    it in a `with` block, or `close()` it; reading again opens it again.

    **Raises:** `FileNotFoundError`; `ValueError` when the file is cut short, foreign or breaks the layout.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A worker process may run in another folder.
        self.path = existing_file(path, mend="make it with generate(...), or check the name").absolute()
        self._handle: tuple[int, h5py.File] | None = None
        self._lazy: Samples | None = None
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise ValueError(
                f"path: expected an HDF5 file, got {str(path)!r}, which HDF5 cannot open ({error}); it is cut short or "
                "of another format, delete it and generate or fetch it again."
            ) from error
        with file:
            try:
                self.header = Header.of(file)
                found = violations(file, self.header)
                self._length = 0 if found else int(file.attrs["n_trajectories"])
            except _FAILURES as error:
                raise ValueError(
                    f"path: expected a file of neuralops.data.generate, got {str(path)!r}: {error}."
                ) from error
        if found:
            raise ValueError(
                f"path: {str(path)!r} breaks the layout of neuralops.data: {'; '.join(found)}; "
                "delete it and generate it again."
            )

    @property
    def grid(self) -> Grid | None:
        """The grid of all fields; `None` when they lie on points without one."""
        return self.header.grid

    @property
    def shared(self) -> tuple[str, ...]:
        """The fields of `Samples` that are one array for all samples."""
        return self.header.contents.shared

    @property
    def times(self) -> np.ndarray | None:
        """The times of the frames of trajectories, `(time,)`; `None` when fields are given at one time."""
        return self._file["dimensions/time"][:] if self.header.contents.steps else None

    @property
    def problem(self) -> str:
        """The name of the problem, such as `"Darcy"`."""
        return self.header.problem

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of the problem."""
        return json.loads(self.header.parameters)

    @property
    def input_fields(self) -> tuple[str, ...]:
        return self.header.input_fields

    @property
    def output_fields(self) -> tuple[str, ...]:
        return self.header.output_fields

    @property
    def residual_norm(self) -> np.ndarray | None:
        """The relative residual of each label, `(samples,)` in float64; `None` when the file has none."""
        scalars = self._file["scalars"]
        return scalars["residual_norm"][:] if "residual_norm" in scalars else None

    @property
    def _file(self) -> h5py.File:
        if self._handle is None or self._handle[0] != os.getpid():  # a handle does not survive a fork
            self._handle = (os.getpid(), h5py.File(self.path, "r"))
        return self._handle[1]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> dict[str, Any]:
        rows = index if isinstance(index, slice) else self._rows(index)
        lazy = self.lazy()
        sample = {
            name: x if name in lazy.shared else x[rows]
            for name in FIELDS
            if (x := getattr(lazy, name)) is not None and name != "residual_norm"
        }
        extras = {name: x[rows] for name, x in lazy.extras.items()}
        return {**sample, "extras": extras} if extras else sample

    def _rows(self, index: Any) -> np.ndarray:
        """The numbers of the samples that an integer, integers or a mask name, from 0, a mask's in order."""
        try:
            rows = np.asarray(None if isinstance(index, tuple) else index)  # a tuple would index several axes
        except ValueError:  # lists of several lengths
            rows = np.asarray(None)
        if rows.shape == (0,) and not hasattr(index, "dtype"):
            rows = rows.astype(int)  # an empty list
        mask = rows.dtype == bool and rows.ndim == 1
        if rows.ndim > 1 or not (mask or np.issubdtype(rows.dtype, np.integer)):
            raise ValueError(
                f"index: expected an integer, a slice, a list of integers or a mask, got {index!r}; take source.load() "
                "for the rest."
            )
        if mask and len(rows) != len(self):
            raise IndexError(f"index: expected a mask of {len(self)} samples, got one of {len(rows)}.")
        rows = np.flatnonzero(rows) if mask else rows.astype(np.int64)
        outside = rows[(rows < -len(self)) | (rows >= len(self))]
        if outside.size:
            raise IndexError(f"index: expected one of {len(self)} samples, got {outside.ravel()[0]}.")
        return np.where(rows < 0, rows + len(self), rows)

    def array(self, path: str) -> h5py.Dataset:
        """An array of the file under its path, such as `"t0_fields/u"`, for tools that read HDF5 themselves.

        It belongs to this process and is closed with the source.
        """
        return self._file[path]

    def lazy(self) -> Samples:
        """All samples as `Samples` whose arrays stay in the file until they are indexed.

        Each has `shape`, `dtype` and indexing along its first two axes, `x[which, start:stop]`, which reads what it is
        asked for and returns NumPy arrays. What all samples share is in memory.
        """
        if self._lazy is None:
            place, steps = self.header.place, self.header.contents.steps
            arrays: dict[str, Any] = {}
            for name, fields in (("inputs", self.input_fields), ("outputs", self.output_fields)):
                if fields:
                    paths = tuple(f"{place(field)[0]}/{field}" for field in fields)
                    arrays[name] = LazyArray(self, paths, 2 if steps else 1)
            extras: dict[str, Any] = {}
            for array in self.header.contents.arrays:
                x = self._file[array.path][...] if array.shared else LazyArray(self, (array.path,))
                (extras if array.extra else arrays)[array.name] = x
            residual = LazyArray(self, ("scalars/residual_norm",)) if "residual_norm" in self._file["scalars"] else None
            self._lazy = Samples(**arrays, residual_norm=residual, extras=extras, shared=self.shared)
        return self._lazy

    def load(self) -> Samples:
        """All samples in memory."""
        return Samples(**self[:], residual_norm=self.residual_norm, shared=self.shared)

    def sha256(self) -> str:
        """A digest of the numbers: inputs, then outputs, `(samples, channels, *grid)` in C order, little endian.

        Then, where there are such, each under its path in the file, the times, the points and masks, and the extras.
        """
        digest = hashlib.sha256()
        lazy = self.lazy()
        for x in (lazy.inputs, lazy.outputs):
            for rows in [] if x is None else blocks(self._file[x.paths[0]]):
                digest.update(little_endian(x[rows]))
        times = ["dimensions/time"] if self.header.contents.steps else []
        for path in times + [array.path for array in self.header.contents.arrays]:
            digest.update(path.encode())
            whole = path in times or any(a.path == path and a.shared for a in self.header.contents.arrays)
            for where in [...] if whole else blocks(self._file[path]):
                digest.update(little_endian(self._file[path][where]))
        return digest.hexdigest()

    def close(self) -> None:
        """Closes the file; a later read opens it again."""
        if self._handle is not None and self._handle[0] == os.getpid():
            self._handle[1].close()
        self._handle = None

    def __enter__(self) -> HDF5Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_lazy": None}

    def __repr__(self) -> str:
        shape = self.header.place(self.input_fields[0])[1]
        return f"HDF5Source({str(self.path)!r}, {self.problem}, {len(self)} samples on {shape})"


def open(path: str | os.PathLike[str]) -> HDF5Source:
    """Opens a file written by `generate` or `write`; reads its header only.

    **Raises:** `FileNotFoundError`; `ValueError` saying what is wrong with the file and what to do.
    """
    return HDF5Source(path)


def validate(path: str | os.PathLike[str]) -> None:
    """Checks a whole file: header, sizes, coordinates, digests, and that every number that counts is finite.

    **Raises:** `FileNotFoundError`; `ValueError` listing all that breaks the layout.
    """
    with HDF5Source(path) as source:
        found = []
        if len(source) != source.header.num_samples:
            found.append(f"it holds {len(source)} samples, its header promises {source.header.num_samples}")
        try:
            found += spoiled(source._file, source.header)
        except _FAILURES as error:
            found.append(f"its data cannot be read ({error})")
        if found:
            raise ValueError(
                f"path: {str(path)!r} breaks the layout of neuralops.data: {'; '.join(found)}; "
                "delete it and generate it again."
            )
