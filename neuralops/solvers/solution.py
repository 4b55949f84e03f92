"""The two ends of a solve: the system a method is given, and the honest account that comes back."""

from __future__ import annotations

import enum
from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

__all__ = ["AbstractMethod", "Outcome", "Result", "Solution", "System"]


class Result(enum.IntEnum):
    """How a solve ended; `Solution.result` holds the number."""

    converged = 0
    max_steps = 1
    stagnated = 2
    breakdown = 3
    nonfinite = 4
    incompatible = 5


MESSAGES = {
    Result.converged: "converged: the true residual meets the tolerance",
    Result.max_steps: "not converged: max_steps was reached; allow more steps or precondition",
    Result.stagnated: "not converged: the true residual no longer falls, the attainable accuracy of this precision is "
    "reached; loosen rtol or solve in float64",
    Result.breakdown: "not converged: a search direction of non-positive curvature was met; the operator or the "
    "preconditioner is not symmetric positive definite",
    Result.nonfinite: "not converged: NaN or infinity in the right-hand side, the operator or the preconditioner; the "
    "last finite iterate is returned",
    Result.incompatible: "no solution exists: the right-hand side has a part outside the operator's range (a pure "
    "Neumann or periodic problem needs a source of zero mean); the solution for the rest is returned",
}


class Solution(eqx.Module):
    """The outcome of `solve`: arrays only, so it passes `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    **Attributes:**

    - `value`: the iterate, like the right-hand side. Never discarded: a solve that failed returns its
      last finite iterate.
    - `result`: a code of `Result`, int32.
    - `converged`: whether `result` is `Result.converged`.
    - `num_steps`: the iterations taken, int32.
    - `residual_norm`: the true relative residual ||b - A x|| / ||b|| in the 2-norm, recomputed from
      `value` (0 when b = 0).
    - `history`: relative residuals after 0, 1, ... steps, of fixed length and padded with NaN, or `None`.

    Under `jax.vmap` every attribute has the batch axis in front.
    """

    value: Any
    result: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    residual_norm: Float[Array, "*batch"]
    history: Float[Array, "*batch entries"] | None

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
    units are others. Vectors are pytrees.
    """

    matvec: Any
    b: Any
    x0: Any
    norm: Array
    unit: Array


class Outcome(NamedTuple):
    """What a method returns: the iterate, its true residual b - A x, the target norm it aimed at, and the account."""

    x: Any
    residual: Any
    target: Array
    result: Array
    num_steps: Array
    history: Array | None


class AbstractMethod(eqx.Module):
    """A way to solve a symmetric linear system; numbers in it are leaves, so new values do not recompile."""

    @abstractmethod
    def run(self, system: System) -> Outcome:
        """Solves one system inside `jax.jit`. Need not be differentiable: `solve` differentiates implicitly."""
