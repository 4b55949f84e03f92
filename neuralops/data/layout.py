"""How samples lie in an HDF5 file: a strict subset of the layout of The Well, plus our own header.

The Well (Ohana et al. 2024, "The Well: a large-scale collection of diverse physics simulations") keeps fields
in `t0_fields` as `(trajectories, *space)` beside `dimensions`, `boundary_conditions` and `scalars`, so its
tools read these files. What The Well has no word for (the grid's centring, the exact boundary, problem, key,
versions) stands in root attributes that begin with `neuralops_`.

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

from neuralops.data.disk import Patient, atomic
from neuralops.data.samples import Samples
from neuralops.grid import Grid

SCHEMA_VERSION = 1
SPATIAL_DIMS = ("x", "y", "z")
DIGEST = "neuralops_sha256"  # attribute of each field: a digest of its numbers
STORE_DTYPES = ("float32", "float64")
WELL_WORDS = {"periodic": "periodic", "dirichlet": "wall", "neumann": "wall"}  # The Well: periodic | wall | open
_GROUPS = ("dimensions", "boundary_conditions", "scalars", "t0_fields", "t1_fields", "t2_fields")
_WELL_ATTRIBUTES = ("dataset_name", "grid_type", "n_spatial_dims", "n_trajectories", "simulation_parameters")
_PREFIX = "neuralops_"


def _library_version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("neuralops-jax")
    return "unknown"


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about itself.

    **Fields:** the `problem`'s name and `parameters` (JSON), the `grid`, one field name per channel, the number
    of samples in the whole set, the random key they were drawn from (`key`, `key_impl`), the precision of
    compute and storage, how many were computed at once, and the versions that did it.
    """

    problem: str
    parameters: str
    grid: Grid
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

    def __post_init__(self) -> None:
        names = self.input_fields + self.output_fields
        if self.grid.ndim > len(SPATIAL_DIMS):
            raise ValueError(
                f"grid: expected 1 to {len(SPATIAL_DIMS)} space dimensions in a file, got {self.grid.ndim}; "
                "keep these samples in memory (path=None)."
            )
        if not self.input_fields or not self.output_fields or len(set(names)) != len(names):
            raise ValueError(
                f"input_fields, output_fields: expected distinct names, one per channel, got {self.input_fields} and "
                f"{self.output_fields}; name the same field at two times twice, as in 'u0' and 'u'."
            )
        for name in names:
            if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
                raise ValueError(f"input_fields, output_fields: expected plain names, got {name!r}; use letters.")
        for name in json.loads(self.parameters):
            if name in (*_WELL_ATTRIBUTES, "residual_norm") or name.startswith(_PREFIX) or "/" in name:
                raise ValueError(f"parameters: expected names that the layout leaves free, got {name!r}; rename it.")
        if self.store_dtype not in STORE_DTYPES:
            raise ValueError(
                f"store_dtype: expected one of {STORE_DTYPES}, got {self.store_dtype!r}; use one of these words."
            )

    def attributes(self) -> dict[str, Any]:
        """Our root attributes."""
        values: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        for field in dataclasses.fields(self):
            if field.name != "grid":
                value = getattr(self, field.name)
                values[field.name] = np.asarray(value, np.uint32) if field.name == "key" else value
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
        if version != SCHEMA_VERSION:
            raise ValueError(f"its schema is {version}, this library reads {SCHEMA_VERSION}; install a matching one")
        values: dict[str, Any] = {}
        try:
            for field in dataclasses.fields(cls):
                if field.name != "grid":
                    value = file.attrs[_PREFIX + field.name]
                    kind = {"tuple": tuple, "int": int, "str": str}[str(field.type).split("[")[0]]
                    values[field.name] = kind(value.tolist() if isinstance(value, np.ndarray) else value)
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
) -> None:
    """Writes samples, block after block, under a temporary name and renames it.

    **Arguments:**

    - `blocks`: consecutive samples, `num_trajectories` together; either all with a `residual_norm` or none.
    - `folder`: where the temporary file lies, on the same file system; beside `path` unless given.
    - `compression`: gzip level; `None` stores plain contiguous arrays, which read fastest.
    """
    grid, names = header.grid, header.input_fields + header.output_fields
    dims = SPATIAL_DIMS[: grid.ndim]
    # Versions of HDF5 that differ in their default format should still write the same bytes.
    with (
        atomic(path, folder or path.parent) as temporary,
        Patient(temporary) as disk,
        h5py.File(disk, "w", libver=("earliest", "v110")) as file,
    ):
        parameters = _scalars(header)
        file.attrs["dataset_name"] = header.problem.lower()
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = grid.ndim
        file.attrs["n_trajectories"] = num_trajectories
        file.attrs["simulation_parameters"] = list(parameters)
        for name, value in parameters.items():
            file.attrs[name] = value
        for name, value in header.attributes().items():
            file.attrs[name] = value

        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = list(dims)
        _dataset(group, "time", np.zeros(1, np.float32), sample_varying=False, time_varying=True)
        for axis, dim in enumerate(dims):
            _dataset(group, dim, grid.points(axis).astype(np.float32), sample_varying=False, time_varying=False)

        group = file.create_group("boundary_conditions")
        for axis, dim in enumerate(dims):
            _boundary(group, dim, grid, axis)

        scalars = file.create_group("scalars")
        fields = file.create_group("t0_fields")
        fields.attrs["field_names"] = list(names)
        for order in (1, 2):
            file.create_group(f"t{order}_fields").attrs["field_names"] = []
        for name in names:
            shape = (num_trajectories, *grid.shape)
            options: dict[str, Any] = {}
            if compression is not None:
                options = {
                    "chunks": (1, *grid.shape),
                    "compression": "gzip",
                    "compression_opts": compression,
                    "shuffle": True,
                }
            data = fields.create_dataset(name, shape, header.store_dtype, track_times=False, **options)
            data.attrs["dim_varying"] = np.ones(grid.ndim, bool)
            data.attrs["sample_varying"] = True
            data.attrs["time_varying"] = False
        for name, value in parameters.items():
            _dataset(scalars, name, np.asarray(value, np.float64), sample_varying=False, time_varying=False)
        digests = {name: hashlib.sha256() for name in names}
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
                    data = np.asarray(x)[:, channel].astype(header.store_dtype)
                    fields[name][start:stop] = data
                    digests[name].update(little_endian(data))
            if block.residual_norm is not None:
                scalars["residual_norm"][start:stop] = block.residual_norm
            start = stop
            disk.check()
        assert start == num_trajectories
        for name, digest in digests.items():
            fields[name].attrs[DIGEST] = digest.hexdigest()


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
    for name, word, index in _conditions(dim, grid, axis):
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


def _conditions(dim: str, grid: Grid, axis: int) -> list[tuple[str, str, tuple[int, ...]]]:
    """Group name, our word and marked points of each boundary condition along an axis."""
    low, high = grid.axes[axis].ends
    if low == high:
        return [(f"{dim}_{WELL_WORDS[low]}", low, (0, -1))]
    return [(f"{dim}_low_{WELL_WORDS[low]}", low, (0,)), (f"{dim}_high_{WELL_WORDS[high]}", high, (-1,))]


def violations(file: h5py.File, header: Header) -> list[str]:
    """Where an open file breaks the layout that its header promises, in words; reads no field data."""
    found = [f"attribute {name!r} is missing" for name in _WELL_ATTRIBUTES if name not in file.attrs]
    found += [f"group {name!r} is missing" for name in _GROUPS if not isinstance(_own(file, name), h5py.Group)]
    if found:
        return found
    grid, count = header.grid, file.attrs["n_trajectories"]
    if not isinstance(count, int | np.integer) or count < 1:
        return [f"n_trajectories is {count!r}, not a positive integer"]
    if file.attrs["n_spatial_dims"] != grid.ndim:
        found.append(f"n_spatial_dims is {file.attrs['n_spatial_dims']}, but the grid has {grid.ndim} axes")
    for name in np.asarray(file.attrs["simulation_parameters"]).tolist():
        if name not in file.attrs:
            found.append(f"simulation parameter {name!r} has no attribute")
    for axis, dim in enumerate(SPATIAL_DIMS[: grid.ndim]):
        points = _own(file["dimensions"], dim)
        if not isinstance(points, h5py.Dataset) or points.shape != (grid.shape[axis],):
            found.append(f"dimensions/{dim} is missing or does not have {grid.shape[axis]} points")
        elif not np.array_equal(points[:], grid.points(axis).astype(np.float32)):
            found.append(f"dimensions/{dim} does not hold the points of the grid {grid}")
        for name, word, _ in _conditions(dim, grid, axis):
            item = _own(file["boundary_conditions"], name)
            if not isinstance(item, h5py.Group) or item.attrs.get("neuralops_boundary") != word:
                found.append(f"boundary_conditions/{name} is missing or does not say {word!r}")
    names = header.input_fields + header.output_fields
    if set(np.asarray(file["t0_fields"].attrs.get("field_names", [])).tolist()) != set(names):
        found.append(f"t0_fields does not list exactly the fields {list(names)}")
    for name in names:
        found += _array_violations(file["t0_fields"], name, (int(count), *grid.shape), header.store_dtype)
    if "residual_norm" in file["scalars"]:
        found += _array_violations(file["scalars"], "residual_norm", (int(count),), "float64")
    return found


def _own(group: h5py.Group, name: str) -> Any:
    """A member stored in this file itself: a link could point at any file of the machine."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _array_violations(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: str) -> list[str]:
    where, data = f"{group.name.strip('/')}/{name}", _own(group, name)
    if not isinstance(data, h5py.Dataset):
        return [f"{where} is missing"]
    found = []
    if data.shape != shape:
        found.append(f"{where} has shape {data.shape}, expected {shape}")
    if data.dtype != np.dtype(dtype):
        found.append(f"{where} has dtype {data.dtype}, expected {dtype}")
    if data.is_virtual or data.external:
        found.append(f"{where} keeps its data in another file")
    return found
