"""A solve has no unit: systems whose right-hand side or operator is 1e-30 or 1e30 large, in float32.

Factors are powers of two, by which floating numbers are multiplied exactly: all that is relative must stay the same to
the last bit, gradients too up to the factor that is theirs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from neuralops import sharding
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
    NullSpace,
    Refinement,
    Result,
    angle_loss,
    energy_decay,
    energy_loss,
    lanczos,
    one_step_loss,
    ritz_pairs,
    solve,
    visited_residual,
)

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


LOSSES = {  # A, e, g -> the loss, whose gradient is with respect to the last
    "one step": one_step_loss,
    "angle": angle_loss,
    "energy": lambda A, e, g: energy_loss(A, e, g + e),
    "decay": lambda A, e, g: energy_decay(A, lambda r: r, e + g, steps=3),
    "decay with a cycle": lambda A, e, g: energy_decay(A, Multigrid(A), e + g, steps=3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_directions_and_their_gradients_have_no_unit(name):
    run = jax.jit(lambda a, e, g: jax.value_and_grad(LOSSES[name], 2)(Diffusion.from_coefficient(GRID, a), e, g))
    loss, slope = run(FIELD, E, G)
    assert np.isfinite(loss)
    assert float(jnp.abs(slope).max()) > 0
    for power_A, power_e, power_g in ((-90, 0, 0), (90, 0, 0), (0, -94, -94), (0, 94, 94), (0, 60, -60), (80, -90, 80)):
        if power_e != power_g and name not in ("one step", "angle"):
            continue
        scales = (np.float32(2.0**power) for power in (power_A, power_e, power_g))
        scaled, to_g = run(*(scale * u for scale, u in zip(scales, (FIELD, E, G), strict=True)))
        assert float(scaled) == float(loss)
        np.testing.assert_allclose(np.asarray(to_g, np.float64) * 2.0**power_g, slope, rtol=1e-5, atol=1e-9)


def test_lanczos_has_no_unit():
    run = jax.jit(lambda a, start: (lanczos(A := Diffusion(GRID, a), start, 9), ritz_pairs(A, start, 9)))
    faces = Diffusion.from_coefficient(GRID, FIELD).all_faces()
    basis, (values, vectors) = run(faces, B)
    assert int(basis.num_valid) == 9
    for power_A, power_b in ((-90, 0), (90, 0), (0, -98), (0, 98)):
        scale = np.float32(2.0**power_A)
        other, (to_values, to_vectors) = run([scale * c for c in faces], np.float32(2.0**power_b) * B)
        for u, v in ((other.vectors, basis.vectors), (to_vectors, vectors)):
            np.testing.assert_array_equal(u, v)
        for u, v in (
            (other.diagonal, basis.diagonal),
            (other.off_diagonal, basis.off_diagonal),
            (other.remainder, basis.remainder),
            (to_values, values),
        ):
            np.testing.assert_array_equal(u / scale, v)


@pytest.mark.parametrize("size", [2.0**-98, 2.0**98])
def test_null_spaces_and_visited_residuals_have_no_unit(size):
    size = np.float32(size)
    free = Grid(GRID.num_points, 20.0, "neumann", "cell")
    spaces = [Diffusion(free).null_space(), NullSpace.from_basis([jnp.ones(GRID.shape), jnp.asarray(E)])]
    scaled = [spaces[0], NullSpace.from_basis([size * jnp.ones(GRID.shape), jnp.asarray(size * E)])]
    for one, other in zip(spaces, scaled, strict=True):
        np.testing.assert_array_equal(other.to_range(size * B) / size, one.to_range(B))
        np.testing.assert_array_equal(other.incompatibility(size * B), one.incompatibility(B))
    visit = jax.jit(lambda b: visited_residual(diffusion(), b, CG(), 4))
    (residual, x), (to_residual, to_x) = visit(B), visit(size * B)
    assert float(jnp.linalg.norm(residual)) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(to_residual, residual)
    np.testing.assert_array_equal(to_x / size, x)


@pytest.mark.parametrize("size", [2.0**-90, 2.0**90])
def test_solves_on_meshes_have_no_unit(size):
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("x",))
    for method in (CG(1e-4), lambda A: FlexibleCG(1e-4, preconditioner=Jacobi(A))):
        run = jax.jit(lambda b, method=method: sharding.solve(diffusion(), b, method, mesh=mesh, axes=("x", None)))
        one, other = run(B), run(np.float32(size) * B)
        assert int(one.result) == Result.converged
        assert int(other.num_steps) == int(one.num_steps)
        np.testing.assert_array_equal(other.value / np.float32(size), one.value)
