"""Iterative refinement: an approximate inverse, applied until the true residual is small."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from neuralops.operator import as_operator
from neuralops.solvers.algebra.vectors import add, apply, ratio, select, sub, while_loop
from neuralops.solvers.krylov.iteration import RUNNING, beginning, check_stopping, filled, first, stopping
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, System

__all__ = ["Refinement"]

MAX_STEPS = 100
PATIENCE = 10  # steps without a smaller residual after which it is not going to fall


class _State(NamedTuple):
    x: Any
    r: Any
    norm: Array
    best: tuple[Any, Any, Array]
    waited: Array
    steps: Array
    code: Array
    history: Array | None


class Refinement(AbstractMethod):
    """The iteration x <- x + M(b - A x) with an approximate inverse M (Wilkinson 1963).

    ```python
    solve(A, b, Refinement(Multigrid(A), rtol=1e-8))                          # a multigrid solver
    solve(A, b, Refinement(Inverse(A, CG(1e-4), dtype="float32"), rtol=1e-12))  # mixed precision
    ```

    Every residual is the true one, formed in the precision of `b`. M may be anything that gains something: it may
    compute in a lower precision, be nonlinear or not symmetric. With M a solve in float32 the result has the accuracy
    of a float64 solve, as long as M gains anything at all (condition numbers up to about 1e6): the smallest residual is
    about epsilon ||A|| ||x|| / ||b|| with the epsilon of `b`.

    A residual that has not fallen for ten steps ends the solve as stagnated; the best iterate is returned.

    **Arguments:**

    - `inverse`: the map M from residual to correction, such as `Multigrid(A)`, `FastPoisson(grid)` or `Inverse`.
    - `rtol`, `atol`: stop when ||b - A x|| <= max(rtol ||b||, atol); may be traced. By default half of the digits,
      the root of epsilon.
    - `max_steps`: the limit on applications of M; may be traced.
    - `history`: whether to keep the relative residuals: `True` keeps the first 1000, a number as many.

    **Raises:** `ValueError` when `inverse` cannot be called, or on negative tolerances or limits.
    """

    needs_symmetry: ClassVar[bool] = False

    inverse: Any
    rtol: Any
    atol: Any
    max_steps: Any
    history: int = eqx.field(static=True)

    def __init__(
        self,
        inverse: Any,
        rtol: Any = None,
        atol: Any = 0.0,
        *,
        max_steps: Any = MAX_STEPS,
        history: bool | int = False,
    ):
        if isinstance(inverse, type) or not callable(inverse):
            raise ValueError(
                f"inverse: expected a callable from residual to correction, got {inverse!r}; use Multigrid(A) or "
                "Inverse(A, method)."
            )
        check_stopping(self, 0.0 if rtol is None else rtol, atol, max_steps, history)
        self.inverse, self.rtol = as_operator(inverse), rtol

    def run(self, system: System) -> Outcome:
        A, b, norm, dot = system.matvec, system.b, system.norm, system.dot
        dtype = norm.dtype
        rtol = math.sqrt(float(jnp.finfo(dtype).eps)) if self.rtol is None else self.rtol
        target, limit = stopping(system, eqx.tree_at(lambda m: m.rtol, self, rtol, is_leaf=lambda v: v is None), dtype)
        growth = float(jnp.finfo(dtype).eps) ** (-2 / 3)

        def judge(size: Array, steps: Array, waited: Array, best: Array) -> Array:
            return first(
                (~jnp.isfinite(size), Result.nonfinite),
                (size <= target, Result.converged),
                (steps >= limit, Result.max_steps),
                ((waited >= PATIENCE) | (size > growth * best), Result.stagnated),
                (True, RUNNING),
            )

        def advance(state: _State) -> _State:
            x = add(state.x, apply("inverse", self.inverse, state.r))
            r = sub(b, A(x))
            size = dot.norm(r)
            better = size < state.best[2]
            best = select(better, (x, r, size), state.best)
            steps, waited = state.steps + 1, jnp.where(better, 0, state.waited + 1)
            history = state.history
            if history is not None:
                history = history.at[steps].set(size / norm, mode="drop")
            return _State(x, r, size, best, waited, steps, judge(size, steps, waited, best[2]), history)

        x, r = beginning(system)
        size, zero = dot.norm(r), jnp.zeros((), jnp.int32)
        history = jnp.zeros((self.history,), dtype).at[0].set(ratio(size, norm)) if self.history else None
        state = _State(x, r, size, (x, r, size), zero, zero, judge(size, zero, zero, size), history)
        state = while_loop(lambda s: s.code == RUNNING, advance, state)
        x, r, _ = state.best
        history = None if state.history is None else filled(state.history, state.steps)
        return Outcome(x, r, target, state.code, state.steps, history)
