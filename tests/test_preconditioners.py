"""Preconditioners, refinement and Inverse against dense matrices, closed-form polynomials and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as spl

from neuralops.grid import Grid
from neuralops.solvers import (
    CG,
    Chebyshev,
    Diffusion,
    FastPoisson,
    FlexibleCG,
    Inverse,
    Jacobi,
    Refinement,
    Result,
    Scaled,
    solve,
)  # fmt: skip
from neuralops.solvers.algebra.vectors import Dot

GRID = Grid((9, 8), (1.0, 0.9), ("dirichlet", ("neumann", "dirichlet")), "cell")
rng = np.random.default_rng(0)
FIELD = np.exp(rng.normal(size=GRID.shape))
RHS = rng.normal(size=GRID.shape)
diffusion = jax.jit(Diffusion.from_coefficient, static_argnums=0)  # one program, not one for each operation


@pytest.fixture
def case(x64):
    A = diffusion(GRID, FIELD)
    return A, jnp.asarray(RHS), np.asarray(jax.jit(Diffusion.as_matrix)(A))


def dense(M, n=RHS.size):
    """The matrix of a linear map of fields."""
    return np.asarray(jax.jit(jax.vmap(M))(jnp.eye(n).reshape(n, *GRID.shape))).reshape(n, n).T


def test_jacobi(case):
    A, b, matrix = case
    np.testing.assert_allclose(dense(Jacobi(A)), np.diag(1 / np.diag(matrix)), rtol=1e-14)
    np.testing.assert_array_equal(Jacobi(inverse_diagonal=1 / A.diagonal())(b), Jacobi(A)(b))
    scale = np.geomspace(1, 1e3, b.size)  # a badly scaled matrix: as many steps as SciPy, far fewer than without
    bad = scale[:, None] * matrix * scale
    counts = []
    _, info = spl.cg(bad, np.ravel(b), rtol=1e-8, M=np.diag(1 / np.diag(bad)), callback=lambda _: counts.append(1))
    s = solve(bad, jnp.ravel(b), CG(1e-8, preconditioner=Jacobi(bad)))
    assert info == 0
    assert bool(s.converged)
    assert abs(int(s.num_steps) - len(counts)) <= 1
    mask = np.ones(GRID.shape, bool)
    mask[2, 3] = False
    assert Jacobi(diffusion(GRID, FIELD, mask=mask))(b)[2, 3] == 0


@pytest.mark.parametrize("degree", [1, 4])
def test_chebyshev_is_the_optimal_polynomial(case, degree):
    """The eigenvalues of M A are 1 - T_k(shifted) / T_k(shifted zero), from NumPy's Chebyshev series."""
    A, _, matrix = case
    low, high = 0.1, 1.9
    M = dense(Chebyshev(A, degree, bounds=(low, high)))
    np.testing.assert_allclose(M, M.T, atol=1e-15 * np.abs(M).max() * 10)
    assert np.linalg.eigvalsh(M).min() > 0
    roots = 1 / np.sqrt(np.diag(matrix))
    eigenvalues = np.linalg.eigvalsh(roots[:, None] * matrix * roots)
    T = np.polynomial.chebyshev.Chebyshev.basis(degree)
    expected = 1 - T((high + low - 2 * eigenvalues) / (high - low)) / T((high + low) / (high - low))
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(M @ matrix).real), np.sort(expected), rtol=1e-10)


def test_chebyshev_bounds_and_gain(case):
    A, b, matrix = case
    roots = 1 / np.sqrt(np.diag(matrix))
    largest = np.linalg.eigvalsh(roots[:, None] * matrix * roots)[-1]
    assert float(Chebyshev(A).bounds[1]) == 2.0
    assert largest < 2
    estimate = float(Chebyshev(matrix).bounds[1])
    assert largest < estimate < 1.12 * largest
    run = jax.jit(lambda M: solve(A, b, CG(1e-9, preconditioner=M)).num_steps)
    steps = [int(run(M)) for M in (Jacobi(A), Chebyshev(A, 3), Chebyshev(A, 6))]
    assert steps[2] < steps[1] < steps[0]
    value = solve(A, b, CG(1e-10, preconditioner=Chebyshev(A, 3))).value
    np.testing.assert_allclose(matrix @ value.ravel(), b.ravel(), atol=1e-8)


def test_scaled_keeps_symmetry_and_saves_steps(case):
    _, b, _ = case
    x, y = np.meshgrid(*[np.linspace(0, 1, n) for n in GRID.shape], indexing="ij")
    smooth = jnp.asarray(np.exp(3 * np.sin(3 * x) * np.cos(2 * y)))
    A = diffusion(GRID, smooth)
    M = Scaled(FastPoisson(GRID), smooth**-0.5)
    matrix = dense(M)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14 * np.abs(matrix).max())
    weight = np.diag(np.ravel(smooth**-0.5))
    np.testing.assert_allclose(matrix, weight @ dense(FastPoisson(GRID)) @ weight, rtol=1e-10, atol=1e-16)
    run = jax.jit(lambda M: solve(A, b, CG(1e-9, preconditioner=M)).num_steps)
    assert int(run(M)) < int(run(FastPoisson(GRID))) / 2


def test_refinement_is_the_stationary_iteration(case):
    A, b, matrix = case
    weight = 0.5 / np.diag(matrix).reshape(GRID.shape)
    x, expected = np.zeros(b.size), []
    for _ in range(6):
        x = x + np.ravel(weight) * (np.ravel(b) - matrix @ x)
        expected.append(np.linalg.norm(np.ravel(b) - matrix @ x) / np.linalg.norm(b))
    s = jax.jit(lambda: solve(A, b, Refinement(lambda r: weight * r, 1e-6, max_steps=6, history=10)))()
    assert int(s.result) == Result.max_steps
    best = int(np.argmin([1.0, *expected]))
    np.testing.assert_allclose(s.history[1:7], expected, rtol=1e-12)
    np.testing.assert_allclose(s.residual_norm, ([1.0, *expected])[best], rtol=1e-12)
    if best == 6:
        np.testing.assert_allclose(s.value.ravel(), x, rtol=1e-10, atol=1e-12)
    exact = jax.jit(lambda: solve(A, b, lambda r: jnp.linalg.solve(matrix, r.ravel()).reshape(r.shape)))()
    assert bool(exact.converged)
    assert int(exact.num_steps) == 1
    started = jax.jit(lambda x0: solve(A, b, Refinement(FastPoisson(GRID)), x0=x0))(exact.value)
    assert int(started.num_steps) == 0


def test_refinement_that_fails_returns_its_best(case):
    A, b, matrix = case
    inverse = np.linalg.inv(matrix)
    apply = lambda matrix: lambda r: (matrix @ r.ravel()).reshape(r.shape)
    u = np.linalg.eigh(matrix)[1]
    signs = np.where(np.arange(b.size) < 3, -0.5, 1.0)  # three error modes grow, the others vanish
    cases = {
        "overshoot": (lambda r: 2.5 * apply(inverse)(r), Result.stagnated),
        "useless": (lambda r: 0 * r, Result.stagnated),
        "nan": (lambda r: r.at[0, 0].set(jnp.nan), Result.nonfinite),
        "part": (apply(u * signs @ u.T @ inverse), Result.stagnated),
    }
    for name, (M, code) in cases.items():
        s = jax.jit(lambda M=M: solve(A, b, Refinement(M, 1e-10)))()
        true = np.linalg.norm(np.ravel(b) - matrix @ np.ravel(s.value)) / np.linalg.norm(b)
        assert int(s.result) == code, name
        np.testing.assert_allclose(s.residual_norm, true, rtol=1e-9)
        assert true < 0.9 if name == "part" else true <= 1
        assert int(s.num_steps) <= 60
    assert int(solve(A, b, Refinement(FastPoisson(GRID), max_steps=0)).result) == Result.max_steps


def test_mixed_precision_reaches_double(x64):
    """A float32 solve stops at 1e-5 here; wrapped in Refinement it gives twelve digits in a few sweeps."""
    grid = Grid((48, 48), boundary="dirichlet", centering="cell")
    a = jnp.asarray(np.exp(np.random.default_rng(1).normal(size=grid.shape)))
    A, b = diffusion(grid, a), jnp.ones(grid.shape)
    narrow = diffusion(grid, a.astype(jnp.float32))
    single, cast, built = jax.jit(
        lambda: (
            solve(narrow, b.astype(jnp.float32), CG(1e-12)),
            solve(A, b, Refinement(Inverse(A, CG(1e-3, max_steps=1000), dtype="float32"), 1e-12)),
            solve(A, b, Refinement(Inverse(narrow, CG(1e-3, max_steps=1000)), 1e-12)),
        )
    )()
    assert int(single.result) == Result.stagnated
    assert float(single.residual_norm) > 1e-6
    for s in (cast, built):
        assert bool(s.converged)
        assert s.value.dtype == jnp.float64
        assert float(jnp.linalg.norm(b - A(s.value)) / jnp.linalg.norm(b)) <= 1e-12
        assert int(s.num_steps) <= 6


@pytest.mark.parametrize("precision", ["float64", "compensated"])
def test_inner_products_that_keep_cancelling_digits(x64, precision):
    n = 20001
    a = np.random.default_rng(0).normal(size=n).astype(np.float32)
    u, v = np.concatenate([a, a]), np.concatenate([np.ones(n), -np.ones(n)]).astype(np.float32)
    u[-1] += np.float32(1e-3)
    exact = float(u.astype(np.float64) @ v)
    tree = lambda w: {"a": jnp.asarray(w[:n]), "b": jnp.asarray(w[n:]).reshape(3, -1)}
    dot = jax.jit(lambda u, v, p: Dot((), p)(u, v), static_argnums=2)
    assert abs(float(dot(tree(u), tree(v), precision)) - exact) < 1e-6 * abs(exact)
    assert abs(float(dot(tree(u), tree(v), None)) - exact) > 1e-4 * abs(exact)
    stack = jnp.stack([u, v, u + v])
    many = jax.jit(lambda: Dot((), precision).stacked(stack, jnp.asarray(v)))()
    np.testing.assert_allclose(many, np.asarray(stack, np.float64) @ v, rtol=1e-5)


@pytest.mark.slow
def test_better_inner_products_inside_a_solve(x64):
    grid = Grid((24, 24), boundary="dirichlet", centering="cell")
    A, b = Diffusion(grid), jnp.asarray(np.random.default_rng(0).normal(size=grid.shape), jnp.float32)
    double = jax.jit(lambda: solve(A, b.astype(jnp.float64), CG(1e-4)))()
    for precision, method in (("float64", CG), ("compensated", FlexibleCG)):
        s = jax.jit(lambda m=method, p=precision: solve(A, b, m(1e-4, dot=p, history=100)))()
        assert bool(s.converged)
        assert s.value.dtype == s.residual_norm.dtype == jnp.float32
        assert abs(int(s.num_steps) - int(double.num_steps)) <= 1
        exact = b.astype(jnp.float64) - A(s.value.astype(jnp.float64))
        np.testing.assert_allclose(s.residual_norm, jnp.linalg.norm(exact) / jnp.linalg.norm(b), rtol=1e-3)


def test_double_inner_products_need_double_precision():
    with pytest.raises(ValueError, match="dot: 'float64' expected double precision to be enabled"):
        solve(lambda v: v, jnp.ones(3), CG(dot="float64"))
    assert bool(solve(lambda v: 2 * v, jnp.ones(3), CG(dot="compensated")).converged)


def test_inverse_is_the_inverse(case):
    A, b, matrix = case
    method = CG(jnp.asarray(1e-12), max_steps=500, preconditioner=Jacobi(A))
    op = Inverse(A, method)
    inverse = np.linalg.inv(matrix)
    np.testing.assert_allclose(dense(op), inverse, atol=1e-10 * np.abs(inverse).max())
    assert all(eqx_float(leaf) for leaf in jax.tree.leaves(op))  # max_steps is static, rtol a leaf
    assert op.method.max_steps == 500
    assert op.method.rtol == 1e-12
    assert jax.tree.structure(op.method) == jax.tree.structure(method)
    np.testing.assert_allclose(A(op(b)), b, atol=1e-10)
    c = jnp.asarray(np.random.default_rng(2).normal(size=GRID.shape))

    def ours(a):
        A = Diffusion.from_coefficient(GRID, a)
        return jnp.vdot(c, Inverse(A, CG(1e-13, preconditioner=Jacobi(A)))(b))

    def exact(a):
        return jnp.vdot(
            c, jnp.linalg.solve(Diffusion.from_coefficient(GRID, a).as_matrix(), b.ravel()).reshape(c.shape)
        )

    found, expected = (jax.jit(jax.grad(f))(jnp.asarray(FIELD)) for f in (ours, exact))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


@pytest.mark.slow
def test_a_solve_inside_the_operator(case):
    """A Schur complement, 3 + A^-1, inverted; with its gradient, and its transpose by vjp."""
    _, b, _ = case

    def ours(a):
        inner = Inverse(Diffusion.from_coefficient(GRID, a), CG(1e-14, preconditioner=FastPoisson(GRID)))
        s = solve(lambda v: 3 * v + inner(v), b, CG(1e-12))
        return jnp.sum(s.value**2), (jax.vjp(inner, b)[1](b)[0], inner(b))

    def exact(a):
        matrix = jnp.linalg.inv(Diffusion.from_coefficient(GRID, a).as_matrix())
        return jnp.sum(jnp.linalg.solve(3 * jnp.eye(b.size) + matrix, b.ravel()) ** 2)

    found, (transposed, straight) = jax.jit(jax.grad(ours, has_aux=True))(jnp.asarray(FIELD))
    expected = jax.jit(jax.grad(exact))(jnp.asarray(FIELD))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(transposed, straight, rtol=0, atol=1e-11 * np.abs(straight).max())


def eqx_float(leaf):
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


B = np.ones(GRID.shape, np.float32)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Jacobi(lambda v: v), "A: expected an operator with diagonal"),
        (lambda: Jacobi(Diffusion(GRID))(B[:3]), "r: expected the shape"),
        (lambda: Jacobi(Diffusion(GRID))(B.astype(int)), "r: expected a real floating array"),
        (lambda: Chebyshev(Diffusion(GRID), 0), "degree: expected a positive integer"),
        (lambda: Chebyshev(Diffusion(GRID), bounds=(2.0, 1.0)), "bounds: expected 0 < low < high"),
        (lambda: Chebyshev(Diffusion(GRID), bounds=2.0), "bounds: expected two numbers"),
        (lambda: Chebyshev(lambda v: v), "A: expected an operator with diagonal"),
        (lambda: Scaled(3.0, B), "op: expected a callable"),
        (lambda: Refinement(CG), "inverse: expected a callable"),
        (lambda: Refinement(3.0), "inverse: expected a callable"),
        (lambda: Refinement(FastPoisson(GRID), -1.0), "rtol: expected a number not below zero"),
        (lambda: Inverse(Diffusion(GRID), CG), "method: expected an instance"),
        (lambda: Inverse(Diffusion(GRID), CG(), dtype="half"), "dtype: expected None, 'float32' or 'float64'"),
        (lambda: Inverse(Diffusion(GRID), CG())(B[:3]), "Diffusion is locked to the grid"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
