"""jNO: its CG with its Galerkin multigrid (`jno.precond.gmg`), which reads the stencil of a matvec on a lattice.

Its lattices include the boundary, whose eliminated rows and columns are zero: so the grid is handed over with a ring
around it, which also saves it two steps on cells. The set-up wants concrete values: it stays outside jit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jno
from jno.utils.solver.krylov import cg_counted
from jno.utils.solver.solver_api import LinearOperator

from rivals.clock import Steps
from rivals.problems import Problem
from rivals.stencil import coefficients, faces_of, stencil

__all__ = ["METHODS"]

SHIFT = 1e-6  # of the diagonal


def _galerkin(sweeps: int) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        shape, inner = tuple(n + 2 for n in p.points), (slice(1, -1),) * p.ndim
        faces = faces_of(p, coefficients(p), p.spacing, p.points)
        matvec, diagonal = stencil(faces, p.points, padded=True)
        size = math.prod(shape)
        flat = jax.jit(lambda v: jnp.pad(matvec(v.reshape(shape)[inner]), 1).ravel())
        regular = flat
        if p.singular:  # its dense coarsest factors need a regular matrix: the preconditioner sees a shifted one
            shift = jnp.pad(SHIFT * diagonal, 1).ravel()
            regular = jax.jit(lambda v: flat(v) + shift * v)
        inside, b = jnp.pad(jnp.ones(p.points), 1).ravel(), jnp.pad(jnp.asarray(p.b), 1).ravel()

        def build() -> Any:
            operator = LinearOperator.from_matvec(regular, shape=(size, size))
            context = jno.precond.PrecondContext(operator, grid={"shape": shape, "periodic": ()})
            return jno.precond.gmg(n_pre=sweeps, n_post=sweeps).materialize(context)

        def compile(vcycle: Any, rtol: float) -> Callable[[], Any]:
            M = lambda r: inside * vcycle(inside * r)
            program = jax.jit(lambda b: cg_counted(flat, b, M=M, tol=rtol, maxiter=500))
            compiled = program.lower(b).compile()

            return lambda: jax.block_until_ready(compiled(b))

        return Steps(build, compile, lambda result: (result[0].reshape(shape)[inner], int(result[1]), ""))

    return make


METHODS: dict[str, Callable[[Problem], Steps]] = {"jno-mg11": _galerkin(1), "jno-mg22": _galerkin(2)}
