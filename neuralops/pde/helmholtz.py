"""Time-harmonic waves in a closed box with a random wave speed, driven through one wall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.grid import Grid
from neuralops.pde.problem import Problem
from neuralops.pde.random_fields import GaussianRandomField, check_num_modes
from neuralops.solvers.direct.block_tridiagonal import solve_block_tridiagonal


class Helmholtz(Problem):
    """Solution operator c -> u of -Laplacian u - (frequency / c)^2 u = 0 on a rectangle, with real solutions.

    The normal derivative of u is `flux` on the high wall of the second axis and zero on the other walls. Input: the
    wave speed c, `(1, *grid)`, mean_speed + contrast tanh(g) with a Gaussian field g of covariance
    (-Laplacian + tau^2)^(-alpha), Neumann boundary and no constant mode. Output: u, `(1, *grid)`. The defaults are the
    benchmark of de Hoop, Huang, Qian and Stuart (2022): 101 x 101 nodes, frequency 1000, speed near 20 (eight
    wavelengths across), flux 1 on the middle 30 % of the wall; theirs keeps 100 modes of g and solves with bilinear
    finite elements.

    The box is closed, so there are resonances: near one, u is large and very sensitive to c.

    The discretisation is the compact nine-point scheme of fourth order (Collatz's Mehrstellen method), with which eight
    wavelengths on 101 points are off by less than a hundredth of a period, by its dispersion relation; the five-point
    scheme and bilinear elements are off by about a twelfth. Solved block by block (`solve_block_tridiagonal`).

    **Arguments:**

    - `num_points`, `domain_extent`: the grid of nodes, walls included, two axes.
    - `frequency`: the angular frequency, at least 0.
    - `mean_speed`, `contrast`: wave speeds lie within mean_speed +- contrast, above 0.
    - `alpha`, `tau`, `num_modes`: the law of g, as in `GaussianRandomField` with `scale=1`.
    - `flux`: a function from the coordinate along the wall, NumPy float64 `(n,)`, to the normal derivative there; by
      default 1 between 0.35 and 0.65 of the wall, weighed by the part of each node's cell that it covers.

    **Raises:** `ValueError` on arguments out of range.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("wave_speed",)
    output_fields: ClassVar[tuple[str, ...]] = ("pressure",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    frequency: float = eqx.field(static=True)
    mean_speed: float = eqx.field(static=True)
    contrast: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    tau: float = eqx.field(static=True)
    num_modes: int | tuple[int, ...] | None = eqx.field(static=True)
    flux: Callable[[Any], Any] | None = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int] = (101, 101),
        *,
        domain_extent: float | Sequence[float] = 1.0,
        frequency: float = 1000.0,
        mean_speed: float = 20.0,
        contrast: float = 1.0,
        alpha: float = 2.0,
        tau: float = 3.0,
        num_modes: int | Sequence[int] | None = None,
        flux: Callable[[Any], Any] | None = None,
    ) -> None:
        grid = Grid(num_points, domain_extent, "neumann")  # type: ignore[arg-type]
        if grid.ndim != 2:
            raise ValueError(f"num_points: Helmholtz has two dimensions, got {grid.ndim}; give two counts.")
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.frequency = check_number(frequency, "frequency", at_least=0.0)
        self.contrast = check_number(contrast, "contrast", at_least=0.0)
        self.mean_speed = check_number(mean_speed, "mean_speed", above=self.contrast)
        self.alpha = check_number(alpha, "alpha", above=1.0)
        self.tau = check_number(tau, "tau", at_least=0.0)
        self.num_modes = check_num_modes(num_modes, 2)
        if flux is not None and jnp.shape(flux(grid.points(0))) not in ((), (grid.shape[0],)):
            raise ValueError(
                f"flux: expected a function from coordinates ({grid.shape[0]},) to as many values, got shape "
                f"{jnp.shape(flux(grid.points(0)))}; use NumPy functions inside it."
            )
        self.flux = flux

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent, ("neumann", "neumann"))

    @property
    def field_law(self) -> GaussianRandomField:
        """The law of the Gaussian field g inside tanh."""
        return GaussianRandomField(self.alpha, self.tau, scale=1.0, num_modes=self.num_modes)

    def sample(self, key: Array) -> Float[Array, " 1 *grid"]:
        return self.mean_speed + self.contrast * jnp.tanh(self.field_law.sample(key, self.grid))

    def solve(self, a: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        square = (self.frequency / jnp.asarray(a)[0]) ** 2
        (K0, M0), (K1, M1) = (tuple(jnp.asarray(m, square.dtype) for m in _line(n, h)) for n, h in self._axes)

        def block(i: Array, j: Array) -> Array:
            j = jnp.clip(j, 0, len(K0) - 1)
            return K0[i, j] * M1 + M0[i, j] * (K1 - M1 * square[j])

        u = solve_block_tridiagonal(
            lambda i: block(i, i - 1), lambda i: block(i, i), lambda i: block(i, i + 1), self._load(square)
        )
        return u[None]

    def residual(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        self._check(u, 1, "u")
        square = (self.frequency / jnp.asarray(a)[0]) ** 2
        (K0, M0), (K1, M1) = (tuple(jnp.asarray(m, u.dtype) for m in _line(n, h)) for n, h in self._axes)
        v = jnp.asarray(u)[0]
        product = lambda left, w, right: jnp.matmul(
            jnp.matmul(left, w, precision="highest"), right, precision="highest"
        )
        applied = product(K0, v, M1) + product(M0, v, K1.T) - product(M0, square * v, M1)
        return (self._load(square) - applied)[None]

    def reference(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        return self._load((self.frequency / jnp.asarray(a)[0]) ** 2)[None]

    @property
    def _axes(self) -> tuple[tuple[int, float], ...]:
        return tuple(zip(self.grid.shape, self.grid.spacing, strict=True))

    def _load(self, square: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """What the flux g brings to the nodes of its wall, to fourth order.

        A half cell at the wall integrates a source f as h (5 f_0 + f_1) / 12, which leaves h^2 / 12 of the slope of f;
        with f = k^2 u + u_xx that slope is k^2 g + g_xx, as c has none. The g_xx in the mass of the other axis is of
        the same kind: for equal spacings only g (1 - (k h)^2 / 12) remains.
        """
        (n, h0), (_, h) = self._axes
        x, L = self.grid.points(0), self.domain_extent[0]
        widths = np.clip(x + h0 / 2, 0, L) - np.clip(x - h0 / 2, 0, L)
        if self.flux is None:
            covered = np.minimum(x + h0 / 2, 0.65 * L) - np.maximum(x - h0 / 2, 0.35 * L)
            g = np.clip(covered, 0, None) / widths
        else:
            g = np.broadcast_to(np.asarray(self.flux(x), float), (n,))
        plain = widths * g + (h**2 - h0**2) / 12 * (_line(n, h0)[0] @ g)
        wall = jnp.asarray(plain, square.dtype) - square[:, -1] * jnp.asarray(h**2 / 12 * widths * g, square.dtype)
        return jnp.zeros_like(square).at[:, -1].set(wall)


def _line(n: int, h: float) -> tuple[np.ndarray, np.ndarray]:
    """Stiffness and mass of one axis of nodes between Neumann walls; the mass has weights 1/12, 10/12, 1/12."""
    off = np.eye(n, k=1) + np.eye(n, k=-1)
    inner = np.ones(n)
    inner[[0, -1]] = 0.5
    return (np.diag(2 * inner) - off) / h, h * (np.diag(10 * inner) + off) / 12
