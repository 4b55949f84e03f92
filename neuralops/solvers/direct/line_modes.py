"""The modes of one axis of a box, which diagonalise the three-point stencil there, and transforms by matrices.

With K the stiffness of a line of control volumes and W their relative extents, the columns of S satisfy
S^T W S = 1 and S^T K S = diag(eigenvalues); on an even spacing they are sines, cosines or Fourier modes
(Strang 1999, The discrete cosine transform).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.solvers.elliptic.volumes import Widths, line_faces, line_volumes
from neuralops.transforms import Axis

__all__ = ["Line", "Transform", "by_matrices", "conductances", "lines", "stencil_eigenvalues"]

MIRRORED = 64  # points from which the symmetry of an axis is worth its extra passes over memory


class Line(NamedTuple):
    """One axis of a grid with all that its modes depend on; `widths` is `None` where the spacing is even."""

    axis: Axis
    extent: float
    spacing: float
    widths: tuple[float, ...] | None


class Transform(NamedTuple):
    """S^T and S along one axis, as functions of an array and a dimension.

    Coefficients come in an order that suits the transform; `eigenvalues` are in the same. `last` tells that the
    dimension must be the last one.
    """

    analyse: Callable[[Array, int], Array]
    synthesise: Callable[[Array, int], Array]
    eigenvalues: np.ndarray
    last: bool = False


def lines(grid: Grid, widths: Widths) -> tuple[Line, ...]:
    """The axes of a grid; widths that are even to rounding count as none."""
    result = []
    for a, axis in enumerate(grid.axes):
        own = None if widths is None else widths[a]
        if own is not None and np.allclose(line_volumes(grid, widths, a), 1, rtol=0, atol=1e-12):
            own = None
        result.append(Line(axis, grid.domain_extent[a], grid.spacing[a], own))
    return tuple(result)


def stencil_eigenvalues(line: Line, half_waves: np.ndarray) -> np.ndarray:
    """Eigenvalues on an even spacing, 4 sin^2(pi w h / (2 L)) / h^2, of modes with w half-waves over the side L."""
    return 4 * np.sin(np.pi * half_waves * line.spacing / (2 * line.extent)) ** 2 / line.spacing**2


def conductances(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """What K and W are made of: conductances from the low wall (or the face below point 0) on, and relative extents."""
    grid = Grid((line.axis.num_points,), (line.extent,), (line.axis.boundary,), (line.axis.centering,))
    widths = None if line.widths is None else (line.widths,)
    return line_faces(grid, widths, 0), line_volumes(grid, widths, 0)


@functools.lru_cache(maxsize=16)
def by_matrices(line: Line) -> Transform:
    """The transform by matrix products, in place along any dimension."""
    if line.axis.num_points > MIRRORED and _symmetric(line):
        return _mirrored(line)
    modes, eigenvalues = _modes(line)
    analyse, synthesise = (functools.partial(_product, matrix) for matrix in (modes.T, modes))
    return Transform(analyse, synthesise, eigenvalues)


def _symmetric(line: Line) -> bool:
    """Whether the axis is its own mirror image."""
    low, high = line.axis.ends
    return low == high and (line.widths is None or (low != "periodic" and _palindrome(line.widths)))


def _mirrored(line: Line) -> Transform:
    """Matrices for an axis that is its own mirror image.

    A mode is even or odd under reflection, so half of its values suffice, and a transform of n values becomes two
    products of size n/2: half the work.
    """
    n = line.axis.num_points
    modes, eigenvalues = _modes(line)
    head = int(
        line.axis.boundary == "periodic" and line.axis.centering == "node"
    )  # a point that is its own mirror image
    half = (n - head) // 2
    mirror = np.concatenate([np.arange(head), np.arange(n - 1, head - 1, -1)])
    is_even = np.einsum("jm,jm->m", modes, modes[mirror]) > 0
    even, odd = modes[: n - half][:, is_even], modes[head : head + half][:, ~is_even]
    count = even.shape[1]

    def analyse(u: Array, dim: int) -> Array:
        lower, upper = _cut(u, head, head + half, dim), lax.rev(_cut(u, n - half, n, dim), (dim,))
        folded = lax.concatenate([_cut(u, 0, head, dim), lower + upper, _cut(u, head + half, n - half, dim)], dim)
        return lax.concatenate([_product(even.T, folded, dim), _product(odd.T, lower - upper, dim)], dim)

    def synthesise(c: Array, dim: int) -> Array:
        sums, differences = _product(even, _cut(c, 0, count, dim), dim), _product(odd, _cut(c, count, n, dim), dim)
        lower = _cut(sums, head, head + half, dim)
        upper = lax.rev(lower - differences, (dim,))
        middle = _cut(sums, head + half, n - half, dim)
        return lax.concatenate([_cut(sums, 0, head, dim), lower + differences, middle, upper], dim)

    order = np.concatenate([np.flatnonzero(is_even), np.flatnonzero(~is_even)])
    return Transform(analyse, synthesise, eigenvalues[order])


def _palindrome(widths: tuple[float, ...]) -> bool:
    return bool(np.allclose(widths, widths[::-1], rtol=1e-12, atol=0))


def _modes(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """Mode values (points, modes) with S^T W S = 1, and eigenvalues."""
    if line.widths is not None:
        return _stretched_modes(line)
    values = transforms.synthesis_matrix(line.axis)
    norms = np.einsum("jm,jm,j->m", values, values, transforms.relative_weights(line.axis))
    # The wavenumber of the last periodic mode on an even grid is Nyquist's, whichever of sine and cosine it is.
    half_waves = transforms.wavenumbers(line.axis.boundary, line.axis.num_points)
    return values / np.sqrt(norms), stencil_eigenvalues(line, half_waves)


def _stretched_modes(line: Line) -> tuple[np.ndarray, np.ndarray]:
    """The generalised eigenproblem K s = lambda W s of cells with widths of their own, by W^-1/2 K W^-1/2."""
    n, ends = line.axis.num_points, line.axis.ends
    faces, extents = conductances(line)
    above = np.roll(faces, -1) if ends[0] == "periodic" else faces[1:]
    below = faces[:n]
    stiffness = np.diag(below + above)
    index = np.arange(n)
    for neighbour, conductance in ((index - 1, below), (index + 1, above)):
        inside = np.full(n, True) if ends[0] == "periodic" else (neighbour >= 0) & (neighbour < n)
        np.subtract.at(stiffness, (index[inside], neighbour[inside] % n), conductance[inside])
    root = np.sqrt(extents)
    scaled = stiffness / np.outer(root, root)
    if _symmetric(line):
        # Even and odd modes apart, so that rounding cannot mix them.
        identity = np.eye(n)[:, : n - n // 2]
        bases = [identity + identity[::-1], (identity - identity[::-1])[:, : n // 2]]
        bases = [basis / np.linalg.norm(basis, axis=0) for basis in bases]
    else:
        bases = [np.eye(n)]
    pairs = [_symmetric_eigenpairs(basis.T @ scaled @ basis, ends[0] != "periodic") for basis in bases]
    eigenvalues = np.concatenate([values for values, _ in pairs])
    modes = np.concatenate([basis @ vectors for basis, (_, vectors) in zip(bases, pairs, strict=True)], axis=1)
    modes /= root[:, None]
    if "dirichlet" not in ends:  # the constant mode, exactly
        constant = np.argmin(eigenvalues)
        eigenvalues[constant], modes[:, constant] = 0.0, 1 / np.linalg.norm(root)
    return modes, eigenvalues


def _symmetric_eigenpairs(matrix: np.ndarray, tridiagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    if not tridiagonal:
        return np.linalg.eigh(matrix)
    import scipy.linalg

    driver = "stevd" if hasattr(scipy.linalg.lapack, "dstevd") else "stemr"  # divide and conquer loses fewer digits
    return scipy.linalg.eigh_tridiagonal(matrix.diagonal(), matrix.diagonal(1), lapack_driver=driver)


def _product(matrix: np.ndarray, u: Array, dim: int) -> Array:
    """A matrix along one dimension, in place: moving that axis to the end first took twice as long on CPU."""
    m = jnp.asarray(matrix, u.dtype)
    if dim == u.ndim - 1:
        return jnp.matmul(u, m.T, precision="highest")
    before, after = u.shape[:dim], u.shape[dim + 1 :]
    product = jnp.matmul(m, u.reshape(*before, u.shape[dim], math.prod(after)), precision="highest")
    return product.reshape(*before, m.shape[0], *after)


def _cut(u: Array, start: int, stop: int, dim: int) -> Array:
    return lax.slice_in_dim(u, start, stop, axis=dim)
