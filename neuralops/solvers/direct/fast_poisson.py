"""The exact inverse of the unit-coefficient Laplacian on a box, by modal transforms per axis."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope
from neuralops.solvers.direct.joint_fft import divide_by_eigenvalues
from neuralops.solvers.direct.line_ffts import by_fft, fft_length
from neuralops.solvers.direct.line_modes import Line, by_matrices, lines
from neuralops.solvers.direct.line_sweep import sweep
from neuralops.solvers.elliptic.diffusion import Diffusion
from neuralops.solvers.elliptic.volumes import Widths, check_widths

__all__ = ["FastPoisson"]


class FastPoisson(AbstractOperator):
    """The inverse of `Diffusion(grid, widths=widths)`: solves -div(grad u) = f, of second order, directly.

    The sine, cosine or Fourier modes of each axis diagonalise the stencil; mode by mode the eigenvalue is
    the sum over axes of 4 sin^2(pi w h / (2 L)) / h^2, with w half-waves over the side L (Buzbee, Golub and
    Nielson 1970; Strang 1999 for the list of cosine transforms). On cells with widths of their own the modes are those
    of a generalised eigenproblem per axis (Lynch, Rice and Thomas 1964). Every pair of boundary words is taken, at
    nodes and in cells, mixed freely among axes. Where no axis has a Dirichlet end the operator is singular, and this is
    its symmetric generalised inverse: the mean source is ignored and the result has mean zero, over the volume.

    Symmetric and positive, so it serves as preconditioner, `CG(preconditioner=FastPoisson(grid))`: the number
    of steps is then bounded by the contrast of the coefficient and does not grow with the grid. As
    method, `solve(Diffusion(grid), b, FastPoisson(grid))`, it also reports the true residual.

    **Arguments:**

    - `grid`: where the field lives.
    - `widths`: cell widths, as in `Diffusion`. On a CPU one stretched axis between walls is eliminated (a tridiagonal
      system per mode of the others); any other one, of n cells, costs a matrix product, 2 n operations per unknown and
      direction, half of it where the widths are symmetric between like walls. Its modes are computed when first used.
    - `dtype`: the precision of the transforms, by default the field's (at least float32). `"float32"` makes a
      preconditioner of about half the cost for a float64 solve, whose accuracy does not suffer.

    Grid-locked: a field on another grid is refused. Right-hand sides are those of `Diffusion.load`.

    **Raises:** `ValueError` on widths that do not fit the grid, or an unknown dtype.
    """

    grid: Grid = eqx.field(static=True)
    widths: Widths = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True)

    def __init__(self, grid: Grid, widths: Sequence[Any] | None = None, dtype: str | None = None):
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype: expected None, 'float32' or 'float64', got {dtype!r}; use one of these.")
        self.grid, self.widths, self.dtype = grid, check_widths(grid, widths), dtype

    @property
    def envelope(self) -> Envelope:
        words = tuple(sorted({end for axis in self.grid.axes for end in axis.ends}))
        return Envelope(ndim=(self.grid.ndim,), boundary=words, refinement="grid-locked")

    def __call__(self, b: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        """The solution for a right-hand side on the trailing axes; leading axes pass through."""
        self._check(b)
        b = jnp.asarray(b)
        dtype = self.dtype or jnp.promote_types(b.dtype, jnp.float32)
        return _solve(self.grid, self.widths, b.astype(dtype)).astype(b.dtype)

    def _check(self, b: Any) -> None:
        shape, ndim = tuple(getattr(b, "shape", ())), self.grid.ndim
        if len(shape) < ndim or shape[-ndim:] != self.grid.shape:
            raise ValueError(
                f"b: FastPoisson is locked to the grid {self.grid.shape} (leading axes free), got shape {shape}; build "
                "FastPoisson on the field's grid, or use resample(b, grid, new_grid)."
            )
        if not jnp.issubdtype(b.dtype, jnp.floating):
            raise ValueError(f"b: expected a real floating array, got {b.dtype}; use b.astype(jnp.float32).")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _solve(grid: Grid, widths: Widths, b: Array) -> Array:
    def invert(on_cpu: bool, b: Array) -> Array:
        natural = tuple(range(grid.ndim))
        return _reorder(*_invert(b, _plan(grid, widths, b.dtype, on_cpu), natural, {}), natural)

    def solve(_: Any, b: Array) -> Array:
        if jax.default_backend() == "cpu":
            return invert(True, b)
        return lax.platform_dependent(b, cpu=functools.partial(invert, True), default=functools.partial(invert, False))

    if jax.sharding.get_abstract_mesh().manual_axes:  # custom_linear_solve retypes constants there, which fails
        return solve(None, b)
    # Its own transpose, which JAX would otherwise find by turning gathers into slow scatters.
    return lax.custom_linear_solve(Diffusion(grid, widths=widths), b, solve, symmetric=True)


class _Plan(NamedTuple):
    """How each axis is inverted.

    By a `"matrix"`; by an `"fft"` along it; in a `"joint"` FFT together with others; or, one axis at most and when all
    others are transformed, by a `"sweep"` of elimination.
    """

    lines: tuple[Line, ...]
    routes: tuple[str, ...]
    block: int | None  # numbers that an FFT of one axis takes at a time, if that shall be limited


# The choices below were measured on two CPU cores; benchmarks/fast_poisson.py shows what they reach.
# The most points for which an axis is faster by matrices, by bytes per number, where it has mirror symmetry:
SHORT = {"joint": {4: 192, 8: 96}, "fft": {4: 256, 8: 160}}
SHORT_MIXED = 128  # and where it has not
ROUGH, ROUGH_FACTOR = 512, 64  # the same where an FFT would be slow, its length having a prime factor beyond 64
SWEPT = 128  # points from which a stretched axis is faster by elimination than by matrices
WIDE = 32  # systems side by side that elimination needs to be worth its steps
BLOCK = 2**17  # numbers per FFT call: extended to twice the length and complex, they stay in the cache


def _plan(grid: Grid, widths: Widths, dtype: Any, on_cpu: bool) -> _Plan:
    rows = lines(grid, widths)
    swept = _swept(rows, dtype) if on_cpu else None  # elsewhere so many steps one after the other would cost more
    routes = [_route(line, dtype, together=swept is None) for line in rows]
    if swept is not None:
        routes[swept] = "sweep"
    for a in [a for a, route in enumerate(routes) if route == "joint"][:-3]:
        routes[a] = "matrix"  # XLA transforms at most three axes at once
    return _Plan(rows, tuple(routes), BLOCK if on_cpu else None)


def _swept(rows: tuple[Line, ...], dtype: Any) -> int | None:
    """The axis to eliminate: the longest stretched one, else the first that needs an FFT of its own."""
    points = [line.axis.num_points for line in rows]
    walled = [
        a for a, line in enumerate(rows) if line.axis.boundary != "periodic" and math.prod(points) >= WIDE * points[a]
    ]
    stretched = [a for a in walled if rows[a].widths is not None and points[a] >= SWEPT]
    if stretched:
        return max(stretched, key=lambda a: points[a])
    return next((a for a in walled if _route(rows[a], dtype, together=True) == "fft"), None)


def _route(line: Line, dtype: Any, together: bool) -> str:
    n, (low, high) = line.axis.num_points, line.axis.ends
    together = together and (low == "periodic" or (low == high and line.axis.centering == "cell"))
    route = "joint" if together else "fft"
    short = SHORT[route][jnp.dtype(dtype).itemsize] if low == high else SHORT_MIXED
    if line.widths is not None or n <= (ROUGH if _largest_prime(fft_length(line)) > ROUGH_FACTOR else short):
        return "matrix"
    return route


def _largest_prime(n: int) -> int:
    factor, largest = 2, 1
    while n > 1:
        while n % factor == 0:
            n, largest = n // factor, factor
        factor += 1
    return largest


def _invert(
    u: Array, plan: _Plan, order: tuple[int, ...], known: dict[int, np.ndarray]
) -> tuple[Array, tuple[int, ...]]:
    """Transforms one axis, inverts what remains, transforms back.

    `order` tells which axis each trailing dimension of `u` is, and is returned with the result; `known` holds the
    eigenvalues of the axes already transformed.
    """
    todo = [a for a in order if a not in known and plan.routes[a] in ("matrix", "fft")]
    if not todo:
        return (_sweep if "sweep" in plan.routes else _finish)(u, plan, order, known)
    # Matrices work on any dimension in place; of the others, the last dimension needs no transposition.
    axis = next((a for a in todo if plan.routes[a] == "matrix"), todo[-1])
    t = (by_matrices if plan.routes[axis] == "matrix" else by_fft)(plan.lines[axis])
    c, order = _along_axis(t.analyse, u, plan, order, axis)
    c, order = _invert(c, plan, order, {**known, axis: t.eigenvalues})
    return _along_axis(t.synthesise, c, plan, order, axis)


def _along_axis(
    function: Callable[[Array, int], Array], u: Array, plan: _Plan, order: tuple[int, ...], axis: int
) -> tuple[Array, tuple[int, ...]]:
    if plan.routes[axis] == "matrix":
        return function(u, u.ndim - len(order) + order.index(axis)), order
    turned = (*(a for a in order if a != axis), axis)
    u = _reorder(u, order, turned)
    if plan.block is None or u.size < 4 * plan.block:
        return function(u, u.ndim - 1), turned
    # Some rows at a time: larger intermediates leave the cache, and are mapped afresh by the system page by page. At
    # 1023^2 in float64 an inverse with sine transforms took 11 ms of one core this way, 28 ms at once.
    rows = u.reshape(-1, u.shape[-1])
    total, count = len(rows), -(-plan.block // u.shape[-1])

    def some(i: Array, out: Array) -> Array:
        start = jnp.minimum(i * count, total - count)
        part = lax.dynamic_slice_in_dim(rows, start, count)
        return lax.dynamic_update_slice_in_dim(out, function(part, 1), start, 0)

    return lax.fori_loop(0, -(-total // count), some, jnp.zeros_like(rows)).reshape(u.shape), turned


def _sweep(
    u: Array, plan: _Plan, order: tuple[int, ...], known: dict[int, np.ndarray]
) -> tuple[Array, tuple[int, ...]]:
    axis = plan.routes.index("sweep")
    dim = u.ndim - len(order) + order.index(axis)
    others = tuple(a for a in order if a != axis)
    total = functools.reduce(jnp.add.outer, [jnp.asarray(known[a], u.dtype) for a in others], jnp.zeros((), u.dtype))
    u = sweep(jnp.moveaxis(u, dim, 0), plan.lines[axis], total, _singular(plan))
    return jnp.moveaxis(u, 0, dim), order


def _singular(plan: _Plan) -> bool:
    return not any("dirichlet" in line.axis.ends for line in plan.lines)


def _reorder(u: Array, order: tuple[int, ...], new: tuple[int, ...]) -> Array:
    lead = u.ndim - len(order)
    return u if order == new else jnp.transpose(u, (*range(lead), *(lead + order.index(a) for a in new)))


def _finish(
    u: Array, plan: _Plan, order: tuple[int, ...], known: dict[int, np.ndarray]
) -> tuple[Array, tuple[int, ...]]:
    """Divides by the eigenvalues, all known but those of axes left to one FFT."""
    joint = tuple(a for a in order if a not in known)
    if any(plan.lines[a].axis.boundary == "periodic" for a in joint):  # the last of them has to be
        joint = tuple(sorted(joint, key=lambda a: plan.lines[a].axis.boundary == "periodic"))
    turned = (*(a for a in order if a in known), *joint)
    u = _reorder(u, order, turned)

    def inverse(total: Array) -> Array:
        return jnp.where(total == 0, 0, 1 / jnp.where(total == 0, 1, total)) if _singular(plan) else 1 / total

    total = jnp.zeros((), u.dtype)
    for position, a in enumerate(turned):
        if a in known:
            total = total + jnp.asarray(known[a].reshape([-1] + [1] * (len(turned) - 1 - position)), u.dtype)
    if not joint:
        return u * inverse(total), turned
    return divide_by_eigenvalues(u, [plan.lines[a] for a in joint], total, inverse), turned
