"""Flexible conjugate gradients: for preconditioners that are nonlinear, not symmetric or change from step to step."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.iteration import (
    RUNNING,
    Step,
    check_dot,
    check_preconditioner,
    check_stopping,
    iterate,
)  # fmt: skip
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, System
from neuralops.solvers.vectors import Dot, apply, select

__all__ = ["FlexibleCG"]

POOR = 0.1  # the standard that a first answer is held to


class _Memory(NamedTuple):
    """The last directions d and their images A d, kept along a leading axis of `memory` slots."""

    directions: Any
    images: Any
    weights: Array  # 1 / (d . A d), 0 for an empty slot
    kept: Array  # directions since the last restart
    sharpest: Array  # the largest eigenvalue of A seen so far, from below
    standard: Array  # what the last step along the residual gained, relative to what steepest descent is sure to gain
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
        if isinstance(memory, bool) or not isinstance(memory, int | np.integer) or memory < 1:
            raise ValueError(f"memory: expected a count of at least 1, got {memory!r}; use memory=1 or more.")
        self.preconditioner = check_preconditioner(preconditioner)
        self.memory, self.dot = int(memory), check_dot(dot)

    def run(self, system: System) -> Outcome:
        A, dot = system.matvec, Dot(system.dot.mesh_axes, self.dot)
        epsilon = float(jnp.finfo(jax.tree.leaves(system.b)[0].dtype).eps)

        def begin(r: Any, dtype: Any) -> _Memory:
            empty = jax.tree.map(lambda leaf: jnp.zeros((self.memory, *leaf.shape), leaf.dtype), r)
            weights = jnp.zeros((self.memory,), dtype)
            return _Memory(
                empty, empty, weights, jnp.zeros((), jnp.int32), weights[0], weights[0] + POOR, jnp.zeros((), bool)
            )

        def step(at: Step) -> Step:
            kept: _Memory = at.memory
            z = at.r
            if self.preconditioner is not None:
                z = select(kept.plain, at.r, apply("preconditioner", self.preconditioner, at.r))
            coefficients = kept.weights * dot.stacked(kept.images, z)
            d = jax.tree.map(
                lambda v, stack: v - jnp.tensordot(coefficients.astype(v.dtype), stack, 1, precision="highest"),
                z,
                kept.directions,
            )
            q = A(d)
            curvature, slope, length, width = dot.many([(d, q), (d, at.r), (d, d), (q, q)])
            floor = epsilon * jnp.sqrt(length * width)
            finite = jnp.isfinite(curvature) & jnp.isfinite(slope)
            usable = finite & (curvature > floor) & (slope != 0)
            alpha = jnp.where(usable, slope / curvature, 0)
            # A direction that is not used must not touch anything, NaN least of all.
            x = jax.tree.map(lambda u, v: u + jnp.where(usable, alpha.astype(u.dtype) * v, 0), at.x, d)
            r = jax.tree.map(lambda u, v: u - jnp.where(usable, alpha.astype(u.dtype) * v, 0), at.r, q)

            # Steepest descent gains r.r / (largest eigenvalue) of the squared energy error at least, and the largest
            # eigenvalue is bounded from below by d . A^2 d / d . A d.
            sharpest = jnp.where(usable, jnp.maximum(kept.sharpest, width / curvature), kept.sharpest)
            gain = slope * alpha * sharpest / at.squared
            poor, standard = ~usable, kept.standard
            if self.preconditioner is not None:
                poor = poor | (~kept.plain & (gain < standard))
                standard = jnp.where(kept.plain & usable, jnp.maximum(gain, POOR), standard)

            # Rounding aside, negative curvature shows that A is indefinite, whoever proposed the direction.
            indefinite = finite & (curvature < -np.sqrt(epsilon) * jnp.sqrt(length * width))
            last = jnp.asarray(True) if self.preconditioner is None else kept.plain
            ends = ~usable & (last | indefinite)
            code = jnp.where(ends, jnp.where(finite, Result.breakdown, Result.nonfinite), RUNNING).astype(jnp.int32)

            slot = kept.kept % self.memory
            keep = lambda stack, v: lax.dynamic_update_index_in_dim(
                stack, jnp.where(usable, v, lax.dynamic_index_in_dim(stack, slot, keepdims=False)), slot, 0
            )
            memory = _Memory(
                jax.tree.map(keep, kept.directions, d),
                jax.tree.map(keep, kept.images, q),
                jnp.where(usable, kept.weights.at[slot].set(1 / curvature), kept.weights),
                kept.kept + usable,
                sharpest,
                standard,
                poor,
            )
            return Step(x, r, dot(r, r), memory, code, poor)

        return iterate(system._replace(dot=dot), self, begin, step)
