"""Relative quantities do not know the unit: fields of size 1e-30 to 1e30 in float32 give what fields of size 1 give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses, metrics
from neuralops.data import Normalizer
from neuralops.grid import Grid
from neuralops.training import baselines

SIZES = (1e-30, 1e-20, 1e-12, 1e7, 1e20, 1e30)
GRID = Grid((9, 8), (1.0, 2.0), ("neumann", "periodic"))
RNG = np.random.default_rng(0)
P, T = RNG.normal(size=(2, 2, 9, 8)).astype(np.float32)
MASK = RNG.uniform(size=(9, 8)) < 0.8
WEIGHTS = GRID.weights()
NANO = 1e-60 * WEIGHTS  # quadrature weights of a tiny box, below float32

BLOCKS = {
    "l2": (losses.l2(), losses.l2(per_channel=True), losses.l2(mask=MASK), losses.l2(weights=NANO, mask=MASK)),
    "h1": (losses.h1(GRID), losses.h1(GRID, weights=WEIGHTS, mask=MASK, per_channel=True)),
    "waves": (
        losses.h1(GRID, derivative="spectral"),
        losses.fourier_h1(per_channel=True),
        losses.fourier_h1(max_wavenumber=2),
        metrics.Bound(metrics.spectral_error, grid=GRID, band="low", edges=(2, 4)),
    ),
    "metrics": (
        metrics.nrmse,
        metrics.vrmse,
        losses.Bound(metrics.nrmse, mask=MASK),
        losses.Bound(metrics.vrmse, mask=MASK, weights=WEIGHTS),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_relative_errors_and_their_gradients_do_not_know_the_unit(name):
    @jax.jit
    def run(p, t):
        return [jax.value_and_grad(loss)(p, t) for loss in BLOCKS[name]]

    plain = run(P, T)
    for size in SIZES:
        for (value, gradient), (one, slope) in zip(run(size * P, np.float32(size) * T), plain, strict=True):
            assert float(value) == pytest.approx(float(one), rel=1e-5)
            assert np.abs(slope).max() > 0
            np.testing.assert_allclose(np.asarray(gradient, np.float64) * size, slope, rtol=1e-4, atol=1e-6)


def test_the_value_at_an_awkward_size_is_that_of_double_precision():
    p, t = np.float32(1e-20) * P, np.float32(1e-20) * T
    exact = np.linalg.norm(p.astype(float) - t) / np.linalg.norm(t.astype(float))
    assert float(losses.relative_l2(p, t)) == pytest.approx(exact, rel=1e-6)
    weighted = [np.sqrt((u.astype(float) ** 2 * WEIGHTS).sum()) for u in (p - t, t)]
    assert float(losses.relative_l2(p, t, weights=NANO)) == pytest.approx(weighted[0] / weighted[1], rel=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_errors_with_a_unit_scale_with_it(size):
    for metric in (metrics.boundary_error, metrics.max_error, losses.mae):
        for mask in (None, MASK):
            value, slope = jax.value_and_grad(metric)(np.float32(size) * P, np.float32(size) * T, mask=mask)
            one, plain = jax.value_and_grad(metric)(P, T, mask=mask)
            assert float(value) / size == pytest.approx(float(one), rel=1e-5)
            np.testing.assert_allclose(slope, plain, rtol=1e-4, atol=1e-6)


def test_eps_is_in_the_unit_of_the_field():
    zero = np.zeros_like(T)
    for size in SIZES:
        p, t = np.float32(size) * P, np.float32(size) * T
        rms = lambda u: np.sqrt(np.mean(np.square(u.astype(float))))
        for eps in (1e-35, 0.1 * size, 1e35):
            expected = rms(p - t) / (rms(t) + eps)
            assert float(losses.relative_l2(p, t, eps=eps)) == pytest.approx(expected, rel=1e-5, abs=1e-37)
            assert float(losses.relative_l2(zero, zero, eps=eps)) == 0
            if rms(p) / eps < 1e38:
                assert float(losses.relative_l2(p, zero, eps=eps)) == pytest.approx(rms(p) / eps, rel=1e-5, abs=1e-37)


def test_a_zero_target_gives_infinity_or_zero_and_no_nan():
    zero = jnp.zeros((2, 9, 8), jnp.float32)
    for loss in (losses.l2(), losses.l2(per_channel=True), metrics.vrmse, losses.h1(GRID), losses.fourier_h1()):
        for p, expected in ((P, np.inf), (zero, 0.0)):
            value, slopes = jax.value_and_grad(loss, (0, 1))(p, zero)
            assert float(value) == expected
            np.testing.assert_array_equal(slopes[0], 0)
            np.testing.assert_array_equal(slopes[1], 0)


def test_a_bad_eps_is_refused():
    for eps in (-1e-3, "small", np.nan, True):
        with pytest.raises(ValueError, match="eps: expected None or a number"):
            losses.relative_l2(P, T, eps=eps)


@pytest.mark.parametrize("size", SIZES)
def test_normalisation_in_any_unit(size):
    x = (np.float32(size) * (3 + RNG.normal(size=(6, 2, 7)))).astype(np.float32)
    fitted = Normalizer.fit(x)
    double = x.astype(float)
    np.testing.assert_allclose(fitted.std, double.std((0, 2)), rtol=1e-12)
    scaled = fitted.encode(x)
    expected = (double - double.mean((0, 2), keepdims=True)) / double.std((0, 2), keepdims=True)
    np.testing.assert_allclose(scaled, expected, atol=3e-6)
    np.testing.assert_allclose(fitted.decode(scaled), x, rtol=1e-5, atol=1e-6 * size)


def test_half_precision_fields_take_statistics_beyond_their_range():
    normalizer = Normalizer((1e-9,), (1e-9,), 1)
    decoded = normalizer.decode(jnp.ones((1, 4), jnp.bfloat16))
    assert decoded.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(decoded, float), 2e-9, rtol=1e-2)
    big = Normalizer((0.0,), (1e6,), 1).encode(jnp.full((1, 4), 6e4, jnp.float16))  # 1e6 is infinite in float16
    np.testing.assert_allclose(np.asarray(big, float), 0.06, rtol=1e-3)


@pytest.mark.parametrize(("left", "right"), [(1e-30, 1e30), (1e30, 1e-30), (1e-20, 1.0)])
def test_baselines_in_any_unit(left, right):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(12, 1, 6)).astype(np.float32)
    y = np.einsum("ij,ncj->nci", rng.normal(size=(6, 6)), x).astype(np.float32)
    u = x[:5] + 0.05 * rng.normal(size=(5, 1, 6)).astype(np.float32)
    nearest = [y[np.argmin(np.sum((x - v) ** 2, (1, 2)))] for v in u]
    data = np.float32(left) * x, np.float32(right) * y
    found = jax.vmap(baselines.nearest_neighbour(data))(np.float32(left) * u)
    np.testing.assert_allclose(found / np.float32(right), nearest, rtol=1e-5)
    pod = jax.vmap(baselines.linear_pod(data, num_modes=6))(np.float32(left) * x)
    np.testing.assert_allclose(pod / np.float32(right), y, atol=1e-3)  # the map is linear: six modes hold all of it
