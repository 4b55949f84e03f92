"""Grids, modal transforms and resampling, against sampled analytic functions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import grid as grids
from neuralops import transforms
from neuralops.grid import Grid

resample = jax.jit(grids.resample, static_argnums=(1, 2))  # one program, not one for each operation

BOUNDARIES = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]
CENTERINGS = ["node", "cell"]


def wave(boundary, m, x):
    """Basis function `m` of a boundary on the unit interval, written out independently of the library."""
    if boundary == "periodic":
        k = (m + 1) // 2
        return np.cos(2 * np.pi * k * x) if m % 2 or m == 0 else np.sin(2 * np.pi * k * x)
    if boundary == "dirichlet":
        return np.sin((m + 1) * np.pi * x)
    if boundary == "neumann":
        return np.cos(m * np.pi * x)
    return np.sin((m + 0.5) * np.pi * x) if boundary[0] == "dirichlet" else np.cos((m + 0.5) * np.pi * x)


@pytest.mark.parametrize("limit", [0, 10**6], ids=["fft", "matmul"])
@pytest.mark.parametrize(("boundary", "centering"), itertools.product(BOUNDARIES, CENTERINGS))
def test_modes_are_the_sampled_functions(x64, monkeypatch, limit, boundary, centering):
    monkeypatch.setattr(transforms, "MATMUL_LIMIT", limit)
    for n in (2, 3, 4, 7, 8, 16, 17):
        grid = Grid(n, boundary=(boundary,), centering=centering)
        x = grid.points(0)
        rng = np.random.default_rng(n)
        c = rng.normal(size=transforms.shared_modes(grid.axes[0]))
        u = sum(c[m] * wave(boundary, m, x) for m in range(len(c)))
        there = jax.jit(lambda u, axis=grid.axes[0]: transforms.to_modes(u, 0, axis))  # traced with this limit
        back = jax.jit(lambda modes, axis=grid.axes[0]: transforms.from_modes(modes, 0, axis))
        modes = np.asarray(there(u))
        np.testing.assert_allclose(modes[: len(c)], c, atol=1e-12)
        np.testing.assert_allclose(modes[len(c) :], 0, atol=1e-12)
        np.testing.assert_allclose(back(modes), u, atol=1e-12)
        any_samples = rng.normal(size=n)
        np.testing.assert_allclose(back(there(any_samples)), any_samples, atol=1e-12)


@pytest.mark.parametrize(("boundary", "centering"), itertools.product(BOUNDARIES, CENTERINGS))
def test_resample_is_exact_on_band_limited_fields(boundary, centering):
    function = lambda g: sum(
        np.multiply.outer(wave(boundary, m, g.points(0) / 2), wave("periodic", m + 1, g.points(1))) / (m + 1)
        for m in range(7)
    )
    grid = Grid((16, 17), (2.0, 1.0), (boundary, "periodic"), (centering, "node"))
    for points in ((31, 48), (17, 16), (64, 65), (16, 40)):
        new_grid = grid.with_points(points)
        moved = resample(jnp.asarray(function(grid), jnp.float32)[None], grid, new_grid)[0]
        np.testing.assert_allclose(moved, function(new_grid), atol=2e-6)


def test_resample_to_other_centering_and_back(x64):
    cells = Grid((12, 9), boundary=("neumann", "dirichlet"), centering="cell")
    nodes = Grid((13, 8), boundary=("neumann", "dirichlet"), centering="node")
    function = lambda g: np.multiply.outer(wave("neumann", 3, g.points(0)), wave("dirichlet", 5, g.points(1)))
    np.testing.assert_allclose(resample(jnp.asarray(function(cells)), cells, nodes), function(nodes), atol=1e-13)


def test_resample_is_linear_and_differentiable():
    grid, fine = (
        Grid((8, 8), boundary="neumann", centering="cell"),
        Grid((12, 20), boundary="neumann", centering="cell"),
    )
    u, v = np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32)
    vjp = jax.jit(lambda g: jax.vjp(lambda u: resample(u, grid, fine), u)[1](g))
    g = np.random.default_rng(1).normal(size=(12, 20)).astype(np.float32)
    np.testing.assert_allclose(np.vdot(g, resample(v, grid, fine)), np.vdot(vjp(g)[0], v), rtol=1e-4)


@pytest.mark.parametrize(("boundary", "centering"), itertools.product(BOUNDARIES, CENTERINGS))
def test_spacing_points_and_quadrature(boundary, centering):
    grid = Grid(9, 3.0, (boundary,), centering)
    x = grid.points(0)
    np.testing.assert_allclose(np.diff(x), grid.spacing[0])
    if centering == "cell":
        assert x[0] == pytest.approx(grid.spacing[0] / 2)
        assert 3.0 - x[-1] == pytest.approx(grid.spacing[0] / 2)
    # Fields whose products with themselves the rule integrates exactly: mean square of a wave is a half.
    f = wave(boundary, 3, x / 3.0) ** 2
    assert np.sum(f * grid.weights()) == pytest.approx(1.5)


def test_grid_is_a_static_pytree():
    grid = Grid((4, 5), boundary=("periodic", ("dirichlet", "dirichlet")))
    assert grid.boundary == ("periodic", "dirichlet")
    assert jax.tree.leaves(grid) == []
    assert hash(grid) == hash(Grid((4, 5), boundary=("periodic", "dirichlet")))
    assert jax.jit(lambda g: jnp.zeros(g.shape))(grid).shape == (4, 5)
    assert grid.coordinates().shape == (2, 4, 5)
    np.testing.assert_allclose(grid.coordinates()[1, 2], grid.points(1))
