"""The rooms to SciPy and lineax: our methods there and theirs here, against dense algebra and their own answers."""

import itertools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl

from neuralops.grid import Grid
from neuralops.interop import lineax as to_lx
from neuralops.interop import scipy as to_sp
from neuralops.solvers import CG, Diffusion, FastPoisson, FlexibleCG, Inverse, solve
from neuralops.solvers.algebra.matrices import as_linear_map


def laplacian(n=9):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n))
    eye = sp.eye_array(n)
    return (sp.kron(line, eye) + sp.kron(eye, line) + 0.1 * sp.eye_array(n * n)).tocsr()


def rhs(n, seed=1):
    return np.random.default_rng(seed).normal(size=n)


# SciPy


def test_cg_is_scipys(x64):
    A, b = laplacian(17), rhs(289)
    M = sp.diags_array(1 / A.diagonal())
    for kwargs in ({"maxiter": 2000}, {"maxiter": 2000, "M": M, "rtol": 1e-11}, {"x0": rhs(289, 3)}):
        expected, _ = spl.cg(A, b, **kwargs)
        x, info = to_sp.cg(A, b, **kwargs)
        assert info == 0
        assert (x.dtype, type(x)) == (np.float64, np.ndarray)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert to_sp.cg(A, b, rtol=1e-12, maxiter=3)[1] == 3 == spl.cg(A, b, rtol=1e-12, maxiter=3)[1]
    np.testing.assert_allclose(to_sp.cg(A, b, rtol=0, maxiter=3)[0], spl.cg(A, b, rtol=0, maxiter=3)[0], atol=1e-12)
    by_function = to_sp.cg(A, b, rtol=0, maxiter=3, M=lambda r: r / jnp.asarray(A.diagonal()))[0]
    np.testing.assert_allclose(by_function, spl.cg(A, b, rtol=0, maxiter=3, M=M)[0], atol=1e-12)
    assert to_sp.cg(-A, b, maxiter=9)[1] < 0
    x, info = to_sp.cg(A, 0 * b, maxiter=9)
    assert (info, float(np.abs(x).max())) == (0, 0.0)


def test_numpy_users_get_double_precision():
    """Nobody enabled it globally, nobody sees JAX arrays."""
    A, b = laplacian(), rhs(81)
    s = to_sp.solve(A, b, CG(1e-12))
    assert isinstance(s.value, np.ndarray)
    assert "converged" in s.message
    np.testing.assert_allclose(s.value, spl.spsolve(A, b), rtol=0, atol=1e-11)
    grid = Grid((9, 9), boundary="dirichlet")
    s = to_sp.solve(Diffusion(grid), b.reshape(9, 9), CG(1e-12), x0=np.ones((9, 9)))
    np.testing.assert_allclose(s.value.ravel(), spl.spsolve(to_sp.to_sparse(Diffusion(grid)), b), rtol=0, atol=1e-11)
    assert jnp.zeros(()).dtype == jnp.float32
    s.value[0] = 0.0  # theirs to change
    with pytest.raises(RuntimeError, match="max_steps"):
        to_sp.solve(A, b, CG(1e-12, max_steps=2), throw=True)
    with pytest.raises(ValueError, match=r"b: expected real floating numbers, got int64; use b.astype\(float\)"):
        to_sp.solve(A, np.ones(81, int), CG())
    with pytest.raises(ValueError, match="M: expected a square matrix"):
        to_sp.cg(A, b, M=np.ones(81))
    with pytest.raises(ValueError, match="M: expected a matrix or a function JAX can trace"):
        to_sp.cg(A, b, M=spl.aslinearoperator(A))


WALLS = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]


def diffusions():
    rng = np.random.default_rng(0)
    for walls, centering in itertools.product(WALLS, ("cell", "node")):
        grid = Grid((4, 3), (1.0, 2.0), boundary=(walls, "neumann"), centering=(centering, "node"))
        mask = rng.uniform(size=grid.shape) > 0.3
        yield Diffusion.from_coefficient(grid, jnp.asarray(np.exp(rng.normal(size=grid.shape))), mask=jnp.asarray(mask))
    for m in (1, 2):
        yield Diffusion(Grid((m, 3), boundary="periodic", centering="cell"))
    yield Diffusion(Grid((3, 4, 2), boundary=("dirichlet", "periodic", "neumann"), centering="cell"))
    yield Diffusion(Grid((3, 2), boundary="dirichlet", centering="cell"), widths=((0.2, 0.3, 0.5), None))


@pytest.mark.slow
def test_to_sparse_is_the_operator(x64):
    for A in diffusions():
        matrix, dense = to_sp.to_sparse(A), np.asarray(jax.jit(A.as_matrix)())
        np.testing.assert_allclose(matrix.toarray(), dense, rtol=0, atol=1e-12 * np.abs(dense).max())
        off = matrix - sp.diags_array(matrix.diagonal())
        off.eliminate_zeros()
        assert matrix.nnz == off.nnz + matrix.shape[0]
    operator = to_sp.as_linear_operator(A)
    np.testing.assert_allclose(operator @ np.eye(6), dense, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="A: expected a Diffusion, got FastPoisson"):
        to_sp.to_sparse(FastPoisson(Grid(4)))


def test_preconditioners_in_scipys_cg():
    """The unit coefficient's inverse takes one step on its own matrix, and few on a rough one: from plain NumPy."""
    grid = Grid((31, 30), boundary="dirichlet", centering=("node", "cell"))
    a = np.exp(0.5 * np.random.default_rng(0).normal(size=grid.shape))
    with jax.enable_x64(True):
        A = Diffusion.from_coefficient(grid, a)
    matrix, b = to_sp.to_sparse(A), rhs(930)
    for precision in (np.float64, np.float32):
        M, steps = to_sp.as_linear_operator(FastPoisson(grid), dtype=precision), []
        x, info = spl.cg(matrix, b, M=M, rtol=1e-10, callback=steps.append)
        assert info == 0
        assert x.dtype == np.float64
        assert len(steps) < 50
        np.testing.assert_allclose(x, spl.spsolve(matrix, b), rtol=0, atol=1e-8 * np.abs(x).max())
        one = []
        spl.cg(to_sp.to_sparse(Diffusion(grid)), b, M=M, rtol=1e-5, callback=one.append)
        assert len(one) == 1
    inverse = to_sp.as_linear_operator(Inverse(A, CG(1e-9)))  # finds the grid in what it inverts
    np.testing.assert_allclose(matrix @ (inverse @ b), b, rtol=0, atol=1e-7)


def test_linear_operator_has_blocks_and_transposes():
    grid = Grid(20, boundary="dirichlet", centering="node")
    A = to_sp.as_linear_operator(Diffusion(grid))
    start = np.random.default_rng(0).normal(size=(20, 2))
    found, _ = spl.lobpcg(A, start, largest=False, tol=1e-9, maxiter=200)
    np.testing.assert_allclose(np.sort(found), [(42 * np.sin(k * np.pi / 42)) ** 2 for k in (1, 2)], rtol=1e-8)
    assert (A @ start[:, :0]).shape == (20, 0)
    shear = to_sp.as_linear_operator(lambda v: v + 2 * jnp.roll(v, 1, 0), (3, 2))
    dense = shear @ np.eye(6)
    assert not np.allclose(dense, dense.T)
    np.testing.assert_allclose(shear.T @ np.eye(6), dense.T)
    np.testing.assert_allclose(np.stack([shear.rmatvec(e) for e in np.eye(6)], axis=1), dense.T)
    with pytest.raises(ValueError, match=r"shape: expected the shape of a field, got None"):
        to_sp.as_linear_operator(lambda v: v)
    with pytest.raises(ValueError, match=r"A: expected a map from fields of shape \(6,\) to the same, got \(3,\)"):
        to_sp.as_linear_operator(lambda v: v[:3], 6)
    with pytest.raises(ValueError, match=r"dtype: expected np.float32 or np.float64, got int64"):
        to_sp.as_linear_operator(lambda v: v, 6, dtype=np.int64)
    with pytest.raises(ValueError, match="x: expected real vectors, got complex128"):
        A @ (1j * np.ones(20))


# lineax


def spd(n=12, seed=0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return jnp.asarray(q @ np.diag(np.geomspace(1, 50, n)) @ q.T), jnp.asarray(rng.normal(size=n))


def test_lineax_uses_our_methods(x64):
    matrix, b = spd()
    expected = jnp.linalg.solve(matrix, b)
    solver = to_lx.Solver(CG(1e-12))
    for sign, tag in ((1, lx.positive_semidefinite_tag), (-1, lx.negative_semidefinite_tag)):
        s = lx.linear_solve(lx.MatrixLinearOperator(sign * matrix, tag), b, solver)
        assert s.result == lx.RESULTS.successful
        np.testing.assert_allclose(s.value, sign * expected, rtol=0, atol=1e-11)
        assert 10 <= int(s.stats["num_steps"]) <= 14
        assert float(s.stats["residual_norm"]) <= 1e-12
    options = {"preconditioner": lx.DiagonalLinearOperator(1 / jnp.diag(matrix)), "y0": expected}
    operator = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
    options["preconditioner"] = lx.TaggedLinearOperator(options["preconditioner"], lx.positive_semidefinite_tag)
    s = lx.linear_solve(operator, b, solver, options=options)
    assert int(s.stats["num_steps"]) == 0
    batch = jax.vmap(lambda b: lx.linear_solve(operator, b, solver).value)(jnp.stack([b, 2 * b]))
    np.testing.assert_allclose(batch, jnp.stack([expected, 2 * expected]), rtol=0, atol=1e-11)


def test_lineax_gradients_are_a_direct_solvers(x64):
    matrix, b = spd()
    w = jnp.asarray(rhs(12, 5))

    def loss(matrix, b, solver):
        symmetric = (matrix + matrix.T) / 2
        return w @ lx.linear_solve(lx.MatrixLinearOperator(symmetric, lx.positive_semidefinite_tag), b, solver).value

    def preconditioned(matrix, b):  # made of what is being differentiated
        return loss(matrix, b, to_lx.Solver(CG(1e-12, preconditioner=as_linear_map(jnp.diag(1 / jnp.diag(matrix))))))

    expected = jax.grad(loss, (0, 1))(matrix, b, lx.Cholesky())
    for function in (lambda m, b: loss(m, b, to_lx.Solver(CG(1e-12))), preconditioned):
        for got, want in zip(jax.jit(jax.grad(function, (0, 1)))(matrix, b), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


def test_nonlinear_preconditioners_come_with_the_method(x64):
    """lineax takes none in its options; our flexible method carries one."""
    matrix, b = spd()
    lopsided = lambda r: jnp.where(r > 0, 1.5, 0.5) * r
    solver = to_lx.Solver(FlexibleCG(1e-11, preconditioner=lopsided))
    s = lx.linear_solve(lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag), b, solver)
    assert s.result == lx.RESULTS.successful
    np.testing.assert_allclose(s.value, jnp.linalg.solve(matrix, b), rtol=0, atol=1e-9)


def test_lineax_composes_least_squares(x64):
    """lineax's normal equations around our CG, as optimistix uses them: value and gradient as by QR."""
    rng = np.random.default_rng(0)
    tall, b = jnp.asarray(rng.normal(size=(9, 5))), jnp.asarray(rng.normal(size=9))

    def loss(matrix, solver):
        return jnp.sum(lx.linear_solve(lx.MatrixLinearOperator(matrix), b, solver).value ** 2)

    (ours, our_slope), (theirs, their_slope) = (
        jax.jit(jax.value_and_grad(lambda matrix, s=s: loss(matrix, s)))(tall)
        for s in (lx.Normal(to_lx.Solver(CG(1e-13))), lx.QR())
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    np.testing.assert_allclose(our_slope, their_slope, rtol=0, atol=1e-11)


def test_lineax_results(x64):
    matrix, b = spd()

    def run(matrix, b, rtol=1e-9, max_steps=200):
        operator = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)
        return lx.linear_solve(operator, b, to_lx.Solver(CG(rtol, max_steps=max_steps)), throw=False).result

    assert run(matrix, b) == lx.RESULTS.successful
    assert run(matrix, b, max_steps=2) == lx.RESULTS.max_steps_reached
    assert run(matrix, b, rtol=0.0) == lx.RESULTS.stagnation
    assert run(-matrix, b) == lx.RESULTS.breakdown
    assert run(matrix, b.at[0].set(jnp.nan)) == lx.RESULTS.nonfinite_input
    assert run(matrix.at[0, 0].set(jnp.nan), b) == lx.RESULTS.singular
    grid = Grid(8, boundary="neumann", centering="cell")
    operator, f = to_lx.to_lineax(Diffusion(grid), jnp.ones(8)), jnp.arange(8.0)
    s = lx.linear_solve(operator, f, to_lx.Solver(CG(1e-10)), throw=False)
    assert s.result == lx.RESULTS.singular  # incompatible: no solution
    s = lx.linear_solve(operator, f - f.mean(), to_lx.Solver(CG(1e-10)))  # the null space is known
    np.testing.assert_allclose(Diffusion(grid)(s.value), f - f.mean(), atol=1e-8)
    with pytest.raises(Exception, match="maximum number of solver steps"):
        lx.linear_solve(to_lx.to_lineax(Diffusion(grid), f), f - f.mean(), to_lx.Solver(CG(1e-10, max_steps=1)))


def test_our_operators_in_lineaxs_cg(x64):
    grid = Grid((12, 11), boundary="dirichlet", centering="cell")
    a = jnp.asarray(np.exp(0.3 * rhs(grid.shape)))
    A, b = Diffusion.from_coefficient(grid, a), jnp.asarray(rhs(grid.shape))
    options = {"preconditioner": to_lx.to_lineax(FastPoisson(grid), b)}
    s = lx.linear_solve(to_lx.to_lineax(A), b, lx.CG(1e-11, 1e-11), options=options)
    assert int(s.stats["num_steps"]) < 30
    np.testing.assert_allclose(s.value, solve(A, b, CG(1e-12)).value, rtol=0, atol=1e-10)
    direct = lx.linear_solve(to_lx.to_lineax(Diffusion(grid)), b, to_lx.Solver(FastPoisson(grid)))
    np.testing.assert_allclose(Diffusion(grid)(direct.value), b, atol=1e-10)

    def loss(a, solver):
        return jnp.sum(lx.linear_solve(to_lx.to_lineax(Diffusion.from_coefficient(grid, a)), b, solver).value ** 2)

    theirs, ours = (
        jax.jit(jax.grad(lambda a, s=s: loss(a, s)))(a) for s in (lx.CG(1e-12, 1e-12), to_lx.Solver(CG(1e-12)))
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_lineaxs_rules_are_told(x64):
    matrix, b = spd()
    operator, solver = lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag), to_lx.Solver(CG())
    cases = [
        (lx.MatrixLinearOperator(matrix), {}, "operator: expected one tagged positive or negative semidefinite"),
        (lx.MatrixLinearOperator(matrix[:, :4]), {}, "operator: expected a square one"),
        (lx.MatrixLinearOperator(matrix + 0j, lx.positive_semidefinite_tag), {}, "operator: expected a real one"),
        (operator, {"restart": 3}, r"options: expected 'preconditioner' and 'y0' only, got \['restart'\]"),
        (operator, {"preconditioner": lx.MatrixLinearOperator(matrix)}, r"operator tagged positive semidefinite"),
    ]
    for op, options, message in cases:
        vector = b + 0j if op.out_structure().dtype == complex else b
        with pytest.raises(ValueError, match=message):
            lx.linear_solve(op, vector, solver, options=options)
    twice = to_lx.Solver(CG(preconditioner=lambda r: r))
    with pytest.raises(ValueError, match="give it in one place"):
        lx.linear_solve(operator, b, twice, options={"preconditioner": operator})
    with pytest.raises(ValueError, match=r"method: expected one such as CG\(rtol=1e-6\)"):
        to_lx.Solver(CG)
    with pytest.raises(ValueError, match="like: expected a field"):
        to_lx.to_lineax(lambda v: v)
    with pytest.raises(ValueError, match="A: expected a map from"):
        to_lx.to_lineax(lambda v: v[:2], b)
