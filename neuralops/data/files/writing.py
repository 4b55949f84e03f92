"""Arrays of one's own as a file that every tool can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralops.arguments import file_to_write
from neuralops.data.files.contents import describe
from neuralops.data.files.layout import Header, as_json, write_file
from neuralops.data.files.source import HDF5Source
from neuralops.data.samples import Samples
from neuralops.grid import Grid


def write(
    path: str | os.PathLike[str],
    samples: Samples | tuple[Any, Any],
    *,
    name: str,
    input_fields: Sequence[str],
    output_fields: Sequence[str] = (),
    grid: Grid | None = None,
    times: Any = None,
    parameters: Mapping[str, Any] | None = None,
    compression: int | None = None,
) -> HDF5Source:
    """Writes arrays of your own in the layout of `generate`, so that every tool can read them.

    ```python
    no.data.write("flow.h5", no.data.pad(u, p, coords=x), name="Flow", input_fields=["u"], output_fields=["p"])
    no.data.write("waves.h5", no.data.Samples(frames), grid=grid, times=t, name="Waves", input_fields=["u"])
    ```

    **Arguments:**

    - `samples`: `Samples` or a pair `(inputs, outputs)` of arrays `(samples, channels, *grid)`, with points, masks and
      extras of each sample or shared by all. Points that a mask leaves out may hold NaN. Trajectories are
      `(samples, time, channels, *grid)`, alone or with outputs that are trajectories too.
    - `name`: what the data set is called.
    - `input_fields`, `output_fields`: one distinct name per channel; none for outputs that are not there.
    - `grid`: the grid of all fields: extent, boundary and centring as they were when the data were made. `None` for
      points without a grid, which need `coords`. Outputs at a `query` may lie elsewhere in both cases.
    - `times`: those of the frames of trajectories, increasing; 0, 1, 2, ... when left out with a `grid`.
    - `parameters`: numbers and words that describe how the data came about.
    - `compression`: gzip level 0 to 9, `None` for none.

    **Returns:** the opened file. It appears under its name only when it is whole.

    **Raises:** `ValueError` when shapes, names, times and grid do not fit, on NaN in points that count, on extras that
    are no numbers, or when `path` exists or is a folder; `OSError` when nothing can be written there or the disk is
    full.
    """
    target = file_to_write(path)
    samples, contents, times = describe(samples, grid, times)
    for field, x, names in (("inputs", samples.inputs, input_fields), ("outputs", samples.outputs, output_fields)):
        lead = ("samples", "time") if contents.steps else ("samples",)
        points = contents.points_out if field == "outputs" and contents.points_out is not None else contents.points
        if points is None:
            assert grid is not None
            points = grid.shape
        if x is None and not names:
            continue
        if x is None or isinstance(names, str) or x.shape[len(lead) :] != (len(names), *points):
            said = ", ".join((*lead, *map(str, (len(names), *points))))
            raise ValueError(
                f"samples.{field}: expected shape ({said}) for the fields {names!r} "
                f"{'on this grid' if grid is not None else 'on these points'}, got {None if x is None else x.shape}; "
                "name each channel and give the arrays' grid."
            )
    if target.exists():
        raise ValueError(f"path: expected a new file, but {str(path)!r} is there; give another path or move the file.")
    real = [x for x in (samples.inputs, samples.outputs) if x is not None]
    header = Header(
        problem=name,
        parameters=as_json(parameters or {}),
        grid=grid,
        input_fields=tuple(input_fields),
        output_fields=tuple(output_fields),
        num_samples=len(samples),
        store_dtype=str(np.promote_types(np.result_type(*real), np.float32)),
        contents=contents,
    )
    if samples.residual_norm is not None:
        samples = samples.replace(residual_norm=samples.residual_norm.astype(np.float64))
    write_file(target, header, [samples], len(samples), compression=compression, times=times)
    return HDF5Source(target)
