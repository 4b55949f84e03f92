"""Whether a file holds what its header promises: the layout at opening, all the numbers in `validate`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from neuralops.data.files.layout import (
    DIGEST,
    GROUPS,
    SPATIAL_DIMS,
    WELL_ATTRIBUTES,
    Header,
    conditions,
    little_endian,
)
from neuralops.data.samples import check_finite

BLOCK = 64  # samples read at once where all of them are scanned, fewer when they are large
_BLOCK_BYTES = 2**26


def blocks(data: h5py.Dataset) -> Iterator[slice]:
    """Consecutive samples of an array, few enough for any memory."""
    step = max(1, min(BLOCK, _BLOCK_BYTES * len(data) // max(1, data.nbytes)))
    return (slice(start, min(start + step, len(data))) for start in range(0, len(data), step))


def violations(file: h5py.File, header: Header) -> list[str]:
    """Where an open file breaks the layout that its header promises, in words; reads no field data."""
    found = [f"attribute {name!r} is missing" for name in WELL_ATTRIBUTES if name not in file.attrs]
    found += [f"group {name!r} is missing" for name in GROUPS if not isinstance(_own(file, name), h5py.Group)]
    if found:
        return found
    grid, contents, count = header.grid, header.contents, file.attrs["n_trajectories"]
    if not isinstance(count, int | np.integer) or count < 1:
        return [f"n_trajectories is {count!r}, not a positive integer"]
    if file.attrs["n_spatial_dims"] != header.ndim:
        found.append(f"n_spatial_dims is {file.attrs['n_spatial_dims']}, but the grid has {header.ndim} axes")
    for name in np.asarray(file.attrs["simulation_parameters"]).tolist():
        if name not in file.attrs:
            found.append(f"simulation parameter {name!r} has no attribute")
    for axis, dim in enumerate(SPATIAL_DIMS[: 0 if grid is None else grid.ndim]):
        assert grid is not None
        points = _own(file["dimensions"], dim)
        if not isinstance(points, h5py.Dataset) or points.shape != (grid.shape[axis],):
            found.append(f"dimensions/{dim} is missing or does not have {grid.shape[axis]} points")
        elif not np.array_equal(points[:], grid.points(axis).astype(np.float32)):
            found.append(f"dimensions/{dim} does not hold the points of the grid {grid}")
        for name, word, _ in conditions(dim, grid, axis):
            item = _own(file["boundary_conditions"], name)
            if not isinstance(item, h5py.Group) or item.attrs.get("neuralops_boundary") != word:
                found.append(f"boundary_conditions/{name} is missing or does not say {word!r}")
    names = header.input_fields + header.output_fields
    on_grid = [name for name in names if header.place(name)[0] == "t0_fields"] + list(contents.constants)
    if set(np.asarray(file["t0_fields"].attrs.get("field_names", [])).tolist()) != set(on_grid):
        found.append(f"t0_fields does not list exactly the fields {on_grid}")
    if contents.steps:
        found += _array_violations(file, "dimensions", "time", (contents.steps,), None)
    for name in names:
        where, shape = header.place(name)
        found += _array_violations(file, where, name, (int(count), *shape), header.store_dtype)
    for array in contents.arrays:
        found += _array_violations(file, array.group, array.name, array.whole_shape(int(count)), array.dtype)
    found += contents.misfits(grid, bool(header.output_fields))
    if "residual_norm" in file["scalars"]:
        found += _array_violations(file, "scalars", "residual_norm", (int(count),), "float64")
    return found


def _own(group: h5py.Group, name: str) -> Any:
    """A member stored in this file itself: a link could point at any file of the machine."""
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _array_violations(file: h5py.File, place: str, name: str, shape: tuple[int, ...], dtype: str | None) -> list[str]:
    group = _own(file, place)
    where, data = f"{place}/{name}", _own(group, name) if isinstance(group, h5py.Group) else None
    if not isinstance(data, h5py.Dataset):
        return [f"{where} is missing"]
    found = []
    if data.shape != shape:
        found.append(f"{where} has shape {data.shape}, expected {shape}")
    if data.dtype != dtype if dtype is not None else data.dtype.kind != "f":
        found.append(f"{where} has dtype {data.dtype}, expected {dtype or 'real numbers'}")
    if data.is_virtual or data.external:
        found.append(f"{where} keeps its data in another file")
    return found


def spoiled(file: h5py.File, header: Header) -> list[str]:
    """Where the numbers of an open file are not those that were written, or not numbers, in words; reads all."""
    found = []
    contents = header.contents
    masks = {name: file[stored.path] for name in ("mask", "query_mask") if (stored := contents.get(name)) is not None}
    shared = {name: data[...][None] for name, data in masks.items() if name in contents.shared}

    def mask(name: str | None, where: slice) -> Any:
        return None if name not in masks else shared[name] if name in shared else masks[name][where]

    apart = contents.points_out is not None or "query_mask" in masks
    for name in header.input_fields + header.output_fields:
        beside = "query_mask" if name in header.output_fields and apart else "mask"
        found += _spoiled(
            file,
            f"{header.place(name)[0]}/{name}",
            lambda where, beside=beside: mask(beside, where),
            channels=bool(contents.steps),  # time stands where channels do
        )
    for array in contents.arrays:
        points = {"coords": "mask", "query": "query_mask"}.get(array.name)
        if array.extra or points is None:
            found += _spoiled(file, array.path, None, array.shared)
        else:
            found += _spoiled(file, array.path, lambda where, points=points: mask(points, where), array.shared)
    if contents.steps:
        found += _spoiled(file, "dimensions/time", None, True)
        if not (np.diff(file["dimensions/time"][:]) > 0).all():
            found.append("dimensions/time does not increase")
    if "residual_norm" in file["scalars"]:
        residual = file["scalars/residual_norm"][:]
        if not (np.isfinite(residual) & (residual >= 0)).all():
            found.append("scalars/residual_norm holds numbers that are no residuals")
    return found


def _spoiled(file: h5py.File, path: str, mask: Any, shared: bool = False, channels: bool = True) -> list[str]:
    """One array against its digest; where there is a `mask`, its numbers must be finite where that counts."""
    found, data, digest = [], file[path], hashlib.sha256()
    for where in [...] if shared else blocks(data):
        x = data[where]
        digest.update(little_endian(x))
        if mask is not None:
            first = where if isinstance(where, slice) else slice(0, 1)
            try:
                x = x[None] if shared else x
                check_finite(x if channels else x[:, None], path, first.start, mask=mask(first))
            except ValueError as error:
                found.append(str(error).split(";")[0])
    if data.attrs.get(DIGEST) != digest.hexdigest():
        found.append(f"{path} does not have the digest it was written with")
    return found
