"""What an operator is, as JSON values: its class, its constructor's arguments, and what differs from them."""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
import inspect
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import count
from neuralops.operator import AbstractOperator, config_of, original

MAX_ENSEMBLE = 3  # axes in front of the leaves
MAX_PARTS = 1000
MAX_CONSTANT = 2**22  # bytes of an array that is structure; larger ones do not belong into a header
CONSTANTS = ("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8")  # their dtypes
MAX_INTEGER = 10**6  # constructor arguments above this, and above the size of the file, are refused
ROOMS = ("grid", "data", "inverse.maps", "models", "nn", "pde", "solvers", "wrappers")  # where a class may come from


class _NotPlainError(Exception):
    """A constructor argument that JSON cannot hold."""


@functools.cache
def classes() -> dict[str, type]:
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


def _constant() -> Any:
    """The class of the arrays that are structure; found by name, as the other classes are."""
    return importlib.import_module("neuralops.wrappers").Constant


def describe(op: Any) -> dict[str, Any]:
    """What rebuilds an operator, as JSON values, or why nothing does.

    Class and constructor arguments; where the leaves have axes in front of those that the constructor gives,
    `ensemble`, their sizes; where parts are others than the constructor's, `parts`, pairs of where and what.
    """
    leaves = jax.tree.leaves(op)
    if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves):
        return {"class": None, "reason": "it has leaves that are no arrays"}
    size = sum(x.size for x in leaves)
    reason, found = "", []
    for parts in (False, True):
        for axes in range(min(_shared_axes(leaves), MAX_ENSEMBLE) + 1):
            try:
                found.append(_described(op, tuple(leaves[0].shape[:axes]) if leaves else (), size, parts))
            except (_NotPlainError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = reason if axes else str(error)
        if found:  # the fewest parts: the leaves of an ensemble could be told one by one, too
            return min(found, key=lambda about: len(about.get("parts", [])))
    return {"class": None, "reason": reason}


def _described(op: Any, ensemble: tuple[int, ...], size: int, parts: bool) -> dict[str, Any]:
    """**Raises:** `_NotPlainError` or what else when the operator is not described in this way."""
    member = _shapes(op, lambda shape: shape[len(ensemble) :])
    encoded = _encode(member)
    about = {"class": encoded["$class"], "config": encoded["config"]}
    if parts:
        about["parts"] = _replaced(skeleton(about, size, "op"), member, size)
    if ensemble:
        about["ensemble"] = list(ensemble)
    if not _alike(skeleton(about, size, "op"), op):
        raise _NotPlainError(f"the constructor of {type(op).__name__} does not give this structure again")
    return about


def _shared_axes(leaves: list[Any]) -> int:
    """How many axes in front all leaves have alike."""
    columns = zip(*(x.shape for x in leaves), strict=False)
    return next((i for i, sizes in enumerate(columns) if len(set(sizes)) > 1), min((x.ndim for x in leaves), default=0))


def _shapes(tree: Any, change: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(tuple(change(tuple(x.shape))), x.dtype), tree)


def _alike(a: Any, b: Any) -> bool:
    """The same structure, static fields included, and the same shapes."""
    if jax.tree.structure(a) != jax.tree.structure(b):  # type: ignore[operator]
        return False
    return all(tuple(x.shape) == tuple(y.shape) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _replaced(built: Any, given: Any, size: int, where: tuple[str | int, ...] = ()) -> list[Any]:
    """Pairs of place and description of the parts of `given` that differ from what the constructor built.

    **Raises:** `_NotPlainError` when there is one that cannot be described.
    """
    if _alike(built, given):
        return []
    if where:
        try:
            encoded = _encode(given)
            if _alike(_skeleton_of(encoded, size, "op"), given):
                return [[list(where), encoded]]
        except (_NotPlainError, ValueError, KeyError, TypeError):
            pass  # then a part of it may differ in a way that can be described
    steps = _steps(given)
    if type(built) is not type(given) or not steps or steps != _steps(built):
        name = ".".join(map(str, where)) or type(given).__name__
        raise _NotPlainError(f"{name} is no part that a constructor of this library gives, {type(given).__name__}")
    return [pair for step in steps for pair in _replaced(_part(built, step), _part(given, step), size, (*where, step))]


def _steps(node: Any) -> list[str | int]:
    """The names of the parts of a node that are no static fields."""
    if isinstance(node, eqx.Module):
        return [x.name for x in dataclasses.fields(node) if not x.metadata.get("static") and hasattr(node, x.name)]
    if isinstance(node, tuple | list):
        return list(range(len(node)))
    return sorted(node) if isinstance(node, dict) else []


def _part(node: Any, step: str | int) -> Any:
    return getattr(node, step) if isinstance(node, eqx.Module) and isinstance(step, str) else node[step]


def _with_part(tree: Any, where: Any, part: Any) -> Any:
    def at(node: Any) -> Any:
        for step in where:
            if step not in _steps(node):
                raise ValueError(f"parts: {type(node).__name__} has no part {step!r}")
            node = _part(node, step)
        return node

    if not isinstance(where, list) or not where:
        raise ValueError(f"parts: expected the place of a part, got {where!r}")
    return eqx.tree_at(at, tree, part, is_leaf=lambda x: x is None)


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
    if classes().get(type(value).__name__) is type(value):
        try:
            config = config_of(value)  # type: ignore[arg-type]
        except AttributeError as error:
            raise _NotPlainError(f"{type(value).__name__} does not keep its arguments ({error})") from error
        return {"$class": type(value).__name__, "config": {name: _encode(item) for name, item in config.items()}}
    if isinstance(value, _constant()):
        x = value.array
        if x.nbytes > MAX_CONSTANT or str(x.dtype) not in CONSTANTS:
            raise _NotPlainError(f"a fixed array of {x.nbytes} bytes and dtype {x.dtype} does not go into a header")
        data = base64.b64encode(np.ascontiguousarray(x, x.dtype.newbyteorder("<")).tobytes()).decode()
        return {"$constant": data, "dtype": str(x.dtype), "shape": list(x.shape)}
    name = type(original(value)).__name__
    raise _NotPlainError(f"{name} is not a class of this library, nor a plain value")


def skeleton(about: dict[str, Any], size: int, where: str) -> Any:
    """The structure that the description asks for, with shapes instead of arrays.

    **Raises:** `ValueError` when the class is unknown or its constructor refuses the arguments.
    """
    tree = _skeleton_of({"$class": about.get("class"), "config": about.get("config")}, size, where)
    parts, ensemble = about.get("parts", []), about.get("ensemble", [])
    try:
        if len(parts) > MAX_PARTS:
            raise ValueError(f"parts: expected at most {MAX_PARTS}, got {len(parts)}")
        for place, encoded in parts:
            tree = _with_part(tree, place, _skeleton_of(encoded, size, where))
        if not isinstance(ensemble, list) or len(ensemble) > MAX_ENSEMBLE:
            raise ValueError(f"ensemble: expected at most {MAX_ENSEMBLE} sizes, got {ensemble!r}")
        axes = [count(n, "ensemble", most=max(MAX_INTEGER, size)) for n in ensemble]
        return _shapes(tree, lambda shape: (*axes, *shape)) if axes else tree
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise _refusal(where, error) from error


def _skeleton_of(encoded: Any, size: int, where: str) -> Any:
    limit = max(MAX_INTEGER, size)
    try:
        return eqx.filter_eval_shape(lambda key: _decode(encoded, key, limit), jax.random.key(0))
    except Exception as error:  # a constructor may fail in any way on values it has never seen
        raise _refusal(where, error) from error


def _refusal(where: str, error: Exception) -> ValueError:
    return ValueError(
        f"path: the description in {where!r} was refused ({type(error).__name__}: {error}); the file is damaged, "
        "hostile or of another version of the library: do not trust it, or use load(path, like=op)."
    )


def _build(name: Any, config: Any, key: jax.Array, limit: int) -> Any:
    cls = classes().get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"class: expected one of {sorted(classes())}, got {name!r}")
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
        case {"$constant": str(data), "dtype": str(dtype), "shape": list(shape), **rest} if not rest:
            return _constant()(_array(data, dtype, [_decode(n, key, limit) for n in shape]))
    raise ValueError(f"config: expected plain values, got {sorted(value)[:4]}")


def _array(data: str, dtype: str, shape: list[int]) -> np.ndarray:
    if dtype not in CONSTANTS:
        raise ValueError(f"config: expected an array of one of {CONSTANTS}, got {dtype!r}")
    flat = np.frombuffer(base64.b64decode(data, validate=True), np.dtype(dtype).newbyteorder("<"))
    return flat.reshape([count(n, "shape", least=0) for n in shape]).astype(dtype)
