"""Proximal gradient, plain and accelerated."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.inverse.splitting.data_term import DataTerm, length
from neuralops.inverse.splitting.method import MARGIN, AbstractSplitting, Moved, check_stopping
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive
from neuralops.solvers.algebra.vectors import ratio

__all__ = ["FISTA", "PGD"]

Field = Float[Array, "channels *grid"]


def _moved(state: Any, x: Field, primal: Field, dual: Field) -> Moved:
    size = length(x)
    return Moved(state, x, ratio(length(primal), size), ratio(length(dual), size))


def _measured(data: DataTerm, regularizer: AbstractRegularizer, step: Any, state: Any) -> tuple[Array, Array]:
    value = data.value(state.x) + regularizer.factor(step) * regularizer.value_of_prox(state.argument, state.x)
    return value, value


class _Descent(NamedTuple):
    x: Array
    gradient: Array  # of h at x
    argument: Array  # of the proximal map that gave x


class PGD(AbstractSplitting):
    """Proximal gradient descent, x = prox(x - step grad h(x), step): also ISTA or forward-backward splitting.

    Its fixed points are critical points of h + R for a regulariser that heeds the step, of h + R / step for a `Learned`
    one. Theorem: convergence for step < 1 / (2 scale |A|^2), and then the objective never rises; twice that for a
    convex regulariser.

    **Arguments:**

    - `step`: by default the bound divided by 1.05. Of a `Learned` regulariser 1 / step is the weight too.
    - `max_steps`: the most steps; a new value compiles again.
    - `rtol`: bound on both residuals relative to |x|: the move of x, and step times that of grad h.

    **Raises:** `ValueError` on numbers that are not positive and counts that are none.
    """

    descends: ClassVar[bool] = True
    step_size: Any
    rtol: Any
    max_steps: int = eqx.field(static=True)

    def __init__(self, step: Any = None, *, max_steps: int = 500, rtol: Any = 1e-5) -> None:
        self.step_size = None if step is None else positive(step, "step")
        self.max_steps, self.rtol = check_stopping(max_steps, rtol)

    def ready(self, data: DataTerm) -> PGD:
        return _with_step(self, data)

    def within_theorem(self, data: DataTerm, regularizer: AbstractRegularizer) -> Array:
        return self.step_size * data.lipschitz < (2.0 if regularizer.convex else 1.0)

    def start(self, data: DataTerm, x0: Field) -> _Descent:
        return _Descent(x0, data.gradient(x0), x0)

    def step(self, data: DataTerm, regularizer: AbstractRegularizer, state: _Descent) -> Moved:
        argument = state.x - self.step_size * state.gradient
        x = regularizer.prox(argument, self.step_size)
        gradient = data.gradient(x)
        change = self.step_size * (gradient - state.gradient)
        return _moved(_Descent(x, gradient, argument), x, x - state.x, change)

    def measure(self, data: DataTerm, regularizer: AbstractRegularizer, state: _Descent) -> tuple[Array, Array]:
        return _measured(data, regularizer, self.step_size, state)


class _Momentum(NamedTuple):
    x: Array
    gradient: Array
    argument: Array
    w: Array  # the point ahead, from which the step is taken
    ahead: Array  # grad h there
    t: Array


class FISTA(AbstractSplitting):
    """Proximal gradient with Nesterov's momentum (Beck and Teboulle 2009):

        x = prox(w - step grad h(w), step),  t' = (1 + sqrt(1 + 4 t^2)) / 2,  w = x + (t - 1) / t' (x - x before)

    Theorem: for a convex regulariser and step <= 1 / (2 scale |A|^2) the objective falls as 1 / steps^2, though not at
    every step. There is none for a regulariser that is not convex. What is found is that of `PGD`.

    **Arguments:** those of `PGD`, and

    - `restart`: the momentum is dropped where it points uphill (O'Donoghue and Candes 2015).

    **Raises:** `ValueError` on numbers that are not positive, counts that are none and truth values that are none.
    """

    step_size: Any
    rtol: Any
    max_steps: int = eqx.field(static=True)
    restart: bool = eqx.field(static=True)

    def __init__(self, step: Any = None, *, max_steps: int = 500, rtol: Any = 1e-5, restart: bool = True) -> None:
        self.step_size = None if step is None else positive(step, "step")
        self.max_steps, self.rtol = check_stopping(max_steps, rtol)
        self.restart = flag(restart, "restart")

    def ready(self, data: DataTerm) -> FISTA:
        return _with_step(self, data)

    def within_theorem(self, data: DataTerm, regularizer: AbstractRegularizer) -> Array:
        return jnp.asarray(regularizer.convex) & (self.step_size * data.lipschitz <= 1)

    def start(self, data: DataTerm, x0: Field) -> _Momentum:
        gradient = data.gradient(x0)
        return _Momentum(x0, gradient, x0, x0, gradient, jnp.ones((), x0.dtype))

    def step(self, data: DataTerm, regularizer: AbstractRegularizer, state: _Momentum) -> Moved:
        argument = state.w - self.step_size * state.ahead
        x = regularizer.prox(argument, self.step_size)
        gradient = data.gradient(x)
        t = state.t
        if self.restart:
            uphill = jax.lax.stop_gradient(jnp.sum((state.w - x) * (x - state.x))) > 0
            t = jnp.where(uphill, 1, t)
        after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        speed = (t - 1) / after
        # grad h is affine, so that at the point ahead it costs nothing
        w, ahead = x + speed * (x - state.x), gradient + speed * (gradient - state.gradient)
        change = self.step_size * (gradient - state.ahead)
        return _moved(_Momentum(x, gradient, argument, w, ahead, after), x, x - state.w, change)

    def measure(self, data: DataTerm, regularizer: AbstractRegularizer, state: _Momentum) -> tuple[Array, Array]:
        return _measured(data, regularizer, self.step_size, state)


def _with_step(method: Any, data: DataTerm) -> Any:
    if method.step_size is not None:
        return method
    step = 1 / (MARGIN * data.lipschitz)
    return eqx.tree_at(lambda m: m.step_size, method, step, is_leaf=lambda leaf: leaf is None)
