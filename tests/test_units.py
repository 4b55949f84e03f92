"""A relative quantity has no unit: the same fields at 1e-30 and at 1e30, in float32, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses, metrics, pde
from neuralops.data import Normalizer
from neuralops.grid import Grid
from neuralops.training import baselines

GRID = Grid((8, 6), (1.0, 2.0), "neumann", "cell")
RNG = np.random.default_rng(0)
TARGET = RNG.normal(size=(2, 8, 6)).astype(np.float32)
TARGET += np.asarray([[[0.5]], [[2.0]]], np.float32)
PREDICTION = (TARGET + 0.1 * RNG.normal(size=TARGET.shape)).astype(np.float32)
INSIDE = RNG.uniform(size=GRID.shape) < 0.7
SIZES = (-100, -60, -20, 20, 60, 100)  # powers of two: 8e-31, 9e-19, 1e-6, 1e6, 1e18, 1e30

RELATIVE = {
    "l2": losses.l2(),
    "l2, masked": losses.l2(mask=INSIDE),
    "l2, weighted": losses.l2(weights=GRID.weights()),
    "l2, by channel": losses.l2(per_channel=True),
    "h1": losses.h1(GRID),
    "h1, masked": losses.h1(GRID, mask=INSIDE),
    "h1, spectral": losses.h1(GRID, derivative="spectral"),
    "fourier_h1": losses.fourier_h1(max_wavenumber=3),
    "nrmse": metrics.nrmse,
    "vrmse": metrics.vrmse,
    "vrmse, masked": losses.Bound(metrics.vrmse, mask=INSIDE),
    "spectral_error": losses.Bound(metrics.spectral_error, grid=GRID, band="low"),
}


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_losses_and_their_gradients_have_no_unit(name):
    run = jax.jit(jax.value_and_grad(RELATIVE[name]))
    value, grad = run(PREDICTION, TARGET)
    assert 0.01 < float(value) < 1  # seven digits of something
    for power in SIZES:
        size = np.float32(2.0**power)
        scaled, slope = run(size * PREDICTION, size * TARGET)
        assert float(scaled) == float(value)  # powers of two round nothing
        np.testing.assert_array_equal(np.asarray(slope) * np.float64(size), np.asarray(grad, np.float64))


@pytest.mark.parametrize("size", [1e-30, 3e-20, 1e-12, 1e20, 1e30])
def test_sizes_that_are_no_powers_of_two(size):
    t, p = (np.asarray(size * u.astype(np.float64), np.float32) for u in (TARGET, PREDICTION))
    exact = np.linalg.norm(PREDICTION.astype(np.float64) - TARGET) / np.linalg.norm(TARGET.astype(np.float64))
    assert float(losses.relative_l2(p, t)) == pytest.approx(exact, rel=1e-5)


def test_channels_of_different_units_each_keep_theirs():
    units = np.asarray([1e-25, 1e25], np.float32)[:, None, None]
    for loss in (losses.l2(per_channel=True), metrics.nrmse, metrics.vrmse):
        value = float(loss(PREDICTION, TARGET))
        assert float(loss(units * PREDICTION, units * TARGET)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("metric", [metrics.boundary_error, metrics.max_error, metrics.mae])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_metrics_in_the_unit_of_the_field_follow_it(metric, size):
    value = float(metric(PREDICTION, TARGET))
    assert float(metric(np.float32(size) * PREDICTION, np.float32(size) * TARGET)) == pytest.approx(
        size * value, rel=1e-5
    )


def test_eps_is_in_the_unit_of_the_field_where_one_is_given():
    error = np.sqrt(np.mean((PREDICTION - TARGET) ** 2)), np.sqrt(np.mean(TARGET**2))
    assert float(losses.relative_l2(PREDICTION, TARGET, eps=3.0)) == pytest.approx(error[0] / (error[1] + 3), rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_normalisers_follow_the_unit(size):
    x = np.asarray(size, np.float32) * RNG.normal(3, 2, size=(50, 1, 20)).astype(np.float32)
    normalizer = Normalizer.fit(x)
    assert normalizer.mean[0] == pytest.approx(3 * size, rel=0.1)
    scaled = np.asarray(normalizer.encode(jnp.asarray(x)))
    assert scaled.mean() == pytest.approx(0, abs=1e-5)
    assert scaled.std() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(normalizer.decode(scaled), x, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_baselines_follow_the_unit(size):
    x = RNG.normal(size=(12, 1, 5)).astype(np.float32)
    y = x @ RNG.normal(size=(5, 5)).astype(np.float32)
    u, scale = x[3] + 0.01, np.float32(size)
    np.testing.assert_array_equal(baselines.nearest_neighbour((scale * x, y))(scale * u), y[3])
    plain, scaled = (baselines.linear_pod((s * x, s * y), num_modes=5)(s * u) for s in (np.float32(1), scale))
    np.testing.assert_allclose(np.asarray(scaled, np.float64) / size, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_relative_residuals_of_problems_follow_the_unit(size):
    problem = pde.Poisson((8, 6))
    f = problem.sample(jax.random.key(0)).astype(jnp.float32)
    u = 0.9 * problem.solve(f)
    scale = jnp.float32(size)
    assert float(problem.relative_residual(scale * f, scale * u)) == pytest.approx(0.1, rel=1e-3)
    slope = jax.grad(lambda u: problem.relative_residual(scale * f, u))(scale * u)
    assert np.isfinite(slope).all()
    assert np.abs(slope).max() > 0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_noise_of_a_rollout_is_relative_to_the_field(size):
    """The error that the noise makes, over the field, is the same at every size."""
    from neuralops.data import Samples

    objective = losses.rollout(1, losses.relative_l2, noise=0.1)
    values = [
        float(objective(lambda u: u, Samples(s * TARGET[None], s * TARGET[None]), key=jax.random.key(0)))
        for s in (np.float32(1), np.float32(size))
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert values[0] == pytest.approx(0.1, rel=0.2)
