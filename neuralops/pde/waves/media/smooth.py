"""Media without jumps: one value everywhere, and log-normal random fields."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number
from neuralops.grid import Grid
from neuralops.pde.random_fields import GaussianRandomField
from neuralops.pde.waves.media.medium import Medium, Range, between, check_range, ends

CUTOFF = 8.0  # highest wavenumber of a random field, in units of sqrt(2 smoothness) / correlation_length
MAX_MODES = 10**8


class Homogeneous(Medium):
    """One sound speed and one density everywhere.

    **Arguments:**

    - `speed`: sound speed, length / time, a value or a range, above 0.
    - `density`: mass / volume, a value or a range, above 0.

    **Raises:** `ValueError` on values out of range.
    """

    speed: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)

    def __init__(self, speed: float | Sequence[float] = 1.0, *, density: float | Sequence[float] = 1.0) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.density = check_range(density, "density", above=0.0)

    @property
    def speeds(self) -> tuple[float, float]:
        return ends(self.speed)

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        fast, dense = jax.random.split(key)
        return between(fast, self.speed, (), dtype), between(dense, self.density, (), dtype)


class LogNormal(Medium):
    """Sound speed exp(g) with g a stationary Gaussian field, clipped; constant density.

    g has the mean log(speed), the standard deviation `deviation` at every point up to the walls, and Matern's
    correlation: with s = sqrt(2 smoothness) r / correlation_length, it is exp(-s) for smoothness 0.5, (1 + s) exp(-s)
    for 1.5; at r = correlation_length that is 0.37 and 0.48. The field is periodic on periodic axes, and on the
    others a piece of a field of twice the box's length, so correlations are Matern's where `correlation_length` is
    short beside the box. Its series ends at the wavenumber 8 sqrt(2 smoothness) / correlation_length, whatever the
    grid, beyond which lies a share of about 65^(-smoothness) of the variance (0.2 % for 1.5), and is scaled to the
    variance that was asked for.

    **Arguments:**

    - `speed`: the median of the sound speed, length / time, above 0.
    - `deviation`: standard deviation of log c before clipping, at least 0.
    - `correlation_length`: a length, above 0.
    - `smoothness`: above 0; samples have as many derivatives, rounded up, less one.
    - `bounds`: (lowest, highest) speed, between which c is clipped; `None` means three standard deviations to both
      sides of the median, speed exp(-3 deviation) to speed exp(3 deviation), which 0.27 % of points would pass.
    - `density`: mass / volume, a value or a range, above 0; the same at all points.

    **Raises:** `ValueError` on values out of range, bounds that do not hold the median, and, on `sample`, a
    `correlation_length` so short that the series would need more than 10^8 terms.
    """

    speed: float = eqx.field(static=True)
    deviation: float = eqx.field(static=True)
    correlation_length: float = eqx.field(static=True)
    smoothness: float = eqx.field(static=True)
    bounds: tuple[float, float] | None = eqx.field(static=True)
    density: Range = eqx.field(static=True)

    def __init__(
        self,
        speed: float = 1.0,
        *,
        deviation: float = 0.2,
        correlation_length: float = 0.1,
        smoothness: float = 1.5,
        bounds: Sequence[float] | None = None,
        density: float | Sequence[float] = 1.0,
    ) -> None:
        self.speed = check_number(speed, "speed", above=0.0)
        self.deviation = check_number(deviation, "deviation", at_least=0.0)
        self.correlation_length = check_number(correlation_length, "correlation_length", above=0.0)
        self.smoothness = check_number(smoothness, "smoothness", above=0.0)
        self.bounds = None if bounds is None else ends(check_range(bounds, "bounds", above=0.0))
        self.density = check_range(density, "density", above=0.0)
        low, high = self.speeds
        if not low <= self.speed <= high:
            raise ValueError(
                f"bounds: expected a pair around the median speed {self.speed}, got {bounds!r}; move the bounds or the "
                "speed."
            )

    @property
    def speeds(self) -> tuple[float, float]:
        if self.bounds is not None:
            return self.bounds
        return self.speed * math.exp(-3 * self.deviation), self.speed * math.exp(3 * self.deviation)

    def _check(self, grid: Grid) -> None:
        check_modes(grid, self.correlation_length, self.smoothness, "correlation_length")

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        field, dense = jax.random.split(key)
        g = stationary_field(field, grid, self.correlation_length, self.smoothness, dtype)
        return self.speed * jnp.exp(self.deviation * g), between(dense, self.density, (), dtype)


def stationary_field(
    key: Array, grid: Grid, correlation_length: float, smoothness: float, dtype: Any
) -> Float[Array, "*grid"]:
    """A Gaussian field of mean 0, variance 1 at every point, and Matern's correlation (see `LogNormal`).

    Drawn on a periodic box that is twice as long along the axes that are not periodic, and cut.
    """
    tau = math.sqrt(2 * smoothness) / correlation_length
    alpha = smoothness + grid.ndim / 2
    highest = _highest_modes(grid, correlation_length, smoothness)
    laplacian, weight = np.zeros(()), np.ones(())
    points, periods, kept = [], [], []
    for m, axis, L in zip(highest, grid.axes, grid.domain_extent, strict=True):
        p, q = transforms.positions(axis)  # of a periodic axis of the same spacing the points are a piece
        twice = 1 if axis.boundary == "periodic" else 2
        first = int(p[0]) // 2
        points.append(twice * q // 2)
        periods.append(twice * L)
        kept.append(slice(first, first + axis.num_points))
        wave = 2 * np.pi * np.arange(m + 1) / periods[-1]
        laplacian = np.add.outer(laplacian, wave**2)
        weight = np.multiply.outer(weight, np.where(wave == 0, 1.0, 2.0) / periods[-1])
    scale = float(np.sum(weight * (laplacian + tau**2) ** -alpha)) ** -0.5
    num_modes = [2 * m + 1 for m in highest]
    law = GaussianRandomField(alpha, tau, boundary="periodic", scale=scale, zero_mean=False, num_modes=num_modes)
    field = law.sample(key, Grid(tuple(points), tuple(periods), ("periodic",) * grid.ndim, grid.centering), dtype=dtype)
    return field[(0, *kept)]


def check_modes(grid: Grid, correlation_length: float, smoothness: float, name: str) -> None:
    """Refuses a correlation length that is hopelessly short for the box."""
    number = math.prod(m + 1 for m in _highest_modes(grid, correlation_length, smoothness))
    if number > MAX_MODES:
        raise ValueError(
            f"{name}: on a box of {grid.domain_extent} a random field of correlation length {correlation_length:g} "
            f"needs {number:.1e} modes, more than {MAX_MODES:.0e}; take a longer one."
        )


def _highest_modes(grid: Grid, correlation_length: float, smoothness: float) -> list[int]:
    """Per axis the most periods of a wave on the box, if that is periodic, or else on twice the box."""
    cutoff = CUTOFF * math.sqrt(2 * smoothness) / correlation_length
    return [
        math.ceil(cutoff * L * (1 if b == "periodic" else 2) / (2 * math.pi))
        for b, L in zip(grid.boundary, grid.domain_extent, strict=True)
    ]
