"""Proximal maps against SciPy, scikit-image, PyWavelets and the definition of a proximal map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
import scipy.optimize
from skimage.restoration import denoise_tv_chambolle

from neuralops.inverse import L1, L2, Box, TotalVariation, Wavelets

RANDOM = np.random.default_rng(5)


def smooth_total_variation(x, kind, eps):
    """By plain NumPy, rounded at zero, for a solver that needs derivatives; value and gradient."""
    steps = [np.diff(x, axis=a, append=np.take(x, [-1], axis=a)) for a in range(1, x.ndim)]
    if kind == "anisotropic":
        sizes = [np.sqrt(s**2 + eps**2) for s in steps]
        total, flux = sum(s.sum() for s in sizes), [s / r for s, r in zip(steps, sizes, strict=True)]
    else:
        size = np.sqrt(sum(s**2 for s in steps) + eps**2)
        total, flux = size.sum(), [s / size for s in steps]
    slope = np.zeros_like(x)
    for a, f in zip(range(1, x.ndim), flux, strict=True):
        slope -= f
        slope += np.roll(f, 1, axis=a)  # the last difference is zero, so nothing wraps around
    return total, slope


@pytest.mark.parametrize("kind", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("shape", [(1, 13), (2, 6, 5), pytest.param((1, 4, 3, 5), marks=pytest.mark.slow)])
def test_total_variation_is_what_scipy_minimises(x64, shape, kind):
    y, weight, eps = RANDOM.normal(size=shape), 0.4, 1e-7

    def loss(v):
        x = v.reshape(shape)
        total, slope = smooth_total_variation(x, kind, eps)
        return 0.5 * ((x - y) ** 2).sum() + weight * total, ((x - y) + weight * slope).ravel()

    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 60}
    wanted = scipy.optimize.minimize(loss, y.ravel(), jac=True, method="L-BFGS-B", options=options)
    regularizer = TotalVariation(2 * weight, kind=kind, rtol=1e-5, max_steps=20000)
    x = regularizer.prox(jnp.asarray(y), 0.5)
    value = 0.5 * float(jnp.sum((x - y) ** 2)) + 0.5 * float(regularizer.value(x))
    # SciPy's minimum of the rounded problem is above the true one, by less than eps per difference and its own error
    assert value <= wanted.fun + 1e-8
    assert value >= wanted.fun - weight * eps * y.size * (y.ndim - 1) - 1e-3 * (1e-2 + wanted.fun * 1e-2)
    assert np.abs(np.asarray(x) - wanted.x.reshape(shape)).max() < 2e-2


def test_total_variation_is_that_of_scikit_image(x64):
    y = RANDOM.normal(size=(16, 14)) * 0.2 + (np.arange(14) > 6)
    # scikit-image minimises |x - y|^2 / 2 + weight TV on a lattice with the same differences
    wanted = denoise_tv_chambolle(y, weight=0.3, eps=1e-14, max_num_iter=20000)
    x = TotalVariation(0.3, rtol=1e-6, max_steps=5000).prox(jnp.asarray(y)[None], 1.0)[0]
    loss = lambda u: 0.5 * np.sum((u - y) ** 2) + 0.3 * float(TotalVariation().value(jnp.asarray(u)[None]))
    assert loss(np.asarray(x)) <= loss(wanted) + 1e-9
    assert np.abs(np.asarray(x) - wanted).max() < 2e-3


def test_the_tolerance_of_total_variation_is_kept(x64):
    y = jnp.asarray(RANDOM.normal(size=(1, 12, 12)))
    exact = TotalVariation(0.5, rtol=1e-7, max_steps=20000).prox(y, 1.0)
    spread = jnp.linalg.norm(y - y.mean())
    for rtol in (1e-1, 1e-2, 1e-3):
        x = TotalVariation(0.5, rtol=rtol, max_steps=20000).prox(y, 1.0)
        assert jnp.linalg.norm(x - exact) <= rtol * spread
    assert jnp.linalg.norm(TotalVariation(0.5, rtol=0.0, max_steps=3).prox(y, 1.0) - exact) > 1e-2 * spread


def test_total_variation_of_steps_and_of_constants(x64):
    ones = jnp.ones((3, 4, 5))
    assert TotalVariation(0.7).value(ones) == 0
    assert jnp.allclose(TotalVariation(0.7).prox(ones, 1.0), ones)
    step = jnp.concatenate([jnp.zeros((1, 4)), jnp.ones((1, 6))], 1)
    assert TotalVariation(0.7).value(step) == pytest.approx(0.7)
    # in one dimension a step keeps its place: each side moves by weight / its points
    x = TotalVariation(0.3, rtol=1e-8, max_steps=5000).prox(step, 1.0)
    assert jnp.allclose(x, jnp.where(step > 0, 1 - 0.3 / 6, 0.3 / 4), atol=1e-6)
    assert jnp.isfinite(jax.grad(lambda y: jnp.sum(TotalVariation(0.3).prox(y, 1.0) ** 2))(ones)).all()


def test_total_variation_is_differentiable(x64):
    y = jnp.asarray(RANDOM.normal(size=(1, 5, 4)))
    towards = jnp.asarray(RANDOM.normal(size=y.shape))

    @jax.jit
    def outcome(y, weight):
        return jnp.sum(jnp.sin(TotalVariation(weight, rtol=0.0, max_steps=40).prox(y, 0.7)))

    weight, h = jnp.asarray(0.3), 1e-6
    slope, of_weight = jax.jit(jax.grad(outcome, (0, 1)))(y, weight)
    wanted = (outcome(y + h * towards, weight + h) - outcome(y - h * towards, weight - h)) / (2 * h)
    assert float(jnp.sum(slope * towards) + of_weight) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Level value")  # every coefficient of a small field wraps around
@pytest.mark.parametrize("wavelet", ["haar", "db3", "sym4"])
@pytest.mark.parametrize("shape", [(2, 16), (1, 16, 8), (1, 8, 4, 8)])
def test_wavelets_are_orthonormal_and_those_of_pywavelets(x64, wavelet, shape):
    levels = 2
    regularizer = Wavelets(0.6, wavelet=wavelet, levels=levels)
    x = jnp.asarray(RANDOM.normal(size=shape))
    coarse, details = regularizer.analysis(x)
    assert jnp.allclose(regularizer.synthesis(coarse, details), x, atol=1e-10)
    square = jnp.sum(coarse**2) + sum(jnp.sum(d**2) for d in details)
    assert float(square) == pytest.approx(float(jnp.sum(x**2)), rel=1e-10)  # PyWavelets gives the filters to 1e-12
    axes = tuple(range(1, x.ndim))
    theirs = pywt.wavedecn(np.asarray(x), wavelet, mode="periodization", level=levels, axes=axes)
    magnitudes = lambda arrays: np.sort(np.abs(np.concatenate([np.ravel(a) for a in arrays])))
    assert np.allclose(coarse, theirs[0], atol=1e-10)
    for level, detail in enumerate(details, start=1):
        assert np.allclose(magnitudes([detail]), magnitudes(theirs[-level].values()), atol=1e-10)


def test_the_wavelet_prox_thresholds_in_the_basis(x64):
    regularizer = Wavelets(0.6, wavelet="db2", levels=2)
    y = jnp.asarray(RANDOM.normal(size=(1, 16, 16)))
    coarse, details = regularizer.analysis(y)
    after = regularizer.analysis(regularizer.prox(y, 0.5))
    assert jnp.allclose(after[0], coarse, atol=1e-12)
    for d, e in zip(details, after[1], strict=True):
        assert jnp.allclose(e, jnp.sign(d) * jnp.maximum(jnp.abs(d) - 0.3, 0), atol=1e-12)
    assert float(regularizer.value(y)) == pytest.approx(0.6 * float(sum(jnp.sum(jnp.abs(d)) for d in details)))


@pytest.mark.parametrize(
    "regularizer",
    [
        L1(0.7),
        L2(0.7, mean=0.2),
        Box(-0.3, 0.5),
        TotalVariation(0.5, rtol=1e-8, max_steps=3000),
        Wavelets(0.4, levels=2),
    ],
    ids=lambda r: type(r).__name__,
)
def test_a_proximal_map_is_a_minimum(x64, regularizer):
    y, step = jnp.asarray(RANDOM.normal(size=(1, 8, 8))), 0.6
    x = regularizer.prox(y, step)
    loss = jax.jit(lambda u: 0.5 * jnp.sum((u - y) ** 2) + step * regularizer.value(u))
    least = loss(x)
    for size in (1e-3, 1e-1):
        for _ in range(20):
            assert loss(x + size * jnp.asarray(RANDOM.normal(size=x.shape))) >= least - 1e-10
    assert jnp.isfinite(least)
