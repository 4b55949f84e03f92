"""The parallel-beam Radon transform: line integrals of an image in physical units, with the exact transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import check_number, check_plain, count
from neuralops.grid import Grid
from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.transposition import transposed_by

__all__ = ["Radon", "detector_positions", "half_turn"]

MOST_POINTS = 2**14  # per axis, and detectors: beyond, positions in int32 have fewer than 14 bits for a fraction


class Radon(AbstractLinearMap):
    """Integrals of an image along parallel rays: y(theta, s) = integral of x over {r : (r - c) . n = s}.

    Here n = (cos theta, sin theta), in the order of the grid's axes, and c is the middle of the box. `(1, *grid)` goes
    to `(1, angles, detectors)`, in units of the image times length.

    Ray-driven, after Joseph (1982, IEEE Trans. Med. Imaging 1, 192): a ray crosses every row of points of the axis it
    is steeper to, takes the linear interpolation between the two points of the row, and counts it by its length
    between two rows. Of second order in the spacing for smooth images that vanish at the edge of the box. The adjoint
    is the transpose of exactly this: positions are fixed-point integers, the same in both, so that not even a rounding
    is different. Nothing is stored: working memory is some copies of image and sinogram, however many angles there
    are.

    With detectors closer than the points each ray still is one line; with wider ones points between two rays are
    missed.

    **Arguments:**

    - `grid`: where the image lives, two-dimensional; the boundary means nothing here.
    - `angles`: in radians, one per row of the sinogram; `half_turn(n)` gives equidistant ones.
    - `num_detectors`: by default as many as cover the diagonal of the box at the spacing of the points.
    - `detector_spacing`: the distance of two rays, in units of the box; by default the smaller spacing of the points.
      Rays lie at (k - (num_detectors - 1) / 2) times it: `positions`.

    **Raises:** `ValueError` on a grid that is not two-dimensional, no finite angles, or numbers out of range.
    """

    grid: Grid = eqx.field(static=True)
    angles: tuple[float, ...] = eqx.field(static=True)
    num_detectors: int = eqx.field(static=True)
    detector_spacing: float = eqx.field(static=True)

    def __init__(self, grid: Grid, angles: Any, num_detectors: Any = None, detector_spacing: Any = None):
        if not isinstance(grid, Grid) or grid.ndim != 2 or max(grid.shape) > MOST_POINTS:
            came = f"{grid.shape}" if isinstance(grid, Grid) else type(grid).__name__
            raise ValueError(
                f"grid: expected a two-dimensional Grid of at most {MOST_POINTS} points a side, got {came}; make one "
                "with Grid((64, 64), centering='cell')."
            )
        self.grid = grid
        self.angles = _angles(angles)
        spacing = min(grid.spacing) if detector_spacing is None else detector_spacing
        hint = "give a length in units of the box."
        self.detector_spacing = check_number(spacing, "detector_spacing", above=0, hint=hint)
        if num_detectors is None:
            sides = [n * h for n, h in zip(grid.shape, grid.spacing, strict=True)]
            num_detectors = min(math.ceil(math.hypot(*sides) / self.detector_spacing), MOST_POINTS)
        self.num_detectors = count(num_detectors, "num_detectors", most=MOST_POINTS)
        if self.detector_spacing * 32 < max(grid.spacing):
            raise ValueError(
                f"detector_spacing: expected at least 1/32 of the spacing of the points, {max(grid.spacing):.4g}, got "
                f"{self.detector_spacing:.4g}; refine the image instead."
            )

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (1, *self.grid.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (1, len(self.angles), self.num_detectors)

    @property
    def positions(self) -> np.ndarray:
        """Where the rays lie, s, `(num_detectors,)`, as float64 NumPy."""
        return detector_positions(self.num_detectors, self.detector_spacing)

    def apply(self, x: Float[Array, " 1 *grid"]) -> Float[Array, " 1 angles detectors"]:
        return _forward(self, x)

    def apply_adjoint(self, y: Float[Array, " 1 angles detectors"]) -> Float[Array, " 1 *grid"]:
        return _adjoint(self, y)

    def _project(self, x: Array) -> Array:
        rows, order = [], []
        for rays in self._rays():
            y = _along(x[0] if rays.axis == 0 else x[0].T, rays, self.num_detectors)
            rows.append(jnp.where(rays.flipped[:, None], y[:, ::-1], y))
            order.append(rays.views)
        back = np.argsort(np.concatenate(order))
        return jnp.concatenate(rows)[back][None]

    def _back(self, y: Array) -> Array:
        x = jnp.zeros(self.grid.shape, y.dtype)
        for rays in self._rays():
            own = y[0][rays.views]
            own = jnp.where(rays.flipped[:, None], own[:, ::-1], own)
            shape = self.grid.shape if rays.axis == 0 else self.grid.shape[::-1]
            part = _back_along(own, rays, shape)
            x = x + (part if rays.axis == 0 else part.T)
        return x[None]

    def _rays(self) -> list[_Rays]:
        theta = np.asarray(self.angles)
        steps = np.abs([np.cos(theta) * self.grid.spacing[0], np.sin(theta) * self.grid.spacing[1]])
        crosses = steps[0] <= steps[1]  # the rows of axis 0, moving by at most a point from one to the next
        groups = [(0, np.flatnonzero(crosses)), (1, np.flatnonzero(~crosses))]
        return [self._group(axis, index) for axis, index in groups if index.size]

    def _group(self, axis: int, index: np.ndarray) -> _Rays:
        theta = np.asarray(self.angles)[index]
        normal = np.stack([np.cos(theta), np.sin(theta)])
        down, across = normal[axis], normal[1 - axis]
        h, m, n = self.grid.spacing[1 - axis], self.num_detectors, self.grid.shape[1 - axis]
        centre = np.asarray(self.grid.domain_extent) / 2
        down, flipped = down * np.sign(across), across < 0  # the same lines, read from the other end
        across = np.abs(across)
        slope = self.detector_spacing / (h * across)
        # the place among the points of a row, of the ray in the middle
        row = self.grid.points(axis) - centre[axis]
        first = self.grid.points(1 - axis)[0] - centre[1 - axis]
        middle = -(row * down[:, None]) / (h * across[:, None]) - first / h
        farthest = max(slope.max() * m / 2 + np.abs(middle).max(), n + 1.0) + 2
        bits = 29 - math.ceil(math.log2(farthest))
        fixed = np.rint(slope * 2.0**bits).astype(np.int32)
        # ray k lies at k - (m - 1) / 2 from the middle; rounding grows from there to both sides
        offset = np.rint((middle - slope[:, None] * ((m - 1) / 2 - m // 2)) * 2.0**bits) - fixed[:, None] * float(
            m // 2
        )
        length = self.grid.spacing[axis] / across
        taps = int(np.max((2 * 2**bits - 2) // fixed)) + 1
        return _Rays(axis, index, flipped, fixed, offset.astype(np.int32), length, bits, taps)


# Compiled once for a geometry, which holds no arrays: loops are compiled at every call otherwise.
_forward = jax.jit(lambda A, x: transposed_by(A._project, A._back, x, A.out_shape))
_adjoint = jax.jit(lambda A, y: transposed_by(A._back, A._project, y, A.in_shape))


class _Rays(NamedTuple):
    """Rays that cross the rows of one axis: ray k of an angle meets row i at slope k + offset_i, in 2^-bits points."""

    axis: int
    views: np.ndarray  # which angles
    flipped: np.ndarray
    slope: np.ndarray  # (angles,), positive
    offset: np.ndarray  # (angles, rows)
    length: np.ndarray  # (angles,), of a ray between two rows
    bits: int
    taps: int  # how many rays of an angle a point may lie next to


def _along(x: Array, rays: _Rays, m: int) -> Array:
    """(rows, points) to (angles, rays)."""
    rows, n = x.shape
    unit, padded = 2**rays.bits, jnp.pad(x, ((0, 0), (2, 2)))
    ray = jnp.asarray(rays.slope)[:, None] * lax.iota(jnp.int32, m)
    offset = jnp.asarray(rays.offset.T)

    def add(i: Array, total: Array) -> Array:
        place = ray + offset[i][:, None]
        below = jnp.clip((place >> rays.bits) + 2, 0, n + 2)
        share = (place & (unit - 1)).astype(x.dtype) / unit
        row = padded[i]
        low, high = (row.at[below + k].get(mode="promise_in_bounds") for k in (0, 1))
        return total + (low + share * (high - low))

    total = lax.fori_loop(0, rows, add, jnp.zeros(ray.shape, x.dtype))
    return total * jnp.asarray(rays.length, x.dtype)[:, None]


def _back_along(y: Array, rays: _Rays, shape: tuple[int, ...]) -> Array:
    """(angles, rays) to (rows, points): each point gathers from the rays that took a share of it."""
    m, unit, taps = y.shape[1], 2**rays.bits, rays.taps
    y = jnp.pad(y * (jnp.asarray(rays.length, y.dtype) / unit)[:, None], ((0, 0), (taps, taps)))
    points = lax.iota(jnp.int32, shape[1]) << rays.bits

    def add(total: Array, one: tuple[Array, ...]) -> tuple[Array, None]:
        values, slope, offset = one
        # The first ray whose place exceeds point - 1: by a division in floating point, put right in integers.
        bound = points - offset[:, None] - unit
        first = jnp.floor(bound.astype(jnp.float32) / slope.astype(jnp.float32)).astype(jnp.int32) + 1
        beyond = slope * first - bound
        first = first + jnp.where(beyond <= 0, 1, 0) - jnp.where(beyond > slope, 1, 0)
        away = slope * first - bound - unit  # from the point to the ray
        start = jnp.clip(first + taps, 0, m + taps)
        for k in range(taps):
            share = jnp.maximum(unit - jnp.abs(away + k * slope), 0).astype(y.dtype)
            total = total + share * values.at[start + k].get(mode="promise_in_bounds")
        return total, None

    each = (y, jnp.asarray(rays.slope), jnp.asarray(rays.offset))
    return lax.scan(add, jnp.zeros(shape, y.dtype), each)[0]


def half_turn(num_angles: int) -> np.ndarray:
    """Equidistant angles over half a turn from 0, in radians, `(num_angles,)`.

    **Raises:** `ValueError` when there are none.
    """
    return np.arange(count(num_angles, "num_angles")) * (math.pi / num_angles)


def detector_positions(num_detectors: int, spacing: float) -> np.ndarray:
    """Rays at equal distances about the middle."""
    return (np.arange(num_detectors) - (num_detectors - 1) / 2) * spacing


def _angles(angles: Any) -> tuple[float, ...]:
    check_plain(angles, "angles")
    if isinstance(angles, jax.core.Tracer):
        raise ValueError("angles: expected plain numbers, got traced ones; the geometry is fixed when a map is built.")
    try:
        values = np.asarray(angles, float)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)) or isinstance(angles, str):
        shown = f"shape {np.shape(angles)}" if not isinstance(angles, Sequence) else f"{angles!r:.60}"
        raise ValueError(
            f"angles: expected finite numbers in radians, one per view, got {shown}; use half_turn(60) for a scan."
        )
    return tuple(float(angle) for angle in values)
