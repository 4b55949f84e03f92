"""Measurements, the density, the published point estimate, and what is refused."""

import functools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_inverse import CODE, MODEL, POINTS, Cosines, Square, exact_draws, seen

from neuralops import inverse

W = jnp.array([[0.1, -0.3, 0.5], [1.0, 0.2, -0.7]])
QUIET = {"progress": False}


def density(*measurements, **options):
    return jax.vmap(inverse.Posterior(MODEL, inverse.Normal(3), measurements, **options).log_density)(W)


def test_noise_at_a_signal_to_noise_ratio():
    u = jnp.array([3.0, -4.0, 0.0, 5.0])
    np.testing.assert_allclose(inverse.noise_of(u, 25.0), 0.056234 * np.sqrt(12.5), rtol=1e-5)
    many = inverse.PointMeasurement(jnp.zeros((2, 4000)), noise=inverse.noise_of(u, 20.0), model_error=9.0)
    values = many.simulate(jnp.full(4000, 7.0), key=jax.random.key(0)).values
    np.testing.assert_allclose([values.mean(), values.std()], [7, 0.1 * np.sqrt(12.5)], rtol=0.05)


def test_the_density_by_hand():
    there = seen(noise=0.3)
    u = jax.vmap(lambda w: MODEL.decode(w, POINTS)[0])(W)
    by_hand = -jnp.sum(W**2, 1) / 2 - jnp.sum((there.values - u) ** 2, 1) / (2 * 0.09)
    np.testing.assert_allclose(density(there), by_hand, rtol=1e-5)
    gradient = jax.jit(jax.grad(inverse.Posterior(MODEL, inverse.Normal(3), there).log_density))(W[0])
    assert np.all(np.isfinite(gradient))


def test_model_error_adds_in_quadrature_and_several_measurements_add():
    values = seen().values
    two = inverse.PointMeasurement(POINTS, values, noise=0.3, model_error=0.4)
    np.testing.assert_allclose(density(two), density(inverse.PointMeasurement(POINTS, values, noise=0.5)), rtol=1e-5)
    halves = [inverse.PointMeasurement(POINTS[:, s], values[s], noise=0.5) for s in (slice(0, 11), slice(11, None))]
    np.testing.assert_allclose(density(*halves), density(two), rtol=1e-5)


def test_measurements_of_the_coefficient():
    a = MODEL.decode_input(CODE, POINTS)[0]
    there = inverse.Posterior(MODEL, inverse.Normal(3), inverse.PointMeasurement(POINTS, a, of="input", noise=0.1))
    np.testing.assert_allclose(there.misfit(CODE), 0, atol=1e-5)
    np.testing.assert_allclose(
        there.misfit(W[0]), (a - MODEL.decode_input(W[0], POINTS)[0]) / 0.1, rtol=1e-4, atol=1e-5
    )


def test_masked_points_count_nothing_whatever_they_hold():
    values = seen().values
    mask = np.arange(30) % 3 != 0
    nan = np.where(mask, 1.0, np.nan)
    masked = inverse.PointMeasurement(POINTS * nan, values * nan, noise=0.2 * nan, mask=mask)
    kept = inverse.PointMeasurement(POINTS[:, mask], values[mask], noise=0.2)
    np.testing.assert_allclose(density(masked), density(kept), rtol=1e-5)
    there = inverse.Posterior(MODEL, inverse.Normal(3), masked)
    assert there.num_values == 20
    assert np.all(np.isfinite(jax.grad(there.log_density)(W[0])))


def residual(model, code):
    return jnp.sum(model.decode(code, POINTS) ** 2)


def test_virtual_observables_are_observations_of_zero():
    precision = 8.0
    zeros = inverse.PointMeasurement(POINTS, jnp.zeros(30), noise=precision**-0.5)
    by_weight = density(seen(), physics=residual, physics_weight=precision / 2)
    np.testing.assert_allclose(by_weight, density(seen(), zeros), rtol=1e-5)


@pytest.mark.slow
def test_double_precision(x64):
    model = Cosines(jnp.ones((), jnp.float64))
    points = jnp.asarray(POINTS, jnp.float64)
    there = inverse.PointMeasurement(points, model.decode(jnp.asarray(CODE, jnp.float64), points)[0], noise=0.3)
    posterior = inverse.Posterior(model, inverse.Normal(3), there)
    assert jnp.max(jnp.abs(posterior.misfit(jnp.asarray(CODE, jnp.float64)))) < 1e-12
    drawn = inverse.hmc(
        posterior, key=jax.random.key(0), num_chains=1, num_warmup=20, num_samples=8, method="hmc",
        num_integration_steps=4, **QUIET,
    )  # fmt: skip
    assert drawn.w.dtype == jnp.float64
    assert np.ptp(drawn.w) > 0


def test_point_estimate_recovers_the_code_from_exact_data():
    there = inverse.PointMeasurement(POINTS, MODEL.decode(CODE, POINTS)[0], noise=0.1)
    found = inverse.point_estimate(MODEL, there, key=jax.random.key(0), **QUIET)
    assert found.losses.shape == (1000,)
    assert found.misfit < 2e-3
    np.testing.assert_allclose(found.code, CODE, atol=0.01)


def test_point_estimate_is_adam_with_coupled_decay_and_a_rate_cut_in_steps():
    there = seen()
    steps = {"num_steps": 30, "decay_every": 10, "decay": 0.5, "weight_decay": 0.1, "data_weight": 3.0}
    options = {"physics": residual, "physics_weight": 0.01, "activation": "silu"}
    found = inverse.point_estimate(MODEL, there, key=jax.random.key(0), hidden=(4,), **steps, **options, **QUIET)

    init = jax.random.split(jax.random.key(0))[0]
    first, last = (eqx.nn.Linear(m, n, key=k) for m, n, k in zip((1, 4), (4, 3), jax.random.split(init), strict=True))
    parameters = [np.asarray(x, float) for x in (first.weight, first.bias, last.weight, last.bias)]

    @jax.value_and_grad
    def loss(p):
        hidden = p[0][:, 0] + p[1]
        code = jnp.tanh(p[2] @ (hidden * jax.nn.sigmoid(hidden)) + p[3])
        u = MODEL.decode(code, POINTS)[0]
        return 3 * jnp.sqrt(jnp.sum((u - there.values) ** 2) / jnp.sum(there.values**2)) + 0.01 * jnp.sum(u**2)

    means, squares, losses = [0.0] * 4, [0.0] * 4, []
    for step in range(30):
        value, gradients = loss(parameters)
        losses.append(float(value))
        for i, gradient in enumerate(gradients):
            g = np.asarray(gradient, float) + 0.1 * parameters[i]
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.999 * squares[i] + 0.001 * g**2
            move = (means[i] / (1 - 0.9 ** (step + 1))) / (np.sqrt(squares[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
            parameters[i] = parameters[i] - 1e-2 * 0.5 ** (step // 10) * move
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    assert losses[0] > 1.05 * losses[-1]


def test_published_schedules():
    cases = sys.modules["neuralops.inverse.point_estimate"].CASES
    assert cases["darcy_smooth"] == {"activation": "relu", "num_steps": 1000, "decay_every": 250, "decay": 0.6}
    assert cases["darcy_two_phase"] == {"activation": "silu", "num_steps": 500, "decay_every": 50, "decay": 0.5}


def test_physics_may_draw_anew_at_every_step():
    def noisy(model, code, *, key):
        return jax.random.uniform(key)

    run = functools.partial(inverse.point_estimate, MODEL, seen(), key=jax.random.key(0), num_steps=20, **QUIET)
    with_noise, without = run(physics=noisy), run()
    extra = with_noise.losses - without.losses
    assert np.std(extra) > 0.1
    np.testing.assert_allclose(with_noise.code, without.code, atol=1e-5)
    with pytest.raises(ValueError, match=r"physics: expected the same number at every call.*functools\.partial"):
        density(seen(), physics=noisy, physics_weight=1.0)


@pytest.mark.slow
def test_the_error_grows_as_points_and_the_signal_fall():
    truth = MODEL.decode(CODE, POINTS)[0]

    def error(points, snr):
        mask = np.arange(30) % (30 // points) == 0
        blank = inverse.PointMeasurement(POINTS, noise=inverse.noise_of(truth, snr), mask=mask)
        found = [
            inverse.point_estimate(
                MODEL, blank.simulate(truth, key=jax.random.key(k)), key=jax.random.key(9), num_steps=400,
                decay_every=100, **QUIET,
            ).code
            for k in range(8)
        ]  # fmt: skip
        return np.sqrt(np.mean([(code - CODE) ** 2 for code in found]))

    assert error(30, 40) < error(30, 20) < error(30, 5)
    assert error(30, 20) < error(5, 20)


def ask(**changes):
    return inverse.PointMeasurement(**{"points": POINTS, "values": jnp.zeros(30), "noise": 0.1} | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": POINTS.at[0, 3].set(jnp.nan)}, r"points: expected finite numbers, got 1 .*mask="),
        ({"points": POINTS[0]}, r"points: expected \(ndim, n\) with 1 to 3 dimensions, got \(30,\)"),
        ({"points": POINTS.T}, r"points: expected \(ndim, n\).* got \(30, 1\).*points\.T"),
        ({"noise": 0.0}, r"noise: expected positive standard deviations, got 0; give noise_of"),
        ({"noise": -1}, r"noise: expected positive"),
        ({"noise": jnp.ones(4)}, r"noise: expected a number or \(30,\)"),
        ({"noise": jnp.nan}, r"noise: expected finite"),
        ({"model_error": -0.1}, r"model_error: expected zero or positive"),
        ({"values": jnp.zeros((1, 30))}, r"values: expected \(30,\), one per point, got \(1, 30\)"),
        ({"values": jnp.full(30, jnp.inf)}, r"values: expected finite"),
        ({"values": "none"}, r"values: expected real numbers, got str"),
        ({"of": "flux"}, r"of: expected one of"),
        ({"mask": jnp.zeros(30, bool)}, r"mask: expected \(30,\) truth values, one of them true"),
        ({"channel": -1}, r"channel: expected zero or a positive integer"),
    ],
)
def test_measurements_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ask(**changes)


def start(**changes):
    posterior = inverse.Posterior(MODEL, inverse.Normal(3), seen())
    return inverse.hmc(posterior, key=jax.random.key(0), **QUIET | changes)


CODES = np.random.default_rng(0).uniform(-0.9, 0.9, (30, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: density(ask(values=None)), r"measurements: number 0 holds no values"),
        (lambda: density(), r"measurements: expected at least one, got none"),
        (lambda: density(3.0), r"measurements: expected PointMeasurement, got float"),
        (lambda: density(seen(), physics_weight=1.0), r"physics: expected a function for this physics_weight"),
        (lambda: density(seen(), physics=residual, physics_weight=-1), r"physics_weight: expected zero or more"),
        (lambda: density(ask(channel=1)), r"model: expected values \(channels, 30\) with channel 1"),
        (lambda: inverse.Posterior(jnp.sin, inverse.Normal(3), seen()), r"model: expected a method decode\(code"),
        (lambda: inverse.Posterior(MODEL, jnp.tanh, seen()), r"prior: expected a map of white noise with a size"),
        (
            lambda: density(seen(), physics=lambda m, z: z, physics_weight=1.0),
            r"physics: expected one number, got \(3,",
        ),
        (lambda: inverse.Normal(0), r"numbers: expected a positive integer"),
        (lambda: inverse.noise_of(jnp.ones(3), "25"), r"snr_db: expected a ratio in decibels"),
        (lambda: start(method="gibbs"), r"method: expected one of \('nuts', 'hmc'\)"),
        (lambda: start(target_acceptance=1.0), r"target_acceptance: expected a number in \(0, 1\)"),
        (lambda: start(num_warmup=3), r"num_warmup: expected an integer of at least 20"),
        (lambda: start(start=jnp.zeros(2)), r"start: expected \(3,\) or \(4, 3\) in white noise, got \(2,\)"),
        (lambda: start(start=jnp.full(3, jnp.nan)), r"start: expected finite"),
        (lambda: start(start=jnp.zeros(3), jitter=-1), r"jitter: expected zero or a positive"),
        (lambda: inverse.hmc(MODEL, key=None), r"posterior: expected a Posterior, got Cosines"),
        (lambda: inverse.variational(MODEL, key=None), r"posterior: expected a Posterior"),
        (lambda: inverse.point_estimate(Square(), seen(), key=None), r"num_codes: Square does not say"),
        (lambda: inverse.point_estimate(MODEL, seen(), key=None, case="a"), r"case: expected one of"),
        (lambda: inverse.point_estimate(MODEL, seen(), key=None, decay=0.0), r"decay: expected a positive"),
        (lambda: inverse.Gaussian.fit(CODES * 2), r"codes: expected numbers in \(-1, 1\).*bounded=False"),
        (lambda: inverse.Gaussian.fit(CODES[0]), r"codes: expected \(samples, d\)"),
        (lambda: inverse.Gaussian.fit(CODES * np.nan), r"codes: expected finite"),
        (lambda: inverse.Gaussian.fit(np.ones((5, 2)) / 2), r"codes: expected codes that differ"),
        (lambda: inverse.Gaussian.fit(CODES, rank=9), r"rank: expected an integer from 1 to 4, got 9"),
        (lambda: inverse.Gaussian.fit(CODES, share=1.5), r"share: expected a part of the variance"),
        (lambda: inverse.Gaussian.fit(CODES, rank=1, share=0.5), r"rank, share: expected one of them"),
        (lambda: inverse.fit_flow(CODES[:9], key=None), r"codes: expected 20 samples or more"),
        (lambda: inverse.fit_flow(CODES, key=None, rank=1), r"rank: expected two directions or more"),
        (lambda: inverse.convergence(jnp.zeros((1, 9, 2))), r"w: expected \(chains, draws, size\) with two chains"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_summaries_and_studies_that_are_refused():
    posterior = inverse.Posterior(MODEL, inverse.Normal(3), seen())
    draws = exact_draws(posterior, draws=4)
    with pytest.raises(ValueError, match=r"level: expected a probability in \(0, 1\), got 90"):
        inverse.summary(draws, posterior, POINTS, level=90)
    with pytest.raises(ValueError, match=r"draws: expected Draws of 3 numbers, got ArrayImpl"):
        inverse.summary(draws.w, posterior, POINTS)
    with pytest.raises(ValueError, match=r"truth: expected \(1, 30\), the coefficient at query, got \(30,\)"):
        inverse.summary(draws, posterior, POINTS, truth=np.zeros(30))
    with pytest.raises(ValueError, match=r"batch_size: expected a divisor of 10 experiments, got 4"):
        inverse.coverage_study(posterior, POINTS, key=jax.random.key(0), num_experiments=10, batch_size=4)
    there = inverse.Posterior(MODEL, inverse.Normal(3), seen(), physics=residual, physics_weight=1.0)
    with pytest.raises(ValueError, match=r"posterior: expected one without physics"):
        inverse.coverage_study(there, POINTS, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("library", "call"),
    [("blackjax", start), ("flowjax.flows", lambda: inverse.fit_flow(CODES, key=jax.random.key(0)))],
)
def test_a_missing_library_names_the_extra(library, call, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=r"needs \w+; install it with `pip install neuralops-jax\[inverse\]`"):
        call()


def test_an_estimate_that_is_not_finite_stops():
    class Broken(eqx.Module):
        num_codes: int = eqx.field(static=True, default=3)

        def decode(self, code, query):
            return jnp.full((1, query.shape[1]), jnp.nan) * code[0]

    with pytest.raises(FloatingPointError, match="the loss is not finite within 20 steps"):
        inverse.point_estimate(Broken(), seen(), key=jax.random.key(0), num_steps=20, **QUIET)


class Phases(eqx.Module):
    """Two phases whose probability is the code itself, at every point."""

    phases: tuple = eqx.field(static=True, default=(10.0, 5.0))

    def decode(self, code, query):
        return jnp.broadcast_to(code[:1], (1, query.shape[1]))

    def decode_input(self, code, query):
        return 10 - 5 * jnp.clip(self.decode(code, query), 0, 1)


@pytest.mark.parametrize(("share", "band", "mass"), [(0.5, (5, 10), 1.0), (0.99, (5, 5), 0.99), (0.02, (10, 10), 0.98)])
def test_bands_of_two_phases_are_values_of_the_pixel(share, band, mass):
    seen = inverse.PointMeasurement(jnp.zeros((1, 2)), jnp.zeros(2), noise=1.0)
    posterior = inverse.Posterior(Phases(), inverse.Normal(1), seen)
    draws = inverse.Draws(jnp.full((2, 20, 1), share), "exact")
    result = inverse.summary(draws, posterior, jnp.zeros((1, 3)), truth=np.full((1, 3), 5.0))
    assert (result.lower[0, 0], result.upper[0, 0]) == band
    assert result.band_mass == pytest.approx(mass, abs=1e-6)
    assert result.coverage == float(band[0] == 5)
    np.testing.assert_allclose(result.phase_probability, share, rtol=1e-4)


def test_the_deviation_about_the_mean_widens_the_bands():
    class Plain(eqx.Module):
        def decode(self, code, query):
            return jnp.broadcast_to(code[:1], (1, query.shape[1]))

        decode_input = decode

    seen = inverse.PointMeasurement(jnp.zeros((1, 2)), jnp.zeros(2), noise=1.0)
    posterior = inverse.Posterior(Plain(), inverse.Normal(1), seen)
    draws = inverse.Draws(3 * jax.random.normal(jax.random.key(0), (4, 1000, 1)), "exact")
    query = jnp.zeros((1, 2))
    widths = [
        float(np.mean(result.upper - result.lower))
        for result in (
            inverse.summary(draws, posterior, query, deviation=deviation, max_draws=4000) for deviation in (0.0, 4.0)
        )
    ]
    np.testing.assert_allclose(widths, [2 * 1.645 * 3, 2 * 1.645 * 5], rtol=0.06)
    with pytest.raises(ValueError, match="deviation"):
        inverse.summary(draws, posterior, query, deviation=-1.0)


def test_chains_start_at_the_likeliest_of_their_own_draws():
    from neuralops.inverse.sampling import _likeliest

    posterior = inverse.Posterior(MODEL, inverse.Normal(3), seen(noise=0.6))
    starts = _likeliest(posterior, jax.random.key(0), 4, 300)
    draws = jax.random.normal(jax.random.key(0), (4, 300, 3))
    misfits = np.asarray(jax.vmap(jax.vmap(lambda w: jnp.sum(posterior.misfit(w) ** 2)))(draws))
    np.testing.assert_array_equal(starts, draws[np.arange(4), misfits.argmin(axis=1)])
    assert len({float(x) for x in starts[:, 0]}) == 4  # apart
    alone = _likeliest(posterior, jax.random.key(0), 4, 1)
    np.testing.assert_array_equal(alone, jax.random.normal(jax.random.key(0), (4, 1, 3))[:, 0])


def test_errors_of_the_model_that_belong_together():
    """The misfit is whitened by noise and second moment of the errors: its square is the Mahalanobis distance."""
    errors = np.random.default_rng(0).normal(size=(12, 30)) @ np.diag(np.linspace(0.1, 1, 30))
    mask = np.arange(30) != 4
    dirty = np.where(mask, errors, np.nan)
    plain = inverse.PointMeasurement(POINTS, noise=0.3, model_error=errors, mask=mask).with_values(jnp.arange(30.0))
    masked = inverse.PointMeasurement(POINTS, noise=0.3, model_error=dirty, mask=mask).with_values(jnp.arange(30.0))
    difference = np.asarray(plain.observed - plain(MODEL, CODE), np.float64)[mask]
    covariance = 0.09 * np.eye(29) + errors[:, mask].T @ errors[:, mask] / 12
    wanted = difference @ np.linalg.solve(covariance, difference)
    for one in (plain, masked):
        np.testing.assert_allclose(np.sum(np.asarray(one.misfit(MODEL, CODE)) ** 2), wanted, rtol=2e-3)
    np.testing.assert_allclose(plain.deviation[mask] ** 2, np.diag(covariance), rtol=1e-4)
    alone = inverse.PointMeasurement(POINTS, jnp.arange(30.0), noise=0.3, model_error=np.diag(np.full(30, 30**0.5)))
    same = inverse.PointMeasurement(POINTS, jnp.arange(30.0), noise=0.3, model_error=1.0)
    np.testing.assert_allclose(alone.misfit(MODEL, CODE), same.misfit(MODEL, CODE), rtol=1e-4)
    with pytest.raises(ValueError, match="model_error"):
        inverse.PointMeasurement(POINTS, noise=0.3, model_error=errors[:, :3])
