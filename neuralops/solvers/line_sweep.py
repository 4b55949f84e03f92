"""The last axis of a direct solver by elimination: one tridiagonal system per mode of the other axes."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.line_modes import Line, conductances

__all__ = ["sweep"]


def sweep(u: Array, line: Line, eigenvalues: Array, singular: bool) -> Array:
    """Solves (K + eigenvalue W) x = u along dimension 0 for every entry of the other dimensions.

    Gaussian elimination between two walls. A pivot is written as the conductance to the next point plus an excess,
    excess_i = wall + eigenvalue w_i + c_i excess_(i-1) / pivot_(i-1): only sums of positive numbers, so that no
    digits cancel, which the textbook's differences lose in proportion to n^2.

    `singular`: there is no Dirichlet wall; where the eigenvalue is 0 the mean is then removed and set to zero.
    """
    faces, extents = conductances(line)
    walls = np.zeros(len(extents))
    walls[0] += faces[0]
    walls[-1] += faces[-1]
    # Per point: what the wall conducts, control volume, its share of the line, conductances below and above.
    columns = (walls, extents, extents / extents.sum(), np.append(0.0, faces[1:-1]), np.append(faces[1:-1], 0.0))
    wall, volume, share, below, above = (jnp.asarray(column, u.dtype) for column in columns)
    null = jnp.broadcast_to(eigenvalues == 0, u.shape[1:])
    surplus = jnp.where(null, jnp.sum(u, 0), 0) if singular else 0.0

    def eliminate(
        carry: tuple[Array, Array], row: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        passed, y = carry
        wall, volume, share, below, above, b = row
        excess = wall + eigenvalues * volume + below * passed
        pivot = excess + above
        inverse = jnp.where(pivot == 0, 0, 1 / jnp.where(pivot == 0, 1, pivot)) if singular else 1 / pivot
        y = (b - share * surplus + below * y) * inverse
        return (excess * inverse, y), (inverse, y)

    def substitute(x: Array, row: tuple[Array, ...]) -> tuple[Array, Array]:
        above, inverse, y = row
        x = y + above * inverse * x
        return x, x

    start = (jnp.zeros(eigenvalues.shape, u.dtype), jnp.zeros(u.shape[1:], u.dtype))
    _, (inverse, y) = lax.scan(eliminate, start, (wall, volume, share, below, above, u))
    _, x = lax.scan(substitute, start[1], (above, inverse, y), reverse=True)
    return x - jnp.where(null, jnp.tensordot(share, x, 1), 0) if singular else x
