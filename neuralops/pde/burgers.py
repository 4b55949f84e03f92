"""Burgers' equation on a periodic line: from the function at time 0 to the function at a later time."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from neuralops.arguments import check_number, flag
from neuralops.grid import Grid, resample
from neuralops.pde.integrating_factor import frames, l2, to_complex, to_pair, tolerance
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes


class Burgers(Problem):
    """Solution operator of u_t + (u^2/2)_x = viscosity u_xx, periodic in one dimension.

    Input: u at time 0, drawn from N(0, scale^2 (-Laplacian + tau^2)^(-alpha)) with periodic boundary; by
    default the FNO line's N(0, 625 (-Laplacian + 25)^(-2)) (Li et al. 2021, arXiv 2010.08895, section 5.1),
    constant mode included. Output: u at `final_time`. Both have shape `(1, num_points)` on periodic nodes.

    Space: Fourier modes on the grid's own points, in conservation form; products are formed on half as
    many points again, which keeps them free of aliasing (the 3/2 rule). Time: the viscous term is
    integrated exactly by an integrating factor inside each step (Lawson 1967), the rest by the fifth-order
    pair of Tsitouras under diffrax's step control, so stiffness limits neither the step nor the points.
    The spatial error falls faster than any power of the spacing once the thinnest front, about
    4 viscosity / (jump of u) wide, is resolved; before that the solution rings, and the residual shows it.

    On a unit length viscosity 0.1 leaves little but the mean by time 1, since the slowest wave decays by
    exp(-0.1 (2 pi)^2) = 0.02: an easy problem. Fronts need 0.01 or less.

    `residual(a, u)` is u minus an independent integration of the same input function: twice the points,
    the pair of Dormand and Prince, a tenth of the tolerance (the same tolerance in float32). It estimates
    the error in u, and `relative_residual` divides it by u.

    **Arguments:**

    - `num_points`: points on the line, an integer, at least 4.
    - `domain_extent`: its length.
    - `viscosity`: in units of length^2 / time, above 0.
    - `final_time`: when the output is taken, above 0.
    - `alpha`, `tau`, `scale`, `zero_mean`, `num_modes`: as in `GaussianRandomField`; `scale=None` means
      tau^alpha, which is 25 by default. `zero_mean=True` is the variant without the constant mode.
    - `rtol`: error allowed per step relative to the initial root mean square; `None` means 1e-10 in
      float64 and 1e-6 in float32, where rounding forbids much less.

    A run that needs more than 2^18 steps, or loses its finiteness, returns NaN.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("initial_velocity",)
    output_fields: ClassVar[tuple[str, ...]] = ("velocity",)

    num_points: int = eqx.field(static=True)
    domain_extent: float = eqx.field(static=True)
    viscosity: float = eqx.field(static=True)
    final_time: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    zero_mean: bool = eqx.field(static=True)
    num_modes: int | None = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int,
        *,
        domain_extent: float = 1.0,
        viscosity: float = 0.1,
        final_time: float = 1.0,
        alpha: float = 2.0,
        tau: float = 5.0,
        scale: float | None = None,
        zero_mean: bool = False,
        num_modes: int | None = None,
        rtol: float | None = None,
    ) -> None:
        points = Grid(num_points).num_points  # type: ignore[arg-type]  # an integer, or a tuple of one
        if len(points) != 1 or points[0] < 4:
            raise ValueError(
                f"num_points: Burgers lives on one periodic axis of at least 4 points, got {num_points!r}; "
                "give one integer such as 1024."
            )
        self.num_points = points[0]
        self.domain_extent = check_number(domain_extent, "domain_extent", above=0.0)
        self.viscosity = check_number(viscosity, "viscosity", above=0.0)
        self.final_time = check_number(final_time, "final_time", above=0.0)
        self.alpha = check_number(alpha, "alpha", above=0.5)
        self.tau = check_number(tau, "tau", at_least=0.0)
        self.scale = None if scale is None else check_number(scale, "scale", above=0.0)
        self.zero_mean = flag(zero_mean, "zero_mean")
        self.num_modes = check_num_modes(num_modes)  # type: ignore[assignment]
        self.rtol = None if rtol is None else check_number(rtol, "rtol", above=0.0)
        if self.tau == 0.0 and (scale is None or not zero_mean):
            raise ValueError(
                "tau: with tau=0 the law needs a scale and no constant mode; give scale and zero_mean=True."
            )

    @property
    def grid(self) -> Grid:
        return Grid((self.num_points,), (self.domain_extent,), ("periodic",), ("node",))

    @property
    def initial_law(self) -> GaussianRandomField:
        """The law of u at time 0."""
        return GaussianRandomField(
            self.alpha,
            self.tau,
            boundary="periodic",
            scale=self.tau**self.alpha if self.scale is None else self.scale,
            zero_mean=self.zero_mean,
            num_modes=self.num_modes,
        )

    def sample(self, key: Array) -> Float[Array, "1 n"]:
        return self.initial_law.sample(key, self.grid)

    def solve(self, a: Float[Array, "1 n"]) -> Float[Array, "1 n"]:
        self._check(a, 1, "a")
        a = jnp.asarray(a)
        return self._integrate(a, "tsit5", tolerance(self.rtol, a.dtype))

    def residual(self, a: Float[Array, "1 n"], u: Float[Array, "1 n"]) -> Float[Array, "1 n"]:
        self._check(a, 1, "a")
        self._check(u, 1, "u")
        a, u = jnp.asarray(a), jnp.asarray(u)
        fine = resample(a, self.grid, self.grid.with_points(2 * self.num_points))
        rtol = tolerance(self.rtol, a.dtype)
        refined = self._integrate(fine, "dopri5", rtol if a.dtype == jnp.float32 else rtol / 10)
        return u - refined[:, ::2]

    def reference(self, a: Float[Array, "1 n"], u: Float[Array, "1 n"]) -> Float[Array, "1 n"]:
        return u

    def _integrate(self, u: Float[Array, "1 n"], scheme: str, rtol: float) -> Float[Array, "1 n"]:
        return integrate(u[0], (self.final_time,), self.domain_extent, self.viscosity, scheme, rtol)


def integrate(
    u: Float[Array, " n"], times: tuple[float, ...], domain_extent: float, viscosity: float, scheme: str, rtol: float
) -> Float[Array, "times n"]:
    """The periodic solution at `times`, increasing and above 0, from u at time 0 on the points that `u` has.

    `scheme` is `"tsit5"` or `"dopri5"`, `rtol` the error allowed per step relative to the initial root mean square.
    NaN from where a run fails.
    """
    n, dtype = u.shape[-1], u.dtype
    k = 2 * np.pi / domain_extent * np.arange(n // 2 + 1)
    # The last mode of an even grid has no sine, hence no derivative there, and counts once, not twice.
    last = np.where((np.arange(k.size) == n // 2) & (n % 2 == 0), 0.5, 1.0)
    decay = jnp.asarray(viscosity * k**2, dtype)
    flux_factor = jnp.asarray(np.where(last < 1, 0.0, -0.5 * k), dtype)
    y = to_pair(jnp.fft.rfft(u, norm="forward") * jnp.asarray(last, dtype))
    size = l2(y)
    ys, succeeded = frames(
        _advection, y, times, decay, flux_factor,
        size=size, first_step=0.01 * domain_extent / size, scheme=scheme, rtol=rtol,
    )  # fmt: skip
    modes = jax.lax.complex(ys[:, 0], ys[:, 1]) / jnp.asarray(last, dtype)
    v = jnp.fft.irfft(modes, n=n, norm="forward")
    return jnp.where(succeeded[:, None], v, jnp.nan).astype(dtype)


def _advection(t: Any, y: Float[Array, "2 modes"], args: tuple[Array, Array]) -> Float[Array, "2 modes"]:
    """Fourier coefficients of -(u^2/2)_x, exact for the modes kept: the square is taken on 3/2 the points."""
    _, flux_factor = args
    modes = y.shape[-1]
    # Above 3 (modes - 1) nothing aliases; lengths with a large prime factor would cost several times more.
    u = jnp.fft.irfft(to_complex(y), n=next_fast_len(3 * modes - 2, real=True), norm="forward")
    square = jnp.fft.rfft(u * u, norm="forward")[:modes]
    return jnp.stack([-flux_factor * square.imag, flux_factor * square.real])
