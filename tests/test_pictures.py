"""Pictures inside packages against the packages' own loaders; PSNR and SSIM against scikit-image."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.metrics
import sklearn.datasets

from neuralops import data, metrics
from neuralops.data import pictures


def test_every_picture_is_there_offline_and_in_range():
    for name in pictures.NAMES:
        x = pictures.picture(name)
        assert x.dtype == np.float32
        assert x.ndim == 3
        assert x.shape[0] == 1
        assert min(x.shape[1:]) >= 172
        assert 0 <= x.min() < x.max() <= 1


def test_pictures_are_those_of_the_packages():
    theirs = skimage.color.rgb2gray(skimage.data.astronaut())
    assert np.allclose(pictures.picture("astronaut")[0], theirs, atol=1e-6)
    assert np.allclose(np.moveaxis(pictures.picture("coffee", colour=True), 0, -1), skimage.data.coffee() / 255)
    assert np.allclose(pictures.picture("camera", colour=True)[2], skimage.data.camera() / 255)
    china = sklearn.datasets.load_sample_images().images[0]
    assert np.allclose(np.moveaxis(pictures.picture("china", colour=True), 0, -1), china / 255)
    images, labels = pictures.digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.max() == 1
    assert np.array_equal(labels, sklearn.datasets.load_digits().target)
    data.Samples(images, labels[:, None].astype("f4"))


def test_a_split_is_by_picture():
    train, validation, test = pictures.split(num_test=5, num_validation=3, seed=1)
    assert (len(test), len(validation)) == (5, 3)
    assert sorted((*train, *validation, *test)) == list(pictures.NAMES)
    assert pictures.split(num_test=5, num_validation=3, seed=1)[2] == test
    assert pictures.split(num_test=5, num_validation=3, seed=2)[2] != test


def test_patches_are_cut_from_their_pictures():
    names = ("coins", "text")
    x = pictures.patches(names, (20, 24), 9, seed=3, flips=False)
    assert x.shape == (9, 1, 20, 24)
    for k, patch in enumerate(x[:, 0]):
        whole = pictures.picture(names[k % 2])[0]
        windows = np.lib.stride_tricks.sliding_window_view(whole, patch.shape)
        assert (windows[:, :, 0, 0] == patch[0, 0]).any()
        at = np.argwhere((windows[:, :, 0, :8] == patch[0, :8]).all(-1))
        assert any(np.array_equal(windows[i, j], patch) for i, j in at)
    assert np.array_equal(x, pictures.patches(names, (20, 24), 9, seed=3, flips=False))
    assert not np.array_equal(x, pictures.patches(names, (20, 24), 9, seed=4, flips=False))
    turned = pictures.patches(names, 20, 40, seed=3)
    assert turned.shape == (40, 1, 20, 20)
    assert not np.array_equal(turned, pictures.patches(names, 20, 40, seed=3, flips=False))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"neuralops-jax\[pictures\]"):
        pictures.picture("coins")


@pytest.mark.parametrize("shape", [(1, 32, 27), (3, 20, 24), (1, 40), (1, 12, 13, 14)])
def test_psnr_and_ssim_are_those_of_scikit_image(x64, shape):
    ssim = jax.jit(metrics.ssim, static_argnames="data_range")
    random = np.random.default_rng(0)
    t = np.clip(random.uniform(size=shape).cumsum(-1) / shape[-1], 0, 1)
    p = np.clip(t + 0.1 * random.normal(size=shape), 0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = lambda p, t, span: skimage.metrics.structural_similarity(p, t, data_range=span, channel_axis=0, **options)
    assert float(ssim(p, t)) == pytest.approx(theirs(p, t, 1.0), abs=1e-10)
    assert float(ssim(200 * p, 200 * t, data_range=255)) == pytest.approx(theirs(200 * p, 200 * t, 255.0))
    assert float(metrics.psnr(p, t)) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(t, p, data_range=1))
    single = float(jax.vmap(ssim)(jnp.asarray(p, jnp.float32)[None], jnp.asarray(t, jnp.float32)[None])[0])
    assert single == pytest.approx(theirs(p, t, 1.0), abs=1e-5)
    assert ssim(t, t) == pytest.approx(1)
    assert metrics.psnr(t, t) == np.inf


def test_ssim_of_large_means_in_single_precision():
    random = np.random.default_rng(1)
    t, noise = random.uniform(size=(1, 20, 20)), 0.1 * random.normal(size=(1, 20, 20))
    with jax.enable_x64(True):
        wanted = float(metrics.ssim(t + noise + 1000, t + 1000, data_range=1.0))
    found = float(metrics.ssim(np.float32(t + noise + 1000), np.float32(t + 1000), data_range=1.0))
    assert found == pytest.approx(wanted, abs=1e-3)


def test_psnr_with_a_mask():
    t, p = np.zeros((1, 4, 4), np.float32), np.full((1, 4, 4), 0.1, np.float32)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    p[0, 2:] = np.nan
    assert float(metrics.psnr(p, t, mask=mask)) == pytest.approx(20, abs=1e-4)
    assert float(metrics.psnr(p * 10, t, mask=mask, data_range=10.0)) == pytest.approx(20, abs=1e-4)
