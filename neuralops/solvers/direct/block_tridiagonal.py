"""Direct solution of block tridiagonal systems, definite or not: elimination block by block."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["solve_block_tridiagonal"]

Block = Callable[[Array], Float[Array, "n n"]]


def solve_block_tridiagonal(
    lower: Block, diagonal: Block, upper: Block, b: Float[Array, "blocks n"]
) -> Float[Array, "blocks n"]:
    """x with lower(i) x_(i-1) + diagonal(i) x_i + upper(i) x_(i+1) = b_i.

    The blocks are functions of a traced index, so that no more than one of each is held; the elimination itself
    stores one full block per row, n^2 numbers. Rows are exchanged within a block only, not between blocks: for an
    indefinite system that is stable in practice but not by theorem, so look at the residual. Differentiable.
    """
    n = b.shape[1]

    def eliminate(state: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        X, y = state  # diagonal'^-1 upper and diagonal'^-1 b' of the row above
        below = jnp.where(i > 0, lower(i), 0)
        right = jnp.concatenate([upper(i), (b[i] - below @ y)[:, None]], 1)
        solved = jnp.linalg.solve(diagonal(i) - below @ X, right)
        return (solved[:, :n], solved[:, n]), (solved[:, :n], solved[:, n])

    def substitute(x: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        X, y = row
        x = y - X @ x
        return x, x

    start = jnp.zeros((n, n), b.dtype), jnp.zeros(n, b.dtype)
    _, (X, y) = lax.scan(eliminate, start, jnp.arange(len(b)))
    X = X.at[-1].set(0)
    _, x = lax.scan(substitute, jnp.zeros(n, b.dtype), (X, y), reverse=True)
    return x
