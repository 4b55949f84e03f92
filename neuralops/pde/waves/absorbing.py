"""A perfectly matched layer: what leaves the box is damped outside it, without an echo.

Along the normal of a wall the coordinate is stretched by S = 1 + sigma / (i omega), so d/dx becomes (1/S) d/dx (Grote
and Sim 2010; Pasalic and McGarry 2010 for the form with memory). Each derivative in the layer gets a memory phi,

    phi_t + sigma phi = g,        (1/S) g = g - sigma phi,

stepped by the trapezoidal rule between half steps, which is second order in time. The memories live in the layers
alone, and the layers of different axes know nothing of each other.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.arguments import check_number
from neuralops.pde.waves.stencils import dual, extended, ghosts, staggered, taps
from neuralops.transforms import Axis

__all__ = ["AbsorbingLayer", "Slab", "absorb"]

POWER = 2  # of the damping profile


@dataclasses.dataclass(frozen=True)
class AbsorbingLayer:
    """How good an absorbing wall has to be; its thickness in points follows.

    **Arguments:**

    - `wavelength`: the longest wave that it has to absorb, in units of length.
    - `reflection`: amplitude of the echo over that of a wave of this length which meets the wall head-on, in (0, 1).
      A wave that comes at an angle theta to the normal is damped less, roughly by `reflection`^cos(theta).

    **Raises:** `ValueError` on numbers out of range.
    """

    wavelength: float
    reflection: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "wavelength", check_number(self.wavelength, "wavelength", above=0.0))
        object.__setattr__(self, "reflection", check_number(self.reflection, "reflection", above=0.0))
        if self.reflection >= 1:
            raise ValueError(f"reflection: expected a number below 1, got {self.reflection}; 1e-3 is common.")

    def num_points(self, spacing: float) -> int:
        """Points of the layer: 10 for an echo of 1e-3, 20 for 1e-4, and more where the wave is long (measured)."""
        decades = -math.log10(self.reflection)
        long = decades / 6 * self.wavelength / spacing  # half a wavelength for 1e-3
        return max(math.ceil(10 * (decades - 2)), math.ceil(long), 5)


class Slab(NamedTuple):
    """The layer at one end of an axis, all static. For a high end everything is seen reversed."""

    dim: int
    axis: Axis  # of the whole field, its low end the outer wall of this layer
    reverse: bool
    points: int
    order: int
    spacing: float
    on_points: np.ndarray  # sigma dt / 2 from the wall inwards
    on_faces: np.ndarray

    @staticmethod
    def of(dim: int, axis: Axis, end: int, points: int, order: int, h: float, sigma: float, dt: float) -> Slab:
        """`sigma`: the damping rate at the outer wall."""
        cells = axis.centering == "cell"
        seen = Axis(axis.num_points, axis.ends[::-1] if end else axis.ends, axis.centering)
        thickness = points if cells else points + 1
        inside = points - (0.5 if cells else 0.0) - np.arange(points)
        between = thickness - np.arange(points + (not cells)) - (0.0 if cells else 0.5)
        profile = lambda depth: 0.5 * dt * sigma * (depth / thickness) ** POWER
        return Slab(dim, seen, bool(end), points, order, h, profile(inside), profile(between))

    @property
    def depth(self) -> int:
        """Points that the layer reads."""
        m = taps(self.order)
        return max(len(self.on_faces), self.points + m) + m - 1

    def near(self, u: Array, count: int) -> Array:
        """The first points from the outer wall inwards."""
        n = u.shape[self.dim]
        if not self.reverse:
            return lax.slice_in_dim(u, 0, count, axis=self.dim)
        return lax.rev(lax.slice_in_dim(u, n - count, n, axis=self.dim), (self.dim,))

    def memory(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        """Zeros for both memories of a field of this shape."""
        sized = lambda n: jnp.zeros((*shape[: self.dim], n, *shape[self.dim + 1 :]), dtype)
        return sized(len(self.on_faces)), sized(self.points)

    def add(self, out: Array, extra: Array) -> Array:
        """Adds what the layer contributes, given from the wall inwards, to the whole field."""
        n, count = out.shape[self.dim], extra.shape[self.dim]
        start = n - count if self.reverse else 0
        extra = lax.rev(extra, (self.dim,)) if self.reverse else extra
        part = lax.slice_in_dim(out, start, start + count, axis=self.dim)
        return lax.dynamic_update_slice_in_dim(out, part + extra, start, axis=self.dim)


def absorb(
    slab: Slab, u: Array, weight: Array | None, memory: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """What the layer adds to div(weight grad u) near its wall, from the wall inwards, and its new memories.

    `weight`: on the faces of the whole field, or `None` for 1.
    """
    dim, m, h = slab.dim, taps(slab.order), slab.spacing
    along = lambda x: jnp.asarray(x.reshape([-1 if d == dim else 1 for d in range(u.ndim)]), u.dtype)
    pad = lambda x, count: lax.pad(x, jnp.zeros((), x.dtype), [(0, count if d == dim else 0, 0) for d in range(x.ndim)])
    part = slab.near(u, slab.depth)
    slope = staggered(extended(part, dim, slab.axis, m, 0), dim, slab.order, h)
    faces = len(slab.on_faces)
    fluxes = slope.shape[dim]

    on_faces, old = along(slab.on_faces), memory[0]
    rate = 2 * on_faces  # sigma dt; the memory is kept in units of g dt
    new = ((1 - on_faces) * old + lax.slice_in_dim(slope, 0, faces, axis=dim)) / (1 + on_faces)
    flux = -0.5 * rate * (old + new)
    if weight is not None:
        b = slab.near(weight, fluxes)
        slope, flux = b * slope, lax.slice_in_dim(b, 0, faces, axis=dim) * flux

    outer = dual(slab.axis)
    divergence = lambda q: staggered(
        lax.concatenate([ghosts(q, dim, outer, m - 1, 0), q], dim) if m > 1 else q, dim, slab.order, h
    )
    added = divergence(pad(flux, 2 * m - 1))
    both = slope + pad(flux, fluxes - faces)
    out = divergence(lax.slice_in_dim(both, 0, slab.points + m, axis=dim))

    on_points, old_out = along(slab.on_points), memory[1]
    new_out = ((1 - on_points) * old_out + out) / (1 + on_points)
    extra = added + pad(-on_points * (old_out + new_out), added.shape[dim] - slab.points)
    return extra, (new, new_out)
