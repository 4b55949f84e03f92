"""Where a field lives: the box, the points, the boundaries, and the exact change of points."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from neuralops import transforms
from neuralops.arguments import count
from neuralops.transforms import Axis

BOUNDARIES = ("periodic", "dirichlet", "neumann")
CENTERINGS = ("node", "cell")


def per_axis(value: Any, ndim: int, name: str) -> tuple[Any, ...]:
    """One value for all axes, or a sequence with one per axis, as a tuple of length `ndim`."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * ndim
    if len(value) != ndim:
        raise ValueError(
            f"{name}: expected one value or one per axis ({ndim}), got {len(value)}: {value!r}; give {ndim} values."
        )
    return tuple(value)


def check_boundary(boundary: Any, name: str = "boundary") -> str | tuple[str, str]:
    """The canonical form of one axis's boundary: a word, or a pair of words when the two ends differ."""
    ends = boundary if isinstance(boundary, str) else tuple(boundary) if isinstance(boundary, Sequence) else None
    for end in (ends,) if isinstance(ends, str) else ends or (None,):
        if end not in BOUNDARIES:
            raise ValueError(f"{name}: expected one of {BOUNDARIES}, got {boundary!r}; use one of these words.")
    if isinstance(ends, str):
        return ends
    assert ends is not None
    if len(ends) != 2 or ("periodic" in ends and ends[0] != ends[1]):
        raise ValueError(
            f"{name}: expected a word or a pair (low end, high end), got {boundary!r}; "
            "a periodic axis is periodic at both ends."
        )
    return ends[0] if ends[0] == ends[1] else (ends[0], ends[1])


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Grid:
    """A uniform grid on the box [0, domain_extent_1] x ... with a boundary per axis.

    **Arguments:**

    - `num_points`: points per axis; an integer means one axis.
    - `domain_extent`: side lengths, one for all axes or one per axis.
    - `boundary`: `"periodic"`, `"dirichlet"` or `"neumann"`, one for all axes or one per axis; an axis
      whose ends differ takes a pair, as in `boundary=(("dirichlet", "neumann"), "periodic")`.
    - `centering`: `"cell"` samples at the midpoints of `num_points` equal cells. `"node"` samples at
      equidistant nodes where the field is unknown: a Dirichlet end is left out, a Neumann end is kept,
      a periodic axis holds its low end only. One for all axes or one per axis.

    A grid is a static, hashable description: it holds no arrays and passes `jax.jit` as a constant.

    **Raises:** `ValueError` on counts below one, extents that are not positive and finite, unknown words.
    """

    num_points: tuple[int, ...]
    domain_extent: tuple[float, ...] = 1.0  # type: ignore[assignment]
    boundary: tuple[str | tuple[str, str], ...] = "periodic"  # type: ignore[assignment]
    centering: tuple[str, ...] = "node"  # type: ignore[assignment]

    def __post_init__(self) -> None:
        points = self.num_points if isinstance(self.num_points, Sequence) else (self.num_points,)
        if not points:
            raise ValueError("num_points: expected at least one axis, got (); give one count per axis.")
        points = tuple(count(n, "num_points", hint="give counts such as 64.") for n in points)
        ndim = len(points)
        extents = per_axis(self.domain_extent, ndim, "domain_extent")
        for extent in extents:
            if not isinstance(extent, int | float | np.number) or not (math.isfinite(extent) and extent > 0):
                raise ValueError(
                    f"domain_extent: expected positive finite lengths, got {extents!r}; give side lengths such as 1.0."
                )
        boundaries = tuple(check_boundary(b) for b in per_axis(self.boundary, ndim, "boundary"))
        centerings = per_axis(self.centering, ndim, "centering")
        for centering in centerings:
            if centering not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {centering!r}; use one of these words.")
        for n, boundary, centering in zip(points, boundaries, centerings, strict=True):
            if boundary == "neumann" and centering == "node" and n < 2:
                raise ValueError(
                    "num_points: a node-centred Neumann axis holds both ends, so it needs at least 2 points, "
                    f"got {n}; take 2 or more."
                )
        object.__setattr__(self, "num_points", points)
        object.__setattr__(self, "domain_extent", tuple(float(extent) for extent in extents))
        object.__setattr__(self, "boundary", boundaries)
        object.__setattr__(self, "centering", centerings)

    @property
    def ndim(self) -> int:
        return len(self.num_points)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.num_points

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Per axis what the modal transforms need: points, boundary, centring."""
        return tuple(Axis(n, b, c) for n, b, c in zip(self.num_points, self.boundary, self.centering, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring points, per axis."""
        return tuple(2 * L / transforms.positions(a)[1] for a, L in zip(self.axes, self.domain_extent, strict=True))

    @property
    def cell_volume(self) -> float:
        return math.prod(self.spacing)

    def points(self, axis: int) -> np.ndarray:
        """The coordinates along one axis, shape `(num_points[axis],)`, as float64 NumPy."""
        p, q = transforms.positions(self.axes[axis])
        return self.domain_extent[axis] * p / q

    def coordinates(self) -> np.ndarray:
        """All coordinates, shape `(ndim, *grid)`, as float64 NumPy."""
        return np.stack(np.meshgrid(*(self.points(a) for a in range(self.ndim)), indexing="ij"))

    def weights(self) -> np.ndarray:
        """Quadrature weights, shape `(*grid,)`, as float64 NumPy.

        Midpoint rule on cells, trapezoidal rule on nodes; on a node-centred Dirichlet axis the end
        values are zero and left out, so the rule integrates fields that satisfy the condition.
        """
        total = np.ones(())
        for axis, h in zip(self.axes, self.spacing, strict=True):
            total = np.multiply.outer(total, h * transforms.relative_weights(axis))
        return total

    def with_points(self, num_points: int | Sequence[int]) -> Grid:
        """The same box and boundaries with other points."""
        return dataclasses.replace(self, num_points=per_axis(num_points, self.ndim, "num_points"))

    def check(self, u: Any, name: str = "u") -> None:
        """Refuses an array whose trailing shape is not this grid's.

        **Raises:** `ValueError` naming the shapes.
        """
        shape = tuple(getattr(u, "shape", ()))
        if shape[-self.ndim :] != self.shape or len(shape) < self.ndim:
            raise ValueError(
                f"{name}: expected a field on the grid {self.shape} (leading axes free), got shape {shape}; "
                "use resample(u, grid, new_grid) to change grids."
            )


def resample(u: Float[Array, "*lead *grid"], grid: Grid, new_grid: Grid) -> Float[Array, "*lead *new_grid"]:
    """Moves a field to other points of the same box by its sine, cosine or Fourier series.

    Exact for a field that both grids resolve; otherwise modes that `new_grid` cannot represent are cut.
    Leading axes (batch, channels) pass through.

    **Raises:** `ValueError` when the grids differ in extent or boundary, or `u` is not on `grid`.
    """
    grid.check(u)
    if grid.domain_extent != new_grid.domain_extent or grid.boundary != new_grid.boundary:
        raise ValueError(
            f"new_grid: expected extent {grid.domain_extent} and boundary {grid.boundary}, got "
            f"{new_grid.domain_extent} and {new_grid.boundary}; resample changes the points only."
        )
    u = jnp.asarray(u)
    for a, (old, new) in enumerate(zip(grid.axes, new_grid.axes, strict=True)):
        if old == new:
            continue
        dim = u.ndim - grid.ndim + a
        coefficients = transforms.to_modes(u, dim, old)
        kept = min(transforms.shared_modes(old), transforms.shared_modes(new))
        coefficients = jax.lax.slice_in_dim(coefficients, 0, kept, axis=dim)
        u = transforms.from_modes(coefficients, dim, new)
    return u


def interpolate(
    u: Float[Array, " channels *grid"], grid: Grid, points: Float[Array, " ndim *points"], *, order: int = 3
) -> Float[Array, " channels *points"]:
    """The values of a field at any points of the box, by polynomials between its samples.

    Local and a tensor product over the axes: `order=0` takes the nearest sample, `order=1` is linear, `order=3` the
    cubic through four samples. Exact on polynomials of that degree along each axis; one-sided near ends; a periodic
    axis wraps, and a node-centred Dirichlet end counts as a sample of value zero. On cells the polynomial is
    continued to the wall, whatever the boundary. Differentiable in `u` and in `points`, where the slope of the
    interpolant jumps at samples; under `jax.vmap` over fields the work on the points is done once.

    **Arguments:**

    - `u`: one field, `(channels, *grid)`; use `jax.vmap` for a batch.
    - `grid`: where it is sampled.
    - `points`: `(ndim, *points)` in the units of the box, which starts at 0; outside it the value means nothing.
    - `order`: 0, 1 or 3; an axis needs `order + 1` samples, unless it is periodic.

    **Raises:** `ValueError` on another order, shapes that do not fit, or too few samples.
    """
    if isinstance(order, bool) or order not in (0, 1, 3):
        raise ValueError(f"order: expected 0, 1 or 3, got {order!r}; use one of these.")
    grid.check(u)
    u, points = jnp.asarray(u), jnp.asarray(points)
    if u.ndim != grid.ndim + 1:
        raise ValueError(f"u: expected (channels, *grid), got shape {u.shape}; use jax.vmap for a batch.")
    if points.ndim < 1 or points.shape[0] != grid.ndim:
        raise ValueError(
            f"points: expected ({grid.ndim}, *points), got shape {points.shape}; put the {grid.ndim} axes first."
        )
    first = [float(grid.points(a)[0]) for a in range(grid.ndim)]
    index, weights = interpolation(points, grid.axes, first, grid.spacing, order)
    values = u.reshape(u.shape[0], -1)[:, index]
    return jnp.sum(values * weights, axis=1)


def interpolation(
    points: Float[Array, " ndim *points"],
    axes: Sequence[Axis],
    first: Sequence[float],
    spacing: Sequence[float],
    order: int,
) -> tuple[Int[Array, " samples *points"], Float[Array, " samples *points"]]:
    """Which samples the polynomial of degree `order` through each point's neighbours takes, and how much of each.

    The samples are numbered as in the flattened field, whose first sample lies at `first`. As in `interpolate`, which
    applies them; a wall at a node, where the field vanishes, counts as a sample and has weight 0.

    **Raises:** `ValueError` on too few samples.
    """
    trailing = points.shape[1:]
    index, weights = jnp.zeros((1,) * len(axes) + trailing, int), jnp.ones((1,) * len(axes) + trailing, points.dtype)
    for a, (axis, low, h) in enumerate(zip(axes, first, spacing, strict=True)):
        n, periodic = axis.num_points, axis.boundary == "periodic"
        walls = [int(axis.centering == "node" and end == "dirichlet") for end in axis.ends]
        if n + sum(walls) <= order and not periodic:
            raise ValueError(
                f"order: a polynomial of degree {order} needs {order + 1} samples, got {n + sum(walls)} along axis "
                f"{a}; take a lower order or more points."
            )
        place = (points[a] - low) / h
        start = jnp.floor(jax.lax.stop_gradient(place) - (order - 1) / 2)
        start = start if periodic else jnp.clip(start, -walls[0], n - 1 - order + walls[1])
        samples = start.astype(int) + np.arange(order + 1).reshape(-1, *[1] * len(trailing))
        shares = _lagrange(place - start, order)
        if periodic:
            samples = samples % n
        else:
            shares = jnp.where((samples >= 0) & (samples < n), shares, 0)
            samples = jnp.clip(samples, 0, n - 1)
        along = (1,) * a + (order + 1,) + (1,) * (len(axes) - a - 1) + trailing
        index = index * n + samples.reshape(along)
        weights = weights * shares.reshape(along)
    return index.reshape(-1, *trailing), weights.reshape(-1, *trailing)


def _lagrange(s: Array, order: int) -> Array:
    """The Lagrange polynomials of the nodes 0, ..., order at `s`, one per node."""
    nodes = range(order + 1)
    factor = lambda i: math.prod(((s - j) / (i - j) for j in nodes if j != i), start=jnp.ones_like(s))
    return jnp.stack([factor(i) for i in nodes])
