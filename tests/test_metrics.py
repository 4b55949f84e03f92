"""Metrics against plain NumPy, closed forms and the identities that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses, metrics
from neuralops.grid import Grid


@pytest.fixture
def pair():
    rng = np.random.default_rng(3)
    t = rng.normal(size=(2, 8, 6)) * np.array([1.0, 50.0])[:, None, None] + 3
    return t + rng.normal(size=t.shape), t


def test_pointwise_metrics_equal_their_formulas(x64, pair):
    p, t = pair
    e = p - t
    rms = lambda u: np.sqrt((u**2).mean((1, 2)))
    deviation = t.std((1, 2))
    assert float(metrics.nrmse(p, t)) == pytest.approx(np.mean(rms(e) / rms(t)), rel=1e-10)
    assert float(metrics.vrmse(p, t)) == pytest.approx(np.mean(rms(e) / deviation), rel=1e-10)
    assert float(metrics.max_error(p, t)) == np.abs(e).max()
    assert float(metrics.relative_l2(p, t)) == pytest.approx(np.linalg.norm(e) / np.linalg.norm(t), rel=1e-10)


def test_predicting_the_mean_scores_one_in_vrmse(x64, pair):
    _, t = pair
    weights = np.random.default_rng(0).uniform(0.5, 1, (8, 6))
    plain = np.broadcast_to(t.mean((1, 2), keepdims=True), t.shape)
    weighted = np.broadcast_to((t * weights).sum((1, 2), keepdims=True) / weights.sum(), t.shape)
    assert float(metrics.vrmse(plain, t)) == pytest.approx(1, rel=1e-10)
    assert float(metrics.vrmse(weighted, t, weights=weights)) == pytest.approx(1, rel=1e-10)
    mask = np.zeros((8, 6), bool)
    mask[:3] = True
    part = np.broadcast_to(t[:, :3].mean((1, 2), keepdims=True), t.shape)
    assert float(metrics.vrmse(part, np.where(mask, t, np.nan), mask=mask)) == pytest.approx(1, rel=1e-10)


def test_the_boundary_is_the_rim_of_the_axes_that_have_one(x64, pair):
    p, t = pair
    e = p - t
    rim = np.ones((8, 6), bool)
    rim[1:-1, 1:-1] = False
    rms = lambda chosen: np.sqrt((e[:, chosen] ** 2).mean())
    assert float(metrics.boundary_error(p, t)) == pytest.approx(rms(rim), rel=1e-12)
    grid = Grid((8, 6), boundary=("neumann", "periodic"))
    ends = np.zeros((8, 6), bool)
    ends[[0, -1]] = True
    assert float(metrics.boundary_error(p, t, grid=grid)) == pytest.approx(rms(ends), rel=1e-12)
    mask = np.zeros((8, 6), bool)
    mask[:5, :5] = True
    assert float(metrics.boundary_error(p, t, grid=grid, mask=mask)) == pytest.approx(rms(ends & mask), rel=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann")])
@pytest.mark.parametrize("centering", ["node", "cell"])
def test_the_bands_add_up_to_the_relative_l2_error(x64, boundary, centering):
    grid = Grid((12, 9), (1.0, 3.0), (boundary, "periodic"), centering)
    p, t = np.random.default_rng(0).normal(size=(2, 2, 12, 9))
    bands = [float(metrics.spectral_error(p, t, grid=grid, band=band, edges=(2, 4))) for band in metrics.BANDS]
    whole = float(metrics.relative_l2(p, t, weights=grid.weights()))
    assert all(band > 0 for band in bands)
    assert np.hypot.reduce(bands) == pytest.approx(whole, rel=1e-10)


def test_a_wave_falls_in_its_own_band(x64):
    grid = Grid((32, 32))
    x, y = grid.coordinates()
    t = np.cos(2 * np.pi * x)[None]
    for k, band in ((3, "low"), (4, "mid"), (11, "mid"), (12, "high")):
        p = t + 0.5 * np.cos(2 * np.pi * k * y)[None]
        for name in metrics.BANDS:
            expected = 0.5 if name == band else 0.0
            assert float(metrics.spectral_error(p, t, grid=grid, band=name)) == pytest.approx(expected, abs=1e-10)
    p = t + 0.5 * (np.cos(2 * np.pi * 3 * x) * np.cos(2 * np.pi * 3 * y))[None]  # wavenumber sqrt(18) > 4
    assert float(metrics.spectral_error(p, t, grid=grid, band="mid")) == pytest.approx(0.5 / np.sqrt(2), abs=1e-10)


def test_zero_and_constant_targets_are_defined(x64):
    zero, one = np.zeros((1, 4)), np.ones((1, 4))
    for metric in (metrics.nrmse, metrics.vrmse):
        assert float(metric(zero, zero)) == 0
        assert float(metric(one, zero, eps=0.5)) == pytest.approx(2, rel=1e-12)
    assert float(metrics.vrmse(2 * one, one, eps=0.5)) == pytest.approx(2, rel=1e-12)


def test_masked_points_do_not_count():
    p, t = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    mask = np.ones((6, 6), bool)
    mask[2, 0], mask[3, 3] = False, False
    spoiled = np.where(mask, p, np.nan), np.where(mask, t, np.inf)
    for metric in (metrics.nrmse, metrics.vrmse, metrics.max_error, metrics.boundary_error):
        assert float(metric(*spoiled, mask=mask)) == float(metric(p, t, mask=mask))
        assert np.isfinite(float(metric(p, t, mask=mask)))


def test_metrics_batch_and_jit_as_they_are():
    grid = Grid((8,))
    p, t = np.random.default_rng(0).normal(size=(2, 4, 1, 8)).astype(np.float32)
    for metric in (metrics.vrmse, metrics.max_error, metrics.Bound(metrics.spectral_error, grid=grid, band="low")):
        np.testing.assert_allclose(
            jax.jit(jax.vmap(metric))(p, t), [float(metric(a, b)) for a, b in zip(p, t, strict=True)], rtol=1e-6
        )


def test_losses_are_metrics():
    assert metrics.relative_l2 is losses.relative_l2
    assert metrics.relative_h1 is losses.relative_h1


U = jnp.zeros((1, 4, 4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.boundary_error(U, U, grid=Grid((4, 4))), "grid: expected an axis with a boundary"),
        (lambda: metrics.boundary_error(U, U, grid=Grid((5, 4), boundary="neumann")), "expected a field on the grid"),
        (lambda: metrics.spectral_error(U, U, grid=Grid((4, 4)), band="all"), "band: expected one of"),
        (lambda: metrics.spectral_error(U, U, grid=Grid((4, 4)), band="low", edges=(4, 1)), "edges: expected two"),
        (lambda: metrics.max_error(U, U[:, :2]), "prediction: expected the shape of target"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
