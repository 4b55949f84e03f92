"""Darcy on closed grids of nodes: manufactured and layered solutions, finite elements, measured orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

import neuralops as no
from neuralops.pde import GaussianRandomField, NodalDarcy

PHASES = {"medium": "two_phase"}
# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual = (
    jax.jit(method, static_argnums=0) for method in (NodalDarcy.sample, NodalDarcy.solve, NodalDarcy.relative_residual)
)


def error(u, truth):
    return float(np.linalg.norm(np.asarray(u) - truth) / np.linalg.norm(truth))


def coefficient(x):
    """A member of the smooth family on [0, 1] x [0, 2], and its gradient."""
    w = np.array([4.0, 5.0]), np.array([1.0, 2.0])
    p, q = w[0][0] / w[1][0], w[0][1] / w[1][1]
    return 2.1 + np.sin(p * x[0]) + np.cos(q * x[1]), (p * np.cos(p * x[0]), -q * np.sin(q * x[1]))


def exact(x):
    return np.sin(np.pi * x[0]) * np.sin(np.pi * x[1])


def source(x):
    """-div(a grad u) of the two above."""
    a, (da, db) = coefficient(x)
    ux = np.pi * np.cos(np.pi * x[0]) * np.sin(np.pi * x[1])
    uy = np.pi * np.sin(np.pi * x[0]) * np.cos(np.pi * x[1])
    return 2 * np.pi**2 * a * exact(x) - da * ux - db * uy


def test_smooth_media_have_second_order(x64):
    errors = []
    for refine in (2, 4):
        problem = NodalDarcy((17, 25), domain_extent=(1.0, 2.0), forcing=source, refine=refine)
        x = problem.grid.coordinates()
        assert x[:, -1, -1].tolist() == [1.0, 2.0]  # both ends belong to the grid
        a = jnp.asarray(coefficient(x)[0])[None]
        u = solve(problem, a)
        errors.append(error(u[0], exact(x)))
        if refine == 2:  # the residual holds three quarters of the error
            assert float(relative_residual(problem, a, u)) == pytest.approx(0.75 * errors[0], rel=0.05)
            assert float(relative_residual(problem, a, 1.5 * u)) == pytest.approx(1 / 3, rel=0.01)
    assert errors[0] < 1e-3
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.1, errors


def test_layers_are_exact_to_second_order(x64):
    """In one dimension the flux is c - f x, and u its integral over a, piece by piece."""
    errors = []
    for refine in (2, 4):
        problem = NodalDarcy(12, domain_extent=3.0, values=(10.0, 0.5), forcing=2.0, refine=refine, **PHASES)
        a = np.array([10, 0.5, 0.5, 10, 10, 10, 0.5, 10, 0.5, 0.5, 0.5, 10.0])
        ends = np.linspace(0, 3, 23)  # nodes and the middles between them
        pieces = a[(np.arange(22) + 1) // 2]
        whole, moment = np.diff(ends) / pieces, np.diff(ends**2) / pieces  # of 1/a, and of 2 x/a with f = 2
        c = moment.sum() / whole.sum()
        u = np.concatenate([[0], np.cumsum(c * whole - moment)])[::2]
        errors.append(error(solve(problem, jnp.asarray(a)[None])[0], u))
    assert errors[0] < 5e-3
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.1, errors


def bilinear_elements(a, per_side):
    """u at the nodes for f = 10 by bilinear elements, `per_side` on each side of a node, a constant in each."""
    n = a.shape[0]
    m = 2 * (n - 1) * per_side
    nearest = ((np.arange(m) + 0.5) / (2 * per_side) + 0.5).astype(int)
    i, j = (k.ravel() for k in np.meshgrid(np.arange(m), np.arange(m), indexing="ij"))
    corners = np.stack([i * (m + 1) + j, (i + 1) * (m + 1) + j, (i + 1) * (m + 1) + j + 1, i * (m + 1) + j + 1])
    element = np.array([[4, -1, -2, -1], [-1, 4, -1, -2], [-2, -1, 4, -1], [-1, -2, -1, 4]]) / 6
    values = a[nearest[i], nearest[j]][:, None, None] * element
    rows, columns = np.broadcast_arrays(corners.T[:, :, None], corners.T[:, None, :])
    matrix = scipy.sparse.coo_matrix((values.ravel(), (rows.ravel(), columns.ravel()))).tocsr()
    inside = np.pad(np.ones((m - 1, m - 1), bool), 1)
    keep = np.flatnonzero(inside)
    u = np.zeros((m + 1) ** 2)
    u[keep] = scipy.sparse.linalg.spsolve(matrix[keep][:, keep], np.full(len(keep), 10 / m**2))
    return u.reshape(m + 1, m + 1)[:: 2 * per_side, :: 2 * per_side]


@pytest.mark.slow
def test_two_phases_equal_finite_elements(x64):
    problem = NodalDarcy((9, 9), refine=4, **PHASES)
    a = sample(problem, jax.random.key(3))
    assert set(np.unique(a)) == {5.0, 10.0}
    u = solve(problem, a)
    coarse, fine = (bilinear_elements(np.asarray(a)[0], m) for m in (4, 8))
    assert error(u[0], fine) < 1.5e-3
    assert error(coarse, fine) < 1.5e-3  # as far as the two methods can be told apart
    halves = np.asarray(a)[0]
    halves = (halves + np.roll(halves, 1, 0)) / 2  # another reading of the nodes is another problem
    assert error(u[0], bilinear_elements(halves, 4)) > 1e-2
    assert not np.any(u[0, [0, -1]])
    assert not np.any(u[0, :, [0, -1]])
    assert relative_residual(problem, a, u) < 1.5e-3


def test_samples_follow_their_law(x64):
    keys = jax.random.split(jax.random.key(1), 500)
    problem = NodalDarcy((5, 9), frequencies=(2.0, 3.0))
    a = np.asarray(jax.vmap(problem.sample)(keys))[:, 0]
    first = np.arcsin(a[:, 1, 0] - a[:, 0, 0]) / 0.25  # sin(w_1 / 4), as sin 0 = 0
    second = np.arccos(a[:, 0, 1] - 2.1) / 0.125
    for w in (first, second):
        assert 2.0 <= w.min() < 2.02
        assert 2.98 < w.max() <= 3.0
        assert abs(w.mean() - 2.5) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.15
    np.testing.assert_allclose(
        a[0], 2.1 + np.sin(np.outer(first[0] * np.linspace(0, 1, 5), np.ones(9))) + np.cos(
            np.outer(np.ones(5), second[0] * np.linspace(0, 1, 9))), rtol=1e-12)  # fmt: skip
    phases = NodalDarcy((5, 9), values=(1.0, 7.0), alpha=2.5, tau=4.0, **PHASES)
    g = GaussianRandomField(2.5, 4.0).sample(keys[0], phases.grid)
    np.testing.assert_array_equal(phases.sample(keys[0]), np.where(g >= 0, 1.0, 7.0))


@pytest.mark.parametrize("medium", ["smooth", "two_phase"])
def test_single_precision_and_vmap(medium, x64):
    problem = NodalDarcy((8, 8), medium=medium)
    a = jax.vmap(problem.sample)(jax.random.split(jax.random.key(2), 2))
    u = jax.jit(jax.vmap(problem.solve))(a.astype(jnp.float32))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u[1], solve(problem, a[1]), atol=1e-5 * np.abs(u).max())


def test_gradient_is_that_of_differences(x64):
    problem = NodalDarcy(7)
    a = sample(problem, jax.random.key(4))
    slope = jax.jit(jax.grad(lambda a: jnp.sum(problem.solve(a) ** 2)))(a)
    step = 1e-4 * jnp.cos(jnp.arange(7.0))[None]
    difference = jnp.sum(solve(problem, a + step) ** 2) - jnp.sum(solve(problem, a - step) ** 2)
    np.testing.assert_allclose(2 * jnp.vdot(slope, step), difference, rtol=1e-5)


def test_data_sets_are_made_of_it(tmp_path):
    problem = NodalDarcy(6, **PHASES)
    with pytest.raises(ValueError, match="relative residual"):  # six nodes are few for a promise of 1e-10
        no.data.generate(NodalDarcy(6, rtol=1e-10), key=0, num_samples=2, progress=False)
    source = no.data.generate(problem, key=0, num_samples=2, path=tmp_path / "a.h5", progress=False)
    assert source.grid == problem.grid
    assert NodalDarcy(**source.parameters) == problem
    assert problem.with_points(9).num_points == (9,)
    assert jax.tree.leaves(problem) == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_points": (8, 8, 8)}, "num_points"),
        ({"num_points": 3}, "num_points"),
        ({"medium": "log_normal"}, "medium"),
        ({"frequencies": (2.0, 1.0)}, "frequencies"),
        ({"frequencies": 3.0}, "frequencies"),
        ({"values": (1.0, 0.0)}, "values"),
        ({"alpha": 0.5}, "alpha"),
        ({"tau": 0.0}, "tau"),
        ({"forcing": 0.0}, "forcing"),
        ({"forcing": lambda x: x}, "forcing"),
        ({"refine": 1}, "refine"),
        ({"rtol": 0.0}, "rtol"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=f"^{match}: "):
        NodalDarcy(**{"num_points": (8, 8), **arguments})


def test_refuses_fields_of_another_grid():
    problem = NodalDarcy((8, 8))
    for bad in (jnp.ones((8, 8)), jnp.ones((1, 7, 8)), jnp.ones((1, 8, 8), complex)):
        with pytest.raises(ValueError, match="a: "):
            problem.solve(bad)
