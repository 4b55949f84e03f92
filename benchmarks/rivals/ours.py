"""neuralops: matrix-free CG, multigrid CG and the fast Poisson solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, solve
from rivals.clock import Refused, Steps
from rivals.problems import Problem
from rivals.stencil import coefficients

__all__ = ["METHODS", "grid_of", "operator"]


def grid_of(p: Problem) -> Grid:
    return Grid(p.points, boundary=p.boundary, centering=p.centering)


def operator(grid: Grid, given: tuple[Any, Any]) -> Diffusion:
    a, mask = given
    return Diffusion(grid) if a is None else Diffusion.from_coefficient(grid, a, mask=mask)


def _steps(
    p: Problem,
    prepare: Callable[[Grid, tuple[Any, Any]], Any],
    method: Callable[[Any, float], Any],
    hierarchy: bool = False,
) -> Steps:
    """`prepare` makes (A, preconditioner) from the coefficients, `method` the method from the preconditioner."""
    grid, given, b = grid_of(p), coefficients(p), jnp.asarray(p.b)
    rebuild = jax.jit(lambda c: prepare(grid, c))

    def compile(state: Any, rtol: float) -> Callable[[], Any]:
        compiled = jax.jit(lambda s, b: solve(s[0], b, method(s[1], rtol))).lower(state, b).compile()
        return lambda: jax.block_until_ready(compiled(state, b))

    def whole(rtol: float) -> Callable[[], Any]:
        def program(c: Any, b: Any) -> Any:
            A, inverse = prepare(grid, c)
            return solve(A, b, method(inverse, rtol))

        compiled = jax.jit(program).lower(given, b).compile()
        return lambda: jax.block_until_ready(compiled(given, b))

    return Steps(lambda: jax.block_until_ready(rebuild(given)), compile, _read, whole if hierarchy else None)


def _read(solution: Any) -> tuple[Any, int, str]:
    return solution.value, int(solution.num_steps), solution.message


def _cg(p: Problem) -> Steps:
    return _steps(p, lambda grid, c: (operator(grid, c), None), lambda _, rtol: CG(rtol))


def _multigrid(alone: bool = False, **options: Any) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        from neuralops.solvers import Multigrid, Refinement

        def prepare(grid: Grid, c: Any) -> Any:
            A = operator(grid, c)
            return A, Multigrid(A, **options)

        method = lambda M, rtol: Refinement(M, rtol) if alone else CG(rtol, preconditioner=M)
        return _steps(p, prepare, method, hierarchy=True)

    return make


def _fast(p: Problem) -> Steps:
    if p.a is not None or p.mask is not None:
        raise Refused("unit coefficient on a full box only")
    return _steps(p, lambda grid, c: (operator(grid, c), FastPoisson(grid)), lambda inverse, _: inverse)


def _fast_scaled(p: Problem) -> Steps:
    """CG with a^(-1/2) (fast Poisson) a^(-1/2)."""
    if p.mask is not None or p.a is None:
        raise Refused("made for a positive coefficient")

    def prepare(grid: Grid, c: Any) -> Any:
        return operator(grid, c), jax.lax.rsqrt(c[0])

    inverse = FastPoisson(grid_of(p))
    return _steps(p, prepare, lambda s, rtol: CG(rtol, preconditioner=lambda r: s * inverse(s * r)))


METHODS: dict[str, Callable[[Problem], Steps]] = {
    "ours-mg11": _multigrid(pre=1, post=1),
    "ours-mg22": _multigrid(pre=2, post=2),
    "ours-mg11-f32": _multigrid(pre=1, post=1, dtype="float32"),
    "ours-mg22-f32": _multigrid(pre=2, post=2, dtype="float32"),
    "ours-nodes11": _multigrid(pre=1, post=1, coarsening="nodes"),
    "ours-nodes11-f32": _multigrid(pre=1, post=1, coarsening="nodes", dtype="float32"),
    "ours-nodes22-f32": _multigrid(pre=2, post=2, coarsening="nodes", dtype="float32"),
    "ours-mg22-alone": _multigrid(alone=True, pre=2, post=2),
    "ours-jacobi22": _multigrid(pre=2, post=2, smoother="jacobi"),
    "ours-fast": _fast,
    "ours-cg-fast": _fast_scaled,
    "ours-cg": _cg,
}
