"""A solve has no unit: systems whose right-hand side or operator is 1e-30 or 1e30 large, in float32.

Factors are powers of two, by which floating numbers are multiplied exactly: all that is relative must stay the same to
the last bit, gradients too up to the factor that is theirs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.models import DirectionNet
from neuralops.solvers import (
    CG,
    Chebyshev,
    DeepConjugateDirection,
    Diffusion,
    FastPoisson,
    FlexibleCG,
    Jacobi,
    Multigrid,
    Refinement,
    Result,
    solve,
)  # fmt: skip

GRID = Grid((20, 14), 20.0, "dirichlet", "cell")
RNG = np.random.default_rng(0)
FIELD = np.exp(RNG.normal(size=GRID.shape)).astype(np.float32)
B, E, G = RNG.normal(size=(3, *GRID.shape)).astype(np.float32)
UNITS = [(-90, 0), (90, 0), (0, -80), (0, 80), (-60, -60), (60, 60)]  # binary exponents of b and A
NETWORK = DirectionNet(ndim=2, hidden_channels=2, pairs=(1, 1, 1), key=jax.random.key(0))


def diffusion(power=0):
    return Diffusion.from_coefficient(GRID, np.float32(2.0**power) * FIELD)


METHODS = {
    "CG": lambda A: CG(1e-4, history=20),
    "CG, compensated": lambda A: CG(1e-4, dot="compensated"),
    "CG, Jacobi": lambda A: CG(1e-4, preconditioner=Jacobi(A)),
    "CG, Chebyshev": lambda A: CG(1e-4, preconditioner=Chebyshev(A)),
    "CG, Multigrid": lambda A: CG(1e-4, preconditioner=Multigrid(A)),
    "CG, FastPoisson": lambda A: CG(1e-4, preconditioner=FastPoisson(GRID)),
    "FlexibleCG": lambda A: FlexibleCG(1e-4, history=20),
    "FlexibleCG, Multigrid": lambda A: FlexibleCG(1e-4, preconditioner=Multigrid(A)),
    "FlexibleCG, FastPoisson": lambda A: FlexibleCG(1e-4, preconditioner=FastPoisson(GRID)),
    "Refinement": lambda A: Refinement(Multigrid(A), 1e-4),
    "DeepConjugateDirection": lambda A: DeepConjugateDirection(NETWORK, 1e-4, max_steps=12),
}


@pytest.mark.parametrize("name", METHODS)
def test_solves_and_their_gradients_have_no_unit(name):
    def value(a, b):
        A = Diffusion.from_coefficient(GRID, a)
        solution = solve(A, b, METHODS[name](A), warn=False)
        return jnp.vdot(G, solution.value), solution

    run = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))
    (_, one), (by_a, by_b) = run(FIELD, B)
    assert int(one.result) == (Result.max_steps if name == "DeepConjugateDirection" else Result.converged)
    assert int(one.num_steps) > 1
    for power_b, power_a in UNITS:
        if name == "CG, compensated" and abs(power_a) > 60:
            continue  # half of each product's digits would be lost: they lie beneath the smallest number
        (_, s), (to_a, to_b) = run(np.float32(2.0**power_a) * FIELD, np.float32(2.0**power_b) * B)
        assert (int(s.result), int(s.num_steps)) == (int(one.result), int(one.num_steps)), (power_b, power_a)
        assert float(s.residual_norm) == float(one.residual_norm)
        assert int(s.num_rejected) == int(one.num_rejected)
        if one.history is not None:
            np.testing.assert_array_equal(s.history, one.history)

        def same(scaled, plain, power):
            np.testing.assert_array_equal(np.asarray(scaled, np.float64) * 2.0**-power, plain)

        same(s.value, one.value, power_b - power_a)
        same(to_b, by_b, -power_a)
        if abs(power_b - 2 * power_a) < 100:  # else it is no float32
            same(to_a, by_a, power_b - 2 * power_a)
