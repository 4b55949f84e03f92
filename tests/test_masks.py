"""Masks of single samples in bound losses, metrics over time steps, and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses, metrics
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.grid import Grid
from neuralops.training import evaluate

RNG = np.random.default_rng(0)
P, T = RNG.normal(size=(2, 6, 5)).astype(np.float32)
ONE, TWO = np.arange(5) != 1, np.arange(5) != 3


def rel(p, t, inside=slice(None)):
    return np.linalg.norm((p - t)[..., inside]) / np.linalg.norm(t[..., inside])


def test_a_mask_per_sample_joins_the_bound_one():
    for loss, inside in ((losses.l2(), TWO), (losses.l2(mask=ONE), ONE & TWO)):
        bad = np.where(inside, P, np.nan)
        assert float(loss(bad, T, mask=TWO)) == pytest.approx(rel(P, T, inside), rel=1e-6)
        assert np.isfinite(jax.grad(loss)(bad, T, mask=TWO)).all()
    per_channel = np.broadcast_to(TWO, (6, 5))
    assert float(losses.l2(mask=ONE)(P, T, mask=per_channel)) == pytest.approx(rel(P, T, ONE & TWO), rel=1e-6)


def test_takes_mask_reads_the_signature():
    grid = Grid((5,))
    assert all(map(losses.takes_mask, (losses.mse, losses.l2(), losses.h1(grid), metrics.max_error)))
    assert losses.takes_mask(metrics.per_step(losses.l2(), 2))
    plain = lambda p, t: jnp.sum(p - t)
    wide = lambda p, t, **options: jnp.sum(p - t)
    for function in (plain, wide, losses.Bound(plain), metrics.per_step(plain, 2), max):
        assert not losses.takes_mask(function)
    spectral = losses.h1(grid, derivative="spectral"), losses.Bound(metrics.spectral_error, grid=grid, band="low")
    for loss in (losses.Bound(plain), metrics.per_step(plain, 2), losses.fourier_h1(), *spectral):
        with pytest.raises(ValueError, match="mask"):
            loss(P, T, mask=ONE)


def test_masked_arrays_and_wrong_masks_are_refused():
    hidden = np.ma.masked_array(P, P > 0)
    with pytest.raises(ValueError, match=r"filled\(0\)"):
        losses.relative_l2(hidden, T)
    with pytest.raises(ValueError, match=r"filled\(0\)"):
        Normalizer.fit(hidden[None])
    with pytest.raises(ValueError, match="mask: expected truth values"):
        losses.l2(mask=ONE)(P, T, mask=np.ones(4, bool))


def test_errors_of_each_step_and_the_time_they_stay_small():
    steps = metrics.per_step(metrics.relative_l2, 3)
    frames = P.reshape(3, 2, 5), T.reshape(3, 2, 5)
    np.testing.assert_allclose(steps(P, T), [rel(*pair) for pair in zip(*frames, strict=True)], rtol=1e-6)
    expected = [rel(*pair, TWO) for pair in zip(*frames, strict=True)]
    np.testing.assert_allclose(steps(np.where(TWO, P, np.nan), T, mask=TWO), expected, rtol=1e-6)
    np.testing.assert_allclose(steps(P, T, mask=np.broadcast_to(TWO, P.shape)), expected, rtol=1e-6)
    assert steps == metrics.per_step(metrics.relative_l2, 3) != metrics.per_step(metrics.relative_l2, 2)
    with pytest.raises(ValueError, match="num_steps: expected a divisor"):
        metrics.per_step(metrics.mse, 4)(P, T)


@pytest.mark.parametrize(
    ("errors", "steps"),
    [([0.3, 0, 0], 0), ([0.1, 0.3, 0], 1), ([0.125, 0.1, 0.3], 2), ([0, 0, 0], 3), ([0.1, np.nan, 0], 1)],
)
def test_valid_time(errors, steps):
    truth = np.ones((3, 4), np.float32)
    guess = truth + np.array(errors, np.float32)[:, None]
    time = metrics.valid_time(3, 0.125, dt=0.5)
    assert float(time(guess, truth)) == 0.5 * steps
    mask = np.arange(4) < 2
    assert float(time(np.where(mask, guess, 9), truth, mask=mask)) == 0.5 * steps


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_drift_of_an_energy(size):
    truth = np.array([1.0, 2.0, 0.0, 0.0])[:, None, None] * RNG.normal(size=(4, 2, 5))
    factors = np.array([1.1, 0.5, 0.0, 1.0])
    guess = factors[:, None, None] * truth + np.array([0, 0, 0, 1.0])[:, None, None]
    flat = [(size * u).reshape(8, 5).astype(np.float32) for u in (guess, truth)]
    drift = metrics.energy_drift(4)(*flat)
    np.testing.assert_allclose(drift, [1.1**2 - 1, 0.5**2 - 1, 0, np.inf], rtol=1e-5)
    assert metrics.energy_drift(4) == metrics.energy_drift(4) != metrics.energy_drift(2)


def test_the_drift_of_an_energy_of_two_frames():
    """Oscillators u = a cos(t): kinetic energy from the two frames, potential energy from their mean."""
    t, dt = 0.01 * np.arange(50), 0.01
    truth, guess = (a[:, None] * np.cos(t)[:, None, None] for a in (np.ones(3), np.exp(-0.1 * np.ones(3))))

    def energy(frames):
        before, now = frames
        return jnp.sum(((now - before) / dt) ** 2 + ((now + before) / 2) ** 2)

    with jax.enable_x64(True):
        flat = [u.reshape(50, 3) for u in (guess, truth)]
        drift = metrics.energy_drift(50, energy, frames=2)(*flat)
    assert drift.shape == (49,)
    np.testing.assert_allclose(drift, np.exp(-0.2) - 1, rtol=1e-9)


def test_masked_points_have_no_energy():
    mask = np.arange(5) < 3
    u = RNG.normal(size=(2, 4, 5)).astype(np.float32)
    data = Samples(np.where(mask, u, np.nan), np.where(mask, 2 * u, np.nan), mask=mask)
    drift = evaluate(lambda u: 4 * u, data, metrics={"drift": metrics.energy_drift(2)})["drift"]
    np.testing.assert_allclose(drift, np.full((2, 2), 3.0), rtol=1e-5)


@pytest.mark.parametrize("words", ["num_steps", "threshold", "dt", "metric"])
def test_bad_options_of_valid_time(words):
    with pytest.raises(ValueError, match=f"{words}: expected"):
        metrics.valid_time(**{"num_steps": 3, "threshold": 0.1, words: -1})


@pytest.mark.parametrize("shape", [(7, 4, 3), (4, 3)])
def test_statistics_of_the_points_that_count(shape):
    x = RNG.normal(size=(7, 2, 4, 3)).astype(np.float32) + 5
    mask = RNG.uniform(size=shape) < 0.6
    column = np.broadcast_to(mask, (7, 4, 3))
    values = np.moveaxis(x, 1, 0)[:, column].astype(float)
    fitted = Normalizer.fit(np.where(column[:, None], x, np.nan), mask=mask)
    np.testing.assert_allclose(fitted.mean, values.mean(1), rtol=1e-12)
    np.testing.assert_allclose(fitted.std, values.std(1), rtol=1e-12)
    encoded = fitted.encode(np.where(column[:, None], x, np.nan), mask)
    np.testing.assert_array_equal(np.moveaxis(encoded, 1, 0)[:, ~column], 0)
    np.testing.assert_allclose(np.moveaxis(encoded, 1, 0)[:, column].mean(1), 0, atol=1e-5)
    decoded = fitted.decode(encoded, mask)
    np.testing.assert_allclose(decoded, np.where(column[:, None], x, 0), rtol=1e-5)
    slope = jax.grad(lambda u: fitted.encode(u, mask).sum())(jnp.where(column[:, None], x, jnp.nan))
    assert np.isfinite(slope).all()
    with pytest.raises(ValueError, match="NaN or infinity"):
        Normalizer.fit(np.where(column[:, None], np.nan, x), mask=mask)
    with pytest.raises(ValueError, match="a point that counts"):
        Normalizer.fit(x, mask=np.zeros_like(mask))
    with pytest.raises(ValueError, match="mask: expected truth values"):
        Normalizer.fit(x, mask=mask[..., :2])


def test_normalized_masks_its_input_for_any_operator():
    scale = Normalizer((2.0,), (4.0,), 1)
    u = np.array([[6.0, np.nan, 10.0]], np.float32)
    mask = np.array([True, False, True])
    plain = Normalized(lambda v: 3 * v, scale)
    naming = Normalized(lambda v, *, mask, shift=0.0: v + 10 * ~mask + shift, scale)
    np.testing.assert_array_equal(plain(u, mask=mask), [[3, 0, 6]])
    np.testing.assert_array_equal(naming(u, mask=mask, shift=1.0), [[2, 11, 3]])
    np.testing.assert_array_equal(Normalized(lambda v: v)(u, mask=mask), [[6, 0, 10]])
    assert "mask" in plain.keywords
    assert naming.keywords == {"mask"}  # of those that are a contract
    assert Normalized(naming).keywords == naming.keywords
