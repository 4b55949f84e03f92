"""The direct solver against dense solves, for every boundary pair, centring and parity."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, fast_poisson, solve

WORDS = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]
KINDS = list(itertools.product(WORDS, ["node", "cell"]))


@functools.cache
def dense_axis(grid):
    """The dense matrix of `Diffusion` on one axis."""
    return np.asarray(jax.jit(Diffusion(grid).as_matrix)())


def dense_matrix(grid):
    """The dense matrix of `Diffusion(grid)`: per axis the matrix of that axis times the other axes' control volumes."""
    total = 0.0
    for a in range(grid.ndim):
        factors = [np.diag(transforms.relative_weights(axis)) for axis in grid.axes]
        line = [(grid.num_points[a],), grid.domain_extent[a], (grid.boundary[a],), grid.centering[a]]
        factors[a] = dense_axis(Grid(*line))
        total = total + functools.reduce(np.kron, factors)
    return total


def dense_inverse(grid):
    """The inverse from the dense matrix; the generalised inverse of zero mean where constants are its null space."""
    matrix = dense_matrix(grid)
    n = len(matrix)
    if not Diffusion(grid).singular:
        return np.linalg.solve(matrix, np.eye(n))
    weights = grid.weights().ravel() / grid.weights().sum()
    Q = np.eye(n) - np.outer(np.ones(n), weights)
    return Q @ np.linalg.pinv(matrix, rcond=1e-10) @ Q.T


def check(grid):
    n = int(np.prod(grid.shape))
    expected = dense_inverse(grid)
    found = np.asarray(jax.jit(FastPoisson(grid))(np.eye(n).reshape(n, *grid.shape))).reshape(n, n)
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * scale, err_msg=str(grid))
    np.testing.assert_allclose(found, found.T, rtol=0, atol=1e-13 * scale)


@pytest.fixture(params=["matrices", "fft"])
def route(request, monkeypatch):
    """Both ways to transform: by (folded) matrices, and by FFT as on long axes."""
    if request.param == "fft":
        monkeypatch.setattr(transforms, "MATMUL_LIMIT", 0)
        monkeypatch.setattr(fast_poisson, "FOLD_LIMIT", 0)
    fast_poisson._fold.cache_clear()
    yield request.param
    fast_poisson._fold.cache_clear()


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_every_pair_in_1d(x64, route, boundary, centering):
    for n in range(2, 10) if route == "matrices" else (2, 5, 6):
        check(Grid(n, domain_extent=1.7, boundary=(boundary,), centering=centering))


@pytest.mark.parametrize(("first", "second"), itertools.product(KINDS, KINDS))
def test_every_pair_of_pairs_in_2d(x64, first, second):
    shape = (3, 4) if KINDS.index(first) % 2 else (4, 3)
    check(Grid(shape, (1.0, 1.6), (first[0], second[0]), (first[1], second[1])))


@pytest.mark.parametrize("grid", [Grid((4, 3), (1.0, 2.0), ("neumann", "periodic"), "node"), Grid((3, 4, 2))], ids=str)
def test_the_dense_matrix_of_these_tests(x64, grid):
    np.testing.assert_allclose(jax.jit(Diffusion(grid).as_matrix)(), dense_matrix(grid), rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("shift", range(5))
def test_three_dimensions(x64, route, shift):
    words = [WORDS[(shift + i) % 5] for i in range(3)]
    check(Grid((3, 4, 5), (1.0, 2.0, 0.5), words, ("node", "cell", "node") if shift % 2 else "cell"))


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_three_dimensions_singular(x64, boundary):
    check(Grid((4, 3, 4), (1.0, 2.0, 0.5), boundary, "node"))


def test_single_points(x64):
    for boundary in ("periodic", "dirichlet", "neumann"):
        check(Grid((1, 3), boundary=(boundary, "dirichlet"), centering="cell"))


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_long_axes_by_fft(x64, monkeypatch, boundary, centering):
    """One axis beyond the matrix limits, one within: the true residual tells."""
    monkeypatch.setattr(transforms, "MATMUL_LIMIT", 16)
    monkeypatch.setattr(fast_poisson, "FOLD_LIMIT", 32)
    fast_poisson._fold.cache_clear()
    grid = Grid((45, 12), (1.0, 2.0), (boundary, "dirichlet"), centering)
    b = np.random.default_rng(0).normal(size=grid.shape)
    A = Diffusion(grid)
    residual = np.linalg.norm(jax.jit(lambda b: A(FastPoisson(grid)(b)))(b) - b) / np.linalg.norm(b)
    fast_poisson._fold.cache_clear()
    assert residual < 1e-12


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


def test_transformations_and_dtype(getkey):
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


GRID = Grid((4, 5), boundary="dirichlet")


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: FastPoisson(4), "grid: expected a Grid"),
        (lambda: FastPoisson(GRID, dtype="bfloat16"), "dtype: expected None"),
        (lambda: FastPoisson(GRID)(np.ones((5, 4))), r"b: FastPoisson is locked to the grid \(4, 5\)"),
        (lambda: FastPoisson(GRID)(np.ones((4, 5), int)), "b: expected a real floating"),
    ],
)
def test_bad_input(build, match):
    with pytest.raises(ValueError, match=match):
        build()
