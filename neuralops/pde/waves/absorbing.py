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
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.arguments import check_number
from neuralops.continuation import continued
from neuralops.pde.waves.stencils import dual, extended, staggered, taps
from neuralops.transforms import Axis

__all__ = ["AbsorbingLayer", "Slabs", "Whole", "absorb"]

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


class Whole(NamedTuple):
    """Differences of a whole field along one axis: to the faces, and from the faces back to the points."""

    slope: Callable[[Array], Array]
    divergence: Callable[[Array], Array]


class Slabs(NamedTuple):
    """The layers at one or both ends of an axis, all static. Each is seen from its outer wall inwards, as if that were
    the low end, and both at once: what is cut out of a field has a first axis more, the layers'.
    """

    dim: int
    ends: tuple[int, ...]  # 0 the low one, 1 the high one
    axis: Axis  # a piece of the field's, its low end the outer wall
    points: int
    order: int
    spacing: float
    on_points: tuple[float, ...]  # sigma dt / 2 from the wall inwards
    on_faces: tuple[float, ...]
    mesh_axis: str | None = None  # that divides the axis: the first device has the low layer, the last the high one

    @staticmethod
    def of(
        dim: int,
        axis: Axis,
        ends: tuple[int, ...],
        layer: AbsorbingLayer,
        *,
        speed: float,
        order: int,
        h: float,
        dt: float,
        mesh_axis: str | None = None,
    ) -> Slabs:
        """`speed`: the highest, whose waves have the least time in the layer."""
        points, cells = layer.num_points(h), axis.centering == "cell"
        thickness = points if cells else points + 1
        # A tenth of the echo allowed for the damping itself, the rest for its differences.
        sigma = (POWER + 1) * speed * math.log(10 / layer.reflection) / (2 * points * h)
        depths = points - (0.5 if cells else 0.0) - np.arange(points)
        between = thickness - np.arange(points + (not cells)) - (0.0 if cells else 0.5)
        profile = lambda depth: tuple((0.5 * dt * sigma * (depth / thickness) ** POWER).tolist())
        seen = Axis(axis.num_points, "dirichlet", axis.centering)
        return Slabs(dim, ends, seen, points, order, h, profile(depths), profile(between), mesh_axis)

    @property
    def depth(self) -> int:
        """Points that the layer reads."""
        m = taps(self.order)
        return max(len(self.on_faces), self.points + m) + m - 1

    def near(self, u: Array, count: int) -> Array:
        """The first points from each outer wall inwards; zeros where the wall is another device's."""
        n = u.shape[self.dim]
        cut = lambda start: lax.slice_in_dim(u, start, start + count, axis=self.dim)
        parts = jnp.stack([lax.rev(cut(n - count), (self.dim,)) if end else cut(0) for end in self.ends])
        if self.mesh_axis is None:
            return parts
        walls = np.where(np.asarray(self.ends) == 0, 0, lax.axis_size(self.mesh_axis) - 1)
        here = lax.axis_index(self.mesh_axis) == walls
        return jnp.where(here.reshape(-1, *[1] * u.ndim), parts, 0)

    def memory(self, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
        """Zeros for both memories of a field of this shape."""
        before, behind = (len(self.ends), *shape[: self.dim]), shape[self.dim + 1 :]
        zeros = lambda n: jnp.zeros((*before, n, *behind), dtype)
        return zeros(len(self.on_faces)), zeros(self.points)

    def add(self, out: Array, extra: Array) -> Array:
        """The whole field with what the layers contribute, given from the walls inwards."""
        count = extra.shape[self.dim + 1]
        for end, part in zip(self.ends, extra, strict=True):
            start = out.shape[self.dim] - count if end else 0
            there = lax.slice_in_dim(out, start, start + count, axis=self.dim)
            part = lax.rev(part, (self.dim,)) if end else part
            out = lax.dynamic_update_slice_in_dim(out, there + part, start, axis=self.dim)
        return out


def absorb(
    slabs: Slabs, u: Array, weight: Array | None, memory: tuple[Array, Array], whole: Whole | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """What the layers add to div(weight grad u), from the walls inwards, and their new memories.

    `weight`: on the faces of the whole field, or `None` for 1. `whole`: differences of whole fields, where they are
    others than those between walls, as obstacles make them.
    """
    dim, m, h = slabs.dim + 1, taps(slabs.order), slabs.spacing
    shape = [-1 if d == dim else 1 for d in range(u.ndim + 1)]
    along = lambda x: jnp.asarray(np.reshape(x, shape), u.dtype)
    pad = lambda x, count: continued(x, dim, ("zero", "zero"), (0, count))
    cut = lambda x, count: lax.slice_in_dim(x, 0, count, axis=dim)
    faces = len(slabs.on_faces)
    if whole is None:
        slope = staggered(extended(slabs.near(u, slabs.depth), dim, slabs.axis, m, 0), dim, slabs.order, h)
    else:
        everywhere = whole.slope(u)
        slope = slabs.near(everywhere, slabs.depth - m)
    fluxes = slope.shape[dim]

    rate, old = along(slabs.on_faces), memory[0]  # the memory is kept in units of g dt
    new = ((1 - rate) * old + cut(slope, faces)) / (1 + rate)
    flux = -rate * (old + new)
    if weight is not None:
        b = slabs.near(weight, fluxes)
        slope, flux = b * slope, cut(b, faces) * flux

    if whole is None:
        outer = dual(slabs.axis)
        divergence = lambda q: staggered(extended(q, dim, outer, m - 1, 0), dim, slabs.order, h)
        added = divergence(pad(flux, 2 * m - 1))
        out = divergence(cut(slope + pad(flux, fluxes - faces), slabs.points + m))
    else:
        everywhere = everywhere if weight is None else weight * everywhere
        of_layers = whole.divergence(slabs.add(jnp.zeros_like(everywhere), flux))
        added = slabs.near(of_layers, min(faces + 3 * m, u.shape[slabs.dim]))
        out = slabs.near(of_layers + whole.divergence(everywhere), slabs.points)

    rate, old_out = along(slabs.on_points), memory[1]
    new_out = ((1 - rate) * old_out + out) / (1 + rate)
    extra = added + pad(-rate * (old_out + new_out), added.shape[dim] - slabs.points)
    return extra, (new, new_out)
