"""Gradients of `solve` against dense pseudo-inverses and finite differences: every method, boundary and mask."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, FlexibleCG, Inverse, Refinement, solve

GRIDS = {
    "dirichlet": Grid((12, 10), (1.0, 0.9), "dirichlet", "cell"),
    "neumann": Grid((7, 6), (1.0, 0.9), "neumann", "node"),
    "periodic": Grid((6, 8), (1.0, 0.9), "periodic", "cell"),
    "mixed": Grid((7, 6), (1.0, 1.3), (("dirichlet", "neumann"), "periodic"), ("cell", "node")),
}
EXACT = {
    "cg": lambda A, grid: CG(1e-13),
    "fast": lambda A, grid: CG(1e-13, preconditioner=FastPoisson(grid)),
    "flexible": lambda A, grid: FlexibleCG(1e-13, memory=3, preconditioner=FastPoisson(grid)),
    "refinement": lambda A, grid: Refinement(Inverse(A, CG(1e-4)), 1e-13),
}
COMBINATIONS = list(itertools.product(EXACT, GRIDS, (False, True)))
QUICK = {("cg", "neumann", True), ("fast", "dirichlet", True), ("flexible", "periodic", True),
         ("refinement", "mixed", False), ("flexible", "dirichlet", False)}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "boundary", "masked"),
    [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.slow) for c in COMBINATIONS],
)
def test_gradients_equal_dense_ones_and_finite_differences(x64, method, boundary, masked):
    """In the coefficient and the source; islands and solid cells included, where the pseudo-inverse is the standard."""
    grid = GRIDS[boundary]
    r = np.random.default_rng(5)
    a, f, c = (jnp.asarray(v) for v in (np.exp(0.5 * r.normal(size=grid.shape)), *r.normal(size=(2, *grid.shape))))
    mask = np.ones(grid.shape, bool)
    if masked:
        mask[2, 1:] = mask[4:, 3] = False
        mask[3, 0] = False
        mask[3, 2] = False

    def operator(a):
        return Diffusion.from_coefficient(grid, a, mask=mask if masked else None)

    def ours(a, f):
        A = operator(a)
        return jnp.vdot(c, solve(A, A.load(f), EXACT[method](A, grid)).value)

    @jax.jit
    def matrices(a, f, da):
        A = operator(a)
        null_space = A.null_space()
        P, Q = (lambda v: v,) * 2 if null_space is None else (null_space.to_range, null_space.fix_gauge)
        basis = jnp.eye(a.size).reshape(-1, *grid.shape)
        change = jax.jvp(lambda a: operator(a).as_matrix(), (a,), (da,))[1]
        columns = [jax.vmap(g)(basis).reshape(a.size, -1).T for g in (P, Q, A.load)]
        return A.as_matrix(), change, *columns

    da, df = (jnp.asarray(v) for v in r.normal(size=(2, *grid.shape)))
    matrix, change, P, Q, load = (np.asarray(m) for m in matrices(a, f, da))
    inverse = Q @ np.linalg.pinv(matrix, rcond=1e-11) @ P
    x = inverse @ (load @ np.ravel(f))
    value, (to_a, to_f) = jax.jit(jax.value_and_grad(ours, (0, 1)))(a, f)
    np.testing.assert_allclose(value, np.ravel(c) @ x, rtol=1e-8)
    expected_a = -np.ravel(c) @ inverse @ change @ x
    expected_f = np.ravel(c) @ inverse @ load @ np.ravel(df)
    np.testing.assert_allclose(jnp.vdot(to_a, da), expected_a, rtol=1e-6, atol=1e-9 * abs(value))
    np.testing.assert_allclose(jnp.vdot(to_f, df), expected_f, rtol=1e-6, atol=1e-9 * abs(value))
    run, h = jax.jit(ours), 1e-5
    slope = (run(a + h * da, f + h * df) - run(a - h * da, f - h * df)) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(to_a, da) + jnp.vdot(to_f, df), slope, rtol=1e-6, atol=1e-8 * abs(value))
