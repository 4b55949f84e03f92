"""Readers for the files that the literature passes around: MATLAB `.mat` (v5 and v7.3) and NumPy `.npz`.

The Darcy, Burgers and Navier-Stokes files of the Fourier neural operator paper (Li et al. 2021) hold arrays
`(samples, *grid)` without a channel axis, `coeff` and `sol` or `a` and `u`. The readers return channels first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from neuralops.data.samples import Samples, check_finite

DTYPES = ("float32", "float64")


def read_mat(
    path: str | os.PathLike[str],
    *,
    inputs: str = "coeff",
    outputs: str = "sol",
    channel_axis: int | Sequence[int | None] | None = None,
    stride: int = 1,
    dtype: str = "float32",
) -> Samples:
    """Reads two arrays of a MATLAB file, v5 or v7.3.

    **Arguments:**

    - `path`: the file. Version 7.3 is HDF5 with the axes in reverse order, which is undone here.
    - `inputs`, `outputs`: the names of the arrays `(samples, *grid)` in the file.
    - `channel_axis`: the axis of the channels (or stored times) in the file's arrays; `None` when they have
      none. A pair when inputs and outputs differ: `(None, -1)` for the Navier-Stokes files.
    - `stride`: keeps every `stride`-th point of each space axis, the first included (421 points to 85 with 5).
    - `dtype`: `"float32"` or `"float64"`; integers and truth values are converted.

    **Returns:** `Samples` with inputs `(samples, channels, *grid)` and outputs alike, as NumPy arrays.

    **Raises:** `FileNotFoundError`; `ValueError` when the file is damaged or of another format, an array is
    missing (the message lists those there are), not real, of another sample count, or holds NaN.
    """
    path = _existing(path)
    read = _read_v73 if h5py.is_hdf5(path) else _read_v5
    return _samples(path, read, inputs, outputs, channel_axis, stride, dtype)


def read_npz(
    path: str | os.PathLike[str],
    *,
    inputs: str = "x",
    outputs: str = "y",
    channel_axis: int | Sequence[int | None] | None = None,
    stride: int = 1,
    dtype: str = "float32",
) -> Samples:
    """Reads two arrays of a NumPy `.npz` archive; pickled objects are refused, so reading runs no code.

    Arguments, result and errors are those of `read_mat`.
    """
    return _samples(_existing(path), _read_npz, inputs, outputs, channel_axis, stride, dtype)


def _existing(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path: expected a path, got {type(path).__name__}; give the file's name.")
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file, got {str(path)!r}, which is not there; check the name.")
    return path


def _read_v5(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    keys = [key for key, _, _ in scipy.io.whosmat(path)]
    return dict(scipy.io.loadmat(path, variable_names=[name for name in names if name in keys])), keys


def _read_v73(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    with h5py.File(path, "r") as file:
        keys = [key for key in file if not key.startswith("#")]  # MATLAB keeps its bookkeeping under '#refs#'
        arrays: dict[str, Any] = {}
        for name in names:
            if name in keys and isinstance(file.get(name, getlink=True), h5py.HardLink):
                item = file[name]  # a group here is a struct or a sparse matrix
                arrays[name] = (
                    item[()].T if isinstance(item, h5py.Dataset) else item.attrs.get("MATLAB_class", b"group")
                )
        return arrays, keys


def _read_npz(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    archive = np.load(path, allow_pickle=False)
    if isinstance(archive, np.ndarray):
        raise ValueError("it holds one bare array")
    with archive:
        return {name: archive[name] for name in names if name in archive.files}, list(archive.files)


def _samples(
    path: Path,
    read: Callable[[Path, Sequence[str]], tuple[dict[str, Any], list[str]]],
    inputs: str,
    outputs: str,
    channel_axis: int | Sequence[int | None] | None,
    stride: int,
    dtype: str,
) -> Samples:
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}; use one of these words.")
    if isinstance(stride, bool) or not isinstance(stride, int | np.integer) or stride < 1:
        raise ValueError(f"stride: expected a positive integer, got {stride!r}; give 1 to keep all points.")
    pair = tuple(channel_axis) if isinstance(channel_axis, Sequence) else (channel_axis, channel_axis)
    if len(pair) != 2:
        raise ValueError(f"channel_axis: expected an axis or a pair, got {channel_axis!r}; give (inputs, outputs).")
    for name, word in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(word, str):
            raise ValueError(f"{name}: expected the name of an array, got {word!r}; give a string.")
    try:
        arrays, keys = read(path, (inputs, outputs))
    except Exception as error:  # the parsers fail in many ways on damaged bytes
        raise ValueError(
            f"path: expected a readable {path.suffix or 'data'} file, got {str(path)!r}, which could not be read "
            f"({type(error).__name__}: {error}); it is damaged, cut short or of another format, fetch it again."
        ) from error
    for name, word in (("inputs", inputs), ("outputs", outputs)):
        if word not in arrays:
            raise ValueError(
                f"{name}: expected an array {word!r} in {path.name}, which holds {sorted(keys)}; "
                f"name one of these, as in {name}={(sorted(keys) or ['x'])[0]!r}."
            )
    fields = [
        _field(arrays[word], axis, stride, dtype, f"{name} ({word!r} in {path.name})")
        for name, word, axis in zip(("inputs", "outputs"), (inputs, outputs), pair, strict=True)
    ]
    if len(fields[0]) != len(fields[1]):
        raise ValueError(
            f"inputs, outputs: expected as many samples in both, got {len(fields[0])} in {inputs!r} and "
            f"{len(fields[1])} in {outputs!r} of {path.name}; name arrays that belong together."
        )
    return Samples(fields[0], fields[1])


def _field(x: Any, channel_axis: int | None, stride: int, dtype: str, name: str) -> np.ndarray:
    """One array of the file as `(samples, channels, *grid)`."""
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "fiub":
        kind = f"dtype {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"{name}: expected a dense array of real numbers, got {kind}; name another array.")
    wanted = 2 if channel_axis is None else 3
    if x.ndim < wanted or x.size == 0:
        raise ValueError(
            f"{name}: expected (samples, *grid){'' if channel_axis is None else ' with a channel axis'}, got shape "
            f"{x.shape}; name another array or give channel_axis."
        )
    if channel_axis is None:
        x = x[:, None]
    else:
        axis = channel_axis + x.ndim * (channel_axis < 0)
        if not 1 <= axis < x.ndim:
            raise ValueError(
                f"channel_axis: expected an axis of {name} after the samples, got {channel_axis} for shape {x.shape}; "
                "give -1 for channels last."
            )
        x = np.moveaxis(x, axis, 1)
    x = x[(slice(None), slice(None)) + (slice(None, None, stride),) * (x.ndim - 2)]
    with np.errstate(over="ignore"):  # what does not fit the dtype is reported as infinity
        x = np.ascontiguousarray(x, dtype)
    check_finite(x, name)
    return x
