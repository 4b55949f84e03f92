"""How fast preconditioned conjugate gradients reduce the energy of an error: what a learned cycle is trained on."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.solvers.algebra.vectors import sized

__all__ = ["energy_decay"]


def energy_decay(A: Any, M: Any, e: Float[Array, "*grid"], *, steps: int = 6, skip: int = 1) -> Float[Array, ""]:
    """The mean logarithm of ||e_k||_A / ||e_(k-1)||_A over conjugate gradient steps k from `skip` + 1 to `steps`.

    The steps are those of `FlexibleCG(memory=1)`, which for a symmetric positive definite `M` are those of `CG`.

    The error starts as `e` and is known throughout, so nothing needs to be solved: a good choice is M(w) with white
    noise w, for which A e is nearly w. With one step and no skip it is the logarithm of `angle_loss`; with more, the
    later steps meet what the earlier ones left, the errors that the preconditioner `M` is worst at. Gradients flow
    through A, M and every step. `steps` is static. As in a solve, the residuals that `M` sees begin with entries of at
    most about 1, whatever the size of `e` and of A.

    The number of steps that reduce the energy norm by 1e-6 is about log(1e-6) over it.
    """

    dot = jnp.vdot

    def advance(state: tuple[Array, Array, Array, Array, Array], _: None) -> tuple[Any, Array]:
        e, r, p, q, curvature = state
        z = sized(M(r))[0]
        p = z - dot(z, q) / curvature * p
        q = A(p) / unit
        curvature = dot(p, q)
        alpha = dot(p, r) / curvature
        e, r = e - alpha * p, r - alpha * q
        return (e, r, p, q, curvature), dot(e, A(e) / unit)

    e, _ = sized(e)
    r, unit = sized(A(e))
    none = jnp.zeros_like(e)
    start = (e, r, none, none, jnp.full((), jnp.inf, e.dtype))
    energies = jnp.concatenate([dot(e, r)[None], lax.scan(advance, start, None, length=steps)[1]])
    return 0.5 * (jnp.log(energies[-1]) - jnp.log(energies[skip])) / (steps - skip)
