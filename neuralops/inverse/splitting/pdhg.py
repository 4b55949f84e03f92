"""The primal-dual hybrid gradient method."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.inverse.splitting.data_term import DataTerm, length
from neuralops.inverse.splitting.method import MARGIN, AbstractSplitting, Moved, check_stopping
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive
from neuralops.solvers.algebra.vectors import ratio

__all__ = ["PDHG"]

Field = Float[Array, "channels *grid"]


class _State(NamedTuple):
    x: Array
    p: Array  # the dual variable, one number per measurement
    pulled: Array  # A^T p
    seen: Array  # A x
    ahead: Array  # A (2 x - x before)
    argument: Array


class PDHG(AbstractSplitting):
    """The primal-dual method of Chambolle and Pock 2011, which never solves with A:

        p = (p + dual_step (A w - y)) / (1 + dual_step / (2 scale))
        x' = prox(x - step A^T p, step),   w = 2 x' - x

    from x = w = x0, p = 2 scale (A x0 - y). Theorem: convergence for step dual_step |A|^2 <= 1 and a convex
    regulariser; there is none for one that is not. Minimises h + R, or h + R / step for a `Learned` regulariser.

    **Arguments:**

    - `step`, `dual_step`: by default their product is 1 / (1.05 |A|)^2; both 1 / (1.05 |A|) if none is given.
    - `max_steps`: the most steps; a new value compiles again.
    - `rtol`: bound on both residuals, how far the optimality conditions of x and p are from met (Goldstein et al.
      2015), relative to |x| and to max(|p|, |y|).

    **Raises:** `ValueError` on numbers that are not positive and counts that are none.
    """

    step_size: Any
    dual_step: Any
    rtol: Any
    max_steps: int = eqx.field(static=True)

    def __init__(self, step: Any = None, dual_step: Any = None, *, max_steps: int = 500, rtol: Any = 1e-5) -> None:
        self.step_size = None if step is None else positive(step, "step")
        self.dual_step = None if dual_step is None else positive(dual_step, "dual_step")
        self.max_steps, self.rtol = check_stopping(max_steps, rtol)

    def ready(self, data: DataTerm) -> PDHG:
        step, dual_step, norm = self.step_size, self.dual_step, MARGIN * data.norm
        if step is None:
            step = 1 / norm if dual_step is None else 1 / (dual_step * norm**2)
        if dual_step is None:
            dual_step = 1 / (step * norm**2)
        return eqx.tree_at(
            lambda m: (m.step_size, m.dual_step), self, (step, dual_step), is_leaf=lambda leaf: leaf is None
        )

    def within_theorem(self, data: DataTerm, regularizer: AbstractRegularizer) -> Array:
        return jnp.asarray(regularizer.convex) & (self.step_size * self.dual_step * data.norm**2 <= 1)

    def start(self, data: DataTerm, x0: Field) -> _State:
        seen = data.A(x0)
        p = 2 * data.scale * (seen - data.y)
        return _State(x0, p, data.A.adjoint(p), seen, seen, x0)

    def step(self, data: DataTerm, regularizer: AbstractRegularizer, state: _State) -> Moved:
        p = (state.p + self.dual_step * (state.ahead - data.y)) / (1 + self.dual_step / (2 * data.scale))
        pulled = data.A.adjoint(p)
        argument = state.x - self.step_size * pulled
        x = regularizer.prox(argument, self.step_size)
        seen = data.A(x)
        # (x before - x) / step is in A^T p + dR(x); and (p before - p) / dual_step + A (w before) in the dual's.
        primal = ratio(length(x - state.x), length(x))
        off = (state.p - p) / self.dual_step + state.ahead - seen
        dual = ratio(length(off), jnp.maximum(length(data.y), length(seen)))
        return Moved(_State(x, p, pulled, seen, 2 * seen - state.seen, argument), x, primal, dual)

    def measure(self, data: DataTerm, regularizer: AbstractRegularizer, state: _State) -> tuple[Array, Array]:
        value = regularizer.factor(self.step_size) * regularizer.value_of_prox(state.argument, state.x)
        value = data.scale * jnp.sum((state.seen - data.y) ** 2) + value
        return value, value
