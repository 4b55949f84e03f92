"""Flexible conjugate gradients: for preconditioners that are nonlinear, not symmetric or change from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.arguments import count
from neuralops.solvers.algebra.vectors import Dot, apply, largest, power_of_two, select
from neuralops.solvers.krylov.cg import FLAT
from neuralops.solvers.krylov.directions import Directions, no_directions, orthogonalised, remember, search, stepped
from neuralops.solvers.krylov.iteration import (
    RUNNING,
    Step,
    check_dot,
    check_preconditioner,
    check_stopping,
    iterate,
)  # fmt: skip
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, System

__all__ = ["FlexibleCG"]

POOR = 0.1  # the standard that a first answer is held to


class _Memory(NamedTuple):
    """The directions kept, and what tells a poor answer."""

    kept: Directions
    sharpest: Array  # the largest eigenvalue of A seen so far, from below
    standard: Array  # what the last step along the residual gained, relative to what steepest descent is sure to gain
    unit: Array  # a power of two of the size of answers, 0 before a proper one
    plain: Array  # whether the next direction is to be made from the residual itself


class FlexibleCG(AbstractMethod):
    """Conjugate gradients with explicit orthogonalisation (Notay 2000), whose preconditioner may be any map.

    Each direction is the preconditioner's answer to the residual, made A-orthogonal to the last `memory` directions,
    and each step is the best along its direction. So no step can do harm, and a step is at least as good as steepest
    descent along the answer: if ||B(r) - A^-1 r||_A <= e ||A^-1 r||_A with e < 1, every step reduces the error in the
    energy norm by e or better. With `memory=1` and a fixed symmetric positive definite preconditioner the iterates are
    those of CG.

    For inner iterations (`Inverse(A, CG(max_steps=5))`), cycles with different smoothing before and after, and learned
    maps. An answer is rejected that is NaN or infinite, vanishes, or has no curvature up to rounding; one is poor that
    gained less than a step along the residual did last (at first: than a tenth of what steepest descent is sure to
    gain). After either the next step takes the residual itself. `Solution.num_rejected` counts them; they count as
    steps. With `memory` 2 or more random advice then costs about three times the steps of plain CG.

    Stops, confirms and reports as `CG` does.

    **Arguments:**

    - `rtol`, `atol`, `max_steps`, `history`, `dot`: as in `CG`.
    - `memory`: the number of earlier directions kept, at least 1. More helps the more nonlinear the preconditioner is;
      each costs two vectors of memory, and the traffic of two per step.
    - `preconditioner`: a map from residual to correction. By default none.

    Old directions are dropped one by one (truncation). Notay's restarts, which keep max(1, k mod (memory + 1)) at step
    k, save nothing in buffers of fixed length, and took up to 6 % more steps (inner iterations, sign-dependent scaling,
    Gauss-Seidel sweeps in one order; memory 3 to 10).

    **Raises:** `ValueError` on negative tolerances or limits, or a memory below 1.
    """

    rtol: Any
    atol: Any
    max_steps: Any
    preconditioner: Any
    memory: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    dot: str | None = eqx.field(static=True)

    def __init__(
        self,
        rtol: Any = 1e-6,
        atol: Any = 0.0,
        *,
        memory: int = 2,
        max_steps: Any = None,
        preconditioner: Any = None,
        history: bool | int = False,
        dot: str | None = None,
    ):
        check_stopping(self, rtol, atol, max_steps, history)
        self.preconditioner = check_preconditioner(preconditioner)
        self.memory, self.dot = count(memory, "memory"), check_dot(dot)

    def run(self, system: System) -> Outcome:
        A, dot = system.matvec, Dot(system.dot.mesh_axes, self.dot)
        epsilon = float(jnp.finfo(jax.tree.leaves(system.b)[0].dtype).eps)

        def begin(r: Any, dtype: Any) -> _Memory:
            nothing = jnp.zeros((), dtype)
            kept = no_directions(A, self.memory, r, dtype, dot)
            return _Memory(kept, nothing, nothing + POOR, nothing, jnp.zeros((), bool))

        def step(at: Step) -> Step:
            memory: _Memory = at.memory
            z, unit = at.r, memory.unit
            if self.preconditioner is not None:
                answer = apply("preconditioner", self.preconditioner, at.r)
                look = lambda: largest(answer, dot.mesh_axes).astype(unit.dtype)
                unit = lax.cond(unit > 0, lambda: unit, look)  # once, for a look costs a twentieth of a cheap cycle
                unit = jnp.where(jnp.isfinite(unit), power_of_two(unit) * (unit > 0), 0)
                scale = 1 / jnp.where(unit > 0, unit, 1)
                answer = jax.tree.map(lambda v: scale.astype(v.dtype) * v, answer)
                z = select(memory.plain, at.r, answer)
            found = search(A, memory.kept.unit, orthogonalised(memory.kept, z, dot), at.r, dot)
            x, r = stepped(found, at.x, found.alpha, found.d), stepped(found, at.r, -found.fall, found.q)

            # Steepest descent gains r.r / (largest eigenvalue) of the squared energy error at least, and the largest
            # eigenvalue is bounded from below by d . A^2 d / d . A d.
            sharpest = jnp.where(found.usable, jnp.maximum(memory.sharpest, found.sharpness), memory.sharpest)
            gain = found.slope * found.alpha * sharpest / at.squared
            poor, standard = ~found.usable, memory.standard
            if self.preconditioner is not None:
                poor = poor | (~memory.plain & (gain < standard))
                standard = jnp.where(memory.plain & found.usable, jnp.maximum(gain, POOR), standard)

            # Rounding aside, negative curvature shows that A is indefinite, whoever proposed the direction.
            indefinite = found.finite & (found.cosine < -np.sqrt(epsilon))
            last = jnp.asarray(True) if self.preconditioner is None else memory.plain
            ends = ~found.usable & (last | indefinite)
            ended = jnp.where(found.finite, Result.breakdown, Result.nonfinite)
            code = jnp.where(ends, ended, RUNNING).astype(jnp.int32)
            after = _Memory(remember(memory.kept, found), sharpest, standard, unit, poor)
            # A null vector has neither curvature nor an image.
            flat = jnp.abs(found.quotient) <= FLAT * epsilon * sharpest
            flat = flat & (found.stretch <= np.sqrt(epsilon) * sharpest)
            return Step(x, r, dot(r, r), after, code, poor, flat)

        return iterate(system._replace(dot=dot), self, begin, step)
