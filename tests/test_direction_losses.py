"""Losses of search directions: by hand, against the solver's own step, and by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import losses
from neuralops.grid import Grid
from neuralops.solvers import (
    CG,
    DeepConjugateDirection,
    Diffusion,
    FastPoisson,
    angle_loss,
    energy_loss,
    one_step_loss,
    solve,
    visited_residual,
)

rng = np.random.default_rng(0)
GRID = Grid((6, 7), boundary="dirichlet")


@pytest.fixture
def case(x64):
    A = Diffusion.from_coefficient(GRID, jnp.asarray(np.exp(rng.normal(size=(6, 7)))))
    b, g = jnp.asarray(rng.normal(size=(6, 7))), jnp.asarray(rng.normal(size=(6, 7)))
    return A, b / jnp.linalg.norm(b), g, jnp.linalg.solve(A.as_matrix(), b.ravel()).reshape(6, 7)


def test_by_hand(x64):
    A, b = np.diag([1.0, 4.0]), jnp.array([0.6, 0.8])
    np.testing.assert_allclose(one_step_loss(lambda v: A @ v, b, b), 0.243198, atol=5e-7)
    np.testing.assert_allclose(one_step_loss(lambda v: A @ v, b, 0 * b), 1.0)
    negative = lambda v: -A @ v
    np.testing.assert_allclose(one_step_loss(negative, b, b), 1.0)
    np.testing.assert_allclose(angle_loss(negative, b, b), 0.0)  # -A is definite too: parallel is parallel


def test_one_step_loss_is_the_residual_after_one_step(case):
    A, b, g, x = case
    s = solve(A, b, DeepConjugateDirection(lambda r: g, 0.0, max_steps=1))
    np.testing.assert_allclose(one_step_loss(A, b, g), s.residual_norm**2, rtol=1e-12)
    np.testing.assert_allclose(one_step_loss(A, 7 * b, -1e3 * g), s.residual_norm**2, rtol=1e-12)
    assert float(one_step_loss(A, b, -2.5 * x)) < 1e-24
    orthogonal = g - b * jnp.vdot(b, g)
    np.testing.assert_allclose(one_step_loss(A, b, orthogonal), 1.0, rtol=1e-12)


def test_energy_losses(case):
    A, _, g, x = case
    matrix = np.asarray(A.as_matrix())
    size = lambda v: np.sqrt(np.ravel(v) @ matrix @ np.ravel(v))
    np.testing.assert_allclose(energy_loss(A, x, g), size(g - x) / size(x), rtol=1e-12)
    best = (np.ravel(g) @ matrix @ np.ravel(x)) / size(g) ** 2
    np.testing.assert_allclose(angle_loss(A, x, g), size(best * g - x) / size(x), rtol=1e-10)
    np.testing.assert_allclose(angle_loss(A, x, -1e5 * g), angle_loss(A, x, g), rtol=1e-10)
    # One step of the method reduces the energy error by this factor.
    stepped = solve(A, A(x), DeepConjugateDirection(lambda r: g, 0.0, max_steps=1)).value
    np.testing.assert_allclose(size(stepped - x) / size(x), angle_loss(A, x, g), rtol=1e-10)
    assert float(angle_loss(A, x, 3 * x)) < 1e-7


@pytest.mark.parametrize("loss", [one_step_loss, energy_loss, angle_loss])
def test_gradients_by_finite_differences(case, loss):
    A, b, g, x = case
    given = b if loss is one_step_loss else x
    towards = jnp.asarray(rng.normal(size=g.shape))
    h = 1e-6
    slope = (loss(A, given, g + h * towards) - loss(A, given, g - h * towards)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(jax.grad(loss, 2)(A, given, g), towards), slope, rtol=1e-7)


def test_gradients_at_exact_answers_are_finite(case):
    A, b, _, x = case
    for loss, given in ((energy_loss, x), (angle_loss, x), (one_step_loss, b), (angle_loss, 0 * x)):
        assert np.isfinite(jax.grad(loss, 2)(A, given, x)).all()


def test_in_fit_the_target_is_what_the_loss_needs(case):
    A, b, g, x = case
    np.testing.assert_allclose(losses.one_step(A)(g, b), one_step_loss(A, b, g))
    np.testing.assert_allclose(losses.energy(A)(g, x), energy_loss(A, x, g))
    np.testing.assert_allclose(losses.angle(A)(g, x), angle_loss(A, x, g))
    assert losses.angle(A) == losses.angle(A)
    assert losses.angle(A) != losses.energy(A)


def test_visited_residuals_are_those_of_the_method(case):
    A, b, _, x = case
    matrix, steps = np.asarray(A.as_matrix()), jnp.arange(5)
    seen, at = jax.vmap(lambda k: visited_residual(A, b, CG(), k))(steps)
    y, r = np.zeros(42), np.asarray(b).ravel()  # textbook CG
    p = r
    for k in range(5):
        np.testing.assert_allclose(np.ravel(seen[k]), r / np.linalg.norm(r), atol=1e-10)
        np.testing.assert_allclose(np.ravel(at[k]), y, atol=1e-10 * np.abs(x).max())
        q = matrix @ p
        alpha = (r @ r) / (p @ q)
        y, rest = y + alpha * p, r - alpha * q
        p, r = rest + (rest @ rest) / (r @ r) * p, rest
    with pytest.raises(ValueError, match="method: expected an iterative method"):
        visited_residual(A, b, FastPoisson(GRID), 1)
