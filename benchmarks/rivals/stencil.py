"""The operator as a JAX user writes it by hand: faces from coefficients, a matvec of differences, a diagonal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from rivals.problems import Problem

__all__ = ["coefficients", "faces_of", "stencil"]


def coefficients(p: Problem) -> tuple[Any, Any]:
    """(coefficient, mask) as JAX arrays, `None` where it is one everywhere: what a new system comes with."""
    if p.a is None and p.mask is None:
        return None, None
    return jnp.ones(p.points) if p.a is None else jnp.asarray(p.a), None if p.mask is None else jnp.asarray(p.mask)


def faces_of(p: Problem, given: tuple[Any, Any], h: float, shape: Sequence[int]) -> tuple[Any, ...]:
    """Face conductances on a grid of `shape`; of the unit coefficient as one profile per axis."""
    (a, mask), faces = given, []
    wall = 0.0 if p.boundary == "neumann" else (2.0 if p.centering == "cell" else 1.0)
    for axis, n in enumerate(shape):
        if a is None:
            profile = jnp.ones(n + 1).at[jnp.array([0, n])].set(wall) / h**2
            faces.append(profile.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
            continue
        low, high = _cut(a, axis, 0, n - 1), _cut(a, axis, 1, n)
        inner = 2 * low * high / (low + high)
        if mask is not None:
            inner = jnp.where(_cut(mask, axis, 0, n - 1) & _cut(mask, axis, 1, n), inner, 0)
        layers = [wall * _cut(a, axis, 0, 1), inner, wall * _cut(a, axis, n - 1, n)]
        faces.append(jnp.concatenate(layers, axis) / h**2)
    return tuple(faces)


def stencil(faces: Sequence[Any], shape: Sequence[int], padded: bool = False) -> tuple[Callable[[Any], Any], Any]:
    """The matvec and its diagonal. Of the forms tried on two CPU cores, shifts by concatenation were fastest in plain
    CG, slices of one padded array in multigrid (by half in 2-D, two to three times in 3-D)."""
    d = len(shape)

    def neighbours(u: Any, around: Any, axis: int) -> tuple[Any, Any]:
        n = u.shape[axis]
        if padded:
            inner = lambda start: tuple(slice(start, start + n) if i == axis else slice(1, -1) for i in range(d))
            return around[inner(0)], around[inner(2)]
        zero = jnp.zeros_like(_cut(u, axis, 0, 1))
        low = lax.concatenate([zero, _cut(u, axis, 0, n - 1)], axis)
        return low, lax.concatenate([_cut(u, axis, 1, n), zero], axis)

    def matvec(u: Any) -> Any:
        out, around = 0.0, jnp.pad(u, 1) if padded else None
        for axis, c in enumerate(faces):
            low, high = neighbours(u, around, axis)
            n = u.shape[axis]
            out = out + (_cut(c, axis, 0, n) * (u - low) + _cut(c, axis, 1, n + 1) * (u - high))
        return out

    diagonal = sum(_cut(c, i, 0, n) + _cut(c, i, 1, n + 1) for i, (c, n) in enumerate(zip(faces, shape, strict=True)))
    diagonal = jnp.broadcast_to(diagonal, tuple(shape))
    return matvec, jnp.where(diagonal > 0, diagonal, 1)  # points no face reaches stay zero


def _cut(v: Any, axis: int, start: int, stop: int) -> Any:
    return lax.slice_in_dim(v, start, stop, axis=axis)
