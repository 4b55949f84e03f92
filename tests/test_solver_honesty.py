"""Transposes, NaN-debugging and true causes: what people who embed `solve` lean on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, FlexibleCG, Multigrid, Refinement, Result, ritz_pairs, solve

GRID = Grid((8, 7), 1.0, "dirichlet", "cell")
RNG = np.random.default_rng(0)
FIELD = np.exp(RNG.normal(size=GRID.shape))
RHS, COTANGENT = RNG.normal(size=GRID.shape), RNG.normal(size=GRID.shape)

METHODS = {
    "CG": lambda A: CG(1e-12),
    "CG with multigrid": lambda A: CG(1e-12, preconditioner=Multigrid(A)),
    "FlexibleCG": lambda A: FlexibleCG(1e-12, preconditioner=FastPoisson(GRID)),
    "refined multigrid": lambda A: Refinement(Multigrid(A), 1e-12),
}


@pytest.mark.parametrize("name", METHODS)
def test_solve_is_transposed_by_solving_again(x64, name):
    A = Diffusion.from_coefficient(GRID, FIELD)
    method = METHODS[name](A)
    run = lambda b: solve(A, b, method, x0=0.1 * jnp.ones(GRID.shape)).value
    transposed = jax.jit(lambda c: jax.linear_transpose(run, jnp.zeros(GRID.shape))(c)[0])(COTANGENT)
    inverse = jax.jit(lambda c: solve(A, c, method).value)(COTANGENT)
    np.testing.assert_allclose(transposed, inverse, rtol=1e-9, atol=1e-12)
    inner = float(jnp.vdot(COTANGENT, jax.jit(run)(RHS)))  # <c, A^-1 b> = <A^-1 c, b>
    assert inner == pytest.approx(float(jnp.vdot(transposed, RHS)), rel=1e-9)


def test_a_custom_root_is_differentiated_in_reverse_through_solve(x64):
    """A u + theta u^3 = b by Newton, with our solve as `tangent_solve`, against finite differences."""
    A = Diffusion.from_coefficient(GRID, FIELD)

    def functional(theta):
        F = lambda u: A(u) + theta * u**3 - RHS

        def newton(F, u):
            jacobian = lambda u: lambda v: A(v) + 3 * theta * u**2 * v
            return lax.fori_loop(0, 8, lambda _, u: u - solve(jacobian(u), F(u), CG(1e-12)).value, u)

        tangent = lambda linear, y: solve(linear, y, CG(1e-12)).value
        return jnp.vdot(COTANGENT, lax.custom_root(F, jnp.zeros(GRID.shape), newton, tangent))

    functional = jax.jit(functional)
    slope = jax.jit(jax.grad(functional))(1e5)
    assert float(slope) == pytest.approx(float(functional(1e5 + 10) - functional(1e5 - 10)) / 20, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_innocent_calls_pass_the_search_for_nan(name):
    A = Diffusion(GRID)
    method = METHODS[name](A)
    kept = jax.tree_util.tree_map(lambda x: x, type(method)(method.inverse if name == "refined multigrid" else 1e-5,
        **({} if name == "refined multigrid" else {"preconditioner": method.preconditioner}), history=50))  # fmt: skip
    with jax.debug_nans(True):
        zero = solve(A, jnp.zeros(GRID.shape), kept)
        assert int(zero.num_steps) == 0
        assert float(zero.residual_norm) == 0
        several = jax.vmap(lambda b: solve(A, b, kept))(
            jnp.stack([jnp.zeros(GRID.shape), jnp.asarray(RHS, jnp.float32)])
        )
        assert several.history.shape == (2, 50)
        assert np.all(several.history[1, int(several.num_steps[1]) :] == several.history[1, int(several.num_steps[1])])


def test_missing_eigenvalues_are_no_nan():
    with jax.debug_nans(True):
        values, _ = ritz_pairs(lambda v: 2.0 * v, jnp.ones(4), 3)
    np.testing.assert_allclose(values, [2, np.inf, np.inf])
    assert Result.converged == 0
