"""Right-hand sides of Poisson's equation on which search directions are learned: unit vectors, low modes amplified."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_number, count
from neuralops.grid import Grid
from neuralops.pde.problem import Problem
from neuralops.solvers import CG, Diffusion, FastPoisson, Multigrid, solve
from neuralops.solvers.direct.line_modes import lines, stencil_eigenvalues
from neuralops.solvers.krylov.lanczos import ritz_pairs

MODES = ("exact", "ritz")
PAPER_STEPS = 10_000  # Lanczos steps of the paper, at 64^3 and 128^3
NULL = 1e-8  # of the largest Ritz value: below it lie null vectors


class PoissonDirections(Problem):
    """The training set of the deep conjugate direction method: b -> A^-1 b for A = -Laplacian on a box.

    The law of Kaneda et al. (2023, arXiv 2205.10763): of m orthonormal modes q_j, in ascending order of eigenvalue,

        b = sum_j c_j q_j / |sum_j c_j q_j|,   c_j ~ amplitude N(0, 1) for the first m/2 + theta modes, N(0, 1) else.

    Input: the discrete right-hand side b, `(1, *grid)`, of 2-norm 1 and in the range of A; A is `Diffusion(grid)`,
    second order, divided by h^2. Output: x = A^-1 b, of zero mean where A is singular, for energy losses; losses of the
    residual need b alone.

    `modes="ritz"` is the paper's recipe: q_j are the Ritz vectors of m Lanczos steps from A z, with z drawn from
    N(0, 1) by `seed`, less those with an eigenvalue below 1e-8 of the largest. The constructor computes them in float64
    and the problem holds them: twice m fields of memory while it works, m fields after. It takes a `mask`. One thing is
    added: null vectors are kept out at every step. Rounding brings them in, and before their Ritz value is recognised
    as zero they spoil modes (on 12 x 11 cells after 87 steps a retained one was to 85 % the constant).

    `modes="exact"` takes m exact eigenvectors (cosines, sines, Fourier modes) and costs one transform per sample, at
    any size. A deviation from the paper. Which ones: Ritz values of a random start lie like Chebyshev points over the
    spectrum, but nowhere denser than eigenvalues do (Kuijlaars 2000, SIAM J. Matrix Anal. Appl. 22, 306). So all modes
    at both ends of the spectrum are taken, and they thin out towards the middle: mode j is the first, of the eigenvalue
    at or below the j-th Chebyshev point upwards, that is still free. Equal eigenvalues are ordered by a fixed
    scrambling, as no direction should be preferred. A Ritz vector inside the spectrum is no eigenvector but mixes many
    of about its value, so Ritz samples hold a part of every mode, and exact ones of m modes only. On 24^3 cells with
    m = 500 the fractions of values below a given one differ by at most 0.06, on 96^2 with m = 400 by at most 0.02.

    **Arguments:**

    - `num_points`, `domain_extent`, `boundary`, `centering`: the grid, as in `Grid`; an integer is one axis.
    - `modes`: `"exact"` or `"ritz"`; exact modes need control volumes of one size, so cells at Neumann ends.
    - `num_modes`: m, the modes or the Lanczos steps. `None`, for exact modes only, means the 10 000 of the paper or all
      that the grid has, if fewer.
    - `theta`: how many more than half are amplified; `None` means m/20, as the paper's 500 of 10 000.
    - `amplitude`: standard deviation of the amplified coefficients; 9 in the paper.
    - `seed`: of the Lanczos start.
    - `mask`: obstacles, with `modes="ritz"`: a function from the coordinates, NumPy float64 `(ndim, *grid)`, to
      booleans `(*grid,)`, true inside. Nothing flows through an obstacle's wall; b and x are zero in it, and x has zero
      mean on each part of the domain that floats. Solved by `CG` with `Multigrid`.
    - `rtol`: the relative residual to reach with a mask; 1e-10 by default, and 1e-5 in float32.

    **Raises:** `ValueError` on arguments out of range, on more modes than there are.
    """

    input_fields: ClassVar[tuple[str, ...]] = ("right_hand_side",)
    output_fields: ClassVar[tuple[str, ...]] = ("solution",)

    num_points: tuple[int, ...] = eqx.field(static=True)
    domain_extent: tuple[float, ...] = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    modes: str = eqx.field(static=True)
    num_modes: int | None = eqx.field(static=True)
    theta: int | None = eqx.field(static=True)
    amplitude: float = eqx.field(static=True)
    seed: int = eqx.field(static=True)
    mask: Callable[[np.ndarray], Any] | None = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)
    basis: _Basis = eqx.field(static=True, repr=False)

    def __init__(
        self,
        num_points: int | Sequence[int],
        *,
        domain_extent: float | Sequence[float] = 1.0,
        boundary: Any = "neumann",
        centering: str | Sequence[str] = "cell",
        modes: str = "exact",
        num_modes: int | None = None,
        theta: int | None = None,
        amplitude: float = 9.0,
        seed: int = 0,
        mask: Callable[[np.ndarray], Any] | None = None,
        rtol: float | None = None,
    ) -> None:
        grid = Grid(num_points, domain_extent, boundary, centering)  # type: ignore[arg-type]
        self.num_points, self.domain_extent = grid.num_points, grid.domain_extent
        self.boundary, self.centering = grid.boundary, grid.centering
        if modes not in MODES:
            raise ValueError(f"modes: expected one of {MODES}, got {modes!r}; use one of these words.")
        if mask is not None and modes != "ritz":
            raise ValueError("mask: expected None with modes='exact', got one; use modes='ritz' around obstacles.")
        self.modes = modes
        self.num_modes = None if num_modes is None else count(num_modes, "num_modes", most=2**32 - 1)
        self.theta = None if theta is None else count(theta, "theta", 0, most=2**32 - 1)
        self.amplitude = check_number(amplitude, "amplitude", above=0.0)
        self.seed = count(seed, "seed", 0, most=2**32 - 1)
        self.mask = mask
        self.rtol = None if rtol is None else check_number(rtol, "rtol", above=0.0)
        self.basis = self._ritz_modes() if modes == "ritz" else _ExactModes(grid, self.num_modes)
        if self.num_amplified > len(self.eigenvalues):
            raise ValueError(
                f"theta: expected at most {len(self.eigenvalues)} amplified modes, as many as there are, got "
                f"{self.num_amplified}; take a smaller theta."
            )

    @property
    def grid(self) -> Grid:
        return Grid(self.num_points, self.domain_extent, self.boundary, self.centering)

    @property
    def operator(self) -> Diffusion:
        """The discrete operator A of A x = b, for `solve`."""
        return self._operator(jnp.result_type(float))

    @property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues (or Ritz values) of the modes, ascending, as float64 NumPy: without null vectors."""
        return self.basis.eigenvalues

    @property
    def num_amplified(self) -> int:
        """How many modes, the lowest, are amplified: m/2 + theta, m counting Ritz pairs that were left out too."""
        m = self.basis.num_modes
        return m // 2 + (m // 20 if self.theta is None else self.theta)

    def coefficients(self, key: Array) -> Float[Array, " modes"]:
        """The coefficients of a sample before it is made a unit vector, one per entry of `eigenvalues`."""
        count = len(self.eigenvalues)
        # Drawn in float32, so that both precisions have the same numbers.
        xi = jax.random.normal(key, (count,), jnp.float32).astype(jnp.result_type(float))
        return jnp.where(jnp.arange(count) < self.num_amplified, self.amplitude, 1.0) * xi

    def combine(self, coefficients: Float[Array, " modes"]) -> Float[Array, " 1 *grid"]:
        """The sum of the orthonormal modes with these coefficients."""
        shape = (len(self.eigenvalues),)
        if jnp.shape(coefficients) != shape or not jnp.issubdtype(jnp.result_type(coefficients), jnp.floating):
            raise ValueError(
                f"coefficients: expected floating numbers of shape {shape}, one per mode, got "
                f"{jnp.result_type(coefficients)} of shape {jnp.shape(coefficients)}; use jax.vmap for a batch."
            )
        return self.basis.combine(jnp.asarray(coefficients))[None]

    def sample(self, key: Array) -> Float[Array, " 1 *grid"]:
        b = self.combine(self.coefficients(key))
        return b / jnp.linalg.norm(b.ravel())

    def solve(self, a: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        b = jnp.asarray(a)
        if self.mask is None:
            return FastPoisson(self.grid)(b)
        A = self._operator(b.dtype)
        rtol = self.rtol or (1e-10 if b.dtype == jnp.float64 else 1e-5)
        return solve(A, b, CG(rtol, preconditioner=Multigrid(A))).value

    def residual(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(u, 1, "u")
        return self.reference(a, u) - self._operator(u.dtype)(jnp.asarray(u))

    def reference(self, a: Float[Array, " 1 *grid"], u: Float[Array, " 1 *grid"]) -> Float[Array, " 1 *grid"]:
        self._check(a, 1, "a")
        return self._operator(a.dtype).to_range(jnp.asarray(a))

    def _operator(self, dtype: Any) -> Diffusion:
        if self.mask is None:
            return Diffusion(self.grid)
        inside = np.asarray(self.mask(self.grid.coordinates()))
        if inside.shape != self.grid.shape or inside.dtype != bool or not inside.any():
            raise ValueError(
                f"mask: expected a function from (ndim, *grid) to booleans {self.grid.shape}, some of them true, got "
                f"{inside.dtype} of shape {inside.shape}; compare coordinates, as in lambda x: x[0] > 0.2."
            )
        return Diffusion.from_coefficient(self.grid, jnp.ones(self.grid.shape, dtype), mask=inside)

    def _ritz_modes(self) -> _RitzModes:
        if self.num_modes is None:
            raise ValueError(
                "num_modes: modes='ritz' expects the number of Lanczos steps, which hold as many fields in memory, "
                f"got None; give one such as 500 (the paper's is {PAPER_STEPS})."
            )
        if self.num_modes > math.prod(self.num_points):
            raise ValueError(
                f"num_modes: expected at most the {math.prod(self.num_points)} points of the grid, got "
                f"{self.num_modes}; take fewer modes or more points."
            )
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            A = self._operator(jnp.float64)
            z = jax.random.normal(jax.random.key(self.seed), self.grid.shape)
            pairs = ritz_pairs(A, A(z), self.num_modes, null_space=A.null_space())
            values, vectors = (np.asarray(x) for x in pairs)
        found = int(np.isfinite(values).sum())
        if found < self.num_modes:
            raise ValueError(
                f"num_modes: expected at most {found}, after which Lanczos has found all it can (equal eigenvalues "
                f"count once), got {self.num_modes}; take num_modes={found}."
            )
        kept = values >= NULL * values[-1]
        return _RitzModes(self.num_modes, values[kept], vectors[kept])


class _Basis:
    """Orthonormal modes by ascending eigenvalue.

    All of it follows from the other fields of the problem that holds it, so all are equal when problems are compared.
    """

    num_modes: int
    eigenvalues: np.ndarray

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Basis)

    def __hash__(self) -> int:
        return 0

    @abstractmethod
    def combine(self, c: Float[Array, " modes"]) -> Float[Array, "*grid"]: ...


class _RitzModes(_Basis):
    def __init__(self, num_modes: int, eigenvalues: np.ndarray, vectors: np.ndarray):
        self.num_modes, self.eigenvalues = num_modes, eigenvalues
        self.shape, self.vectors = vectors.shape[1:], vectors.reshape(len(vectors), -1)

    def combine(self, c: Float[Array, " modes"]) -> Float[Array, "*grid"]:
        # On the host, where the vectors are: as constants of a compiled program they would be copied into it, which
        # took 10 s and three times their memory for 1000 fields of 32^3. Numbers travel as words of 32 bits, for a
        # callback may run in a thread that knows nothing of `enable_x64`, and JAX would round them there.
        count, dtype = len(self.vectors), np.dtype(c.dtype)

        def product(words: Any) -> np.ndarray:
            rows = np.ascontiguousarray(words).view(dtype).reshape(-1, count)
            b = (rows.astype(np.float64) @ self.vectors).astype(dtype)
            return b.view(np.uint32).reshape(*words.shape[: words.ndim - ndim], *shape)

        words = lax.bitcast_convert_type(c, jnp.uint32)
        ndim, shape = words.ndim, self.shape + words.shape[1:]
        b = jax.pure_callback(product, jax.ShapeDtypeStruct(shape, jnp.uint32), words, vmap_method="broadcast_all")
        return lax.bitcast_convert_type(b, dtype)


class _ExactModes(_Basis):
    def __init__(self, grid: Grid, num_modes: int | None):
        for axis in grid.axes:
            if axis.centering == "node" and "neumann" in axis.ends:
                raise ValueError(
                    "centering: exact modes expect control volumes of one size, got nodes at a Neumann end, where they "
                    "are halved; use centering='cell', or modes='ritz'."
                )
        spectrum, self.scales = np.zeros(()), []
        for line in lines(grid, None):
            w = transforms.wavenumbers(line.axis.boundary, line.axis.num_points)
            spectrum = np.add.outer(spectrum, stencil_eigenvalues(line, w))
            # Squares of a sine or cosine sum to half the intervals, to all of them where it is 1 or -1 at each point.
            intervals = transforms.positions(line.axis)[1] // 2
            self.scales.append(np.sqrt(np.where((w == 0) | (w == intervals), 1.0, 2.0) / intervals))
        self.grid = grid
        index = _ascending(spectrum.ravel())[int(Diffusion(grid).singular) :]
        if num_modes is not None and num_modes > len(index):
            raise ValueError(
                f"num_modes: expected at most {len(index)}, the modes of the grid whose eigenvalue is not zero, got "
                f"{num_modes}; take fewer modes or more points."
            )
        self.num_modes = min(PAPER_STEPS, len(index)) if num_modes is None else num_modes
        self.index = index[_like_ritz_values(spectrum.ravel()[index], self.num_modes)]
        self.eigenvalues = spectrum.ravel()[self.index]

    def combine(self, c: Float[Array, " modes"]) -> Float[Array, "*grid"]:
        flat = jnp.zeros(math.prod(self.grid.shape), c.dtype)
        u = flat.at[self.index].set(c, unique_indices=True).reshape(self.grid.shape)
        for dim, (axis, scale) in enumerate(zip(self.grid.axes, self.scales, strict=True)):
            profile = jnp.asarray(scale, c.dtype).reshape([-1 if a == dim else 1 for a in range(self.grid.ndim)])
            u = transforms.from_modes(u * profile, dim, axis)
        return u


def _ascending(spectrum: np.ndarray) -> np.ndarray:
    """Modes by eigenvalue; equal ones in an order without preferred directions (Knuth's multiplicative hash)."""
    scrambled = (np.arange(spectrum.size, dtype=np.uint64) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    return np.lexsort((scrambled, _rounded(spectrum)))


def _rounded(spectrum: np.ndarray) -> np.ndarray:
    """Eigenvalues over the largest, to so many digits that those equal but for rounding are equal."""
    return np.round(spectrum / spectrum.max(), 12)


def _like_ritz_values(spectrum: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` eigenvalues, of an ascending list, that lie like the Ritz values of a random start."""
    values, j = _rounded(spectrum), np.arange(count)
    chebyshev = values[0] + (values[-1] - values[0]) * np.sin(np.pi * j / max(2 * count - 2, 1)) ** 2
    below = values[np.searchsorted(values, chebyshev, side="right") - 1]
    wanted = np.searchsorted(values, below)
    # Each eigenvalue once: behind the one before, and with room for all that follow.
    return j + np.clip(np.maximum.accumulate(wanted - j), 0, len(values) - count)
