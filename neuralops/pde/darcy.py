"""Darcy flow on a box: from a random permeability to the pressure, solved to a stated residual."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, flag
from neuralops.grid import Grid
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes
from neuralops.solvers import CG, Diffusion, FastPoisson, Scaled, Solution, solve

COEFFICIENTS = ("two_phase", "log_normal", "trigonometric")
SCALES = 6  # factors of the trigonometric coefficient


class Darcy(Problem):
    """Solution operator of -div(a grad u) = forcing on a box, in one to three dimensions.

    Input: the permeability a, `(1, *grid)`, made from a Gaussian random field g with Neumann boundary
    (periodic on periodic axes) and no constant mode: `"two_phase"` is `values[0]` where g >= 0 and
    `values[1]` elsewhere, `"log_normal"` is exp(g). `"trigonometric"` is the multiscale medium of the homogenisation
    line (after Owhadi 2017), in two dimensions: the product over k = 1 ... 6 of

        (1 + cos(w_k pi (x + y)) / 2) (1 + sin(w_k pi (y - 3 x)) / 2),    w_k uniform in [2^(k-1), 1.5 2^(k-1)],

    on the box [-1, 1]^2 mapped to the domain; it needs about 256 points per side. Output: the pressure u,
    `(1, *grid)`, with homogeneous conditions.

    The defaults are the benchmark of the FNO line (Li et al. 2021, arXiv 2010.08895, section 5.2): 12 and 3,
    covariance 9 (-Laplacian + 9)^(-2), unit forcing, zero pressure at the walls. Their grid is `Darcy((421, 421))`,
    up to where the points lie: theirs hold the walls, ours cells or interior nodes. The rough medium of HANO and
    MgNO is `Darcy((256, 256), values=(12.0, 2.0), tau=5.0)`.

    Finite volumes with harmonic means at the faces: of second order for smooth a; across a jump the flux
    stays continuous. Solved by `solve_diffusion` to the relative true residual `rtol`.

    **Arguments:**

    - `num_points`, `domain_extent`, `boundary`, `centering`: the grid, as in `Grid`; an integer is one axis.
    - `coefficient`: `"two_phase"`, `"log_normal"` or `"trigonometric"`.
    - `values`: the two permeabilities, above 0 (two-phase).
    - `alpha`, `tau`, `scale`, `num_modes`: the law of g, as in `GaussianRandomField`. `scale` matters to
      the log-normal alone; its default gives g a standard deviation of about 0.3 in two dimensions.
    - `forcing`: a number, or a function from the coordinates, NumPy float64 `(ndim, *grid)`, to the source at
      the points `(*grid,)`. Where no axis has a Dirichlet end the equation needs a source of zero mean, so
      a constant is refused and the mean of a function is subtracted; u then has zero mean.
    - `rtol`: the relative residual to reach; `None` is the default of `solve_diffusion`.

    A solve that stops short of `rtol` returns its best iterate; `relative_residual` tells.

    **Raises:** `ValueError` on arguments out of range or a forcing that has no solution.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("permeability",)
    output_fields: ClassVar[tuple[str, ...]] = ("pressure",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    coefficient: str = eqx.field(static=True)
    values: tuple[float, float] = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)
    forcing: float | Callable[[Any], Any] = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int],
        *,
        domain_extent: float | Sequence[float] = 1.0,
        boundary: Any = "dirichlet",
        centering: str | Sequence[str] = "cell",
        coefficient: str = "two_phase",
        values: Sequence[float] = (12.0, 3.0),
        alpha: float = 2.0,
        tau: float = 3.0,
        scale: float | None = None,
        num_modes: int | Sequence[int] | None = None,
        forcing: float | Callable[[Any], Any] = 1.0,
        rtol: float | None = None,
    ) -> None:
        grid = Grid(num_points, domain_extent, boundary, centering)  # type: ignore[arg-type]
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.boundary, self.centering = grid.boundary, grid.centering
        if coefficient not in COEFFICIENTS:
            raise ValueError(
                f"coefficient: expected one of {COEFFICIENTS}, got {coefficient!r}; use one of these words."
            )
        self.coefficient = coefficient
        if coefficient == "trigonometric" and grid.ndim != 2:
            raise ValueError(
                f"coefficient: 'trigonometric' has two dimensions, got {grid.ndim}; use 'two_phase' or 'log_normal'."
            )
        self.values = check_phases(values)
        self.alpha = check_number(alpha, "alpha", above=grid.ndim / 2)
        self.tau = check_number(tau, "tau", above=0.0)
        self.scale = None if scale is None else check_number(scale, "scale", above=0.0)
        self.num_modes = check_num_modes(num_modes, grid.ndim)
        self.forcing = check_forcing(forcing, grid)
        self.rtol = None if rtol is None else check_number(rtol, "rtol", above=0.0)

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent, self.boundary, self.centering)

    @property
    def field_law(self) -> GaussianRandomField:
        """The law of the Gaussian field g that the permeability is made from."""
        walls = tuple("periodic" if b == "periodic" else "neumann" for b in self.boundary)
        return GaussianRandomField(self.alpha, self.tau, boundary=walls, scale=self.scale, num_modes=self.num_modes)

    def sample(self, key: Array) -> Float[Array, " 1 *grid"]:
        if self.coefficient == "trigonometric":
            return _trigonometric(key, self.grid)
        g = self.field_law.sample(key, self.grid)
        if self.coefficient == "log_normal":
            return jnp.exp(g)
        high, low = (jnp.asarray(v, g.dtype) for v in self.values)
        return jnp.where(g >= 0, high, low)

    def operator(self, a: Float[Array, " 1 *grid"]) -> Diffusion:
        """The discrete operator A of A u = load(), for `solve(problem.operator(a), problem.load(), CG(...))`."""
        self._check(a, 1, "a")
        return Diffusion.from_coefficient(self.grid, a)

    def load(self, *, dtype: Any = None) -> Float[Array, " 1 *grid"]:
        """The discrete right-hand side, in JAX's default floating type unless `dtype` says otherwise."""
        return Diffusion(self.grid).load(self._source(jnp.result_type(float) if dtype is None else dtype))

    def solve(self, a: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        smooth = self.coefficient != "two_phase"
        return solve_diffusion(self.grid, a, self._source(a.dtype), rtol=self.rtol, smooth=smooth).value

    def residual(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(u, 1, "u")
        return self.load(dtype=u.dtype) - self.operator(a)(jnp.asarray(u))

    def reference(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        return self.load(dtype=u.dtype)

    def _source(self, dtype: Any) -> Float[Array, " 1 *grid"]:
        grid = self.grid
        if not callable(self.forcing):
            return jnp.full((1, *grid.shape), self.forcing, dtype)
        f = jnp.broadcast_to(jnp.asarray(self.forcing(grid.coordinates()), dtype), (1, *grid.shape))
        if not Diffusion(grid).singular:
            return f
        weights = jnp.asarray(grid.weights() / math.prod(grid.domain_extent), dtype)
        return f - jnp.sum(weights * f) / jnp.sum(weights)


def _trigonometric(key: Array, grid: Grid) -> Float[Array, " 1 *grid"]:
    powers = 2.0 ** np.arange(SCALES)
    w = jax.random.uniform(key, (SCALES, 1, 1), minval=1.0, maxval=1.5) * powers[:, None, None]
    x, y = (2 * c / L - 1 for c, L in zip(grid.coordinates(), grid.domain_extent, strict=True))
    factors = (1 + jnp.cos(w * np.pi * (x + y)) / 2) * (1 + jnp.sin(w * np.pi * (y - 3 * x)) / 2)
    return jnp.prod(factors, 0)[None]


def solve_diffusion(
    grid: Grid,
    a: Float[Array, " 1 *grid"],
    f: Float[Array, " 1 *grid"],
    *,
    rtol: float | None = None,
    smooth: bool = False,
) -> Solution:
    """Solves -div(a grad u) = f on a grid, with the report of the solver.

    Finite volumes with harmonic means at the faces, and conjugate gradients preconditioned by
    `FastPoisson`: the number of steps depends on the contrast of `a`, not on the grid. Differentiable in
    `a` and `f`; any boundary. Without a Dirichlet end, u has zero mean, and a source whose mean is not zero is
    reported as incompatible.

    **Arguments:**

    - `grid`: where the fields live.
    - `a`: the coefficient, positive, `(*grid,)` or `(1, *grid)`.
    - `f`: the source at the points, `(*grid,)` or `(channels, *grid)`; the value has its shape.
    - `rtol`: relative true residual to reach; `None` means 1e-10 in float64. In float32 rounding of u alone
      leaves a residual that grows with the square of the points, so `None` means the larger of 1e-6 and
      n^2 epsilon / 4 with n the most points along an axis (1.2e-4 at 64, 5e-3 at 421). The relative error of u
      against float64 is then, up to 421 points: of two phases of contrast 4 and 100 at most 3e-6; of log-normal media
      2e-5 with `smooth`, 6e-5 without; but of the smooth media of `NodalDarcy`, which reach down to 0.1, up to 2e-5 at
      64, 2e-4 at 224 and 7e-4 at 421. With 1e-5 in place of `None` the steps go on until rounding ends them: at most
      2e-7 in these smooth media, though the report may then say "not converged".
    - `smooth`: whether `a` has no jumps; then the preconditioner is scaled by a^(-1/2) on both sides. Steps
      to 1e-10 at 211^2, plain against scaled: log-normal of contrast 8, 34 and 12; of contrast 3300, 730 and
      25; but two phases of contrast 4, 23 and 99 (Concus and Golub 1973 for the scaling).

    **Raises:** `ValueError` on shapes or dtypes that do not fit.
    """
    smooth = flag(smooth, "smooth")
    operator = Diffusion.from_coefficient(grid, a)
    rhs = operator.load(jnp.asarray(f))
    if rtol is None:
        epsilon = float(jnp.finfo(rhs.dtype).eps)
        rtol = 1e-10 if rhs.dtype == jnp.float64 else max(1e-6, max(grid.num_points) ** 2 * epsilon / 4)
    # Single precision in the preconditioner alone leaves the steps and the accuracy as they are, at half the cost.
    inverse = FastPoisson(grid, dtype="float32")
    preconditioner = Scaled(inverse, jnp.reshape(a, grid.shape) ** -0.5) if smooth else inverse
    return solve(operator, rhs, CG(rtol, preconditioner=preconditioner))


def check_phases(values: Any) -> tuple[float, float]:
    """Two positive permeabilities as Python floats, or a `ValueError`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise ValueError(f"values: expected two permeabilities, got {values!r}; give a pair such as (12.0, 3.0).")
    return check_number(values[0], "values", above=0.0), check_number(values[1], "values", above=0.0)


def check_forcing(forcing: Any, grid: Grid) -> Any:
    """A number but 0, or a function of the grid's coordinates, for which the grid's equation has a solution."""
    singular = Diffusion(grid).singular
    if not callable(forcing):
        number = check_number(forcing, "forcing")
        if singular and number != 0:
            raise ValueError(
                f"forcing: without a Dirichlet end the source must have zero mean, got the constant {number}; give a "
                "function of the coordinates, or make one end of an axis Dirichlet."
            )
        if number == 0:
            raise ValueError("forcing: with 0 the pressure is zero for every permeability; give another number.")
        return number
    shape = jnp.shape(forcing(grid.coordinates()))
    if shape not in ((), grid.shape, (1, *grid.shape)):
        raise ValueError(
            f"forcing: expected a function from (ndim, *grid) to {grid.shape}, got values of shape {shape}; "
            "use x[0], x[1], ... inside it."
        )
    return forcing
