"""What a network may change on a level of a multigrid, and what it sees of it.

The network is any map from fields to fields on the grid of *blocks*. A block holds the 2^d points that share a coarse
point: two neighbours per axis, when nodes are coarsened the one in between below the one that stays. It sees logarithms
of the conductances of the level, relative to each point's own diagonal, so that multiplying the coefficient by a number
changes nothing, and returns logarithms of factors, so that zeros are the classical cycle:

- of the face conductances of the next coarser level (a learned homogenisation);
- of the conductances that weigh the interpolation (nodes only; the weights of a point still sum to what they did);
- of the relaxation of every point in every half sweep, between 0.1 and 1.9, except in the two beside the coarse
  correction, which solve their equations exactly, so that no residual is needed there.

Whatever it returns, conductances stay positive, the restriction is the transpose of the prolongation, and every half
sweep reduces the energy of the error: with the same relaxation before and after, in opposite orders, the cycle is
symmetric positive definite.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.solvers.elliptic.stencil import after, before, cut
from neuralops.solvers.multigrid.coarsening import Line
from neuralops.solvers.multigrid.smoothers import Stencil, colour_of
from neuralops.solvers.multigrid.sublattice import Parity, Parts, flip, parities

__all__ = ["Corrections", "channel_counts", "corrected", "features"]

WEAKEST = 1e-5  # conductances below this share of the diagonal all look alike
LARGEST = 4.0  # logarithm of a factor
RELAXATION = 0.9  # the farthest from 1


class Corrections(eqx.Module):
    """The learned part of one level.

    **Attributes:**

    - `transfer`: the level with the conductances that weigh the interpolation.
    - `before`, `after`: what relaxation adds to the diagonal in the half sweeps around the coarse correction.
    """

    transfer: Stencil
    before: tuple[Parts | None, ...]
    after: tuple[Parts | None, ...]


def channel_counts(ndim: int, nodes: bool, pre: int, post: int, symmetric: bool) -> tuple[int, int]:
    """How many channels the network takes, and how many it returns."""
    points = 2**ndim
    half_sweeps = _learned_before(pre) + (0 if symmetric else 2 * post)
    return 2 * ndim * points + 1, 2 * ndim + (ndim * points if nodes else 0) + half_sweeps * points // 2


def features(lines: Sequence[Line], faces: Sequence[Array]) -> Float[Array, " channels *blocks"]:
    """Per axis the conductances below and above each point of a block, and a channel of ones.

    As logarithms, centred and scaled; zero beyond the walls. The ones let the network see where these are.
    """
    ndim, counts = len(lines), [line.num_points for line in lines]
    pairs = [(cut(c, 0, n, a), cut(c, 1, n + 1, a)) for a, (c, n) in enumerate(zip(faces, counts, strict=True))]
    total = functools.reduce(jnp.add, [below + above for below, above in pairs])
    total = jnp.where(total > 0, total, 1)
    shares = jnp.stack([jnp.broadcast_to(c / total, counts) for c in itertools.chain.from_iterable(pairs)])
    channels = _to_blocks((jnp.log(shares + WEAKEST) + math.log(2 * ndim)) / 2 + 0.75, lines)
    return jnp.concatenate([channels, jnp.ones_like(channels[:1])])


def corrected(
    out: Float[Array, " channels *blocks"],
    stencil: Stencil,
    coarse: Sequence[Line],
    coarse_faces: Sequence[Array],
    sweeps: tuple[int, int],
    symmetric: bool,
) -> tuple[Corrections, list[Array]]:
    """The corrections of a level and the corrected faces of the next coarser one, from what the network returned."""
    lines, ndim = stencil.lines, len(stencil.lines)
    nodes = lines[0].coarsening == "nodes"
    counts = [2 * ndim, ndim * 2**ndim if nodes else 0]
    logarithms, leaning, relaxation = lax.split(out, (*counts, out.shape[0] - sum(counts)), 0)
    channel = iter(logarithms)
    faces = [c * _factor(_coarse_logarithm(channel, coarse, axis)) for axis, c in enumerate(coarse_faces)]
    transfer = _leaning(iter(_factor(leaning)), stencil) if nodes else stencil
    shares = iter(1 / _relaxation(relaxation) - 1)  # of all channels at once: one kernel each

    def lag(colour: int) -> Parts | None:
        parts = {
            p: stencil.total(p, range(ndim)) * _from_blocks(next(shares), lines, p)
            for p in _parities(lines)
            if colour_of(p) == colour
        }
        # Where an odd periodic axis makes points of one colour neighbours, overrelaxation could amplify.
        return None if any(line.periodic and line.num_points % 2 for line in lines) else parts

    before: list[Parts | None] = [lag(i % 2) for i in range(_learned_before(sweeps[0]))]
    before += [None] * (2 * sweeps[0] - len(before))
    after = before[::-1] if symmetric else [lag(i % 2) for i in range(2 * sweeps[1])]
    return Corrections(transfer, tuple(before), tuple(after)), faces


def _learned_before(pre: int) -> int:
    return max(2 * pre - 1, 0)


def _factor(logarithm: Array) -> Array:
    return jnp.exp(LARGEST * jnp.tanh(logarithm / LARGEST))


def _relaxation(v: Array) -> Array:
    return 1 + RELAXATION * jnp.tanh(v / RELAXATION)


def _coarse_logarithm(channel: Iterator[Array], coarse: Sequence[Line], axis: int) -> Array:
    """For the coarse faces across an axis what the points on both sides say; the point below I is I - 1."""
    counts = tuple(slice(line.num_points) for line in coarse)
    below, above = next(channel)[counts], next(channel)[counts]
    periodic, n = coarse[axis].periodic, coarse[axis].num_points
    below = lax.concatenate([below, after(cut(below, 0, 1, axis), periodic)], axis)
    return below + lax.concatenate([before(cut(above, n - 1, n, axis), periodic), above], axis)


def _leaning(factors: Iterator[Array], stencil: Stencil) -> Stencil:
    """The level with other conductances between the nodes in between and those that they lean on.

    Every face has one of each on its sides, or joins the ends of an odd periodic axis, across which nothing leans.
    """
    lines, ndim = stencil.lines, len(stencil.lines)
    faces: list[Parts] = [{} for _ in lines]
    for p in _parities(lines):
        for a in (a for a in range(ndim) if p[a] != lines[a].kept):
            at_even, at_odd = (p, flip(p, a)) if p[a] == 0 else (flip(p, a), p)
            below, above = (_from_blocks(next(factors), lines, p) for _ in (0, 1))
            even, odd = (below, above) if p[a] == 0 else (above, below)
            for q, factor in ((at_even, even), (at_odd, odd)):
                faces[a][q] = _scaled(stencil.faces[a][q], factor, a, shift=q is at_even and p[a] == 1)
    return eqx.tree_at(lambda s: s.faces, stencil, tuple(faces))


def _scaled(c: Array, factor: Array, axis: int, shift: bool) -> Array:
    """Faces times factors; where there are more faces than factors, the outermost (the first if `shift`) stay."""
    n, faces = factor.shape[axis], c.shape[axis]
    one = lambda count: jnp.ones([count if a == axis else m for a, m in enumerate(factor.shape)], factor.dtype)
    first = min(int(shift), max(faces - n, 0))
    factor = cut(factor, 0, min(n, faces), axis)
    return c * lax.concatenate([one(first), factor, one(max(faces - n - first, 0))], axis)


def _shape(lines: Sequence[Line], p: Parity) -> tuple[int, ...]:
    return tuple((line.num_points + 1 - bit) // 2 for line, bit in zip(lines, p, strict=True))


def _place(line: Line, bit: int) -> tuple[int, int, bool]:
    """The number of blocks along a line, the block of the first point of a parity, and whether that is the last one."""
    n = line.num_points
    if line.coarsening == "cells" or line.kept or bit == 0:
        count = (n + 1) // 2 if line.coarsening == "cells" or line.kept or line.periodic else n // 2 + 1
        return count, 0, False
    if line.periodic:
        return (n + 1) // 2, int(n % 2), n % 2 == 0
    return n // 2 + 1, 1, False


def _parities(lines: Sequence[Line]) -> Iterator[Parity]:
    """In the order of the points in a block, so that a channel has the same meaning at every kind of wall."""
    for place in parities(len(lines)):
        yield tuple(bit if _in_front(line) == 0 else 1 - bit for bit, line in zip(place, lines, strict=True))


def _in_front(line: Line) -> int:
    """1 where point 0 stays: first in its block is the one below, beyond the wall or around a periodic line."""
    return int(line.coarsening == "nodes" and not line.kept)


def _to_blocks(v: Float[Array, " channels *grid"], lines: Sequence[Line]) -> Float[Array, " channels_points *blocks"]:
    """A field on the grid of blocks, per channel the points of a block; zero where a block lacks a point."""
    shape = [v.shape[0]]
    for a, line in enumerate(lines, 1):
        count, _, wraps = _place(line, 1)
        if wraps:
            v = jnp.roll(v, 1, a)
        else:
            first = _in_front(line)
            widths = [(first, 2 * count - line.num_points - first, 0) if b == a else (0, 0, 0) for b in range(v.ndim)]
            v = lax.pad(v, jnp.zeros((), v.dtype), widths)
        shape += [count, 2]
    ndim = len(lines)
    v = v.reshape(shape).transpose(0, *range(2, 2 * ndim + 1, 2), *range(1, 2 * ndim + 1, 2))
    return v.reshape(-1, *shape[1::2])


def _from_blocks(v: Array, lines: Sequence[Line], p: Parity) -> Array:
    """The values at the points of one parity from one channel on the grid of blocks."""
    for a, (line, bit, n) in enumerate(zip(lines, p, _shape(lines, p), strict=True)):
        _, first, wraps = _place(line, bit)
        v = jnp.roll(v, -1, a) if wraps else cut(v, first, first + n, a)
    return v
