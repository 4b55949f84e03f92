"""The files: safetensors, complete or absent, checked before they are believed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from neuralops.arguments import existing_file, file_to_write
from neuralops.checkpoint.description import describe, skeleton
from neuralops.data.files.disk import atomic
from neuralops.operator import AbstractOperator, as_operator, named_leaves, original, with_leaves

FORMAT = 1
MAX_HEADER = 16 * 2**20  # bytes; a header of a million arrays is no operator

_DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip


def save(path: str | os.PathLike[str], op: Any) -> None:
    """Writes an operator to one safetensors file, complete or not at all; missing folders are made.

    **Arguments:**

    - `path`: the file, commonly ending in `.safetensors`; an existing one is replaced.
    - `op`: an operator of the library, or any callable pytree with real floating leaves, or a module with other
      leaves beside them, such as `eqx.nn.MLP`. When it cannot be rebuilt from plain values, only its arrays are
      stored, with a `UserWarning` that says why: `load` will then need `like=`.

    **Raises:** `ValueError` when `op` has leaves that are not real floating arrays, or neither arrays nor a class
    of this library, or `path` is a folder; `OSError` when nothing can be written there or the disk is full.
    """
    path = file_to_write(path)
    op = _operator(op)
    about = describe(op)
    rebuilt_from_class = about["class"] is not None  # then there may be nothing else to store
    arrays = {} if rebuilt_from_class and not jax.tree.leaves(op) else leaves_of(op)
    write_arrays(path, arrays, {"kind": "operator", **about})
    if not rebuilt_from_class:
        warnings.warn(
            f"save: {str(path)!r} holds arrays only ({about['reason']}); to read it, give load(path, like=op) an "
            "operator of the same structure.",
            UserWarning,
            stacklevel=_to_the_user(),
        )


def _operator(op: Any) -> Any:
    """A module with functions among its leaves as an operator; others as they are."""
    return as_operator(op) if isinstance(op, eqx.Module) and callable(op) else op


def _to_the_user() -> int:
    """The `stacklevel` of the first caller outside the library: whoever can do something about a warning."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "neuralops":
        frame, level = frame.f_back, level + 1
    return level


def load(path: str | os.PathLike[str], *, like: Any = None) -> Any:
    """Reads an operator written by `save`.

    **Arguments:**

    - `path`: the file.
    - `like`: an operator (or module) of the same structure, for files that hold arrays only; its own values are
      ignored.

    **Returns:** the operator. One that was saved with ensemble axes in front of its leaves has them again.

    **Raises:** `FileNotFoundError`; `ValueError` when the file is cut short, foreign, of another format or
    class, its constructor arguments are refused, its arrays do not fit them, or it holds double precision
    while JAX is in single precision.
    """
    arrays, about = read_arrays(path, "operator")
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"path: expected real floating arrays in {str(path)!r}, got {x.dtype} for {name!r}; "
                "the file was not written by save."
            )
    plain = like is not None and not isinstance(like, AbstractOperator)
    like = _operator(like)
    if like is None:
        if about.get("class") is None:
            raise ValueError(
                f"path: {str(path)!r} holds arrays only ({about.get('reason', 'no class is named')}); "
                "use load(path, like=op) with an operator of the same structure."
            )
        like = skeleton(about, sum(x.size for x in arrays.values()), str(path))
    try:
        loaded = with_leaves(like, {name: to_device(x, str(path)) for name, x in arrays.items()})
        return original(loaded) if plain else loaded
    except ValueError as error:
        raise ValueError(f"path: the arrays of {str(path)!r} do not fit: {error}") from error


def leaves_of(op: Any) -> dict[str, np.ndarray]:
    """The leaves of an operator by path, on the host.

    **Raises:** `ValueError` when there are none, or one is no real floating array.
    """
    leaves = named_leaves(op)
    if not leaves or len(leaves) != len(jax.tree.leaves(op)):
        raise ValueError(
            f"op: expected a callable pytree with arrays, got {type(op).__name__} with {len(jax.tree.leaves(op))} "
            f"leaves under {len(leaves)} names; pass an operator with parameters and distinct names."
        )
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"op: expected real floating leaves, got {getattr(leaf, 'dtype', type(leaf).__name__)} for {name!r}; "
                "store complex weights as real pairs and other values as static fields."
            )
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def to_device(x: np.ndarray, where: str) -> jax.Array:
    """An array from disk as a JAX array of the same precision.

    **Raises:** `ValueError` when JAX would silently narrow it.
    """
    if jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype:
        raise ValueError(
            f"path: {where!r} holds {x.dtype}, which JAX would narrow now; read it inside "
            "`with jax.enable_x64(True):`, or save the operator in single precision."
        )
    return jnp.asarray(x)


def write_arrays(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes named arrays and a JSON description to a safetensors file that is complete or absent."""
    path = file_to_write(path)
    about = {"format": FORMAT, "version": _version(), **about}
    dense = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    content = to_bytes(dense, metadata={"neuralops": json.dumps(about, allow_nan=False)})
    with atomic(path, path.parent) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads and checks a file of `write_arrays`.

    **Raises:** `FileNotFoundError`; `ValueError` saying what is wrong with the file.
    """
    path = existing_file(path)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(MAX_HEADER, path.stat().st_size - 8):
            raise ValueError(
                f"path: expected a safetensors file, got {str(path)!r}, whose header would have {size} bytes; "
                "it is cut short or of another format, fetch or save it again."
            )
        header = file.read(size)
        content = header[:0] + size.to_bytes(8, "little") + header + file.read()
    try:
        entries = deserialize(content)  # checks that names, offsets and sizes agree with the file
        about = json.loads(json.loads(header).get("__metadata__", {}).get("neuralops", "null"))
        arrays = {
            name: np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries
        }
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"path: expected a safetensors file of this library, got {str(path)!r} ({type(error).__name__}: {error}); "
            "it is cut short, damaged or of another format, fetch or save it again."
        ) from error
    if not isinstance(about, dict) or "format" not in about:
        raise ValueError(
            f"path: {str(path)!r} is a safetensors file of another program; "
            "take its arrays with safetensors.numpy.load_file and put them in place with with_leaves."
        )
    if about["format"] != FORMAT or about.get("kind") != kind:
        raise ValueError(
            f"path: expected {kind} in format {FORMAT}, got {about.get('kind')!r} in format {about['format']!r} in "
            f"{str(path)!r}; " + ("update the library." if about.get("kind") == kind else "name the other file.")
        )
    return arrays, about


def _version() -> str:
    try:
        return importlib.metadata.version("neuralops-jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
