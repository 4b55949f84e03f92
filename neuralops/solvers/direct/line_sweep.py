"""The last axis of a direct solver by elimination: one tridiagonal system per mode of the other axes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.direct.line_modes import Line, conductances

__all__ = ["sweep"]


def sweep(u: Array, line: Line, eigenvalues: Array, singular: bool) -> Array:
    """Solves (K + eigenvalue W) x = u along dimension 0 for every entry of the other dimensions.

    Gaussian elimination between two walls. A pivot is written as the conductance to the next point plus an excess,
    excess_i = wall + eigenvalue w_i + c_i excess_(i-1) / pivot_(i-1): only sums of positive numbers, so that no
    digits cancel, which the textbook's differences lose in proportion to n^2.

    `singular`: there is no Dirichlet wall; where the eigenvalue is 0 the mean is then removed and set to zero.
    """
    faces, extents = conductances(line)
    n = len(extents)
    walls = np.zeros(n)
    walls[0] += faces[0]
    walls[-1] += faces[-1]
    # Per point: what the wall conducts, control volume, its share of the line, conductances below and above.
    columns = (walls, extents, extents / extents.sum(), np.append(0.0, faces[1:-1]), np.append(faces[1:-1], 0.0))
    wall, volume, share, below, above = (jnp.asarray(column, u.dtype) for column in columns)
    null = jnp.broadcast_to(eigenvalues == 0, u.shape[1:])
    surplus = jnp.where(null, jnp.sum(u, 0), 0) if singular else 0.0

    # Rows are overwritten in place, first by the eliminated right-hand sides, then by the solution: half the memory of
    # two scans.
    def eliminate(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        rows, inverses, passed, y = state
        excess = wall[i] + eigenvalues * volume[i] + below[i] * passed
        pivot = excess + above[i]
        inverse = jnp.where(pivot == 0, 0, 1 / jnp.where(pivot == 0, 1, pivot)) if singular else 1 / pivot
        y = (rows[i] - share[i] * surplus + below[i] * y) * inverse
        return _set(rows, y, i), _set(inverses, inverse, i), excess * inverse, y

    def substitute(step: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, x = state
        i = n - 1 - step
        x = rows[i] + above[i] * inverses[i] * x
        return _set(rows, x, i), x

    start = jnp.zeros(eigenvalues.shape, u.dtype)
    inverses = jnp.zeros((n, *eigenvalues.shape), u.dtype)
    zero = jnp.zeros_like(u[0])
    u, inverses, _, _ = lax.fori_loop(0, n, eliminate, (u, inverses, start, zero))
    u, _ = lax.fori_loop(0, n, substitute, (u, zero))
    return u - jnp.where(null, jnp.tensordot(share, u, 1), 0) if singular else u


def _set(rows: Array, row: Array, i: Array) -> Array:
    return lax.dynamic_update_index_in_dim(rows, row, i, 0)
