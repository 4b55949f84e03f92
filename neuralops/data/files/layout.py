"""How samples lie in an HDF5 file: a strict subset of the layout of The Well, plus our own header.

The Well (Ohana et al. 2024, "The Well: a large-scale collection of diverse physics simulations") keeps fields
in `t0_fields` as `(trajectories, [times,] *space)` beside `dimensions`, `boundary_conditions` and `scalars`, so its
tools read these files. What The Well has no word for (the grid's centring, the exact boundary, problem, key,
versions) stands in root attributes that begin with `neuralops_`; points, masks and extras in groups of our own,
see `contents.py`.

The bytes depend on the content alone: no times are stored and everything is written in one fixed order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np

from neuralops.data.files.contents import Contents, check_name
from neuralops.data.files.disk import Patient, atomic
from neuralops.data.samples import Samples
from neuralops.grid import Grid

SCHEMA_VERSION = 2  # the newest that is read; plain fields on a grid are written as 1, which older versions read too
SPATIAL_DIMS = ("x", "y", "z")
DIGEST = "neuralops_sha256"  # attribute of each field: a digest of its numbers
STORE_DTYPES = ("float32", "float64")
WELL_WORDS = {"periodic": "periodic", "dirichlet": "wall", "neumann": "wall"}  # The Well: periodic | wall | open
GROUPS = ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields")
WELL_ATTRIBUTES = ("dataset_name", "grid_type", "n_spatial_dims", "n_trajectories", "simulation_parameters")
_PREFIX = "neuralops_"


def _library_version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("neuralops-jax")
    return "unknown"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about itself.

    **Fields:** the `problem`'s name and `parameters` (JSON), the `grid` (`None` for points without one), one field
    name per channel, the number of samples in the whole set, the random key they were drawn from (`key`,
    `key_impl`), the precision of compute and storage, how many were computed at once, the versions that did it,
    and the `contents` beside plain fields.
    """

    problem: str
    parameters: str
    grid: Grid | None
    input_fields: tuple[str, ...]
    output_fields: tuple[str, ...]
    num_samples: int
    key: tuple[int, ...] = ()
    key_impl: str = ""
    dtype: str = ""
    store_dtype: str = "float32"
    batch_size: int = 1
    version: str = dataclasses.field(default_factory=_library_version)
    jax_version: str = jax.__version__
    contents: Contents = dataclasses.field(default_factory=Contents)

    def __post_init__(self) -> None:
        names = self.input_fields + self.output_fields
        if self.grid is not None and self.grid.ndim > len(SPATIAL_DIMS):
            raise ValueError(
                f"grid: expected 1 to {len(SPATIAL_DIMS)} space dimensions in a file, got {self.grid.ndim}; "
                "keep these samples in memory (path=None)."
            )
        if not self.input_fields or len(set(names)) != len(names):
            raise ValueError(
                f"input_fields, output_fields: expected distinct names, one per channel, got {self.input_fields} and "
                f"{self.output_fields}; name the same field at two times twice, as in 'u0' and 'u'."
            )
        for name in names:
            check_name(name, "input_fields, output_fields")
        twice = sorted(set(names) & set(self.contents.constants))
        if twice:
            raise ValueError(
                f"samples.extras: expected other names than those of the fields, got {twice}; rename them."
            )
        for name in json.loads(self.parameters):
            if name in (*WELL_ATTRIBUTES, "residual_norm") or name.startswith(_PREFIX) or "/" in name:
                raise ValueError(f"parameters: expected names that the layout leaves free, got {name!r}; rename it.")
        if self.store_dtype not in STORE_DTYPES:
            raise ValueError(
                f"store_dtype: expected one of {STORE_DTYPES}, got {self.store_dtype!r}; use one of these words."
            )

    @property
    def plain(self) -> bool:
        """Whether there are only inputs and outputs on a grid, as all files of schema 1 have them."""
        return self.contents == Contents() and bool(self.output_fields)

    @property
    def ndim(self) -> int:
        """Dimensions of space."""
        coords = self.contents.get("coords")
        if self.grid is not None:
            return self.grid.ndim
        return 0 if coords is None else coords.shape[0]

    def place(self, name: str) -> tuple[str, tuple[int, ...]]:
        """The group in which a field lies, and its shape in one sample."""
        return self.contents.place(name in self.output_fields, self.grid)

    def attributes(self) -> dict[str, Any]:
        """Our root attributes."""
        values: dict[str, Any] = {"schema_version": 1 if self.plain else SCHEMA_VERSION}
        for field in dataclasses.fields(self):
            if field.name not in ("grid", "contents"):
                value = getattr(self, field.name)
                values[field.name] = np.asarray(value, np.uint32) if field.name == "key" else value
        if not self.plain:
            values["contents"] = self.contents.as_json()
        if self.grid is not None:
            values["num_points"] = np.asarray(self.grid.num_points, np.int64)
            values["domain_extent"] = np.asarray(self.grid.domain_extent, np.float64)
            values["boundary"] = json.dumps(self.grid.boundary)
            values["centering"] = list(self.grid.centering)
        return {_PREFIX + name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def of(cls, file: h5py.File) -> Header:
        """The header of an open file.

        **Raises:** `ValueError` when it is missing, of another schema or malformed.
        """
        version = file.attrs.get(_PREFIX + "schema_version")
        if not isinstance(version, int | np.integer):
            raise ValueError(
                "it is HDF5, but no file of neuralops.data.generate: the attribute 'neuralops_schema_version' is "
                "missing; use read_hdf5 or read_mat, or generate it"
            )
        if not 1 <= version <= SCHEMA_VERSION:
            raise ValueError(f"its schema is {version}, this library reads 1 to {SCHEMA_VERSION}; install a newer one")
        values: dict[str, Any] = {}
        try:
            for field in dataclasses.fields(cls):
                if field.name not in ("grid", "contents"):
                    value = file.attrs[_PREFIX + field.name]
                    kind = {"tuple": tuple, "int": int, "str": str}[str(field.type).split("[")[0]]
                    values[field.name] = kind(value.tolist() if isinstance(value, np.ndarray) else value)
            contents = Contents() if version == 1 else Contents.of(file.attrs[_PREFIX + "contents"])
            values["contents"] = contents
            if contents.points is not None:
                return cls(grid=None, **values)
            boundary = json.loads(file.attrs[_PREFIX + "boundary"])
            values["grid"] = Grid(
                tuple(file.attrs[_PREFIX + "num_points"].tolist()),
                tuple(file.attrs[_PREFIX + "domain_extent"].tolist()),
                tuple(tuple(word) if isinstance(word, list) else word for word in boundary),
                tuple(file.attrs[_PREFIX + "centering"].tolist()),
            )
            return cls(**values)
        except (KeyError, TypeError, AttributeError, ValueError, OSError, RuntimeError) as error:
            raise ValueError(f"its header is damaged ({error}); generate it again") from error

    def differences(self, other: Header, ignore: tuple[str, ...] = ()) -> list[str]:
        """Where two headers differ, in words."""
        return [
            f"{field.name}: {getattr(self, field.name)!r} there, {getattr(other, field.name)!r} here"
            for field in dataclasses.fields(self)
            if field.name not in ignore and getattr(self, field.name) != getattr(other, field.name)
        ]


def as_json(parameters: Any) -> str:
    """Parameters as JSON with sorted names, so that equal ones give equal bytes.

    **Raises:** `ValueError` when they are not a dictionary of numbers, words and lists of them.
    """
    try:
        return json.dumps(dict(parameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"parameters: expected a dictionary of numbers, words and lists of them, got {parameters!r} ({error}); "
            "keep only what JSON can hold."
        ) from error


def _scalars(header: Header) -> dict[str, int | float]:
    """The parameters that are numbers; The Well wants them as root attributes and as scalars."""
    return {
        name: value
        for name, value in json.loads(header.parameters).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def write_file(
    path: Path,
    header: Header,
    blocks: Iterable[Samples],
    num_trajectories: int,
    *,
    folder: Path | None = None,
    compression: int | None = None,
    times: np.ndarray | None = None,
) -> None:
    """Writes samples, block after block, under a temporary name and renames it.

    **Arguments:**

    - `blocks`: consecutive samples, `num_trajectories` together; either all with a `residual_norm` or none.
    - `folder`: where the temporary file lies, on the same file system; beside `path` unless given.
    - `compression`: gzip level, in chunks of one sample, of trajectories one frame; `None` stores plain contiguous
      arrays, which read fastest.
    - `times`: of the steps of trajectories.
    """
    grid, names, steps = header.grid, header.input_fields + header.output_fields, header.contents.steps
    dims = SPATIAL_DIMS[: grid.ndim] if grid is not None else ()
    # Versions of HDF5 that differ in their default format should still write the same bytes.
    with (
        atomic(path, folder or path.parent) as temporary,
        Patient(temporary) as disk,
        h5py.File(disk, "w", libver=("earliest", "v110")) as file,
    ):
        parameters = _scalars(header)
        file.attrs["dataset_name"] = header.problem.lower()
        file.attrs["grid_type"] = "cartesian" if grid is not None else "points"
        file.attrs["n_spatial_dims"] = header.ndim
        file.attrs["n_trajectories"] = num_trajectories
        file.attrs["simulation_parameters"] = list(parameters)
        for name, value in parameters.items():
            file.attrs[name] = value
        for name, value in header.attributes().items():
            file.attrs[name] = value

        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = list(dims)
        times = np.zeros(1, np.float32) if times is None else times
        _dataset(group, "time", times, sample_varying=False, time_varying=True)
        for axis, dim in enumerate(dims):
            assert grid is not None
            _dataset(group, dim, grid.points(axis).astype(np.float32), sample_varying=False, time_varying=False)

        group = file.create_group("boundary_conditions")
        for axis, dim in enumerate(dims):
            assert grid is not None
            _boundary(group, dim, grid, axis)

        scalars = file.create_group("scalars")
        group = file.create_group("t0_fields")
        on_grid = [name for name in names if header.place(name)[0] == "t0_fields"]
        group.attrs["field_names"] = [*on_grid, *header.contents.constants]
        for order in (1, 2):
            file.create_group(f"t{order}_fields").attrs["field_names"] = []
        fields = {}
        for name in names:
            where, shape = header.place(name)
            data = _empty(file, f"{where}/{name}", (num_trajectories, *shape), header.store_dtype, compression, steps)
            data.attrs["dim_varying"] = np.ones(len(shape) - bool(steps), bool)
            data.attrs["sample_varying"] = True
            data.attrs["time_varying"] = bool(steps)
            fields[name] = data
        stored = {}
        for array in header.contents.arrays:
            shape = array.whole_shape(num_trajectories)
            data = _empty(file, array.path, shape, array.dtype, None if array.shared else compression, 0)
            data.attrs["sample_varying"], data.attrs["time_varying"] = not array.shared, False
            if array.constant:
                data.attrs["dim_varying"] = np.ones(len(array.shape), bool)
            stored[array] = data
        for name, value in parameters.items():
            _dataset(scalars, name, np.asarray(value, np.float64), sample_varying=False, time_varying=False)
        digests = {data: hashlib.sha256() for data in (*fields.values(), *stored.values())}

        def put(data: h5py.Dataset, where: Any, x: np.ndarray) -> None:
            data[where] = x
            digests[data].update(little_endian(x))

        start = 0
        for block in blocks:
            if start == 0:
                measured = [] if block.residual_norm is None else ["residual_norm"]
                scalars.attrs["field_names"] = [*parameters, *measured]
                for name in measured:
                    _dataset(scalars, name, np.zeros(num_trajectories), sample_varying=True, time_varying=False)
            stop = start + len(block.inputs)
            for block_fields, x in ((header.input_fields, block.inputs), (header.output_fields, block.outputs)):
                for channel, name in enumerate(block_fields):
                    field = np.asarray(x)[:, :, channel] if steps else np.asarray(x)[:, channel]
                    put(fields[name], slice(start, stop), field.astype(header.store_dtype))
            for array, data in stored.items():
                if start == 0 or not array.shared:
                    x = np.asarray(array.of(block)).astype(array.dtype)
                    put(data, ... if array.shared else slice(start, stop), x)
            if block.residual_norm is not None:
                scalars["residual_norm"][start:stop] = block.residual_norm
            start = stop
            disk.check()
        assert start == num_trajectories
        for data, digest in digests.items():
            data.attrs[DIGEST] = digest.hexdigest()
        if steps:
            file["dimensions/time"].attrs[DIGEST] = hashlib.sha256(little_endian(times)).hexdigest()


def _empty(
    file: h5py.File, path: str, shape: tuple[int, ...], dtype: str, compression: int | None, steps: int
) -> h5py.Dataset:
    options: dict[str, Any] = {}
    if compression is not None and 0 not in shape:
        chunk = (1, 1, *shape[2:]) if steps else (1, *shape[1:])
        options = {"chunks": chunk, "compression": "gzip", "compression_opts": compression, "shuffle": True}
    return file.create_dataset(path, shape, dtype, track_times=False, **options)


def little_endian(x: np.ndarray) -> bytes:
    """The bytes of an array in C order, the same on every machine."""
    return np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()


def _dataset(group: h5py.Group, name: str, data: np.ndarray, **attributes: bool) -> None:
    dataset = group.create_dataset(name, data=data, track_times=False)
    for key, value in attributes.items():
        dataset.attrs[key] = value


def _boundary(group: h5py.Group, dim: str, grid: Grid, axis: int) -> None:
    """One group per axis, or one per end where the ends differ.

    The mask marks the first and last points of the axis, the ones next to the boundary; the values are those
    of the homogeneous condition.
    """
    for name, word, index in conditions(dim, grid, axis):
        item = group.create_group(name)
        item.attrs["associated_dims"] = [dim]
        item.attrs["associated_fields"] = []
        item.attrs["bc_type"] = WELL_WORDS[word]
        item.attrs["neuralops_boundary"] = word
        item.attrs["sample_varying"] = False
        item.attrs["time_varying"] = False
        mask = np.zeros(grid.shape[axis], bool)
        mask[list(index)] = True
        _dataset(item, "mask", mask)
        _dataset(item, "values", np.zeros(int(mask.sum()), np.float32))


def conditions(dim: str, grid: Grid, axis: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """Group name, our word and marked points of each boundary condition along an axis."""
    low, high = grid.axes[axis].ends
    if low == high:
        return [(f"{dim}_{WELL_WORDS[low]}", low, (0, -1))]
    return [(f"{dim}_low_{WELL_WORDS[low]}", low, (0,)), (f"{dim}_high_{WELL_WORDS[high]}", high, (-1,))]
