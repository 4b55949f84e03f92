"""Values of a field between its samples, against polynomials that the interpolant must reproduce."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from neuralops import grid as grids
from neuralops.grid import Grid

interpolate = jax.jit(grids.interpolate, static_argnums=1, static_argnames="order")


def polynomial(rng, degree, ndim):
    """A random polynomial of this degree along each axis, a function of points `(ndim, *points)`."""
    c = rng.normal(size=(degree + 1,) * ndim)
    evaluate = {1: np.polynomial.polynomial.polyval, 2: np.polynomial.polynomial.polyval2d}
    return lambda x: evaluate.get(ndim, np.polynomial.polynomial.polyval3d)(*x, c)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(
    ("shape", "boundary", "centering"),
    [
        ((6,), "neumann", "node"),
        ((7, 4), "neumann", ("node", "cell")),
        ((5, 6), ("dirichlet", "neumann"), "cell"),
        ((4, 5, 6), "neumann", "node"),
    ],
)
def test_exact_on_polynomials(x64, order, shape, boundary, centering):
    rng = np.random.default_rng(len(shape) + order)
    grid = Grid(shape, tuple(1.0 + np.arange(len(shape))), boundary, centering)
    x = rng.uniform(size=(len(shape), 3, 7)) * np.reshape(grid.domain_extent, (-1, 1, 1))
    x[:, 0, 0], x[:, 0, 1] = 0, grid.domain_extent  # corners
    f, g = (polynomial(rng, order, len(shape)) for _ in range(2))
    u = np.stack([f(grid.coordinates()), g(grid.coordinates())])
    np.testing.assert_allclose(interpolate(u, grid, x, order=order), [f(x), g(x)], rtol=1e-10, atol=1e-11)


def test_nodes_with_walls_know_the_zero_there(x64):
    grid = Grid((6, 5), (1.0, 2.0), (("dirichlet", "neumann"), "dirichlet"))
    f = lambda x: x[0] * (1 + x[0] - x[0] ** 2) * x[1] * (2 - x[1]) * (1 + x[1])  # zero at x = 0, y = 0 and y = 2
    x = np.random.default_rng(0).uniform(size=(2, 40)) * [[1.0], [2.0]]
    x[0, :5], x[1, 5:10], x[1, 10:15] = 0, 0, 2
    values = interpolate(f(grid.coordinates())[None], grid, x)
    np.testing.assert_allclose(values[0], f(x), atol=1e-12)
    nearest = interpolate(np.ones((1, 6, 5)), grid, x, order=0)
    assert np.all(nearest[0, :15] == 0)
    assert np.all(nearest[0, 15:] == (np.round(x[0] * 6) > 0)[15:] * ~np.isin(np.round(x[1] * 3), [0, 6])[15:])


def test_linear_and_nearest_agree_with_scipy(x64):
    rng = np.random.default_rng(1)
    grid = Grid((5, 6, 4), boundary="neumann", centering="node")
    u, x = rng.normal(size=(1, 5, 6, 4)), rng.uniform(size=(3, 50))
    for order, method in ((0, "nearest"), (1, "linear")):
        other = RegularGridInterpolator([grid.points(a) for a in range(3)], u[0], method=method)
        np.testing.assert_allclose(interpolate(u, grid, x, order=order)[0], other(x.T), atol=1e-13)


def test_periodic_wraps_and_is_of_fourth_order(x64):
    f = lambda x: np.sin(2 * np.pi * x[0]) * np.exp(np.cos(2 * np.pi * (x[0] - x[1])))
    x = np.random.default_rng(2).uniform(size=(2, 500))
    errors = []
    for n in (20, 40):
        grid = Grid((n, n), 1.0, "periodic", ("node", "cell"))
        u = f(grid.coordinates())[None]
        at, shifted = interpolate(u, grid, x), interpolate(u, grid, x + np.array([[1.0], [-2.0]]))
        np.testing.assert_allclose(at, shifted, atol=1e-12)
        errors.append(np.abs(at[0] - f(x)).max())
    assert 13 < errors[0] / errors[1] < 20


def test_derivatives_in_values_and_points(x64):
    rng = np.random.default_rng(3)
    grid = Grid((6, 7), boundary=("neumann", "dirichlet"), centering="node")
    f = lambda x: (1 + x[0] ** 3 - x[0]) * x[1] * (1 - x[1])
    x, u = rng.uniform(size=(2, 30)), f(grid.coordinates())[None]
    slope = jax.jit(jax.grad(lambda x: jnp.sum(grids.interpolate(u, grid, x))))(x)
    truth = [(3 * x[0] ** 2 - 1) * x[1] * (1 - x[1]), (1 + x[0] ** 3 - x[0]) * (1 - 2 * x[1])]
    np.testing.assert_allclose(slope, truth, atol=1e-10)
    # Linear in u, so the gradient in u is the transpose.
    v, w = rng.normal(size=u.shape), rng.normal(size=(1, 30))
    pulled = jax.jit(lambda w: jax.vjp(lambda u: grids.interpolate(u, grid, x), u)[1](w)[0])(w)
    np.testing.assert_allclose(np.sum(pulled * v), np.sum(w * interpolate(v, grid, x)), rtol=1e-12)


def test_work_on_points_is_not_batched():
    grid = Grid((6, 6), boundary="neumann", centering="node")
    batched = jax.vmap(lambda u, x: grids.interpolate(u, grid, x), (0, None))
    jaxpr = jax.make_jaxpr(batched)(jnp.ones((9, 1, 6, 6)), jnp.full((2, 50), 0.3))
    large = [
        e.primitive.name
        for e in jaxpr.eqns
        if any(9 in v.aval.shape for v in e.outvars) and e.outvars[0].aval.size > 900
    ]
    assert set(large) <= {"gather", "mul", "reshape", "broadcast_in_dim", "pjit", "jit", "select_n"}
    assert len(large) < 8


def test_dtype_follows_the_arguments():
    grid = Grid(8, boundary="neumann", centering="node")
    assert interpolate(jnp.ones((1, 8)), grid, jnp.ones((1, 3))).dtype == jnp.float32
    with jax.enable_x64(True):
        assert interpolate(np.ones((1, 8)), grid, np.ones((1, 3))).dtype == jnp.float64


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("order", lambda: grids.interpolate(jnp.ones((1, 8)), Grid(8), jnp.ones((1, 3)), order=2)),
        ("order", lambda: grids.interpolate(jnp.ones((1, 8)), Grid(8), jnp.ones((1, 3)), order=True)),
        ("order", lambda: grids.interpolate(jnp.ones((1, 3)), Grid(3, boundary="neumann"), jnp.ones((1, 3)))),
        ("u", lambda: grids.interpolate(jnp.ones((1, 7)), Grid(8), jnp.ones((1, 3)))),
        ("u", lambda: grids.interpolate(jnp.ones(8), Grid(8), jnp.ones((1, 3)))),
        ("u", lambda: grids.interpolate(jnp.ones((2, 1, 8)), Grid(8), jnp.ones((1, 3)))),
        ("points", lambda: grids.interpolate(jnp.ones((1, 8)), Grid(8), jnp.ones((2, 3)))),
        ("points", lambda: grids.interpolate(jnp.ones((1, 8)), Grid(8), jnp.ones(()))),
    ],
)
def test_refuses(argument, call):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        call()
