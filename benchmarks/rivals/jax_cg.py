"""Matrix-free CG without a preconditioner: jax.scipy, lineax, solvax's pcg; and a CG that only counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg

from rivals.clock import Steps
from rivals.problems import Problem
from rivals.stencil import coefficients, faces_of, stencil

__all__ = ["METHODS", "counted"]

MOST = 20_000  # steps


def counted(A: Callable[[Any], Any], b: Any, M: Callable[[Any], Any], rtol: float, limit: int = MOST) -> Any:
    """The number of steps jax.scipy's CG takes, which it does not tell: the same recursion."""

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        r, p, gamma, k = state
        q = A(p)
        r = r - gamma / jnp.vdot(p, q) * q
        z = M(r)
        new = jnp.vdot(r, z)
        return r, z + new / gamma * p, new, k + 1

    target = rtol**2 * jnp.vdot(b, b)
    z = M(b)
    start = (b, z, jnp.vdot(b, z), 0)
    return lax.while_loop(lambda s: (jnp.vdot(s[0], s[0]) > target) & (s[3] < limit), step, start)[3]


def lineax_program(A: Callable[[Any], Any], b: Any, atol: Any, limit: int) -> tuple[Any, Any]:
    """lineax's test made the usual one: a 2-norm, and one absolute scale for every entry."""
    import lineax as lx

    operator = lx.FunctionLinearOperator(A, jax.eval_shape(lambda: b), lx.positive_semidefinite_tag)
    norm = lambda v: jnp.sqrt(jnp.vdot(v, v))
    solution = lx.linear_solve(operator, b, lx.CG(0.0, atol, norm=norm, max_steps=limit), throw=False)
    return solution.value, solution.stats["num_steps"]


def solvax_program(A: Callable[[Any], Any], b: Any, rtol: float, limit: int) -> tuple[Any, Any]:
    import solvax

    result = solvax.pcg(A, b, rtol=rtol, max_steps=limit)
    return result.x, result.iterations


def _matrix_free(program: Callable[[Any, Any, float], tuple[Any, Any]], counts: bool) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        faces, b = faces_of(p, coefficients(p), p.spacing, p.points), jnp.asarray(p.b)

        def compile(_: None, rtol: float) -> Callable[[], Any]:
            compiled = jax.jit(lambda c, b: program(stencil(c, p.points)[0], b, rtol)).lower(faces, b).compile()

            return lambda: jax.block_until_ready(compiled(faces, b))

        def count(_: None, rtol: float) -> int:
            return int(jax.jit(lambda c, b: counted(stencil(c, p.points)[0], b, lambda r: r, rtol))(faces, b))

        read = lambda result: (result[0], int(result[1]) if counts else None, "")
        return Steps(lambda: None, compile, read, count=count)

    return make


METHODS: dict[str, Callable[[Problem], Steps]] = {
    "jax-cg": _matrix_free(lambda A, b, rtol: (cg(A, b, tol=rtol, maxiter=MOST)[0], 0), False),
    "lineax-cg": _matrix_free(lambda A, b, rtol: lineax_program(A, b, rtol * jnp.linalg.norm(b), MOST), True),
    "solvax-cg": _matrix_free(lambda A, b, rtol: solvax_program(A, b, rtol, MOST), True),
}
