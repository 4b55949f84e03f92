"""The gradient by forward differences, for total variation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import per_axis
from neuralops.inverse.maps.linear_map import AbstractLinearMap, check_shape

__all__ = ["Gradient"]


class Gradient(AbstractLinearMap):
    """Forward differences along each axis, (x_{i+1} - x_i) / h, zero at the last point (Neumann).

    `(channels, *grid)` goes to `(ndim channels, *grid)`: first all channels differentiated along the first axis, then
    along the second, so that `y.reshape(ndim, channels, *grid)` has the vectors of total variation along its first
    axis. The adjoint is minus the divergence (Chambolle 2004, J. Math. Imaging Vision 20, 89).

    **Arguments:**

    - `in_shape`: `(channels, *grid)`.
    - `spacing`: h, one for all axes or one per axis, such as `grid.spacing`; 1 counts in pixels.

    **Raises:** `ValueError` on a shape or spacing that is none.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, in_shape: Sequence[int], spacing: float | Sequence[float] = 1.0):
        self.in_shape = check_shape(in_shape, "in_shape")
        spacings = per_axis(spacing, len(self.in_shape) - 1, "spacing")
        hint = "give grid.spacing, or 1."
        self.spacing = tuple(check_number(h, "spacing", above=0, hint=hint) for h in spacings)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (len(self.spacing) * self.in_shape[0], *self.in_shape[1:])

    def apply(self, x: Array) -> Array:
        along = lambda a, h: jnp.pad(jnp.diff(x, axis=a), _margins(x.ndim, a, (0, 1))) / h
        return jnp.concatenate([along(a, h) for a, h in enumerate(self.spacing, start=1)])

    def apply_adjoint(self, y: Array) -> Array:
        total = jnp.zeros(self.in_shape, y.dtype)
        for a, (part, h) in enumerate(zip(jnp.split(y, len(self.spacing)), self.spacing, strict=True), start=1):
            inside = lax.slice_in_dim(part, 0, part.shape[a] - 1, axis=a) / h
            total = total + jnp.pad(inside, _margins(y.ndim, a, (1, 0))) - jnp.pad(inside, _margins(y.ndim, a, (0, 1)))
        return total

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        """Exact: the root of the sum over axes of (2 cos(pi / 2n) / h)^2, below 2 sqrt(ndim) / h."""
        pairs = zip(self.in_shape[1:], self.spacing, strict=True)
        return jnp.asarray(math.sqrt(sum((2 * math.sin(math.pi * (n - 1) / (2 * n)) / h) ** 2 for n, h in pairs)))


def _margins(ndim: int, axis: int, ends: tuple[int, int]) -> list[tuple[int, int]]:
    return [ends if a == axis else (0, 0) for a in range(ndim)]
