"""`reconstruct`: the field behind a linear measurement, by a splitting algorithm, with an account of how it went."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.arguments import check_native, check_plain, count
from neuralops.inverse.splitting.data_term import DataTerm, length
from neuralops.inverse.splitting.loop import bounded_loop
from neuralops.inverse.splitting.method import AbstractSplitting
from neuralops.inverse.splitting.reconstruction import Ending, Reconstruction, Trace
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive

__all__ = ["reconstruct"]

RUNNING = -1
GROWN = 10.0  # residuals that stay so many times above their least count as divergence
EXPLODED = 1e6  # iterates so many times the start end the run
LATE = 0.25  # the last part of a run, which tells a fall, a cycle and a divergence apart
FALLEN = 0.9  # the least residual of the late part is so much below the one before: it was still falling


def reconstruct(
    A: Any,
    y: Any,
    regularizer: AbstractRegularizer,
    method: AbstractSplitting,
    *,
    scale: Any = 0.5,
    x0: Any = None,
    norm: Any = None,
    monitor: int = 0,
) -> Reconstruction:
    """Minimises scale |A x - y|^2 + R(x), or makes it stationary where R is not convex.

    ```python
    found = reconstruct(A, y, TotalVariation(0.01), FISTA())
    found = reconstruct(A, y, Learned(lpn), ADMM(rho=1.0), monitor=5)
    print(found.message)
    ```

    Works under `jax.jit`, `jax.vmap` (the loop ends with the last member), `jax.grad` and `jax.jvp`, with respect to y,
    what A, the regulariser and the method hold, scale and x0: derivatives of the steps that were taken. A gradient
    keeps an iterate per step and computes each step again.

    **Arguments:**

    - `A`: a linear map with `A.adjoint` (`inverse.maps`), from `(channels, *grid)`.
    - `y`: what was measured, like `A(x)`.
    - `regularizer`: a `TotalVariation`, `Wavelets`, `Learned(network)` and so on.
    - `method`: `ADMM(rho)`, `PGD(step)`, `FISTA(step)` or `PDHG(step, dual_step)`. Of `Learned` regularisers rho and
      1 / step are the weight too.
    - `scale`: of the data term; 0.5 / sigma^2 makes it the misfit of noise of deviation sigma.
    - `x0`: the start, by default A^T y.
    - `norm`: |A| where it is known, by default `A.norm()`, some tens of applications of A and its adjoint.
    - `monitor`: the objective and the merit are taken at every so many steps; 0 never. A count; a new one compiles
      again. A `Learned` network with a `potential` gives R on the way, one with a `prior` alone inverts it each time.

    **Returns:** a `Reconstruction`. What is not within the condition of a theorem is marked there, not refused.

    **Raises:** `ValueError` before any computation on arguments that do not fit.
    """
    if not callable(A) or not callable(getattr(A, "adjoint", None)):
        raise ValueError(
            f"A: expected a linear map with `adjoint`, got {type(A).__name__}; use one of inverse.maps, or a module "
            "with __call__ and adjoint."
        )
    check_parts(regularizer, method)
    y = _field(y, "y", getattr(A, "out_shape", None))
    scale = positive(scale, "scale")
    norm = None if norm is None else positive(norm, "norm")
    monitor = count(monitor, "monitor", 0)
    if monitor > method.max_steps:
        raise ValueError(
            f"monitor: expected at most max_steps = {method.max_steps}, got {monitor}; look more often, or give 0."
        )
    if monitor and not regularizer.has_value:
        raise ValueError(
            f"monitor: expected 0 for {type(regularizer).__name__} of a network without potential or prior, got "
            f"{monitor}; leave it out, its objective is not known."
        )
    shape = jax.eval_shape(lambda y: A.adjoint(y), y).shape  # a method of a module is compared by its arrays
    if x0 is not None:
        x0 = _field(x0, "x0", shape).astype(y.dtype)
    kind = y.dtype
    A, regularizer, method, norm = jax.tree.map(lambda leaf: _strong(leaf, kind), (A, regularizer, method, norm))
    scale = jnp.asarray(scale, kind)
    return _compiled(A, y, regularizer, method, scale, x0, norm, monitor)


def check_parts(regularizer: Any, method: Any) -> None:
    """Refuses what is no regulariser or no method."""
    if not isinstance(regularizer, AbstractRegularizer):
        raise ValueError(
            f"regularizer: expected one such as TotalVariation(0.1), got {type(regularizer).__name__}; put a network "
            "into Learned(network)."
        )
    if not isinstance(method, AbstractSplitting):
        shown = method.__name__ if isinstance(method, type) else repr(method)
        raise ValueError(f"method: expected an instance such as ADMM(rho=1.0), got {shown}; call its constructor.")


class _At(NamedTuple):
    """Where the loop is."""

    steps: Array
    state: Any
    code: Array
    value: Array
    primal: Array
    dual: Array
    best: Array
    best_primal: Array
    best_dual: Array
    least: Array  # of the residuals, in the unit of the field: of all, of those before the late part, and in it
    early_least: Array
    late_least: Array
    seen: Trace
    merit: Array  # the last that was seen
    rises: Array
    unit: Array  # the size of iterates that is no explosion: of the start and the first step


def _run(
    A: Any, y: Array, regularizer: Any, method: Any, scale: Any, x0: Any, norm: Any, monitor: int
) -> Reconstruction:
    norm = jax.lax.stop_gradient(A.norm() if norm is None else jnp.asarray(norm)).astype(y.dtype)
    data = DataTerm(A, y, jnp.asarray(scale, y.dtype), norm)
    method = method.ready(data)
    x0 = A.adjoint(y) if x0 is None else x0
    limit, kind = method.max_steps, y.dtype
    never, nothing = jnp.full((), jnp.inf, kind), jnp.zeros((), jnp.int32)
    times = None if not monitor else jnp.full(limit // monitor, jnp.nan, kind)

    def step(at: _At) -> _At:
        moved = method.step(data, regularizer, at.state)
        primal, dual = jax.lax.stop_gradient((moved.primal, moved.dual))
        worst = jnp.maximum(primal, dual)
        finite = jnp.isfinite(worst) & jnp.all(jnp.isfinite(moved.value))
        state, value = _select(finite, (moved.state, moved.value), (at.state, at.value))
        # in the unit of the field: relative ones are small too where iterates run away
        size = length(value)
        absolute = jnp.where(finite, worst * size, jnp.inf)
        better = absolute <= at.least
        late = at.steps >= (1 - LATE) * limit
        least = jnp.minimum(at.least, absolute)
        late_least = jnp.where(late, jnp.minimum(at.late_least, absolute), jnp.inf)
        best, best_primal, best_dual = _select(better, (value, primal, dual), (at.best, at.best_primal, at.best_dual))
        code = jnp.where(finite & (worst <= method.rtol), Ending.converged, RUNNING)
        code = jnp.where(finite & (at.steps > 0) & (size > EXPLODED * at.unit), Ending.diverged, code)
        unit = jnp.where(at.steps == 0, jnp.maximum(size, at.unit), at.unit)
        code = jnp.where(finite, code, Ending.nonfinite).astype(jnp.int32)
        seen, merit, rises = at.seen, at.merit, at.rises
        seen = eqx.tree_at(
            lambda s: (s.primal, s.dual), seen, (seen.primal.at[at.steps].set(primal), seen.dual.at[at.steps].set(dual))
        )
        if monitor:
            due = (at.steps + 1) % monitor == 0
            frozen = jax.lax.stop_gradient((data, regularizer, state))
            unknown = (jnp.full((), jnp.nan, kind),) * 2
            objective, now = jax.lax.cond(
                due, lambda: tuple(v.astype(kind) for v in method.measure(*frozen)), lambda: unknown
            )
            slot = jnp.where(due, (at.steps + 1) // monitor - 1, limit)  # outside: dropped
            seen = eqx.tree_at(
                lambda s: (s.objective, s.merit),
                seen,
                (seen.objective.at[slot].set(objective, mode="drop"), seen.merit.at[slot].set(now, mode="drop")),
            )
            rounding = 1000 * jnp.finfo(kind).eps * (jnp.abs(now) + jnp.abs(merit) + data.scale * jnp.sum(y**2))
            if method.descends:
                rises = rises + (due & (now > merit + jax.lax.stop_gradient(rounding)))
            merit = jnp.where(due, now, merit)
        early = jnp.where(late, at.early_least, least)
        return _At(
            at.steps + 1, state, code, value, primal, dual, best, best_primal, best_dual, least, early, late_least,
            seen, merit, rises, unit,
        )  # fmt: skip

    blank = Trace(jnp.full(limit, jnp.nan, kind), jnp.full(limit, jnp.nan, kind), times, times)
    running, start = jnp.full((), RUNNING, jnp.int32), method.start(data, x0)
    begun = _At(
        nothing, start, running, x0, never, never, x0, never, never, never, never, never, blank, never, nothing,
        length(x0),
    )  # fmt: skip
    at = bounded_loop(step, lambda at: at.code != RUNNING, begun, limit)

    falling, grown = at.late_least < FALLEN * at.early_least, at.late_least > GROWN * at.early_least
    told = jnp.where(falling, Ending.max_steps, jnp.where(grown, Ending.diverged, Ending.cycling))
    code = jnp.where(at.code == RUNNING, told, at.code).astype(jnp.int32)
    converged = code == Ending.converged
    value, primal, dual = _select(converged, (at.value, at.primal, at.dual), (at.best, at.best_primal, at.best_dual))
    return Reconstruction(
        value=value,
        result=code,
        converged=converged,
        num_steps=at.steps,
        primal_residual=primal,
        dual_residual=dual,
        within_theorem=jnp.asarray(method.within_theorem(data, regularizer)),
        merit_rises=at.rises,
        history=_repeated(at.seen, at.steps, monitor),
    )


_compiled = eqx.filter_jit(_run)


def _strong(leaf: Any, kind: Any) -> Any:
    """Plain numbers as arrays, and arrays without a weak type: a program would be compiled again for either."""
    if isinstance(leaf, bool) or not isinstance(leaf, int | float | np.generic | np.ndarray | jax.Array):
        return leaf
    if isinstance(leaf, float):
        return jnp.asarray(leaf, kind)
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf


def _select(which: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(which, a, b), yes, no)


def _repeated(seen: Trace, steps: Array, monitor: int) -> Trace:
    def one(values: Array, taken: Array) -> Array:
        return values[jnp.minimum(jnp.arange(len(values)), jnp.maximum(taken - 1, 0))]

    times = steps // monitor if monitor else steps
    return Trace(
        one(seen.primal, steps),
        one(seen.dual, steps),
        None if seen.objective is None else one(seen.objective, times),
        None if seen.merit is None else one(seen.merit, times),
    )


def _field(x: Any, name: str, shape: Any) -> Array:
    check_plain(x, name)
    check_native(x, name)
    if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating):
        came = getattr(x, "dtype", type(x).__name__)
        raise ValueError(f"{name}: expected a real floating array, got {came}; use jnp.asarray({name}, jnp.float32).")
    if shape is not None and tuple(x.shape) != tuple(shape):
        mend = "use jax.vmap for a batch." if len(x.shape) == len(shape) + 1 else "give a field of this shape."
        raise ValueError(f"{name}: expected shape {tuple(shape)}, as A has it, got {tuple(x.shape)}; {mend}")
    return jnp.asarray(x)
