"""Darcy flow between fields on a closed grid of nodes, whose rows at the walls belong to the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.grid import Grid, interpolate
from neuralops.pde.darcy import check_forcing, check_phases, solve_diffusion
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes

MEDIA = ("smooth", "two_phase")
STENCIL = 4  # points of a cubic


class NodalDarcy(Problem):
    """Solution operator of -div(a grad u) = forcing on a box, u = 0 at the walls, in one or two dimensions.

    Input: the coefficient a at the nodes of a closed grid, `(1, *grid)`. Output: u at the same nodes, `(1, *grid)`,
    zero in the rows at the walls. The grid is `Grid(num_points, domain_extent, "neumann", "node")`, the one kind that
    holds both ends: its word says what modal transforms may assume of the coefficient, not the condition on u.

    What happens between the nodes is part of the operator, so that it is a function of the nodal values alone.
    `medium` says it together with the law of a:

    - `"smooth"`: the cubic through the four nearest nodes, per axis, of

          a = 2.1 + sin(w_1 x_1 / L_1) + cos(w_2 x_2 / L_2),    w_i uniform in `frequencies`,

      with the sides L_i (in one dimension without the cosine). This is the family of the DGNO line (Zang and
      Koutsourelakis 2025, arXiv 2502.06250) as far as it is known to us; the range is our own. a is at least 0.1 for
      every w; from [pi, 2 pi] each term makes between half a wave and a whole one, which 29 nodes cut into 28
      spacings or more: cubics in place of the formula change u by at most 3.4e-5 of its size. The mean u of 100 draws
      misses the others by 22 % (by 15 % scaled to the size of each), so u is neither always the same nor rough.
      `frequencies=(2 * math.pi, 3 * math.pi)` shifts the law, for tests off the training distribution.
    - `"two_phase"`: the value of the nearest node, constant on the cells around the nodes; `values[0]` where a Gaussian
      random field with Neumann boundary and no constant mode is at least 0, `values[1]` elsewhere.

    Solved by `solve_diffusion` on 2 (n - 1) `refine` cells per axis, which the jumps of two phases do not cut, and
    read at the nodes, corners of these cells, by cubics. Relative error in u at 29 x 29 nodes with `refine` 2 and 4,
    the worst of four draws against 16: smooth 1.8e-4 and 4.4e-5 (order 2.0); two phases 10 and 5: 4.6e-4 and
    1.3e-4 (order about 1.8, as four cells of two phases may meet in a corner). The default takes about 10 ms a
    sample on two cores, in float64.

    `residual(a, u)` is u minus the solution of the same equation on cells of half the width: three quarters of the
    error of `solve`, and the error in any u that is further off. `relative_residual` divides it by u; over 100
    draws of the defaults it was at most 1.2e-4 (smooth) and 1.6e-4 (two phases).

    **Arguments:**

    - `num_points`: nodes per axis, walls included, at least 4; an integer is one axis.
    - `domain_extent`: side lengths.
    - `medium`: `"smooth"` or `"two_phase"`.
    - `frequencies`: the least and the largest w, in radians per side (smooth).
    - `values`: the two coefficients, above 0 (two-phase).
    - `alpha`, `tau`, `num_modes`: the law of the Gaussian field, as in `GaussianRandomField` (two-phase).
    - `forcing`: a number, or a function from the coordinates of the cells, NumPy float64 `(ndim, *cells)`, to the
      source there `(*cells,)`.
    - `refine`: cells from a node to the middle between two, at least 2.
    - `rtol`: the relative error meant for u; `data.generate` refuses a label whose estimate is ten times larger.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("coefficient",)
    output_fields: ClassVar[tuple[str, ...]] = ("solution",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    medium: str = eqx.field(static=True)
    frequencies: tuple[float, float] = eqx.field(static=True)
    values: tuple[float, float] = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)
    forcing: float | Callable[[Any], Any] = eqx.field(static=True)
    refine: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int] = (29, 29),
        *,
        domain_extent: float | Sequence[float] = 1.0,
        medium: str = "smooth",
        frequencies: Sequence[float] = (math.pi, 2 * math.pi),
        values: Sequence[float] = (10.0, 5.0),
        alpha: float = 2.0,
        tau: float = 3.0,
        num_modes: int | Sequence[int] | None = None,
        forcing: float | Callable[[Any], Any] = 10.0,
        refine: int = 4,
        rtol: float = 1e-4,
    ) -> None:
        grid = Grid(num_points, domain_extent, "neumann", "node")  # type: ignore[arg-type]
        if grid.ndim > 2 or min(grid.num_points) < STENCIL:
            raise ValueError(
                f"num_points: expected one or two axes of at least {STENCIL} nodes, got {grid.num_points}; give counts "
                "such as (29, 29)."
            )
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        if medium not in MEDIA:
            raise ValueError(f"medium: expected one of {MEDIA}, got {medium!r}; use one of these words.")
        self.medium = medium
        if not isinstance(frequencies, Sequence) or isinstance(frequencies, str) or len(frequencies) != 2:
            raise ValueError(
                f"frequencies: expected the least and the largest, got {frequencies!r}; give a pair such as (3.0, 6.0)."
            )
        least = check_number(frequencies[0], "frequencies", at_least=0.0)
        self.frequencies = (least, check_number(frequencies[1], "frequencies", at_least=least))
        self.values = check_phases(values)
        self.alpha = check_number(alpha, "alpha", above=grid.ndim / 2)
        self.tau = check_number(tau, "tau", above=0.0)
        self.num_modes = check_num_modes(num_modes, grid.ndim)
        self.refine = count(refine, "refine", least=2, hint="give 2 or more; 4 is common.")
        self.forcing = check_forcing(forcing, self._cells(self.refine))
        self.rtol = check_number(rtol, "rtol", above=0.0)

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent, "neumann", "node")  # type: ignore[arg-type]

    @property
    def field_law(self) -> GaussianRandomField:
        """The law of the Gaussian field that two phases are made from."""
        return GaussianRandomField(self.alpha, self.tau, boundary="neumann", num_modes=self.num_modes)

    def sample(self, key: Array) -> Float[Array, " 1 *grid"]:
        if self.medium == "two_phase":
            g = self.field_law.sample(key, self.grid)
            high, low = (jnp.asarray(v, g.dtype) for v in self.values)
            return jnp.where(g >= 0, high, low)
        least, largest = self.frequencies
        w = jax.random.uniform(key, (self.grid.ndim,), minval=least, maxval=largest)
        waves = [
            wave(w[i] * x / L)
            for i, (wave, x, L) in enumerate(
                zip((jnp.sin, jnp.cos), self.grid.coordinates(), self.domain_extent, strict=False)
            )
        ]
        return (2.1 + sum(waves[1:], waves[0]))[None]

    def solve(self, a: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        return self._solve(jnp.asarray(a), self.refine)

    def residual(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        self._check(u, 1, "u")
        return jnp.asarray(u) - self._solve(jnp.asarray(a), 2 * self.refine)

    def reference(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        return u

    def _cells(self, refine: int) -> Grid:
        points = tuple(2 * (n - 1) * refine for n in self.num_points)
        return Grid(points, self.domain_extent, "dirichlet", "cell")  # type: ignore[arg-type]

    def _solve(self, a: Float[Array, " 1 *grid"], refine: int) -> Float[Array, " 1 *grid"]:
        cells, smooth = self._cells(refine), self.medium == "smooth"
        for axis, n in enumerate(self.num_points, 1):
            if smooth:
                a = _along(_cubic_matrix(n, (np.arange(2 * (n - 1) * refine) + 0.5) / (2 * refine)), a, axis)
            else:
                a = jnp.repeat(jnp.repeat(a, 2, axis), refine, axis)  # every node to both sides, then cut at the walls
                a = jax.lax.slice_in_dim(a, refine, a.shape[axis] - refine, axis=axis)
        f = self.forcing(cells.coordinates()) if callable(self.forcing) else self.forcing
        f = jnp.broadcast_to(jnp.asarray(f, a.dtype), a.shape)
        # Single precision goes on until rounding ends it: the looser default of `solve_diffusion` costs digits of u.
        rtol = 1e-10 if a.dtype == jnp.float64 else 1e-5
        u = solve_diffusion(cells, a, f, rtol=rtol, smooth=smooth).value
        for axis, n in enumerate(self.num_points, 1):
            middles = 2 * refine * np.arange(1, n - 1) - 0.5  # the inner nodes, counted in cells from the first centre
            u = _along(_cubic_matrix(u.shape[axis], middles), u, axis)
        return jnp.pad(u, [(0, 0)] + [(1, 1)] * self.grid.ndim)


def _along(matrix: Array, u: Array, axis: int) -> Array:
    product = jnp.tensordot(matrix.astype(u.dtype), u, (1, axis), precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def _cubic_matrix(num_points: int, where: np.ndarray) -> Array:
    """From values at 0, 1, ..., n - 1 to the cubics through the four nearest of them, `(len(where), num_points)`."""
    line = Grid((num_points,), (num_points - 1.0,), ("neumann",), ("node",))
    return interpolate(jnp.eye(num_points), line, jnp.asarray(where, jnp.result_type(float))[None]).T
