"""Whether posteriors mean what they say: many experiments drawn from the model itself."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import chi2
from tqdm import tqdm

from neuralops.arguments import count, flag
from neuralops.extras import require
from neuralops.inverse.measurements import PointMeasurement
from neuralops.inverse.posterior import Posterior
from neuralops.inverse.report import check_level
from neuralops.inverse.sampling import Settings, as_settings, check_posterior, run_chains

__all__ = ["Calibration", "coverage_study"]


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """What `coverage_study` found.

    - `coverage`: the fraction of points and experiments whose band held the truth; `standard_error` of it, over
      experiments, whose points are not independent of each other.
    - `covered`: `(experiments,)`, the fraction of points in each.
    - `ranks`: `(experiments, size)`, how many of `num_ranked` thinned draws lie below the true white noise: uniform on
      0 ... num_ranked if the posterior is right (simulation-based calibration, Talts et al. 2018).
    - `p_values`: `(size,)`, of a chi-squared test that they are.
    """

    level: float
    coverage: float
    standard_error: float
    covered: np.ndarray
    ranks: np.ndarray
    num_ranked: int
    p_values: np.ndarray

    def __str__(self) -> str:
        return (
            f"{len(self.covered)} experiments: {100 * self.level:g} % bands hold {100 * self.coverage:.1f} +- "
            f"{100 * self.standard_error:.1f} % of the truth; ranks uniform with p at least "
            f"{np.min(self.p_values):.2g} (of {len(self.p_values)})"
        )


def coverage_study(
    posterior: Posterior,
    query: Any,
    *,
    key: Array,
    num_experiments: int = 100,
    level: float = 0.9,
    num_chains: int = 2,
    num_warmup: int = 300,
    num_samples: int = 300,
    num_ranked: int = 19,
    method: str = "hmc",
    num_integration_steps: int = 16,
    target_acceptance: float = 0.8,
    dense: bool = False,
    batch_size: int = 25,
    progress: bool = True,
) -> Calibration:
    """Draws codes from the prior and values from the model and the stated deviations, infers each, and counts.

    A posterior of such experiments is right by construction, so that a coverage other than `level` is the sampler's
    fault. (Of real data it says nothing: there the model, the prior and the noise are assumptions; see
    `summary(...).noise_ratio`.) Virtual observables would be part of the posterior but not of the experiments, so they
    are refused.

    **Arguments:**

    - `posterior`: its model, prior, points, noise and masks are used, its values are not.
    - `query`: where bands of the coefficient are looked at, `(ndim, *points)`: points where it varies, for where it is
      always the same every band holds it.
    - `num_experiments`, `batch_size`: how many, and how many at once; the latter divides the former.
    - `level`: of the bands.
    - `num_chains`, `num_warmup`, `num_samples`, `method`, `num_integration_steps`, `target_acceptance`, `dense`: as in
      `hmc`, always from starts drawn from the prior. HMC is the default because experiments move in step, so that with
      NUTS all wait for the longest trajectory.
    - `num_ranked`: draws to which the truth is compared, evenly thinned so that they are nearly independent.
    - `progress`: a bar on standard error. Ctrl-C keeps the experiments that are done.

    **Raises:** `ValueError` on bad arguments; `ImportError` naming the extra when blackjax is missing.
    """
    check_posterior(posterior)
    if posterior.physics is not None and posterior.physics_weight:
        raise ValueError("posterior: expected one without physics, which its experiments are not drawn from; leave it.")
    num_experiments, level = count(num_experiments, "num_experiments", 2), check_level(level)
    batch_size = count(min(batch_size, num_experiments), "batch_size")
    if num_experiments % batch_size:
        raise ValueError(
            f"batch_size: expected a divisor of {num_experiments} experiments, got {batch_size}; give another one."
        )
    chains, num_warmup = count(num_chains, "num_chains"), count(num_warmup, "num_warmup", 20)
    num_samples = count(num_samples, "num_samples", 4)
    num_ranked = count(num_ranked, "num_ranked", most=chains * num_samples)
    settings = as_settings(method, target_acceptance, num_integration_steps, dense)
    require("blackjax", "coverage_study")
    plan = (chains, num_warmup, num_samples, num_ranked, level)
    keys = jax.random.split(key, num_experiments)
    covered, ranks = [], []
    with tqdm(total=num_experiments, unit="experiment", disable=not flag(progress, "progress")) as bar:
        try:
            for first in range(0, num_experiments, batch_size):
                results = _experiments(posterior, jnp.asarray(query), keys[first : first + batch_size], plan, settings)
                held, rank = map(np.asarray, results)
                covered.append(held)
                ranks.append(rank)
                bar.update(batch_size)
        except KeyboardInterrupt:
            if len(covered) * batch_size < 2:
                raise
            tqdm.write(f"interrupted after {len(covered) * batch_size} experiments", file=sys.stderr)
    return _judged(np.concatenate(covered), np.concatenate(ranks), num_ranked, level)


@eqx.filter_jit
def _experiments(posterior: Posterior, query: Array, keys: Array, plan: tuple[Any, ...], settings: Settings) -> Any:
    return jax.vmap(lambda key: _experiment(posterior, query, key, plan, settings))(keys)


def _experiment(posterior: Posterior, query: Array, key: Array, plan: tuple[Any, ...], settings: Settings) -> Any:
    chains, num_warmup, num_samples, num_ranked, level = plan
    drawing, noise, sampling = jax.random.split(key, 3)
    truth = jax.random.normal(drawing, (posterior.size,))
    code = posterior.code(truth)

    def seen(one: PointMeasurement, key: Array) -> PointMeasurement:
        exact = one(posterior.model, code)
        values = exact + one.deviation * jax.random.normal(key, exact.shape, exact.dtype)
        return eqx.tree_at(lambda m: m.values, one, values.astype(one.observed.dtype))

    split = jax.random.split(noise, len(posterior.measurements))
    seen_all = tuple(seen(one, k) for one, k in zip(posterior.measurements, split, strict=True))
    there = eqx.tree_at(lambda p: p.measurements, posterior, seen_all)
    w = run_chains(there, sampling, chains, num_warmup, num_samples, settings).reshape(-1, posterior.size)
    decode = lambda one: posterior.model.decode_input(posterior.code(one), query)
    fields, field = jax.lax.map(decode, w, batch_size=min(32, len(w))), decode(truth)
    alpha = (1 - level) / 2
    lower, upper = jnp.quantile(fields, jnp.array([alpha, 1 - alpha]), axis=0)
    # The middles of equal stretches: neighbours lie far apart, and chains weigh alike.
    thinned = w[((jnp.arange(num_ranked) + 0.5) * len(w) / num_ranked).astype(int)]
    return jnp.mean((field >= lower) & (field <= upper)), jnp.sum(thinned < truth, axis=0)


def _judged(covered: np.ndarray, ranks: np.ndarray, num_ranked: int, level: float) -> Calibration:
    experiments = len(covered)
    # Bins of equal width that hold five ranks or more in the mean, where the count allows.
    bins = max(b for b in range(1, num_ranked + 2) if (num_ranked + 1) % b == 0 and (b <= max(2, experiments / 5)))
    counts = np.stack([np.bincount(r * bins // (num_ranked + 1), minlength=bins) for r in ranks.T])
    statistic = np.sum((counts - experiments / bins) ** 2, axis=1) / (experiments / bins)
    p_values = chi2.sf(statistic, bins - 1) if bins > 1 else np.full(len(counts), math.nan)
    return Calibration(
        level=level,
        coverage=float(covered.mean()),
        standard_error=float(covered.std(ddof=1) / math.sqrt(experiments)),
        covered=covered,
        ranks=ranks,
        num_ranked=num_ranked,
        p_values=p_values,
    )
