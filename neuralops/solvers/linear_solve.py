"""`solve`: invert a symmetric operator with a method, and say truthfully how well it went."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.arguments import check_plain, flag, native
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.algebra.programs import hoist
from neuralops.solvers.algebra.vectors import (
    Dot,
    largest,
    power_of_two,
    ratio,
    same_structure,
    select,
    sub,
    vary,
    varying,
    zeros_like,
)  # fmt: skip
from neuralops.solvers.krylov.refinement import Refinement
from neuralops.solvers.solution import AbstractMethod, Result, Solution, System, warn_of_derivative

__all__ = ["solve"]


def solve(
    A: Any,
    b: Any,
    method: Any,
    *,
    x0: Any = None,
    null_space: NullSpace | None = None,
    throw: bool = False,
    warn: bool = True,
) -> Solution:
    """Solves A x = b for a symmetric operator, matrix-free.

    ```python
    A = Diffusion.from_coefficient(grid, a)
    solution = solve(A, A.load(f), CG(rtol=1e-6, preconditioner=FastPoisson(grid)))
    ```

    Works under `jax.jit`, `jax.vmap` (each member stops by itself), `jax.lax.scan`, `jax.shard_map` and, by implicit
    differentiation, `jax.grad` and `jax.jvp` with respect to `b` and everything `A` holds or closes over. A gradient
    costs one more solve, with the same method from zero, to the same relative tolerance of its own right-hand side; it
    does not depend on `x0` nor on the preconditioner. Right-hand sides and cotangents are scaled by their largest
    entry, so tiny ones are solved as accurately as others (subnormal numbers, which XLA flushes, count as zero).
    Multiplying A or `b` by a power of two changes no step and no digit (float32, to 1e24 for A and 1e27 for `b`).

    **Arguments:**

    - `A`: a symmetric positive definite linear map: a `Diffusion`, any function from a field to a like field (pytrees
      of fields too), or a matrix: a square array, a sparse matrix of `jax.experimental.sparse` or of SciPy. Positive
      semidefinite with a null space, which `A.null_space()` may offer.
    - `b`: the right-hand side, real floating arrays of one dtype.
    - `method`: `CG(...)`, `FlexibleCG(...)`, `Refinement(...)`, or an approximate inverse such as `FastPoisson(grid)`
      or `Multigrid(A)`, which stands for `Refinement` of it.
    - `x0`: the start, by default zero; tolerances stay relative to `b`. A start whose residual is not finite is
      ignored.
    - `null_space`: what A cannot produce and cannot see, instead of what `A.null_space()` says; computed once, it
      serves many solves. The part of `b` outside the range is removed, and reported if it exceeds the tolerance, which
      is relative to what is left.
    - `throw`: raise when the solve did not converge; outside JAX transformations only.
    - `warn`: whether the solves behind derivatives, which have no `Solution` to report in, give a `DerivativeWarning`
      when they stop short or find that A is not symmetric. Compiled programs warn as they run.

    **Returns:** a `Solution`, always with the best finite iterate.

    **Raises:** `ValueError` before any computation on arguments that do not fit; `RuntimeError` with
    `throw=True`, when the solve did not converge.

    Called from outside `jax.jit` it compiles once for each kind of problem. New values in arrays and tolerances do not
    compile again; plain functions are traced at each call to find out.
    """
    method = _as_method(method)
    b = _check_vector("b", b)
    if not jax.tree.leaves(b):
        raise ValueError("b: expected at least one array, got an empty pytree; pass the right-hand side.")
    A = as_linear_map(A, b)
    if not callable(A):
        raise ValueError(
            f"A: expected a callable from field to field or a matrix, got {type(A).__name__}; pass a function or a "
            "Diffusion."
        )
    if x0 is not None:
        x0 = _check_start(x0, b)
    if null_space is not None and not isinstance(null_space, NullSpace):
        raise ValueError(
            f"null_space: expected a NullSpace, got {type(null_space).__name__}; use NullSpace.from_basis([v])."
        )
    arguments = (A, b, method, x0, null_space)
    if flag(throw, "throw") and _traced(arguments):
        raise ValueError(_THROW_TRACED)
    # Operators carry all they depend on, so the compiled solve can be kept; a function may close over anything.
    solution = (_solve_compiled if _is_pure(A) and _is_pure(method) else _solve)(*arguments, flag(warn, "warn"))
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


class _Report(NamedTuple):
    """What one solve tells besides its value."""

    result: Array
    num_steps: Array
    residual_norm: Array
    history: Array | None
    num_rejected: Array


def _solve(A: Any, b: Any, method: AbstractMethod, x0: Any, null_space: Any, warn: bool) -> Solution:
    if null_space is None:
        null_space = A.null_space() if callable(getattr(A, "null_space", None)) else None
    # Functions may close over anything, so they are traced once and what they close over becomes an argument: of the
    # rule of differentiation, which could not see it otherwise.
    apply_A, closed_A, out_A = hoist(A, b)
    known = bool(getattr(A, "symmetric", False))  # linear and symmetric by construction
    _check_map("A", out_A, b)
    b = vary(b, varying(out_A))
    start = zeros_like(b) if x0 is None else vary(x0, varying(b))
    dot = Dot(tuple(getattr(A, "mesh_axes", ())))

    numbers, kind = jax.tree.flatten(method)
    numbers = [jnp.asarray(number) for number in numbers]  # a tolerance too, or its value would be part of the program

    def invert(numbers: list[Any], rhs: Any, start: Any, own: Array) -> tuple[Any, _Report]:
        """Solves for a right-hand side: the user's own, or that of a derivative, which has no start and other units."""
        size = largest(rhs, dot.mesh_axes)
        unit = power_of_two(size)
        scaled = jax.tree.map(lambda leaf: leaf / unit, rhs)
        whole, used = dot.norm(scaled), scaled
        norm = whole
        if null_space is not None:
            used = null_space.to_range(scaled)
            norm = dot.norm(used)
            nothing = norm <= 100 * jnp.finfo(norm.dtype).eps * whole  # rounding is all that is left
            used, norm = select(nothing, zeros_like(used), used), jnp.where(nothing, 0, norm)
        affine: Any = False
        asymmetric: Any = False
        if not known:
            affine, asymmetric = _faults(lambda v: apply_A(closed_A, v), used, dot)
            used, norm = select(affine, zeros_like(used), used), jnp.where(affine, 0, norm)
        system = System(
            matvec=lambda v: apply_A(closed_A, v),
            b=used,
            x0=None if x0 is None else jax.tree.map(lambda leaf: jnp.where(own, leaf / unit, 0), start),
            norm=norm,
            unit=jnp.where(own, unit, jnp.inf),
            dot=dot,
            null_space=null_space,
            asymmetric=asymmetric if method.needs_symmetry else False,
        )
        out = jax.tree.unflatten(kind, numbers).run(system)
        x, residual, result = out.x, out.residual, out.result
        if affine is not False:
            x, residual = select(affine, zeros_like(x), x), select(affine, scaled, residual)
            result = jnp.where(affine, Result.affine, result).astype(jnp.int32)
        if null_space is not None:
            x = null_space.fix_gauge(x)
            # judged by the right-hand side as given, with what to_range removed
            removed, rest = sub(scaled, used), dot.norm(residual)
            residual = jax.tree.map(jnp.add, residual, removed)
            lost = (result == Result.converged) & (dot.norm(residual) > out.target)
            lost = lost | ((result == Result.stagnated) & (dot.norm(removed) > rest))  # the larger of two causes
            result = jnp.where(lost, Result.incompatible, result).astype(jnp.int32)
        # A poisoned cotangent must not come back as a clean gradient.
        poison = jnp.where(own | jnp.isfinite(size), 0, jnp.nan)
        x = jax.tree.map(lambda leaf: leaf * unit + poison.astype(leaf.dtype), x)
        rejected = jnp.asarray(out.num_rejected, jnp.int32)
        return x, _Report(result, out.num_steps, ratio(dot.norm(residual), whole), out.history, rejected)

    own, other = np.asarray(True), np.asarray(False)  # no tracers: the rule below must close over nothing
    inverse, closed, out = hoist(invert, numbers, b, start, own)
    if varying(out[0]) - varying(b):  # as when preconditioners differ between devices
        b, start = (vary(u, varying(out[0])) for u in (b, start))
        inverse, closed, out = hoist(invert, numbers, b, start, own)

    @jax.custom_jvp
    def forward(closed_A: Any, closed: Any, b: Any, start: Any) -> tuple[Any, _Report]:
        """The solve, as a map that JAX can transpose too: by solving again, since A is symmetric."""
        restore_A, restore = _alike_again(closed_A, b), _alike_again(closed, b)
        axes = varying(b)

        def run(rhs: Any, start: Any, mine: Any) -> Any:
            return vary(inverse(*restore(), rhs, start, mine), axes)  # its outputs must differ alike, and do not

        solved = lax.custom_linear_solve(
            lambda v: apply_A(restore_A(), v),
            b,
            lambda _, rhs: run(rhs, start, own),
            lambda _, rhs: run(rhs, zeros_like(start), other),
            symmetric=True,
            has_aux=True,
        )
        return _narrowed(solved, out) if axes else solved

    def differentiate(primals: Any, tangents: Any) -> tuple[Any, Any]:
        """A dx = db - dA x, solved like the system itself; its transpose for cotangents."""
        closed_A, closed, b, start = primals
        x, report = forward(*primals)
        rhs = jax.tree.map(lambda t, like: jnp.zeros_like(like) if _is_zero(t) else t, tangents[2], b, is_leaf=_is_zero)
        moved = [i for i, t in enumerate(tangents[0]) if not _is_zero(t)]
        if moved:

            def product(values: Any) -> Any:
                consts = list(closed_A)
                for i, value in zip(moved, values, strict=True):
                    consts[i] = value
                return apply_A(consts, x)

            _, change = jax.jvp(product, ([closed_A[i] for i in moved],), ([tangents[0][i] for i in moved],))
            rhs = sub(rhs, change)
        restore_A, restore = _alike_again(closed_A, b), _alike_again(closed, b)
        matvec, nowhere = lambda v: apply_A(restore_A(), v), zeros_like(start)

        def tangent(_: Any, rhs: Any) -> Any:
            dx, account = inverse(*restore(), rhs, nowhere, other)
            if warn:
                warn_of_derivative(account.result, account.residual_norm)
            return dx

        def cotangent(_: Any, rhs: Any) -> Any:
            dx, account = inverse(*restore(), rhs, nowhere, other)
            if warn:
                warn_of_derivative(_asymmetric(A, matvec, dx, rhs, account, dot), account.residual_norm)
            return dx

        dx = lax.custom_linear_solve(matvec, rhs, tangent, cotangent, symmetric=True)
        return (x, report), (dx, jax.tree.map(_no_tangent, report))

    forward.defjvp(differentiate, symbolic_zeros=True)
    if _traced((closed_A, closed, numbers, b, start)):
        value, report = forward(closed_A, (closed, numbers), b, start)
    else:  # called from outside JAX: nothing to differentiate
        value, report = inverse.compiled(closed, numbers, b, start, own)
    return Solution(value, converged=report.result == Result.converged, **report._asdict())


_solve_compiled = jax.jit(_solve, static_argnums=5)


def _alike_again(closed: Any, b: Any) -> Callable[[], Any]:
    """Closed-over arrays in a shape that passes `custom_linear_solve` inside `jax.shard_map`.

    It retypes all that a function closes over as differing between devices if `b` does, which the function, already
    traced, does not expect. So what is the same on all devices is declared different before and the same again inside.
    """
    axes = varying(b)
    if not axes:
        return lambda: closed
    wide = vary(closed, axes)
    return lambda: _narrowed(wide, closed)


def _narrowed(wide: Any, like: Any) -> Any:
    """Values typed as the same on all devices again where those of `like` are."""

    def one(leaf: Array, was: Any) -> Array:
        extra = tuple(sorted(varying(leaf) - varying(was)))
        if not extra:
            return leaf
        kind = leaf.dtype
        return lax.pmax(leaf.astype(jnp.int32) if kind == jnp.bool_ else leaf, extra).astype(kind)

    return jax.tree.map(one, wide, like)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def _no_tangent(leaf: Array) -> Any:
    return jax.custom_derivatives.SymbolicZero(jax.typeof(leaf).to_tangent_aval())


def _asymmetric(A: Any, matvec: Any, x: Any, rhs: Any, account: _Report, dot: Dot) -> Array:
    """The result of a transposed solve, which took A for its own transpose: a breakdown if it is not."""
    if getattr(A, "symmetric", False):
        return account.result
    try:
        product, pull = jax.vjp(matvec, x)
        transposed = pull(x)[0]
    except Exception:  # JAX cannot transpose every function, and then the user's word is taken
        return account.result
    unit = power_of_two(largest(rhs, dot.mesh_axes))
    lost, norm = (dot.norm(jax.tree.map(lambda v: v / unit, u)) for u in (sub(product, transposed), rhs))
    wrong = lost > 10 * jnp.maximum(account.residual_norm, math.sqrt(jnp.finfo(norm.dtype).eps)) * norm
    return jnp.where(wrong & (account.result == Result.converged), Result.breakdown, account.result)


def _faults(A: Any, u: Any, dot: Dot) -> tuple[Array, Array]:
    """Whether A is affine, and whether it is not symmetric, as far as one vector and its image tell."""
    constant = dot.norm(A(zeros_like(u)))
    image = A(u)
    again = A(image)
    # u . A (A u) = (A u) . (A u) for a symmetric A
    crossed, square, size, width = dot.many([(u, again), (image, image), (u, u), (again, again)])
    tolerance = math.sqrt(float(jnp.finfo(square.dtype).eps))
    return constant > 0, jnp.abs(crossed - square) > tolerance * (square + jnp.sqrt(size * width))


def _as_method(method: Any) -> AbstractMethod:
    if isinstance(method, AbstractMethod):
        return method
    if isinstance(method, type) or not callable(method):
        shown = method.__name__ if isinstance(method, type) else repr(method)
        raise ValueError(
            f"method: expected an instance such as CG(rtol=1e-6) or FastPoisson(grid), got {shown}; "
            "call its constructor."
        )
    return Refinement(method)


def _check_vector(name: str, tree: Any) -> Any:
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        check_plain(leaf, name)
        if not hasattr(leaf, "dtype") or not jnp.issubdtype(leaf.dtype, jnp.floating):
            came = getattr(leaf, "dtype", type(leaf).__name__)
            raise ValueError(
                f"{name}: expected real floating arrays, got {came}; use jnp.asarray({name}, jnp.float32)."
            )
    arrays = jax.tree.map(lambda leaf: jnp.asarray(native(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)), tree)
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(arrays)}
    if len(dtypes) > 1:
        raise ValueError(f"{name}: expected arrays of one dtype, got {sorted(dtypes)}; cast them to one.")
    return arrays


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), str(leaf.dtype)), tree)


def _check_map(name: str, out: Any, b: Any) -> None:
    """Refuses a map whose output is not like its input."""
    same = same_structure(out, b)
    pairs = zip(jax.tree.leaves(out), jax.tree.leaves(b), strict=False)
    if not same or not all(o.shape == i.shape and o.dtype == i.dtype for o, i in pairs):
        raise ValueError(
            f"{name}: expected a map from b to the same shapes and dtype {_shapes(b)}, got {_shapes(out)}; "
            "make operator and right-hand side agree, in dtype too."
        )


def _check_start(x0: Any, b: Any) -> Any:
    x0 = _check_vector("x0", x0)
    if not same_structure(x0, b) or any(
        u.shape != v.shape for u, v in zip(jax.tree.leaves(x0), jax.tree.leaves(b), strict=True)
    ):
        raise ValueError(
            f"x0: expected the shapes of b, {_shapes(b)}, got {_shapes(x0)}; reshape or resample the start."
        )
    return jax.tree.map(lambda u, v: u.astype(v.dtype), x0, b)


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _is_pure(tree: Any) -> bool:
    """Whether a pytree is a module of arrays and hashable static fields throughout, without a wrapped function."""
    if not isinstance(tree, eqx.Module):
        return False
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, jax.tree_util.Partial))
    try:
        hash(jax.tree.structure(tree))
    except TypeError:
        return False
    return all(isinstance(node, jax.Array | np.ndarray | float | int) for node in nodes)
