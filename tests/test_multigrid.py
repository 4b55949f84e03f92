"""Multigrid against published convergence factors and step counts, dense matrices and the promises of its docstring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FlexibleCG, Multigrid, Refinement, solve
from neuralops.solvers.solution import Result

MIXED = (("dirichlet", "neumann"), "periodic")
diffusion = jax.jit(Diffusion.from_coefficient, static_argnums=0)  # as one program, not one for each operation


def balls(n, ndim, count=12, seed=0):
    """True outside of round obstacles."""
    rng = np.random.default_rng(seed)
    x = np.stack(np.meshgrid(*[(np.arange(n) + 0.5) / n] * ndim, indexing="ij"))
    mask = np.ones((n,) * ndim, bool)
    for _ in range(count):
        centre, radius = rng.uniform(0.1, 0.9, ndim), rng.uniform(0.03, 0.1)
        mask &= np.sum((x - centre.reshape(-1, *[1] * ndim)) ** 2, 0) > radius**2
    return jnp.asarray(mask)


def coefficient(shape, seed=0, sigma=1.0):
    return jnp.asarray(np.exp(sigma * np.random.default_rng(seed).normal(size=shape)))


@jax.jit
def source(A, f):
    return A.to_range(A.load(f))


def noise(A, seed=1):
    return source(A, np.random.default_rng(seed).normal(size=A.grid.shape))


def steps(A, rtol=1e-8, **kwargs):
    run = jax.jit(lambda A, b: solve(A, b, CG(rtol, max_steps=100, preconditioner=Multigrid(A, **kwargs))))
    s = run(A, noise(A))
    assert int(s.result) == Result.converged
    return int(s.num_steps)


def as_matrix(A, **kwargs):
    """The matrix of the cycle."""
    shape = A.grid.shape
    n = int(np.prod(shape))
    run = jax.jit(lambda A, basis: Multigrid(A, **kwargs)(basis))
    return np.asarray(run(A, np.eye(n).reshape(n, *shape))).reshape(n, n).T


slow = pytest.mark.slow
# Residual factors per cycle: Dirichlet, linear interpolation and its transpose, sweeps in the same order.
FACTORS = [
    (2, "red_black", (1, 1), 0.100),
    (2, "red_black", (2, 2), 0.054),
    (2, "jacobi", (1, 1), 0.345),
    pytest.param(3, "red_black", (1, 1), 0.20, marks=slow),
    pytest.param(2, "red_black", (1, 0), 0.315, marks=slow),
    pytest.param(2, "red_black", (2, 1), 0.071, marks=slow),
    pytest.param(2, "jacobi", (2, 1), 0.21, marks=slow),
    pytest.param(2, "jacobi", (2, 2), 0.156, marks=slow),
    pytest.param(3, "red_black", (1, 0), 0.445, marks=slow),
    pytest.param(3, "red_black", (2, 1), 0.125, marks=slow),
    pytest.param(3, "red_black", (2, 2), 0.099, marks=slow),
    pytest.param(3, "jacobi", (1, 1), 0.475, marks=slow),
    pytest.param(3, "jacobi", (2, 1), 0.335, marks=slow),
    pytest.param(3, "jacobi", (2, 2), 0.24, marks=slow),
]


def factor(A, **kwargs):
    """The mean reduction of the residual over cycles 9 to 15. (It still creeps up, by a tenth until cycle 60.)"""

    @jax.jit
    def run(error):
        M = Multigrid(A, **kwargs)

        def step(error, _):
            error = error - M(A(error))
            size = jnp.linalg.norm(A(error))
            return error / size, size

        return jax.lax.scan(step, error / jnp.linalg.norm(A(error)), None, length=15)[1]

    error = jnp.asarray(np.random.default_rng(0).normal(size=A.grid.shape))
    return float(np.exp(np.mean(np.log(np.asarray(run(error))[8:]))))


@pytest.mark.parametrize(("ndim", "smoother", "sweeps", "published"), FACTORS)
def test_published_convergence_factors(x64, ndim, smoother, sweeps, published):
    A = Diffusion(Grid((63,) * 2 if ndim == 2 else (31,) * 3, boundary="dirichlet"))
    found = factor(A, smoother=smoother, pre=sweeps[0], post=sweeps[1], symmetric=False)
    assert 0.9 * published < found < 1.1 * published


@slow
def test_w_and_f_cycles(x64):
    A = Diffusion(Grid((63, 63), boundary="dirichlet"))
    v, w, f = (factor(A, cycle=cycle, symmetric=False) for cycle in "VWF")
    assert 0.9 * 0.068 < w < 1.1 * 0.068  # published
    assert w < 0.8 * v
    assert f < 0.8 * v


@pytest.mark.parametrize(
    ("boundary", "centering", "coarsening"),
    [
        ("dirichlet", "cell", "cells"),
        ("dirichlet", "node", "nodes"),
        ("neumann", "cell", "cells"),
        ("neumann", "node", "nodes"),
        ("periodic", "cell", "cells"),
        ("periodic", "node", "nodes"),
        (MIXED, "cell", "nodes"),
        (MIXED[::-1], "node", "cells"),
    ],
)
def test_symmetric_and_positive_on_any_grid(x64, boundary, centering, coarsening):
    """With odd sizes, a rough coefficient and, where cells are joined, an obstacle that leaves a point alone."""
    grid = Grid((9, 14), (1.0, 1.3), boundary, centering)
    mask = None if coarsening == "nodes" else np.ones(grid.shape, bool)
    if mask is not None:
        mask[3:6, 3:6] = False
        mask[4, 4] = True
    A = diffusion(grid, coefficient(grid.shape), mask=mask)
    B = as_matrix(A, coarsening=coarsening)
    np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-13 * np.abs(B).max())
    eigenvalues = np.linalg.eigvalsh(B)
    inside = np.asarray(jax.jit(Diffusion.diagonal)(A)).ravel() > 0
    assert np.sum(eigenvalues > 1e-6 * eigenvalues.max()) >= inside.sum() - 1  # positive, but for a null space
    assert eigenvalues.min() > -1e-12 * eigenvalues.max()
    np.testing.assert_array_equal(B[~inside], 0)


@pytest.mark.parametrize(
    "kwargs", [{"smoother": "jacobi"}, {"smoother": "chebyshev", "pre": 2, "post": 2}, {"cycle": "W"}]
)
def test_other_cycles_are_symmetric(x64, kwargs):
    grid = Grid((17, 20), boundary=("neumann", "dirichlet"), centering="cell")
    A = diffusion(grid, coefficient(grid.shape))
    B = as_matrix(A, **kwargs)
    np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-13 * np.abs(B).max())
    assert np.linalg.eigvalsh(B).min() > 0


@slow
def test_symmetric_in_three_dimensions(x64):
    grid = Grid((5, 6, 7), boundary=("neumann", "periodic", "dirichlet"), centering="cell")
    A = diffusion(grid, coefficient(grid.shape))
    B = as_matrix(A, coarsening="nodes")
    np.testing.assert_allclose(B, B.T, rtol=0, atol=1e-13 * np.abs(B).max())
    assert np.linalg.eigvalsh(B).min() > 0


@pytest.mark.parametrize(
    ("grid", "mask", "sweeps", "published"),
    [
        (Grid((127, 127), boundary="dirichlet"), None, 1, 8),
        (Grid((256, 256), boundary="neumann", centering="cell"), balls(256, 2), 1, 13),
        (Grid((256, 256), boundary="neumann", centering="cell"), balls(256, 2), 2, 9),
        pytest.param(Grid((31, 31, 31), boundary="dirichlet"), None, 1, 10, marks=slow),
        pytest.param(Grid((63, 63, 63), boundary="dirichlet"), None, 1, 10, marks=slow),
        pytest.param(Grid((256, 256), boundary="neumann", centering="cell"), None, 1, 10, marks=slow),
        pytest.param(Grid((256, 256), boundary="neumann", centering="cell"), None, 2, 7, marks=slow),
        pytest.param(Grid((64, 64, 64), boundary="neumann", centering="cell"), balls(64, 3), 1, 15, marks=slow),
        pytest.param(Grid((64, 64, 64), boundary="neumann", centering="cell"), balls(64, 3), 2, 7, marks=slow),
    ],
)
def test_published_step_counts(x64, grid, mask, sweeps, published):
    """Of CG with one V(1,1) or V(2,2), to 1e-8, from noise."""
    A = Diffusion(grid) if mask is None else diffusion(grid, np.ones(grid.shape), mask=mask)
    assert abs(steps(A, pre=sweeps, post=sweeps) - published) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("centering", ["cell", "node"])
@pytest.mark.parametrize("sizes", [((64,) * 2, (256,) * 2, (1024,) * 2), ((32,) * 3, (64,) * 3, (128,) * 3)])
def test_steps_do_not_grow_with_the_grid(x64, sizes, centering):
    counts = [steps(Diffusion(Grid(shape, boundary="dirichlet", centering=centering))) for shape in sizes]
    assert max(counts) - min(counts) <= 2


@pytest.mark.parametrize(("n", "coarsening", "limit"), [(33, "cells", 14), (50, "nodes", 10), (77, "nodes", 10)])
def test_any_size_is_as_good(x64, n, coarsening, limit):
    assert steps(Diffusion(Grid((n, n + 9), boundary=MIXED, centering="cell")), coarsening=coarsening) <= limit


@pytest.mark.parametrize("centering", [pytest.param("cell", marks=slow), "node"])
def test_jumps_wherever_they_lie(x64, centering):
    """A checkerboard of contrast 1000 whose squares no coarse grid fits."""
    square = np.arange(128) // 27
    a = jnp.asarray(np.where((square[:, None] + square) % 2, 1e3, 1.0))
    A = diffusion(Grid((128, 128), boundary="dirichlet", centering=centering), a)
    assert steps(A, coarsening="nodes") <= 32


def test_anisotropy_by_semicoarsening(x64):
    """1:100, from the mesh width (seen without help) and from the coefficient (told)."""
    flat = Grid((40, 40), (0.1, 1.0), "dirichlet", "cell")
    assert steps(Diffusion(flat)) <= 14
    grid = Grid((40, 40), boundary="dirichlet", centering="cell")
    strength = (100.0, 1.0)
    A = Diffusion(
        grid,
        [s * c for s, c in zip(strength, diffusion(grid, np.ones(grid.shape)).faces, strict=True)],
    )
    told, blind = steps(A, anisotropy=strength), steps(A)
    assert told <= 14 < 2 * told < blind


@pytest.mark.slow
def test_solver_by_itself_and_with_flexible_cg(x64):
    A = Diffusion.from_coefficient(Grid((31, 31), boundary="dirichlet"), coefficient((31, 31)))
    b = noise(A)
    expected = np.linalg.solve(A.as_matrix(), b.ravel()).reshape(b.shape)
    M = Multigrid(A, symmetric=False, pre=2)  # not symmetric
    for method in (Refinement(M, rtol=1e-10), FlexibleCG(1e-10, preconditioner=M)):
        s = jax.jit(solve)(A, b, method)
        assert bool(s.converged)
        assert int(s.num_steps) < 20
        np.testing.assert_allclose(s.value, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert bool(solve(A, b, Multigrid(A)).converged)


def test_one_program_for_new_coefficients_and_masks(x64):
    grid = Grid((40, 40), boundary="neumann", centering="cell")
    traces = []

    @jax.jit
    def run(mask, b):
        traces.append(1)
        A = Diffusion.from_coefficient(grid, jnp.ones(grid.shape), mask=mask)
        return solve(A, A.to_range(b), CG(1e-8, preconditioner=Multigrid(A)))

    b = jnp.asarray(np.random.default_rng(3).normal(size=grid.shape))
    for seed in range(3):
        assert bool(run(balls(40, 2, 4, seed), b).converged)
    assert len(traces) == 1
    masks = jnp.stack([balls(40, 2, 4, seed) for seed in range(3)])
    together = jax.jit(jax.vmap(lambda mask: run(mask, b)))(masks)
    assert np.all(np.asarray(together.converged))
    for seed in range(3):
        alone = run(masks[seed], b)
        np.testing.assert_allclose(
            together.value[seed], alone.value, rtol=0, atol=1e-7 * float(jnp.abs(alone.value).max())
        )
    # and through a boundary of jit, as a pytree
    A = diffusion(grid, np.ones(grid.shape), mask=masks[0])
    M = jax.jit(Multigrid)(A)
    assert bool(jax.jit(lambda A, M, b: solve(A, b, CG(1e-8, preconditioner=M)))(A, M, noise(A)).converged)


def test_float32_cycle_in_a_float64_solve(x64):
    A = diffusion(Grid((31, 31), boundary="dirichlet"), coefficient((31, 31)))
    assert abs(steps(A, dtype="float32", rtol=1e-10) - steps(A, rtol=1e-10)) <= 1


def test_gradients_do_not_depend_on_it(x64):
    grid = Grid((12, 11), boundary=("neumann", "dirichlet"), centering="cell")
    a, b = coefficient(grid.shape), jnp.asarray(np.random.default_rng(2).normal(size=grid.shape))

    def loss(a, how):
        A = Diffusion.from_coefficient(grid, a)
        if how == "dense":
            return jnp.sum(jnp.sin(40 * jnp.linalg.solve(A.as_matrix(), b.ravel())))
        return jnp.sum(jnp.sin(40 * solve(A, b, CG(1e-13, preconditioner=Multigrid(A))).value))

    found, expected = (jax.jit(jax.grad(loss), static_argnums=1)(a, how) for how in ("multigrid", "dense"))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"pre": -1}, "pre"),
        ({"post": 1.5}, "post"),
        ({"pre": 0, "post": 0}, "sweep"),
        ({"smoother": "ilu"}, "smoother"),
        ({"cycle": "X"}, "cycle"),
        ({"coarsening": "algebraic"}, "coarsening"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"anisotropy": (1.0,)}, "anisotropy"),
        ({"anisotropy": (1.0, -1.0)}, "anisotropy"),
    ],
)
def test_refusals(arguments, word):
    A = Diffusion(Grid((8, 8), boundary="dirichlet"))
    with pytest.raises(ValueError, match=word):
        jax.eval_shape(lambda: Multigrid(A, **arguments))
    with pytest.raises(ValueError, match="A: expected a Diffusion"):
        Multigrid(np.eye(4))
    with pytest.raises(ValueError, match="locked to the grid"):
        jax.eval_shape(lambda: Multigrid(A)(jnp.ones((9, 9))))
