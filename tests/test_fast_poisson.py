"""The direct solver against dense solves, for every boundary pair, centring and parity."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, solve
from neuralops.solvers.direct import fast_poisson

WORDS = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]
KINDS = list(itertools.product(WORDS, ["node", "cell"]))


@functools.cache
def dense_axis(grid, widths):
    """The dense matrix of `Diffusion` on one axis."""
    return np.asarray(jax.jit(Diffusion(grid, widths=(widths,)).as_matrix)())


def dense_matrix(grid, widths=None):
    """The dense matrix of `Diffusion(grid)`: per axis the matrix of that axis times the other axes' control volumes."""
    total = 0.0
    for a in range(grid.ndim):
        factors = [np.diag(v) for v in extents(grid, widths)]
        line = [(grid.num_points[a],), grid.domain_extent[a], (grid.boundary[a],), grid.centering[a]]
        own = None if widths is None or widths[a] is None else tuple(widths[a])
        factors[a] = dense_axis(Grid(*line), own)
        total = total + functools.reduce(np.kron, factors)
    return total


def extents(grid, widths=None):
    """Relative control volumes per axis."""
    return [
        transforms.relative_weights(axis) if widths is None or widths[a] is None else widths[a] / grid.spacing[a]
        for a, axis in enumerate(grid.axes)
    ]


def dense_inverse(matrix, weights=None):
    """The inverse from the dense matrix; the generalised inverse of zero mean where constants are its null space."""
    n = len(matrix)
    if weights is None:
        return np.linalg.solve(matrix, np.eye(n))
    Q = np.eye(n) - np.outer(np.ones(n), weights.ravel() / weights.sum())
    return Q @ np.linalg.pinv(matrix, rcond=1e-10) @ Q.T


def check(grid, widths=None):
    n = int(np.prod(grid.shape))
    volumes = functools.reduce(np.multiply.outer, extents(grid, widths))
    expected = dense_inverse(dense_matrix(grid, widths), volumes if Diffusion(grid).singular else None)
    found = np.asarray(FastPoisson(grid, widths)(np.eye(n).reshape(n, *grid.shape))).reshape(n, n)
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * scale, err_msg=str(grid))
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-13 * scale)


def by_size(monkeypatch, short):
    """Moves the size up to which axes are transformed by matrices, so that FFTs meet dense comparisons."""
    monkeypatch.setattr(fast_poisson, "SHORT", {route: {4: short, 8: short} for route in ("joint", "fft")})
    monkeypatch.setattr(fast_poisson, "SHORT_MIXED", short)
    monkeypatch.setattr(fast_poisson, "ROUGH", short)
    afresh(monkeypatch)


def by_fft(monkeypatch):
    by_size(monkeypatch, 0)


def afresh(monkeypatch):
    """Forgets what was compiled with other choices; a new function, as JAX remembers what it traced by the function."""
    solve = fast_poisson._solve.__wrapped__
    monkeypatch.setattr(
        fast_poisson, "_solve", jax.jit(functools.wraps(solve)(lambda *a: solve(*a)), static_argnums=(0, 1))
    )


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_every_pair_by_matrices_in_1d(x64, boundary, centering):
    for n in (2, 3, 6, 7):
        check(Grid(n, domain_extent=1.7, boundary=(boundary,), centering=centering))


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_every_pair_by_fft_in_1d(x64, monkeypatch, boundary, centering):
    by_fft(monkeypatch)
    for n in (2, 5, 6):
        check(Grid(n, domain_extent=1.7, boundary=(boundary,), centering=centering))


# Periodic cells are transformed as nodes are, and one mixed axis as its mirror image.
FFT_KINDS = [kind for kind in KINDS if kind != ("periodic", "cell") and kind[0] != ("dirichlet", "neumann")]


@pytest.mark.parametrize(("first", "second"), itertools.combinations_with_replacement(FFT_KINDS, 2))
def test_every_pair_of_pairs_by_fft_in_2d(x64, monkeypatch, first, second):
    by_fft(monkeypatch)
    shape = (3, 4) if FFT_KINDS.index(first) % 2 else (4, 3)
    if FFT_KINDS.index(second) % 2:
        first, second = second, first
    check(Grid(shape, (1.0, 1.6), (first[0], second[0]), (first[1], second[1])))


@pytest.mark.parametrize("widths", [None, (None, (0.5, 0.7, 0.8))])
def test_the_dense_matrix_of_these_tests(x64, widths):
    grid = Grid((4, 3, 2), (1.0, 2.0, 0.5), ("neumann", "dirichlet", "periodic"), ("node", "cell", "cell"))
    widths = None if widths is None else (*widths, (0.2, 0.3))
    matrix = jax.jit(Diffusion(grid, widths=widths).as_matrix)()
    widths = None if widths is None else [None if w is None else np.array(w) for w in widths]
    np.testing.assert_allclose(matrix, dense_matrix(grid, widths), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("route", ["matrices", "fft"])
@pytest.mark.parametrize("shift", range(5))
def test_three_dimensions(x64, monkeypatch, route, shift):
    if route == "fft":
        by_fft(monkeypatch)
    words = [WORDS[(shift + i) % 5] for i in range(3)]
    check(Grid((3, 4, 5), (1.0, 2.0, 0.5), words, ("node", "cell", "node") if shift % 2 else "cell"))


@pytest.mark.parametrize(
    "words",
    [
        ("dirichlet", "neumann", "dirichlet"),
        ("neumann", "neumann", "neumann"),
        ("periodic", "dirichlet", "neumann"),
        ("periodic", "neumann", "periodic"),
        ("periodic", "periodic", "periodic"),
        ("dirichlet", "periodic", "periodic", "neumann"),
    ],
    ids="-".join,
)
def test_several_axes_by_one_fft(x64, monkeypatch, words):
    by_fft(monkeypatch)
    check(Grid((3, 4, 3, 2)[: len(words)], (1.0, 2.0, 0.5, 1.0)[: len(words)], words, "cell"))


def test_single_points(x64):
    for boundary in ("periodic", "dirichlet", "neumann"):
        check(Grid((1, 3), boundary=(boundary, "dirichlet"), centering="cell"))


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_matrices_and_ffts_of_long_axes_agree(x64, monkeypatch, boundary, centering):
    """Beyond the sizes that dense inverses reach; one axis by FFT, one by matrices."""
    grid = Grid((120 + (centering == "cell"), 6), (1.0, 2.0), (boundary, "dirichlet"), (centering, "cell"))
    b = np.random.default_rng(0).normal(size=(2, *grid.shape))
    by_size(monkeypatch, 200)
    expected = FastPoisson(grid)(b)
    by_size(monkeypatch, 10)
    found = FastPoisson(grid)(b)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    residual = Diffusion(grid)(found) - b
    assert np.linalg.norm(residual) < 1e-11 * np.linalg.norm(b)


def test_rows_in_blocks_change_nothing(x64, monkeypatch):
    by_fft(monkeypatch)
    grid = Grid((23, 17), (1.0, 2.0), ("dirichlet", ("neumann", "dirichlet")), ("node", "cell"))
    b = np.random.default_rng(0).normal(size=(3, *grid.shape))
    expected = FastPoisson(grid)(b)
    monkeypatch.setattr(fast_poisson, "BLOCK", 100)
    afresh(monkeypatch)
    for found in (FastPoisson(grid)(b), jax.vmap(FastPoisson(grid))(b)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())


def test_half_precision_is_computed_in_float32():
    grid = Grid((6, 5), boundary="dirichlet")
    b = np.random.default_rng(0).normal(size=grid.shape).astype(np.float16)
    found = FastPoisson(grid)(jnp.asarray(b))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, FastPoisson(grid)(b.astype(np.float32)), atol=1e-3)


def test_choice_by_size():
    def route(n, boundary, centering, dtype=np.float64):
        return fast_poisson._plan(Grid(n, 1.0, (boundary,), centering), None, dtype, True).routes[0]

    assert route(64, "dirichlet", "cell") == "matrix"
    assert route(512, "dirichlet", "cell") == "joint"
    assert route(128, "neumann", "cell", np.float32) == "matrix"
    assert route(509, "neumann", "cell") == "matrix"  # a prime
    assert route(1009, "neumann", "cell") == "joint"
    assert route(509, "periodic", "node") == "matrix"
    assert route(509, "dirichlet", "node") == "fft"  # 2 * 510 is smooth
    assert route(255, ("neumann", "dirichlet"), "cell") == "fft"


def test_float32_transforms(monkeypatch):
    by_fft(monkeypatch)
    grid = Grid((60, 51), boundary=("dirichlet", ("dirichlet", "neumann")), centering="cell")
    b = np.random.default_rng(0).normal(size=grid.shape)
    found = FastPoisson(grid)(b.astype(np.float32))
    with jax.enable_x64(True):
        expected = FastPoisson(grid)(b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_as_method_it_reports_the_true_residual(x64):
    grid = Grid((33, 20), boundary=("dirichlet", "neumann"), centering="cell")
    b = jnp.asarray(np.random.default_rng(0).normal(size=grid.shape))
    exact = solve(Diffusion(grid), b, FastPoisson(grid))
    assert bool(exact.converged)
    assert int(exact.num_steps) == 1
    assert float(exact.residual_norm) < 1e-13
    other = jax.jit(lambda a: Diffusion.from_coefficient(grid, a))(np.exp(b))
    wrong = solve(other, b, FastPoisson(grid))
    assert not bool(wrong.converged)
    expected = np.linalg.norm(b - other(wrong.value)) / np.linalg.norm(b)
    np.testing.assert_allclose(wrong.residual_norm, expected, rtol=1e-12)


def test_preconditioned_steps_do_not_grow_with_the_grid(x64):
    steps = []
    for n in (21, 42):
        grid = Grid((n, n), boundary="dirichlet", centering="cell")
        x, y = grid.coordinates()
        a, method = (
            np.where(np.sin(7 * x) * np.cos(5 * y) > 0.1, 12.0, 3.0),
            CG(1e-10, preconditioner=FastPoisson(grid)),
        )

        @jax.jit
        def run(a, grid=grid, method=method):
            A = Diffusion.from_coefficient(grid, a)
            return solve(A, A.load(jnp.ones_like(a)), method)

        s = run(a)
        assert bool(s.converged)
        steps.append(int(s.num_steps))
    assert max(steps) <= 30  # contrast 4: the error falls by 3 per step


def test_lower_precision_preconditioner_keeps_float64_accuracy(x64):
    grid = Grid((40, 31), boundary=("dirichlet", "periodic"), centering="cell")
    rng = np.random.default_rng(0)
    A = jax.jit(lambda a: Diffusion.from_coefficient(grid, a))(rng.uniform(1, 4, grid.shape))
    b = jnp.asarray(rng.normal(size=grid.shape))
    P = FastPoisson(grid, dtype="float32")
    assert P(b).dtype == jnp.float64
    s = solve(A, b, CG(1e-11, preconditioner=P))
    expected = np.linalg.solve(jax.jit(A.as_matrix)(), np.ravel(b)).reshape(grid.shape)
    assert bool(s.converged)
    np.testing.assert_allclose(s.value, expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("route", ["matrices", "fft"])
def test_transformations_and_dtype(getkey, monkeypatch, route):
    if route == "fft":
        by_fft(monkeypatch)
    grid = Grid((8, 5), boundary=("neumann", "dirichlet"), centering=("node", "cell"))
    P = FastPoisson(grid)
    assert jax.tree.leaves(P) == []
    b = jax.random.normal(getkey(), (3, 2, *grid.shape))
    apply = jax.jit(P)
    assert apply(b).dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(jax.vmap(P))(b), apply(b), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply(b)[1, 1], apply(b[1, 1]), rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda b: jnp.sum(P(b) ** 2)))(b)
    np.testing.assert_allclose(gradient, 2 * apply(apply(b)), rtol=1e-4, atol=1e-5)
    _, tangent = jax.jvp(P, (b,), (2 * b,))
    np.testing.assert_allclose(tangent, 2 * apply(b), rtol=1e-4, atol=1e-5)
    assert "scatter" not in jax.jit(jax.grad(lambda b: jnp.sum(P(b) ** 2))).lower(b).as_text()


GRID = Grid((4, 5), boundary="dirichlet")


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FastPoisson(4), "grid: expected a Grid"),
        (lambda: FastPoisson(GRID, dtype="bfloat16"), "dtype: expected None"),
        (lambda: FastPoisson(GRID, widths=(None, [0.2] * 5)), "widths: expected None on axis 1"),
        (lambda: FastPoisson(GRID)(np.ones((5, 4))), r"b: FastPoisson is locked to the grid \(4, 5\)"),
        (lambda: FastPoisson(GRID)(np.ones((4, 5), int)), "b: expected a real floating"),
    ],
)
def test_bad_input(build, match):
    with pytest.raises(ValueError, match=match):
        build()
