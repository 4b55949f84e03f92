"""Poisson against manufactured solutions with measured order, and against a dense solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.pde import GaussianRandomField, Poisson

MIXED = ("dirichlet", "neumann")
EXTENT = (1.0, 1.5, 0.8)
POINTS = {1: (64, 128), 2: (24, 48), 3: (14, 28)}


def profile(boundary, t):
    """A smooth function of t in [0, 1] with the condition and zero mean, and its second derivative.

    Two modes of each kind, so that no error happens to be that of an eigenfunction.
    """
    modes = {
        "dirichlet": (np.sin, np.pi, (1, 2)),
        "neumann": (np.cos, np.pi, (1, 2)),
        "periodic": (np.sin, 2 * np.pi, (1, 2)),
        MIXED: (np.sin, np.pi / 2, (1, 3)),
    }
    f, unit, (p, q) = modes[boundary]
    value = f(unit * p * t) + 0.4 * f(unit * q * t)
    curvature = -((unit * p) ** 2) * f(unit * p * t) - 0.4 * (unit * q) ** 2 * f(unit * q * t)
    return value, curvature


def manufactured(grid):
    """u = product of profiles and f = -Laplacian u at the points."""
    values, curvatures = [], []
    for axis in range(grid.ndim):
        L = grid.domain_extent[axis]
        v, c = profile(grid.boundary[axis], grid.points(axis) / L)
        shape = [-1 if a == axis else 1 for a in range(grid.ndim)]
        values.append(v.reshape(shape))
        curvatures.append(c.reshape(shape) / L**2)
    u, f = np.ones(grid.shape), np.zeros(grid.shape)
    for v in values:
        u = u * v
    for axis in range(grid.ndim):
        term = curvatures[axis]
        for other in range(grid.ndim):
            if other != axis:
                term = term * values[other]
        f = f - term
    return u[None], f[None]


@pytest.mark.parametrize("centering", ["cell", "node"])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic", (MIXED,) * 3, ("periodic", "neumann", MIXED)])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_second_order(ndim, boundary, centering, x64):
    errors, spacings = [], []
    for n in POINTS[ndim]:
        words = boundary if isinstance(boundary, str) else boundary[-ndim:]
        problem = Poisson((n,) * ndim, boundary=words, centering=centering, domain_extent=EXTENT[:ndim])
        u, f = manufactured(problem.grid)
        weights = problem.grid.weights()
        solution = np.asarray(jax.jit(problem.solve)(f))
        if all(b in ("neumann", "periodic") for b in problem.boundary):
            assert abs(np.sum(weights * solution)) < 1e-13  # the rule of zero mean
            u = u - np.sum(weights * u) / np.sum(weights)
        errors.append(np.sqrt(np.sum(weights * (solution - u) ** 2)))
        spacings.append(problem.grid.spacing[0])
    order = np.log(errors[0] / errors[1]) / np.log(spacings[0] / spacings[1])
    assert abs(order - 2) < 0.1, (order, errors)


@pytest.mark.parametrize("centering", ["cell", "node"])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", ("periodic", MIXED)])
def test_equals_a_dense_solve(boundary, centering, x64):
    problem = Poisson((7, 6), boundary=boundary, centering=centering, domain_extent=(1.0, 2.0))
    f = problem.sample(jax.random.key(0))
    u = problem.solve(f)
    matrix = np.asarray(problem.operator.as_matrix())
    dense = np.linalg.lstsq(matrix, np.asarray(problem.load(f)).ravel(), rcond=1e-12)[0]
    if boundary == "neumann":
        weights = problem.grid.weights().ravel()
        dense = dense - weights @ dense / weights.sum()
    np.testing.assert_allclose(np.asarray(u).ravel(), dense, atol=1e-12 * np.abs(dense).max())
    assert problem.relative_residual(f, u) < 1e-12
    assert problem.relative_residual(f, 0 * u) == pytest.approx(1)


def test_the_mean_of_the_source_is_removed(x64):
    problem = Poisson((16, 16), boundary=("neumann", "periodic"), centering="node")
    f = problem.sample(jax.random.key(1))
    np.testing.assert_allclose(problem.solve(f + 3.0), problem.solve(f), atol=1e-14)
    assert problem.relative_residual(f + 3.0, problem.solve(f + 3.0)) < 1e-12


def test_source_follows_its_law():
    problem = Poisson((20, 20), boundary=("dirichlet", "neumann"), num_modes=8, alpha=3.0, tau=5.0)
    law = GaussianRandomField(3.0, 5.0, boundary=("dirichlet", "neumann"), num_modes=8)
    key = jax.random.key(2)
    np.testing.assert_array_equal(problem.sample(key), law.sample(key, problem.grid))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jit_and_vmap(dtype, x64):
    problem = Poisson((18, 15), centering="node")
    f = jax.vmap(problem.sample)(jax.random.split(jax.random.key(3), 3)).astype(dtype)
    u = jax.jit(jax.vmap(problem.solve))(f)
    residuals = jax.jit(jax.vmap(problem.relative_residual))(f, u)
    assert u.dtype == residuals.dtype == dtype
    assert residuals.shape == (3,)
    assert residuals.max() < (1e-12 if dtype == "float64" else 1e-4)
    for f_i, u_i in zip(f, u, strict=True):
        np.testing.assert_allclose(
            jax.jit(problem.solve)(f_i), u_i, rtol=0, atol=(1e-13 if dtype == "float64" else 1e-6)
        )
    double = jax.jit(jax.vmap(problem.solve))(f.astype("float64"))
    np.testing.assert_allclose(u, double, atol=1e-15 if dtype == "float64" else 2e-6 * np.abs(double).max())


def test_a_problem_is_a_constant_that_can_be_written_down():
    problem = Poisson((12, 10), boundary=(MIXED, "periodic"), num_modes=4)
    assert jax.tree.leaves(problem) == []
    assert problem == Poisson(**problem.parameters())
    assert hash(problem) == hash(Poisson(**problem.parameters()))
    finer = problem.with_points((24, 20))
    assert finer.grid == Grid((24, 20), 1.0, (MIXED, "periodic"), "cell")
    assert finer.num_modes == 4
    assert problem.with_points(9).num_points == (9, 9)
    assert problem != finer


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_points": 0}, "num_points"),
        ({"boundary": "robin"}, "boundary"),
        ({"centering": "face"}, "centering"),
        ({"domain_extent": -1.0}, "domain_extent"),
        ({"alpha": 0.4}, "alpha"),
        ({"tau": 0.0}, "tau"),
        ({"num_modes": (4, 4)}, "num_modes"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        Poisson(**{"num_points": 8, **arguments})


@pytest.mark.parametrize(
    ("field", "match"),
    [
        (jnp.ones((8, 8)), "channel axis is missing"),
        (jnp.ones((1, 9, 8)), "resample"),
        (jnp.ones((2, 8, 8)), "channel"),
        (jnp.ones((1, 8, 8), int), "floating"),
        (jnp.ones((5, 1, 8, 8)), "vmap"),
    ],
)
def test_refuses_bad_fields(field, match):
    problem = Poisson((8, 8))
    with pytest.raises(ValueError, match=match):
        problem.solve(field)
    with pytest.raises(ValueError, match=match):
        problem.residual(jnp.ones((1, 8, 8)), field)
