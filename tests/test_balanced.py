"""The flux that balances by construction: its divergence, and the identity of Prager and Synge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no

SQUARE = ((0.0, 1.0), (0.0, 1.0))


def divergence(f, x):
    slopes = [jax.jvp(f, (x,), (jnp.zeros_like(x).at[i].set(1),))[1][i] for i in range(len(x))]
    return sum(slopes)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_potential_balances_the_source(ndim, x64):
    equation = no.pde.BalancedDarcy(((0.0, 2.0),) * ndim, forcing=3.0)
    weights = jax.random.normal(jax.random.key(0), (1 if ndim == 2 else 3, ndim))
    potential = lambda x: jnp.sin(jnp.tensordot(weights, x, 1)) * x[0] ** 2
    x = equation.draw(jax.random.key(1))
    np.testing.assert_allclose(-divergence(lambda x: equation.flux(potential, x), x), 3.0, rtol=1e-12)
    still = lambda x: jnp.zeros((1 if ndim == 2 else 3, *x.shape[1:]))
    assert not np.allclose(equation.flux(potential, x), equation.flux(still, x))


def nodes(n):
    """Gauss-Legendre points of the square and their weights, `(2, n^2)` and `(n^2,)`."""
    t, w = np.polynomial.legendre.leggauss(n)
    x = np.stack(np.meshgrid((t + 1) / 2, (t + 1) / 2, indexing="ij")).reshape(2, -1)
    return jnp.asarray(x), np.outer(w, w).ravel() / 4


def test_the_loss_is_the_energy_error(x64):
    """a = 1 + x, u* = sin(pi x) sin(pi y), whose flux and source are known in closed form."""
    a = lambda x: (1 + x[0])[None]
    exact = lambda x: (jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * x[1]))[None]
    gradient = lambda u, x: no.pde.value_and_gradient(u, x)[1][:, 0]
    true_flux = lambda x: a(x) * gradient(exact, x)
    wrong = lambda x: exact(x) + 0.1 * (x[0] * (1 - x[0]) * x[1] ** 2 * (1 - x[1]))[None]
    psi = lambda x: 0.2 * jnp.cos(3 * x[0] + x[1])[None]
    equation = no.pde.BalancedDarcy(SQUARE, particular=true_flux)
    x, w = nodes(24)
    loss = np.sum(w * equation.residuals(x, a, {"u": wrong, "potential": psi})["constitutive"])
    of_u = np.sum(w * a(x)[0] * np.sum((gradient(wrong, x) - gradient(exact, x)) ** 2, 0))
    of_s = np.sum(w / a(x)[0] * np.sum((equation.flux(psi, x) - true_flux(x)) ** 2, 0))
    assert float(loss) == pytest.approx(float(of_u + of_s), rel=1e-9)
    assert min(of_u, of_s) > 1e-5
    nothing = equation.residuals(x, a, {"u": exact, "potential": lambda x: 0 * x[:1]})["constitutive"]
    np.testing.assert_allclose(nothing, 0, atol=1e-12)


def test_a_jump_costs_nothing(x64):
    """Layers: a = 1 and 4, a one-dimensional solution with a kink, whose flux is smooth."""
    a = lambda x: jnp.where(x[0] < 0.5, 1.0, 4.0)[None]
    # -(a u')' = 10, u(0) = u(1) = 0: a u' = c - 10 x
    c = (10 * (0.125 + 0.375 / 4)) / (0.5 + 0.125)
    left = lambda x: c * x - 5 * x**2
    right = lambda x: left(0.5) + (c * (x - 0.5) - 5 * (x**2 - 0.25)) / 4
    u = lambda x: jnp.where(x[0] < 0.5, left(x[0]), right(x[0]))[None]
    assert abs(right(1.0)) < 1e-12
    # the particular flux -5 (x - 1/2, y - 1/2) and psi with psi_y = c - 5/2 - 5 x, -psi_x = 5 (y - 1/2)
    psi = lambda x: ((c - 2.5 - 5 * x[0]) * x[1] + 2.5 * x[0])[None]
    equation = no.pde.BalancedDarcy(SQUARE, forcing=10.0)
    points = equation.draw(jax.random.key(2))
    np.testing.assert_allclose(equation.residuals(points, a, {"u": u, "potential": psi})["constitutive"], 0, atol=1e-20)


def test_refusals():
    for make, word in [
        (lambda: no.pde.BalancedDarcy(((0, 1),)), "domain"),
        (lambda: no.pde.BalancedDarcy(SQUARE, forcing="a"), "forcing"),
        (lambda: no.pde.BalancedDarcy(SQUARE, particular=3), "particular"),
        (lambda: no.pde.BalancedDarcy(SQUARE, num_points=0), "num_points"),
        (lambda: no.pde.BalancedDarcy(SQUARE).flux(lambda x: x, jnp.zeros((2, 3))), "potential"),
        (lambda: no.pde.BalancedDarcy(SQUARE).residuals(jnp.zeros((2, 3)), None, {"u": None}), "potential"),
    ]:
        with pytest.raises(ValueError, match=word):
            make()
