"""Linear measurements against dense matrices, SciPy and closed forms: adjoints, norms, algebra, gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

import neuralops as no
from neuralops.inverse import maps
from neuralops.inverse.maps import (
    BlockMean,
    Blur,
    CompressedSensing,
    FilteredBackProjection,
    Gradient,
    Identity,
    Inpainting,
    Linearized,
    Matrix,
    PointValues,
    Radon,
    SourceToSolution,
    SubsampledFourier,
    gaussian,
    half_turn,
    stack,
)

RNG = np.random.default_rng(0)
BOX = no.Grid((9, 7), (1.0, 0.6), centering="cell")
WALLS = no.Grid((6, 7), boundary=("dirichlet", "neumann"), centering="cell")
KERNEL = RNG.normal(size=(4, 5))
POINTS = RNG.uniform(0.1, 0.5, size=(2, 5))
MASK = RNG.random((5, 6)) < 0.5


def wavy(a):
    return jnp.sin(a) * jnp.sum(a, axis=-1, keepdims=True)


MAPS = {
    "identity": lambda: Identity((2, 3, 4)),
    "matrix": lambda: Matrix(jnp.asarray(RNG.normal(size=(6, 8))), (2, 4), (1, 2, 3)),
    "blur, periodic": lambda: Blur((2, 6, 5), gaussian(0.7), "periodic"),
    "blur, zero": lambda: Blur((2, 6, 5), KERNEL, "zero"),
    "blur, full": lambda: Blur((1, 6, 5), KERNEL, "full"),
    "blur, reflect": lambda: Blur((1, 9), gaussian(1.0, 1, size=5), "reflect"),
    "blur in space, reflect": lambda: Blur((1, 3, 4, 2), RNG.normal(size=(3, 2, 5)), "reflect"),
    "Radon": lambda: Radon(BOX, np.linspace(-1, 7, 13)),
    "Radon, fine detectors": lambda: Radon(BOX, half_turn(5), 30, 0.03),
    "Radon, wide detectors": lambda: Radon(BOX, half_turn(5), 6, 0.2),
    "back-projection": lambda: FilteredBackProjection(Radon(BOX, half_turn(4)), "hann"),
    "Fourier": lambda: SubsampledFourier(MASK, 2),
    "Fourier of a line": lambda: SubsampledFourier(MASK[0]),
    "compressed sensing": lambda: CompressedSensing((2, 5, 4), 17, seed=3),
    "compressed sensing, odd": lambda: CompressedSensing((1, 5, 7), 12),
    "inpainting": lambda: Inpainting(MASK, 2),
    "block mean": lambda: BlockMean((2, 6, 4), (3, 2)),
    "gradient": lambda: Gradient((2, 5, 1, 3), (1.0, 2.0, 0.3)),
    "point values": lambda: PointValues(BOX, POINTS, 2),
    "source of Poisson": lambda: SourceToSolution(no.pde.Poisson((6, 5))),
    "source, no wall holds": lambda: SourceToSolution(no.Diffusion(no.Grid((5, 6), boundary="neumann"))),
    "linearised": lambda: Linearized(wavy, jnp.asarray(RNG.normal(size=(2, 3, 3)))),
    "product": lambda: 2.5 * (PointValues(WALLS, POINTS) @ Blur((1, 6, 7), gaussian(0.7))),
    "sum": lambda: Blur((1, 6, 5), gaussian(0.7)) - Inpainting(jnp.ones((6, 5))) * 0.3,
    "stack": lambda: stack(BlockMean((1, 4, 6), 2), Gradient((1, 4, 6))),
    "stack of channels": lambda: stack(Identity((1, 4, 3)), Gradient((1, 4, 3))),
    "adjoint": lambda: Blur((1, 6, 5), KERNEL, "full").T,
    "normal": lambda: Blur((1, 6, 5), KERNEL, "full").normal(),
}
every_map = pytest.mark.parametrize("name", MAPS)


def field(shape, seed=0, dtype=float):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def cast(A, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), A)


@every_map
def test_the_adjoint_is_exact(x64, name):
    A = MAPS[name]()
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-6)):
        x, y = field(A.in_shape, 1, dtype), field(A.out_shape, 2, dtype)
        image, back = jax.jit(lambda A, x, y: (A(x), A.adjoint(y)))(cast(A, dtype), x, y)
        assert image.dtype == back.dtype == dtype
        assert image.shape == A.out_shape
        assert back.shape == A.in_shape
        wide = lambda v: np.asarray(v, float)
        there, here = np.vdot(wide(image), wide(y)), np.vdot(wide(x), wide(back))
        assert abs(there - here) <= tolerance * np.linalg.norm(wide(image)) * np.linalg.norm(wide(y))


@every_map
def test_matrix_batch_and_gradients(x64, name):
    """The dense matrix, column by column, says what everything else should be."""
    A = MAPS[name]()
    n = int(np.prod(A.in_shape))
    x, y = field((2, *A.in_shape)), field(A.out_shape, 2)

    @jax.jit
    def everything(A, x, y):
        half_square = lambda x: 0.5 * jnp.sum((A(x) - y) ** 2)
        back = lambda y: 0.5 * jnp.sum((A.adjoint(y) - x[1]) ** 2)
        columns = jax.vmap(A)(jnp.eye(n).reshape(n, *A.in_shape))
        return columns, jax.grad(half_square)(x[0]), jax.jvp(A, (x[0],), (x[1],))[1], jax.grad(back)(y)

    columns, *got = everything(A, x, y)
    dense, X, Y = np.asarray(columns).reshape(n, -1).T, np.asarray(x).reshape(2, -1), np.asarray(y).reshape(-1)
    for value, want in zip(
        got, (dense.T @ (dense @ X[0] - Y), dense @ X[1], dense @ (dense.T @ Y - X[1])), strict=True
    ):
        np.testing.assert_allclose(np.ravel(value), want, rtol=1e-8, atol=1e-10 * np.abs(want).max())


@every_map
def test_norm_is_the_largest_singular_value(x64, name):
    A = MAPS[name]()
    norm, dense = jax.jit(lambda A: (A.norm(), A.as_matrix()))(A)
    np.testing.assert_allclose(norm, np.linalg.svd(dense, compute_uv=False)[0], rtol=1e-6)


def test_an_adjoint_that_is_none_is_found_out(x64):
    """The negative control of the dot-product test."""

    class Wrong(maps.AbstractLinearMap):
        in_shape: tuple = (1, 5)
        out_shape: tuple = (1, 5)

        def apply(self, x):
            return jnp.roll(x, 1, axis=1)

        def apply_adjoint(self, y):
            return jnp.roll(y, 1, axis=1)

    A, x, y = Wrong(), field((1, 5)), field((1, 5), 1)
    assert abs(float(jnp.vdot(A(x), y) - jnp.vdot(x, A.adjoint(y)))) > 0.1


def test_a_map_of_ones_own_needs_only_apply(x64):
    class Differences(maps.AbstractLinearMap):
        in_shape: tuple[int, ...] = eqx.field(static=True, default=(1, 6))

        @property
        def out_shape(self):
            return (1, 5)

        def apply(self, x):
            return jnp.diff(x)

    A = Differences()
    dense = np.diff(np.eye(6), axis=0)
    np.testing.assert_allclose(A.as_matrix(), dense)
    np.testing.assert_allclose(A.adjoint(field((1, 5)))[0], dense.T @ np.asarray(field((1, 5))[0]))
    np.testing.assert_allclose(A.norm(), np.linalg.norm(dense, 2))


@pytest.mark.parametrize(("boundary", "mode"), [("periodic", "wrap"), ("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("size", [(3, 5), (4, 6), (1, 2)])
def test_blur_is_that_of_scipy(x64, boundary, mode, size):
    x, kernel = field((2, 7, 8)), np.random.default_rng(1).normal(size=size)
    expected = [scipy.ndimage.convolve(channel, kernel, mode=mode) for channel in np.asarray(x)]
    np.testing.assert_allclose(Blur((2, 7, 8), kernel, boundary)(x), expected, atol=1e-12)


def test_separable_blur_is_the_dense_one_and_full_is_that_of_scipy(x64):
    x, vectors = field((1, 7, 8)), (np.array([1.0, 2.0, 4.0, 0.5]), np.array([0.2, 1.0, 3.0]))
    for boundary in ("periodic", "zero", "full", "reflect"):
        split, whole = Blur(x.shape, vectors, boundary), Blur(x.shape, np.outer(*vectors), boundary)
        np.testing.assert_allclose(split(x), whole(x), atol=1e-12)
    full = scipy.signal.convolve2d(np.asarray(x[0]), np.outer(*vectors))
    np.testing.assert_allclose(Blur(x.shape, vectors, "full")(x)[0], full, atol=1e-12)


def test_a_gaussian_is_that_of_scipy(x64):
    x = field((1, 40, 30))
    expected = scipy.ndimage.gaussian_filter(np.asarray(x[0]), 1.3, truncate=6 / 1.3 - 1e-9)
    np.testing.assert_allclose(Blur(x.shape, gaussian(1.3, size=13))(x)[0], expected, atol=1e-12)
    assert [len(k) for k in gaussian(2.0, 3)] == [17] * 3
    np.testing.assert_allclose(jnp.sum(gaussian(2.0)[0]), 1)


def test_a_wide_kernel_wraps_and_reflects_more_than_once(x64):
    x, kernel = field((1, 4)), np.random.default_rng(2).normal(size=23)
    for boundary, mode in (("periodic", "wrap"), ("reflect", "reflect")):
        expected = scipy.ndimage.convolve(np.asarray(x[0]), kernel, mode=mode)
        np.testing.assert_allclose(Blur((1, 4), kernel, boundary)(x)[0], expected, atol=1e-12)


def test_fourier_samples_are_those_of_numpy(x64):
    x, A = field((2, 5, 6)), SubsampledFourier(MASK, 2)
    expected = np.fft.fft2(np.asarray(x), norm="ortho") * MASK
    np.testing.assert_allclose(A(x), np.concatenate([expected.real, expected.imag]), atol=1e-13)
    np.testing.assert_allclose(A.adjoint(A(x)), np.fft.ifft2(expected, norm="ortho").real, atol=1e-13)


def test_compressed_sensing_keeps_lengths_and_mixes(x64):
    A = CompressedSensing((1, 8, 8), 20, seed=5)
    dense = np.asarray(A.as_matrix())
    np.testing.assert_allclose(dense @ dense.T, np.eye(20), atol=1e-13)
    assert np.abs(dense).max() < 0.6  # every measurement sees the whole field
    assert np.linalg.matrix_rank(dense) == 20
    assert not np.allclose(dense, CompressedSensing((1, 8, 8), 20, seed=6).as_matrix())


def test_block_means_and_masks(x64):
    x = field((1, 4, 6))
    np.testing.assert_allclose(BlockMean((1, 4, 6), (2, 3))(x)[0], np.asarray(x[0]).reshape(2, 2, 2, 3).mean((1, 3)))
    assert not np.any(np.asarray(Inpainting(MASK)(field((1, *MASK.shape))))[0][~MASK])


def test_the_gradient_is_a_difference_and_its_norm_below_the_bound(x64):
    x, A = field((2, 4, 5)), Gradient((2, 4, 5), (0.5, 2.0))
    down, across = A(x).reshape(2, 2, 4, 5)
    np.testing.assert_allclose(down[:, :-1], np.diff(x, axis=1) / 0.5)
    np.testing.assert_allclose(across[:, :, :-1], np.diff(x, axis=2) / 2)
    assert not np.any(down[:, -1])
    assert not np.any(across[:, :, -1])
    assert float(A.norm()) < 2 * np.hypot(1 / 0.5, 1 / 2)
    grid = no.Grid((4, 5), (2.0, 10.0), "neumann", "cell")  # minus the divergence of the gradient
    np.testing.assert_allclose(A.normal()(x), jax.vmap(no.Diffusion(grid))(x), atol=1e-12)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("centering", ["node", "cell"])
def test_sources_give_the_solution_of_the_dense_matrix(x64, boundary, centering):
    grid = no.Grid((5, 6), boundary=boundary, centering=centering)
    K, f = no.Diffusion(grid), field((1, 5, 6))
    dense, load = np.asarray(K.as_matrix()), np.asarray(K.load(jnp.ones((1, 5, 6)))).ravel()
    A, n = SourceToSolution(K), 30
    away = np.eye(n) - np.outer(np.ones(n), load) / load.sum() * K.singular  # constants
    expected = away @ np.linalg.pinv(dense) @ away.T @ np.diag(load)
    np.testing.assert_allclose(A(f).ravel(), expected @ f.ravel(), atol=1e-12)
    np.testing.assert_allclose(A.adjoint(f).ravel(), expected.T @ f.ravel(), atol=1e-12)
    np.testing.assert_allclose(
        A(f), no.pde.Poisson((5, 6), boundary=boundary, centering=centering).solve(f), atol=1e-12
    )


def test_points_see_an_analytic_solution(x64):
    """-u'' = pi^2 sin(pi x) has u = sin(pi x): the error falls with the square of the spacing."""
    points = np.array([[0.13, 0.5, 0.77]])
    errors = []
    for n in (32, 64):
        grid = no.Grid((n,), boundary="dirichlet", centering="cell")
        A = PointValues(grid, points) @ SourceToSolution(no.Diffusion(grid))
        seen = A(jnp.asarray(np.pi**2 * np.sin(np.pi * grid.coordinates())))
        errors.append(np.abs(np.asarray(seen[0]) - np.sin(np.pi * points[0])).max())
    assert errors[1] < 3e-4
    assert 3.7 < errors[0] / errors[1] < 4.3


def test_the_coefficient_has_gradients_through_the_solve(x64):
    a = jnp.asarray(1 + np.random.default_rng(0).random(WALLS.shape))
    method = no.CG(1e-12, preconditioner=no.FastPoisson(WALLS))

    def seen(a):
        A = PointValues(WALLS, POINTS) @ SourceToSolution(no.Diffusion.from_coefficient(WALLS, a), method)
        return jnp.sum(A(jnp.ones((1, 6, 7))) ** 2)

    slope, step = jax.jit(jax.grad(seen))(a), 1e-5 * field(WALLS.shape, 3)
    change = jax.jit(lambda a: seen(a + step) - seen(a - step))(a) / 2
    np.testing.assert_allclose(jnp.vdot(slope, step), change, rtol=1e-5)


@pytest.mark.slow
def test_linearised_darcy_is_its_difference_quotient(x64):
    """The pressure at points as a function of the logarithm of the coefficient."""
    problem = no.pde.Darcy((6, 6), coefficient="log_normal", rtol=1e-13)
    see = PointValues(problem.grid, POINTS)
    forward = lambda g: see(problem.solve(jnp.exp(g)))
    at, step, h = 0.3 * field((1, 6, 6)), field((1, 6, 6), 1), 1e-4
    A, run = Linearized(forward, at), jax.jit(forward)
    y = field(A.out_shape, 4)
    slope, back = jax.jit(lambda A: (A(step), A.adjoint(y)))(A)
    np.testing.assert_allclose(slope, (run(at + h * step) - run(at - h * step)) / (2 * h), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(A.value, run(at), rtol=1e-9)
    np.testing.assert_allclose(jnp.vdot(slope, y), jnp.vdot(step, back), rtol=1e-9)


def test_a_frozen_map_evaluates_nothing_again(x64):
    """The same products, and the sine's own evaluation is gone from the compiled program."""
    at, x = field((1, 4, 3)), field((1, 4, 3), 1)
    A = Linearized(lambda a: jnp.sin(a) * jnp.exp(jnp.sum(a)), at)
    B = A.frozen()
    np.testing.assert_allclose(B(x), A(x), rtol=1e-12)
    np.testing.assert_allclose(B.adjoint(x), A.adjoint(x), rtol=1e-12)
    np.testing.assert_allclose(B.normal()(x), A.adjoint(A(x)), rtol=1e-12)
    text = [str(jax.make_jaxpr(lambda x, F=F: F.adjoint(F(x)))(x)) for F in (A, B)]
    assert "exp" in text[0]
    assert "exp" not in text[1]


def test_algebra(x64):
    A, B = (Matrix(field((4, 3), seed)) for seed in (1, 2))
    C = Matrix(field((2, 4), 3))
    a, b, c = (np.asarray(M.matrix) for M in (A, B, C))
    rows = lambda op: np.asarray(op.as_matrix())
    np.testing.assert_allclose(rows(C @ (A + B - 2 * A)), c @ (b - a))
    np.testing.assert_allclose(rows((C @ A).T), (c @ a).T)
    np.testing.assert_allclose(rows(np.float64(0.5) * A), a / 2)
    np.testing.assert_allclose(rows(jnp.asarray(0.5) * A), a / 2)
    np.testing.assert_allclose(rows(A.normal() + 0.1 * Identity((1, 3))), a.T @ a + 0.1 * np.eye(3), atol=1e-15)
    assert A.T.T is A
    assert len((A + B + A).maps) == 3
    assert (A.normal() + 0.1 * Identity((1, 3))).symmetric
    assert not A.symmetric
    S = stack(A, B, C @ A)
    np.testing.assert_allclose(rows(S), np.concatenate([a, b, c @ a]))
    parts = S.parts(S(jnp.ones((1, 3))))
    assert [part.shape for part in parts] == [(1, 4), (1, 4), (1, 2)]
    np.testing.assert_allclose(parts[2][0], c @ a @ np.ones(3))


def test_least_squares_by_solve(x64):
    A, y = Blur((1, 12, 10), gaussian(0.8), "zero"), field((1, 12, 10))
    rho = 0.1
    solution = no.solve(A.normal() + rho * Identity(A.in_shape), A.adjoint(y), no.CG(1e-12))
    dense = np.asarray(A.as_matrix())
    expected = np.linalg.solve(dense.T @ dense + rho * np.eye(120), dense.T @ np.asarray(y).ravel())
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.value.ravel(), expected, atol=1e-10)


def test_new_values_compile_nothing_again(counted):
    fn, traces = counted(lambda A, x: A.adjoint(A(x)) + A.norm())
    run = jax.jit(fn)
    x = field((1, 6, 5), dtype=jnp.float32)
    for seed in range(3):
        kernel = jnp.asarray(np.random.default_rng(seed).normal(size=(3, 3)), jnp.float32)
        run((seed + 1.0) * Blur((1, 6, 5), kernel, "zero"), x)
    assert len(traces) == 1
    fn, traces = counted(lambda A, x: A(x))
    project = jax.jit(fn)
    for _ in range(2):  # an equal geometry is the same program
        project(Radon(BOX, half_turn(3)), field((1, 9, 7), dtype=jnp.float32))
    assert len(traces) == 1


def test_the_discrete_sine_transform_tells_the_norm_of_a_solution():
    """|K^-1| is the inverse of the smallest eigenvalue, in closed form."""
    n = 20
    grid = no.Grid((n,), boundary="dirichlet")
    smallest = (2 * (n + 1) * np.sin(np.pi / (2 * (n + 1)))) ** 2
    np.testing.assert_allclose(SourceToSolution(no.Diffusion(grid)).norm(), 1 / smallest, rtol=1e-5)
