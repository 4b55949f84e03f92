"""Laws for what is there at time 0, or for where a source emits."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import Grid
from neuralops.pde.random_fields import check_dtype
from neuralops.pde.waves.media.medium import (
    Counts,
    Range,
    between,
    check_counts,
    check_range,
    ends,
    uniform,
    whole_between,
)
from neuralops.pde.waves.wavelets import rings

__all__ = ["Rings"]


class Rings(eqx.Module):
    """Smooth rings at random places, height exp(-((r - radius) / width)^2) each; with `radius=0` pulses.

    The law of the numbers and sizes is that of The Well's acoustic sets on their box of side 2 (Ohana et al. 2024: one
    to four rings of high pressure, intensity in [0.5, 2], radius in [0.06, 0.15]); their profile is ours. One key is
    one function on every grid of a box, in float32 and in float64.

    **Arguments:** numbers, or ranges `(low, high)` that are drawn from uniformly.

    - `count`: how many rings.
    - `radius`, `width`: in the units of the box.
    - `height`: of each ring.
    - `margin`: least distance of the centres from the walls.

    **Raises:** `ValueError` on values out of range; `sample` where the margins leave no place.
    """

    count: Counts = eqx.field(static=True)
    radius: Range = eqx.field(static=True)
    width: Range = eqx.field(static=True)
    height: Range = eqx.field(static=True)
    margin: float = eqx.field(static=True)

    def __init__(
        self,
        *,
        count: int | Sequence[int] = (1, 4),
        radius: float | Sequence[float] = (0.06, 0.15),
        width: float | Sequence[float] = 0.05,
        height: float | Sequence[float] = (0.5, 2.0),
        margin: float = 0.2,
    ) -> None:
        self.count = check_counts(count, "count")
        self.radius = check_range(radius, "radius", at_least=0.0)
        self.width = check_range(width, "width", above=0.0)
        self.height = check_range(height, "height")
        self.margin = check_number(margin, "margin", at_least=0.0)

    @property
    def shortest_wavelength(self) -> float:
        """Of the waves that the narrowest ring is made of, down to a tenth of the amplitude of the longest."""
        return math.pi * ends(self.width)[0] / math.sqrt(math.log(10.0))  # exp(-(k width / 2)^2) = 1/10

    def sample(self, key: Array, grid: Grid, *, dtype: Any = None) -> Float[Array, " 1 *grid"]:
        """One function at the points of `grid`; `dtype` defaults to JAX's floating type.

        **Raises:** `ValueError` when the margins leave no place for a centre, or when JAX cannot hold `dtype`.
        """
        if 2 * self.margin >= min(grid.domain_extent):
            raise ValueError(
                f"margin: expected less than half of the shortest side {min(grid.domain_extent):g}, got "
                f"{self.margin:g}; take a smaller one."
            )
        return _sample(self, key, grid, check_dtype(dtype))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _sample(law: Rings, key: Array, grid: Grid, dtype: Any) -> Array:
    number, place, *shape = jax.random.split(key, 5)
    most = ends(law.count)[1]
    inside = jnp.asarray(grid.domain_extent, dtype)[:, None] - 2 * law.margin
    centres = law.margin + inside * uniform(place, (grid.ndim, most), dtype)
    ranges = (law.radius, law.width, law.height)
    radii, widths, heights = (between(k, value, (most,), dtype) for k, value in zip(shape, ranges, strict=True))
    heights = jnp.where(jnp.arange(most) < whole_between(number, law.count), heights, 0)
    return rings(grid, centres, radii, jnp.broadcast_to(widths, (most,)), heights)[None].astype(dtype)
