"""What Krylov methods share: when to stop, whom to believe, what to return.

A method takes steps with a residual it updates as it goes. That residual drifts away from the truth by rounding (in
single precision soon, on a large grid soon), so it is only trusted until it says that the solve is done: then the true
residual b - A x decides, and if it disagrees a new *round* starts from the iterate reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from neuralops.arguments import count, flag
from neuralops.operator import as_operator
from neuralops.solvers.algebra.vectors import PRECISIONS, ratio, select, sub, while_loop, zeros_like
from neuralops.solvers.solution import Outcome, Result, System, check_number

__all__ = [
    "RUNNING", "Step", "beginning", "check_dot", "check_preconditioner", "check_stopping", "filled", "first", "iterate",
    "stopping",
]  # fmt: skip

DEFAULT_HISTORY = 1000  # entries kept by history=True
RUNNING = -1
REPLAY = 100
STALL = 0.5  # a round that does not reduce the true residual by this factor has reached the attainable accuracy
DRIFT = 10.0  # true over recursed residual above which a round has lost its accuracy to rounding
PROBE = 0.1  # how far the round after that aims: enough to tell progress from a stall
PATIENCE = 100  # steps without a smaller residual after which an operator that is not symmetric is given up
FLATS = 5  # steps without gain along directions that A maps to zero up to rounding, after which it is singular
GROWTH = 10.0  # last over smallest residual above which a solve cut short returns the smaller one


class Step(NamedTuple):
    """Where a method stands after a step: iterate, recursed residual, its squared norm, the method's own memory.

    `code` is `RUNNING`, or how the solve ends; a last step is not taken. `rejected` marks a step whose proposed
    direction was of no use, though the method goes on. `flat` marks a direction that A maps to zero up to rounding.
    """

    x: Any
    r: Any
    squared: Array
    memory: Any
    code: Array
    rejected: Array | bool = False
    flat: Array | bool = False


class _Inner(NamedTuple):
    step: Step
    steps: Array  # of this round
    rejected: Array
    history: Array | None
    best: Array  # the smallest squared residual after a step of the round, and after how many
    best_steps: Array
    flats: Array  # steps in a row along directions that A maps to zero, without gain


class _Outer(NamedTuple):
    x: Any  # at the start of the next round, with its true residual
    r: Any
    true_norm: Array
    aim: Array  # by which factor the round reduces the residual at most
    steps: Array
    rejected: Array
    code: Array  # from REPLAY on: the next round repeats the last one up to its best iterate, then it ends
    replay: Array  # which is after so many steps
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


def iterate(system: System, method: Any, begin: Callable[[Any, Any], Any], step: Callable[[Step], Step]) -> Outcome:
    """Runs rounds of steps until the true residual meets the tolerance or nothing more is to be gained.

    **Arguments:**

    - `system`: the system, whose `dot` has the precision that the method wants.
    - `method`: holds `rtol`, `atol`, `max_steps` and `history`.
    - `begin`: the method's memory at the start of a round, from the residual there and the dtype of sums.
    - `step`: one step.
    """
    A, b, norm, dot = system.matvec, system.b, system.norm, system.dot
    x, r = beginning(system)
    true_norm = dot.norm(r)
    dtype = true_norm.dtype
    epsilon = float(jnp.finfo(jax.tree.leaves(b)[0].dtype).eps)
    growth = epsilon ** (-2 / 3)  # residuals of CG grow by the root of the condition number at most
    target, limit = stopping(system, method, dtype)
    zero, running = jnp.zeros((), jnp.int32), jnp.full((), RUNNING, jnp.int32)

    def round_(outer: _Outer) -> _Outer:
        replaying = outer.code >= REPLAY
        aim = jnp.maximum(target, outer.aim * outer.true_norm)
        bound = growth * outer.true_norm
        end = jnp.where(replaying, outer.replay, limit - outer.steps)

        def unfinished(state: _Inner) -> Array:
            squared = state.step.squared
            going = (squared > aim**2) & (squared < bound**2) & (state.steps < end) & (state.step.code == RUNNING)
            going = going & (state.flats < FLATS)
            if system.asymmetric is False:
                return going
            return going & ~(system.asymmetric & (state.steps - state.best_steps >= PATIENCE))

        def advance(state: _Inner) -> _Inner:
            after = step(state.step)
            going = after.code == RUNNING
            steps = state.steps + going
            better = going & (after.squared < state.best)
            flat = going & after.flat & ~(after.squared < 0.98 * state.step.squared)
            return _Inner(
                after._replace(flat=jnp.asarray(after.flat)),
                steps,
                state.rejected + (going & after.rejected),
                record(state.history, steps, jnp.sqrt(after.squared)),
                jnp.where(better, after.squared, state.best),
                jnp.where(better, steps, state.best_steps),
                jnp.where(flat, state.flats + 1, 0),
            )

        def record(history: Array | None, steps: Array, size: Array) -> Array | None:
            if history is None:
                return None
            place = jnp.where(replaying, history.size, outer.steps + steps)  # out of range: not written again
            return history.at[place].set((size / norm).astype(history.dtype), mode="drop")

        start = Step(outer.x, outer.r, outer.true_norm**2, begin(outer.r, dtype), running, flat=jnp.asarray(False))
        inner = _Inner(start, zero, zero, outer.history, jnp.full((), jnp.inf, dtype), zero, zero)
        inner = while_loop(unfinished, advance, inner)
        last, diverged = inner.step, ~(inner.step.squared < bound**2)
        steps = outer.steps + jnp.where(replaying, 0, inner.steps)
        new_r = sub(b, A(last.x))
        new_norm = dot.norm(new_r)
        flat = (inner.flats >= FLATS) | (((last.code == Result.breakdown) | diverged) & last.flat)

        code = first(
            (new_norm <= target, Result.converged),
            (replaying, outer.code - REPLAY),
            (~jnp.isfinite(new_norm), Result.nonfinite),
            # Rounding has a part outside the range too, of which nobody is to blame.
            (flat & (new_norm > math.sqrt(epsilon) * norm) & (system.null_space is None), Result.singular),
            (flat, Result.stagnated),
            (last.code != RUNNING, last.code),
            (diverged, Result.breakdown),
            (steps >= limit, Result.max_steps),
            (~(new_norm < STALL * outer.true_norm), Result.stagnated),
            (True, RUNNING),
        )
        if system.asymmetric is not False:  # whatever else went wrong, that is why
            wrong = (code != RUNNING) & (code != Result.converged) & (code != Result.nonfinite) & ~replaying
            code = jnp.where(wrong & system.asymmetric, Result.asymmetric, code).astype(jnp.int32)
        # A solve cut short returns its last iterate, whose error in the energy norm is smallest, though a smooth source
        # makes residuals jump above that of the start at once. If they kept on growing, and when a solve has gone
        # wrong, the iterate of smallest residual is returned. It is found by repeating the round, so that no copy has
        # to be made at every step.
        failed, cut = (code != RUNNING) & (code != Result.converged), code == Result.max_steps
        again = failed & ~replaying & (inner.best_steps < inner.steps)
        again = again & ~(last.squared <= jnp.where(cut, GROWTH**2, 4) * inner.best)
        worse = failed & ~(new_norm < jnp.where(cut, GROWTH, 1) * outer.true_norm)
        back = worse | again
        return _Outer(
            x=select(back, outer.x, last.x),
            r=select(back, outer.r, new_r),
            true_norm=jnp.where(back, outer.true_norm, new_norm),
            aim=jnp.where(new_norm > DRIFT * jnp.sqrt(last.squared), PROBE, epsilon).astype(dtype),
            steps=steps,
            rejected=outer.rejected + jnp.where(replaying, 0, inner.rejected),
            code=jnp.where(again, code + REPLAY, code),
            replay=inner.best_steps,
            history=record(inner.history, inner.steps, new_norm),
        )

    history = None
    if method.history:
        history = jnp.zeros((method.history,), norm.dtype).at[0].set(ratio(true_norm, norm).astype(norm.dtype))
    code = first(
        (~jnp.isfinite(true_norm), Result.nonfinite),
        (true_norm <= target, Result.converged),
        (limit <= 0, Result.max_steps),
        (True, RUNNING),
    )
    state = _Outer(x, r, true_norm, jnp.full((), epsilon, dtype), zero, zero, code, zero, history)
    state = while_loop(lambda s: (s.code == RUNNING) | (s.code >= REPLAY), round_, state)
    history = None if state.history is None else filled(state.history, state.steps)
    return Outcome(state.x, state.r, target, state.code, state.steps, history, state.rejected)


def filled(history: Array, steps: Array) -> Array:
    """Residuals after 0 to `steps` steps, the last of them repeated to the end."""
    return jnp.where(jnp.arange(history.size) > steps, history[jnp.minimum(steps, history.size - 1)], history)


def first(*cases: tuple[Any, Any]) -> Array:
    """The code of the first condition that holds. (`jnp.select` compiles to a reduction.)"""
    code = jnp.asarray(cases[-1][1], jnp.int32)
    for condition, value in reversed(cases[:-1]):
        code = jnp.where(condition, jnp.asarray(value, jnp.int32), code)
    return code


def check_stopping(method: Any, rtol: Any, atol: Any, max_steps: Any, history: bool | int) -> None:
    """Sets the fields that say when to stop.

    **Raises:** `ValueError` on negative or wrong numbers.
    """
    for name, value in (("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
        check_number(name, value)
    if isinstance(history, bool) or getattr(history, "dtype", None) == jnp.bool_:
        history = DEFAULT_HISTORY if flag(history, "history") else 0
    history = count(history, "history", 0, hint="use history=True, or how many entries to keep.")
    method.rtol, method.atol, method.max_steps, method.history = rtol, atol, max_steps, history


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
