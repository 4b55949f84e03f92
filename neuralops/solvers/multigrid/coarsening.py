"""From one level of a multigrid to the next coarser one, axis by axis: which points stay, how faces join.

A *line* is one axis of one level: static geometry. Two ways to coarsen it: `"cells"` joins neighbours in pairs;
`"nodes"` keeps every second point. Any number of points will do: an odd cell stays alone, and the last nodes before a
wall keep their true distances. Restrictions are transposes of prolongations (sums, not means), so that every level is
symmetric in the plain dot product.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.elliptic.stencil import after, before, cut, in_series

__all__ = ["Line", "coarse_faces", "coarsened"]


class Line(NamedTuple):
    """One axis of one level.

    **Attributes:**

    - `coarsening`: `"cells"` or `"nodes"`.
    - `ends`: the boundary words at the low and the high end.
    - `lengths`: cells: the width of each. Nodes: the distance across each face, one face more than points: between
      neighbours, to a Dirichlet wall, zero at a Neumann wall; on a periodic line the last face is the first again.
    - `mesh_axis`, `num_parts`: the mesh axis over which the line is divided inside `jax.shard_map`, and into how many.
    """

    coarsening: str
    ends: tuple[str, str]
    lengths: tuple[float, ...]
    mesh_axis: str | None = None
    num_parts: int = 1

    @property
    def periodic(self) -> bool:
        return self.ends[0] == "periodic"

    @property
    def num_points(self) -> int:
        return len(self.lengths) - (self.coarsening == "nodes")

    @property
    def local_points(self) -> int:
        return self.num_points // self.num_parts

    @property
    def kept(self) -> int:
        """The parity of the nodes that stay: one next to a Dirichlet wall goes, any other end stays."""
        return int(self.ends[0] == "dirichlet")


@functools.lru_cache(maxsize=512)
def coarsened(line: Line) -> Line | None:
    """The next coarser line, or `None` when it cannot be coarsened (one point, or blocks of odd length)."""
    n, lengths = line.num_points, np.asarray(line.lengths)
    if n < 2 or (line.num_parts > 1 and line.local_points % 2):
        return None
    if line.coarsening == "cells":
        pairs = np.append(lengths, 0.0) if n % 2 else lengths
        new = pairs[0::2] + pairs[1::2]
    else:
        position = np.cumsum(lengths)  # of the nodes, then of the high end
        stays = position[:-1][line.kept :: 2]
        low, high = stays[0] - 0.0, position[-1] - stays[-1]
        if line.periodic:
            low = high
        walls = [0.0 if end == "neumann" else gap for end, gap in zip(line.ends, (low, high), strict=True)]
        new = np.concatenate([walls[:1], np.diff(stays), walls[1:]])
    return line._replace(lengths=tuple(float(x) for x in new))


def coarse_faces(c: Array, lines: Sequence[Line], coarse: Sequence[Line], axis: int) -> Array:
    """The conductances across `axis` on the coarse level, from those on the fine one.

    Faces that come to lie side by side add up, weighted as the restriction weighs their points; nodes' faces one
    behind the other conduct in series. Between joined cells the face on their common side alone counts, scaled by the
    distance: half its conductance where the mesh width doubles, without which convergence degrades with the levels.
    """
    for other, (line, new) in enumerate(zip(lines, coarse, strict=True)):
        if other != axis and line is not new:
            c = _add_up(c, line, other)
    line = lines[axis]
    if line is coarse[axis]:
        return c
    if line.coarsening == "nodes":
        return _in_series(c, line, axis)
    shared = cut(c, 0, None, axis, 2)
    if line.num_points % 2:
        shared = lax.concatenate([shared, cut(c, line.num_points, None, axis)], axis)
    return shared * _along(_distance_ratio(line, coarse[axis]), c, axis, line, faces=True)


@functools.lru_cache(maxsize=512)
def _distance_ratio(fine: Line, coarse: Line) -> np.ndarray:
    """Fine over coarse distance between the cells (or cell and wall) on both sides of each coarse face."""

    def distances(line: Line) -> np.ndarray:
        w = np.asarray(line.lengths)
        ends = [(w[-1] + w[0]) / 2] * 2 if line.periodic else [w[0] / 2, w[-1] / 2]
        return np.concatenate([ends[:1], (w[:-1] + w[1:]) / 2, ends[1:]])

    d = distances(fine)
    shared = np.append(d[0::2], d[-1]) if fine.num_points % 2 else d[0::2]
    return shared / distances(coarse)


def _add_up(c: Array, line: Line, dim: int) -> Array:
    """The sum of face conductances side by side along `dim`: the restriction, but with the weights of smooth fields."""
    n = line.local_points
    if c.shape[dim] == 1 and line.num_points > 1:  # constant along this axis
        return c * _along(_sums(line), c, dim, line)
    even, odd = cut(c, 0, None, dim, 2), cut(c, 1, None, dim, 2)
    if line.coarsening == "cells":
        return even + (lax.concatenate([odd, _zeros(c, dim)], dim) if n % 2 else odd)
    kept, between = (odd, even) if line.kept else (even, odd)
    lower, upper = _weights(line)
    to_lower = between * _along(lower, c, dim, line)
    to_upper = between * _along(upper, c, dim, line)
    count, total = between.shape[dim], kept.shape[dim]
    if line.kept:  # point k in between lies below kept point k
        next_one = after(cut(to_lower, 0, 1, dim), line.periodic, line.mesh_axis)
        rest = cut(to_lower, 1, None, dim)
        from_above = lax.concatenate([rest, next_one], dim) if count == total else rest
        return kept + cut(to_upper, 0, total, dim) + from_above
    if count < total:  # the last node stays; on a periodic line it neighbours the first one
        to_lower, one_before = lax.concatenate([to_lower, _zeros(c, dim)], dim), _zeros(c, dim)
    else:
        one_before = before(cut(to_upper, count - 1, None, dim), line.periodic, line.mesh_axis)
    return kept + to_lower + lax.concatenate([one_before, cut(to_upper, 0, total - 1, dim)], dim)


@functools.lru_cache(maxsize=512)
def _weights(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Linear interpolation to the nodes in between: weights of the lower and the higher node that stay.

    Zero towards a wall; a last node before a Neumann wall hangs on the lower one alone.
    """
    n, d = line.num_points, np.asarray(line.lengths)
    between = np.arange(1 - line.kept, n, 2)
    below, above = d[between], d[between + 1]
    lower, upper = above / (below + above), below / (below + above)
    if line.kept:
        lower[0] = 0.0
    if not line.periodic and between[-1] == n - 1:
        lower[-1] = 1.0 if line.ends[1] == "neumann" else lower[-1]
        upper[-1] = 0.0
    return lower, upper


@functools.lru_cache(maxsize=512)
def _sums(line: Line) -> np.ndarray:
    """What `_add_up` makes of ones."""
    whole = line._replace(mesh_axis=None, num_parts=1)
    n = line.num_points
    if line.coarsening == "cells":
        return np.add.reduceat(np.ones(n), np.arange(0, n, 2))
    lower, upper = _weights(whole)
    sums = np.ones(len(range(line.kept, n, 2)))
    for k, (to_lower, to_upper) in enumerate(zip(lower, upper, strict=True)):
        below, above = (k - 1, k) if line.kept else (k, k + 1)
        if below >= 0:
            sums[below] += to_lower
        if above < len(sums) or line.periodic:
            sums[above % len(sums)] += to_upper
    return sums


def _in_series(c: Array, line: Line, axis: int) -> Array:
    """Pairs of faces one behind the other; the last face, or the first of a walled line, may be alone."""
    pairs = cut(c, 1 - line.kept, None, axis)
    first, second = cut(pairs, 0, None, axis, 2), cut(pairs, 1, None, axis, 2)
    count = second.shape[axis]
    first_ones = cut(first, 0, count, axis)
    joined = in_series(first_ones, second, first_ones + second)
    alone = cut(first, count, None, axis)
    if line.mesh_axis is None:
        if line.kept:
            return lax.concatenate([joined, alone], axis)
        tail = lax.concatenate([joined, alone], axis)
        head = cut(tail, tail.shape[axis] - 1, None, axis) if line.periodic else cut(c, 0, 1, axis)
        return lax.concatenate([head, tail], axis)
    # A block of an even number of points: the face at one of its ends is made by the neighbouring device.
    index = lax.axis_index(line.mesh_axis)
    if line.kept:
        next_one = after(cut(joined, 0, 1, axis), False, line.mesh_axis)
        return lax.concatenate([joined, jnp.where(index == line.num_parts - 1, alone, next_one)], axis)
    one_before = before(cut(joined, count - 1, None, axis), line.periodic, line.mesh_axis)
    if not line.periodic:
        one_before = jnp.where(index == 0, cut(c, 0, 1, axis), one_before)
    return lax.concatenate([one_before, joined], axis)


def _zeros(like: Array, dim: int) -> Array:
    return jnp.zeros_like(cut(like, 0, 1, dim))


def _along(weights: np.ndarray, like: Array, dim: int, line: Line, faces: bool = False) -> Array | float:
    """Weights as a factor along one dimension: a plain number when all agree, a device's share of a divided line."""
    if np.all(weights == weights[:1]):
        return float(weights[0]) if weights.size else 1.0
    values = jnp.asarray(weights, like.dtype)
    if line.mesh_axis is not None:
        size = (weights.size - faces) // line.num_parts
        values = lax.dynamic_slice_in_dim(values, lax.axis_index(line.mesh_axis) * size, size + faces)
    return values.reshape([-1 if d == dim else 1 for d in range(like.ndim)])
