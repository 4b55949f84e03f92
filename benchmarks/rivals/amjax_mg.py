"""amjax: PyAMG's hierarchies in JAX, inside jax.scipy's CG.

Its default smoother, Jacobi of weight 1, does not damp the highest modes; weight 0.67 does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import amjax
import jax
import jax.numpy as jnp
import pyamg
from jax.scipy.sparse.linalg import cg

from rivals.clock import Steps
from rivals.jax_cg import counted
from rivals.problems import Problem
from rivals.stencil import coefficients, faces_of, stencil

__all__ = ["METHODS"]

WEIGHT = 0.67
MOST = 500


def _amg(builder: str) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        matrix, b = p.matrix(), jnp.asarray(p.b.ravel()[p.inside])
        smoother = ("jacobi", {"iterations": 1, "omega": WEIGHT})
        faces = None if p.mask is not None else faces_of(p, coefficients(p), p.spacing, p.points)

        def build() -> Any:
            hierarchy = getattr(pyamg, builder)(matrix)
            ml = amjax.MultilevelSolver.from_pyamg(hierarchy, presmoother=smoother, postsmoother=smoother)
            return jax.block_until_ready(ml)

        def operator(ml: Any, faces: Any) -> Callable[[Any], Any]:
            if faces is None:  # the hierarchy numbers the unknowns inside only
                return lambda v: ml.levels[0].A @ v
            matvec = stencil(faces, p.points)[0]  # five times faster than its sparse matrix
            return lambda v: matvec(v.reshape(p.points)).ravel()

        def compile(ml: Any, rtol: float) -> Callable[[], Any]:
            def program(ml: Any, faces: Any, b: Any) -> Any:
                return cg(operator(ml, faces), b, tol=rtol, maxiter=MOST, M=ml.aspreconditioner())[0]

            compiled = jax.jit(program).lower(ml, faces, b).compile()
            return lambda: jax.block_until_ready(compiled(ml, faces, b))

        def count(ml: Any, rtol: float) -> int:
            def program(ml: Any, faces: Any, b: Any) -> Any:
                return counted(operator(ml, faces), b, ml.aspreconditioner(), rtol, MOST)

            return int(jax.jit(program)(ml, faces, b))

        return Steps(build, compile, count=count)

    return make


METHODS: dict[str, Callable[[Problem], Steps]] = {
    "amjax-rs": _amg("ruge_stuben_solver"),
    "amjax-sa": _amg("smoothed_aggregation_solver"),
}
