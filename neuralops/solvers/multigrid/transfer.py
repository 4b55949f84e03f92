"""Between two levels of a multigrid: prolongation, and restriction as its transpose, on split fields.

Joined cells copy their value. Nodes in between take the mean of their neighbours on the coarsened axes, weighted by the
conductances towards them (Alcouffe, Brandt, Dendy and Painter 1981): linear interpolation where the coefficient is
smooth, right across jumps and blind to what no face connects. First the nodes with one odd axis, then those with two,
which lean on the first, and so on.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from neuralops.solvers.elliptic.stencil import cut
from neuralops.solvers.multigrid.smoothers import Stencil
from neuralops.solvers.multigrid.sublattice import (
    Parity,
    Parts,
    below_and_above,
    flip,
    high,
    low,
    merge,
    parities,
    split,
)

__all__ = ["Transfer"]


class Transfer:
    """Prolongation and restriction between a level and the next coarser one, which coarsens `axes` of it."""

    def __init__(self, stencil: Stencil, axes: Iterable[int]):
        self.stencil, self.lines, self.axes = stencil, stencil.lines, tuple(axes)

    @property
    def _nodes(self) -> bool:
        return self.lines[0].coarsening == "nodes"

    @property
    def _others(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.lines)) if a not in self.axes)

    def _between(self, p: Parity) -> list[int]:
        """The coarsened axes along which part `p` lies between the nodes that stay, or joins the cell below."""
        return [a for a in self.axes if p[a] != (self.lines[a].kept if self._nodes else 0)]

    def _parts(self) -> list[Parity]:
        """Parities, those that lean on fewer others first."""
        return sorted(parities(len(self.lines)), key=lambda p: len(self._between(p)))

    def prolong(self, e: Array) -> Parts:
        """From a field on the coarse level to a split one on the fine level."""
        coarse = split(e, self._others)
        parts: Parts = {}
        for p in self._parts():
            between = self._between(p)
            if self._nodes and between:
                parts[p] = self.stencil.divided(self.stencil.inflow(parts, p, between, wrap_odd=False), p, between)
            else:
                parts[p] = coarse[self._parent(p)]
                for a in between:  # an odd cell stays alone
                    parts[p] = cut(parts[p], 0, self.lines[a].local_points // 2, a)
        return parts

    def restrict(self, r: Parts) -> Array:
        """From a split field on the fine level to a field on the coarse one; missing parts count as zero."""
        sums = dict(r)
        for p in reversed(self._parts()):
            between = self._between(p)
            if p not in sums:
                continue
            if self._nodes and between:
                shared = self.stencil.divided(sums[p], p, between)
                for a in between:
                    line, q = self.lines[a], flip(p, a)
                    below, above = below_and_above(self.stencil.faces[a], p, a, line)
                    # From the node that stays: its higher neighbour counts it as the lower one, and conversely.
                    from_above = high({p: below * shared}, q, a, line, wrap_odd=False)
                    from_below = low({p: above * shared}, q, a, line, wrap_odd=False)
                    sums[q] = sums[q] + from_above + from_below if q in sums else from_above + from_below
            elif between:
                a = between[0]
                v, q = sums[p], flip(p, a)
                if self.lines[a].local_points % 2:
                    v = lax.concatenate([v, jnp.zeros_like(cut(v, 0, 1, a))], a)
                sums[q] = sums[q] + v if q in sums else v
        coarse = {self._parent(p): sums[p] for p in self._parts() if not self._between(p)}
        return merge(coarse, self._others)

    def _parent(self, p: Parity) -> Parity:
        return tuple(0 if a in self.axes else bit for a, bit in enumerate(p))
