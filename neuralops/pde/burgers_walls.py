"""Burgers' equation between two walls: from the function at time 0 to the function at many times."""

from __future__ import annotations

import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.grid import Grid, resample
from neuralops.pde.burgers import integrate
from neuralops.pde.integrating_factor import tolerance
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes


class BurgersWalls(Problem):
    """Solution operator of u_t + u u_x = viscosity u_xx between walls at which u = 0, in one dimension.

    Input: u at time 0 on the nodes of a closed line, both walls included, `(1, num_points)`. Output: u at `num_times`
    equidistant times from 0 to `final_time` on the same nodes, one channel a time, `(num_times, num_points)`; the first
    is the input. `query` holds the coordinates of these numbers, for operators that answer at points (x, t).

    The defaults are the problem of the DGNO line (Zang and Koutsourelakis 2025, arXiv 2502.06250): viscosity 0.1/pi, a
    line of length 2, 128 x 101 numbers. Their line is [-1, 1], ours [0, 2] as every `Grid` begins at 0; the law
    of their initial functions is not published, ours is N(0, scale^2 (-Laplacian + tau^2)^(-alpha)) with Dirichlet
    boundary. Values in the rows at the walls are taken for 0.

    u -> -u, x -> -x leaves the equation as it is, so the odd reflection at the walls makes it the periodic problem
    of twice the length, which `Burgers` solves: the function is the sine series through the inner nodes, integrated
    with `refine` times the nodes. The spatial error falls faster than any power of the spacing: over six draws of the
    defaults the residual below is at most 5e-7 with `refine=1` and 7e-12, that of the steps in time, with 2. A sample
    takes about 0.1 s on two cores in float64, 0.02 s in float32 in a batch of 16.

    `residual(a, u)` is u minus an independent integration of the same function, as in `Burgers`: twice the points,
    another pair, a tenth of the tolerance. `relative_residual` divides it by u, over all times.

    **Arguments:**

    - `num_points`: nodes on the line, walls included, an integer, at least 4.
    - `domain_extent`: its length.
    - `viscosity`: in units of length^2 / time, above 0.
    - `final_time`: the last time, above 0.
    - `num_times`: how many times, the first and the last included, at least 2.
    - `alpha`, `tau`, `scale`, `num_modes`: as in `GaussianRandomField`; `scale=None` means twice tau^(alpha - 1/2), by
      default a standard deviation of 0.8 in the middle.
    - `refine`: spacings of the integration in one of the nodes.
    - `rtol`: error allowed per step relative to the initial root mean square; `None` means 1e-10 in float64 and 1e-6
      in float32.

    A run that needs more than 2^18 steps, or loses its finiteness, returns NaN.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("initial_velocity",)

    num_points: int = eqx.field(static=True)
    domain_extent: float = eqx.field(static=True)
    viscosity: float = eqx.field(static=True)
    final_time: float = eqx.field(static=True)
    num_times: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    num_modes: int | None = eqx.field(static=True)
    refine: int = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int = 128,
        *,
        domain_extent: float = 2.0,
        viscosity: float = 0.1 / math.pi,
        final_time: float = 1.0,
        num_times: int = 101,
        alpha: float = 4.0,
        tau: float = 5.0,
        scale: float | None = None,
        num_modes: int | None = None,
        refine: int = 2,
        rtol: float | None = None,
    ) -> None:
        points = Grid(num_points).num_points  # type: ignore[arg-type]  # an integer, or a tuple of one
        if len(points) != 1 or points[0] < 4:
            raise ValueError(
                f"num_points: expected one axis of at least 4 nodes, got {num_points!r}; give one integer such as 128."
            )
        self.num_points = points[0]
        self.domain_extent = check_number(domain_extent, "domain_extent", above=0.0)
        self.viscosity = check_number(viscosity, "viscosity", above=0.0)
        self.final_time = check_number(final_time, "final_time", above=0.0)
        self.num_times = count(num_times, "num_times", least=2)
        self.alpha = check_number(alpha, "alpha", above=0.5)
        self.tau = check_number(tau, "tau", above=0.0)
        self.scale = None if scale is None else check_number(scale, "scale", above=0.0)
        self.num_modes = check_num_modes(num_modes)  # type: ignore[assignment]
        self.refine = count(refine, "refine")
        self.rtol = None if rtol is None else check_number(rtol, "rtol", above=0.0)

    @property
    def output_fields(self) -> tuple[str, ...]:  # type: ignore[override]  # as many as there are times
        return tuple(f"velocity_{i}" for i in range(self.num_times))

    @property
    def grid(self) -> Grid:
        return Grid((self.num_points,), (self.domain_extent,), ("neumann",), ("node",))

    @property
    def times(self) -> np.ndarray:
        """When the outputs are taken, `(num_times,)`, as float64 NumPy."""
        return np.linspace(0.0, self.final_time, self.num_times)

    @property
    def query(self) -> np.ndarray:
        """x and t of every number of a solution, `(2, num_times, num_points)`, as float64 NumPy."""
        return np.stack(np.meshgrid(self.grid.points(0), self.times))

    @property
    def initial_law(self) -> GaussianRandomField:
        """The law of u at time 0."""
        scale = 2 * self.tau ** (self.alpha - 0.5) if self.scale is None else self.scale
        return GaussianRandomField(self.alpha, self.tau, boundary="dirichlet", scale=scale, num_modes=self.num_modes)

    def sample(self, key: Array) -> Float[Array, "1 n"]:
        return self.initial_law.sample(key, self.grid)

    def solve(self, a: Float[Array, "1 n"]) -> Float[Array, "times n"]:
        self._check(a, 1, "a")
        a = jnp.asarray(a)
        return self._integrate(a, self.refine, "tsit5", tolerance(self.rtol, a.dtype))

    def residual(self, a: Float[Array, "1 n"], u: Float[Array, "times n"]) -> Float[Array, "times n"]:
        self._check(a, 1, "a")
        self._check(u, self.num_times, "u")
        a, rtol = jnp.asarray(a), tolerance(self.rtol, jnp.asarray(a).dtype)
        rtol = rtol if a.dtype == jnp.float32 else rtol / 10
        return jnp.asarray(u) - self._integrate(a, 2 * self.refine, "dopri5", rtol)

    def reference(self, a: Float[Array, "1 n"], u: Float[Array, "times n"]) -> Float[Array, "times n"]:
        return u

    def _integrate(self, a: Float[Array, "1 n"], refine: int, scheme: str, rtol: float) -> Float[Array, "times n"]:
        n = self.num_points
        inner = Grid((n - 2,), (self.domain_extent,), ("dirichlet",), ("node",))
        u = resample(a[0, 1:-1], inner, inner.with_points(refine * (n - 1) - 1))
        wall = jnp.zeros(1, u.dtype)
        period = jnp.concatenate([wall, u, wall, -u[::-1]])  # odd about both walls
        v = integrate(period, tuple(self.times[1:].tolist()), 2 * self.domain_extent, self.viscosity, scheme, rtol)
        inside = jnp.concatenate([period[None], v])[:, refine : refine * (n - 1) : refine]
        walls = 0 * inside[:, :1]  # NaN where the run has failed
        return jnp.concatenate([walls, inside, walls], 1)
