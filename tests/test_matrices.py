"""Dense, BCOO, BCSR and SciPy matrices and lineax operators as linear maps: products, solves, gradients, refusals."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from jax.experimental.sparse import BCOO, BCSR

from neuralops.solvers import CG, solve
from neuralops.solvers.algebra.matrices import DenseMatrix, SparseMatrix, as_linear_map
from neuralops.solvers.solution import Result


def laplacian(n=9):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return (sp.kron(line, eye) + sp.kron(eye, line) + 0.1 * sp.eye_array(n * n)).tocsr()


def hub(n=300, seed=0):
    """Short rows, but for two that touch everything; symmetric and dominated by its diagonal."""
    rng = np.random.default_rng(seed)
    edges = sp.coo_array((rng.normal(size=n), (rng.integers(0, n, n), rng.integers(0, n, n))), shape=(n, n))
    star = sp.coo_array((np.ones(2 * n), (np.repeat([3, n - 1], n), np.tile(np.arange(n), 2))), shape=(n, n))
    A = (edges + edges.T + star + star.T).tocsr()
    return (A + sp.diags_array(abs(A).sum(axis=1) + 1.0)).tocsr()


def rhs(n, seed=1):
    return np.random.default_rng(seed).normal(size=n)


apply = jax.jit(lambda M, v: (M(v), M.diagonal()))
apply_traced = jax.jit(lambda A, v: apply(as_linear_map(A, v), v))


@pytest.mark.parametrize("make", [laplacian, hub])
def test_products_and_diagonals_are_scipys(x64, make):
    A = make()
    n = A.shape[0]
    v = jnp.asarray(rhs(n))
    coo = A.tocoo()
    halves = [np.tile(x, 2)[::-1] for x in (coo.data / 2, coo.row, coo.col)]  # every entry twice, in no order
    split = sp.coo_array((halves[0], (halves[1], halves[2])), shape=A.shape)
    bcoo = BCOO.from_scipy_sparse(coo)
    padded = BCOO.fromdense(jnp.asarray(A.toarray()), nse=A.nnz + 7)  # indices out of bounds at the end
    bcsr = BCSR.fromdense(jnp.asarray(A.toarray()), nse=A.nnz + 7)

    def check(product, diagonal):
        np.testing.assert_allclose(product, A @ np.asarray(v), rtol=0, atol=1e-13 * n)
        np.testing.assert_allclose(diagonal, A.diagonal(), rtol=1e-14)

    for form in (A, A.tocsc(), split, sp.csr_matrix(A), bcoo, padded, bcsr):
        M = as_linear_map(form, v)
        assert isinstance(M, SparseMatrix)
        check(*apply(M, v))
    for form in (A.toarray(), jnp.asarray(A.toarray())):
        M = as_linear_map(form, v)
        assert isinstance(M, DenseMatrix)
        check(*apply(M, v))
    for form in (padded, bcsr):
        check(*apply_traced(form, v))  # pattern and entries unknown
        check(*jax.jit(lambda v, form=form: apply(as_linear_map(form, v), v))(v))  # a constant inside jit


def test_long_rows_are_left_out_of_the_padded_block():
    short, long = as_linear_map(laplacian()), as_linear_map(hub())
    assert short.values.shape == (5, 81)
    assert short.rest_values.size == 0
    assert long.values.shape[0] < 12
    assert long.rest_values.size > 500
    empty = as_linear_map(sp.csr_array((4, 4)))
    assert [u.tolist() for u in apply(empty, jnp.ones(4))] == [[0.0] * 4] * 2


def test_solve_takes_every_matrix(x64):
    A, b = laplacian(), rhs(81)
    expected = np.linalg.solve(A.toarray(), b)
    bcoo = BCOO.from_scipy_sparse(A.tocoo())
    operator = lx.MatrixLinearOperator(jnp.asarray(A.toarray()), lx.positive_semidefinite_tag)
    for form in (A, A.toarray(), jnp.asarray(A.toarray()), bcoo, BCSR.from_bcoo(bcoo), operator):
        s = solve(form, b, CG(1e-12))
        assert bool(s.converged)
        np.testing.assert_allclose(s.value, expected, rtol=0, atol=1e-11)


def test_matrices_of_the_host_follow_the_right_hand_side():
    """Without double precision a SciPy matrix is computed with in single, and solves to it."""
    A, b = laplacian(), rhs(81)
    s = solve(A, b, CG(1e-6))
    assert s.value.dtype == jnp.float32
    assert bool(s.converged)
    np.testing.assert_allclose(s.value, np.linalg.solve(A.toarray(), b), atol=1e-4)


def test_new_values_do_not_recompile(counted):
    A, b = laplacian(), rhs(81)
    fn, traces = counted(lambda A, b: solve(A, b, CG(1e-5)).value)
    run = jax.jit(fn)
    for scale in (1.0, 2.0, 5.0):
        M = as_linear_map(sp.csr_array(scale * A), b)
        np.testing.assert_allclose(run(M, b), np.linalg.solve(scale * A.toarray(), b), atol=1e-3)
    assert len(traces) == 1


@pytest.mark.parametrize("kind", ["dense", "bcoo", "bcsr"])
def test_gradients_in_the_entries(x64, kind):
    """Against lambda x^T, lambda solving for the cotangent: x = A^-1 b with A symmetric."""
    A, b, w = laplacian(4), jnp.asarray(rhs(16)), jnp.asarray(rhs(16, 2))
    dense, coo = A.toarray(), A.tocoo()
    bcoo = BCOO.from_scipy_sparse(coo)
    if kind == "dense":
        values, build = jnp.asarray(dense), lambda a: a
    elif kind == "bcoo":
        values, build = bcoo.data, lambda a: BCOO((a, bcoo.indices), shape=A.shape)
    else:
        bcsr = BCSR.from_bcoo(bcoo)
        values, build = bcsr.data, lambda a: BCSR((a, bcsr.indices, bcsr.indptr), shape=A.shape)
    loss = lambda a: w @ solve(build(a), b, CG(1e-13)).value
    expected = -np.outer(np.linalg.solve(dense, w), np.linalg.solve(dense, b))
    expected = expected if kind == "dense" else expected[coo.row, coo.col]
    np.testing.assert_allclose(jax.grad(loss)(values), expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(values), expected, rtol=0, atol=1e-10)


def test_vmap_over_right_hand_sides_and_entries(x64):
    A, B = laplacian(4), rhs((3, 16))
    bcoo = BCOO.from_scipy_sparse(A.tocoo())
    expected = np.linalg.solve(A.toarray(), B.T).T
    np.testing.assert_allclose(jax.vmap(lambda b: solve(A, b, CG(1e-12)).value)(B), expected, atol=1e-11)
    batch = jax.vmap(lambda scale, b: solve(BCOO((scale * bcoo.data, bcoo.indices), shape=A.shape), b, CG(1e-12)).value)
    scales = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(batch(scales, B), expected / scales[:, None], atol=1e-11)


def test_unsuitable_matrices_are_refused():
    A, b = laplacian(4), rhs(16).astype(np.float32)
    rng = np.random.default_rng(0)
    lopsided = sp.csr_array(A + 1e-3 * sp.random_array(A.shape, density=0.1, rng=rng))
    cases = [
        (A[:, :9], b, "A: expected a square matrix"),
        (np.ones(4, np.float32), b, "A: expected a square matrix"),
        (A, b[:9], r"b: expected shape \(16,\) for a matrix A of shape \(16, 16\), got shape \(9,\)"),
        (A, b.reshape(4, 4), r"use b.ravel\(\)"),
        (A, np.stack([b] * 3), r"jax.vmap\(lambda b: solve\(A, b, method\), in_axes=0\)"),
        (A, {"u": b}, "b: expected shape .* got a dict"),
        (A.astype(complex), b, r"real floating matrix, got complex128; of a Hermitian one solve the real form"),
        (A.astype(int), b, r"got int64; use A.astype\(float\)"),
        (lopsided, b, "A: expected a symmetric matrix"),
        (lopsided.toarray(), b, "A: expected a symmetric matrix"),
        (jnp.asarray(lopsided.toarray()), b, "A: expected a symmetric matrix"),
        (BCOO.from_scipy_sparse(lopsided.tocoo().astype(np.float32)), b, "A: expected a symmetric matrix"),
        (jnp.asarray(A.toarray(), jnp.bfloat16), b, r"expected the dtype of b, float32, got bfloat16"),
        (BCOO.fromdense(jnp.ones((2, 3, 3)), n_batch=1), b[:3], "n_batch=1"),
        (spl.aslinearoperator(A), b, "which computes in NumPy"),
        (lx.MatrixLinearOperator(jnp.eye(16)), b, "lineax operator tagged"),
    ]
    for matrix, vector, message in cases:
        with pytest.raises(ValueError, match=message):
            solve(matrix, vector, CG())
    skewed = A.copy()
    skewed.data = skewed.data * (1 + 1e-14 * rng.normal(size=skewed.nnz))  # as assembly leaves it
    assert bool(solve(skewed, b, CG(1e-5)).converged)


def test_bad_spectra_are_reported(x64):
    A, b = laplacian(4).toarray(), rhs(16)
    assert int(solve(-A, b, CG(1e-10)).result) == Result.breakdown
    assert int(solve(A - 3 * np.eye(16), b, CG(1e-10)).result) in (Result.breakdown, Result.converged)
    A[3, 3] = np.nan
    assert int(solve(A, b, CG(1e-10)).result) == Result.nonfinite
