"""The Lanczos process with full re-orthogonalisation: a few steps of a large symmetric operator as a small matrix."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from neuralops.arguments import count
from neuralops.solvers.algebra.matrices import as_linear_map
from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.algebra.programs import hoist
from neuralops.solvers.algebra.vectors import Dot, power_of_two, sized, while_loop

__all__ = ["LanczosBasis", "lanczos", "ritz_pairs"]

INVARIANT = 1e-10  # of the largest entry of T: what leaves the span counts as nothing below it
BLOCK = 32  # basis vectors read at a time; the ones not yet found are then skipped


class LanczosBasis(NamedTuple):
    """A Q = Q T + (what leaves the span), for the first `num_valid` vectors; the rest are zeros.

    **Fields:**

    - `vectors`: the orthonormal columns of Q as fields, `(num_steps, *grid)`.
    - `diagonal`: of the tridiagonal T, `(num_steps,)`.
    - `off_diagonal`: of T on either side, not negative, `(num_steps - 1,)`.
    - `remainder`: the 2-norm of what leaves the span, beta after the last valid step; rounding, at an early end. A Ritz
      vector whose eigenvector of T ends in y has a residual of norm `remainder` |y|.
    - `num_valid`: how many steps were taken, fewer than `num_steps` when the span became invariant.
    """

    vectors: Float[Array, " num_steps *grid"]
    diagonal: Float[Array, " num_steps"]
    off_diagonal: Float[Array, " num_steps-1"]
    remainder: Float[Array, ""]
    num_valid: Int[Array, ""]

    def __eq__(self, other: object) -> bool:  # a tuple would ask arrays for a truth value
        return isinstance(other, LanczosBasis) and bool(eqx.tree_equal(tuple(self), tuple(other)))

    def __ne__(self, other: object) -> bool:
        return not self == other

    @property
    def matrix(self) -> Float[Array, "num_steps num_steps"]:
        """The tridiagonal T, dense."""
        return jnp.diag(self.diagonal) + jnp.diag(self.off_diagonal, 1) + jnp.diag(self.off_diagonal, -1)


def lanczos(
    A: Any, start: Float[Array, "*grid"], num_steps: int, *, null_space: NullSpace | None = None
) -> LanczosBasis:
    """An orthonormal basis of the Krylov space of `start`, in which the symmetric operator A is tridiagonal.

    Lanczos (1950, J. Res. Nat. Bur. Standards 45, 255) by the algorithm of Golub and Van Loan (Matrix Computations,
    chapter 10). Left alone, the vectors lose their orthogonality as soon as an eigenvalue is found, and find it again
    and again (Paige 1976, J. Inst. Maths Applics 18, 341). Here each is orthogonalised against all before it, twice.

    The process ends early when the span is invariant: when beta falls below 1e-10 of the largest entry of T so far
    (below 100 roundings, in float32). In exact arithmetic that is after one step per distinct eigenvalue of which
    `start` holds a part: of an eigenspace of several dimensions one vector is found. Where this takes many steps
    rounding brings in the rest, null vectors that `start` does not hold included (see `null_space`).

    Costs `num_steps` fields of memory, as many applications of A, and 4 num_steps^2 multiplications and additions per
    point. Works under `jax.jit`; under `jax.vmap` every member takes as many steps as the longest. Not differentiable
    in reverse.

    **Arguments:**

    - `A`: a symmetric linear map: a `Diffusion`, a function from a field to a like field, or a matrix, as `solve` takes
      them. Symmetry is not checked of functions.
    - `start`: the first vector up to its length, an array of any shape; `(n,)` for a matrix. A zero or non-finite one
      gives `num_valid=0` under `jax.jit`.
    - `num_steps`: most steps to take, at most one per entry of `start`.
    - `null_space`: removed from every vector, such as `A.null_space()`; otherwise rounding lets it in, and it becomes a
      Ritz vector whose value falls to zero.

    **Raises:** `ValueError` on arguments that do not fit, and on a zero or non-finite start outside `jax.jit`.
    """
    A, start, num_steps, dot = _check(A, start, num_steps, null_space)
    program, closed, _ = hoist(lambda v: _process(A, v, num_steps, null_space, dot), start)
    return program.compiled(closed, start)


def ritz_pairs(
    A: Any, start: Float[Array, "*grid"], num_steps: int, *, null_space: NullSpace | None = None
) -> tuple[Float[Array, " num_steps"], Float[Array, " num_steps *grid"]]:
    """Approximate eigenpairs of a symmetric operator from `num_steps` Lanczos steps: Ritz values and Ritz vectors.

    The eigenpairs of A restricted to the Krylov space. With a random start those at both ends of the spectrum become
    eigenpairs of A first; inside it a Ritz vector mixes eigenvectors of about its value (Golub and Van Loan, chapter
    10). The tridiagonal matrix is decomposed as a dense one.

    Costs, besides the Lanczos process, num_steps^3 operations and twice its memory: 2 `num_steps` fields.

    **Arguments:** as of `lanczos`.

    **Returns:** the values, ascending, `(num_steps,)`, and the orthonormal vectors as fields, `(num_steps, *grid)`.
    When the process ends early only as many pairs as there were steps are there; the values after them are infinite,
    the vectors zero.

    **Raises:** `ValueError` as `lanczos`.
    """
    return _ritz(lanczos(A, start, num_steps, null_space=null_space))


def _process(A: Any, start: Array, num_steps: int, null_space: NullSpace | None, dot: Dot) -> LanczosBasis:
    block = min(BLOCK, num_steps)
    rounding = 100 * float(jnp.finfo(start.dtype).eps)
    tolerance = max(INVARIANT, rounding)
    start, _ = sized(start, dot.mesh_axes)
    whole = dot.norm(start)
    start = start if null_space is None else null_space.to_range(start)
    norm = dot.norm(start)
    proper = (norm > (0 if null_space is None else rounding * whole)) & jnp.isfinite(norm)

    def without(w: Array, vectors: Array, count: Array) -> Array:
        """`w` less its projection on the first vectors, which are orthonormal."""

        def some(i: Array, w: Array) -> Array:
            part = lax.dynamic_slice_in_dim(vectors, i * block, block)  # the last block may begin in the one before
            return w - jnp.tensordot(dot.stacked(part, w), part, 1, precision="highest")

        return lax.fori_loop(0, (count + block - 1) // block, some, w)

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        j, _, v, vectors, diagonal, betas, size = state
        vectors = lax.dynamic_update_index_in_dim(vectors, v, j, 0)
        w, unit = sized(A(v), dot.mesh_axes)
        alpha = dot(v, w) * unit
        for _ in range(2):  # the second pass removes the rounding of the first; the three terms go with the rest
            w = without(w, vectors, j + 1)
            w = w if null_space is None else null_space.to_range(w)
        length = dot.norm(w)
        beta = length * unit
        size = jnp.maximum(size, jnp.maximum(jnp.abs(alpha), beta))
        v = w / jnp.where(length > 0, length, 1)
        return j + 1, beta > tolerance * size, v, vectors, diagonal.at[j].set(alpha), betas.at[j].set(beta), size

    zeros = jnp.zeros(num_steps, norm.dtype)
    vectors = jnp.zeros((num_steps, *start.shape), start.dtype)
    state = (jnp.asarray(0, jnp.int32), proper, start / jnp.where(proper, norm, 1), vectors, zeros, zeros, zeros[0])
    count, _, _, vectors, diagonal, betas, _ = while_loop(lambda s: (s[0] < num_steps) & s[1], step, state)
    coupled = jnp.arange(num_steps - 1) < count - 1
    remainder = jnp.where(count > 0, betas[jnp.maximum(count - 1, 0)], 0)
    return LanczosBasis(vectors, diagonal, jnp.where(coupled, betas[:-1], 0), remainder, count)


@jax.jit
def _ritz(basis: LanczosBasis) -> tuple[Array, Array]:
    T = basis.matrix
    found = jnp.arange(len(T)) < basis.num_valid
    # Steps not taken are put above all eigenvalues, so that they come last.
    bound = jnp.max(jnp.sum(jnp.abs(T), axis=1))
    unit = power_of_two(bound)
    above = jnp.where(found, 0, 4)
    values, y = jnp.linalg.eigh(T / unit + jnp.diag(above))
    return jnp.where(found, values * unit, jnp.inf), jnp.tensordot(y.T, basis.vectors, 1, precision="highest")


def _check(A: Any, start: Any, num_steps: Any, null_space: Any) -> tuple[Any, Array, int, Dot]:
    if not hasattr(start, "dtype") or not jnp.issubdtype(start.dtype, jnp.floating) or start.ndim == 0:
        came = f"{start.dtype} of shape {start.shape}" if hasattr(start, "dtype") else type(start).__name__
        raise ValueError(
            f"start: expected a real floating array with an axis at least, got {came}; use "
            "jax.random.normal(key, grid.shape)."
        )
    start = jnp.asarray(start)
    shape: Any = getattr(A, "shape", ())
    if len(shape) == 2 and start.shape != (shape[0],):
        raise ValueError(
            f"start: expected shape ({shape[0]},) for a matrix of shape {tuple(shape)}, got {start.shape}; give one "
            "entry per row."
        )
    A = as_linear_map(A, start)
    if not callable(A):
        raise ValueError(
            f"A: expected a callable from field to field or a matrix, got {type(A).__name__}; pass a function or a "
            "Diffusion."
        )
    out = jax.eval_shape(A, start)
    if getattr(out, "shape", None) != start.shape or out.dtype != start.dtype:
        came = f"{out.dtype} of shape {out.shape}" if hasattr(out, "shape") else type(out).__name__
        raise ValueError(
            f"A: expected a map from start to the same dtype and shape, {start.dtype} of {start.shape}, got {came}; "
            "make operator and start agree."
        )
    if null_space is not None and not isinstance(null_space, NullSpace):
        raise ValueError(
            f"null_space: expected a NullSpace, got {type(null_space).__name__}; use NullSpace.from_basis([v])."
        )
    dot = Dot(tuple(getattr(A, "mesh_axes", ())))
    size = start.size * math.prod(lax.axis_size(axis) for axis in dot.mesh_axes)
    hint = "a step finds one direction, so there are no more than entries of start."
    num_steps = count(num_steps, "num_steps", most=size, hint=hint)
    if not isinstance(start, jax.core.Tracer) and not (bool(jnp.all(jnp.isfinite(start))) and bool(jnp.any(start))):
        raise ValueError("start: expected a finite vector other than zero, got one without; draw it at random.")
    return A, start, num_steps, dot
