"""Draws from the posterior by Hamiltonian Monte Carlo (blackjax)."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from tqdm import tqdm

from neuralops.arguments import count, flag
from neuralops.extras import require
from neuralops.inverse.draws import Draws
from neuralops.inverse.posterior import Posterior

__all__ = ["hmc"]

CHUNK = 100  # draws between two looks at the keyboard
METHODS = ("nuts", "hmc")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one chain moves, hashable."""

    method: str
    target_acceptance: float
    num_integration_steps: int
    dense: bool

    @property
    def extra(self) -> dict[str, Any]:
        return {"num_integration_steps": self.num_integration_steps} if self.method == "hmc" else {}


def hmc(
    posterior: Posterior,
    *,
    key: Array,
    num_chains: int = 4,
    num_warmup: int = 500,
    num_samples: int = 500,
    method: str = "nuts",
    num_integration_steps: int = 32,
    target_acceptance: float = 0.8,
    dense: bool = False,
    start: Any = None,
    jitter: float = 0.5,
    candidates: int = 256,
    progress: bool = True,
) -> Draws:
    """Draws from a posterior by the no-U-turn sampler or by HMC with trajectories of a fixed number of steps.

    Each chain finds its step size and mass matrix in its own warm-up (Stan's windows), then draws with these. All
    chains run in one compiled program. Ctrl-C after the warm-up ends the run and keeps what was drawn.

    **Arguments:**

    - `posterior`: a `Posterior`.
    - `num_chains`, `num_warmup`, `num_samples`: chains, steps of warm-up and draws of each.
    - `method`: `"nuts"`, which chooses the length of each trajectory, or `"hmc"`, whose draws all cost
      `num_integration_steps` gradients, so that no chain waits for another one's longer trajectory; their steps are
      shortened by a random factor of up to 2.
    - `target_acceptance`: what the step size is tuned to; raise it (0.95) when draws diverge.
    - `dense`: a full mass matrix, for few unknowns that depend on each other strongly.
    - `start`: `None` starts each chain at the likeliest of its own `candidates` draws of the prior: chains that begin
      apart and come together say something by R-hat, and one that begins where nothing fits the data may stay in a mode
      of no weight. With `candidates=1` each starts at a draw of the prior as it is. An array `(size,)`, such as
      `prior.inverse(estimate.code)`, starts all near it, `jitter` prior deviations apart: for posteriors so narrow that
      a warm-up from the prior is lost in other modes, at the price of never seeing these. `(num_chains, size)` gives
      each its own.
    - `progress`: a bar on standard error.

    **Returns:** `Draws`.

    **Raises:** `ValueError` on bad arguments; `ImportError` naming the extra when blackjax is missing.
    """
    check_posterior(posterior)
    num_chains, num_warmup = count(num_chains, "num_chains"), count(num_warmup, "num_warmup", 20)
    num_samples, progress = count(num_samples, "num_samples", 4), flag(progress, "progress")
    settings = as_settings(method, target_acceptance, num_integration_steps, dense)
    require("blackjax", "hmc")
    begin, warm, move = jax.random.split(key, 3)
    starts = _starts(posterior, start, begin, num_chains, jitter, count(candidates, "candidates"))
    bar = tqdm(total=num_warmup + num_samples, unit="step", disable=not progress)
    with bar:
        bar.set_description("warm-up")
        states, tuned = _warm_up(posterior, starts, jax.random.split(warm, num_chains), num_warmup, settings)
        jax.block_until_ready(states)
        bar.update(num_warmup)
        bar.set_description("draws")
        pieces = math.ceil(num_samples / CHUNK)
        length = math.ceil(num_samples / pieces)
        keys = jax.random.split(move, (num_chains, pieces * length))
        done: list[Any] = []
        try:
            for first in range(0, pieces * length, length):
                states, drawn = _advance(posterior, states, tuned, keys[:, first : first + length], settings)
                done.append(jax.block_until_ready(drawn))
                bar.update(min(length, num_samples - first))
        except KeyboardInterrupt:
            if not done:
                raise
            tqdm.write(f"interrupted after {len(done) * length} of {num_samples} draws", file=sys.stderr)
    w, divergent, acceptance, steps = (jnp.concatenate(x, 1)[:, :num_samples] for x in zip(*done, strict=True))
    return Draws(w, settings.method, divergent, acceptance, steps, tuned[0])


def as_settings(method: Any, target_acceptance: Any, num_integration_steps: Any, dense: Any) -> Settings:
    """Checked settings."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}; use one of these words.")
    if isinstance(target_acceptance, bool) or not 0 < target_acceptance < 1:
        raise ValueError(f"target_acceptance: expected a number in (0, 1), got {target_acceptance!r}; give 0.8.")
    steps = count(num_integration_steps, "num_integration_steps")
    return Settings(method, float(target_acceptance), steps, flag(dense, "dense"))


def check_posterior(posterior: Any) -> None:
    if not isinstance(posterior, Posterior):
        raise ValueError(
            f"posterior: expected a Posterior, got {type(posterior).__name__}; give Posterior(model, prior, "
            "measurements)."
        )


def check_start(posterior: Posterior, start: Any, shapes: tuple[tuple[int, ...], ...]) -> Array:
    """A start in white noise, finite and of one of the shapes."""
    start = jnp.asarray(start, float)
    if start.shape not in shapes:
        raise ValueError(
            f"start: expected {' or '.join(map(str, shapes))} in white noise, got {start.shape}; give "
            "prior.inverse(code)."
        )
    if not bool(jnp.all(jnp.isfinite(start))):
        raise ValueError("start: expected finite numbers, got NaN or infinity; give prior.inverse(code).")
    return start


def run_chains(
    posterior: Posterior,
    key: Array,
    num_chains: int,
    num_warmup: int,
    num_samples: int,
    settings: Settings,
    candidates: int = 256,
) -> Array:
    """The draws `(chains, draws, size)` alone, from prior starts, in one traced piece: for many posteriors at once."""
    begin, warm, move = jax.random.split(key, 3)
    starts = _likeliest(posterior, begin, num_chains, candidates)
    states, tuned = _warm_up(posterior, starts, jax.random.split(warm, num_chains), num_warmup, settings)
    keys = jax.random.split(move, (num_chains, num_samples))
    return _advance(posterior, states, tuned, keys, settings)[1][0]


@eqx.filter_jit
def _likeliest(posterior: Posterior, key: Array, num_chains: int, candidates: int) -> Array:
    """Of as many draws of the prior for each chain the one that fits the data best."""
    draws = jax.random.normal(key, (num_chains, candidates, posterior.size))
    misfit = lambda w: jnp.sum(posterior.misfit(w) ** 2)
    fits = jax.lax.map(misfit, draws.reshape(-1, posterior.size), batch_size=min(64, num_chains * candidates))
    best = jnp.argmin(fits.reshape(num_chains, candidates), axis=1)
    return jnp.take_along_axis(draws, best[:, None, None], axis=1)[:, 0]


def _starts(posterior: Posterior, start: Any, key: Array, num_chains: int, jitter: float, candidates: int) -> Array:
    if start is None:
        return _likeliest(posterior, key, num_chains, candidates)
    shape = (num_chains, posterior.size)
    noise = jax.random.normal(key, shape)
    if isinstance(jitter, bool) or not math.isfinite(jitter) or jitter < 0:
        raise ValueError(f"jitter: expected zero or a positive number, got {jitter!r}; give 0.5 prior deviations.")
    start = check_start(posterior, start, ((posterior.size,), shape))
    return start if start.ndim == 2 else start + jitter * noise


@eqx.filter_jit
def _warm_up(posterior: Posterior, starts: Array, keys: Array, num_steps: int, settings: Settings) -> Any:
    blackjax = require("blackjax", "hmc")
    adaptation = blackjax.window_adaptation(
        getattr(blackjax, settings.method),
        posterior.log_density,
        is_mass_matrix_diagonal=not settings.dense,
        target_acceptance_rate=settings.target_acceptance,
        adaptation_info_fn=lambda *_: None,  # the path of a warm-up is of no use and large
        **settings.extra,
    )

    def one(key: Array, start: Array) -> Any:
        (state, parameters), _ = adaptation.run(key, start, num_steps)
        return state, (parameters["step_size"], parameters["inverse_mass_matrix"])

    return jax.vmap(one)(keys, starts)


@eqx.filter_jit
def _advance(posterior: Posterior, states: Any, tuned: Any, keys: Array, settings: Settings) -> Any:
    algorithm = getattr(require("blackjax", "hmc"), settings.method)

    def move(state: Any, step_size: Array, mass: Array, keys: Array) -> Any:
        def body(state: Any, key: Array) -> Any:
            # Trajectories of one length come back to where they began if that is a period of the posterior.
            stretch, key = jax.random.split(key)
            share = jax.random.uniform(stretch, minval=0.5) if settings.method == "hmc" else 1.0
            state, info = algorithm(posterior.log_density, share * step_size, mass, **settings.extra).step(key, state)
            return state, (state.position, info.is_divergent, info.acceptance_rate, info.num_integration_steps)

        return jax.lax.scan(body, state, keys)

    step_size, mass = tuned
    return jax.vmap(move)(states, step_size, mass, keys)
