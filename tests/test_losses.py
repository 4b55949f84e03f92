"""Losses against closed forms, an independent NumPy form, and numbers produced by neuraloperator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses, transforms
from neuralops.grid import Grid
from neuralops.training import norms


def formula(shape, shift, channels=1):
    """A field that any library can rebuild from its formula."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    slopes = np.array([0.7, 0.4, 0.9][: len(shape)]).reshape(-1, *[1] * len(shape))
    phase = (index * slopes).sum(0)
    return np.stack([np.sin(shift + c + phase) + 0.1 * c * index[0] for c in range(channels)])


# neuraloperator 2.0.0, torch 2.13, float64: H1Loss(d)(p, t) on one channel; H1Loss(d, reduction="mean") and
# LpLoss(d, reduction="mean") on two channels, with p, t = formula(shape, 0.3), formula(shape, 1.0).
PEER = [
    ((7,), "periodic", 0.5296803713854075, 0.6798702226437947, 0.7175055610897902),
    ((7,), "neumann", 0.8122712148771494, 0.7566041479671537, 0.7175055610897902),
    ((6, 5), "periodic", 0.6103706511931641, 0.6900881049468269, 0.7465159574527739),
    ((6, 5), "neumann", 0.7536257088544439, 0.6928669258491793, 0.7465159574527739),
    ((5, 4, 6), "periodic", 0.6722410369329934, 0.6788810531103289, 0.6587089503089885),
    ((5, 4, 6), "neumann", 0.6914527675607003, 0.6805379138567162, 0.6587089503089885),
]


@pytest.mark.parametrize(("shape", "boundary", "one", "two", "plain"), PEER)
def test_the_peer_s_h1_and_l2_to_rounding(x64, shape, boundary, one, two, plain):
    grid = Grid(shape, 1.0, boundary, "cell")  # spacing 1/n, as the peer assumes
    p, t = formula(shape, 0.3, 2), formula(shape, 1.0, 2)
    assert float(losses.relative_h1(p[:1], t[:1], grid=grid)) == pytest.approx(one, rel=1e-7)
    assert float(losses.relative_h1(p, t, grid=grid, per_channel=True)) == pytest.approx(two, rel=1e-7)
    assert float(losses.relative_l2(p, t, per_channel=True)) == pytest.approx(plain, rel=1e-7)


def test_the_peer_s_h1_on_a_box_with_unequal_sides(x64):
    grid = Grid((6, 5), (2.0, 3.0), ("periodic", "neumann"), "cell")
    value = losses.relative_h1(formula((6, 5), 0.3), formula((6, 5), 1.0), grid=grid)
    assert float(value) == pytest.approx(0.584581214138216, rel=1e-7)


BOUNDARIES = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]


@pytest.mark.parametrize("centering", ["node", "cell"])
@pytest.mark.parametrize("num_points", [5, 8])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_mode_shares_add_up_to_the_quadrature(x64, boundary, num_points, centering):
    grid = Grid((num_points, 6), (1.5, 2.0), (boundary, "periodic"), centering)
    u = np.random.default_rng(0).normal(size=(2, *grid.shape))
    squares, _ = norms.modal_squares(jnp.asarray(u), grid)
    mean = (u**2 * grid.weights()).sum((1, 2)) / grid.weights().sum()
    # Dirichlet nodes leave the two zeros at the ends out of the mean but not out of the box.
    if boundary != "periodic" and centering == "node":
        mean = mean * grid.weights().sum() / (1.5 * 2.0)
    np.testing.assert_allclose(np.asarray(squares).sum((1, 2)), mean, rtol=1e-12)


@pytest.mark.parametrize("centering", ["node", "cell"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_spectral_h1_is_the_integral_of_the_series(x64, boundary, centering):
    """Analytic: for sum c_m b_m the H1 norm is sum c_m^2 (1 + k_m^2) |b_m|^2, checked by fine quadrature."""
    extent, n, fine = 1.7, 9, 20000
    rng = np.random.default_rng(1)
    axis = transforms.Axis(n, boundary, centering)
    modes = n - 1
    c, d = rng.normal(size=(2, modes))
    basis = transforms.synthesis_matrix(axis, modes)
    x = (np.arange(fine) + 0.5) / fine
    w = transforms.wavenumbers(boundary, modes)
    low = boundary if isinstance(boundary, str) else boundary[0]
    sine = np.full(modes, low == "dirichlet")
    if boundary == "periodic":
        sine = (np.arange(modes) % 2 == 0) & (np.arange(modes) > 0)
    angle = np.pi * np.outer(x, w)
    values = np.where(sine, np.sin(angle), np.cos(angle))
    slopes = np.where(sine, np.cos(angle), -np.sin(angle)) * np.pi * w / extent

    def norm(c):
        return np.sqrt(np.mean((values @ c) ** 2 + (slopes @ c) ** 2))

    grid = Grid((n,), extent, (boundary,), centering)
    value = losses.relative_h1((basis @ c)[None], (basis @ d)[None], grid=grid, derivative="spectral")
    assert float(value) == pytest.approx(norm(c - d) / norm(d), rel=1e-7)


@pytest.mark.parametrize("boundary", BOUNDARIES[:3])
def test_finite_difference_h1_converges_to_the_spectral_one_with_order_two(x64, boundary):
    errors = []
    for n in (32, 64, 128):
        grid = Grid((n, n), (1.0, 2.0), boundary, "cell")
        x, y = grid.coordinates() / np.array([1.0, 2.0])[:, None, None]
        wave = {"periodic": lambda k, s: np.cos(2 * np.pi * k * s), "dirichlet": lambda k, s: np.sin(np.pi * k * s),
                "neumann": lambda k, s: np.cos(np.pi * k * s)}[boundary]  # fmt: skip
        t = wave(1, x) * wave(2, y)
        p = t + 0.3 * wave(2, x) * wave(1, y)
        pair = [
            losses.relative_h1(p[None], t[None], grid=grid, derivative=derivative)
            for derivative in ("finite_difference", "spectral")
        ]
        errors.append(abs(float(pair[0] - pair[1])))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert np.all(orders > 1.8), orders


def test_one_sided_ends_are_exact_for_the_degree_they_promise(x64):
    for n, degree in ((2, 1), (3, 2), (4, 2), (7, 2)):
        grid = Grid((n,), 2.0, "neumann", "cell")
        x = grid.points(0)
        slope = norms.difference(jnp.asarray(x**degree), grid.spacing[0], False)
        np.testing.assert_allclose(slope, degree * x ** (degree - 1), atol=1e-12)
        ends = norms.difference(jnp.asarray(x**3), grid.spacing[0], False)[np.array([0, -1])]
        if n >= 4:
            np.testing.assert_allclose(ends, 3 * x[[0, -1]] ** 2, atol=1e-12)


def test_weights_make_the_mean_an_integral(x64):
    grid = Grid((33, 17), (1.0, 2.0), "neumann")
    x, y = grid.coordinates()
    p, t = np.cos(np.pi * x)[None] + 0 * y, np.ones((1, 33, 17))
    weights = grid.weights()
    # The mean of (cos(pi x) - 1)^2 over the box is 3/2 and of 1 is 1; exact for the trapezoidal rule.
    assert float(losses.relative_l2(p, t, weights=weights)) == pytest.approx(np.sqrt(1.5), rel=1e-11)
    assert float(losses.mse(p, t, weights=weights)) == pytest.approx(1.5, rel=1e-12)
    assert float(losses.mse(p, t, weights=7 * weights)) == pytest.approx(1.5, rel=1e-12)
    assert float(losses.mae(p, t, weights=weights)) == pytest.approx(1.0, rel=1e-12)  # 1 - cos >= 0
    assert abs(float(losses.relative_l2(p, t)) - np.sqrt(1.5)) > 1e-3  # the plain mean counts the ends too often


def options_of(grid):
    return [
        lambda p, t, mask: losses.mse(p, t, mask=mask),
        lambda p, t, mask: losses.mae(p, t, mask=mask),
        lambda p, t, mask: losses.relative_l2(p, t, mask=mask, weights=grid.weights()),
        lambda p, t, mask: losses.relative_l2(p, t, mask=mask, per_channel=True),
        lambda p, t, mask: losses.relative_h1(p, t, mask=mask, grid=grid),
        lambda p, t, mask: losses.relative_h1(p, t, mask=mask, grid=grid, weights=grid.weights()),
    ]


@functools.cache
def slopes(boundary):
    """Values and gradients of all options, compiled once for whatever lies under the mask."""
    options = options_of(Grid((9, 8), 1.0, boundary))
    return jax.jit(lambda p, t, mask: [jax.value_and_grad(loss)(p, t, mask) for loss in options])


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_masked_points_count_exactly_zero_in_value_and_gradient(boundary, bad):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 2, 9, 8)).astype(np.float32)
    mask = np.ones((9, 8), bool)
    mask[3:5, 2:6] = False
    mask[0, 0] = False
    run, spoiled_p, spoiled_t = slopes(boundary), np.where(mask, p, bad), np.where(mask, t, -bad)
    both = zip(run(p, t, mask), run(spoiled_p.astype(p.dtype), spoiled_t.astype(t.dtype), mask), strict=True)
    for (value, gradient), (spoiled, spoiled_gradient) in both:
        assert float(spoiled) == float(value)
        np.testing.assert_array_equal(spoiled_gradient, gradient)
        assert np.all(np.asarray(gradient)[:, ~mask] == 0)
        assert np.any(np.asarray(gradient)[:, mask] != 0)


def test_a_mask_gives_the_norm_of_the_part_that_counts(x64):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 1, 12, 8))
    mask = np.zeros((12, 8), bool)
    mask[2:9] = True  # a band across the periodic axis: the same as a smaller, non-periodic box of that band
    expected = losses.relative_l2(p[:, 2:9], t[:, 2:9])
    assert float(losses.relative_l2(p, t, mask=mask)) == pytest.approx(float(expected), rel=1e-12)
    # Central differences only: the band's own end rows have no whole stencil, so they add no slope.
    grid = Grid((12, 8), 1.0, "periodic")

    def square(u):
        x = (np.roll(u, -1, 1) - np.roll(u, 1, 1))[:, 3:8] * 12 / 2
        y = (np.roll(u, -1, 2) - np.roll(u, 1, 2))[:, 2:9] * 8 / 2
        return (u[:, 2:9] ** 2).sum() + (x**2).sum() + (y**2).sum()

    value = losses.relative_h1(p, t, grid=grid, mask=mask)
    assert float(value) == pytest.approx(np.sqrt(square(p - t) / square(t)), rel=1e-12)
    assert float(losses.relative_l2(p, t, mask=np.zeros((12, 8), bool))) == 0.0  # nothing counts


def test_a_zero_target_has_a_defined_result_and_gradient():
    grid = Grid((6, 6))
    zero, p = jnp.zeros((1, 6, 6)), jnp.full((1, 6, 6), 0.25)
    for loss in (losses.l2(eps=1e-3), losses.h1(grid, eps=1e-3), losses.h1(grid, derivative="spectral", eps=1e-3)):
        assert float(loss(p, zero)) == pytest.approx(250.0, rel=1e-5)
        assert float(loss(zero, zero)) == 0.0
        np.testing.assert_array_equal(jax.grad(loss)(zero, zero), 0)  # no NaN at an exact prediction
        assert np.isfinite(float(losses.Bound(loss.function, **{**loss.options, "eps": 1e-12})(p, zero)))


def test_nan_is_not_hidden():
    p, t = jnp.ones((1, 4)).at[0, 1].set(jnp.nan), jnp.ones((1, 4))
    assert np.isnan(float(losses.relative_l2(p, t)))
    assert np.isnan(float(losses.relative_l2(t, p)))


def test_small_and_half_precision_fields_keep_their_relative_error():
    u = jnp.asarray(np.random.default_rng(0).normal(size=(1, 64)), jnp.float32)
    plain = float(losses.relative_l2(1.1 * u, u))
    assert float(losses.relative_l2(1.1e-7 * u, 1e-7 * u)) == pytest.approx(plain, rel=1e-4)
    big = jnp.full((1, 64), 3000.0, jnp.float16)  # its square overflows float16
    assert float(losses.relative_l2(big, 2 * big)) == pytest.approx(0.5, rel=1e-3)


def test_bound_losses_are_equal_by_value_so_that_nothing_compiles_twice():
    traces = []

    def spy(p, t, **options):
        traces.append(1)
        return losses.relative_l2(p, t, **options)

    run = jax.jit(lambda p, loss: loss(p, p), static_argnums=1)
    p = jnp.ones((1, 4))
    for _ in range(3):
        run(p, losses.Bound(spy, weights=np.arange(4.0)))
    assert len(traces) == 1
    run(p, losses.Bound(spy, weights=np.arange(4.0) + 1))
    assert len(traces) == 2
    assert losses.h1(Grid((4,))) == losses.h1(Grid((4,))) != losses.h1(Grid((5,)))


def test_vmap_and_jit_agree_with_one_by_one():
    grid = Grid((8,), boundary="neumann")
    p, t = np.random.default_rng(0).normal(size=(2, 5, 1, 8)).astype(np.float32)
    loss = losses.h1(grid)
    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(p, t), [float(loss(a, b)) for a, b in zip(p, t, strict=True)],
                               rtol=1e-6)  # fmt: skip


GRID = Grid((4, 4))
U = np.zeros((1, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.mse(U, U[0]), "prediction: expected the shape of target"),
        (lambda: losses.mse(U.astype(int), U), "prediction: expected a real floating array"),
        (lambda: losses.relative_l2(U, U.astype(complex)), "target: expected a real floating array"),
        (lambda: losses.relative_l2(U, U, weights=np.ones(4)), "weights: expected the shape"),
        (lambda: losses.relative_l2(U, U, mask=np.ones((4, 4))), "mask: expected truth values"),
        (lambda: losses.relative_h1(U, U, grid=Grid((5, 5))), "prediction: expected a field on the grid"),
        (lambda: losses.relative_h1(U[None], U[None], grid=GRID), "losses take one sample"),
        (lambda: losses.relative_h1(U, U, grid=(4, 4)), "grid: expected a Grid"),
        (lambda: losses.relative_h1(U, U, grid=GRID, derivative="exact"), "derivative: expected one of"),
        (lambda: losses.relative_h1(U, U, grid=GRID, derivative="spectral", mask=U[0] == 0), "whole box"),
        (lambda: losses.h1(4), "grid: expected a Grid"),
        (lambda: losses.Bound(3), "function: expected a loss"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("shape", [(64, 64), (63, 50)])
@pytest.mark.parametrize(("wave", "limit", "weight"), [((5, 2), None, 30), ((25, 2), 20, 5), ((25, 22), 20, 1)])
def test_fourier_h1_of_single_waves(x64, shape, wave, limit, weight):
    """An error of one wave beside a target of another: the ratio of their weights 1 + k1^2 + k2^2, without 2 pi."""
    x, y = (np.arange(n) / n for n in shape)
    waves = lambda k: jnp.asarray(np.cos(2 * np.pi * (k[0] * x[:, None] + k[1] * y)))[None]
    target = waves((3, 1))
    value = losses.relative_fourier_h1(target + 0.1 * waves(wave), target, max_wavenumber=limit)
    np.testing.assert_allclose(value, 0.1 * np.sqrt(weight / 11), rtol=1e-10)
    assert losses.fourier_h1(max_wavenumber=20) == losses.fourier_h1(max_wavenumber=20)
    with pytest.raises(ValueError, match="max_wavenumber"):
        losses.relative_fourier_h1(target, target, max_wavenumber=0)
