"""Making data sets: a problem in, certified labels out, shard by shard, so that a killed run loses little.

Sample `i` depends on the key and `i` alone, never on how the work was cut into shards, so a run that was
killed and taken up again leaves the same bytes as one that was not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from neuralops.arguments import count, file_to_write
from neuralops.data.files import shards
from neuralops.data.files.contents import Contents, Stored
from neuralops.data.files.disk import no_room
from neuralops.data.files.layout import Header, as_json, write_file
from neuralops.data.files.source import HDF5Source
from neuralops.data.samples import Samples

DTYPES = ("float32", "float64")
RESIDUAL_SLACK = 10.0  # a label may miss the tolerance its problem declares (`rtol`) by this factor, not more
LABEL_RESIDUAL = 1e-6  # and where it declares none, a label computed in float64 is refused above this
_OPTIONAL = ("version", "jax_version")  # a complete file stays good when the library moves on

Compute = Callable[[int, int], Samples]


def generate(
    problem: Any,
    *,
    key: Any,
    num_samples: int,
    path: str | os.PathLike[str] | None = None,
    shard_size: int = 64,
    batch_size: int = 1,
    dtype: str = "float64",
    store_dtype: str = "float32",
    max_residual: float | None = None,
    compression: int | None = None,
    trajectories: str | Sequence[str] | None = None,
    progress: bool = True,
) -> Samples | HDF5Source:
    """Draws input functions, solves for the outputs and keeps both with the residual that was reached.

    **Arguments:**

    - `problem`: what to sample and solve, such as `no.pde.Darcy(...)`.
    - `key`: a JAX random key or an integer seed. Sample `i` is drawn with `fold_in(key, i)`.
    - `num_samples`: how many.
    - `path`: an HDF5 file to write; `None` keeps the samples in memory. The numbers are the same.
    - `shard_size`: samples per shard, the most that a killed run loses; it does not change the numbers.
    - `batch_size`: samples computed at once. One is right on a processor, more pay on an accelerator; the
      choice can change the last bits and is recorded.
    - `dtype`: precision of the computation, `"float64"` or `"float32"`, whatever the global setting of JAX.
    - `store_dtype`: precision of the stored fields. The residual is measured before this rounding.
    - `max_residual`: refuses a label whose relative residual is larger; by default 10 times the `rtol` of the
      problem where it states one, else 1e-6 in float64 and no limit in float32. `float("inf")` takes all.
    - `compression`: gzip level 0 to 9 of the file, `None` for none.
    - `trajectories`: names, such as `"vorticity"` or `("pressure", "velocity_x")`, for problems whose outputs are these
      fields at the times that the problem has as `times`, time by time: the outputs are kept as frames, `inputs` of
      shape `(samples, time, fields, *grid)` without outputs, as `data.windows` takes them. Of the problem's input the
      `constant_fields` are kept, as `extras` `(samples, *grid)`, else only what stands in such a frame.
    - `progress`: shows a bar.

    **Returns:** `Samples` of NumPy arrays without a `path`, else the opened `HDF5Source`. A complete file at
    `path` with the same content is opened as it is.

    Finished shards lie in the folder `<path>.parts` until the file is whole, each written under a temporary
    name, flushed to disk and renamed; calling again with the same arguments goes on from there, and the file is
    then bitwise that of an uninterrupted run on the same machine and versions.

    **Raises:** `ValueError` before any computation on a wrong argument, or when `path` or its parts belong to
    other data; during it when a label is not finite or misses its residual, naming the sample. `OSError` when nothing
    can be written there, before any computation, or the disk is full: finished shards stay, calling again goes on.
    """
    target = None if path is None else file_to_write(path).absolute()
    folder = None if target is None else target.with_name(target.name + ".parts")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"path: expected {str(folder)!r} to be free for a folder, got a file; move it or rename path.")
    num_samples, batch_size = count(num_samples, "num_samples"), count(batch_size, "batch_size")
    trajectories, times = (None, None) if trajectories is None else _frames(problem, trajectories)
    header, compute = _prepare(problem, key, num_samples, batch_size, dtype, store_dtype, max_residual, trajectories)
    shard_size = count(shard_size, "shard_size")
    shard_size = -(-shard_size // batch_size) * batch_size  # whole batches, so that a sample keeps its place in one
    if compression is not None and (isinstance(compression, bool) or compression not in range(10)):
        raise ValueError(f"compression: expected None or a gzip level 0 to 9, got {compression!r}; 4 is common.")
    if target is None or folder is None:
        with tqdm(total=num_samples, unit="sample", disable=not progress) as bar:
            return _collect(compute, 0, num_samples, batch_size, bar)

    if target.exists():
        source = _complete(target, header)
        shards.clear(folder)
        return source
    kept = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with shards.lock(folder):
            done = shards.finished(folder, header)
            kept = sum(b - a for a, b in done)
            with tqdm(total=num_samples, initial=kept, unit="sample", disable=not progress) as bar:
                for start, stop in shards.missing(done, num_samples, shard_size):
                    shard = _collect(compute, start, stop, batch_size, bar)
                    write_file(shards.shard_path(folder, start, stop), header, [shard], stop - start, times=times)
                    kept += stop - start
            blocks = shards.read(folder, shards.finished(folder, header))
            # The temporary file lies with the parts: what a kill leaves of it goes when they go.
            write_file(target, header, blocks, num_samples, folder=folder, compression=compression, times=times)
    except KeyboardInterrupt:
        print(f"\nstopped with {_safe(kept, num_samples, folder)} to go on.", file=sys.stderr)
        raise
    except OSError as error:
        number = no_room(error)
        if number is None:
            raise
        raise OSError(
            number, f"path: {os.strerror(number)}, with {_safe(kept, num_samples, folder)} when there is room"
        ) from error
    shards.clear(folder)
    return HDF5Source(target)


def _safe(kept: int, num_samples: int, folder: Path) -> str:
    return f"{kept} of {num_samples} samples safe in {folder}; call generate again with the same arguments"


def _frames(problem: Any, trajectories: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """The fields of the frames of a trajectory, and their times."""
    names = (trajectories,) if isinstance(trajectories, str) else trajectories
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"trajectories: expected names for the fields whose frames are kept, got {trajectories!r}; use 'vorticity' "
            "or the like."
        )
    times = getattr(problem, "times", None)
    if times is None or len(times) * len(names) != len(problem.output_fields):
        raise ValueError(
            f"trajectories: expected a problem with times and {len(names)} output(s) for each, got "
            f"{type(problem).__name__}; leave it out, or take a problem such as NavierStokes."
        )
    return tuple(names), np.asarray(times)


def _random_key(key: Any) -> jax.Array:
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not 0 <= key < 2**32:
            raise ValueError(f"key: expected a seed from 0 to 2**32 - 1, got {key}; take a smaller one.")
        return jax.random.key(int(key))
    if isinstance(key, jax.Array | np.ndarray):
        if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return key
        if key.dtype == np.uint32 and key.shape == jax.random.key_data(jax.random.key(0)).shape:
            return jax.random.wrap_key_data(jnp.asarray(key))
    raise ValueError(
        f"key: expected one random key or an integer seed, got {type(key).__name__}"
        f"{f' of shape {key.shape}' if hasattr(key, 'shape') else ''}; use jax.random.key(0)."
    )


def _prepare(
    problem: Any,
    key: Any,
    num_samples: int,
    batch_size: int,
    dtype: str,
    store_dtype: str,
    max_residual: float | None,
    trajectories: tuple[str, ...] | None,
) -> tuple[Header, Compute]:
    """The header of the data set and the function that computes samples `start` to `stop` of it."""
    missing = [
        name
        for name in ("grid", "sample", "solve", "relative_residual", "parameters", "input_fields", "output_fields")
        if not hasattr(problem, name)
    ]
    if missing or isinstance(problem, type):
        raise ValueError(
            f"problem: expected a Problem such as no.pde.Poisson(...), got {problem!r}, which lacks "
            f"{missing or 'its arguments'}; build one."
        )
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {DTYPES}, got {dtype!r}; use one of these words.")
    key = _random_key(key)
    if max_residual is None:
        stated = getattr(problem, "rtol", None)
        default = LABEL_RESIDUAL if dtype == "float64" else float("inf")
        max_residual = default if stated is None else RESIDUAL_SLACK * stated
    if isinstance(max_residual, bool) or not isinstance(max_residual, int | float) or not max_residual > 0:
        raise ValueError(f"max_residual: expected a positive number or None, got {max_residual!r}; give 1e-9 or so.")
    fields = tuple(problem.input_fields)
    constants = () if trajectories is None else tuple(getattr(problem, "constant_fields", ()))

    def label(index: jax.Array) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        a = problem.sample(jax.random.fold_in(key, index))
        u, extras = problem.label(a) if hasattr(problem, "label") else (problem.solve(a), {})
        return a, u, extras | {name: a[fields.index(name)] for name in constants}

    with jax.enable_x64(dtype == "float64"):
        *shapes, beside = jax.eval_shape(label, jnp.uint32(0))
    for name, x, names in zip(("sample", "solve"), shapes, (problem.input_fields, problem.output_fields), strict=True):
        if x.shape != (len(names), *problem.grid.shape) or x.dtype != dtype:
            raise ValueError(
                f"problem: expected {name} to return shape {(len(names), *problem.grid.shape)} and dtype {dtype} "
                f"for the fields {names}, got {x.shape} and {x.dtype}; correct the problem."
            )
    stored = [
        Stored(name, x.shape, store_dtype, extra=True, constant=name in constants) for name, x in sorted(beside.items())
    ]
    header = Header(
        problem=type(problem).__name__,
        parameters=as_json(problem.parameters()),
        grid=problem.grid,
        input_fields=fields if trajectories is None else trajectories,
        output_fields=tuple(problem.output_fields) if trajectories is None else (),
        num_samples=num_samples,
        key=tuple(np.asarray(jax.random.key_data(key)).ravel().tolist()),
        key_impl=str(jax.random.key_impl(key)),
        dtype=dtype,
        store_dtype=store_dtype,
        batch_size=batch_size,
        contents=Contents(
            0 if trajectories is None else len(problem.output_fields) // len(trajectories), arrays=tuple(stored)
        ),
    )

    labels = jax.jit(_batched(label, batch_size))
    residuals = jax.jit(_batched(problem.relative_residual, batch_size))

    def compute(start: int, stop: int) -> Samples:
        # A last batch is filled up with samples that are thrown away: one program computes every sample.
        index = np.arange(start, start + batch_size, dtype=np.uint32)
        with jax.enable_x64(dtype == "float64"):
            a, u, extras = labels(index)
        with jax.enable_x64(True):
            residual = np.asarray(residuals(jnp.asarray(a, jnp.float64), jnp.asarray(u, jnp.float64)))
        cut = lambda x: np.asarray(x)[: stop - start]
        a, u, residual, extras = jax.tree.map(cut, (a, u, residual, extras))
        with np.errstate(over="ignore"):  # an overflow in rounding is reported below, with the sample's number
            extras = {name: x.astype(store_dtype) for name, x in extras.items()}
            samples = Samples(a.astype(store_dtype), u.astype(store_dtype), residual, extras=extras)
        _certify(samples, start, max_residual)
        if trajectories is None:
            return samples
        frames = samples.outputs.reshape(len(a), -1, len(trajectories), *samples.outputs.shape[2:])
        return Samples(frames, residual_norm=residual, extras=extras)

    return header, compute


def _batched(function: Callable[..., Any], batch_size: int) -> Callable[..., Any]:
    """`jax.vmap`, but one sample goes without: a vmapped loop copies its state in every step."""
    if batch_size > 1:
        return jax.vmap(function)
    return lambda *x: jax.tree.map(lambda y: y[None], function(*(y[0] for y in x)))


def _certify(samples: Samples, start: int, max_residual: float) -> None:
    named = {"input": samples.inputs, "output": samples.outputs, "residual": samples.residual_norm, **samples.extras}
    for i, residual in enumerate(samples.residual_norm, start):
        for name, x in ((name, x[i - start]) for name, x in named.items()):
            if not np.isfinite(x).all():
                raise ValueError(
                    f"problem: expected finite labels, got NaN or infinity in the {name} of sample {i}; "
                    "check the problem's parameters, or store in float64 if its values are huge."
                )
        if residual > max_residual:
            raise ValueError(
                f"problem: expected a relative residual of at most {max_residual:.1e}, got {residual:.1e} for sample "
                f"{i}; let the solver take more steps, compute in float64 or raise max_residual."
            )


def _collect(compute: Compute, start: int, stop: int, batch_size: int, bar: Any) -> Samples:
    """Samples `start` to `stop`, batch by batch."""
    batches = []
    for first in range(start, stop, batch_size):
        batches.append(compute(first, min(first + batch_size, stop)))
        bar.update(len(batches[-1].inputs))
    return jax.tree.map(lambda *x: np.concatenate(x), *batches)


def _complete(path: Path, header: Header) -> HDF5Source:
    """The source at `path`, provided it holds what was asked for."""
    source = HDF5Source(path)
    found = source.header.differences(header, ignore=_OPTIONAL)
    if found:
        raise ValueError(
            f"path: {str(path)!r} already holds other data ({'; '.join(found)}); give another path or move the file."
        )
    return source
