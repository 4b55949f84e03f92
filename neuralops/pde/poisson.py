"""Poisson's equation on a box: from a random source to its potential, solved directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import Grid
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes
from neuralops.solvers import Diffusion, FastPoisson


class Poisson(Problem):
    """Solution operator of -Laplacian u = f on a box, in one to three dimensions and for each boundary.

    Input: the source f, `(1, *grid)`, a Gaussian random field with the boundary of the solution. Output: u,
    `(1, *grid)`, with homogeneous conditions. The finite-volume discretisation (`Diffusion`) has second
    order, and `FastPoisson` inverts it exactly, up to rounding.

    Where no axis has a Dirichlet end, u is determined up to a constant and exists only for a source of zero
    mean. The rule: the mean of f over the box is subtracted first, and u has zero mean; both means use the
    grid's quadrature weights.

    `residual(f, u)` is the discrete right-hand side minus the operator on u, both per control volume
    (`Diffusion.load`). In float32 rounding of u alone leaves a relative residual that grows with the square of
    the points (1e-4 at 64^2, 5e-3 at 421^2), while u stays right to about 3e-7.

    **Arguments:**

    - `num_points`, `domain_extent`, `boundary`, `centering`: the grid, as in `Grid`; an integer is one axis.
    - `alpha`, `tau`, `num_modes`: the law of f, as in `GaussianRandomField`, without the constant mode.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("source",)
    output_fields: ClassVar[tuple[str, ...]] = ("potential",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int],
        *,
        domain_extent: float | Sequence[float] = 1.0,
        boundary: Any = "dirichlet",
        centering: str | Sequence[str] = "cell",
        alpha: float = 2.0,
        tau: float = 3.0,
        num_modes: int | Sequence[int] | None = None,
    ) -> None:
        grid = Grid(num_points, domain_extent, boundary, centering)  # type: ignore[arg-type]
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.boundary, self.centering = grid.boundary, grid.centering
        self.alpha = check_number(alpha, "alpha", above=grid.ndim / 2)
        self.tau = check_number(tau, "tau", above=0.0)
        self.num_modes = check_num_modes(num_modes, grid.ndim)

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent, self.boundary, self.centering)

    @property
    def source_law(self) -> GaussianRandomField:
        """The law of f."""
        return GaussianRandomField(self.alpha, self.tau, boundary=self.boundary, num_modes=self.num_modes)

    @property
    def operator(self) -> Diffusion:
        """The discrete operator A of A u = load(f), for `solve`."""
        return Diffusion(self.grid)

    def load(self, f: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        """The discrete right-hand side of a source, its mean removed where the operator is singular."""
        self._check(f, 1, "f")
        return self.operator.to_range(self.operator.load(f))

    def sample(self, key: Array) -> Float[Array, " 1 *grid"]:
        return self.source_law.sample(key, self.grid)

    def solve(self, a: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        return FastPoisson(self.grid)(self.load(a))

    def residual(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(u, 1, "u")
        return self.load(a) - self.operator(jnp.asarray(u))

    def reference(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        return self.load(a)
