"""The alternating direction method of multipliers, plug-and-play, in the order x, u, z."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.inverse.splitting.data_term import DataTerm, Shifted, length
from neuralops.inverse.splitting.method import MARGIN, AbstractSplitting, Moved, check_stopping
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive
from neuralops.solvers import CG
from neuralops.solvers.algebra.vectors import ratio
from neuralops.solvers.linear_solve import solve
from neuralops.solvers.solution import AbstractMethod

__all__ = ["ADMM"]

Field = Float[Array, "channels *grid"]


class _State(NamedTuple):
    x: Array
    u: Array
    z: Array


class ADMM(AbstractSplitting):
    """Plug-and-play ADMM in the order of Fang, Buchanan and Sulam 2024 (arXiv 2310.14344):

        x = argmin h(x) + rho / 2 |x - (z - u)|^2       (a linear system, by `solve`)
        u = u + x - z
        z = prox(x + u, 1 / rho)

    from x = z = x0, u = 0. After the x step grad h(x) = -rho u, so |x - z| alone says how far z is from a critical
    point of h + factor R: of h + R for a regulariser that heeds the step, of h + rho R for a `Learned` one.

    Theorem: for a convex regulariser any rho converges. For the proximal map of a function that is not convex, as an
    `LPN` is, rho > 2 scale |A|^2 does, and the augmented Lagrangian never rises. It is the merit of the monitor. (With
    h quadratic, 2 scale |A|^2 is where the fall per step,
    (rho - e) (rho + 2 e) / (2 rho) |dx|^2 for each eigenvalue e of 2 scale A^T A, is still positive.)

    **Arguments:**

    - `rho`: by default 1.05 times the bound 2 scale |A|^2. Of a `Learned` regulariser it is the weight too.
    - `max_steps`: the most steps; a new value compiles again.
    - `rtol`: both relative residuals, |x - z| / max(|x|, |z|) and |z - z before| / max(|x|, |z|), must be below.
    - `inner`: a method of `solve` for the x step, from the x before; by default `CG` to 1e-6 (float32) or 1e-10, in at
      most 100 steps.

    **Raises:** `ValueError` on numbers that are not positive, counts that are none and methods that are none.
    """

    descends: ClassVar[bool] = True
    rho: Any
    rtol: Any
    inner: AbstractMethod | None
    max_steps: int = eqx.field(static=True)

    def __init__(self, rho: Any = None, *, max_steps: int = 200, rtol: Any = 1e-5, inner: Any = None) -> None:
        self.rho = None if rho is None else positive(rho, "rho")
        self.max_steps, self.rtol = check_stopping(max_steps, rtol)
        if inner is not None and not isinstance(inner, AbstractMethod):
            raise ValueError(f"inner: expected a method such as CG(1e-8), got {inner!r}; give one of `solve`'s.")
        self.inner = inner

    def ready(self, data: DataTerm) -> ADMM:
        if self.rho is not None:
            return self
        return eqx.tree_at(lambda m: m.rho, self, MARGIN * data.lipschitz, is_leaf=lambda leaf: leaf is None)

    def within_theorem(self, data: DataTerm, regularizer: AbstractRegularizer) -> Array:
        return jnp.asarray(regularizer.convex) | (self.rho > data.lipschitz)

    def start(self, data: DataTerm, x0: Field) -> _State:
        return _State(x0, jnp.zeros_like(x0), x0)

    def step(self, data: DataTerm, regularizer: AbstractRegularizer, state: _State) -> Moved:
        x, u, z = state
        inner = self.inner
        if inner is None:
            inner = CG(1e-10 if x.dtype == jnp.float64 else 1e-6, max_steps=100)
        rhs = 2 * data.scale * data.A.adjoint(data.y) + self.rho * (z - u)
        x = solve(Shifted(data.A, data.scale, self.rho), rhs, inner, x0=x).value
        u = u + x - z
        new = regularizer.prox(x + u, 1 / self.rho)
        size = jnp.maximum(length(x), length(new))
        primal, dual = ratio(length(x - new), size), ratio(length(new - z), size)
        return Moved(_State(x, u, new), x, primal, dual)

    def measure(self, data: DataTerm, regularizer: AbstractRegularizer, state: _State) -> tuple[Array, Array]:
        x, u, z = state
        value = regularizer.factor(1 / self.rho) * regularizer.value_of_prox(x + u, z)
        gap = self.rho * (jnp.sum(u * (x - z)) + 0.5 * jnp.sum((x - z) ** 2))
        return data.value(z) + value, data.value(x) + value + gap
