"""`solve`: invert a symmetric operator with a method, and say truthfully how well it went."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.operator import as_operator
from neuralops.solvers.solution import AbstractMethod, Outcome, Result, Solution, System

__all__ = ["CG", "solve"]

DEFAULT_HISTORY = 1000  # entries kept by history=True
RUNNING = -1
STALL = 0.5  # a round that does not reduce the true residual by this factor has reached the attainable accuracy
DRIFT = 10.0  # true over recursed residual above which a round has lost its accuracy to rounding
PROBE = 0.1  # how far the round after that aims: enough to tell progress from a stall


def solve(A: Any, b: Any, method: Any, *, x0: Any = None, throw: bool = False) -> Solution:
    """Solves A x = b for a symmetric operator, matrix-free.

    ```python
    A = Diffusion.from_coefficient(grid, a)
    solution = solve(A, A.load(f), CG(rtol=1e-6, preconditioner=FastPoisson(grid)))
    ```

    Works under `jax.jit`, `jax.vmap` (each member stops by itself), `jax.lax.scan` and, by implicit
    differentiation, `jax.grad` and `jax.jvp` with respect to `b` and everything `A` holds or closes over. A gradient
    costs one more solve, with the same method from zero, to the same relative tolerance of its own right-hand side; it
    does not depend on `x0` nor on the preconditioner. Right-hand sides and cotangents are scaled by their largest
    entry, so tiny ones are solved as accurately as others (subnormal numbers, which XLA flushes, count as zero).

    **Arguments:**

    - `A`: a symmetric positive definite linear map: a `Diffusion` or any callable from a field to a like
      field; pytrees of fields too. Positive semidefinite if it offers `to_range(b)` and `fix_gauge(x)`,
      transposes of one another, that remove what A cannot produce and what it cannot see.
    - `b`: the right-hand side, real floating arrays of one dtype.
    - `method`: `CG(...)`, or an approximate inverse such as `FastPoisson(grid)`, which is applied once.
    - `x0`: the start, by default zero; tolerances stay relative to `b`. A start whose residual is not finite is
      ignored.
    - `throw`: raise when the solve did not converge; outside JAX transformations only.

    **Returns:** a `Solution`, always with the last finite iterate.

    **Raises:** `ValueError` before any computation on arguments that do not fit; `RuntimeError` with
    `throw=True`, when the solve did not converge.

    Call it inside `jax.jit` when `A` is a plain function: each call from outside traces it anew.
    """
    if not callable(A):
        raise ValueError(
            f"A: expected a callable from field to field, got {type(A).__name__}; "
            "wrap a matrix as lambda v: jnp.dot(matrix, v)."
        )
    method = _as_method(method)
    b = _check_vector("b", b)
    if not jax.tree.leaves(b):
        raise ValueError("b: expected at least one array, got an empty pytree; pass the right-hand side.")
    _check_map("A", A, b)
    if isinstance(method, CG) and method.preconditioner is not None:
        _check_map("method.preconditioner", method.preconditioner, b)
    elif isinstance(method, _Once):
        _check_map("method", method.inverse, b)
    if x0 is not None:
        x0 = _check_start(x0, b)
    if throw and _traced((A, b, method, x0)):
        raise ValueError(_THROW_TRACED)
    # Operators carry all they depend on, so the compiled solve can be kept; a function may close over anything.
    solution = (_solve_compiled if _is_pure(A) and _is_pure(method) else _solve)(A, b, method, x0)
    if throw:
        if _traced(solution.result):
            raise ValueError(_THROW_TRACED)
        if not bool(np.all(np.asarray(solution.converged))):
            raise RuntimeError(f"solve: {solution.message}")
    return solution


_THROW_TRACED = (
    "throw: expected False under jax.jit, jax.vmap or jax.grad, got True; look at solution.result, or call solve "
    "outside the transformation."
)


class CG(AbstractMethod):
    """The conjugate gradient method (Hestenes and Stiefel 1952), preconditioned if wished.

    Stops when ||b - A x|| <= max(rtol ||b||, atol) in the 2-norm. The residual of the recursion is only trusted
    until it says so: then the true residual is computed, and if it disagrees, CG restarts from the current iterate. A
    round that no longer halves the true residual ends the solve as stagnated, with the better iterate.

    **Arguments:**

    - `rtol`, `atol`: relative and absolute tolerance; numbers or (traced) scalars.
    - `max_steps`: the limit on iterations, by default ten times the number of unknowns; may be traced.
    - `preconditioner`: a symmetric positive definite map close to the inverse of A, linear and the same at
      every step.
    - `history`: whether to keep relative residuals step by step: `True` keeps the first 1000, a number as
      many. Entries are recursed residuals, replaced by the true one where it was computed.

    Per step one A, one preconditioner, and the vector work of the classical algorithm, nothing more.

    **Raises:** `ValueError` on negative tolerances or limits.
    """

    rtol: Any
    atol: Any
    max_steps: Any
    preconditioner: Any
    history: int = eqx.field(static=True)

    def __init__(
        self,
        rtol: Any = 1e-6,
        atol: Any = 0.0,
        *,
        max_steps: Any = None,
        preconditioner: Any = None,
        history: bool | int = False,
    ):
        for name, value in (("rtol", rtol), ("atol", atol), ("max_steps", max_steps)):
            _check_number(name, value)
        if isinstance(history, bool):
            history = DEFAULT_HISTORY if history else 0
        if not isinstance(history, int | np.integer) or history < 0:
            raise ValueError(f"history: expected a bool or a count of entries, got {history!r}; use history=True.")
        if isinstance(preconditioner, type) or (preconditioner is not None and not callable(preconditioner)):
            raise ValueError(
                f"preconditioner: expected a callable from residual to correction, got {preconditioner!r}; "
                "use FastPoisson(grid)."
            )
        self.rtol, self.atol, self.max_steps = rtol, atol, max_steps
        self.preconditioner = None if preconditioner is None else as_operator(preconditioner)
        self.history = int(history)

    def run(self, system: System) -> Outcome:
        A, b, norm = system.matvec, system.b, system.norm
        dtype = norm.dtype
        size = sum(leaf.size for leaf in jax.tree.leaves(b))
        limit = jnp.asarray(min(10 * size, 2**31 - 1) if self.max_steps is None else self.max_steps, jnp.int32)
        target = jnp.maximum(self.rtol * norm, self.atol / system.unit).astype(dtype)
        epsilon = float(jnp.finfo(dtype).eps)

        zero = jax.tree.map(jnp.zeros_like, b)
        x, r = zero, b
        if system.x0 is not None:
            start_residual = _sub(b, A(system.x0))
            usable = jnp.isfinite(_norm(start_residual)) & (norm > 0)
            x, r = _select(usable, system.x0, zero), _select(usable, start_residual, b)

        def step(state: tuple) -> tuple:
            x, r, p, squared, gamma_before, k, code, history = state
            if self.preconditioner is None:
                z, gamma = r, squared
            else:
                z = jax.tree.map(lambda v, like: v.astype(like.dtype), self.preconditioner(r), r)
                gamma = _dot(r, z)
            p = _axpy(gamma / gamma_before, p, z)
            q = A(p)
            curvature = _dot(p, q)
            finite = jnp.isfinite(gamma) & jnp.isfinite(curvature)
            usable = finite & (gamma > 0) & (curvature > 0)
            alpha = gamma / curvature
            # A step along an unusable direction is not taken: x stays finite.
            x = jax.tree.map(lambda u, d: u + jnp.where(usable, alpha * d, 0), x, p)
            r = _axpy(-alpha, q, r)
            squared = _dot(r, r)
            k = k + usable
            code = jnp.where(usable, RUNNING, jnp.where(finite, Result.breakdown, Result.nonfinite)).astype(jnp.int32)
            if history is not None:
                history = history.at[k].set(jnp.sqrt(squared) / norm, mode="drop")
            return x, r, p, squared, gamma, k, code, history

        def round_(state: tuple) -> tuple:
            x, r, true_norm, reduction, k, code, history = state
            aim = jnp.maximum(target, reduction * true_norm)

            def unfinished(state: tuple) -> Array:
                _, _, _, squared, _, k, code, _ = state
                # CG residuals may grow, by the root of the condition number at most: beyond 1/epsilon it diverges.
                return (squared > aim**2) & (squared < (true_norm / epsilon) ** 2) & (k < limit) & (code == RUNNING)

            start = (x, r, zero, _dot(r, r), jnp.asarray(jnp.inf, dtype), k, code, history)
            new_x, _, _, squared, _, k, code, history = lax.while_loop(unfinished, step, start)
            new_r = _sub(b, A(new_x))
            new_norm = _norm(new_r)
            if history is not None:
                history = history.at[k].set(new_norm / norm, mode="drop")
            finite = jnp.isfinite(new_norm)
            stalled = ~(new_norm < STALL * true_norm)
            code = jnp.select(
                [~finite, new_norm <= target, code != RUNNING, k >= limit, stalled],
                [Result.nonfinite, Result.converged, code, Result.max_steps, Result.stagnated],
                RUNNING,
            ).astype(jnp.int32)
            worse = ~finite | ((code == Result.stagnated) & ~(new_norm < true_norm))
            x, r = _select(worse, x, new_x), _select(worse, r, new_r)
            drifted = new_norm > DRIFT * jnp.sqrt(squared)
            reduction = jnp.where(drifted, PROBE, epsilon).astype(dtype)
            return x, r, jnp.where(worse, true_norm, new_norm), reduction, k, code, history

        true_norm = _norm(r)
        history = None
        if self.history:
            history = jnp.full((self.history,), jnp.nan, dtype).at[0].set(_ratio(true_norm, norm))
        code = jnp.select(
            [~jnp.isfinite(true_norm), true_norm <= target, limit <= 0],
            [Result.nonfinite, Result.converged, Result.max_steps],
            RUNNING,
        ).astype(jnp.int32)
        state = (x, r, true_norm, jnp.asarray(epsilon, dtype), jnp.zeros((), jnp.int32), code, history)
        x, r, _, _, k, code, history = lax.while_loop(lambda s: s[5] == RUNNING, round_, state)
        return Outcome(x, r, target, code, k, history)


class _Once(AbstractMethod):
    """An approximate inverse applied once; converged if half of the digits of the true residual vanish."""

    inverse: Any

    def run(self, system: System) -> Outcome:
        x = jax.tree.map(lambda v, like: v.astype(like.dtype), self.inverse(system.b), system.b)
        residual = _sub(system.b, system.matvec(x))
        size = _norm(residual)
        finite = jnp.isfinite(size)
        target = math.sqrt(float(jnp.finfo(system.norm.dtype).eps)) * system.norm
        zero = jax.tree.map(jnp.zeros_like, x)
        code = jnp.where(finite, jnp.where(size <= target, Result.converged, Result.stagnated), Result.nonfinite)
        steps = (system.norm > 0).astype(jnp.int32)
        x, residual = _select(finite, x, zero), _select(finite, residual, system.b)
        return Outcome(x, residual, target, code.astype(jnp.int32), steps, None)


def _solve(A: Any, b: Any, method: AbstractMethod, x0: Any) -> Solution:
    given, method, x0 = jax.tree.map(lambda v: lax.stop_gradient(v) if eqx.is_inexact_array(v) else v, (b, method, x0))
    dtype = jax.tree.leaves(b)[0].dtype
    to_range, fix_gauge = getattr(A, "to_range", None), getattr(A, "fix_gauge", None)

    def invert(matvec: Any, rhs: Any) -> Any:
        # JAX calls this for the systems of tangents and cotangents too. The start and the absolute tolerance belong
        # to the right-hand side as given, and to no other.
        own = _equal(rhs, given)
        unit, finite = _unit(rhs, dtype)
        scaled = jax.tree.map(lambda leaf: leaf / unit, rhs)
        norm = _norm(scaled)
        system = System(
            matvec=matvec,
            b=scaled if to_range is None else to_range(scaled),
            x0=None if x0 is None else jax.tree.map(lambda leaf: jnp.where(own, leaf / unit, 0), x0),
            norm=norm,
            unit=jnp.where(own, unit, jnp.inf),
        )
        out = method.run(system)
        x, residual, result = out.x, out.residual, out.result
        if fix_gauge is not None:
            x = fix_gauge(x)
        if to_range is not None:  # judge by the right-hand side as given, with what to_range removed
            residual = jax.tree.map(lambda r, whole, used: r + (whole - used), residual, scaled, system.b)
            lost = (result == Result.converged) & (_norm(residual) > out.target)
            result = jnp.where(lost, Result.incompatible, result).astype(jnp.int32)
        # A poisoned cotangent must not come back as a clean gradient.
        poison = jnp.where(own | finite, 0, jnp.nan).astype(dtype)
        x = jax.tree.map(lambda leaf: leaf * unit + poison, x)
        return x, (result, out.num_steps, _ratio(_norm(residual), norm), out.history)

    value, (result, num_steps, residual_norm, history) = lax.custom_linear_solve(
        lambda v: A(v), b, invert, invert, symmetric=True, has_aux=True
    )
    return Solution(value, result, result == Result.converged, num_steps, residual_norm, history)


_solve_compiled = jax.jit(_solve)


def _equal(u: Any, v: Any) -> Array:
    """Whether two pytrees hold the same numbers, NaN counting as a number."""
    pairs = zip(jax.tree.leaves(u), jax.tree.leaves(v), strict=True)
    return jnp.all(jnp.stack([jnp.all((a == b) | (jnp.isnan(a) & jnp.isnan(b))) for a, b in pairs]))


def _unit(rhs: Any, dtype: Any) -> tuple[Array, Array]:
    """A power of two near the largest entry (so that scaling is exact), and whether all entries are finite."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(rhs) if leaf.size]))
    finite = jnp.isfinite(largest)
    info = jnp.finfo(dtype)
    # Rounding to no mantissa bits gives a power of two; kept normal, below overflow.
    power = lax.reduce_precision(largest, exponent_bits=info.nexp, mantissa_bits=0)
    power = jnp.clip(power, info.tiny, math.ldexp(1.0, int(info.maxexp) - 1))
    return jnp.where(finite & (largest > 0), power, 1), finite


def _as_method(method: Any) -> AbstractMethod:
    if isinstance(method, AbstractMethod):
        return method
    if isinstance(method, type) or not callable(method):
        shown = method.__name__ if isinstance(method, type) else repr(method)
        raise ValueError(
            f"method: expected an instance such as CG(rtol=1e-6) or FastPoisson(grid), got {shown}; "
            "call its constructor."
        )
    return _Once(as_operator(method))


def _check_vector(name: str, tree: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            came = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(
                f"{name}: expected real floating arrays, got {came}; use jnp.asarray({name}, jnp.float32)."
            )
    arrays = jax.tree.map(lambda leaf: jnp.asarray(leaf, jax.dtypes.canonicalize_dtype(leaf.dtype)), tree)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(arrays)}
    if len(dtypes) > 1:
        raise ValueError(f"{name}: expected arrays of one dtype, got {sorted(dtypes)}; cast them to one.")
    return arrays


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), str(leaf.dtype)), tree)


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree)


def _check_map(name: str, function: Any, b: Any) -> None:
    """Refuses a map whose output is not like its input, by abstract evaluation. A preconditioner may change dtype."""
    out = jax.eval_shape(lambda v: function(v), b)
    same = _structure(out) == _structure(b)
    pairs = list(zip(jax.tree.leaves(out), jax.tree.leaves(b), strict=False))
    same = same and all(o.shape == i.shape and (o.dtype == i.dtype or name != "A") for o, i in pairs)
    if not same:
        raise ValueError(
            f"{name}: expected a map from b to the same shapes and dtype {_shapes(b)}, got {_shapes(out)}; "
            "make operator and right-hand side agree, in dtype too."
        )


def _check_start(x0: Any, b: Any) -> Any:
    x0 = _check_vector("x0", x0)
    if _structure(x0) != _structure(b) or any(
        u.shape != v.shape for u, v in zip(jax.tree.leaves(x0), jax.tree.leaves(b), strict=True)
    ):
        raise ValueError(
            f"x0: expected the shapes of b, {_shapes(b)}, got {_shapes(x0)}; reshape or resample the start."
        )
    return jax.tree.map(lambda u, v: u.astype(v.dtype), x0, b)


def _check_number(name: str, value: Any) -> None:
    if value is None and name == "max_steps":
        return
    wanted = "an integer or None" if name == "max_steps" else "a number"
    kind = jnp.integer if name == "max_steps" else jnp.number
    if isinstance(value, bool | str) or not (isinstance(value, int | float) or hasattr(value, "dtype")):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}; pass a scalar.")
    if np.ndim(value) != 0 or not jnp.issubdtype(jnp.result_type(value), kind):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}; pass a scalar.")
    if not isinstance(value, jax.core.Tracer) and not float(value) >= 0:
        raise ValueError(f"{name}: expected {wanted} not below zero, got {value!r}; pass 0 or more.")


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _is_pure(tree: Any) -> bool:
    """Whether a pytree is a module of arrays and hashable static fields throughout, without a wrapped function."""
    if not isinstance(tree, eqx.Module):
        return False
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, jax.tree_util.Partial))
    try:
        hash(_structure(tree))
    except TypeError:
        return False
    return all(isinstance(node, jax.Array | np.ndarray | float | int) for node in nodes)


def _dot(u: Any, v: Any) -> Array:
    pairs = zip(jax.tree.leaves(u), jax.tree.leaves(v), strict=True)
    return sum((jnp.vdot(a, b, precision="highest") for a, b in pairs), start=0.0)  # type: ignore[return-value]


def _norm(u: Any) -> Array:
    return jnp.sqrt(_dot(u, u))


def _sub(u: Any, v: Any) -> Any:
    return jax.tree.map(jnp.subtract, u, v)


def _axpy(scalar: Array, u: Any, v: Any) -> Any:
    return jax.tree.map(lambda a, b: scalar * a + b, u, v)


def _select(condition: Array, u: Any, v: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), u, v)


def _ratio(size: Array, norm: Array) -> Array:
    return jnp.where(norm == 0, 0, size / jnp.where(norm == 0, 1, norm))
