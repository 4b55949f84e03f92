"""Residuals that a solver meets on its way: what a learned direction is used on, and should be trained on."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from neuralops.solvers.algebra.vectors import Dot, ratio, sized, sub
from neuralops.solvers.linear_solve import solve
from neuralops.solvers.solution import AbstractMethod

__all__ = ["visited_residual"]


def visited_residual(A: Any, b: Any, method: AbstractMethod, steps: Int[Array, ""] | int) -> tuple[Any, Any]:
    """The residual after some steps of a method from zero, scaled to unit 2-norm, and the iterate there.

    Under `jax.vmap` over `b` and `steps` it draws a training set in one compiled call (Rudikov et al., ICML 2024, found
    such residuals essential). With the solution e of A e = b, the exact answer to the residual is e minus the iterate,
    over the same norm.

    **Arguments:**

    - `A`, `b`: as in `solve`.
    - `method`: `CG`, `FlexibleCG` or `DeepConjugateDirection`; its tolerances and limit are not used.
    - `steps`: after how many, may be traced.

    **Returns:** the residual b - A x over its norm, and x, both like `b`; zero where nothing is left.

    **Raises:** `ValueError` when the method has no limit on steps to set.
    """
    if not all(hasattr(method, name) for name in ("rtol", "atol", "max_steps")):
        raise ValueError(
            f"method: expected an iterative method such as CG(), got {type(method).__name__}; use CG, FlexibleCG or "
            "DeepConjugateDirection."
        )
    fields = lambda m: (m.rtol, m.atol, m.max_steps)
    cut = eqx.tree_at(fields, method, (0.0, 0.0, jnp.asarray(steps)), is_leaf=lambda v: v is None)
    x = solve(A, b, cut).value
    dot = Dot(tuple(getattr(A, "mesh_axes", ())))
    residual, _ = sized(sub(b, A(x)), dot.mesh_axes)
    size = dot.norm(residual)
    return jax.tree.map(lambda v: v * ratio(jnp.ones_like(size), size).astype(v.dtype), residual), x
