"""Lanczos against dense eigenvalues: orthogonality, the three-term relation, both ends of spectra, early ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from neuralops.grid import Grid
from neuralops.solvers import Diffusion, NullSpace, lanczos, ritz_pairs

GRID = Grid((9, 8), (1.0, 1.3), ("neumann", ("neumann", "dirichlet")), ("cell", "node"))


def matrix_with(eigenvalues, seed=0):
    """A dense symmetric matrix with these eigenvalues, and its eigenvectors as columns."""
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return q @ np.diag(eigenvalues) @ q.T, q


@pytest.fixture(scope="module")
def rough():
    """A variable coefficient, its dense matrix and a start, in double precision."""
    rng = np.random.default_rng(1)
    a, start = np.exp(rng.normal(size=GRID.shape)), rng.normal(size=GRID.shape)
    with jax.enable_x64(True):
        A = jax.jit(Diffusion.from_coefficient, static_argnums=0)(GRID, a)
        return A, np.asarray(jax.jit(Diffusion.as_matrix)(A)), jnp.asarray(start)


@pytest.mark.parametrize("num_steps", [40, 72])  # more than a block of vectors and not a multiple; as many as points
def test_basis_is_orthonormal_and_makes_A_tridiagonal(rough, num_steps, x64):
    A, matrix, start = rough
    norm = np.linalg.norm(matrix, 2)
    basis = jax.jit(lambda A, v: lanczos(A, v, num_steps))(A, start)
    assert int(basis.num_valid) == num_steps
    Q, T = np.asarray(basis.vectors).reshape(num_steps, -1), np.asarray(basis.matrix)
    assert basis.vectors.shape == (num_steps, *GRID.shape)
    assert np.abs(Q @ Q.T - np.eye(num_steps)).max() < 1e-12
    assert np.all(np.diag(T, 1) >= 0)
    np.testing.assert_array_equal(T, np.triu(np.tril(T, 1), -1))
    np.testing.assert_allclose(Q[0], np.ravel(start) / np.linalg.norm(start), atol=1e-14)
    left = Q @ matrix - T @ Q  # A is symmetric: rows are vectors
    assert np.abs(left[:-1]).max() < 1e-13 * norm
    np.testing.assert_allclose(np.linalg.norm(left[-1]), basis.remainder, atol=1e-13 * norm)


def test_orthogonality_needs_the_passes(rough, x64):
    """The same steps without them lose it by many digits, so that the test above can fail."""
    _, matrix, start = rough
    v, before, beta, found = np.ravel(start) / np.linalg.norm(start), 0.0, 0.0, []
    for _ in range(72):
        found.append(v)
        w = matrix @ v - beta * before
        w = w - (w @ v) * v
        before, beta = v, np.linalg.norm(w)
        v = w / beta
    Q = np.stack(found)
    assert np.abs(Q @ Q.T - np.eye(72)).max() > 1e-3


def test_all_steps_find_all_eigenvalues(rough, x64):
    A, matrix, start = rough
    values, vectors = ritz_pairs(A, start, 72)
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13 * expected[-1])
    assert np.all(np.diff(values) >= 0)
    q = np.asarray(vectors).reshape(72, -1)
    assert np.abs(q @ q.T - np.eye(72)).max() < 1e-12
    assert np.abs(q @ matrix - np.asarray(values)[:, None] * q).max() < 1e-12 * expected[-1]


def test_both_ends_of_the_spectrum_come_first(x64):
    """Known eigenvalues of a box: 80 steps of 240 have the smallest two and the largest two, and not the middle."""
    n, extent = (16, 15), (1.0, 1.3)
    lines = [4 * np.sin(np.pi * np.arange(1, k + 1) / (2 * k)) ** 2 * k**2 for k in n]
    exact = np.sort(np.add.outer(lines[0], lines[1] / extent[1] ** 2).ravel())
    A = Diffusion(Grid(n, extent, "dirichlet", "cell"))
    start = jax.random.normal(jax.random.key(0), n)
    basis = lanczos(A, start, 80)
    values, vectors = ritz_pairs(A, start, 80)
    residuals = np.linalg.norm(np.asarray(A(vectors) - values[:, None, None] * vectors).reshape(80, -1), axis=1)
    ends = [0, 1, -2, -1]
    np.testing.assert_allclose(np.asarray(values)[ends], exact[ends], rtol=0, atol=1e-10 * exact[-1])
    assert residuals[ends].max() < 1e-6 * exact[-1]
    assert residuals.max() > 1e-3 * exact[-1]
    # The residual that the basis predicts without A: the remainder times the last entry of T's eigenvector.
    _, y = np.linalg.eigh(np.asarray(basis.matrix))
    np.testing.assert_allclose(residuals, float(basis.remainder) * np.abs(y[-1]), atol=1e-13 * exact[-1])


def test_ends_when_the_span_is_invariant(x64):
    matrix, q = matrix_with([1.0] * 8 + [3.0] * 7 + [-2.0] * 5)
    start = np.random.default_rng(2).normal(size=20)
    basis = lanczos(matrix, start, 12)
    assert int(basis.num_valid) == 3  # one step per distinct eigenvalue
    assert float(basis.remainder) < 1e-12
    assert np.all(np.asarray(basis.vectors)[3:] == 0)
    assert np.all(np.asarray(basis.matrix)[3:] == 0)
    values, vectors = ritz_pairs(scipy.sparse.csr_array(matrix), start, 12)
    np.testing.assert_allclose(values[:3], [-2, 1, 3], atol=1e-12)
    assert np.all(np.isinf(values[3:]))
    assert np.all(np.asarray(vectors)[3:] == 0)
    shares = np.stack([q[:, s] @ (q[:, s].T @ start) for s in (slice(15, 20), slice(0, 8), slice(8, 15))])
    shares /= np.linalg.norm(shares, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(np.sum(shares * np.asarray(vectors)[:3], axis=1)), 1, atol=1e-12)
    eigenvector = lanczos(matrix, q[:, 0], 5)
    assert int(eigenvector.num_valid) == 1
    np.testing.assert_allclose(eigenvector.diagonal[0], 1.0)
    nothing = ritz_pairs(lambda v: 0 * v, start, 4)
    np.testing.assert_array_equal(np.asarray(nothing[0]), [0, np.inf, np.inf, np.inf])


def test_single_precision_ends_too():
    matrix, _ = matrix_with([1.0] * 8 + [3.0] * 7 + [-2.0] * 5)
    basis = lanczos(matrix, np.random.default_rng(2).normal(size=20).astype(np.float32), 12)
    assert basis.vectors.dtype == np.float32
    assert int(basis.num_valid) == 3
    Q = np.asarray(basis.vectors)[:3]
    assert np.abs(Q @ Q.T - np.eye(3)).max() < 1e-6


def test_null_vectors_are_kept_out(x64):
    """Rounding lets the constants of a Neumann box in, first into the lowest Ritz vectors of positive value."""
    n = (12, 11)
    A = Diffusion(Grid(n, boundary="neumann", centering="cell"))
    exact = np.sort(np.add.outer(*[4 * np.sin(np.pi * np.arange(k) / (2 * k)) ** 2 * k**2 for k in n]).ravel())
    start = A(jax.random.normal(jax.random.key(0), n))
    for num_steps in (90, 131):
        let_in, mixed = ritz_pairs(A, start, num_steps)
        values, vectors = ritz_pairs(A, start, num_steps, null_space=A.null_space())
        constant, none = (np.abs(np.sum(q, axis=(1, 2))) / np.sqrt(132) for q in (mixed, vectors))
        assert constant.max() > 0.5
        assert none.max() < 1e-13
        np.testing.assert_allclose(np.asarray(values)[[0, -1]], exact[[1, -1]], rtol=0, atol=1e-12 * exact[-1])
    assert let_in[0] < 1e-8 * let_in[-1]
    np.testing.assert_allclose(values, exact[1:], rtol=0, atol=1e-12 * exact[-1])
    assert int(lanczos(A, start, 132, null_space=A.null_space()).num_valid) == 131


def test_start_without_direction_gives_no_step(x64):
    run = jax.jit(lambda v: lanczos(lambda u: 2 * u, v, 3))
    for start in (jnp.zeros(5), jnp.full(5, jnp.nan), jnp.full(5, jnp.inf)):
        assert int(run(start).num_valid) == 0
    ones = NullSpace.from_basis([jnp.ones(5)])
    assert int(lanczos(lambda u: 2 * u, jnp.full(5, 0.1), 3, null_space=ones).num_valid) == 0
    assert np.all(np.isinf(jax.jit(lambda v: ritz_pairs(lambda u: 2 * u, v, 3)[0])(jnp.zeros(5))))


def test_scale_and_vmap(x64):
    matrix, _ = matrix_with(np.geomspace(1, 50, 10))
    starts = np.random.default_rng(3).normal(size=(3, 10))
    together = jax.vmap(lambda v: lanczos(matrix, v, 6))(jnp.asarray(starts))
    for i, start in enumerate(starts):
        one = lanczos(matrix, 1e-200 * start, 6)
        np.testing.assert_allclose(one.vectors, together.vectors[i], atol=1e-12)
        np.testing.assert_allclose(one.diagonal, together.diagonal[i], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"A": 3.0}, "A: expected a callable"),
        ({"A": np.eye(4)}, r"start: expected shape \(4,\)"),
        ({"A": np.triu(np.ones((6, 6)))}, "symmetric"),
        ({"A": lambda v: v[:3]}, "A: expected a map from start to the same"),
        ({"A": lambda v: v.astype(jnp.float16)}, "A: expected a map from start to the same"),
        ({"A": Diffusion(GRID)}, "grid"),
        ({"start": np.ones(6, int)}, "start: expected a real floating array"),
        ({"start": [1.0] * 6}, "start: expected a real floating array"),
        ({"start": np.float32(1.0)}, "start: expected a real floating array"),
        ({"start": np.zeros(6, np.float32)}, "start: expected a finite vector other than zero"),
        ({"start": np.full(6, np.nan, np.float32)}, "start: expected a finite vector other than zero"),
        ({"num_steps": 0}, "num_steps: expected an integer from 1 to 6"),
        ({"num_steps": 7}, "num_steps: expected an integer from 1 to 6"),
        ({"num_steps": 2.0}, "num_steps"),
        ({"num_steps": True}, "num_steps"),
        ({"null_space": np.ones(6)}, "null_space: expected a NullSpace"),
    ],
)
@pytest.mark.parametrize("function", [lanczos, ritz_pairs])
def test_refuses_bad_arguments(function, arguments, match):
    good = {"A": lambda v: 2 * v, "start": np.ones(6, np.float32), "num_steps": 3}
    with pytest.raises(ValueError, match=match):
        function(**{**good, **arguments})
