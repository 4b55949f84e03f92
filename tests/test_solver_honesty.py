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
    if name == "refined multigrid":
        kept = Refinement(method.inverse, 1e-5, history=50)
    else:
        kept = type(method)(1e-5, preconditioner=method.preconditioner, history=50)
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


def convection(u, speed):
    """Five points of -laplace plus central differences of a wind along the first axis; not symmetric."""
    up = jnp.pad(u, 1)
    laplace = 4 * u - up[:-2, 1:-1] - up[2:, 1:-1] - up[1:-1, :-2] - up[1:-1, 2:]
    return laplace + speed * (up[2:, 1:-1] - up[:-2, 1:-1])


BOTH = (CG(1e-8), FlexibleCG(1e-8))
N = 32
NOISE = np.random.default_rng(3).normal(size=(N, N))
CLOSED = Diffusion(Grid((N, N), 1.0, "neumann", "cell"))


@pytest.mark.parametrize(
    ("A", "b", "cause", "most"),
    [
        (lambda u: convection(u, 1.0), NOISE, Result.asymmetric, 150),
        (lambda u: convection(u, 0.2), NOISE, Result.asymmetric, 500),
        (lambda u: CLOSED(u), NOISE + 0.5, Result.singular, 200),  # a function, which says nothing of its null space
        (lambda u: u * (jnp.arange(N) > 3), NOISE, Result.singular, 20),
        (lambda u: convection(u, 0.0) + 1.0, NOISE, Result.affine, 0),
        (lambda u: convection(u, 0.0) - 5.0 * u, NOISE, Result.breakdown, 30),  # symmetric, indefinite
        (CLOSED, NOISE + 0.5, Result.incompatible, 200),
        (lambda u: convection(u, 0.0), NOISE, Result.converged, 150),
        (lambda u: CLOSED(u), NOISE - NOISE.mean(), Result.converged, 200),
        (lambda u: convection(u, 1e-3), NOISE, Result.converged, 150),  # slightly off: that it converges is what counts
    ],
    ids=["wind", "breeze", "floating", "holes", "affine", "indefinite", "known", "plain", "compatible", "slight"],
)
def test_the_true_cause_is_named_early(x64, A, b, cause, most):
    for solution in jax.jit(lambda b: [solve(A, b, method) for method in BOTH])(jnp.asarray(b)):
        assert Result(int(solution.result)) == cause, solution.message
        assert int(solution.num_steps) <= most  # ten times the unknowns are 10,240
        assert np.isfinite(solution.value).all()


@pytest.mark.parametrize("rtol", [1e-4, 1e-5, 1e-6, 1e-7])
def test_a_mean_in_single_precision_has_one_cause_at_every_tolerance(rtol):
    solution = solve(CLOSED, jnp.asarray(NOISE + 0.5, jnp.float32), CG(rtol))
    assert int(solution.result) == Result.incompatible


def test_refinement_needs_no_symmetry(x64):
    """Whatever the wind, a good enough inverse refines; and where it does not, symmetry is not to blame."""
    laplace = FastPoisson(Grid((N, N), N + 1.0, "dirichlet", "node"))
    A = lambda u: convection(u, 0.02)
    good = solve(A, jnp.asarray(NOISE), Refinement(laplace, 1e-8))
    assert int(good.result) == Result.converged
    bad = solve(lambda u: convection(u, 2.0), jnp.asarray(NOISE), Refinement(laplace, 1e-8))
    assert int(bad.result) in (Result.stagnated, Result.max_steps)


def test_causes_under_vmap(x64):
    """Each member has its own."""
    speeds = jnp.asarray([0.0, 1.0])
    batch = jax.jit(jax.vmap(lambda c: solve(lambda u: convection(u, c), jnp.asarray(NOISE), CG(1e-8))))(speeds)
    assert list(np.asarray(batch.result)) == [Result.converged, Result.asymmetric]
