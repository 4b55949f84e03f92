"""Gaussians fitted to the posterior by stochastic variational inference (blackjax)."""

from __future__ import annotations

import math
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from tqdm import tqdm

from neuralops.arguments import count, flag
from neuralops.extras import require
from neuralops.inverse.draws import Draws
from neuralops.inverse.posterior import Posterior
from neuralops.inverse.sampling import check_posterior, check_start

__all__ = ["variational"]

FAMILIES = ("mean_field", "full_rank")
CHUNK = 200  # steps between two looks at the keyboard


def variational(
    posterior: Posterior,
    *,
    key: Array,
    family: str = "full_rank",
    num_steps: int = 2000,
    num_draws: int = 16,
    num_samples: int = 2000,
    learning_rate: float | None = None,
    start: Any = None,
    progress: bool = True,
) -> Draws:
    """The Gaussian nearest to a posterior in the sense of KL(q | p), found by Adam, and draws from it.

    Gradients are those of the path alone ("sticking the landing"), which vanish at a Gaussian posterior. The rate falls
    to a hundredth along a cosine. `"mean_field"` has a diagonal covariance: its variances are those given all other
    unknowns, 1 / diag(C^-1), at most the true diag(C). `"full_rank"` has size^2 / 2 numbers more, and is exact where
    the posterior is Gaussian. Both see one mode; look at `pareto_k`.

    **Arguments:**

    - `posterior`: a `Posterior`.
    - `family`: `"mean_field"` or `"full_rank"`.
    - `num_steps`, `num_draws`: steps, and draws of q for each gradient.
    - `learning_rate`: Adam's first one; by default 0.05, and 0.2 / size in `"full_rank"` of more than 4 unknowns, whose
      triangular factor becomes singular when whole rows of it move at once; such fits need more steps.
    - `num_samples`: draws handed back.
    - `start`: the first mean, `(size,)` in white noise; zero by default, the prior's mean.
    - `progress`: a bar on standard error. Ctrl-C ends the fit and keeps where it was.

    **Returns:** `Draws`, of one chain of independent draws.

    **Raises:** `ValueError` on bad arguments; `ImportError` naming the extra when blackjax is missing.
    """
    check_posterior(posterior)
    if family not in FAMILIES:
        raise ValueError(f"family: expected one of {FAMILIES}, got {family!r}; use one of these words.")
    num_steps, num_draws = count(num_steps, "num_steps"), count(num_draws, "num_draws")
    num_samples, progress = count(num_samples, "num_samples", 50), flag(progress, "progress")
    if learning_rate is None:
        learning_rate = 0.05 if family == "mean_field" else 0.2 / max(4, posterior.size)
    if isinstance(learning_rate, bool) or not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"learning_rate: expected a positive number, got {learning_rate!r}; give 0.05.")
    require("blackjax", "variational")
    mean = jnp.zeros(posterior.size) if start is None else check_start(posterior, start, ((posterior.size,),))
    pieces = math.ceil(num_steps / CHUNK)
    length = math.ceil(num_steps / pieces)
    fitting, drawing = jax.random.split(key)
    keys = jax.random.split(fitting, pieces * length)
    settings = (family, num_draws, float(learning_rate), pieces * length)
    state, losses = _begin(posterior, mean, settings), []
    with tqdm(total=pieces * length, unit="step", disable=not progress) as bar:
        try:
            for first in range(0, pieces * length, length):
                state, loss = _advance(posterior, state, keys[first : first + length], settings)
                losses.append(jax.block_until_ready(loss))
                bar.update(length)
        except KeyboardInterrupt:
            if not losses:
                raise
            tqdm.write(f"interrupted after {len(losses) * length} of {num_steps} steps", file=sys.stderr)
    w, pareto_k = _draw(posterior, state, drawing, num_samples, settings)
    return Draws(w[None], family, elbo=-jnp.concatenate(losses), pareto_k=pareto_k)


def _algorithm(posterior: Posterior, settings: tuple[Any, ...]) -> Any:
    family, num_draws, learning_rate, num_steps = settings
    blackjax = require("blackjax", "variational")
    make = blackjax.meanfield_vi if family == "mean_field" else blackjax.fullrank_vi
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps, alpha=0.01)
    return make(posterior.log_density, optax.adam(schedule), num_draws)


@eqx.filter_jit
def _begin(posterior: Posterior, mean: Array, settings: tuple[Any, ...]) -> Any:
    state = _algorithm(posterior, settings).init(mean)._replace(mu=mean)
    if settings[0] == "mean_field":
        return state
    # As narrow as the mean-field fit begins: from the prior's width the first gradients are those of far tails.
    return state._replace(chol_params=state.chol_params.at[: mean.size].set(-2))


@eqx.filter_jit
def _advance(posterior: Posterior, state: Any, keys: Array, settings: tuple[Any, ...]) -> Any:
    algorithm = _algorithm(posterior, settings)

    def body(state: Any, key: Array) -> Any:
        state, info = algorithm.step(key, state)
        return state, info.elbo  # blackjax's word for the loss, which is minus the bound

    return jax.lax.scan(body, state, keys)


@eqx.filter_jit
def _draw(posterior: Posterior, state: Any, key: Array, num_samples: int, settings: tuple[Any, ...]) -> Any:
    w = _algorithm(posterior, settings).sample(key, state, num_samples)
    if settings[0] == "mean_field":
        module = require("blackjax.vi.meanfield_vi", "variational")
        log_q = module.generate_meanfield_logdensity(state.mu, state.rho)
    else:
        module = require("blackjax.vi.fullrank_vi", "variational")
        log_q = module.generate_fullrank_logdensity(state.mu, state.chol_params)
    ratios = jax.lax.map(lambda one: posterior.log_density(one) - log_q(one), w, batch_size=min(32, num_samples))
    pareto_k = require("blackjax.diagnostics", "variational").psis_weights(ratios)[1]
    return w, jnp.where(jnp.ptp(ratios) < 0.01, 0.0, pareto_k)  # no tail to fit where all agree to a hundredth
