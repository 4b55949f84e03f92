"""How a reconstruction ended: the field, a code, both residuals, and what the monitor saw."""

from __future__ import annotations

import enum

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

__all__ = ["Ending", "Reconstruction", "Trace"]


class Ending(enum.IntEnum):
    """How a reconstruction ended; `Reconstruction.result` holds the number."""

    converged = 0
    max_steps = 1
    cycling = 2
    diverged = 3
    nonfinite = 4


MESSAGES = {
    Ending.converged: "converged: both residuals are below rtol",
    Ending.max_steps: "not converged: max_steps was reached while the residuals still fell; allow more",
    Ending.cycling: "not converged: the residuals no longer fall, the iteration goes round, drifts, or is at the "
    "accuracy of its inner solves; look at the merit (`monitor`), take a larger rho (a smaller step), or a smaller "
    "rtol of `inner`, or float64",
    Ending.diverged: "diverged: after a good start the residuals stayed ten times above their least, or the iterates "
    "ran away; the best one is returned, take a larger rho (a smaller step)",
    Ending.nonfinite: "not converged: NaN or infinity; the best finite iterate is returned, take a larger rho (a "
    "smaller step) and look at the data",
}


class Trace(eqx.Module):
    """What was seen step by step; after the last step its value is repeated. Not differentiated.

    **Attributes:**

    - `primal`, `dual`: `(max_steps,)`, the relative residuals after each step.
    - `objective`: `(max_steps // monitor,)`, h + factor R after steps monitor, 2 monitor, ...; or `None`.
    - `merit`: the same shape, what the theorem says cannot rise: for ADMM the augmented Lagrangian, for proximal
      gradient the objective. FISTA and PDHG promise none, and theirs is the objective; or `None`.

    Under `jax.vmap` every attribute has the batch axis in front.
    """

    primal: Float[Array, "*batch steps"]
    dual: Float[Array, "*batch steps"]
    objective: Float[Array, "*batch times"] | None
    merit: Float[Array, "*batch times"] | None


class Reconstruction(eqx.Module):
    """The outcome of `reconstruct`: arrays only, so it passes `jax.jit`, `jax.vmap` and `jax.lax.scan`.

    **Attributes:**

    - `value`: the field `(channels, *grid)`: the last iterate of a run that converged, of any other the one of smallest
      residual, and never one that is not finite.
    - `result`: a code of `Ending`, int32.
    - `converged`: whether `result` is `Ending.converged`.
    - `num_steps`: steps taken, int32.
    - `primal_residual`, `dual_residual`: those of `value`, relative to the size of the iterates. The two parts of a
      splitting agree where the first is zero, and no longer move where the second is (`docs/splitting.md`).
    - `within_theorem`: whether step sizes, regulariser and method meet the condition of a convergence theorem. A run
      outside may converge all the same, and `result` says whether it did.
    - `merit_rises`: how often the monitored merit rose by more than rounding, int32; 0 if not monitored.
    - `history`: a `Trace`.

    Under `jax.vmap` every attribute has the batch axis in front.
    """

    value: Float[Array, "*batch channels *grid"]
    result: Int[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    num_steps: Int[Array, "*batch"]
    primal_residual: Float[Array, "*batch"]
    dual_residual: Float[Array, "*batch"]
    within_theorem: Bool[Array, "*batch"]
    merit_rises: Int[Array, "*batch"]
    history: Trace

    @property
    def message(self) -> str:
        """The outcome in words; of a batch, how many ended in which way. Needs concrete values."""
        codes = np.asarray(self.result).reshape(-1)
        outside = int(np.sum(~np.asarray(self.within_theorem)))
        told = "" if not outside else "; step sizes outside the condition of the theorem"
        rises = np.asarray(self.merit_rises)
        told += f"; the merit rose {int(rises.max())} times" if rises.max() else ""
        if np.ndim(self.result) == 0:
            return (
                f"{MESSAGES[Ending(int(codes[0]))]} ({int(self.num_steps)} steps, residuals "
                f"{float(self.primal_residual):.3g} and {float(self.dual_residual):.3g}){told}."
            )
        counts = ((code, int(np.sum(codes == code))) for code in Ending)
        return "; ".join(f"{n} of {codes.size} {MESSAGES[code]}" for code, n in counts if n) + told + "."
