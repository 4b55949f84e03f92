"""Mazes: corridors between walls of high impedance, every place reachable in one way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from neuralops import transforms
from neuralops.arguments import check_number, flag
from neuralops.grid import Grid, per_axis
from neuralops.pde.waves.media.medium import Medium, Range, between, check_range, hull
from neuralops.pde.waves.media.shapes import check_cells


class Maze(Medium):
    """Corridors between walls on a lattice of cells, in two or three dimensions.

    Random is which walls between neighbouring cells are open: those on the spanning tree of least weight, with
    independent uniform weights on the walls. So between any two cells there is exactly one way. On periodic axes
    corridors may pass through the end of the box.

    A cell's pitch is one corridor and one wall. On an axis with outer walls, n cells and n + 1 walls fill the side;
    without outer walls n cells and n - 1 walls, and the box's own boundary ends the maze; a periodic axis has n of
    both.

    A wall reflects (Z_wall - Z) / (Z_wall + Z) of the pressure, Z = density speed: 0.998 by default. Its high impedance
    comes from the density, so it does not shorten the time step.

    **Arguments:**

    - `num_cells`: cells along an axis, one count for all axes or one per axis, at least 2. The tree costs their number
      squared.
    - `wall_thickness`: of a wall, as a fraction of the pitch, above 0 and below 1.
    - `outer_walls`: whether walls enclose the maze on axes that are not periodic.
    - `speed`, `density`: of the corridors, length / time and mass / volume, a value or a range, above 0.
    - `wall_speed`, `wall_density`: of the walls, a value or a range, above 0.

    **Raises:** `ValueError` on values out of range and, on `sample`, in one dimension, on counts that do not fit the
    grid's axes, and on grids so coarse that a wall or a corridor falls between two points.
    """

    num_cells: int | tuple[int, ...] = eqx.field(static=True)
    wall_thickness: float = eqx.field(static=True)
    outer_walls: bool = eqx.field(static=True)
    speed: Range = eqx.field(static=True)
    density: Range = eqx.field(static=True)
    wall_speed: Range = eqx.field(static=True)
    wall_density: Range = eqx.field(static=True)

    def __init__(
        self,
        num_cells: int | Sequence[int] = 8,
        *,
        wall_thickness: float = 0.3,
        outer_walls: bool = True,
        speed: float | Sequence[float] = 1.0,
        density: float | Sequence[float] = 1.0,
        wall_speed: float | Sequence[float] = 1.0,
        wall_density: float | Sequence[float] = 1000.0,
    ) -> None:
        self.num_cells = check_cells(num_cells, least=2)
        self.wall_thickness = check_number(wall_thickness, "wall_thickness", above=0.0)
        if self.wall_thickness >= 1:
            raise ValueError(
                f"wall_thickness: expected a fraction of a cell's pitch below 1, got {wall_thickness!r}; take 0.3, say."
            )
        self.outer_walls = flag(outer_walls, "outer_walls")
        self.speed = check_range(speed, "speed", above=0.0)
        self.density = check_range(density, "density", above=0.0)
        self.wall_speed = check_range(wall_speed, "wall_speed", above=0.0)
        self.wall_density = check_range(wall_density, "wall_density", above=0.0)

    @property
    def speeds(self) -> tuple[float, float]:
        return hull(self.speed, self.wall_speed)

    def _check(self, grid: Grid) -> None:
        if grid.ndim == 1:
            raise ValueError("grid: a maze needs two or three dimensions, got 1; use Layered or Inclusions on a line.")
        cells = per_axis(self.num_cells, grid.ndim, "num_cells")
        for a, (n, index) in enumerate(zip(cells, self._places(grid), strict=True)):
            periodic = grid.boundary[a] == "periodic"
            wanted = 2 * n if periodic else 2 * n + 1 if self.outer_walls else 2 * n - 1
            if np.unique(index).size != wanted:
                raise ValueError(
                    f"grid: expected a point in every wall and corridor, but some fall between the {grid.shape[a]} "
                    f"points of axis {a}, which has {n} cells and walls of {self.wall_thickness:g} of the pitch; take "
                    "more points, fewer cells, or another wall_thickness."
                )

    def _places(self, grid: Grid) -> list[np.ndarray]:
        """Per axis where each point lies on the lattice of walls (even numbers) and cells (odd numbers)."""
        places, t = [], self.wall_thickness
        for axis, n in zip(grid.axes, per_axis(self.num_cells, grid.ndim, "num_cells"), strict=True):
            p, q = transforms.positions(axis)
            periodic = axis.boundary == "periodic"
            enclosed = self.outer_walls or periodic
            pitches = n if periodic else n + t if enclosed else n - t
            s = pitches * p / q + (0 if enclosed else t)
            place = 2 * np.floor(s).astype(int) + (s - np.floor(s) >= t)
            places.append(np.clip(place, *((0, 2 * n) if enclosed else (1, 2 * n - 1))))
        return places

    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        tree, *keys = jax.random.split(key, 5)
        cells = per_axis(self.num_cells, grid.ndim, "num_cells")
        periodic = tuple(b == "periodic" for b in grid.boundary)
        is_open = _lattice(tree, cells, periodic)[np.ix_(*self._places(grid))]
        values = (self.speed, self.wall_speed, self.density, self.wall_density)
        c, wall_c, rho, wall_rho = (between(k, value, (), dtype) for k, value in zip(keys, values, strict=True))
        return jnp.where(is_open, c, wall_c), jnp.where(is_open, rho, wall_rho)


def _lattice(key: Array, cells: tuple[int, ...], periodic: tuple[bool, ...]) -> Bool[Array, " *lattice"]:
    """What is open on the lattice of walls and cells: along an axis cell i has the number 2 i + 1."""
    number = np.arange(math.prod(cells)).reshape(cells)
    shape = tuple(2 * n + (not wraps) for n, wraps in zip(cells, periodic, strict=True))
    start, stop, faces = [], [], []
    for a, wraps in enumerate(periodic):  # the faces between each cell and the one before it
        for cell in itertools.product(*(range(n) for n in cells)):
            if cell[a] > 0 or wraps:
                before = tuple((i - (b == a)) % n for b, (i, n) in enumerate(zip(cell, cells, strict=True)))
                start.append(number[before])
                stop.append(number[cell])
                faces.append([2 * i + (b != a) for b, i in enumerate(cell)])
    weights = jax.random.bits(key, (len(faces),), jnp.uint32) >> 1
    opened = _spanning_tree(weights, jnp.asarray(start), jnp.asarray(stop), number.size)
    rooms = np.zeros(shape, bool)
    rooms[(slice(1, None, 2),) * len(cells)] = True
    return jnp.asarray(rooms).at[tuple(np.transpose(faces))].set(opened)


def _spanning_tree(weights: Array, start: Array, stop: Array, number: int) -> Bool[Array, " edges"]:
    """The edges of the spanning tree of least weight: from cell 0, always the lightest edge that leaves the tree."""

    def grow(_: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        reached, taken = state
        leaves = reached[start] != reached[stop]
        edge = jnp.argmin(jnp.where(leaves, weights, jnp.uint32(0xFFFFFFFF)))
        return reached.at[start[edge]].set(True).at[stop[edge]].set(True), taken.at[edge].set(True)

    begin = jnp.zeros(number, bool).at[0].set(True), jnp.zeros(weights.shape, bool)
    return jax.lax.fori_loop(0, number - 1, grow, begin)[1]
