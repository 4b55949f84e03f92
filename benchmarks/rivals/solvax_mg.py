"""solvax: its pcg with its multigrid, its flux form, its fast diagonalisation.

Its multigrid asks the user for every coarse operator. What a careful user writes is here: rediscretisation where the
coefficient is one, coarse faces as means of fine ones where it varies, damped Jacobi, a dense coarsest solve, and two
choices of transfers: its own (`mg`: bilinear; odd sizes at nodes, even ones in cells with its reflective closure), or
sums and copies of cells (`sum`), by one small matrix per axis like its own, which suit jumps and masks better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import solvax
from solvax.pcg import status_name
from solvax.precond import dense_coarse_solve, mixed_precision, multigrid, semicoarsening_hierarchy
from solvax.transfer import coarsening_plan

from rivals.clock import Refused, Steps
from rivals.problems import Problem
from rivals.stencil import coefficients, faces_of, stencil

__all__ = ["METHODS"]

SMALLEST = 7  # least points per side of a coarse grid; 4 to 32 were tried
LARGEST_DENSE = 5000  # unknowns that a dense coarsest solve may have
SHIFT = 1e-6  # of the diagonal, on the coarsest grid of a singular system


def _coarse(faces: tuple[Any, ...]) -> tuple[Any, ...]:
    """Every other face, the mean of the fine faces that make it up, over the doubled spacing."""
    out = []
    for axis, c in enumerate(faces):
        c = c[tuple(slice(None, None, 2) if i == axis else slice(None) for i in range(c.ndim))]
        paired = [s for i, n in enumerate(c.shape) for s in ((n, 1) if i == axis else (n // 2, 2))]
        out.append(jnp.mean(c.reshape(paired), tuple(range(1, 2 * c.ndim, 2))) / 4)
    return tuple(out)


def _sums(shape: tuple[int, ...]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Restriction by means of cells, prolongation by copies."""
    copies = [jnp.repeat(jnp.eye(n // 2), 2, axis=0) for n in shape]

    def along(matrices: list[Any], u: Any) -> Any:
        for axis, m in enumerate(matrices):
            u = jnp.moveaxis(jnp.tensordot(m.astype(u.dtype), u, axes=[[1], [axis]]), 0, axis)
        return u

    return lambda r: along([m.T / 2 for m in copies], r), lambda e: along(copies, e)


def _hierarchy(p: Problem, given: tuple[Any, Any], kind: str, sweeps: int, dtype: Any) -> tuple[Any, Any, Any]:
    """(fine matvec, preconditioner, arrays in it), eagerly or inside jit."""
    closure = "dirichlet" if p.centering == "node" else "reflective"
    everywhere, shape = (True,) * p.ndim, p.points
    smallest = min(SMALLEST, shape[0] // 2)  # so that tiny trial sizes have two levels
    plan = coarsening_plan(shape, everywhere, levels=20, boundary=closure, min_size=smallest)
    if not plan.masks or math.prod(plan.shapes[-1]) > LARGEST_DENSE:
        side = "odd" if closure == "dirichlet" else "even"
        raise Refused(f"{len(plan.shapes)} level(s), coarsest {plan.shapes[-1]}: its transfers need {side} sizes")
    fine = faces_of(p, given, p.spacing, shape)
    table, faces = {}, fine
    for level in plan.shapes:
        if given[0] is None and level != shape:
            faces = faces_of(p, given, 1 / level[0] if p.centering == "cell" else 1 / (level[0] + 1), level)
        elif level != shape:
            faces = _coarse(faces)
        table[level] = stencil(tuple(c.astype(dtype) for c in faces), level, padded=True)
    hierarchy = semicoarsening_hierarchy(
        shape, everywhere, table.__getitem__, levels=20, boundary=closure, min_size=smallest, dtype=dtype
    )
    levels = hierarchy.levels
    if kind == "sum":
        pairs = [_sums(level.restrict.input_shape) for level in levels]
        levels = [level._replace(restrict=r, prolong=e) for level, (r, e) in zip(levels, pairs, strict=True)]
    matvec, diagonal = table[plan.shapes[-1]]
    shift = SHIFT * diagonal if p.singular else 0  # a regular matrix for the dense solve
    solve = dense_coarse_solve(lambda u: matvec(u.astype(dtype)) + shift * u, plan.shapes[-1])
    damping = 0.8 if p.ndim == 2 else 0.85
    M = multigrid(levels, lambda r: solve(r).astype(dtype), pre_smooth=sweeps, post_smooth=sweeps, damping=damping)
    arrays = [level.smoother for level in levels]  # to wait for
    return stencil(fine, shape, padded=True)[0], M if dtype == jnp.float64 else mixed_precision(M, dtype), arrays


def _multigrid(kind: str, sweeps: int, dtype: Any = jnp.float64) -> Callable[[Problem], Steps]:
    def make(p: Problem) -> Steps:
        if kind == "sum" and p.centering == "node":
            raise Refused("sums and copies are for cells")
        if kind == "mg" and p.singular:
            raise Refused("its transfers know no obstacles")
        given, b = coefficients(p), jnp.asarray(p.b)

        def program(A: Any, M: Any, b: Any, rtol: float) -> Any:
            result = solvax.pcg(A, b, precond=M, rtol=rtol, max_steps=500)
            return result.x, result.iterations, result.status

        def compile(state: Any, rtol: float) -> Callable[[], Any]:
            compiled = jax.jit(lambda b: program(*state, b, rtol)).lower(b).compile()
            return lambda: jax.block_until_ready(compiled(b))

        def whole(rtol: float) -> Callable[[], Any]:
            def everything(given: Any, b: Any) -> Any:
                A, M, _ = _hierarchy(p, given, kind, sweeps, dtype)
                return program(A, M, b, rtol)

            compiled = jax.jit(everything).lower(given, b).compile()
            return lambda: jax.block_until_ready(compiled(given, b))

        def build() -> Any:
            A, M, arrays = _hierarchy(p, given, kind, sweeps, dtype)
            jax.block_until_ready(arrays)
            return A, M

        return Steps(build, compile, _read, whole)

    return make


def _read(result: tuple[Any, Any, Any]) -> tuple[Any, int, str]:
    x, iterations, status = result
    return x, int(iterations), status_name(status)


def _flux_form(p: Problem) -> Steps:
    if p.centering != "cell":
        raise Refused("cell-centred only")
    if p.mask is not None:
        raise Refused("zero conductivity is refused (status non_positive_curvature, NaN); no masks")
    widths = [np.full(n, 1 / n) for n in p.points]
    k, b = 1.0 if p.a is None else jnp.asarray(p.a), jnp.asarray(p.b) * p.spacing**p.ndim

    def build() -> Any:
        operator = solvax.flux_form_operator(widths, ("dirichlet",) * p.ndim, k, 0.0, 1.0)
        return jax.block_until_ready(operator)

    def compile(operator: Any, rtol: float) -> Callable[[], Any]:
        compiled = jax.jit(lambda o, b: o.solve(b, rtol=rtol, max_steps=1000)).lower(operator, b).compile()
        return lambda: jax.block_until_ready(compiled(operator, b))

    def read(result: tuple[Any, Any]) -> tuple[Any, int, str]:
        x, info = result
        return x, int(info.iterations), f"{status_name(info.status)}, converged {bool(info.converged)}"

    return Steps(build, compile, read)


def _fast_diagonal(p: Problem) -> Steps:
    if p.centering != "cell" or p.a is not None or p.mask is not None:
        raise Refused("cell-centred boxes with unit coefficient only")
    widths, b = [np.full(n, 1 / n) for n in p.points], jnp.asarray(p.b)

    def build() -> Any:
        return jax.block_until_ready(solvax.fast_diagonal(widths, ("dirichlet",) * p.ndim))

    def compile(operator: Any, _: float) -> Callable[[], Any]:
        compiled = jax.jit(lambda o, b: o.solve(b)).lower(operator, b).compile()
        return lambda: jax.block_until_ready(compiled(operator, b))

    return Steps(build, compile, lambda x: (x, 1, ""))


METHODS: dict[str, Callable[[Problem], Steps]] = {
    "solvax-mg11": _multigrid("mg", 1),
    "solvax-mg22": _multigrid("mg", 2),
    "solvax-mg22-f32": _multigrid("mg", 2, jnp.float32),
    "solvax-sum11": _multigrid("sum", 1),
    "solvax-sum22": _multigrid("sum", 2),
    "solvax-sum22-f32": _multigrid("sum", 2, jnp.float32),
    "solvax-flux": _flux_form,
    "solvax-fast": _fast_diagonal,
}
