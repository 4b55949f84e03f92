"""Operators on disk: one safetensors file, arrays named by their path, the constructor's arguments as JSON.

Reading a file runs no code from it and imports nothing it names: a class is looked up among the public classes
of this library by its bare name, and the structure is rebuilt by calling that class's constructor on plain
values, without allocating weights. What is left to a hostile file is to be refused.

An operator whose constructor took something that is no plain value (a Flax module, a function of the user) is
saved with its arrays only and read with `load(path, like=op)`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import json
import math
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as to_bytes

from neuralops.data.layout import atomic
from neuralops.operator import AbstractOperator, config_of, named_leaves, with_leaves

FORMAT = 1
MAX_HEADER = 16 * 2**20  # bytes; a header of a million arrays is no operator
MAX_INTEGER = 10**6  # constructor arguments above this, and above the size of the file, are refused
ROOMS = ("grid", "data", "models", "nn", "pde", "solvers", "wrappers")  # where a class may come from

_DTYPES: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip


def save(path: str | os.PathLike[str], op: Any) -> None:
    """Writes an operator to one safetensors file, complete or not at all; missing folders are made.

    **Arguments:**

    - `path`: the file, commonly ending in `.safetensors`; an existing one is replaced.
    - `op`: an operator of the library, or any callable pytree with real floating leaves. When it cannot be
      rebuilt from plain values, only its arrays are stored (see `load`).

    **Raises:** `ValueError` when `op` has leaves that are not real floating arrays, or neither arrays nor a class
    of this library.
    """
    about = describe(op)
    rebuilt_from_class = about["class"] is not None  # then there may be nothing else to store
    arrays = {} if rebuilt_from_class and not jax.tree.leaves(op) else leaves_of(op)
    write_arrays(path, arrays, {"kind": "operator", **about})


def load(path: str | os.PathLike[str], *, like: Any = None) -> Any:
    """Reads an operator written by `save`.

    **Arguments:**

    - `path`: the file.
    - `like`: an operator of the same structure, for files that hold arrays only; its own values are ignored.

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
    if like is None:
        if about.get("class") is None:
            raise ValueError(
                f"path: {str(path)!r} holds arrays only ({about.get('reason', 'no class is named')}); "
                "use load(path, like=op) with an operator of the same structure."
            )
        like = _skeleton(about, sum(x.size for x in arrays.values()), str(path))
    try:
        return with_leaves(like, {name: to_device(x, str(path)) for name, x in arrays.items()})
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


# Files


def write_arrays(path: str | os.PathLike[str], arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes named arrays and a JSON description to a safetensors file that is complete or absent."""
    path = _as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"format": FORMAT, "version": _version(), **about}
    dense = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    content = to_bytes(dense, metadata={"neuralops": json.dumps(about, allow_nan=False)})
    with atomic(path, path.parent) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads and checks a file of `write_arrays`.

    **Raises:** `FileNotFoundError`; `ValueError` saying what is wrong with the file.
    """
    path = _as_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file, got {str(path)!r}, which is not there; check the name.")
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


def _as_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path: expected a path, got {type(path).__name__}; give the file's name.")
    return Path(path)


def _version() -> str:
    try:
        return importlib.metadata.version("neuralops-jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


# Constructor arguments as plain values


class _NotPlainError(Exception):
    """A constructor argument that JSON cannot hold."""


@functools.cache
def _classes() -> dict[str, type]:
    """The public, concrete classes of the library that are described by their constructor's arguments."""
    found: dict[str, type] = {}
    for room in ROOMS:
        module = importlib.import_module(f"neuralops.{room}")
        for value in vars(module).values():
            if not inspect.isclass(value) or not value.__module__.startswith("neuralops."):
                continue
            described = issubclass(value, AbstractOperator) or dataclasses.is_dataclass(value)
            if described and not inspect.isabstract(value):
                found[value.__name__] = value
    return found


def describe(op: Any) -> dict[str, Any]:
    """Class and constructor arguments of an operator as JSON values, or why there are none."""
    try:
        encoded = _encode(op)
        about = {"class": encoded["$class"], "config": encoded["config"]}
        size = sum(x.size for x in jax.tree.leaves(op))
        rebuilt = _skeleton(about, size, "op")
    except (_NotPlainError, ValueError, KeyError, TypeError) as error:
        return {"class": None, "reason": str(error)}
    if jax.tree.structure(rebuilt) == jax.tree.structure(op):  # type: ignore[operator]  # static fields included
        return about
    return {"class": None, "reason": f"the constructor of {type(op).__name__} does not give this structure again"}


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"$dict": {name: _encode(item) for name, item in value.items()}}
    if isinstance(value, jax.Array | np.ndarray | jax.ShapeDtypeStruct) and jnp.issubdtype(value.dtype, jnp.floating):
        return {"$array": list(value.shape)}  # its numbers are leaves
    if _classes().get(type(value).__name__) is type(value):
        try:
            config = config_of(value)  # type: ignore[arg-type]
        except AttributeError as error:
            raise _NotPlainError(f"{type(value).__name__} does not keep its arguments ({error})") from error
        return {"$class": type(value).__name__, "config": {name: _encode(item) for name, item in config.items()}}
    raise _NotPlainError(f"{type(value).__name__} is not a class of this library, nor a plain value")


def _skeleton(about: dict[str, Any], size: int, where: str) -> Any:
    """The structure that the description asks for, with shapes instead of arrays.

    **Raises:** `ValueError` when the class is unknown or its constructor refuses the arguments.
    """
    limit = max(MAX_INTEGER, size)
    try:
        return eqx.filter_eval_shape(
            lambda key: _build(about.get("class"), about.get("config"), key, limit), jax.random.key(0)
        )
    except Exception as error:  # a constructor may fail in any way on values it has never seen
        raise ValueError(
            f"path: the description in {where!r} was refused ({type(error).__name__}: {error}); the file is damaged, "
            "hostile or of another version of the library: do not trust it, or use load(path, like=op)."
        ) from error


def _build(name: Any, config: Any, key: jax.Array, limit: int) -> Any:
    cls = _classes().get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"class: expected one of {sorted(_classes())}, got {name!r}")
    if not isinstance(config, dict):
        raise ValueError(f"config: expected the arguments of {name}, got {type(config).__name__}")
    accepted = inspect.signature(cls).parameters
    unknown = sorted(set(config) - set(accepted) | {"key"} & set(config))
    if unknown:
        raise ValueError(f"config: {name} has no arguments {unknown}")
    arguments = {argument: _decode(value, key, limit) for argument, value in config.items()}
    return cls(**arguments, **({"key": key} if "key" in accepted else {}))


def _decode(value: Any, key: jax.Array, limit: int) -> Any:
    if isinstance(value, int) and abs(value) > limit:
        raise ValueError(f"config: a file of this size has no use for the number {value}")
    if isinstance(value, list):
        return [_decode(item, key, limit) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$class": name, "config": config, **rest} if not rest:
            return _build(name, config, key, limit)
        case {"$tuple": list(items), **rest} if not rest:
            return tuple(_decode(item, key, limit) for item in items)
        case {"$dict": dict(items), **rest} if not rest:
            return {name: _decode(item, key, limit) for name, item in items.items()}
        case {"$float": str(word), **rest} if not rest:
            return float(word)
        case {"$array": list(shape), **rest} if not rest:
            return jnp.zeros(tuple(_decode(n, key, limit) for n in shape))
    raise ValueError(f"config: expected plain values, got {sorted(value)[:4]}")
