"""Media of two materials with a shape: inclusions, a lens, a checkerboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number, count, flag
from neuralops.grid import Grid, per_axis
from neuralops.pde.waves.media.medium import (
    Counts,
    Medium,
    Range,
    between,
    check_counts,
    check_range,
    ends,
    hull,
    uniform,
    whole_between,
)


class Inclusions(Medium):
    """Discs or ellipses (intervals in one dimension, balls or spheroids in three) in a uniform background.

    Random are their number, and of each the centre (anywhere in the box), the radius, the aspect, the direction of
    the long axis, the sound speed and the density. They may overlap, and the later one covers; walls cut them, and
    on periodic axes they wrap around.

    **Arguments:**

    - `speed`: sound speed of an inclusion, length / time, a value or a range, above 0.
    - `background`: sound speed around them, a value or a range, above 0.
    - `density`, `background_density`: the same for the density, mass / volume.
    - `num_inclusions`: a count, or a pair (fewest, most), each number as likely as the others.
    - `radius`: the short semi-axis, a length, a value or a range, above 0.
    - `aspect`: the long semi-axis over the short one, a value or a range, at least 1.

    **Raises:** `ValueError` on values out of range.
    """

    speed: Range = eqx.field(static=True)
    background: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    background_density: Range = eqx.field(static=True)
    num_inclusions: Counts = eqx.field(static=True)
    radius: Range = eqx.field(static=True)
    aspect: Range = eqx.field(static=True)

    def __init__(
        self,
        speed: float | Sequence[float] = (1.5, 2.5),
        *,
        background: float | Sequence[float] = 1.0,
        density: float | Sequence[float] = 1.0,
        background_density: float | Sequence[float] = 1.0,
        num_inclusions: int | Sequence[int] = (1, 10),
        radius: float | Sequence[float] = (0.03, 0.1),
        aspect: float | Sequence[float] = (1.0, 2.0),
    ) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.background = check_range(background, "background", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.background_density = check_range(background_density, "background_density", above=0.0)
        self.num_inclusions = check_counts(num_inclusions, "num_inclusions", least=0)
        self.radius = check_range(radius, "radius", above=0.0)
        self.aspect = check_range(aspect, "aspect", at_least=1.0)

    @property
    def speeds(self) -> tuple[float, float]:
        return hull(self.background, self.speed)

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        number, middle, size, stretch, turn, fast, dense, around, around_dense = jax.random.split(key, 9)
        most = ends(self.num_inclusions)[1]
        coordinates = jnp.asarray(grid.coordinates(), dtype)
        centre = uniform(middle, (most, grid.ndim), dtype) * jnp.asarray(grid.domain_extent, dtype)
        normal = jax.scipy.special.ndtri(uniform(turn, (most, grid.ndim), dtype))
        direction = normal / jnp.linalg.norm(normal, axis=1, keepdims=True)
        there = jnp.arange(most) < whole_between(number, self.num_inclusions)

        def cover(fields: tuple[Array, Array], one: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
            there, centre, direction, radius, aspect, speed, density = one
            offset = _offset(coordinates, centre, grid)
            along = jnp.tensordot(direction, offset, 1)
            inside = there & (jnp.sum(offset**2, 0) - (1 - aspect**-2) * along**2 < radius**2)
            return (jnp.where(inside, speed, fields[0]), jnp.where(inside, density, fields[1])), None

        start = (
            jnp.broadcast_to(between(around, self.background, (), dtype), grid.shape),
            jnp.broadcast_to(between(around_dense, self.background_density, (), dtype), grid.shape),
        )
        draws = (
            between(k, value, (most,), dtype)
            for k, value in ((size, self.radius), (stretch, self.aspect), (fast, self.speed), (dense, self.density))
        )
        return jax.lax.scan(cover, start, (there, centre, direction, *draws))[0]


class Lens(Medium):
    """A disc (an interval, a ball) of another sound speed, with a smooth or a sharp edge.

    Random are centre, radius and values. Across the edge, speed and density go from those of the lens to those of
    the background by the twice differentiable step 6 s^5 - 15 s^4 + 10 s^3. Walls cut it; on periodic axes it wraps
    around.

    **Arguments:**

    - `speed`: sound speed of the lens, length / time, a value or a range, above 0.
    - `background`: sound speed around it, a value or a range, above 0.
    - `density`, `background_density`: the same for the density, mass / volume.
    - `radius`: a length, a value or a range, above 0.
    - `centre`: as a fraction of every side, a value or a range in 0 to 1; each coordinate is drawn by itself.
    - `edge`: the part of the radius over which the step goes: 0 is a jump at the radius, 1 a bump without a plateau.

    **Raises:** `ValueError` on values out of range.
    """

    speed: Range = eqx.field(static=True)
    background: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    background_density: Range = eqx.field(static=True)
    radius: Range = eqx.field(static=True)
    centre: Range = eqx.field(static=True)
    edge: float = eqx.field(static=True)

    def __init__(
        self,
        speed: float | Sequence[float] = (0.5, 0.8),
        *,
        background: float | Sequence[float] = 1.0,
        density: float | Sequence[float] = 1.0,
        background_density: float | Sequence[float] = 1.0,
        radius: float | Sequence[float] = (0.15, 0.25),
        centre: float | Sequence[float] = (0.35, 0.65),
        edge: float = 0.5,
    ) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.background = check_range(background, "background", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.background_density = check_range(background_density, "background_density", above=0.0)
        self.radius = check_range(radius, "radius", above=0.0)
        self.centre = check_range(centre, "centre", at_least=0.0, at_most=1.0)
        self.edge = check_number(edge, "edge", at_least=0.0)
        if self.edge > 1:
            raise ValueError(f"edge: expected a part of the radius from 0 to 1, got {edge!r}; take at most 1.")

    @property
    def speeds(self) -> tuple[float, float]:
        return hull(self.background, self.speed)

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        middle, size, fast, dense, around, around_dense = jax.random.split(key, 6)
        centre = between(middle, self.centre, (grid.ndim,), dtype) * jnp.asarray(grid.domain_extent, dtype)
        radius = between(size, self.radius, (), dtype)
        offset = _offset(jnp.asarray(grid.coordinates(), dtype), centre, grid)
        depth = 1 - jnp.sqrt(jnp.sum(offset**2, 0)) / radius  # 1 at the centre, 0 at the radius
        s = jnp.clip(depth / self.edge, 0, 1) if self.edge > 0 else (depth > 0).astype(dtype)
        share = s**3 * (6 * s**2 - 15 * s + 10)
        mix = lambda inner, outer: share * inner + (1 - share) * outer
        speed = mix(between(fast, self.speed, (), dtype), between(around, self.background, (), dtype))
        density = mix(
            between(dense, self.density, (), dtype), between(around_dense, self.background_density, (), dtype)
        )
        return speed, density


class Checkerboard(Medium):
    """Equal boxes of two materials in turn (squares where the domain and the counts allow).

    Random are which material has the first box (a fair coin), the two materials' values where ranges are given, and
    with `shift` a displacement of the pattern along every axis. Hence every point has either material with
    probability 1/2.

    **Arguments:**

    - `speed`: sound speed of one material, length / time, a value or a range, above 0.
    - `background`: sound speed of the other, a value or a range, above 0.
    - `density`, `background_density`: the same for the density, mass / volume.
    - `num_cells`: boxes along an axis, one count for all axes or one per axis, at least 1; even on periodic axes.
    - `shift`: whether the pattern is displaced.

    **Raises:** `ValueError` on values out of range and, on `sample`, on counts that do not fit the grid's axes or are
    odd on a periodic one.
    """

    speed: Range = eqx.field(static=True)
    background: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    background_density: Range = eqx.field(static=True)
    num_cells: int | tuple[int, ...] = eqx.field(static=True)
    shift: bool = eqx.field(static=True)

    def __init__(
        self,
        speed: float | Sequence[float] = 2.0,
        *,
        background: float | Sequence[float] = 1.0,
        density: float | Sequence[float] = 1.0,
        background_density: float | Sequence[float] = 1.0,
        num_cells: int | Sequence[int] = 8,
        shift: bool = False,
    ) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.background = check_range(background, "background", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.background_density = check_range(background_density, "background_density", above=0.0)
        self.num_cells = check_cells(num_cells)
        self.shift = flag(shift, "shift")

    @property
    def speeds(self) -> tuple[float, float]:
        return hull(self.background, self.speed)

    def _check(self, grid: Grid) -> None:
        cells = per_axis(self.num_cells, grid.ndim, "num_cells")
        if any(n % 2 and b == "periodic" for n, b in zip(cells, grid.boundary, strict=True)):
            raise ValueError(
                f"num_cells: expected even counts on periodic axes, where equal boxes would meet, got {cells}; take "
                "even counts."
            )

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        coin, moved, fast, dense, around, around_dense = jax.random.split(key, 6)
        parity = (jax.random.bits(coin, (), jnp.uint32) & 1).astype(jnp.int32)
        shifts = 2 * uniform(moved, (grid.ndim,), dtype)
        for a, (axis, n) in enumerate(zip(grid.axes, per_axis(self.num_cells, grid.ndim, "num_cells"), strict=True)):
            p, q = transforms.positions(axis)
            if self.shift:
                box = jnp.floor(jnp.asarray(n * p / q, dtype) + shifts[a]).astype(jnp.int32)
            else:
                box = np.minimum(n * p // q, n - 1)  # exact: a node on a face belongs to the box above it
            parity = parity + jnp.asarray(box, jnp.int32).reshape([-1 if b == a else 1 for b in range(grid.ndim)])
        first = parity % 2 == 0
        choose = lambda i, one, j, two: jnp.where(first, between(i, one, (), dtype), between(j, two, (), dtype))
        return (
            choose(fast, self.speed, around, self.background),
            choose(dense, self.density, around_dense, self.background_density),
        )


def check_cells(value: Any, least: int = 1) -> int | tuple[int, ...]:
    """A count for all axes or one per axis, or a `ValueError`."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(count(n, "num_cells", least) for n in value)
    return count(value, "num_cells", least)


def _offset(coordinates: Array, centre: Array, grid: Grid) -> Float[Array, " ndim *grid"]:
    """From the centre, or from the nearest of its images on periodic axes."""
    offset = coordinates - centre.reshape(-1, *[1] * grid.ndim)
    images = [
        L * jnp.round(x / L) if b == "periodic" else jnp.zeros_like(x)
        for x, b, L in zip(offset, grid.boundary, grid.domain_extent, strict=True)
    ]
    return offset - jnp.stack(images)
