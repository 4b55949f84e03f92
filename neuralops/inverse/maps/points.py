"""Values of a field at points between those of its grid."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_plain, count
from neuralops.grid import Grid, interpolate
from neuralops.inverse.maps.linear_map import AbstractLinearMap

__all__ = ["PointValues"]


class PointValues(AbstractLinearMap):
    """A field seen at points, `(channels, *grid)` to `(channels, points)`, by interpolation; see `grid.interpolate`.

    **Arguments:**

    - `grid`: where the field lives.
    - `points`: `(ndim, points)` in units of the box; a leaf.
    - `channels`: of the field.
    - `order`: of the polynomials, 0, 1 or 3.

    **Raises:** `ValueError` on points of another dimension and what `interpolate` refuses.
    """

    grid: Grid = eqx.field(static=True)
    points: Float[Array, "ndim points"]
    channels: int = eqx.field(static=True)
    order: int = eqx.field(static=True)

    def __init__(self, grid: Grid, points: Any, channels: int = 1, order: int = 3):
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        self.grid, self.channels, self.order = grid, count(channels, "channels"), order
        check_plain(points, "points")
        points = jnp.asarray(points)
        if points.ndim != 2 or points.shape[0] != grid.ndim or not points.shape[1]:
            raise ValueError(
                f"points: expected ({grid.ndim}, points), got shape {points.shape}; give one column per point."
            )
        if not jnp.issubdtype(points.dtype, jnp.floating):
            raise ValueError(f"points: expected real floating numbers, got {points.dtype}; use points.astype(float).")
        self.points = points
        interpolate(jnp.zeros(self.in_shape, points.dtype), grid, points[:, :1], order=order)  # refuses a wrong order
        self.order = int(order)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.channels, *self.grid.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.channels, self.points.shape[1])

    def apply(self, x: Array) -> Array:
        return interpolate(x, self.grid, self.points, order=self.order).astype(x.dtype)
