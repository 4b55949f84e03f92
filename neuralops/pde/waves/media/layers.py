"""Layered media, whole and cut by a fault."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import Grid
from neuralops.pde.waves.media.medium import (
    Counts,
    Medium,
    Range,
    between,
    check_counts,
    check_range,
    ends,
    uniform,
    whole_between,
)
from neuralops.pde.waves.media.smooth import check_modes, stationary_field

ROUGH_SMOOTHNESS = 1.5  # of rough interfaces: once differentiable


class Layered(Medium):
    """A stack of layers along one axis, each with a sound speed and a density of its own.

    Random are the number of layers, the places of the interfaces (uniform, given that layers keep their least
    thickness), and the values of every layer. In two and three dimensions interfaces can be rough: each is displaced
    by a stationary Gaussian field of the other coordinates (`LogNormal` says which, with smoothness 1.5), periodic on
    periodic axes. Where rough interfaces cross, the layer between them ends.

    **Arguments:**

    - `speed`: sound speed of a layer, length / time, a value or a range, above 0.
    - `density`: density of a layer, mass / volume, a value or a range, above 0.
    - `num_layers`: a count, or a pair (fewest, most), each number as likely as the others.
    - `axis`: the axis across the layers; negative numbers count from the last.
    - `min_thickness`: of a layer before roughness, a length, at least 0.
    - `roughness`: standard deviation of the displacement, a length, at least 0.
    - `roughness_length`: its correlation length along the interface, a length, above 0.

    On a periodic axis the first and last layer meet in one more interface.

    **Raises:** `ValueError` on values out of range and, on `sample`, on an axis that the grid has not, layers too
    thick for the box, or roughness in one dimension.
    """

    speed: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    num_layers: Counts = eqx.field(static=True)
    axis: int = eqx.field(static=True)
    min_thickness: float = eqx.field(static=True)
    roughness: float = eqx.field(static=True)
    roughness_length: float = eqx.field(static=True)

    def __init__(
        self,
        speed: float | Sequence[float] = (1.0, 2.0),
        *,
        density: float | Sequence[float] = 1.0,
        num_layers: int | Sequence[int] = (3, 8),
        axis: int = -1,
        min_thickness: float = 0.0,
        roughness: float = 0.0,
        roughness_length: float = 0.2,
    ) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.num_layers = check_counts(num_layers, "num_layers")
        self.axis = check_axis(axis)
        self.min_thickness = check_number(min_thickness, "min_thickness", at_least=0.0)
        self.roughness = check_number(roughness, "roughness", at_least=0.0)
        self.roughness_length = check_number(roughness_length, "roughness_length", above=0.0)

    @property
    def speeds(self) -> tuple[float, float]:
        return ends(self.speed)

    def _check(self, grid: Grid) -> None:
        check_layers(grid, self.axis, self.num_layers, self.min_thickness)
        if self.roughness > 0:
            if grid.ndim == 1:
                raise ValueError(
                    f"roughness: interfaces in one dimension are points, got roughness {self.roughness}; take 0.0 or "
                    "a grid of two or three dimensions."
                )
            across = _without(grid, self.axis % grid.ndim)
            check_modes(across, self.roughness_length, ROUGH_SMOOTHNESS, "roughness_length")

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        axis = self.axis % grid.ndim
        layers, rough = jax.random.split(key)
        stack = _Stack.draw(layers, self, grid.domain_extent[axis], dtype)
        depth = jnp.asarray(grid.points(axis), dtype).reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
        number = stack.interfaces.size
        interfaces = stack.interfaces.reshape(number, *[1] * grid.ndim)
        if self.roughness > 0 and number > 0:
            across = _without(grid, axis)
            field = lambda k: stationary_field(k, across, self.roughness_length, ROUGH_SMOOTHNESS, dtype)
            displacement = jax.vmap(field)(jax.random.split(rough, number))
            interfaces = interfaces + self.roughness * jnp.expand_dims(displacement, axis + 1)
        return stack.at(depth, interfaces)


class Fault(Medium):
    """A layered medium that an oblique plane cuts, and whose one side has slipped along it.

    Random are the layers (as in `Layered`, without roughness), a point of the plane, its dip, the direction in which
    it dips (either way in two dimensions, any azimuth in three), and the slip. The side above the plane moves down
    the dip towards larger coordinates along `axis`; end layers extend as far as they are needed. The plane does not
    wrap around periodic axes.

    **Arguments:**

    - `speed`, `density`, `num_layers`, `axis`, `min_thickness`: as in `Layered`.
    - `dip`: angle between the plane and the layers, in degrees from 0 to 90, a value or a range.
    - `slip`: distance moved along the plane, a length, a value or a range; negative values move up the dip. Layers
      are displaced by slip sin(dip) along `axis`.
    - `centre`: where the plane's point lies, as a fraction of every side, a value or a range in 0 to 1; each
      coordinate is drawn by itself.

    **Raises:** `ValueError` on values out of range and, on `sample`, on one dimension, an axis that the grid has not,
    or layers too thick for the box.
    """

    speed: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    num_layers: Counts = eqx.field(static=True)
    axis: int = eqx.field(static=True)
    min_thickness: float = eqx.field(static=True)
    dip: Range = eqx.field(static=True)
    slip: Range = eqx.field(static=True)
    centre: Range = eqx.field(static=True)

    def __init__(
        self,
        speed: float | Sequence[float] = (1.0, 2.0),
        *,
        density: float | Sequence[float] = 1.0,
        num_layers: int | Sequence[int] = (4, 8),
        axis: int = -1,
        min_thickness: float = 0.0,
        dip: float | Sequence[float] = (45.0, 75.0),
        slip: float | Sequence[float] = (0.1, 0.2),
        centre: float | Sequence[float] = (0.35, 0.65),
    ) -> None:
        self.speed = check_range(speed, "speed", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.num_layers = check_counts(num_layers, "num_layers")
        self.axis = check_axis(axis)
        self.min_thickness = check_number(min_thickness, "min_thickness", at_least=0.0)
        self.dip = check_range(dip, "dip", at_least=0.0, at_most=90.0)
        self.slip = check_range(slip, "slip")
        self.centre = check_range(centre, "centre", at_least=0.0, at_most=1.0)

    @property
    def speeds(self) -> tuple[float, float]:
        return ends(self.speed)

    def _check(self, grid: Grid) -> None:
        check_layers(grid, self.axis, self.num_layers, self.min_thickness)
        if grid.ndim == 1:
            raise ValueError("grid: a fault needs two or three dimensions, got 1; use Layered on a line.")

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        axis = self.axis % grid.ndim
        layers, middle, angle, turn, far = jax.random.split(key, 5)
        stack = _Stack.draw(layers, self, grid.domain_extent[axis], dtype)
        extent = jnp.asarray(grid.domain_extent, dtype)
        centre = between(middle, self.centre, (grid.ndim,), dtype) * extent
        dip = between(angle, self.dip, (), dtype) * (math.pi / 180)
        slip = between(far, self.slip, (), dtype)
        offset = jnp.asarray(grid.coordinates(), dtype) - centre.reshape(-1, *[1] * grid.ndim)
        heading = _direction(turn, grid.ndim - 1, dtype)
        others = [offset[a] for a in range(grid.ndim) if a != axis]
        level = sum(h * x for h, x in zip(heading, others, strict=True))
        # The plane goes down along (cos(dip) heading, sin(dip)); above it lies what is further along the heading.
        above = jnp.sin(dip) * level - jnp.cos(dip) * offset[axis] > 0
        depth = offset[axis] + centre[axis] - jnp.where(above, slip * jnp.sin(dip), 0)
        return stack.at(depth, stack.interfaces.reshape(-1, *[1] * grid.ndim))


class _Stack(eqx.Module):
    """Interfaces in rising order, those that are not there at infinity, and the values between them."""

    interfaces: Float[Array, " most_less_one"]
    speed: Float[Array, " most"]
    density: Float[Array, " most"]

    @staticmethod
    def draw(key: Array, law: Layered | Fault, extent: float, dtype: Any) -> _Stack:
        number, place, fast, dense = jax.random.split(key, 4)
        most = ends(law.num_layers)[1]
        n = whole_between(number, law.num_layers)
        rank = jnp.arange(most - 1)
        order = jnp.sort(jnp.where(rank < n - 1, uniform(place, (most - 1,), dtype), 2))
        interfaces = (extent - n * law.min_thickness) * order + (rank + 1) * law.min_thickness
        return _Stack(
            jnp.where(rank < n - 1, interfaces, jnp.inf).astype(dtype),
            between(fast, law.speed, (most,), dtype),
            between(dense, law.density, (most,), dtype),
        )

    def at(self, depth: Array, interfaces: Array) -> tuple[Array, Array]:
        layer = jnp.sum(depth >= interfaces, axis=0)
        return self.speed[layer], self.density[layer]


def _direction(key: Array, ndim: int, dtype: Any) -> list[Array]:
    """A random unit vector on a line or in a plane."""
    turn = uniform(key, (), dtype)
    if ndim == 1:
        return [jnp.where(turn < 0.5, -1, 1).astype(dtype)]
    return [jnp.cos(2 * math.pi * turn), jnp.sin(2 * math.pi * turn)]


def _without(grid: Grid, axis: int) -> Grid:
    """The grid of the other axes."""
    drop = lambda values: tuple(v for a, v in enumerate(values) if a != axis)
    return Grid(drop(grid.num_points), drop(grid.domain_extent), drop(grid.boundary), drop(grid.centering))


def check_axis(axis: Any) -> int:
    """An axis number, or a `ValueError`."""
    number = check_number(axis, "axis", hint="give a whole number such as -1.")
    if number != int(number):
        raise ValueError(f"axis: expected a whole number, got {axis!r}; give one such as -1.")
    return int(number)


def check_layers(grid: Grid, axis: int, num_layers: Counts, min_thickness: float) -> None:
    """Refuses layers that do not fit into the box."""
    if not -grid.ndim <= axis < grid.ndim:
        raise ValueError(
            f"axis: expected one of the grid's {grid.ndim} axes, got {axis}; give a number from {-grid.ndim} to "
            f"{grid.ndim - 1}."
        )
    extent, most = grid.domain_extent[axis], ends(num_layers)[1]
    if most * min_thickness > extent:
        raise ValueError(
            f"min_thickness: {most} layers of at least {min_thickness} do not fit into the length {extent}; take "
            f"fewer layers, or at most {extent / most:g}."
        )
