"""Posteriors of a latent code against those known exactly: linear decoders, Gaussian noise."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import paramax
import pytest
from flowjax import flows
from flowjax.bijections import Affine
from flowjax.distributions import StandardNormal
from scipy.stats import kstest, norm

from neuralops import inverse
from neuralops.inverse import calibration, sampling

POINTS = jnp.linspace(0, 0.6, 30)[None]
QUERY = jnp.linspace(0.05, 0.95, 12)[None]
CODE = jnp.array([0.6, -0.5, 0.3])
RUN = {"num_chains": 4, "num_warmup": 200, "num_samples": 500, "method": "hmc", "num_integration_steps": 8}
RUN |= {"progress": False}


class Cosines(eqx.Module):
    """u = sum z_k cos(k pi x) / k and a = 2 + sum z_k sin(k pi x); of two phases, a's log-odds are the sum."""

    scale: jax.Array
    phases: tuple | None = eqx.field(static=True, default=None)
    num_codes: int = eqx.field(static=True, default=3)

    def decode(self, code, query=None):
        k = self._numbers(code, query)
        return self.scale * jnp.sum(jnp.expand_dims(code, range(1, k.ndim)) * jnp.cos(k * query[0]) / k, 0)[None] * 3

    def decode_input(self, code, query=None):
        k = self._numbers(code, query)
        field = jnp.sum(jnp.expand_dims(code, range(1, k.ndim)) * jnp.sin(k * query[0]), 0)[None]
        if self.phases is None:
            return 2 + field
        return self.phases[0] + (self.phases[1] - self.phases[0]) * jax.nn.sigmoid(4 * field)

    def _numbers(self, code, query):
        return jnp.pi * jnp.expand_dims(jnp.arange(1, len(code) + 1), range(1, query.ndim))


MODEL = Cosines(jnp.ones(()))


def seen(noise=0.2, key=0, **options):
    blank = inverse.PointMeasurement(POINTS, noise=noise, **options)
    return blank.simulate(MODEL.decode(CODE, POINTS)[0], key=jax.random.key(key))


def exact(posterior):
    """Mean and covariance of a linear Gaussian posterior, from the rows of its misfit."""
    zero = jnp.zeros(posterior.size)
    rows, offset = jax.jacobian(posterior.misfit)(zero), posterior.misfit(zero)
    covariance = jnp.linalg.inv(jnp.eye(posterior.size) + rows.T @ rows)
    return -covariance @ rows.T @ offset, covariance


def exact_draws(posterior, key=5, chains=4, draws=250, shrink=1.0):
    mean, covariance = exact(posterior)
    noise = jax.random.normal(jax.random.key(key), (chains, draws, posterior.size))
    return inverse.Draws(mean + shrink * noise @ jnp.linalg.cholesky(covariance).T, "exact")


@pytest.fixture(scope="module")
def posterior():
    return inverse.Posterior(MODEL, inverse.Normal(3), seen(noise=0.6))


@pytest.fixture(scope="module")
def drawn(posterior):
    return inverse.hmc(posterior, key=jax.random.key(1), **RUN)


def agrees(w, mean, covariance, draws):
    """To four standard errors of so many independent draws."""
    error = (w.mean(0) - mean) / jnp.sqrt(jnp.diag(covariance))
    assert np.max(np.abs(error)) < 4 / np.sqrt(draws)
    root = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    white = root @ jnp.cov(w.T) @ root.T
    assert np.max(np.abs(white - jnp.eye(len(mean)))) < 4 * np.sqrt(2 / draws)


@pytest.mark.slow
def test_hmc_has_the_moments_of_the_exact_posterior(posterior, drawn):
    rhat, ess = inverse.convergence(drawn.w)
    assert np.max(rhat) < 1.05
    assert np.min(ess) > 200
    agrees(drawn.flat, *exact(posterior), min(np.min(ess), 2000))
    assert not np.any(drawn.divergent)
    assert 0.6 < np.mean(drawn.acceptance) < 1


def test_nuts_has_the_moments_of_the_exact_posterior(posterior):
    drawn = inverse.hmc(posterior, key=jax.random.key(1), **RUN | {"method": "nuts"})
    agrees(drawn.flat, *exact(posterior), min(np.min(inverse.convergence(drawn.w)[1]), 2000))
    assert np.all(drawn.num_steps >= 1)


def test_full_rank_fit_is_exact_where_the_posterior_is_gaussian(posterior):
    fitted = inverse.variational(posterior, key=jax.random.key(2), num_samples=4000, progress=False)
    agrees(fitted.flat, *exact(posterior), 4000)
    assert fitted.pareto_k < 0.7
    assert fitted.elbo.shape == (2000,)
    # The bound is the evidence: what is left of log p when the Gaussian is integrated out.
    mean, covariance = exact(posterior)
    evidence = posterior.log_density(mean) + 1.5 * np.log(2 * np.pi) + jnp.linalg.slogdet(covariance)[1] / 2
    np.testing.assert_allclose(fitted.elbo[-1], evidence, atol=0.02)


def test_mean_field_fit_has_the_known_smaller_variances(posterior):
    fitted = inverse.variational(
        posterior, key=jax.random.key(2), family="mean_field", num_samples=4000, progress=False
    )
    mean, covariance = exact(posterior)
    known = 1 / jnp.diag(jnp.linalg.inv(covariance))
    assert np.min(known / jnp.diag(covariance)) < 0.9
    np.testing.assert_allclose(fitted.flat.var(0), known, rtol=4 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(fitted.flat.mean(0), mean, atol=4 * np.sqrt(np.max(known) / 4000))


class Square(eqx.Module):
    """u = z^2: a code and its negative explain the same data."""

    def decode(self, code, query):
        return jnp.broadcast_to(code[:1] ** 2, (1, query.shape[1]))

    def decode_input(self, code, query):
        return self.decode(code, query)


@pytest.mark.slow
def test_rhat_notices_chains_in_separate_modes_but_not_where_the_coefficient_agrees():
    there = inverse.PointMeasurement(POINTS, jnp.full(30, 4.0), noise=0.5)
    posterior = inverse.Posterior(Square(), inverse.Normal(1), there)
    starts = jnp.array([[2.0], [-2.0], [2.0], [-2.0]])
    drawn = inverse.hmc(posterior, key=jax.random.key(3), start=starts, **RUN | {"num_samples": 200})
    assert np.all(np.sign(drawn.w.mean(1))[:, 0] == [1, -1, 1, -1])
    result = inverse.summary(drawn, posterior, QUERY)
    assert np.max(result.rhat) > 1.5 > 1.05 > result.field_rhat
    assert any("modes" in sentence for sentence in result.warnings)


def test_starting_near_a_point_stays_in_its_mode():
    there = inverse.PointMeasurement(POINTS, jnp.full(30, 4.0), noise=0.5)
    posterior = inverse.Posterior(Square(), inverse.Normal(1), there)
    drawn = inverse.hmc(
        posterior, key=jax.random.key(3), start=jnp.array([2.0]), jitter=0.1, **RUN | {"num_samples": 200}
    )
    assert np.all(drawn.w > 0)


def test_bands_are_those_of_the_exact_posterior(posterior):
    mean, covariance = exact(posterior)
    basis = jax.jacobian(lambda z: MODEL.decode_input(z, QUERY)[0])(jnp.zeros(3))
    result = inverse.summary(exact_draws(posterior, draws=2500), posterior, QUERY, level=0.8, max_draws=10000)
    std = np.sqrt(np.diag(basis @ covariance @ basis.T))
    np.testing.assert_allclose(result.mean[0], 2 + basis @ mean, atol=4 * std.max() / 100)
    np.testing.assert_allclose(result.std[0], std, rtol=0.03, atol=1e-6)
    np.testing.assert_allclose(result.upper - result.lower, 2 * norm.ppf(0.9) * std[None], rtol=0.06, atol=1e-6)
    assert result.samples.shape == (16, 1, 12)


@pytest.mark.slow
def test_coverage_of_bands_on_data_of_the_model_itself(posterior):
    found = inverse.coverage_study(
        posterior, QUERY, key=jax.random.key(4), num_experiments=100, num_integration_steps=8, progress=False
    )
    assert found.standard_error < 0.03
    assert abs(found.coverage - 0.9) < 4 * found.standard_error
    assert np.min(found.p_values) > 1e-3


@pytest.mark.parametrize(("shrink", "expected"), [(1.0, 0.9), (0.5, 2 * norm.cdf(norm.ppf(0.95) / 2) - 1)])
def test_a_study_measures_bands_that_are_too_narrow(posterior, monkeypatch, shrink, expected):
    draw = lambda there, key, chains, warmup, draws, settings: exact_draws(there, key, 1, draws, shrink).w
    monkeypatch.setattr(calibration, "run_chains", lambda there, key, *rest: _with_key(draw, there, key, *rest))
    found = inverse.coverage_study(
        posterior, QUERY[:, 1:-1], key=jax.random.key(6), num_experiments=400, num_samples=400 + int(10 * shrink),
        num_chains=1, batch_size=200, progress=False,
    )  # fmt: skip
    assert abs(found.coverage - expected) < 4 * found.standard_error + 0.01
    assert (np.min(found.p_values) > 1e-3) == (shrink == 1.0)


def _with_key(draw, there, key, *rest):
    return draw(there, jax.random.randint(key, (), 0, 2**30), *rest)


@pytest.mark.slow
def test_coverage_of_a_nonlinear_posterior():
    class Bent(eqx.Module):
        def decode(self, code, query):
            return jnp.exp(MODEL.decode(jnp.tanh(code) / 2, query))

        def decode_input(self, code, query):
            return jnp.exp(MODEL.decode_input(code, query) / 2)

    there = inverse.Posterior(Bent(), inverse.Uniform(3), seen(noise=0.3))
    found = inverse.coverage_study(
        there, QUERY, key=jax.random.key(4), num_experiments=300, num_warmup=500, num_samples=500, progress=False
    )
    assert abs(found.coverage - 0.9) < 4 * found.standard_error
    assert found.standard_error < 0.02
    assert np.min(found.p_values) > 1e-3


@pytest.mark.parametrize(("factor", "flagged"), [(1.0, False), (2.0, True), (0.5, True)])
def test_a_noise_level_wrong_by_two_is_flagged_and_the_right_one_is_not(factor, flagged):
    ratios = []
    for trial in range(5):
        values = seen(noise=0.2, key=10 + trial).values
        there = inverse.PointMeasurement(POINTS, values, noise=0.2 * factor, model_error=0.01)
        posterior = inverse.Posterior(MODEL, inverse.Normal(3), there)
        result = inverse.summary(exact_draws(posterior), posterior, QUERY)
        assert result.noise_ok is not flagged
        assert any("stated" in sentence for sentence in result.warnings) is flagged
        assert ("NOT as stated" in str(result)) is flagged
        np.testing.assert_allclose(result.num_fitted, 3, atol=0.5)
        ratios.append(result.noise_ratio)
    np.testing.assert_allclose(np.mean(ratios), 1 / factor, rtol=4 / np.sqrt(2 * 5 * 27))


def test_as_many_unknowns_as_values_leave_nothing_to_judge_the_noise_by():
    there = inverse.PointMeasurement(POINTS[:, ::15], jnp.array([0.1, 0.2]), noise=1e-3)
    posterior = inverse.Posterior(MODEL, inverse.Normal(3), there)
    result = inverse.summary(exact_draws(posterior), posterior, QUERY)
    assert np.isnan(result.noise_ratio)
    assert result.noise_ok
    assert "cannot be told" in str(result)


def test_the_probability_of_a_phase_is_its_mean_over_draws(posterior):
    media = Cosines(jnp.ones(()), (5.0, 10.0))
    there = inverse.Posterior(media, inverse.Normal(3), posterior.measurements)
    draws = exact_draws(posterior)
    result = inverse.summary(draws, there, QUERY, truth=media.decode_input(CODE, QUERY))
    logits = 4 * (jax.vmap(lambda z: MODEL.decode_input(z, QUERY))(draws.flat) - 2)
    np.testing.assert_allclose(result.phase_probability, jax.nn.sigmoid(logits).mean(0), atol=1e-5)
    assert 0 <= result.coverage <= 1
    assert "phases" in str(result)


def test_the_report_reads_well(posterior, drawn):
    result = inverse.summary(drawn, posterior, QUERY, truth=MODEL.decode_input(CODE, QUERY))
    text = str(result)
    assert "30 values, 2000 draws (hmc)" in text
    assert "No model error is stated" in text
    assert "R-hat at most 1.0" in text
    assert result.coverage == 1.0
    assert 0 < result.relative_error < 0.5


def test_an_interrupted_run_keeps_what_was_drawn(posterior, drawn, monkeypatch):
    advance, calls = sampling._advance, []

    def interrupted(*arguments):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(*arguments)

    monkeypatch.setattr(sampling, "_advance", interrupted)
    kept = inverse.hmc(posterior, key=jax.random.key(1), **RUN)
    assert kept.w.shape == (4, 200, 3)
    np.testing.assert_array_equal(kept.w, drawn.w[:, :200])


def test_uniform_prior_by_kolmogorov_smirnov():
    codes = jax.vmap(inverse.Uniform(2).sample)(jax.random.split(jax.random.key(7), 2000))
    assert kstest(np.asarray(codes).ravel(), "uniform", (-1, 2)).pvalue > 1e-3
    np.testing.assert_allclose(inverse.Uniform(3)(inverse.Uniform(3).inverse(CODE)), CODE, atol=1e-6)


def test_gaussian_prior_has_the_moments_of_the_codes():
    mix = jnp.array([[1.0, 0.2, 0.0], [0.0, 0.5, 0.3], [0.1, 0.0, 0.05]])
    codes = jax.random.normal(jax.random.key(8), (500, 3)) @ mix + jnp.array([1.0, 2.0, 3.0])
    prior = inverse.Gaussian.fit(codes, bounded=False)
    np.testing.assert_allclose(prior.factor @ prior.factor.T, np.cov(codes.T), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prior.mean, codes.mean(0), rtol=1e-5)
    np.testing.assert_allclose(prior(prior.inverse(codes[0])), codes[0], rtol=1e-4)
    samples = jax.vmap(prior.sample)(jax.random.split(jax.random.key(9), 4000))
    np.testing.assert_allclose(np.cov(samples.T), np.cov(codes.T), atol=4 * np.sqrt(2 / 4000))


def test_gaussian_prior_of_lower_rank_holds_the_stated_share():
    codes = jax.random.normal(jax.random.key(8), (300, 5)) * jnp.array([2.0, 1.0, 0.5, 0.1, 0.01])
    variance = np.sort(np.linalg.eigvalsh(np.cov(codes.T)))[::-1]
    shares = np.cumsum(variance) / variance.sum()
    prior = inverse.Gaussian.fit(codes, share=0.97, bounded=False)
    assert prior.size == 1 + np.argmax(shares >= 0.97)
    np.testing.assert_allclose(prior.share, shares[prior.size - 1], rtol=1e-5)
    assert inverse.Gaussian.fit(codes, rank=2, bounded=False).size == 2


def test_bounded_gaussian_prior_stays_within_the_walls_and_fits_arctanh():
    y = jax.random.normal(jax.random.key(8), (400, 2)) @ jnp.array([[1.5, 0.4], [0.0, 0.5]])
    prior = inverse.Gaussian.fit(jnp.tanh(y))
    np.testing.assert_allclose(prior.factor @ prior.factor.T, np.cov(y.T), rtol=1e-3, atol=1e-3)
    samples = jax.vmap(prior.sample)(jax.random.split(jax.random.key(9), 1000))
    assert np.max(np.abs(samples)) <= 1


@pytest.mark.slow
def test_a_flow_learns_a_banana():
    x = jax.random.normal(jax.random.key(0), (2000, 2))
    codes = x.at[:, 1].add(x[:, 0] ** 2)
    flow = inverse.fit_flow(codes, key=jax.random.key(1), bounded=False, max_epochs=100, progress=False)
    fresh = jax.random.normal(jax.random.key(2), (2000, 2))
    fresh = fresh.at[:, 1].add(fresh[:, 0] ** 2)
    true = norm.logpdf(fresh[:, 0]) + norm.logpdf(fresh[:, 1] - fresh[:, 0] ** 2)
    lost = np.mean(true - np.asarray(jax.vmap(flow.log_density)(fresh)))
    assert lost < 0.15  # the best Gaussian loses 0.55, half the logarithm of the determinant of the covariance, 3
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-5, 5, 101), jnp.linspace(-5, 14, 191)), -1).reshape(-1, 2)
    np.testing.assert_allclose(np.exp(jax.vmap(flow.log_density)(grid)).sum() * 0.01, 1, atol=0.02)
    np.testing.assert_allclose(jax.vmap(flow)(jax.vmap(flow.inverse)(fresh[:50])), fresh[:50], atol=1e-3)
    samples = np.asarray(jax.vmap(flow.sample)(jax.random.split(jax.random.key(3), 4000)))
    np.testing.assert_allclose(np.corrcoef(samples[:, 0] ** 2, samples[:, 1])[0, 1], np.sqrt(2 / 3), atol=0.08)


BENT = jnp.tanh(jax.random.normal(jax.random.key(0), (60, 2)) @ jnp.array([[0.8, 0.3], [0.0, 0.4]]))


def test_the_density_of_a_flow_is_that_of_its_map():
    random = flows.coupling_flow(
        jax.random.key(1), base_dist=StandardNormal((2,)), transformer=Affine(), flow_layers=2, nn_width=4, invert=False
    )
    flow = inverse.Flow(paramax.unwrap(random).bijection, inverse.Gaussian.fit(BENT), ())
    w = jnp.array([0.7, -1.1])

    @eqx.filter_jit
    def seen_from_both_sides(flow, w):
        code, slopes = flow(w), jax.jacobian(flow)(w)
        return flow.inverse(code), jnp.linalg.slogdet(slopes)[1], flow.log_density(code), code - flow.gaussian(w)

    back, slope, log_density, bent = seen_from_both_sides(flow, w)
    np.testing.assert_allclose(back, w, atol=1e-4)
    np.testing.assert_allclose(log_density, np.sum(norm.logpdf(w)) - slope, rtol=1e-4)
    assert np.max(np.abs(bent)) > 1e-3
    with pytest.raises(ValueError, match="log_density: expected all 2 directions, got 1"):
        eqx.tree_at(lambda f: f.gaussian.factor, flow, flow.gaussian.factor[:, :1]).log_density(w)


@pytest.mark.slow
def test_fitting_a_flow_gains_likelihood():
    codes = BENT.at[:, 1].set(BENT[:, 0] ** 2 + 0.1 * BENT[:, 1])
    flow = inverse.fit_flow(
        codes, key=jax.random.key(1), layers=2, width=8, knots=3, max_epochs=30, learning_rate=0.02, progress=False
    )
    losses = dict(flow.losses)["train"]
    assert np.mean(losses[-3:]) < losses[0] - 0.3
