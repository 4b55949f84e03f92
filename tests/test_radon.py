"""The Radon transform against exact line integrals, scikit-image and plain loops; phantoms; back-projection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.inverse import Ellipses, random_ellipses, shepp_logan
from neuralops.inverse.maps import FilteredBackProjection, Radon, half_turn

ANGLES = np.array([0.0, 0.3, np.pi / 4, 1.2, np.pi / 2, 2.0, 3 * np.pi / 4, 3.0, 4.5, -1.0])


def pixels(n, extent=2.0):
    return Grid((n, n), extent, centering="cell")


def relative(found, expected):
    return float(np.linalg.norm(np.asarray(found) - expected) / np.linalg.norm(expected))


def bump(grid, radon):
    """A Gaussian off the middle and its line integrals."""
    middle, width = np.array([0.2, -0.1]), 0.02
    away = grid.coordinates() - np.asarray(grid.domain_extent).reshape(2, 1, 1) / 2 - middle.reshape(2, 1, 1)
    theta = np.asarray(radon.angles)[:, None]
    s = radon.positions - middle[0] * np.cos(theta) - middle[1] * np.sin(theta)
    image = np.exp(-np.sum(away**2, axis=0) / width)
    return jnp.asarray(image)[None], np.sqrt(np.pi * width) * np.exp(-(s**2) / width)[None]


@pytest.mark.parametrize("shape", [(1, 1), (1, 1.5)])
def test_second_order_for_smooth_images(x64, shape):
    """Square pixels and oblong ones, rays that meet the rows of either axis, from both ends."""
    errors = []
    for n in (48, 96):
        grid = Grid((n * shape[0], int(n * shape[1])), 2.0, centering="cell")
        radon = Radon(grid, ANGLES, 40, 0.05)
        image, exact = bump(grid, radon)
        errors.append(relative(radon(image), exact))
    assert errors[1] < 4e-3
    assert 3.5 < errors[0] / errors[1] < 4.7


def test_first_order_for_ellipses(x64):
    """Of anti-aliased pixels with edges, in the 2-norm."""
    phantom, errors = shepp_logan(2.0), []
    for n in (32, 64, 128):
        radon = Radon(pixels(n), half_turn(40), 64, 2 / 64)
        errors.append(relative(radon(phantom.image(radon.grid, 4)), np.asarray(phantom.sinogram(radon))))
    assert errors[-1] < 0.03
    assert np.log2(errors[0] / errors[2]) / 2 > 0.9


def test_lengths_are_in_the_units_of_the_box(x64):
    """A square of ones is crossed over 6 and 8 units along its axes, over 6 / sin at an angle."""
    grid = Grid((30, 40), (6.0, 8.0), centering="cell")
    radon = Radon(grid, [0.0, np.pi / 2, 1.4], 5, 0.1)
    y = np.asarray(radon(jnp.ones((1, 30, 40))))[0]
    np.testing.assert_allclose(y[0], 8.0, rtol=1e-5)  # theta = 0: rays along the second axis, where the first is s
    np.testing.assert_allclose(y[1], 6.0, rtol=1e-5)
    np.testing.assert_allclose(y[2], 6.0 / np.sin(1.4), rtol=1e-5)
    np.testing.assert_allclose(np.ptp(radon.positions), 0.4)


def test_a_ray_past_the_image_sees_nothing(x64):
    radon = Radon(Grid((8, 8), centering="cell"), half_turn(7), 61, 0.1)
    y = np.asarray(radon(jnp.ones((1, 8, 8))))[0]
    assert not np.any(y[:, np.abs(radon.positions) > 0.9])
    assert np.all(y[:, np.abs(radon.positions) < 0.4] > 0)


def test_joseph_by_hand(x64):
    """Every weight of the dense matrix against the definition, in plain loops."""
    grid = Grid((5, 4), (1.0, 0.6), centering="cell")
    radon = Radon(grid, [0.4, 1.5, 2.9, 4.0], 7, 0.12)
    x, y, middle = grid.points(0), grid.points(1), np.asarray(grid.domain_extent) / 2
    expected = np.zeros((4, 7, 5, 4))
    for a, theta in enumerate(radon.angles):
        cos, sin = np.cos(theta), np.sin(theta)
        for k, s in enumerate(radon.positions):
            rows_first = abs(cos) * grid.spacing[0] <= abs(sin) * grid.spacing[1]
            for i in range(5):
                for j in range(4):
                    if rows_first:
                        place = (s - (x[i] - middle[0]) * cos) / sin + middle[1]
                        share, length = 1 - abs(place - y[j]) / grid.spacing[1], grid.spacing[0] / abs(sin)
                    else:
                        place = (s - (y[j] - middle[1]) * sin) / cos + middle[0]
                        share, length = 1 - abs(place - x[i]) / grid.spacing[0], grid.spacing[1] / abs(cos)
                    expected[a, k, i, j] = max(share, 0) * length
    np.testing.assert_allclose(np.asarray(radon.as_matrix()), expected.reshape(28, 20), atol=1e-7)


def test_scikit_image_agrees_to_its_discretisation_error():
    """Its angles are in degrees, its pixels of side 1, its axis of rotation at pixel n // 2; odd n is our middle."""
    transform = pytest.importorskip("skimage.transform")
    differences, theirs, ours = [], [], []
    theta = np.arange(0, 180, 10.0)
    for n in (33, 65, 129):
        grid = Grid((n, n), float(n), centering="cell")
        radon = Radon(grid, np.pi / 2 + np.deg2rad(theta), n, 1.0)  # theirs sums over rows first
        away = (grid.coordinates() - n / 2) / n
        image = np.exp(-((away[0] - 0.1) ** 2 + (away[1] + 0.05) ** 2) / 0.01).astype(np.float32)
        image *= np.hypot(*away) < 0.45  # theirs warns of more
        s = radon.positions[:, None] / n + 0.1 * np.sin(np.deg2rad(theta)) + 0.05 * np.cos(np.deg2rad(theta))
        exact = np.sqrt(np.pi * 0.01) * n * np.exp(-(s**2) / 0.01)
        found, reference = np.asarray(radon(jnp.asarray(image)[None]))[0].T, transform.radon(image, theta, circle=True)
        differences.append(relative(found, reference))
        theirs.append(relative(reference, exact))
        ours.append(relative(found, exact))
    assert differences[-1] < 4e-3
    assert np.log2(differences[0] / differences[2]) / 2 > 1.7
    assert ours[-1] < 1.2 * theirs[-1]


@pytest.mark.slow
def test_back_projection_converges_to_the_image(x64):
    phantom, errors = shepp_logan(2.0), []
    for n in (32, 64, 128):
        radon = Radon(pixels(n), half_turn(2 * n), n, 2 / n)
        inverse = FilteredBackProjection(radon)
        errors.append(relative(inverse(phantom.sinogram(radon)), np.asarray(phantom.image(radon.grid, 8))))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.15


def test_back_projection_of_a_smooth_image_and_windows(x64):
    radon = Radon(pixels(64), half_turn(120), 90, 2 / 64)
    image, exact = bump(radon.grid, radon)
    error = {w: relative(FilteredBackProjection(radon, w)(jnp.asarray(exact)), np.asarray(image)) for w in
             ("ramp", "shepp-logan", "cosine", "hann")}  # fmt: skip
    assert error["ramp"] < 0.02
    assert error["ramp"] < error["shepp-logan"] < error["cosine"] < error["hann"] < 0.2


def test_angles_need_not_be_equidistant(x64):
    """Denser on one side: weights by the gaps keep the level."""
    theta = np.concatenate([np.linspace(0, 1, 90, endpoint=False), np.linspace(1, np.pi, 60, endpoint=False)])
    radon = Radon(pixels(48), theta[np.random.default_rng(0).permutation(150)], 70, 2 / 48)
    image, exact = bump(radon.grid, radon)
    assert relative(FilteredBackProjection(radon)(jnp.asarray(exact)), np.asarray(image)) < 0.03


def test_scikit_image_reconstructs_alike():
    transform = pytest.importorskip("skimage.transform")
    n, theta = 65, np.arange(0, 180, 2.0)
    grid = Grid((n, n), float(n), centering="cell")
    radon = Radon(grid, np.pi / 2 + np.deg2rad(theta), n, 1.0)
    phantom = Ellipses(jnp.full((1, 2), n / 2), jnp.asarray([[[18.0, 3.0], [0.0, 12.0]]]), jnp.ones(1))
    y = phantom.sinogram(radon)
    theirs = transform.iradon(np.asarray(y)[0].T, theta, filter_name="ramp", circle=True)
    ours = np.asarray(FilteredBackProjection(radon)(y))[0]
    inside = np.hypot(*(grid.coordinates() - n / 2)) < n / 2 - 2
    assert relative(ours[inside], theirs[inside]) < 0.03


@pytest.mark.slow
def test_line_integrals_of_a_phantom_have_its_mass(x64):
    """Over all rays of an angle they add up to the area integral, and so do the pixels."""
    phantom = random_ellipses(jax.random.key(3), (2.0, 3.0))
    grid = Grid((80, 120), (2.0, 3.0), centering="cell")
    radon = Radon(grid, [0.0, 0.7, 2.0], 4000, 0.001)
    mass = np.sum(np.asarray(phantom.values) * np.pi * np.abs(np.linalg.det(np.asarray(phantom.shapes))))
    np.testing.assert_allclose(np.sum(phantom.sinogram(radon), axis=2)[0] * 0.001, mass, rtol=1e-4)
    np.testing.assert_allclose(np.sum(phantom.image(grid)) * grid.cell_volume, mass, rtol=1e-3)


def test_random_phantoms_are_pictures_in_the_range(x64):
    grid = Grid((48, 48), centering="cell")
    images = jax.jit(jax.vmap(lambda key: random_ellipses(key).image(grid)))(jax.random.split(jax.random.key(0), 40))
    images = np.asarray(images)
    assert images.min() > -1e-12
    assert images.max() < 1 + 1e-12
    assert not np.any(images[:, :, [0, -1]]) | np.any(images[:, :, :, [0, -1]])  # nothing at the edge
    assert images.std(axis=0).max() > 0.1  # they differ
    contrast = images.reshape(40, -1)
    assert np.median(contrast.max(axis=1)) > 0.6


def test_the_head_phantom_is_that_of_scikit_image():
    """Theirs is a picture of 400 pixels a side, drawn for [-1, 1]^2."""
    data = pytest.importorskip("skimage.data")
    theirs = data.shepp_logan_phantom()
    ours = np.asarray(shepp_logan().image(Grid((400, 400), centering="cell")))[0]
    differ = lambda shift: np.mean(np.abs(np.roll(ours, shift, (0, 1)) - theirs) > 0.02)
    assert differ((0, 0)) < 0.02  # edges, which theirs draws without anti-aliasing
    assert differ((0, 0)) < min(differ(shift) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))
