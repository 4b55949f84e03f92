"""What Krylov methods share: when to stop, whom to believe, what to return.

A method takes steps with a residual it updates as it goes. That residual drifts away from the truth by rounding (in
single precision soon, on a large grid soon), so it is only trusted until it says that the solve is done: then the true
residual b - A x decides, and if it disagrees a new *round* starts from the iterate reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.operator import as_operator
from neuralops.solvers.solution import Outcome, Result, System, check_number
from neuralops.solvers.vectors import PRECISIONS, ratio, select, sub, while_loop, zeros_like

__all__ = ["RUNNING", "Step", "beginning", "check_dot", "check_preconditioner", "check_stopping", "iterate", "stopping"]

DEFAULT_HISTORY = 1000  # entries kept by history=True
RUNNING = -1
STALL = 0.5  # a round that does not reduce the true residual by this factor has reached the attainable accuracy
DRIFT = 10.0  # true over recursed residual above which a round has lost its accuracy to rounding
PROBE = 0.1  # how far the round after that aims: enough to tell progress from a stall
GROWTH = 100.0  # last over smallest residual above which a solve cut short returns the smaller one


class Step(NamedTuple):
    """Where a method stands after a step: iterate, recursed residual, its squared norm, the method's own memory.

    `code` is `RUNNING`, or how the solve ends; a last step is not taken. `rejected` marks a step that found no usable
    direction and left the iterate where it was, though the method goes on.
    """

    x: Any
    r: Any
    squared: Array
    memory: Any
    code: Array
    rejected: Array | bool = False


class _Inner(NamedTuple):
    step: Step
    steps: Array
    rejected: Array
    history: Array | None
    best: Array  # the smallest squared residual of the round, and after how many steps
    best_steps: Array


class _Outer(NamedTuple):
    x: Any  # at the start of the next round, with its true residual
    r: Any
    true_norm: Array
    aim: Array  # by which factor the round reduces the residual at most
    begin: Array  # steps taken before the next round
    steps: Array  # and in all
    rejected: Array
    replay: Array  # where to end the next round, which repeats the last one up to its best iterate; -1 if it is new
    code: Array
    ending: Array  # the code to end with after a replay
    history: Array | None


def stopping(system: System, method: Any, dtype: Any) -> tuple[Array, Array]:
    """The norm of the residual to reach, and the limit on steps, by default ten times the number of unknowns."""
    size = sum(leaf.size for leaf in jax.tree.leaves(system.b))
    limit = min(10 * size, 2**31 - 1) if method.max_steps is None else method.max_steps
    target = jnp.maximum(method.rtol * system.norm, method.atol / system.unit)
    return target.astype(dtype), jnp.asarray(limit, jnp.int32)


def beginning(system: System) -> tuple[Any, Any]:
    """The first iterate and its residual; a start whose residual is not finite is ignored."""
    zero = zeros_like(system.b)
    if system.x0 is None:
        return zero, system.b
    residual = sub(system.b, system.matvec(system.x0))
    usable = jnp.isfinite(system.dot.norm(residual)) & (system.norm > 0)
    return select(usable, system.x0, zero), select(usable, residual, system.b)


def iterate(system: System, method: Any, begin: Callable[[Any], Any], step: Callable[[Step], Step]) -> Outcome:
    """Runs rounds of steps until the true residual meets the tolerance or nothing more is to be gained.

    **Arguments:**

    - `system`: the system, whose `dot` has the precision that the method wants.
    - `method`: holds `rtol`, `atol`, `max_steps` and `history`.
    - `begin`: the method's memory at the start of a round, from the residual there.
    - `step`: one step.
    """
    A, b, norm, dot = system.matvec, system.b, system.norm, system.dot
    x, r = beginning(system)
    squared = dot(r, r)
    dtype = squared.dtype
    epsilon = float(jnp.finfo(jax.tree.leaves(b)[0].dtype).eps)
    growth = epsilon ** (-2 / 3)  # residuals of CG grow by the root of the condition number at most
    target, limit = stopping(system, method, dtype)

    def unfinished(state: _Inner, aim: Array, bound: Array, end: Array) -> Array:
        squared = state.step.squared
        return (squared > aim**2) & (squared < bound**2) & (state.steps < end) & (state.step.code == RUNNING)

    def advance(state: _Inner) -> _Inner:
        after = step(state.step)
        going = after.code == RUNNING
        steps = state.steps + going
        rejected = state.rejected + (going & after.rejected)
        better = going & (after.squared < state.best)
        history = state.history
        if history is not None:
            history = history.at[steps].set((jnp.sqrt(after.squared) / norm).astype(history.dtype), mode="drop")
        best, best_steps = jnp.where(better, after.squared, state.best), jnp.where(better, steps, state.best_steps)
        return _Inner(after, steps, rejected, history, best, best_steps)

    def round_(outer: _Outer) -> _Outer:
        replaying = outer.replay >= 0
        squared = outer.true_norm**2
        running, nothing = jnp.asarray(RUNNING, jnp.int32), jnp.zeros((), jnp.int32)
        start = Step(outer.x, outer.r, squared, begin(outer.r), running)
        aim = jnp.maximum(target, outer.aim * outer.true_norm)
        bound, end = growth * outer.true_norm, jnp.where(replaying, outer.replay, limit)
        inner = while_loop(
            lambda state: unfinished(state, aim, bound, end),
            advance,
            _Inner(start, outer.begin, nothing, outer.history, squared, outer.begin),
        )
        last = inner.step
        steps = jnp.where(replaying, outer.steps, inner.steps)
        new_r = sub(b, A(last.x))
        new_norm = dot.norm(new_r)
        history = inner.history
        if history is not None:
            history = history.at[inner.steps].set((new_norm / norm).astype(history.dtype), mode="drop")
        finite, stalled = jnp.isfinite(new_norm), ~(new_norm < STALL * outer.true_norm)
        diverged = ~(last.squared < bound**2) & (last.code == RUNNING)
        code = jnp.select(
            [finite & (new_norm <= target), replaying, ~finite, last.code != RUNNING, diverged, steps >= limit,
             stalled],
            [
                Result.converged, outer.ending, Result.nonfinite, last.code, Result.breakdown, Result.max_steps,
                Result.stagnated,
            ],
            RUNNING,
        ).astype(jnp.int32)  # fmt: skip
        # The last iterate of a solve cut short is the one whose error in the energy norm is smallest, even where its
        # residual is not; of a solve gone wrong the one with the smallest residual is kept. It is found by
        # repeating the round, so that no copy has to be made at every step.
        failed = (code != RUNNING) & (code != Result.converged)
        margin = jnp.where(code == Result.max_steps, GROWTH, 2.0).astype(dtype)
        passed = failed & ~replaying & (inner.best_steps < steps) & ~(last.squared <= margin**2 * inner.best)
        again = passed & (inner.best_steps > outer.begin)
        worse = failed & ~(new_norm < jnp.where((code == Result.max_steps) & ~passed, GROWTH, 1.0) * outer.true_norm)
        back = worse | again
        drifted = new_norm > DRIFT * jnp.sqrt(last.squared)
        return _Outer(
            x=select(back, outer.x, last.x),
            r=select(back, outer.r, new_r),
            true_norm=jnp.where(back, outer.true_norm, new_norm),
            aim=jnp.where(drifted, PROBE, epsilon).astype(dtype),
            begin=jnp.where(again, outer.begin, steps),
            steps=steps,
            rejected=outer.rejected + jnp.where(replaying, 0, inner.rejected),
            replay=jnp.where(again, inner.best_steps, -1),
            code=jnp.where(again, RUNNING, code),
            ending=code,
            history=history,
        )

    true_norm = jnp.sqrt(squared)
    history = None
    if method.history:
        history = jnp.full((method.history,), jnp.nan, norm.dtype).at[0].set(ratio(true_norm, norm).astype(norm.dtype))
    code = jnp.select(
        [~jnp.isfinite(true_norm), true_norm <= target, limit <= 0],
        [Result.nonfinite, Result.converged, Result.max_steps],
        RUNNING,
    ).astype(jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    state = _Outer(x, r, true_norm, jnp.asarray(epsilon, dtype), zero, zero, zero, zero - 1, code, code, history)
    state = while_loop(lambda s: s.code == RUNNING, round_, state)
    return Outcome(state.x, state.r, target, state.code, state.steps, state.history, state.rejected)


def check_stopping(method: Any, rtol: Any, atol: Any, max_steps: Any, history: bool | int) -> None:
    """Sets the fields that say when to stop.

    **Raises:** `ValueError` on negative or wrong numbers.
    """
    for name, value in (("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
        check_number(name, value)
    if isinstance(history, bool):
        history = DEFAULT_HISTORY if history else 0
    if not isinstance(history, int | np.integer) or history < 0:
        raise ValueError(f"history: expected a bool or a count of entries, got {history!r}; use history=True.")
    method.rtol, method.atol, method.max_steps, method.history = rtol, atol, max_steps, int(history)


def check_preconditioner(preconditioner: Any) -> Any:
    """A preconditioner as a pytree.

    **Raises:** `ValueError` when it cannot be called.
    """
    if isinstance(preconditioner, type) or (preconditioner is not None and not callable(preconditioner)):
        raise ValueError(
            f"preconditioner: expected a callable from residual to correction, got {preconditioner!r}; "
            "use FastPoisson(grid)."
        )
    return None if preconditioner is None else as_operator(preconditioner)


def check_dot(dot: Any) -> str | None:
    """**Raises:** `ValueError` on an unknown word."""
    if dot not in PRECISIONS:
        raise ValueError(f"dot: expected None, 'float64' or 'compensated', got {dot!r}; use one of these.")
    return dot
