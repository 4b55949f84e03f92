"""A level of a multigrid, split by parity: the points with even and odd indices along each axis apart.

Red points are those whose parities sum to an even number, so a half sweep of Gauss-Seidel touches whole arrays of half
the points, without a mask; the points that survive coarsening are one of the parts. *Parts* are a dictionary from
parities, such as (0, 1), to arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from neuralops.solvers.elliptic.stencil import after, before, cut, interleave
from neuralops.solvers.multigrid.coarsening import Line

__all__ = ["Parity", "Parts", "below_and_above", "flip", "high", "low", "merge", "parities", "split", "split_faces"]

Parity = tuple[int, ...]
Parts = dict[Parity, Array]


def parities(ndim: int) -> list[Parity]:
    return list(itertools.product((0, 1), repeat=ndim))


def flip(p: Parity, axis: int) -> Parity:
    return (*p[:axis], 1 - p[axis], *p[axis + 1 :])


def split(u: Array, axes: Sequence[int]) -> Parts:
    """The parts of a field along `axes`; the parities of the other axes read 0."""
    parts: Parts = {(0,) * u.ndim: u}
    for a in axes:
        parts = {(p if bit == 0 else flip(p, a)): cut(v, bit, None, a, 2) for p, v in parts.items() for bit in (0, 1)}
    return parts


def merge(parts: Parts, axes: Sequence[int]) -> Array:
    """The field of its parts, the inverse of `split`."""
    for a in reversed(axes):
        parts = {p: interleave(v, parts[flip(p, a)], a) for p, v in parts.items() if p[a] == 0}
    (field,) = parts.values()
    return field


def split_faces(c: Array, axis: int) -> Parts:
    """The conductances across `axis`, split like a field, their own axis into even and odd faces.

    Other axes of length 1 (constant conductances) are shared by both parities.
    """
    parts: Parts = {(0,) * c.ndim: c}
    for a in range(c.ndim):
        shared = a != axis and c.shape[a] == 1
        parts = {
            (p if bit == 0 else flip(p, a)): v if shared else cut(v, bit, None, a, 2)
            for p, v in parts.items()
            for bit in (0, 1)
        }
    return parts


def below_and_above(faces: Parts, p: Parity, axis: int, line: Line) -> tuple[Array, Array]:
    """The conductances below and above the points of part `p`: the face below point i is number i."""
    at_even, at_odd = (p, flip(p, axis)) if p[axis] == 0 else (flip(p, axis), p)
    even, odd, n = faces[at_even], faces[at_odd], line.local_points
    if p[axis] == 0:
        return cut(even, 0, (n + 1) // 2, axis), odd
    return cut(odd, 0, n // 2, axis), cut(even, 1, n // 2 + 1, axis)


def low(parts: Parts, p: Parity, axis: int, line: Line, wrap_odd: bool = True) -> Array:
    """The values at the lower neighbours of the points of part `p`.

    On a periodic axis with an odd number of points, first and last point are even both. `wrap_odd=False` reads zero
    across that joint, for transfers, which must not mistake one for a neighbour of the other parity.
    """
    other, n = parts[flip(p, axis)], line.local_points
    if p[axis] == 1:
        return cut(other, 0, n // 2, axis)
    wraps = line.periodic and (n % 2 == 0 or wrap_odd)
    edge = parts[p] if n % 2 and wraps else other
    first = before(cut(edge, max(edge.shape[axis] - 1, 0), None, axis), wraps, line.mesh_axis)
    return lax.concatenate([_layer(first, axis), cut(other, 0, (n + 1) // 2 - 1, axis)], axis)


def high(parts: Parts, p: Parity, axis: int, line: Line, wrap_odd: bool = True) -> Array:
    """The values at the higher neighbours of the points of part `p`; see `low`."""
    other, n = parts[flip(p, axis)], line.local_points
    if p[axis] == 1 and n % 2:
        return cut(other, 1, None, axis)
    if p[axis] == 0 and n % 2 == 0:
        return other
    wraps = line.periodic and (n % 2 == 0 or wrap_odd)
    edge = parts[p] if n % 2 and wraps else other
    last = after(cut(edge, 0, 1 if edge.shape[axis] else 0, axis), wraps, line.mesh_axis)
    return lax.concatenate([cut(other, 1 if p[axis] else 0, None, axis), _layer(last, axis)], axis)


def _layer(edge: Array, axis: int) -> Array:
    """One layer, of zeros when a part is empty (an axis of one point has no odd ones)."""
    if edge.shape[axis]:
        return edge
    shape = list(edge.shape)
    shape[axis] = 1
    return jnp.zeros(shape, edge.dtype)
