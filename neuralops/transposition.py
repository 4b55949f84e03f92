"""A linear function with a transpose of one's own, under all of JAX's transformations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["transposed_by"]


def transposed_by(
    apply: Callable[[Array], Array],
    apply_adjoint: Callable[[Array], Array],
    x: Array,
    out_shape: tuple[int, ...],
) -> Array:
    """`apply(x)`, whose derivative JAX transposes by `apply_adjoint`, forwards and backwards, under `jax.vmap` too.

    For maps whose adjoint by JAX is right but slow: the transpose of a gather is a scatter. Derivatives with respect to
    what the two functions close over go through their code.
    """
    # The solution of [[I, -A], [0, I]] (u, v) = (0, x) is (A x, x), and JAX has a rule for solutions of linear systems
    # whose transpose is known. One vector holds both, so that the right-hand side is linear in x as a whole.
    n, shape = math.prod(out_shape), x.shape
    parts = lambda z: (z[:n].reshape(out_shape), z[n:].reshape(shape))
    whole = lambda u, v: lax.concatenate([u.reshape(-1), v.reshape(-1)], 0)

    def forward(sign: float) -> Callable[..., Array]:
        def run(z: Array) -> Array:
            u, v = parts(z)
            return whole(u + sign * apply(v), v)

        return run

    def solve_transpose(_: Any, z: Array) -> Array:
        u, v = parts(z)
        return whole(u, v + apply_adjoint(u))

    rhs = lax.pad(x.reshape(-1), jnp.zeros((), x.dtype), [(n, 0, 0)])
    solved = lax.custom_linear_solve(forward(-1.0), rhs, lambda _, z: forward(1.0)(z), solve_transpose)
    return parts(solved)[0]
