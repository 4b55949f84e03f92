"""Helmholtz against analytic waves, by the order of its convergence, and against SciPy's sparse LU."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg

import neuralops as no
from neuralops.solvers.direct.block_tridiagonal import solve_block_tridiagonal

key = jax.random.key(2)
# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual = (
    jax.jit(getattr(no.pde.Helmholtz, name), static_argnums=0) for name in ("sample", "solve", "relative_residual")
)


def wave(problem, m, k, extent):
    """cos(m pi x / L) cos(beta y), whose Laplacian is -k^2 times itself."""
    beta = np.sqrt(k**2 - (np.pi * m / extent[0]) ** 2)
    x, y = problem.grid.coordinates()
    u = np.cos(np.pi * m * x / extent[0]) * np.cos(beta * y)
    return u, lambda s: -beta * np.sin(beta * extent[1]) * np.cos(np.pi * m * s / extent[0])


@pytest.mark.parametrize("extent", [(1.0, 1.0), (1.0, 0.7)])
def test_fourth_order_for_an_analytic_wave(x64, extent):
    k, errors = 23.0, []
    for n in (31, 61, 121):
        probe = no.pde.Helmholtz((n, n), domain_extent=extent)
        _, flux = wave(probe, 3, k, extent)
        problem = no.pde.Helmholtz((n, n), domain_extent=extent, frequency=k, mean_speed=1.0, contrast=0.0, flux=flux)
        u, _ = wave(problem, 3, k, extent)
        error = solve(problem, np.ones((1, n, n)))[0] - u
        errors.append(np.linalg.norm(error) / np.linalg.norm(u))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders.min() > 3.8, (errors, orders)


@pytest.mark.parametrize("sizes", [(33, 65, 129), pytest.param((65, 129, 257), marks=pytest.mark.slow)])
def test_fourth_order_for_a_random_speed(x64, sizes):
    flux = lambda x: np.cos(np.pi * x) + np.cos(2 * np.pi * x)
    make = lambda n: no.pde.Helmholtz((n, n), frequency=400.0, num_modes=6, flux=flux)
    solutions = [np.asarray(solve(make(n), sample(make(n), key)))[0] for n in sizes]
    points = [u[:: (len(u) - 1) // 32, :: (len(u) - 1) // 32] for u in solutions]
    changes = [np.linalg.norm(b - a) for a, b in itertools.pairwise(points)]
    assert np.log2(changes[0] / changes[1]) > (3.5 if sizes[0] == 33 else 3.8)


def test_the_default_problem_is_solved(x64):
    problem = no.pde.Helmholtz()
    c = sample(problem, key)
    u = solve(problem, c)
    assert c.shape == u.shape == (1, 101, 101)
    assert 19 < float(c.min()) < float(c.max()) < 21
    assert float(relative_residual(problem, c, u)) < 1e-9
    # Flux in is source inside: the integral of -k^2 u over the box is that of the flux, here 0.3.
    inside = float(jnp.sum(-((1000 / c[0]) ** 2) * u[0] * jnp.asarray(problem.grid.weights())))
    assert abs(inside - 0.3) < 1e-2


def test_against_a_sparse_matrix(x64):
    """The residual of unit fields gives the matrix; SciPy's LU gives the solution."""
    problem = no.pde.Helmholtz((9, 11), frequency=300.0)
    c = sample(problem, key)
    load = np.asarray(problem.reference(c, c)).ravel()
    columns = jax.jit(jax.vmap(lambda e: problem.residual(c, e)))(np.eye(99).reshape(99, 1, 9, 11)).reshape(99, 99)
    matrix = sp.csc_matrix(load[:, None] - np.asarray(columns).T)
    expected = scipy.sparse.linalg.spsolve(matrix, load)
    np.testing.assert_allclose(np.asarray(solve(problem, c)).ravel(), expected, rtol=1e-9)


def test_block_elimination_against_a_dense_solve(x64):
    rng = np.random.default_rng(0)
    low, mid, up = (jnp.asarray(rng.normal(size=(5, 4, 4))) for _ in range(3))
    b = jnp.asarray(rng.normal(size=(5, 4)))
    dense = np.zeros((20, 20))
    for i in range(5):
        dense[4 * i : 4 * i + 4, 4 * i : 4 * i + 4] = mid[i]
        if i > 0:
            dense[4 * i : 4 * i + 4, 4 * i - 4 : 4 * i] = low[i]
        if i < 4:
            dense[4 * i : 4 * i + 4, 4 * i + 4 : 4 * i + 8] = up[i]
    x = solve_block_tridiagonal(lambda i: low[i], lambda i: mid[i], lambda i: up[i], b)
    np.testing.assert_allclose(np.asarray(x).ravel(), np.linalg.solve(dense, np.asarray(b).ravel()), rtol=1e-9)


def test_gradient_equals_finite_differences(x64):
    problem = no.pde.Helmholtz((9, 9), frequency=200.0)
    c, d = sample(problem, key), sample(problem, jax.random.key(3)) - 20.0
    f = jax.jit(lambda c: jnp.sum(problem.solve(c) ** 2))
    slope = float(jnp.vdot(jax.jit(jax.grad(f))(c), d))
    h = 1e-4
    np.testing.assert_allclose(slope, float((f(c + h * d) - f(c - h * d)) / (2 * h)), rtol=1e-5)


def test_generated_with_its_residual(tmp_path):
    problem = no.pde.Helmholtz((33, 33), frequency=300.0)
    data = no.data.generate(problem, key=0, num_samples=3, path=tmp_path / "h.h5", progress=False).load()
    assert data.inputs.shape == data.outputs.shape == (3, 1, 33, 33)
    assert float(np.max(data.residual_norm)) < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_points": (5, 5, 5)}, "two dimensions"), ({"frequency": -1.0}, "frequency"),
     ({"contrast": 30.0}, "mean_speed"),
     ({"flux": lambda x: np.ones(3)}, "flux")],
)  # fmt: skip
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message) as error:
        no.pde.Helmholtz(**change)
    assert ";" in str(error.value)
