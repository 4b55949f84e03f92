"""Seconds per CG iteration against the bytes it must move and the bytes per second this machine copies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg as spl
from jax.scipy.sparse.linalg import cg

from neuralops.solvers import CG, solve
from rivals.jax_cg import lineax_program, solvax_program
from rivals.ours import grid_of, operator
from rivals.problems import Problem
from rivals.stencil import coefficients, faces_of, stencil

__all__ = ["copy_bandwidth", "iteration_bytes", "per_iteration"]

STEPS = 100
MEGABYTES = 64


def iteration_bytes(p: Problem) -> int:
    """Least traffic of one CG iteration in float64: 11 words per unknown (p: 3, A p with its dot: 2, x: 3, r with its
    norm: 3) and one more per axis for stored face conductances."""
    return 8 * p.b.size * (11 + (p.ndim if p.a is not None or p.mask is not None else 0))


def copy_bandwidth(repeats: int = 20) -> dict[str, float]:
    """Bytes read and written per second with an array of 64 MB: NumPy's copy (one core), and x + 1 again and again in
    a loop of XLA's (all cores, no fresh memory, as in its CG)."""
    source, turns = np.ones(MEGABYTES * 2**20 // 8), 10
    target, there = np.zeros_like(source), jnp.asarray(source)
    loop = jax.jit(lambda x: jax.lax.fori_loop(0, turns, lambda _, x: x + 1, x)).lower(there).compile()
    copy = statistics.median(_times(lambda: np.copyto(target, source), repeats))
    add = statistics.median(_times(lambda: loop(there).block_until_ready(), repeats)) / turns
    return {"numpy": 2 * source.nbytes / copy, "jax": 2 * source.nbytes / add}


def per_iteration(p: Problem, repeats: int) -> dict[str, Any]:
    """Seconds per iteration of every CG, taking turns, from `STEPS` iterations each."""
    b, given, A = jnp.asarray(p.b), coefficients(p), operator(grid_of(p), coefficients(p))
    faces, matrix, flat = faces_of(p, given, p.spacing, p.points), p.matrix(), p.b.ravel()[p.inside]

    def compiled(program: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        run = jax.jit(program).lower(*arguments).compile()
        return lambda: jax.block_until_ready(run(*arguments))

    matvec = lambda c: stencil(c, p.points)[0]
    runs = {
        "ours-cg": compiled(lambda A, b: solve(A, b, CG(0.0, max_steps=STEPS)), A, b),
        "jax-cg": compiled(lambda c, b: cg(matvec(c), b, tol=0.0, maxiter=STEPS)[0], faces, b),
        "lineax-cg": compiled(lambda c, b: lineax_program(matvec(c), b, jnp.asarray(1e-300), STEPS), faces, b),
        "solvax-cg": compiled(lambda c, b: solvax_program(matvec(c), b, 0.0, STEPS), faces, b),
        "scipy-cg": lambda: spl.cg(matrix, flat, rtol=0.0, maxiter=STEPS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            taken = _times(run, 1)[0] / STEPS
            if turn:  # the first only warms up
                seconds[name].append(taken)
    return {
        "iteration": {name: statistics.median(values) for name, values in seconds.items()},
        "bytes": iteration_bytes(p),
        "copy": copy_bandwidth(),
    }


def _times(run: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds
