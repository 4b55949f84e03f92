"""Readers for the files that the literature passes around: MATLAB `.mat` (v4, v5, v7.3), NumPy `.npz`, plain HDF5.

The Darcy, Burgers and Navier-Stokes files of the Fourier neural operator paper (Li et al. 2021) hold arrays
`(samples, *grid)` without a channel axis, `coeff` and `sol` or `a` and `u`. The readers return channels first.

What a file is, its first bytes say, never its name. An array whose order of axes would have to be guessed is refused.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from neuralops.arguments import count, existing_file
from neuralops.data.samples import Samples, check_finite

DTYPES = ("float32", "float64")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_V73 = b"MATLAB 7.3 MAT-file"
_USER_BLOCK = 512  # bytes before the HDF5 of a MATLAB file, its head

# Content that no reader here takes, by its first bytes.
_STRANGERS = {
    b"\x93NUMPY": "a single NumPy array (.npy); put two into one file with np.savez(path, x=..., y=...)",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"CDF": "a netCDF 3 file; read it with scipy.io.netcdf_file and give its arrays as Samples",
    b"version https://git-lfs": "a pointer of Git LFS, not the data; fetch them with `git lfs pull`",
}


def read_mat(
    path: str | os.PathLike[str],
    *,
    inputs: str = "coeff",
    outputs: str = "sol",
    channel_axis: int | Sequence[int | None] | None = None,
    stride: int = 1,
    dtype: str = "float32",
) -> Samples:
    """Reads two arrays of a MATLAB file, v4, v5 or v7.3.

    **Arguments:**

    - `path`: the file. Version 7.3 is HDF5 with the axes in reverse order, which is undone here. It is known by its
      head and by the `MATLAB_class` of its arrays; other HDF5 files are for `read_hdf5`.
    - `inputs`, `outputs`: the names of the arrays `(samples, *grid)` in the file.
    - `channel_axis`: the axis of the channels (or stored times) in the file's arrays; `None` when they have
      none. A pair when inputs and outputs differ: `(None, -1)` for the Navier-Stokes files.
    - `stride`: keeps every `stride`-th point of each space axis, the first included (421 points to 85 with 5).
    - `dtype`: `"float32"` or `"float64"`; integers and truth values are converted.

    **Returns:** `Samples` with inputs `(samples, channels, *grid)` and outputs alike, as NumPy arrays.

    **Raises:** `FileNotFoundError`; `ValueError` when the file is damaged or of another format (the message says of
    which), an array is missing (the message lists those there are), not real, of another sample count, or holds NaN.
    """
    path = _of_kind(path, "read_mat")
    read = _read_v73 if h5py.is_hdf5(path) else _read_v5
    return _samples(path, read, inputs, outputs, channel_axis, stride, dtype)


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    inputs: str = "x",
    outputs: str = "y",
    channel_axis: int | Sequence[int | None] | None = None,
    stride: int = 1,
    dtype: str = "float32",
) -> Samples:
    """Reads two arrays of a plain HDF5 file, their axes in the order in which h5py shows them: samples first.

    Arrays in groups go by their path, as in `inputs="fields/u"`; links to other files are not followed. Arguments,
    result and errors are otherwise those of `read_mat`.
    """
    return _samples(_of_kind(path, "read_hdf5"), _read_hdf5, inputs, outputs, channel_axis, stride, dtype)


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
    return _samples(_of_kind(path, "read_npz"), _read_npz, inputs, outputs, channel_axis, stride, dtype)


def _of_kind(path: str | os.PathLike[str], reader: str) -> Path:
    """The path of a file that `reader` takes, by its first bytes. What they do not tell is left to the parser.

    **Raises:** `FileNotFoundError`; `ValueError` saying what the file is and what reads it.
    """
    path = existing_file(path)
    kind, mend, readers = _kind(path)
    if reader not in readers:
        wanted = {"read_mat": "a MATLAB", "read_npz": "a NumPy .npz", "read_hdf5": "an HDF5"}[reader]
        raise ValueError(f"path: expected {wanted} file, got {str(path)!r}, which is {kind}; {mend}.")
    return path


def _kind(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """What a file is, what to do with it, and the readers that take it."""
    with path.open("rb") as file:
        head = file.read(_USER_BLOCK)
        behind = file.read(len(_HDF5))
    if head.startswith(_V73):
        if behind != _HDF5:
            return (
                "MATLAB 7.3 by its head without HDF5 behind it",
                "it is damaged, cut short or edited, fetch it again",
                (),
            )
        return "a MATLAB 7.3 file, whose axes are reversed", "use read_mat", ("read_mat",)
    if h5py.is_hdf5(path):
        what = "plain HDF5, without the head of a MATLAB 7.3 file"
        return what, "use read_hdf5, which reverses no axes", ("read_hdf5",)
    if head.startswith(b"MATLAB 5.0 MAT-file") or head[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return "a MATLAB 5 file", "use read_mat", ("read_mat",)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if all(name.endswith(".npy") for name in names):
            return "a NumPy .npz archive", "use read_npz", ("read_npz",)
        if any(name.endswith("data.pkl") for name in names):
            return "a PyTorch file", "load it with torch.load and give its arrays as Samples or with np.savez", ()
        return f"a zip archive of {names[:3]}", "unpack it", ()
    for start, words in _STRANGERS.items():
        if head.startswith(start):
            kind, mend = words.split("; ")
            return kind, mend, ()
    return "of no format known here", "fetch it again", ("read_mat", "read_npz", "read_hdf5")


def _read_v5(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    keys = [key for key, _, _ in scipy.io.whosmat(path)]
    return dict(scipy.io.loadmat(path, variable_names=[name for name in names if name in keys])), keys


def _read_v73(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    with h5py.File(path, "r") as file:
        keys = _v73_names(file)
        items = {name: _item(file, name) for name in names if name in keys}
        arrays: dict[str, Any] = {}
        for name, item in items.items():
            if isinstance(item, h5py.Group):  # a struct or a sparse matrix
                arrays[name] = item.attrs.get("MATLAB_class", b"group")
            elif item is not None:
                _check_class(item, name)
                arrays[name] = item[()].T
        return arrays, keys


def _v73_names(file: h5py.File) -> list[str]:
    return [key for key in file if not key.startswith("#")]  # MATLAB keeps its bookkeeping under '#refs#'


def _check_class(item: h5py.Dataset, name: str) -> None:
    if "MATLAB_class" not in item.attrs:
        raise ValueError(
            f"the head says MATLAB 7.3, but {name!r} has no MATLAB_class: another program wrote it, and the "
            "order of its axes would be a guess; copy it with h5py into a file of its own for read_hdf5"
        )


def _read_hdf5(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    with h5py.File(path, "r") as file:
        keys: list[str] = []
        file.visititems(lambda name, item: keys.append(name) if isinstance(item, h5py.Dataset) else None)
        items = {name: _item(file, name) for name in names}
        return {name: item[()] for name, item in items.items() if isinstance(item, h5py.Dataset)}, keys


def _item(file: h5py.File, name: str) -> h5py.Dataset | h5py.Group | None:
    """A member by its path, kept in this file itself: links and outside storage could point at any file."""
    item: Any = file
    for part in name.strip("/").split("/"):
        if not isinstance(item, h5py.Group) or not isinstance(item.get(part, getlink=True), h5py.HardLink):
            return None
        item = item[part]
    if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
        raise ValueError(f"{name!r} keeps its data in another file")
    return item


def _read_npz(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names if name in archive.files}, list(archive.files)


@contextlib.contextmanager
def opened(path: Path, name: str = "") -> Iterator[tuple[tuple[int, ...], Callable[[tuple[slice, ...]], np.ndarray]]]:
    """The shape of an array in a MATLAB file, or of a `.npy` file, and a function that reads a part of it.

    Axes are in the order of MATLAB and NumPy. Of MATLAB 7.3 and NumPy files only the part is read.

    **Raises:** `FileNotFoundError`; `ValueError` when the file cannot be read or lacks the array.
    """
    single = path.suffix == ".npy"
    path = existing_file(path) if single else _of_kind(path, "read_mat")
    with contextlib.ExitStack() as stack:
        try:
            if single:
                x, keys = np.load(path, mmap_mode="r", allow_pickle=False), [name]
                if not isinstance(x, np.ndarray):
                    raise ValueError("an archive of arrays, not one")
            elif h5py.is_hdf5(path):
                file = stack.enter_context(h5py.File(path, "r"))
                x, keys = _item(file, name), _v73_names(file)
                if isinstance(x, h5py.Dataset):
                    _check_class(x, name)
            else:
                arrays, keys = _read_v5(path, (name,))
                x = arrays.get(name)
        except Exception as error:  # the parsers fail in many ways on damaged bytes
            raise _unreadable(path, error) from error
        if not isinstance(x, np.ndarray | h5py.Dataset):
            raise ValueError(
                f"path: expected an array {name!r} in {path.name}, which holds {sorted(keys)}; it is another file."
            )
        backwards = isinstance(x, h5py.Dataset)

        def read(index: tuple[slice, ...]) -> np.ndarray:
            try:
                return x[index[::-1]].T if backwards else x[index]
            except OSError as error:
                raise _unreadable(path, error) from error

        yield (x.shape[::-1] if backwards else x.shape), read


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"path: expected a readable {path.suffix or 'data'} file, got {str(path)!r}, which could not be read "
        f"({type(error).__name__}: {error}); it is damaged, cut short or of another format, fetch it again."
    )


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
    stride = count(stride, "stride", hint="give 1 to keep all points.")
    pair = tuple(channel_axis) if isinstance(channel_axis, Sequence) else (channel_axis, channel_axis)
    if len(pair) != 2:
        raise ValueError(f"channel_axis: expected an axis or a pair, got {channel_axis!r}; give (inputs, outputs).")
    for name, word in (("inputs", inputs), ("outputs", outputs)):
        if not isinstance(word, str):
            raise ValueError(f"{name}: expected the name of an array, got {word!r}; give a string.")
    try:
        arrays, keys = read(path, (inputs, outputs))
    except Exception as error:  # the parsers fail in many ways on damaged bytes
        raise _unreadable(path, error) from error
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
