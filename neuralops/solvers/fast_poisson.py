"""The exact inverse of the unit-coefficient Laplacian on a box, by modal transforms per axis."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope
from neuralops.transforms import Axis

__all__ = ["FastPoisson"]

# Longest walled axis transformed by matrices of half size. On two CPU cores in float64 a whole inverse took 3.2 ms at
# 421^2 (FFT 14, SciPy's dstn 12) and 5.4 ms at 512^2 (FFT 5.7); at 1024^2 both take 76 ms.
FOLD_LIMIT = 1024


class FastPoisson(AbstractOperator):
    """The inverse of `Diffusion(grid)`: solves -div(grad u) = f, discretised with second order, directly.

    The sine, cosine or Fourier modes of each axis diagonalise the stencil; mode by mode the eigenvalue is
    the sum over axes of 4 sin^2(pi w h / (2 L)) / h^2, with w half-waves over the side L (Buzbee, Golub and
    Nielson 1970; Strang 1999 for the list of cosine transforms). Every pair of boundary words is taken,
    at nodes and in cells, mixed freely among axes. Where no axis has a Dirichlet end the operator is singular, and this
    is its symmetric generalised inverse: the mean source is ignored and the result has mean zero.

    Symmetric and positive, so it serves as preconditioner, `CG(preconditioner=FastPoisson(grid))`: the number
    of steps is then bounded by the contrast of the coefficient and does not grow with the grid. As
    method, `solve(Diffusion(grid), b, FastPoisson(grid))`, it also reports the true residual.

    **Arguments:**

    - `grid`: where the field lives.
    - `dtype`: the precision of the transforms, by default the field's. `"float32"` makes a preconditioner of about half
      the cost for a float64 solve, whose accuracy does not suffer.

    Grid-locked: a field on another grid is refused. Right-hand sides are those of `Diffusion.load`.
    """

    grid: Grid = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True)

    def __init__(self, grid: Grid, dtype: str | None = None):
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        if dtype not in (None, "float32", "float64"):
            raise ValueError(f"dtype: expected None, 'float32' or 'float64', got {dtype!r}; use one of these.")
        self.grid, self.dtype = grid, dtype

    @property
    def envelope(self) -> Envelope:
        words = tuple(sorted({end for axis in self.grid.axes for end in axis.ends}))
        return Envelope(ndim=(self.grid.ndim,), boundary=words, refinement="grid-locked")

    def __call__(self, b: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        """The solution for a right-hand side on the trailing axes; leading axes pass through."""
        self._check(b)
        b = jnp.asarray(b)
        u = b if self.dtype is None else b.astype(self.dtype)
        lead, axes = u.ndim - self.grid.ndim, self.grid.axes
        for a, axis in enumerate(axes):
            u = _analyse(u, lead + a, axis)
        u = u * self._inverse_eigenvalues(u.dtype)
        for a, axis in enumerate(axes):
            u = _synthesise(u, lead + a, axis)
        return u.astype(b.dtype)

    def _inverse_eigenvalues(self, dtype: Any) -> Array:
        """1/eigenvalue on the grid of modes, zero for the constant mode; built from one profile per axis."""
        grid, total = self.grid, jnp.zeros((), dtype)
        for a, axis in enumerate(grid.axes):
            profile = _eigenvalues(axis, grid.domain_extent[a], grid.spacing[a])
            total = total + jnp.asarray(profile.reshape([-1 if i == a else 1 for i in range(grid.ndim)]), dtype)
        return jnp.where(total == 0, 0, 1 / jnp.where(total == 0, 1, total))

    def _check(self, b: Any) -> None:
        shape, ndim = tuple(getattr(b, "shape", ())), self.grid.ndim
        if len(shape) < ndim or shape[-ndim:] != self.grid.shape:
            raise ValueError(
                f"b: FastPoisson is locked to the grid {self.grid.shape} (leading axes free), got shape {shape}; build "
                "FastPoisson on the field's grid, or use resample(b, grid, new_grid)."
            )
        if not jnp.issubdtype(b.dtype, jnp.floating):
            raise ValueError(f"b: expected a real floating array, got {b.dtype}; use b.astype(jnp.float32).")


class _Fold(NamedTuple):
    """Orthonormal modes of a mirror-symmetric axis, split by parity.

    A mode is even or odd under reflection of the axis, so half of its values suffice, and a transform of n values
    becomes two products of size n/2: half the work.
    """

    head: int  # leading points that are their own mirror images (the low end of a periodic node axis)
    even: np.ndarray  # values of the even modes at the head, the lower half and the middle, (n - n//2 or so, modes)
    odd: np.ndarray  # values of the odd modes at the lower half
    order: np.ndarray  # mode numbers in the order of the coefficients


@functools.lru_cache(maxsize=64)
def _fold(axis: Axis) -> _Fold | None:
    """The folded modes, or `None` when the axis is not symmetric or too long for matrices."""
    n, low_high = axis.num_points, axis.ends
    limit = transforms.MATMUL_LIMIT if axis.boundary == "periodic" else FOLD_LIMIT
    if low_high[0] != low_high[1] or n > limit:
        return None
    modes = _orthonormal(axis)
    head = int(axis.boundary == "periodic" and axis.centering == "node")
    half = (n - head) // 2
    mirror = np.concatenate([np.arange(head), np.arange(n - 1, head - 1, -1)])
    is_even = np.einsum("jm,jm->m", modes, modes[mirror]) > 0
    order = np.concatenate([np.flatnonzero(is_even), np.flatnonzero(~is_even)])
    upper = slice(head, head + half)
    return _Fold(head, modes[: n - half][:, is_even], modes[upper][:, ~is_even], order)


def _orthonormal(axis: Axis) -> np.ndarray:
    """Mode values scaled so that the stencil's symmetric form has the inverse S diag(1/eigenvalue) S^T.

    With W the relative control volumes and S the mode values, S^T W S = diag(norms) and W L S = W S diag(eigenvalue),
    so (W L)^-1 = S diag(1/(norms eigenvalue)) S^T: the weights of node-centred Neumann ends drop out.
    """
    values = transforms.synthesis_matrix(axis)
    norms = np.einsum("jm,jm,j->m", values, values, transforms.relative_weights(axis))
    return values / np.sqrt(norms)


def _by_fft(axis: Axis) -> bool:
    return _fold(axis) is None and axis.num_points > transforms.MATMUL_LIMIT


def _eigenvalues(axis: Axis, extent: float, spacing: float) -> np.ndarray:
    """Eigenvalues of the strong-form stencil in the order of the coefficients.

    The wavenumber of the last periodic mode on an even grid is Nyquist's, whichever of sine and cosine it is.
    """
    half_waves = transforms.wavenumbers(axis.boundary, axis.num_points)
    values = 4 * np.sin(np.pi * half_waves * spacing / (2 * extent)) ** 2 / spacing**2
    folded = _fold(axis)
    return values if folded is None else values[folded.order]


def _analyse(u: Array, dim: int, axis: Axis) -> Array:
    """S^T along one dimension (with the norms, where the transform is an FFT)."""
    folded = _fold(axis)
    if folded is None:
        if _by_fft(axis):
            weights = transforms.relative_weights(axis).reshape([-1] + [1] * (u.ndim - 1 - dim))
            return transforms.to_modes(u / jnp.asarray(weights, u.dtype), dim, axis)
        return _product(_orthonormal(axis).T, u, dim)
    head, half = folded.head, folded.odd.shape[0]
    n = axis.num_points
    lower, upper = _cut(u, head, head + half, dim), lax.rev(_cut(u, n - half, n, dim), (dim,))
    even = lax.concatenate([_cut(u, 0, head, dim), lower + upper, _cut(u, head + half, n - half, dim)], dim)
    parts = [_product(folded.even.T, even, dim), _product(folded.odd.T, lower - upper, dim)]
    return lax.concatenate(parts, dim)


def _synthesise(c: Array, dim: int, axis: Axis) -> Array:
    """S along one dimension, the transpose of `_analyse`."""
    folded = _fold(axis)
    if folded is None:
        if _by_fft(axis):
            return transforms.from_modes(c, dim, axis)
        return _product(_orthonormal(axis), c, dim)
    head, half = folded.head, folded.odd.shape[0]
    n, count = axis.num_points, folded.even.shape[1]
    even = _product(folded.even, _cut(c, 0, count, dim), dim)
    odd = _product(folded.odd, _cut(c, count, n, dim), dim)
    lower = _cut(even, head, head + half, dim)
    mirrored = lax.rev(lower - odd, (dim,))
    middle = _cut(even, head + half, n - half, dim)
    return lax.concatenate([_cut(even, 0, head, dim), lower + odd, middle, mirrored], dim)


def _cut(u: Array, start: int, stop: int, dim: int) -> Array:
    return lax.slice_in_dim(u, start, stop, axis=dim)


def _product(matrix: np.ndarray, u: Array, dim: int) -> Array:
    """A matrix along one dimension, in place: moving that axis to the end first took twice as long on CPU."""
    m = jnp.asarray(matrix, u.dtype)
    if dim == u.ndim - 1:
        return jnp.matmul(u, m.T, precision="highest")
    before, after = u.shape[:dim], u.shape[dim + 1 :]
    product = jnp.matmul(m, u.reshape(*before, u.shape[dim], math.prod(after)), precision="highest")
    return product.reshape(*before, m.shape[0], *after)
