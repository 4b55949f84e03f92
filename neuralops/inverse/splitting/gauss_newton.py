"""`reconstruct_nonlinear`: Gauss-Newton steps, each a reconstruction with the linearised measurement."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from neuralops.arguments import count, flag
from neuralops.inverse.maps.algebra import Matrix
from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.inverse.maps.linearized import Linearized
from neuralops.inverse.splitting.admm import ADMM
from neuralops.inverse.splitting.data_term import length
from neuralops.inverse.splitting.loop import bounded_loop
from neuralops.inverse.splitting.method import AbstractSplitting
from neuralops.inverse.splitting.reconstruct import check_parts, reconstruct
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive

__all__ = ["NonlinearReconstruction", "reconstruct_nonlinear"]

HALVINGS = 6  # the shortest step that is tried is 2^-6 of the full one


class NonlinearReconstruction(eqx.Module):
    """The outcome of `reconstruct_nonlinear`: arrays only.

    **Attributes:**

    - `value`: the field `(channels, *grid)`.
    - `converged`: whether the last full step changed the field by less than rtol, relatively. A step that was
      shortened does not count.
    - `num_steps`: Gauss-Newton steps taken, int32.
    - `misfit`: `(max_steps + 1,)`, scale |F(x) - y|^2 at the start and after each step; the last one is repeated.
    - `objective`: the same shape, misfit + factor R, of which the line search allows no rise; NaN without line search.
    - `step_lengths`: `(max_steps,)`, 1 for a full step, 0 where none lowered the objective.

    Under `jax.vmap` every attribute has the batch axis in front.
    """

    value: Float[Array, "*batch channels *grid"]
    converged: Bool[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    misfit: Float[Array, "*batch times"]
    objective: Float[Array, "*batch times"]
    step_lengths: Float[Array, "*batch steps"]


def reconstruct_nonlinear(
    forward: Any,
    y: Any,
    regularizer: AbstractRegularizer,
    method: AbstractSplitting,
    *,
    x0: Any,
    scale: Any = 0.5,
    max_steps: int = 10,
    rtol: Any = 1e-3,
    line_search: bool = True,
    dense: bool = False,
) -> NonlinearReconstruction:
    """Minimises scale |F(x) - y|^2 + R(x) by Gauss-Newton: each step is `reconstruct` with F linearised at x.

    With the line search a step is halved until the objective does not rise, and the run ends where no step is left.
    It evaluates R, which of a `Learned` network means to invert it. Works under `jax.jit` and `jax.vmap`.

    **Arguments:**

    - `forward`: F, a differentiable function from `(channels, *grid)` to values like y.
    - `y`: what was measured.
    - `regularizer`, `method`, `scale`: as in `reconstruct`. Of a `Learned` regulariser rho or 1 / step is the weight
      too, and must be given.
    - `x0`: the start, `(channels, *grid)`.
    - `max_steps`: the most Gauss-Newton steps; a new value compiles again.
    - `rtol`: a full step that changes x by less, relatively, ends the run.
    - `line_search`: False takes full steps, whatever the objective does.
    - `dense`: computes the Jacobian, one row for each value, once in a step. For few values and a costly F.

    **Raises:** `ValueError` before any computation on arguments that do not fit.
    """
    if not callable(forward):
        raise ValueError(f"forward: expected a function of the field, got {type(forward).__name__}; give a function.")
    check_parts(regularizer, method)
    max_steps, rtol, scale = count(max_steps, "max_steps"), positive(rtol, "rtol"), positive(scale, "scale")
    line_search, dense = flag(line_search, "line_search"), flag(dense, "dense")
    if line_search and not regularizer.has_value:
        raise ValueError(
            f"line_search: expected False for {type(regularizer).__name__} of a network without prior, got True; its "
            "objective is not known."
        )
    if isinstance(method, ADMM) and method.rho is None and not regularizer.convex:
        raise ValueError("method: expected rho for a Learned regularizer, got None; it is the weight: ADMM(rho=...).")
    y = jnp.asarray(y)
    at = Linearized(forward, x0)  # refuses a field that is none
    if at.out_shape != y.shape:
        raise ValueError(f"y: expected shape {at.out_shape}, as forward gives it, got {y.shape}; measure like F.")
    rho = method.rho if isinstance(method, ADMM) else None
    factor = jnp.ones(()) if rho is None else regularizer.factor(1 / rho)
    if line_search and not regularizer.convex and rho is None:
        raise ValueError(
            f"method: expected ADMM(rho=...) for the line search of a Learned regularizer, got "
            f"{type(method).__name__}; use ADMM, or line_search=False."
        )
    x0 = jnp.asarray(x0)
    misfit = lambda x: scale * jnp.sum((forward(x) - y) ** 2)
    objective = lambda x, h: h + factor * regularizer.value(x) if line_search else jnp.full((), jnp.nan, x.dtype)

    def step(at: _At) -> _At:
        x = at.x
        A, value = _rows(forward, x) if dense else _frozen(forward, x)
        shifted = (y - value).reshape(A.out_shape) + A(x)
        full = reconstruct(A, shifted, regularizer, method, scale=scale, x0=x).value - x
        t, x_new, h, total = _search(x, full, misfit, objective, at.total) if line_search else _full(x, full, misfit)
        small = (t == 1) & (length(full) <= rtol * length(x_new))
        k = at.steps + 1
        return _At(
            k, x_new, total, (t == 0) | small, small,
            at.misfits.at[k].set(h), at.totals.at[k].set(total), at.lengths.at[k - 1].set(t),
        )  # fmt: skip

    h0 = misfit(x0)
    total0 = jnp.asarray(objective(x0, h0), h0.dtype)
    blank = jnp.full(max_steps + 1, jnp.nan, h0.dtype)
    no = jnp.zeros((), bool)
    start = _At(
        jnp.zeros((), jnp.int32), x0, total0, no, no,
        blank.at[0].set(h0), blank.at[0].set(total0), jnp.zeros(max_steps, h0.dtype),
    )  # fmt: skip
    end = bounded_loop(step, lambda at: at.done, start, max_steps)
    repeated = jnp.minimum(jnp.arange(max_steps + 1), end.steps)
    return NonlinearReconstruction(
        end.x, end.converged, end.steps, end.misfits[repeated], end.totals[repeated], end.lengths
    )


class _At(NamedTuple):
    steps: Array
    x: Array
    total: Array
    done: Array
    converged: Array
    misfits: Array
    totals: Array
    lengths: Array


def _full(x: Array, full: Array, misfit: Any) -> tuple[Array, ...]:
    new = x + full
    h = misfit(new)
    return jnp.ones((), h.dtype), new, h, jnp.full((), jnp.nan, h.dtype)


def _search(x: Array, full: Array, misfit: Any, objective: Any, before: Array) -> tuple[Array, ...]:
    """The longest of 1, 1/2, ... of the step that does not raise the objective, or none."""

    def trial(t: Array) -> tuple[Array, Array]:
        new = x + t * full
        h = misfit(new)
        return h, jnp.asarray(objective(new, h), h.dtype)

    def halve(state: tuple[Array, ...]) -> tuple[Array, ...]:
        i, t, bound, _, _ = state
        t = jnp.where(i < HALVINGS, t / 2, 0)
        return (i + 1, t, bound, *trial(t))

    one = jnp.ones((), before.dtype)
    bound = before + 100 * jnp.finfo(before.dtype).eps * jnp.abs(before)
    accepted = lambda state: (state[4] <= state[2]) | (state[1] == 0)  # sees the state alone
    begun = (jnp.zeros((), jnp.int32), one, bound, *trial(one))
    _, t, _, h, total = bounded_loop(halve, accepted, begun, HALVINGS + 1)
    return t, x + t * full, h, total


def _frozen(forward: Any, x: Array) -> tuple[AbstractLinearMap, Array]:
    A = Linearized(forward, x).frozen()
    return A, A.value


def _rows(forward: Any, x: Array) -> tuple[AbstractLinearMap, Array]:
    """The Jacobian, one row for each value, and the values."""

    def twice(x: Array) -> tuple[Array, Array]:
        value = forward(x)
        return value, value

    rows, value = jax.jacrev(twice, has_aux=True)(x)
    return Matrix(rows.reshape(value.size, x.size), x.shape), value
