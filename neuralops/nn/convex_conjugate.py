"""The regulariser of which a gradient of a convex function is the proximal operator.

Where f = grad psi with psi convex, f(y) = argmin over x of |x - y|^2 / 2 + R(x) with R = psi* - |x|^2 / 2 (Gribonval
and Nikolova 2020). psi*(x) = max over y of <x, y> - psi(y) is a convex problem, whose optimum has f(y) = x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

__all__ = ["Prior", "regularizer"]

SLOPE = 0.5  # a line search ends where the slope is at most this share of the first
LINE_STEPS = 30
MEMORY = 10  # pairs of differences that L-BFGS keeps
ROUNDING = 100  # units of rounding of psi that a line search does not mind


class Prior(NamedTuple):
    """What `LPN.prior` finds.

    - `value`: R(x), up to a constant of its own for every psi.
    - `point`: y with f(y) = x; where f is nearly flat many are as good, and R, which is stationary there, is found
      more exactly than y.
    - `residual`: |f(y) - x| / |x|, or over the size of y where x is zero. Large where x is outside of the range of f.
    - `num_steps`: steps of L-BFGS.
    """

    value: Float[Array, ""]
    point: Float[Array, " channels *grid"]
    residual: Float[Array, ""]
    num_steps: Float[Array, ""]


class _State(NamedTuple):
    point: Array
    error: Array  # f(y) - x
    value: Array  # psi(y) - <x, y>
    step: Array
    stuck: Array
    memory: Any


def regularizer(
    potential: Callable[[Array], Array],
    x: Array,
    *,
    search: tuple[Callable[[Array], Array], Callable[[Array], Array]],
    measure: Any = 1.0,
    rtol: float = 1e-5,
    max_steps: int = 500,
) -> Prior:
    """R(x) by L-BFGS with a line search of its own, from y = x.

    The line search goes by slopes and takes values only up to their rounding (as Hager and Zhang's): psi of an image is
    thousands of times larger than its last decreases. Nothing but f is evaluated; products with its Jacobian would
    make Newton's method, whose program took XLA twenty times as long to compile.

    Differentiable in x and in the parameters of psi by the envelope theorem: grad R(x) = y - x. `point` counts as
    constant.

    **Arguments:** `search`, psi and f with parameters that are not differentiated; `measure`, what a point counts for
    in the inner product; `rtol`, of the residual.
    """
    start = jax.lax.stop_gradient(x)
    found = _minimised(*search, start, measure, rtol, max_steps)
    y = jax.lax.stop_gradient(found.point)
    value = measure * (jnp.sum(x * y) - jnp.sum(x * x) / 2) - potential(y)
    residual = _norm(found.error) / _size(start, found.point)
    return Prior(value, y, residual, found.step)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(x * x))


def _size(x: Array, y: Array) -> Array:
    """That of x, or of y where x is zero; 1 where both are."""
    of_x, of_y = _norm(x), _norm(y)
    size = jnp.where(of_x > 0, of_x, of_y)
    return jnp.where(size > 0, size, 1)


def _minimised(potential: Any, gradient: Any, x: Array, measure: Any, rtol: float, max_steps: int) -> _State:
    lbfgs = optax.scale_by_lbfgs(MEMORY)

    def at(y: Array) -> tuple[Array, Array]:
        return potential(y) / measure - jnp.sum(x * y), gradient(y) - x

    def going(state: _State) -> Array:
        far = _norm(state.error) > rtol * _size(x, state.point)
        return far & (state.step < max_steps) & ~state.stuck

    def step(state: _State) -> _State:
        direction, memory = lbfgs.update(state.error, state.memory, state.point)
        downhill = jnp.sum(direction * state.error) > 0
        direction = jnp.where(downhill, -direction, -state.error)
        return _searched(state._replace(memory=memory), direction, at)

    value, error = at(x)
    start = _State(x, error, value, jnp.zeros((), x.dtype), jnp.zeros((), bool), lbfgs.init(x))
    return jax.lax.while_loop(going, step, start)


class _Line(NamedTuple):
    low: Array
    high: Array
    t: Array
    error: Array
    value: Array
    found: Array
    tries: Array


def _searched(state: _State, direction: Array, at: Callable[[Array], tuple[Array, Array]]) -> _State:
    """A step along the direction to where the slope is small: four times as far while it is steep, then bisected."""
    first = jnp.sum(direction * state.error)
    kind = jnp.finfo(direction.dtype)
    room = ROUNDING * float(kind.eps) * jnp.maximum(jnp.abs(state.value), float(kind.tiny))

    def going(line: _Line) -> Array:
        return ~line.found & (line.tries < LINE_STEPS)

    def step(line: _Line) -> _Line:
        value, error = at(state.point + line.t * direction)
        slope = jnp.sum(direction * error)
        over = ~(slope <= -SLOPE * first) | (value > state.value + room)
        steep = ~over & (slope < SLOPE * first)
        low, high = jnp.where(steep, line.t, line.low), jnp.where(over, line.t, line.high)
        further = jnp.where(jnp.isinf(high), 4 * line.t, (low + high) / 2)
        found = ~over & ~steep
        return _Line(
            low,
            high,
            jnp.where(found, line.t, further),
            jnp.where(over, line.error, error),  # a steep end is progress too, in case the tries end there
            jnp.where(over, line.value, value),
            found,
            line.tries + 1,
        )

    zero = jnp.zeros((), direction.dtype)
    start = _Line(zero, zero + jnp.inf, zero + 1, state.error, state.value, zero > 1, jnp.zeros((), jnp.int32))
    line = jax.lax.while_loop(going, step, start)
    t = jnp.where(line.found, line.t, line.low)
    moved = state.point + t * direction
    return _State(moved, line.error, line.value, state.step + 1, t == 0, state.memory)
