"""What samplers and variational fits hand back."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["Draws"]


class Draws(eqx.Module):
    """Draws of the white noise of a posterior, and how they were made.

    - `w`: `(chains, draws, size)`. Independent draws, those of a variational fit, are one chain.
    - `method`: `"nuts"`, `"hmc"`, `"mean_field"` or `"full_rank"`.
    - `divergent`: `(chains, draws)`, where the integrator lost the energy: there the density is steeper than the step.
    - `acceptance`: `(chains, draws)`, mean probability of acceptance.
    - `num_steps`: `(chains, draws)`, gradients that each draw cost.
    - `step_size`: `(chains,)`, after warm-up.
    - `elbo`: `(steps,)`, of a variational fit: the evidence lower bound, up to the constant of the density.
    - `pareto_k`: of a variational fit, how heavy the tail of the importance ratios p/q is; above 0.7 the fit misses
      parts of the posterior and must not be believed.
    """

    w: Float[Array, " chains draws size"]
    method: str = eqx.field(static=True)
    divergent: Any = None
    acceptance: Any = None
    num_steps: Any = None
    step_size: Any = None
    elbo: Any = None
    pareto_k: Any = None

    @property
    def is_chain(self) -> bool:
        """Whether draws follow from each other, so that R-hat and the effective sample size mean something."""
        return self.elbo is None

    @property
    def flat(self) -> Float[Array, " draws size"]:
        """All draws, chain after chain."""
        return self.w.reshape(-1, self.w.shape[-1])

    def thinned(self, most: int) -> Float[Array, " chains fewer size"]:
        """At most so many draws in all, evenly from each chain (one of each at least)."""
        chains, draws, _ = self.w.shape
        kept = min(draws, max(1, most // chains))
        return self.w[:, jnp.linspace(0, draws - 1, kept).round().astype(int)]
