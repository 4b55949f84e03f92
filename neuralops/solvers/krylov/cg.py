"""The conjugate gradient method."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from neuralops.solvers.algebra.vectors import Dot, apply, axpy, sized, vary, varying, zeros_like
from neuralops.solvers.krylov.iteration import (
    RUNNING,
    Step,
    check_dot,
    check_preconditioner,
    check_stopping,
    iterate,
)  # fmt: skip
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, System

__all__ = ["CG"]

# The cosine between successive residuals in the preconditioner's inner product is 0 for a linear one (Powell 1977).
SLIP = 0.2
FLAT = 10.0  # a Rayleigh quotient below so many roundings of the largest seen is that of a null vector
SLIPS = 30  # so many while the residual has not halved, and the preconditioner is refused


class CG(AbstractMethod):
    """The conjugate gradient method (Hestenes and Stiefel 1952), preconditioned if wished.

    Stops when ||b - A x|| <= max(rtol ||b||, atol) in the 2-norm. The residual of the recursion is only trusted
    until it says so: then the true residual is computed, and if it disagrees, CG restarts from the current iterate. A
    round that no longer halves the true residual ends the solve as stagnated. What is returned then is the iterate of
    smallest residual; a solve cut short by `max_steps` returns the last, whose energy error is smallest, unless
    residuals have grown tenfold since an earlier one.

    A preconditioner that is not linear and symmetric makes CG stall. CG sees it: residuals stop being orthogonal in the
    preconditioner's inner product. If at the same time progress ceases, the solve ends as a breakdown; use
    `FlexibleCG`.

    **Arguments:**

    - `rtol`, `atol`: relative and absolute tolerance; numbers or (traced) scalars.
    - `max_steps`: the limit on iterations, by default ten times the number of unknowns; may be traced.
    - `preconditioner`: a symmetric positive definite map close to the inverse of A, linear and the same at
      every step.
    - `history`: whether to keep relative residuals step by step: `True` keeps the first 1000, a number as
      many. Entries are recursed residuals, replaced by the true one where it was computed.
    - `dot`: how inner products of float32 vectors are formed: `None` in float32, `"float64"` in double precision
      (where JAX has it enabled), `"compensated"` in twice the digits without it.

    The residual that can be reached is about epsilon ||A|| ||x|| / ||b||, set by the precision of the vectors: for a
    smooth source in float32 2e-5 at 64^2 and 6e-4 at 256^2 (measured), the same with any `dot`, and steps differed by
    less than 1 %. Better inner products matter where sums cancel. For more digits wrap a float32 solve in
    `Refinement`.

    Per step one A, one preconditioner, and the vector work of the classical algorithm (with a preconditioner, one inner
    product more).

    **Raises:** `ValueError` on negative tolerances or limits.
    """

    rtol: Any
    atol: Any
    max_steps: Any
    preconditioner: Any
    history: int = eqx.field(static=True)
    dot: str | None = eqx.field(static=True)

    def __init__(
        self,
        rtol: Any = 1e-6,
        atol: Any = 0.0,
        *,
        max_steps: Any = None,
        preconditioner: Any = None,
        history: bool | int = False,
        dot: str | None = None,
    ):
        check_stopping(self, rtol, atol, max_steps, history)
        self.preconditioner = check_preconditioner(preconditioner)
        self.dot = check_dot(dot)

    def run(self, system: System) -> Outcome:
        A, dot = system.matvec, Dot(system.dot.mesh_axes, self.dot)
        epsilon = float(jnp.finfo(jax.tree.leaves(system.b)[0].dtype).eps)

        def begin(r: Any, dtype: Any) -> Any:
            zero, nothing, never = zeros_like(r), jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
            common = zero, never, nothing, nothing, nothing
            if self.preconditioner is None:
                return common
            return *common, zero, nothing, never, jnp.zeros((), jnp.int32)

        def step(at: Step) -> Step:
            if self.preconditioner is None:
                p, gamma_before, length, sharpest, steepness = at.memory
                z, gamma, refused = at.r, at.squared, jnp.asarray(False)
            else:
                p, gamma_before, length, sharpest, steepness, q, alpha, marker, slips = at.memory
                z = apply("preconditioner", self.preconditioner, at.r)
                gamma, overlap = dot.many([(at.r, z), (q, z)])
                # z . r_before = z . (r + alpha q), which is zero for the residuals of linear CG
                root = lambda v: jnp.sqrt(jnp.abs(v))  # of each: a preconditioner may be of any size
                slipped = jnp.abs(gamma + alpha * overlap) > SLIP * root(gamma) * root(gamma_before)
                progress = at.squared < 0.25 * marker
                marker = jnp.where(progress, at.squared, marker)
                slips = jnp.where(progress, 0, slips + slipped)
                refused = slips >= SLIPS
            beta = gamma / gamma_before
            p = axpy(beta, p, z)
            q = A(p)
            curvature = dot(p, q)
            # The squared length of p in the inner product of the inverse preconditioner, since residuals are orthogonal
            # to earlier directions. With it the curvature is a Rayleigh quotient of the preconditioned operator.
            length = gamma + beta**2 * length
            sharpest = jnp.maximum(sharpest, curvature / length)
            # A null vector has no image; with an indefinite operator others may have no curvature too. The square
            # of the image is formed where it tells: at the first step, and without curvature. (A may be of any size.)
            tiny = jnp.abs(curvature) <= FLAT * epsilon * sharpest * length
            axes = varying((curvature, length, steepness))
            stretch = lambda u, unit: unit * dot.norm(u) / jnp.sqrt(jnp.abs(length))
            look, keep = (lambda: vary(stretch(*sized(q, dot.mesh_axes)), axes)), (lambda: vary(steepness, axes))
            image = lax.cond(tiny | (steepness == 0), look, keep)
            steepness = jnp.where(steepness == 0, image, steepness)
            flat = tiny & (image <= math.sqrt(epsilon) * steepness)
            finite = jnp.isfinite(gamma) & jnp.isfinite(curvature)
            usable = finite & (gamma > 0) & (curvature > 0) & ~refused
            alpha = gamma / curvature
            # A step along an unusable direction is not taken: x stays finite.
            x = jax.tree.map(lambda u, d: u + jnp.where(usable, alpha.astype(u.dtype) * d, 0), at.x, p)
            r = axpy(-alpha, q, at.r)
            code = jnp.where(usable, RUNNING, jnp.where(finite, Result.breakdown, Result.nonfinite)).astype(jnp.int32)
            memory: Any = (p, gamma, length, sharpest, steepness)
            if self.preconditioner is not None:
                memory += (q, alpha, marker, slips)
            return Step(x, r, dot(r, r), memory, code, flat=flat)

        return iterate(system._replace(dot=dot), self, begin, step)
