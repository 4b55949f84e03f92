"""Samples on disk: opened lazily, read sample by sample, checked before they are believed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from neuralops.arguments import existing_file, file_to_write
from neuralops.data.layout import DIGEST, Header, as_json, little_endian, violations, write_file
from neuralops.data.samples import Samples, check_finite, check_samples
from neuralops.grid import Grid

_BLOCK = 64  # samples read at once where all of them are scanned
_FAILURES = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, EOFError)


class HDF5Source:
    """A file written by `generate`, read lazily.

    `source[i]` is a dictionary of NumPy arrays, `"inputs"` `(channels, *grid)` and `"outputs"` alike;
    `source[i:j]`, `source[[3, 1, 1]]` and `source[mask]` the same with a sample axis in front, as an array gives
    them; `source.load()` all of it as `Samples`. With `len` and integer indexing alone it is a data source for
    Grain and a map-style data set for PyTorch's loader.

    The file is opened at the first read in each process, so a source can be pickled and survives a fork. Use
    it in a `with` block, or `close()` it; reading again opens it again.

    **Raises:** `FileNotFoundError`; `ValueError` when the file is cut short, foreign or breaks the layout.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # A worker process may run in another folder.
        self.path = existing_file(path, mend="make it with generate(...), or check the name").absolute()
        self._handle: tuple[int, h5py.File] | None = None
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
    def grid(self) -> Grid:
        """The grid of all fields."""
        return self.header.grid

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

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            step = abs(chosen.step)
            rows = chosen if chosen.step > 0 else chosen[::-1]  # HDF5 reads forwards only
            where: int | slice = slice(rows.start, rows.stop, step) if len(rows) else slice(0, 0)
            sample = self._read(where)
            return sample if chosen.step > 0 else {name: x[::-1] for name, x in sample.items()}
        picked = self._rows(index)
        return self._read(int(picked)) if picked.ndim == 0 else self._read_many(picked)

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

    def _read(self, index: int | slice) -> dict[str, np.ndarray]:
        fields, axis = self._file["t0_fields"], int(isinstance(index, slice))
        return {
            "inputs": np.stack([fields[name][index] for name in self.input_fields], axis),
            "outputs": np.stack([fields[name][index] for name in self.output_fields], axis),
        }

    def _read_many(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Samples in any order, some more than once: each is read once, forwards, neighbours together."""
        forwards, back = np.unique(rows, return_inverse=True)
        runs = np.split(forwards, np.flatnonzero(np.diff(forwards) != 1) + 1)
        parts = [self._read(slice(int(run[0]), int(run[-1]) + 1) if len(run) else slice(0, 0)) for run in runs]
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

    def load(self) -> Samples:
        """All samples in memory."""
        whole = self[:]
        return Samples(whole["inputs"], whole["outputs"], self.residual_norm)

    def sha256(self) -> str:
        """A digest of the numbers: inputs, then outputs, `(samples, channels, *grid)` in C order, little endian."""
        digest = hashlib.sha256()
        for name in ("inputs", "outputs"):
            for start in range(0, len(self), _BLOCK):
                digest.update(little_endian(self[start : start + _BLOCK][name]))
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
        return {**self.__dict__, "_handle": None}

    def __repr__(self) -> str:
        return f"HDF5Source({str(self.path)!r}, {self.problem}, {len(self)} samples on {self.grid.shape})"


def open(path: str | os.PathLike[str]) -> HDF5Source:
    """Opens a file written by `generate`; reads its header only.

    **Raises:** `FileNotFoundError`; `ValueError` saying what is wrong with the file and what to do.
    """
    return HDF5Source(path)


def write(
    path: str | os.PathLike[str],
    samples: Samples | tuple[Any, Any],
    *,
    grid: Grid,
    name: str,
    input_fields: Sequence[str],
    output_fields: Sequence[str],
    parameters: Mapping[str, Any] | None = None,
    compression: int | None = None,
) -> HDF5Source:
    """Writes arrays of your own in the layout of `generate`, so that every tool can read them.

    **Arguments:**

    - `samples`: `Samples` or a pair `(inputs, outputs)` of arrays `(samples, channels, *grid)`.
    - `grid`: the grid of all fields: extent, boundary and centring as they were when the data were made.
    - `name`: what the data set is called.
    - `input_fields`, `output_fields`: one distinct name per channel.
    - `parameters`: numbers and words that describe how the data came about.
    - `compression`: gzip level 0 to 9, `None` for none.

    **Returns:** the opened file. It appears under its name only when it is whole.

    **Raises:** `ValueError` when shapes, names and grid do not fit, on NaN, or when `path` exists or is a folder;
    `OSError` when nothing can be written there or the disk is full.
    """
    target = file_to_write(path)
    samples = check_samples(samples)
    for field, x, names in (("inputs", samples.inputs, input_fields), ("outputs", samples.outputs, output_fields)):
        if isinstance(names, str) or x.shape[1:] != (len(names), *grid.shape):
            raise ValueError(
                f"samples.{field}: expected shape (samples, {len(names)}, {', '.join(map(str, grid.shape))}) for the "
                f"fields {names!r} on this grid, got {tuple(x.shape)}; name each channel and give the arrays' grid."
            )
    if target.exists():
        raise ValueError(f"path: expected a new file, but {str(path)!r} is there; give another path or move the file.")
    inputs, outputs = np.asarray(samples.inputs), np.asarray(samples.outputs)
    header = Header(
        problem=name,
        parameters=as_json(parameters or {}),
        grid=grid,
        input_fields=tuple(input_fields),
        output_fields=tuple(output_fields),
        num_samples=len(inputs),
        store_dtype=str(np.promote_types(np.result_type(inputs, outputs), np.float32)),
    )
    residual = None if samples.residual_norm is None else np.asarray(samples.residual_norm, np.float64)
    block = Samples(inputs, outputs, residual)
    write_file(target, header, [block], len(inputs), compression=compression)
    return HDF5Source(target)


def validate(path: str | os.PathLike[str]) -> None:
    """Checks a whole file: header, sizes, coordinates, digests, and that every number in it is finite.

    **Raises:** `FileNotFoundError`; `ValueError` listing all that breaks the layout.
    """
    with HDF5Source(path) as source:
        found = []
        if len(source) != source.header.num_samples:
            found.append(f"it holds {len(source)} samples, its header promises {source.header.num_samples}")
        try:
            found += _scan(source)
        except _FAILURES as error:
            found.append(f"its data cannot be read ({error})")
        if found:
            raise ValueError(
                f"path: {str(path)!r} breaks the layout of neuralops.data: {'; '.join(found)}; "
                "delete it and generate it again."
            )


def _scan(source: HDF5Source) -> list[str]:
    found = []
    for name in source.input_fields + source.output_fields:
        data, digest = source._file["t0_fields"][name], hashlib.sha256()
        for start in range(0, len(source), _BLOCK):
            x = data[start : start + _BLOCK]
            digest.update(little_endian(x))
            try:
                check_finite(x, f"t0_fields/{name}", start)
            except ValueError as error:
                found.append(str(error).split(";")[0])
        if data.attrs.get(DIGEST) != digest.hexdigest():
            found.append(f"t0_fields/{name} does not have the digest it was written with")
    residual = source.residual_norm
    if residual is not None and not (np.isfinite(residual) & (residual >= 0)).all():
        found.append("scalars/residual_norm holds numbers that are no residuals")
    return found
