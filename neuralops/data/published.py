"""The data sets that papers on neural operators compare on, in the splits that they compare on.

The files are those of the Fourier neural operator (Li et al. 2021: Darcy, Navier-Stokes) and of Geo-FNO (Li et al.
2023: airfoil, pipe, elasticity, plasticity) under the names that their authors gave them. The splits are those of the
later comparisons, such as latent spectral models (Wu et al. 2023) and Transolver (Wu et al. 2024).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralops.arguments import as_path, count
from neuralops.data.formats import DTYPES, opened
from neuralops.data.samples import Samples, check_finite

SPLITS = ("train", "test")
_MESHES, _INTERP = "Meshes/Random_UnitCell_{}_10.npy", "Interp/Random_UnitCell_{}_10_interp.npy"


@dataclasses.dataclass(frozen=True)
class Published:
    """What is known of a data set: its files, how many samples a split has, where the test samples are."""

    files: tuple[str, ...]
    num_train: int
    num_test: int
    test: str  # "next": behind those for training; "last": at the end; "file": in the last of two files
    read: Callable[[_Part], Samples]
    axes: int = 2  # of space, which a stride may thin out
    periodic: bool = False

    def rows(self, split: str, total: int, path: Path) -> slice:
        """The samples of a split among all of a file.

        **Raises:** `ValueError` when the file has too few.
        """
        size = self.num_train if split == "train" else self.num_test
        least = size if self.test == "file" else self.num_train + self.num_test
        if total < least:
            raise ValueError(
                f"folder: expected at least {least} samples in {path.name}, so that the splits are those of the "
                f"papers, got {total}; fetch the whole file."
            )
        start = 0
        if split == "test":
            start = {"file": 0, "next": self.num_train, "last": total - size}[self.test]
        return slice(start, start + size)


def read_published(
    name: str,
    folder: str | os.PathLike[str],
    *,
    split: str = "train",
    num_samples: int | None = None,
    stride: int | Sequence[int] = 1,
    dtype: str = "float32",
) -> Samples:
    """Reads one split of a published data set.

    - `"darcy"`, `"darcy_241"`: `piececonst_r421_N1024_smooth1.mat` and `..._smooth2.mat`, or `r241`. Coefficient to
      solution, `(1, 421, 421)`, on a grid with its end points. Train 1000, test 200 of the second file.
    - `"navier_stokes_1e-5"`: `NavierStokes_V1e-5_N1200_T20.mat`. Vorticity on a periodic grid, 10 frames to the next
      10, `(10, 64, 64)`. Train 1000, test the last 200. `"navier_stokes_1e-4"`, `"navier_stokes_1e-3"`: 10 frames of
      `ns_V1e-4_N10000_T30.mat` to the next 20, of `ns_V1e-3_N5000_T50.mat` to the next 40.
    - `"airfoil"`: `NACA_Cylinder_X.npy`, `..._Y.npy`, `..._Q.npy`. The coordinates of a structured mesh,
      `(2, 221, 51)`, to the Mach number. Train 1000, test the next 200.
    - `"pipe"`: `Pipe_X.npy`, `Pipe_Y.npy`, `Pipe_Q.npy`. The same with `(2, 129, 129)`, to the horizontal velocity.
    - `"elasticity"`: `Meshes/Random_UnitCell_XY_10.npy`, `..._sigma_10.npy`, `..._rr_10.npy`. The coordinates of
      points, `(2, 972)`, to the stress. `extras["code"]` `(samples, 42)` holds the radii of the hole. Train 1000,
      test the last 200.
    - `"elasticity_grid"`: `Interp/Random_UnitCell_mask_10_interp.npy`, `..._sigma_10_interp.npy`. Where material is,
      `(1, 41, 41)`, to the stress; `mask` says the same. Train 1000, test the last 200.
    - `"plasticity"`: `plas_N987_T20.mat`. The profile of a die, the same along the second axis and over time, to the
      position and the displacement of the material, four components, `(channels, 101, 31, 20)`; the last axis is time.
      Train 900, test the last 80.

    Where the inputs are coordinates, `coords` holds them too. Axes of space are in the order of the files.

    **Arguments:**

    - `name`: one of the words above.
    - `folder`: where the files are, in the folders above or without them.
    - `split`: `"train"` or `"test"`.
    - `num_samples`: only so many, the first of the split. (MgNO tests on 100 of `"darcy"`.)
    - `stride`: keeps every `stride`-th point of each axis of space, both end points included: 421 points to 85 with 5.
      One for all axes or one per axis; time is kept whole. Points without a grid have none.
    - `dtype`: `"float32"` or `"float64"`.

    Files of MATLAB 7.3 and NumPy are read in part, MATLAB 5 files whole.

    **Returns:** `Samples` of NumPy arrays, samples and channels first.

    **Raises:** `FileNotFoundError` naming the file that is missing; `ValueError` on another word, when a file is
    damaged or of another format, lacks an array (the message lists those there are), has another shape or too few
    samples, and on NaN.
    """
    if name not in PUBLISHED:
        raise ValueError(f"name: expected one of {tuple(PUBLISHED)}, got {name!r}; use one of these words.")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}; use one of these words.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}; use one of these words.")
    published = PUBLISHED[name]
    size = published.num_train if split == "train" else published.num_test
    if num_samples is not None:
        size = count(num_samples, "num_samples", most=size)
    given: Any = (stride,) * published.axes if np.ndim(stride) == 0 else stride
    strides = tuple(count(r, "stride", hint="give 1 to keep all points.") for r in given)
    if published.axes == 0 and np.ndim(stride) == 0 and stride != 1:
        raise ValueError(
            f"stride: expected 1 for the points of {name!r}, which lie on no grid, got {stride}; leave it out."
        )
    if len(strides) != published.axes:
        raise ValueError(
            f"stride: expected one number or one for each of {published.axes} axes of space, got {stride!r}; give one."
        )
    samples = published.read(_Part(name, published, _folder(folder), split, size, strides, dtype))
    for field, x in {"inputs": samples.inputs, "outputs": samples.outputs, **samples.extras}.items():
        check_finite(x, f"{field} of {name!r}", mask=samples.mask)
    return samples


def _folder(folder: str | os.PathLike[str]) -> Path:
    path = as_path(folder, "folder")
    if not path.is_dir():
        raise FileNotFoundError(f"folder: expected a folder, got {str(folder)!r}, which is none; check the name.")
    return path


@dataclasses.dataclass(frozen=True)
class _Part:
    """A split of a data set in a folder."""

    name: str
    published: Published
    folder: Path
    split: str
    size: int
    strides: tuple[int, ...]
    dtype: str

    def path(self, number: int) -> Path:
        file = self.published.files[number]
        for path in (self.folder / file, self.folder / Path(file).name):
            if path.exists():
                return path
        there = sorted(p.name for p in self.folder.iterdir())[:8]
        raise FileNotFoundError(
            f"folder: expected {file} of the data set {self.name!r} in {str(self.folder)!r}, which holds {there}; "
            "fetch it, or name another folder."
        )

    def array(
        self,
        number: int,
        key: str = "",
        *,
        samples: int = 0,
        ndim: int,
        space: int | None = None,
        pick: tuple[int, slice] | None = None,
    ) -> np.ndarray:
        """The rows of this split of one array, samples first, the axes of space thinned out.

        **Arguments:** the file's number; the array's name in it; the axis of the samples; how many axes the array has;
        the first axis of space, samples first; an axis and which of its entries to read, samples first.
        """
        path = self.path(number)
        with opened(path, key) as (shape, read):
            if len(shape) != ndim or 0 in shape:
                raise ValueError(
                    f"folder: expected an array with {ndim} axes{f' {key!r}' if key else ''} in {path.name}, got shape "
                    f"{shape}; it is another data set."
                )
            order = (samples, *(axis for axis in range(ndim) if axis != samples))
            rows = self.published.rows(self.split, shape[samples], path)
            index = [slice(None)] * ndim
            index[samples] = slice(rows.start, rows.start + self.size)
            if pick is not None:
                axis, part = pick
                if shape[order[axis]] < part.stop:
                    raise ValueError(
                        f"folder: expected at least {part.stop} entries along axis {order[axis]} of {path.name}, got "
                        f"shape {shape}; it is another data set."
                    )
                index[order[axis]] = part
            x = read(tuple(index)).transpose(order)
        if space is not None:
            for axis, stride in enumerate(self.strides, space):
                self._check_stride(x.shape[axis], stride, path)
                x = x[(slice(None),) * axis + (slice(None, None, stride),)]
        if x.dtype.kind not in "fiub":
            raise ValueError(
                f"folder: expected real numbers in {path.name}, got dtype {x.dtype}; it is another data set."
            )
        with np.errstate(over="ignore"):  # what does not fit the dtype is reported as infinity
            return np.ascontiguousarray(x, self.dtype)

    def _check_stride(self, points: int, stride: int, path: Path) -> None:
        steps = points if self.published.periodic else points - 1
        if steps % stride:
            kept = "the grid is periodic" if self.published.periodic else "both end points are kept"
            raise ValueError(
                f"stride: expected a divisor of {steps} for the {points} points of {path.name}, as {kept}, got "
                f"{stride}; take a divisor."
            )


def _same(part: _Part, *arrays: np.ndarray) -> None:
    """Refuses arrays whose points differ: the files do not belong together."""
    shapes = [x.shape for x in arrays]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"folder: expected files of {part.name!r} on the same points, got shapes {shapes}; fetch those that belong "
            "together."
        )


def _darcy(part: _Part) -> Samples:
    file = SPLITS.index(part.split)
    coefficient, solution = (part.array(file, key, ndim=3, space=1) for key in ("coeff", "sol"))
    _same(part, coefficient, solution)
    return Samples(coefficient[:, None], solution[:, None])


def _navier_stokes(frames: int) -> Callable[[_Part], Samples]:
    def read(part: _Part) -> Samples:
        u = np.moveaxis(part.array(0, "u", ndim=4, space=1, pick=(3, slice(0, 10 + frames))), -1, 1)
        return Samples(np.ascontiguousarray(u[:, :10]), np.ascontiguousarray(u[:, 10:]))

    return read


def _structured(channel: int) -> Callable[[_Part], Samples]:
    def read(part: _Part) -> Samples:
        x, y = (part.array(number, ndim=3, space=1) for number in (0, 1))
        q = part.array(2, ndim=4, space=2, pick=(1, slice(channel, channel + 1)))
        _same(part, x, y, q[:, 0])
        places = np.stack([x, y], 1)
        return Samples(places, q, coords=places)

    return read


def _elasticity(part: _Part) -> Samples:
    places = part.array(0, samples=2, ndim=3).transpose(0, 2, 1)
    stress, code = (part.array(number, samples=1, ndim=2) for number in (1, 2))
    _same(part, places[:, 0], places[:, -1], stress)
    if places.shape[1] != 2:
        raise ValueError(
            f"folder: expected two coordinates of each point in {part.published.files[0]}, got {places.shape[1]}; "
            "it is another data set."
        )
    places = np.ascontiguousarray(places)
    return Samples(places, stress[:, None], coords=places, extras={"code": code})


def _elasticity_grid(part: _Part) -> Samples:
    inside, stress = (part.array(number, samples=2, ndim=3, space=1) for number in (0, 1))
    _same(part, inside, stress)
    return Samples(inside[:, None], stress[:, None], mask=inside != 0)


def _plasticity(part: _Part) -> Samples:
    fields = np.moveaxis(part.array(0, "output", ndim=5, space=1), -1, 1)
    profile = part.array(0, "input", ndim=2)[:, :: part.strides[0]]
    _same(part, profile, fields[:, 0, :, 0, 0])
    # The same numbers along the second axis and over time: a view, no copy.
    tiled = np.broadcast_to(profile[:, None, :, None, None], (len(profile), 1, *fields.shape[2:]))
    return Samples(tiled, np.ascontiguousarray(fields))


def _darcy_files(points: int) -> tuple[str, ...]:
    return tuple(f"piececonst_r{points}_N1024_smooth{number}.mat" for number in (1, 2))


PUBLISHED = {
    "darcy": Published(_darcy_files(421), 1000, 200, "file", _darcy),
    "darcy_241": Published(_darcy_files(241), 1000, 200, "file", _darcy),
    "navier_stokes_1e-5": Published(
        ("NavierStokes_V1e-5_N1200_T20.mat",), 1000, 200, "last", _navier_stokes(10), periodic=True
    ),
    "navier_stokes_1e-4": Published(("ns_V1e-4_N10000_T30.mat",), 1000, 200, "last", _navier_stokes(20), periodic=True),
    "navier_stokes_1e-3": Published(("ns_V1e-3_N5000_T50.mat",), 1000, 200, "last", _navier_stokes(40), periodic=True),
    "airfoil": Published(tuple(f"NACA_Cylinder_{x}.npy" for x in "XYQ"), 1000, 200, "next", _structured(4)),
    "pipe": Published(tuple(f"Pipe_{x}.npy" for x in "XYQ"), 1000, 200, "next", _structured(0)),
    "elasticity": Published(
        tuple(_MESHES.format(x) for x in ("XY", "sigma", "rr")), 1000, 200, "last", _elasticity, axes=0
    ),
    "elasticity_grid": Published(
        tuple(_INTERP.format(x) for x in ("mask", "sigma")), 1000, 200, "last", _elasticity_grid
    ),
    "plasticity": Published(("plas_N987_T20.mat",), 900, 80, "last", _plasticity),
}
