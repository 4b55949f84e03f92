"""What every method needs: names of arrays matched, shapes compared, arrays put in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import check_plain
from neuralops.operator import named_leaves, with_leaves

# For each leaf here the names of the arrays it is made of, and how.
Parts = dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]]


def as_arrays(
    arrays: Any,
    prefix: str,
    *,
    ignored: tuple[str, ...] = (),
    complex_ends: tuple[str, ...] = (),
    argument: str = "arrays",
) -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`, under what follows it.

    **Arguments:**

    - `ignored`: ends of names that are left out, whatever they hold.
    - `complex_ends`: ends of names whose arrays may be complex; those become real pairs `(..., 2)`, PyTorch's
      `view_as_real`.
    - `argument`: its name, for messages.
    """
    if not isinstance(arrays, Mapping):
        raise ValueError(
            f"{argument}: expected a mapping from names to arrays, got {type(arrays).__name__}; give a dict."
        )
    taken = {}
    for name in arrays:
        if name.startswith(prefix) and not name.endswith(ignored):
            x = np.asarray(arrays[name])
            check_plain(x, name)
            if name.endswith(complex_ends) and jnp.issubdtype(x.dtype, jnp.complexfloating):
                x = np.stack([x.real, x.imag], -1)
            if not jnp.issubdtype(x.dtype, jnp.floating):
                raise ValueError(f"{argument}: {name} should be real and floating, got {x.dtype}; cast it to float32.")
            taken[name.removeprefix(prefix)] = x
    return taken


def require(arrays: Mapping[str, np.ndarray], names: tuple[str, ...], argument: str = "arrays") -> None:
    """Refuses arrays without those names, which say what the network is."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(
            f"{argument}: expected the names of the published code, {missing} among them, got "
            f"{listed(sorted(arrays))}; give the whole state dict, or a prefix= that stands before the names."
        )


def numbered(arrays: Mapping[str, Any], stem: str, form: str = "{}.{}.weight") -> list[str]:
    """The names numbered from zero."""
    names: list[str] = []
    while (name := form.format(stem, len(names))) in arrays:
        names.append(name)
    return names


def sizes(arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    """Outputs and inputs of a linear map."""
    if arrays[name].ndim != 2:
        raise ValueError(f"arrays: {name} should be a matrix, got shape {arrays[name].shape}; give it as published.")
    return arrays[name].shape


def shape_of(arrays: Mapping[str, np.ndarray], name: str, *ndim: int, argument: str = "arrays") -> tuple[int, ...]:
    """The shape of an array with as many axes as one of `ndim`."""
    shape = arrays[name].shape
    if len(shape) not in ndim:
        raise ValueError(
            f"{argument}: {name} should have {' or '.join(map(str, ndim))} axes, got shape {shape}; give it as "
            "published."
        )
    return shape


def as_is(x: np.ndarray) -> np.ndarray:
    return x


def linear(ours: str, theirs: str) -> Parts:
    """A linear map: PyTorch's layout is ours."""
    return {f"{ours}.{part}": ((f"{theirs}.{part}",), as_is) for part in ("weight", "bias")}


def skeleton_of(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """The operator without its numbers."""
    return eqx.filter_eval_shape(lambda: cls(*args, **kwargs, key=jax.random.key(0)))


def filled(
    skeleton: Any,
    arrays: Mapping[str, np.ndarray],
    parts: Parts,
    prefix: str = "",
    *,
    argument: str = "arrays",
    **given: Any,
) -> Any:
    """`skeleton` with its leaves made of the arrays; all of them, and all of the arrays, are used.

    **Arguments:**

    - `parts`: for each leaf the names it is made of, and how, from arrays of one shape.
    - `prefix`: what messages put before the names; `argument`: where they came from.
    - `given`: fields that are there already, operators with leaves of their own.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    wanted = named_leaves(skeleton)
    used = {name for names, _ in parts.values() for name in names}
    missing, unknown = ([prefix + name for name in sorted(names)] for names in (used - set(arrays), set(arrays) - used))
    if missing or unknown:
        raise ValueError(
            f"{argument}: expected the {len(used)} arrays of a {type(skeleton).__name__}; missing {listed(missing)}, "
            f"unknown {listed(unknown)}; give the state dict of one such network, or a prefix=."
        )
    leaves: dict[str, Any] = named_leaves(given)
    wrong = []
    for leaf, (names, make) in parts.items():
        alike = len({arrays[name].shape for name in names}) == 1
        try:
            made = make(*(arrays[name] for name in names)) if alike else np.empty(0)
        except ValueError:  # NumPy's, on an array without the axes that are moved or joined
            made = np.empty(0)
        if made.shape != wanted[leaf].shape:
            wrong.append(f"{prefix}{names[0]} {arrays[names[0]].shape} for {wanted[leaf].shape}")
        leaves[leaf] = made
    if wrong:
        raise ValueError(
            f"{argument}: expected the shapes of one {type(skeleton).__name__}, got {listed(wrong)}; check that all "
            "layers are as wide as the first, and what was told beside the arrays."
        )
    dtype = jnp.result_type(*(x.dtype for x in leaves.values()))
    return with_leaves(skeleton, {name: jnp.asarray(x, dtype) for name, x in leaves.items()})


def listed(names: list[str], most: int = 8) -> str:
    if len(names) <= most:
        return str(names)
    return f"{names[:most]} and {len(names) - most} more"
