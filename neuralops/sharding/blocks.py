"""A device's share of a wave field: its block of the grid, in a window that its neighbours' layers fit into as well.

Along a divided axis all windows have one length, as every device runs the same program. That of the first device begins
at the wall, with the layer outside the grid if there is one; that of the last ends at the wall; the others have their
neighbours' points on both sides. So the ends of a window are those of the box wherever there is a wall, and what is
computed next to any other end is thrown away: the next exchange writes over it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.grid import interpolation
from neuralops.pde.waves.layout import AbstractLayout, Layout, Placement
from neuralops.pde.waves.scheme import WaveState
from neuralops.solvers.elliptic.stencil import after, before, cut
from neuralops.transforms import Axis

__all__ = ["BlockLayout", "Part"]


class Part(NamedTuple):
    """How an axis is divided. Static; what depends on the device is asked for inside `jax.shard_map`."""

    mesh_axis: str
    devices: int  # along it
    points: int  # of the grid, on each
    halo: int  # points that a step reaches in a neighbour's block
    layers: tuple[int, int]  # points outside the grid, at the first and at the last device
    periodic: bool

    @property
    def length(self) -> int:
        """Of a window."""
        return self.points + self.halo + max(self.halo, *self.layers)

    @property
    def margin(self) -> int:
        """The most points of a window in front of or behind the block."""
        return self.length - self.points

    @property
    def stored(self) -> int:
        """Points of a block with room for the layers, which the devices at the walls fill."""
        return self.points + sum(self.layers)

    @property
    def first(self) -> Any:
        return False if self.periodic else lax.axis_index(self.mesh_axis) == 0

    @property
    def last(self) -> Any:
        return False if self.periodic else lax.axis_index(self.mesh_axis) == self.devices - 1

    @property
    def offset(self) -> Any:
        """Where the block begins in the window."""
        behind = self.length - self.points - self.layers[1]
        if self.periodic:
            return self.halo
        return jnp.where(self.first, self.layers[0], jnp.where(self.last, behind, self.halo))

    @property
    def start(self) -> Any:
        """Where the window begins, in points of the whole wide axis."""
        return self.layers[0] + lax.axis_index(self.mesh_axis) * self.points - self.offset

    def within(self, places: Any, reach: int) -> Array:
        """Whether these places in the window belong to the block or lie at most `reach` from it, or in its layers."""
        low = jnp.where(self.first, 0, self.offset - reach)
        high = jnp.where(self.last, self.length, self.offset + self.points + reach)
        return (places >= low) & (places < high)


@dataclasses.dataclass(frozen=True)
class BlockLayout(AbstractLayout):
    """The layout of a device's window, for use inside `jax.shard_map`; `grid` is the whole grid."""

    whole: Layout
    parts: tuple[Part | None, ...]

    @staticmethod
    def of(whole: Layout, parts: tuple[Part | None, ...]) -> BlockLayout:
        axes = []
        for axis, part in zip(whole.axes, parts, strict=True):
            if part is not None:
                boundary = "dirichlet" if part.periodic else axis.boundary
                axis = Axis(part.length, boundary, axis.centering)
            axes.append(axis)
        return BlockLayout(whole.grid, tuple(axes), whole, parts)

    @property
    def mesh_axes(self) -> tuple[str | None, ...]:
        return tuple(part and part.mesh_axis for part in self.parts)

    @property
    def narrow_shape(self) -> tuple[int, ...]:
        return tuple(part.points if part else n for n, part in zip(self.grid.shape, self.parts, strict=True))

    def widen(self, medium: Float[Array, "*block"]) -> Float[Array, "*window"]:
        return self.joined(self._in_window(medium, "edge"))

    def surrounded(self, u: Float[Array, "*block"]) -> Float[Array, "*window"]:
        return self.joined(self._in_window(u, "constant"))

    def _in_window(self, u: Array, mode: str) -> Array:
        pads = [(p.margin,) * 2 if p else ends for p, ends in zip(self.parts, self.whole.layer_points, strict=True)]
        u = jnp.pad(u, pads, mode=mode)
        for a, part in enumerate(self.parts):
            if part is not None:
                u = lax.dynamic_slice_in_dim(u, part.margin - part.offset, part.length, axis=a)
        return u

    def narrow(self, u: Float[Array, "*window"]) -> Float[Array, "*block"]:
        for a, (part, n) in enumerate(zip(self.parts, self.grid.shape, strict=True)):
            if part is not None:
                u = lax.dynamic_slice_in_dim(u, part.offset, part.points, axis=a)
            else:
                low = self.whole.layer_points[a][0]
                u = cut(u, low, low + n, a)
        return u

    def joined(self, u: Float[Array, "*window"]) -> Float[Array, "*window"]:
        """One exchange with the neighbours along each divided axis, one after the other, so that corners come too."""
        for a, part in enumerate(self.parts):
            if part is None:
                continue
            layers = lambda u, start, a=a, part=part: lax.dynamic_slice_in_dim(u, start, part.halo, axis=a)
            begin, end = part.offset, part.offset + part.points
            below = before(layers(u, end - part.halo), part.periodic, part.mesh_axis)
            above = after(layers(u, begin), part.periodic, part.mesh_axis)
            for outside, wall, start in (
                (below, part.first, jnp.maximum(begin - part.halo, 0)),
                (above, part.last, jnp.minimum(end, part.length - part.halo)),
            ):
                kept = jnp.where(wall, layers(u, start), outside)  # of the newest field, so that it is changed in place
                u = lax.dynamic_update_slice_in_dim(u, kept, start, axis=a)
        return u

    def summed(self, x: Array) -> Array:
        return lax.psum(x, tuple(name for name in self.mesh_axes if name))

    def alive(self) -> Array:
        """Where the window holds points of the box: False beyond what the neighbours fill."""
        return self._product([p and p.within(np.arange(p.length), p.halo) for p in self.parts], True)

    def volumes(self) -> Array:
        """Up to the axes of length 1."""
        h = self.grid.spacing
        shares = []
        for axis, part in zip(self.whole.axes, self.parts, strict=True):
            share = jnp.asarray(transforms.relative_weights(axis))
            if part is not None and part.periodic:
                share = share[:1]  # all are 1
            elif part is not None:
                padded = jnp.pad(share, part.length, constant_values=1)
                share = lax.dynamic_slice_in_dim(padded, part.length + part.start, part.length)
            shares.append(share)
        return self._product(shares, math.prod(h))

    def _product(self, along: list[Any], total: Any) -> Array:
        ndim = self.grid.ndim
        for a, x in enumerate(along):
            total = total if x is None else total * x.reshape([-1 if d == a else 1 for d in range(ndim)])
        return total

    def place(self, points: Float[Array, "ndim points"], order: int, *, spread: bool) -> Placement:
        """The samples in the block, with those in the neighbours' layers if `spread`; others have weight 0."""
        ndim, h, first, axes = self.grid.ndim, self.grid.spacing, self.whole.first, self.whole.axes
        index: Any = 0
        weights: Any = 1
        for a, (part, n) in enumerate(zip(self.parts, self.shape, strict=True)):
            samples, shares = interpolation(points[a : a + 1], axes[a : a + 1], first[a : a + 1], h[a : a + 1], order)
            if part is not None:
                samples = samples - part.start
                samples = samples % axes[a].num_points if part.periodic else samples
                shares = jnp.where(part.within(samples, part.halo if spread else 0), shares, 0)
                samples = jnp.clip(samples, 0, n - 1)
            along = [order + 1 if d == a else 1 for d in range(ndim)]
            index = index * n + samples.reshape(*along, -1)
            weights = weights * shares.reshape(*along, -1)
        return Placement(index.reshape(-1, points.shape[1]), weights.reshape(-1, points.shape[1]))

    # ---- states between runs: blocks with room for the layers, so that all devices hold arrays of one shape

    def stored(self, state: WaveState) -> WaveState:
        return self._each(state, self._into_store)

    def restored(self, state: WaveState) -> WaveState:
        return self._each(state, self._out_of_store)

    def _each(self, state: WaveState, move: Any) -> WaveState:
        """Fields along all axes, what the layers of an axis remember along the others."""
        layered = [a for a, ends in enumerate(self.whole.layer_points) if any(ends)]
        move_memory = lambda a: jax.vmap(lambda x: move(x, a))
        memory = [jax.tree.map(move_memory(a), kept) for a, kept in zip(layered, state.memory, strict=True)]
        fields = jax.tree.map(lambda x: move(x, None), state._replace(memory=()))
        return fields._replace(memory=tuple(memory))

    def _into_store(self, x: Array, but: int | None) -> Array:
        for a, part in self._divided(but):
            if any(part.layers):
                own = part.within(np.arange(part.length), 0)
                x = jnp.where(own.reshape([-1 if d == a else 1 for d in range(x.ndim)]), x, 0)
                x = jnp.pad(x, [part.layers if d == a else (0, 0) for d in range(x.ndim)])
            x = lax.dynamic_slice_in_dim(x, part.offset, part.stored, axis=a)
        return x

    def _out_of_store(self, x: Array, but: int | None) -> Array:
        for a, part in self._divided(but):
            x = jnp.pad(x, [(part.length,) * 2 if d == a else (0, 0) for d in range(x.ndim)])
            start = part.length + part.layers[0] - part.offset
            x = lax.dynamic_slice_in_dim(x, start, part.length, axis=a)
            own = part.within(np.arange(part.length), 0)
            x = jnp.where(own.reshape([-1 if d == a else 1 for d in range(x.ndim)]), x, 0)
        return x

    def _divided(self, but: int | None) -> list[tuple[int, Part]]:
        return [(a, part) for a, part in enumerate(self.parts) if part is not None and a != but]
