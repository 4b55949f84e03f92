"""A posterior in numbers and sentences: bands, convergence, and whether the stated noise can be right."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.stats import chi2

from neuralops.arguments import count
from neuralops.extras import require
from neuralops.inverse.draws import Draws
from neuralops.inverse.posterior import Posterior

__all__ = ["Summary", "convergence", "summary"]

RHAT = 1.05  # above it chains have not come together
ESS = 100.0  # fewer independent draws than these leave the bands themselves uncertain
PARETO_K = 0.7  # above it a variational fit misses parts of the posterior (Vehtari et al.)
NOISE_LEVEL = 0.99  # of the interval in which the misfit must lie


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """What `summary` found; `print` it, or read its fields.

    Fields at points are NumPy arrays `(channels, *points)` in units of the coefficient.

    - `mean`, `std`: of the decoded coefficient over the draws.
    - `lower`, `upper`: at each point for itself the coefficient lies between them with probability `level`, from
      quantiles of the draws, to which `summary` adds the stated deviation about the decoded mean. A pixel of two phases
      has one of the two values: its band is one of them, or both, and holds more than `level`; see `band_mass`.
    - `band_mass`: how much probability the bands hold, on average over the points: `level`, or more for two phases. A
      calibrated posterior covers as much of the truth.
    - `samples`: `(some, channels, *points)`.
    - `phase_probability`: of the second phase at each point, where there are two; `None` otherwise. A pixel's own value
      has the deviation |b - a| sqrt(p (1 - p)), and `std` is that of p alone.
    - `rhat`, `ess`: `(size,)`, rank-normalised split R-hat and bulk effective sample size of the white noise (Vehtari
      et al. 2021); `None` for independent draws and for one chain.
    - `field_rhat`: the largest R-hat of the coefficient at the points where it varies: codes may differ where
      coefficients agree.
    - `divergences`, `acceptance`: count and mean; `pareto_k`: of a variational fit.
    - `num_values`: how many values were observed.
    - `misfit`: root mean square of (y - H(z)) / deviation over values and draws.
    - `noise_ratio`: an estimate of true over stated deviation: |mean misfit|^2 over as many values as are left when the
      variance that the posterior gives to them (`num_fitted`, as many as there are parameters in a linear problem of
      many data) is taken off. NaN when not one is left.
    - `noise_interval`: where it lies with a probability of 0.99, or a little more, if model, prior and noise are right:
      from the chi-squared law of the values that are left.
    - `coverage`, `relative_error`: where the truth is given, the fraction of points whose band holds it, and
      |mean - truth| / |truth|.
    """

    method: str
    level: float
    num_draws: int
    mean: np.ndarray
    std: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    band_mass: float
    samples: np.ndarray
    phase_probability: np.ndarray | None
    rhat: np.ndarray | None
    ess: np.ndarray | None
    field_rhat: float | None
    divergences: int | None
    acceptance: float | None
    pareto_k: float | None
    num_values: int
    num_fitted: float
    misfit: float
    noise_ratio: float
    noise_interval: tuple[float, float]
    model_error: bool
    coverage: float | None
    relative_error: float | None

    @property
    def noise_ok(self) -> bool:
        """Whether the misfit is what the stated noise leads to expect, or cannot say (`noise_ratio` is NaN)."""
        low, high = self.noise_interval
        return not (self.noise_ratio < low or self.noise_ratio > high)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each reason not to believe the bands; empty if there is none."""
        found = []
        worst = -math.inf if self.rhat is None else float(np.max(self.rhat))
        if self.rhat is not None and not worst <= RHAT:
            which = "the code, though not the coefficient" if (self.field_rhat or math.inf) <= RHAT else "the code"
            found.append(
                f"R-hat of {which} is {worst:.2f}: chains have not come together (several modes, or too short a run); "
                "draw more, or look at the chains apart."
            )
        if self.ess is not None and not float(np.min(self.ess)) >= ESS:
            found.append(f"Only {np.min(self.ess):.0f} effective draws: the bands are uncertain themselves; draw more.")
        if self.acceptance is not None and self.rhat is None:
            found.append("One chain only: whether it has converged cannot be told; draw several.")
        if self.divergences:
            found.append(
                f"{self.divergences} of {self.num_draws} draws diverged: parts of the posterior were not reached; "
                "raise target_acceptance."
            )
        if self.pareto_k is not None and not self.pareto_k <= PARETO_K:
            found.append(
                f"Pareto k is {self.pareto_k:.2f}: the fitted Gaussian misses parts of the posterior; use hmc, more "
                "steps, or a lower learning_rate."
            )
        if not self.noise_ok:
            low, high = self.noise_interval
            cause = (
                "the noise is larger than stated, or the model or the prior does not reach the data"
                if self.noise_ratio > high
                else "the noise is smaller than stated"
            )
            found.append(
                f"The data look like {self.noise_ratio:.2g} times the stated deviation, outside {low:.2f} to "
                f"{high:.2f}: {cause}."
            )
        if not self.model_error:
            found.append(
                "No model error is stated: the bands hold for a perfect decoder, and are too narrow where its own "
                "error is not small against the noise."
            )
        return tuple(found)

    def __str__(self) -> str:
        percent = f"{100 * self.level:g} %"
        lines = [
            f"Posterior from {self.num_values} values, {self.num_draws} draws ({self.method})",
            f"  coefficient       mean {_range(self.mean)}, deviation {_range(self.std)}",
            f"  {percent} bands".ljust(20) + f"width {_range(self.upper - self.lower)}",
        ]
        if self.phase_probability is not None:
            unsure = np.mean((self.phase_probability > 0.05) & (self.phase_probability < 0.95))
            lines.append(f"  phases            undecided (5 to 95 %) at {100 * unsure:.0f} % of the points")
        if self.rhat is not None and self.ess is not None:
            lines.append(
                f"  convergence       R-hat at most {np.max(self.rhat):.3f} "
                f"(coefficient {self.field_rhat or math.nan:.3f}), effective draws at least {np.min(self.ess):.0f}"
            )
        if self.acceptance is not None:
            lines.append(f"  transitions       {self.divergences} divergent, acceptance {self.acceptance:.2f}")
        if self.pareto_k is not None:
            lines.append(f"  variational fit   Pareto k {self.pareto_k:.2f}")
        low, high = self.noise_interval
        verdict = "as stated" if self.noise_ok else "NOT as stated"
        if math.isnan(self.noise_ratio):
            verdict = "cannot be told, the draws take up every value"
        lines.append(
            f"  noise             {self.noise_ratio:.2f} times the stated, expected {low:.2f} to {high:.2f}: {verdict}"
        )
        if self.coverage is not None and self.relative_error is not None:
            lines.append(
                f"  truth             {100 * self.coverage:.0f} % of it within the bands, which hold "
                f"{100 * self.band_mass:.0f} %; relative error of the mean {100 * self.relative_error:.2g} %"
            )
        return "\n".join([*lines, *(f"  ! {sentence}" for sentence in self.warnings)])


def summary(
    draws: Draws,
    posterior: Posterior,
    query: Any,
    *,
    truth: Any = None,
    level: float = 0.9,
    deviation: Any = 0.0,
    max_draws: int = 1000,
    num_samples: int = 16,
) -> Summary:
    """The coefficient at points, and whether the draws can be believed.

    **Arguments:**

    - `draws`, `posterior`: of `hmc` or `variational`, and what they were made from.
    - `query`: `(ndim, *points)`.
    - `truth`: the coefficient there, `(channels, *points)`, if known.
    - `level`: of the bands.
    - `deviation`: the standard deviation of a continuous coefficient about the decoded mean, p(a | z), in its units, a
      number or `(channels, *points)`: the root mean square error of `decode_input(encode(a))` on fresh inputs. Two
      phases have their own law.
    - `max_draws`: how many draws are decoded at most, evenly from all chains; convergence looks at all of them.
    - `num_samples`: how many decoded draws are kept.

    **Raises:** `ValueError` on arguments that do not fit.
    """
    level = check_level(level)
    max_draws, num_samples = count(max_draws, "max_draws", 10), count(num_samples, "num_samples", 0)
    if not isinstance(draws, Draws) or draws.w.ndim != 3 or draws.w.shape[-1] != posterior.size:
        raise ValueError(
            f"draws: expected Draws of {posterior.size} numbers, got {type(draws).__name__} "
            f"{getattr(getattr(draws, 'w', draws), 'shape', ())}; give what hmc(posterior) returned."
        )
    kept = draws.thinned(max_draws)
    flat = kept.reshape(-1, kept.shape[-1])
    fields = posterior.fields(flat, query)
    phases = getattr(posterior.model, "phases", None)
    deviation = np.asarray(deviation)
    wrong = deviation.dtype.kind not in "fiu" or not (np.isfinite(deviation).all() and (deviation >= 0).all())
    if wrong or deviation.shape not in ((), fields.shape[1:]) or (deviation.any() and phases is not None):
        raise ValueError(
            f"deviation: expected zero or more, a number or {fields.shape[1:]}, and zero for two phases, got "
            f"{deviation!r}; give the error of decode_input(encode(a))."
        )
    mean = fields.mean(axis=0)
    lower, upper, mass = _bands(fields, mean, level, deviation, phases)
    coverage = error = None
    if truth is not None:
        truth = np.asarray(truth)
        if truth.shape != mean.shape:
            raise ValueError(f"truth: expected {mean.shape}, the coefficient at query, got {truth.shape}; give that.")
        coverage = float(np.mean((truth >= np.asarray(lower)) & (truth <= np.asarray(upper))))
        error = float(np.linalg.norm(np.asarray(mean) - truth) / np.linalg.norm(truth))
    rhat = ess = field_rhat = None
    if draws.is_chain and draws.w.shape[0] > 1:
        rhat, ess = convergence(draws.w)
        at_points = fields.reshape(*kept.shape[:2], -1)
        varies = np.ptp(np.asarray(at_points), axis=(0, 1)) > 0  # a constant has no R-hat
        if kept.shape[1] >= 4 and varies.any():
            diagnostics = require("blackjax.diagnostics", "summary")
            field_rhat = float(np.max(np.asarray(_rhat(at_points[..., varies], diagnostics))))
    probability = None if phases is None else np.asarray((mean - phases[0]) / (phases[1] - phases[0]))
    return Summary(
        method=draws.method,
        level=level,
        num_draws=draws.w.shape[0] * draws.w.shape[1],
        mean=np.asarray(mean),
        std=np.asarray(fields.std(axis=0)),
        lower=np.asarray(lower),
        upper=np.asarray(upper),
        band_mass=mass,
        samples=np.asarray(fields[jnp.linspace(0, len(fields) - 1, num_samples).round().astype(int)]),
        phase_probability=probability,
        rhat=rhat,
        ess=ess,
        field_rhat=field_rhat,
        divergences=None if draws.divergent is None else int(np.sum(np.asarray(draws.divergent))),
        acceptance=None if draws.acceptance is None else float(np.mean(np.asarray(draws.acceptance))),
        pareto_k=None if draws.pareto_k is None else float(draws.pareto_k),
        num_values=posterior.num_values,
        **_noise(posterior, flat),
        model_error=any(bool(np.any(np.asarray(m.model_error) > 0)) for m in posterior.measurements),
        coverage=coverage,
        relative_error=error,
    )


def _bands(fields: Array, mean: Array, level: float, deviation: np.ndarray, phases: Any) -> tuple[Array, Array, float]:
    """Equal-tailed quantiles of the coefficient at each point, and the mean probability between them."""
    alpha = (1 - level) / 2
    if phases is None:
        if deviation.any():  # the same noise at every call
            fields = fields + deviation * jax.random.normal(jax.random.key(0), fields.shape, fields.dtype)
        lower, upper = jnp.quantile(fields, jnp.array([alpha, 1 - alpha]), axis=0)
        return lower, upper, level
    low, high = sorted(phases)
    share = (mean - low) / (high - low)  # the probability of the larger value
    lower = jnp.where(1 - share >= alpha, low, high)
    upper = jnp.where(1 - share >= 1 - alpha, low, high)
    mass = jnp.where(lower < upper, 1.0, jnp.where(upper == low, 1 - share, share))
    return lower, upper, float(mass.mean())


def convergence(w: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rank-normalised split R-hat, the larger of its bulk and folded values, and bulk effective sample size (Vehtari,
    Gelman, Simpson, Carpenter and Buerkner 2021; by blackjax) of numbers `(chains, draws, size)`, each `(size,)`.

    **Raises:** `ValueError` on fewer than two chains or four draws.
    """
    w = jnp.asarray(w)
    if w.ndim != 3 or w.shape[0] < 2 or w.shape[1] < 4:
        raise ValueError(
            f"w: expected (chains, draws, size) with two chains and four draws or more, got {w.shape}; draw more."
        )
    diagnostics = require("blackjax.diagnostics", "convergence")
    rhat, ess = _rhat(w, diagnostics), _ess(w, diagnostics)
    return np.asarray(rhat).reshape(-1), np.asarray(ess).reshape(-1)


@eqx.filter_jit
def _rhat(w: Array, diagnostics: Any) -> Array:
    return diagnostics.rhat(w)


@eqx.filter_jit
def _ess(w: Array, diagnostics: Any) -> Array:
    return diagnostics.ess_bulk(w)


def check_level(level: Any) -> float:
    """A probability strictly between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise ValueError(f"level: expected a probability in (0, 1), got {level!r}; give 0.9.")
    return float(level)


@eqx.filter_jit
def _moments(posterior: Posterior, w: Array) -> tuple[Array, Array]:
    """|mean misfit|^2, and the variance of the misfit, which is that of the predictions, summed over values."""
    misfit = jax.lax.map(posterior.misfit, w, batch_size=min(32, len(w)))
    middle = misfit.mean(axis=0)
    return jnp.sum(middle**2), jnp.sum((misfit - middle) ** 2) / len(w)


def _noise(posterior: Posterior, w: Array) -> dict[str, Any]:
    """Of a linear Gaussian problem E |mean misfit|^2 = n - fitted exactly, and its variance is at most twice that."""
    n = posterior.num_values
    of_mean, fitted = map(float, _moments(posterior, w))
    left = n - fitted
    found: dict[str, Any] = {"num_fitted": fitted, "misfit": math.sqrt((of_mean + fitted) / n)}
    if not left >= 1:
        return found | {"noise_ratio": math.nan, "noise_interval": (math.nan, math.nan)}
    low, high = (math.sqrt(float(x) / left) for x in chi2.interval(NOISE_LEVEL, left))
    return found | {"noise_ratio": math.sqrt(of_mean / left), "noise_interval": (low, high)}


def _range(x: np.ndarray) -> str:
    low, high = float(np.min(x)), float(np.max(x))
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
