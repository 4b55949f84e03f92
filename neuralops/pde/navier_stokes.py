"""Two-dimensional incompressible flow on a torus: from the vorticity at time 0 to the vorticity at many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.fft import next_fast_len

from neuralops.arguments import check_number, count
from neuralops.grid import Grid, resample
from neuralops.operator import check_field
from neuralops.pde.integrating_factor import frames, l2, to_complex, to_pair, tolerance
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes


class NavierStokes(Problem):
    """Solution operator of w_t + u . grad w = viscosity laplace w + f, periodic in two dimensions.

    w is the vorticity, u = (psi_y, -psi_x) the velocity, -laplace psi = w. Input: w at time 0, `(1, *grid)`, drawn from
    N(0, scale^2 (-Laplacian + tau^2)^(-alpha)) without constant mode. Output: w at `num_times` equidistant times from 0
    to `final_time`, one channel a time, `(num_times, *grid)`; the first is the input. With the force
    f = forcing (sin(theta) + cos(theta)), theta = 2 pi (x/X + y/Y) on a box of extent X x Y, this is the problem of the
    FNO line (Li et al. 2021, arXiv 2010.08895, section 5.3), which takes viscosity 1e-3, 1e-4 and 1e-5 up to times 50,
    30 and 20.

    Space: a Galerkin method with all Fourier modes of the grid's own points, integrated with `refine` times the points.
    Products are formed on half as many points again, which keeps them free of aliasing (the 3/2 rule), so without
    viscosity and force energy and enstrophy are those of the input but for the error of the steps. Time: viscosity is
    integrated exactly by an integrating factor inside each step (Lawson 1967), the rest by the fifth-order pair of
    Tsitouras under diffrax's step control. The mean of w moves nothing and stays.

    The spatial error falls faster than any power of the spacing once the thinnest filaments are resolved. Before that
    they ring, and the residual shows it: `residual(a, u)` is u minus an independent integration of the same function
    with twice the points, the pair of Dormand and Prince and a tenth of the tolerance (the same in float32).
    `relative_residual` divides it by u, over all times.

    **Arguments:**

    - `num_points`: points per axis, at least 4.
    - `domain_extent`: side lengths, one for both axes or one each.
    - `viscosity`: in units of length^2 / time, at least 0.
    - `forcing`: amplitude of the force, in units of 1 / time^2; 0 lets the flow decay.
    - `final_time`: the last time, above 0.
    - `num_times`: how many times, the first and the last included, at least 2.
    - `alpha`, `tau`, `scale`, `num_modes`: as in `GaussianRandomField`; `scale=None` means tau^((alpha - 1)/2), the
      7^(3/2) in the covariance of the paper. The generator that its authors published draws with `scale=tau**1.5`,
      which is 4.3 times as large.
    - `refine`: spacings of the integration in one of the grid.
    - `rtol`: error allowed per step relative to the size of w: its initial root mean square plus that of what the force
      adds; `None` means 1e-10 in float64 and 1e-6 in float32.

    A run that needs more than 2^18 steps from one time to the next, or loses its finiteness, returns NaN from there on.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("initial_vorticity",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    viscosity: float = eqx.field(static=True)
    forcing: float = eqx.field(static=True)
    final_time: float = eqx.field(static=True)
    num_times: int = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)
    refine: int = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: Sequence[int] = (64, 64),
        *,
        domain_extent: float | Sequence[float] = 1.0,
        viscosity: float = 1e-3,
        forcing: float = 0.1,
        final_time: float = 50.0,
        num_times: int = 51,
        alpha: float = 2.5,
        tau: float = 7.0,
        scale: float | None = None,
        num_modes: int | Sequence[int] | None = None,
        refine: int = 1,
        rtol: float | None = None,
    ) -> None:
        grid = Grid(num_points, domain_extent)  # type: ignore[arg-type]
        if grid.ndim != 2 or min(grid.num_points) < 4:
            raise ValueError(
                f"num_points: expected two axes of at least 4 points, got {num_points!r}; give two counts such as "
                "(64, 64)."
            )
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.viscosity = check_number(viscosity, "viscosity", at_least=0.0)
        self.forcing = check_number(forcing, "forcing")
        self.final_time = check_number(final_time, "final_time", above=0.0)
        self.num_times = count(num_times, "num_times", least=2)
        self.alpha = check_number(alpha, "alpha", above=1.0)
        self.tau = check_number(tau, "tau", at_least=0.0)
        self.scale = None if scale is None else check_number(scale, "scale", above=0.0)
        self.num_modes = check_num_modes(num_modes, 2)
        self.refine = count(refine, "refine")
        self.rtol = None if rtol is None else check_number(rtol, "rtol", above=0.0)
        if self.tau == 0.0 and scale is None:
            raise ValueError("scale: with tau=0 the default scale tau^((alpha - 1)/2) is degenerate; give scale=1.0.")

    @property
    def output_fields(self) -> tuple[str, ...]:  # type: ignore[override]  # as many as there are times
        return tuple(f"vorticity_{i}" for i in range(self.num_times))

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent)

    @property
    def times(self) -> np.ndarray:
        """When the outputs are taken, `(num_times,)`, as float64 NumPy."""
        return np.linspace(0.0, self.final_time, self.num_times)

    @property
    def initial_law(self) -> GaussianRandomField:
        """The law of w at time 0."""
        scale = self.tau ** ((self.alpha - 1) / 2) if self.scale is None else self.scale
        return GaussianRandomField(self.alpha, self.tau, boundary="periodic", scale=scale, num_modes=self.num_modes)

    def force(self) -> Float[np.ndarray, "1 x y"]:
        """f on the grid, as float64 NumPy."""
        x, y = self.grid.coordinates() / np.reshape(self.domain_extent, (2, 1, 1))
        theta = 2 * np.pi * (x + y)
        return self.forcing * (np.sin(theta) + np.cos(theta))[None]

    def sample(self, key: Array) -> Float[Array, "1 x y"]:
        return self.initial_law.sample(key, self.grid)

    def solve(self, a: Float[Array, "1 x y"]) -> Float[Array, "times x y"]:
        self._check(a, 1, "a")
        a = jnp.asarray(a)
        return self._integrate(a, self.refine, "tsit5", tolerance(self.rtol, a.dtype))

    def residual(self, a: Float[Array, "1 x y"], u: Float[Array, "times x y"]) -> Float[Array, "times x y"]:
        self._check(a, 1, "a")
        self._check(u, self.num_times, "u")
        a, rtol = jnp.asarray(a), tolerance(self.rtol, jnp.asarray(a).dtype)
        rtol = rtol if a.dtype == jnp.float32 else rtol / 10
        return jnp.asarray(u) - self._integrate(a, 2 * self.refine, "dopri5", rtol)

    def reference(self, a: Float[Array, "1 x y"], u: Float[Array, "times x y"]) -> Float[Array, "times x y"]:
        return u

    def _integrate(self, a: Float[Array, "1 x y"], refine: int, scheme: str, rtol: float) -> Float[Array, "times x y"]:
        grid, dtype = self.grid, a.dtype
        fine = grid.with_points([refine * n for n in grid.shape])
        modes = _Modes(fine)
        y = to_pair(modes.of(a[0], grid))
        args = modes.kx, modes.ky, 1 / modes.nonzero, modes.wave(self.forcing)
        # In a laminar flow the force alone brings w to f min(time, 1/decay).
        slowest = self.viscosity * sum((2 * np.pi / L) ** 2 for L in self.domain_extent)
        lasting = min(self.final_time, 1 / slowest) if slowest > 0 else self.final_time
        size = jnp.hypot(l2(y), jnp.asarray(abs(self.forcing) * lasting, dtype))
        ys, succeeded = frames(
            _advection,
            y,
            tuple(self.times[1:].tolist()),
            jnp.asarray(self.viscosity * modes.minus_laplacian, dtype),
            tuple(jnp.asarray(x, dtype) for x in args),
            size=size,
            first_step=0.05 / size,
            scheme=scheme,
            rtol=rtol,
        )
        w = modes.at(jax.lax.complex(ys[:, 0], ys[:, 1]), fine)[:, ::refine, ::refine]
        return jnp.concatenate([a, jnp.where(succeeded[:, None, None], w, jnp.nan).astype(dtype)])


def velocity_from_vorticity(w: Float[Array, "1 x y"], grid: Grid) -> Float[Array, "2 x y"]:
    """The velocity u = (psi_y, -psi_x), -laplace psi = w, without a mean, of a vorticity on a periodic grid.

    Exact for the trigonometric polynomial through the values of w, whose mean has no velocity on a torus.

    **Raises:** `ValueError` when w is no field of one channel on the grid, or the grid is not periodic in two
    dimensions with its points at nodes.
    """
    modes = _Modes(_checked(w, grid))
    w = jnp.asarray(w)
    psi = modes.of(w[0], grid) / modes.nonzero
    return modes.at(jnp.stack([1j * modes.ky * psi, -1j * modes.kx * psi]), grid).astype(w.dtype)


def kinetic_energy(w: Float[Array, "1 x y"], grid: Grid) -> Float[Array, ""]:
    """Integral of |u|^2 / 2 over the box, for the velocity of a vorticity, see `velocity_from_vorticity`.

    **Raises:** `ValueError` as there.
    """
    modes = _Modes(_checked(w, grid))
    w = jnp.asarray(w)
    return modes.integral(modes.of(w[0], grid), 0.5 * (modes.minus_laplacian > 0) / modes.nonzero).astype(w.dtype)


def enstrophy(w: Float[Array, "1 x y"], grid: Grid) -> Float[Array, ""]:
    """Integral of w^2 / 2 over the box.

    **Raises:** `ValueError` as `velocity_from_vorticity`.
    """
    modes = _Modes(_checked(w, grid))
    w = jnp.asarray(w)
    return modes.integral(modes.of(w[0], grid), 0.5).astype(w.dtype)


def _checked(w: Any, grid: Grid) -> Grid:
    if grid.ndim != 2 or grid.boundary != ("periodic",) * 2 or grid.centering != ("node",) * 2:
        raise ValueError(
            f"grid: expected two periodic axes with points at nodes, got {grid}; give Grid((64, 64)) or the like."
        )
    check_field(w, channels=1, ndim=2, name="w", where="vorticity")
    grid.check(w, "w")
    return grid


class _Modes:
    """The Fourier modes of a periodic grid, as coefficients `(*lead, 2 kx + 1, ky + 1)` in the order of `rfft2`.

    An even grid has a last mode whose sine vanishes at all points, and which therefore has no derivative. One point
    more resolves both the sine and the cosine: on an odd grid all modes are alike.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid.with_points([2 * (n // 2) + 1 for n in grid.shape])
        nx, ny = self.grid.shape
        Lx, Ly = self.grid.domain_extent
        self.kx = 2 * np.pi / Lx * np.fft.fftfreq(nx, 1 / nx)[:, None]
        self.ky = 2 * np.pi / Ly * np.arange(ny // 2 + 1)
        self.minus_laplacian = self.kx**2 + self.ky**2
        self.nonzero = np.where(self.minus_laplacian > 0, self.minus_laplacian, np.inf)  # the mean has no velocity

    def of(self, w: Array, grid: Grid) -> Array:
        return jnp.fft.rfft2(resample(w, grid, self.grid), norm="forward")

    def at(self, modes: Array, grid: Grid) -> Array:
        """Values at the points of a grid."""
        return resample(jnp.fft.irfft2(modes, s=self.grid.shape, norm="forward"), self.grid, grid)

    def wave(self, amplitude: float) -> np.ndarray:
        """amplitude (sin(theta) + cos(theta)), theta along the diagonal of the box: real and imaginary parts."""
        pair = np.zeros((2, *self.minus_laplacian.shape))
        pair[:, 1, 1] = 0.5 * amplitude, -0.5 * amplitude
        return pair

    def integral(self, modes: Array, weight: Any) -> Array:
        """Over the box, of the square of a function in which each mode counts `weight` times."""
        twice = np.where(np.arange(modes.shape[-1]) > 0, 2.0, 1.0) * weight * np.prod(self.grid.domain_extent)
        return jnp.sum(jnp.asarray(twice, modes.real.dtype) * (modes.real**2 + modes.imag**2))


def _advection(t: Any, y: Float[Array, "2 kx ky"], args: Any) -> Float[Array, "2 kx ky"]:
    """Fourier coefficients of f - u . grad w, exact for the modes kept: the products are taken on 3/2 the points."""
    _, (dx, dy, inverse_laplacian, forcing) = args
    w = to_complex(y)
    nx, ny = w.shape
    # Above 3 times the highest wavenumber nothing aliases; lengths with large prime factors would cost more.
    px, py = next_fast_len(3 * (nx // 2) + 1), next_fast_len(3 * (ny - 1) + 1, real=True)
    psi = inverse_laplacian * w
    modes = 1j * jnp.stack([dy * psi, -dx * psi, dx * w, dy * w])
    positive = nx // 2 + 1
    gap = jnp.zeros((4, px - nx, ny), modes.dtype)
    padded = jnp.concatenate([modes[:, :positive], gap, modes[:, positive:]], axis=1)
    u, v, w_x, w_y = jnp.fft.irfft(jnp.fft.ifft(padded, axis=1, norm="forward"), n=py, axis=2, norm="forward")
    along_y = jnp.fft.rfft(u * w_x + v * w_y, axis=1, norm="forward")[:, :ny]
    advected = jnp.fft.fft(along_y, axis=0, norm="forward")
    advected = jnp.concatenate([advected[:positive], advected[px - (nx - positive) :]])
    return forcing - to_pair(advected)
