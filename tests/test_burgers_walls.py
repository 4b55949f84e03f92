"""Burgers between walls against the Cole-Hopf formula, by the heat equation with insulated ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

import neuralops as no
from neuralops.pde import BurgersWalls

# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual = (
    jax.jit(method, static_argnums=0)
    for method in (BurgersWalls.sample, BurgersWalls.solve, BurgersWalls.relative_residual)
)


def cole_hopf(coefficients, extent, viscosity, times, x, fine=4096):
    """u = -2 nu phi_x / phi, where phi solves the heat equation with phi_x = 0 at the walls.

    `coefficients` are those of sin(m pi x / extent), m = 1, 2, ..., of u at time 0; phi there is exp(-U / (2 nu)) with
    U' = u. Its cosine series decays mode by mode.
    """
    m, y = np.arange(1, len(coefficients) + 1), np.linspace(0, 1, fine + 1)
    waves = np.cos(np.pi * np.outer(y, m)) - 1
    potential = -waves @ (np.asarray(coefficients) * extent / (np.pi * m))
    modes = scipy.fft.dct(np.exp(-potential / (2 * viscosity)), type=1) / fine
    modes[[0, -1]] /= 2
    k, out = np.pi / extent * np.arange(fine + 1), []
    for t in times:
        c = modes * np.exp(-viscosity * k**2 * t)
        kept = np.abs(c) > 1e-18 * np.abs(c).max()
        angle = np.outer(x, k[kept])
        out.append(2 * viscosity * (np.sin(angle) @ (k[kept] * c[kept])) / (np.cos(angle) @ c[kept]))
    return np.array(out)


def initial(coefficients, x, extent):
    return np.sin(np.pi / extent * np.outer(x, np.arange(1, len(coefficients) + 1))) @ np.asarray(coefficients)


@pytest.mark.parametrize(
    ("viscosity", "extent", "final_time"),
    [(0.1 / np.pi, 2.0, 1.0), pytest.param(0.15, 5.0, 3.0, marks=pytest.mark.slow)],
)
def test_equals_cole_hopf_at_all_times(viscosity, extent, final_time, x64):
    problem = BurgersWalls(65, domain_extent=extent, viscosity=viscosity, final_time=final_time, num_times=6)
    coefficients = [0.5, -0.4, 0.25, 0.0, 0.3]
    x, t = problem.query
    a = jnp.asarray(initial(coefficients, x[0], extent))[None]
    u = solve(problem, a)
    assert u.shape == x.shape == (6, 65)
    np.testing.assert_array_equal(t[:, 7], np.linspace(0, final_time, 6))
    assert (x[3, 0], x[3, -1]) == (0.0, extent)
    truth = cole_hopf(coefficients, extent, viscosity, t[:, 0], x[0])
    np.testing.assert_allclose(truth[0], a[0], atol=1e-10)  # the formula knows its initial function
    np.testing.assert_allclose(u, truth, atol=1e-8)
    assert np.linalg.norm(u[-1]) < 0.8 * np.linalg.norm(u[0])
    assert relative_residual(problem, a, u) < 1e-8


@pytest.mark.slow
def test_the_residual_tells_a_line_that_is_too_coarse(x64):
    coefficients = [0.4, 0.5, -0.9]
    errors = []
    for refine in (1, 2):
        problem = BurgersWalls(17, num_times=3, refine=refine)
        x, t = problem.query
        a = jnp.asarray(initial(coefficients, x[0], 2.0))[None]
        u = solve(problem, a)
        truth = cole_hopf(coefficients, 2.0, problem.viscosity, t[:, 0], x[0])
        np.testing.assert_allclose(truth[0], a[0], atol=1e-8)
        errors.append(np.linalg.norm(u - truth) / np.linalg.norm(u))
        if refine == 1:
            assert errors[0] > 1e-4
            assert float(relative_residual(problem, a, u)) == pytest.approx(errors[0], rel=0.1)
    assert errors[1] < errors[0] / 20


def test_walls_times_and_noise_at_the_walls(x64):
    problem = BurgersWalls(24, num_times=3)
    a = sample(problem, jax.random.key(0))
    assert not np.any(a[0, [0, -1]])
    u = solve(problem, a)
    assert not np.any(u[:, [0, -1]])
    np.testing.assert_allclose(u[0], a[0], atol=1e-14)
    np.testing.assert_array_equal(solve(problem, a.at[0, 0].set(3.0)), u)  # the walls hold 0, whatever is given
    np.testing.assert_allclose(-solve(problem, -a[:, ::-1])[:, ::-1], u, atol=1e-9)  # the symmetry of the equation
    often = solve(BurgersWalls(24, num_times=9), a)
    np.testing.assert_allclose(often[::4], u, atol=1e-9)
    assert np.all(np.isnan(solve(problem, a.at[0, 5].set(jnp.nan))))


def test_input_law(x64):
    problem = BurgersWalls(16, alpha=2.0, tau=3.0, scale=4.0, num_modes=6)
    draws = np.asarray(jax.vmap(problem.sample)(jax.random.split(jax.random.key(1), 4000)))[:, 0]
    k, x = np.pi / 2 * np.arange(1, 7), problem.grid.points(0)
    variance = 16 * (np.sin(np.outer(x, k)) ** 2) @ (k**2 + 9) ** -2.0  # the sines have norm 1 on [0, 2]
    np.testing.assert_allclose(np.var(draws, axis=0)[1:-1], variance[1:-1], rtol=5 * np.sqrt(2 / 4000))
    middle = np.asarray(jax.vmap(BurgersWalls(33).sample)(jax.random.split(jax.random.key(2), 4000)))[:, 0, 16]
    assert middle.std() == pytest.approx(0.8, abs=0.04)


SMALL = BurgersWalls(12, num_times=3, num_modes=4, viscosity=0.2)


@pytest.mark.slow
def test_single_precision_and_vmap(x64):
    problem = SMALL
    a = jax.vmap(problem.sample)(jax.random.split(jax.random.key(3), 2))
    u = jax.jit(jax.vmap(problem.solve))(a.astype(jnp.float32))
    assert u.dtype == jnp.float32
    np.testing.assert_allclose(u[1], solve(problem, a[1]), atol=2e-5)


@pytest.mark.slow
def test_gradient_is_that_of_differences(x64):
    a = sample(SMALL, jax.random.key(3))
    slope = jax.jit(jax.grad(lambda a: jnp.sum(SMALL.solve(a)[1:] ** 2)))(a)
    step = 1e-4 * jnp.sin(jnp.arange(12.0))[None]
    difference = jnp.sum(solve(SMALL, a + step)[1:] ** 2) - jnp.sum(solve(SMALL, a - step)[1:] ** 2)
    np.testing.assert_allclose(2 * jnp.vdot(slope, step), difference, rtol=1e-4)


@pytest.mark.slow
def test_data_sets_are_made_of_it(tmp_path):
    problem = SMALL
    source = no.data.generate(problem, key=0, num_samples=2, path=tmp_path / "b.h5", progress=False)
    assert source.residual_norm.max() < 1e-6
    assert source[0]["outputs"].shape == (3, 12)
    assert BurgersWalls(**source.parameters) == problem
    assert problem.with_points(20).num_points == 20
    assert jax.tree.leaves(problem) == []


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_points": (8, 8)}, "num_points"),
        ({"num_points": 3}, "num_points"),
        ({"viscosity": 0.0}, "viscosity"),
        ({"final_time": -1.0}, "final_time"),
        ({"num_times": 1}, "num_times"),
        ({"domain_extent": 0.0}, "domain_extent"),
        ({"alpha": 0.5}, "alpha"),
        ({"tau": 0.0}, "tau"),
        ({"refine": 0}, "refine"),
        ({"rtol": 0.0}, "rtol"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=f"^{match}: "):
        BurgersWalls(**{"num_points": 16, **arguments})


def test_refuses_bad_fields():
    problem = BurgersWalls(16, num_times=3)
    with pytest.raises(ValueError, match="a: "):
        problem.solve(jnp.ones((1, 17)))
    with pytest.raises(ValueError, match="u: "):
        problem.residual(jnp.ones((1, 16)), jnp.ones((1, 16)))
