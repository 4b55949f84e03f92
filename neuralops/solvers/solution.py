"""The two ends of a solve: the system a method is given, and the honest account that comes back."""

from __future__ import annotations

import enum
import warnings
from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.algebra.vectors import Dot

__all__ = [
    "AbstractMethod", "DerivativeWarning", "Outcome", "Result", "Solution", "System", "check_number",
    "warn_of_derivative",
]  # fmt: skip


class Result(enum.IntEnum):
    """How a solve ended; `Solution.result` holds the number."""

    converged = 0
    max_steps = 1
    stagnated = 2
    breakdown = 3
    nonfinite = 4
    incompatible = 5
    singular = 6
    asymmetric = 7
    affine = 8


MESSAGES = {
    Result.converged: "converged: the true residual meets the tolerance",
    Result.max_steps: "not converged: max_steps was reached; allow more steps or precondition",
    Result.stagnated: "not converged: the true residual no longer falls, the attainable accuracy of this precision is "
    "reached; loosen rtol or solve in float64",
    Result.breakdown: "not converged: the operator or the preconditioner is not symmetric positive definite, or a "
    "singular operator has no null_space given; FlexibleCG takes any preconditioner",
    Result.nonfinite: "not converged: NaN or infinity in the right-hand side, the operator or the preconditioner; the "
    "best finite iterate is returned",
    Result.incompatible: "no solution exists: the right-hand side has a part outside the operator's range (a pure "
    "Neumann or periodic problem needs a source of zero mean, on each part of the domain that is cut off); the "
    "solution for the rest is returned",
    Result.singular: "no solution exists: the operator maps a direction to zero, so it is singular, and the right-hand "
    "side has a part outside its range; take that part out (the mean, for pure Neumann and periodic problems), or give "
    "null_space=NullSpace.from_basis([...])",
    Result.asymmetric: "not converged: the operator is not symmetric (u . A v and v . A u differ), as conjugate "
    "gradients need it; use GMRES or BiCGStab of scipy.sparse.linalg or lineax",
    Result.affine: "not solved: A(0) is not zero, so A is affine and not linear (a boundary value left inside it?); "
    "move the constant to the right-hand side: solve v -> A(v) - A(0) for b - A(0)",
}


class Solution(eqx.Module):
    """The outcome of `solve`: arrays only, so it passes `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    **Attributes:**

    - `value`: the iterate, like the right-hand side. Never discarded: a solve that failed returns the best
      iterate it had.
    - `result`: a code of `Result`, int32.
    - `converged`: whether `result` is `Result.converged`.
    - `num_steps`: the iterations taken, int32.
    - `residual_norm`: the true relative residual ||b - A x|| / ||b|| in the 2-norm, recomputed from
      `value` (0 when b = 0).
    - `history`: relative residuals after 0, 1, ... steps, of fixed length, the last one repeated to the end, or `None`.
    - `num_rejected`: steps in which `FlexibleCG` or `DeepConjugateDirection` found the proposed direction unusable,
      int32.

    Under `jax.vmap` every attribute has the batch axis in front.
    """

    value: Any
    result: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    residual_norm: Float[Array, "*batch"]
    history: Float[Array, "*batch entries"] | None
    num_rejected: Int[Array, "*batch"]

    @property
    def message(self) -> str:
        """The outcome in words; of a batch, how many ended in which way. Needs concrete values."""
        codes = np.asarray(self.result).reshape(-1)
        if codes.size == 1 and np.ndim(self.result) == 0:
            steps, residual = int(self.num_steps), float(self.residual_norm)
            return f"{MESSAGES[Result(int(codes[0]))]} ({steps} steps, relative residual {residual:.3g})."
        counts = ((code, int(np.sum(codes == code))) for code in Result)
        return "; ".join(f"{count} of {codes.size} {MESSAGES[code]}" for code, count in counts if count) + "."


class System(NamedTuple):
    """One linear system as a method sees it: scaled so that the largest entry of `b` is about 1.

    `norm` is the 2-norm of the right-hand side that relative tolerances refer to. `unit` is what was divided
    out, so absolute tolerances are divided by it too; it is infinite in the systems of derivatives, whose
    units are others. `dot` is the inner product, and a method forms no other sum over entries: vectors, which
    are pytrees, may be spread over devices. `null_space` is that of a singular operator, as far as it is known.
    `asymmetric` says whether A was seen not to be symmetric, `False` where it is known to be.
    """

    matvec: Any
    b: Any
    x0: Any
    norm: Array
    unit: Array
    dot: Dot
    null_space: NullSpace | None = None
    asymmetric: Array | bool = False


class Outcome(NamedTuple):
    """What a method returns: the iterate, its true residual b - A x, the target norm it aimed at, and the account."""

    x: Any
    residual: Any
    target: Array
    result: Array
    num_steps: Array
    history: Array | None = None
    num_rejected: Array | int = 0


class AbstractMethod(eqx.Module):
    """A way to solve a symmetric linear system; numbers in it are leaves, so new values do not recompile."""

    needs_symmetry: ClassVar[bool] = True  # whether it can fail because A is not

    def __hash__(self) -> int:  # equality is by content, and operators within hash by identity
        numbers = tuple(leaf for leaf in jax.tree.leaves(self) if isinstance(leaf, int | float))
        return hash((jax.tree.structure(self), numbers))

    @abstractmethod
    def run(self, system: System) -> Outcome:
        """Solves one system inside `jax.jit`. Need not be differentiable: `solve` differentiates implicitly."""


def check_number(name: str, value: Any) -> None:
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


class DerivativeWarning(RuntimeWarning):
    """The solve behind a gradient or tangent did not converge, so the derivative is not accurate."""


def warn_of_derivative(result: Array, residual_norm: Array) -> None:
    """Gives a `DerivativeWarning` at run time if a solve failed; costs nothing but a branch if it did not.

    A part of the right-hand side outside the range is no failure here: derivatives of the gauge ignore it too.
    """
    failed = (result != Result.converged) & (result != Result.incompatible)
    _warn(jnp.where(failed, result, 0), jnp.where(failed, residual_norm, 0), failed.astype(jnp.int32))


@custom_vmap
def _warn(result: Array, residual_norm: Array, count: Array) -> Array:
    def call() -> None:
        jax.debug.callback(_warn_host, result, residual_norm, count)

    lax.cond(count > 0, call, lambda: None)
    return count


@_warn.def_vmap
def _warn_batch(size: int, batched: Any, result: Array, residual_norm: Array, count: Array) -> tuple[Array, bool]:
    """One warning for a batch: vmap would turn the branch into a call per member, failed or not."""
    worst = [jnp.max(v) if b else v for v, b in zip((result, residual_norm), batched, strict=False)]
    return _warn(*worst, jnp.sum(count) if batched[2] else size * count), False


def _warn_host(result: Any, residual_norm: Any, count: Any) -> None:
    several = f"{int(count)} solves, the worst of them" if count > 1 else "A solve"
    warnings.warn(
        f"{several} behind a derivative ended as {MESSAGES[Result(int(result))]!r} with relative residual "
        f"{float(residual_norm):.3g}; the derivative is no more accurate than that. Change the method, or pass "
        "warn=False to solve.",
        DerivativeWarning,
        stacklevel=2,
    )
