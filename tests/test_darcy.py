"""Darcy against manufactured solutions with measured order, a layered exact solution and SciPy's sparse solver."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

import neuralops as no
from neuralops.grid import Grid
from neuralops.pde import Darcy, GaussianRandomField, solve_diffusion
from neuralops.solvers import CG, FastPoisson

MIXED = ("dirichlet", "neumann")
EXTENT = (1.0, 1.5, 0.8)
# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual = (
    jax.jit(method, static_argnums=0) for method in (Darcy.sample, Darcy.solve, Darcy.relative_residual)
)
POINTS = {1: (64, 128), 2: (24, 48), 3: (14, 28)}


def profile(boundary, t):
    """A smooth function of t in [0, 1] with the condition and zero mean, and two derivatives."""
    if boundary == "neumann":
        terms = [(1.0, np.pi, np.pi / 2), (0.4, 2 * np.pi, np.pi / 2)]
    elif boundary == "periodic":
        terms = [(1.0, 2 * np.pi, 0.3), (0.4, 4 * np.pi, 1.0)]
    else:
        unit = np.pi if boundary == "dirichlet" else np.pi / 2
        terms = [(1.0, unit, 0.0), (0.4, (2 if boundary == "dirichlet" else 3) * unit, 0.0)]
    value = sum(c * np.sin(k * t + s) for c, k, s in terms)
    slope = sum(c * k * np.cos(k * t + s) for c, k, s in terms)
    curvature = -sum(c * k**2 * np.sin(k * t + s) for c, k, s in terms)
    return value, slope, curvature


def log_coefficient(x):
    """A smooth periodic function s, and its gradient; a = exp(s)."""
    turns = [2 * np.pi * x[i] / EXTENT[i] + 0.5 + i for i in range(len(x))]
    s = sum(0.4 * np.cos(turn) for turn in turns)
    return s, [-0.4 * 2 * np.pi / EXTENT[i] * np.sin(turn) for i, turn in enumerate(turns)]


def exact(boundary, x):
    """u and -div(a grad u) = -a (Laplacian u + grad s . grad u)."""
    parts = [profile(b, x[i] / EXTENT[i]) for i, b in enumerate(boundary)]
    s, ds = log_coefficient(x)
    u, total = 1.0, 0.0
    for i, (v, d1, d2) in enumerate(parts):
        others = np.prod([p[0] for j, p in enumerate(parts) if j != i], axis=0)
        u = u * v
        total = total + others * (d2 / EXTENT[i] ** 2 + ds[i] * d1 / EXTENT[i])
    return u, -np.exp(s) * total


def order_cases():
    """Each boundary in each dimension; some are left to the slow run."""
    every = ["dirichlet", "neumann", "periodic", (MIXED,) * 3, ("periodic", "neumann", MIXED)]
    for ndim, boundary, centering in itertools.product((1, 2, 3), every, ("cell", "node")):
        if ndim == 1 and boundary == every[-1]:
            continue  # the same as the pair
        cells = centering == "cell" and (ndim < 3 or boundary == every[-1])
        quick = cells or (ndim == 2 and boundary in ("dirichlet", "neumann", every[-1]))
        yield pytest.param(ndim, boundary, centering, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize(("ndim", "boundary", "centering"), order_cases())
def test_second_order(ndim, boundary, centering, x64):
    words = (boundary,) * ndim if isinstance(boundary, str) else boundary[-ndim:]
    errors, spacings = [], []
    for n in POINTS[ndim]:
        problem = Darcy(
            (n,) * ndim,
            boundary=words,
            centering=centering,
            domain_extent=EXTENT[:ndim],
            coefficient="log_normal",
            forcing=lambda x: exact(words, x)[1],
        )
        x, weights = problem.grid.coordinates(), problem.grid.weights()
        a = jnp.exp(log_coefficient(x)[0])[None]
        u = exact(words, x)[0]
        solution, residual = jax.jit(lambda a, p=problem: (u := p.solve(a), p.relative_residual(a, u)))(a)
        assert residual < 1e-10
        solution = np.asarray(solution)[0]
        if all(b in ("neumann", "periodic") for b in words):
            assert abs(np.sum(weights * solution)) < 1e-12  # the rule of zero mean
            u = u - np.sum(weights * u) / np.sum(weights)
        errors.append(np.sqrt(np.sum(weights * (solution - u) ** 2)))
        spacings.append(problem.grid.spacing[0])
    order = np.log(errors[0] / errors[1]) / np.log(spacings[0] / spacings[1])
    assert abs(order - 2) < 0.1, (order, errors)


def test_layers_of_two_phases(x64):
    """a = 12 left of 1/2 and 3 right of it: u' = (c - x)/a, integrated by hand."""
    left, right = 12.0, 3.0
    c = (1 / (8 * left) + 3 / (8 * right)) / (1 / (2 * left) + 1 / (2 * right))
    errors = []
    for n in (32, 64):
        problem = Darcy(n)
        x = problem.grid.points(0)
        a = jnp.where(x < 0.5, left, right)[None]
        middle = (c / 2 - 1 / 8) / left
        u = np.where(x < 0.5, (c * x - x**2 / 2) / left, middle + (c * (x - 0.5) - (x**2 - 0.25) / 2) / right)
        errors.append(np.abs(np.asarray(jax.jit(problem.solve)(a))[0] - u).max())
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.1, errors


@functools.cache
def sparse_matrix(n, coefficient):
    """The five-point scheme with harmonic faces and walls half a cell away, assembled cell by cell."""
    a = np.array(coefficient).reshape(n, n)
    matrix = scipy.sparse.lil_matrix((n * n, n * n))
    for i in range(n):
        for j in range(n):
            for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                k, m = i + di, j + dj
                if 0 <= k < n and 0 <= m < n:
                    face = 2 / (1 / a[i, j] + 1 / a[k, m])
                    matrix[i * n + j, k * n + m] -= face * n**2
                else:
                    face = 2 * a[i, j]
                matrix[i * n + j, i * n + j] += face * n**2
    return matrix.tocsr()


@pytest.mark.parametrize("coefficient", ["two_phase", "log_normal"])
def test_equals_scipy(coefficient, x64):
    n = 21
    problem = Darcy((n, n), coefficient=coefficient, values=(100.0, 0.5), scale=20.0)
    a = sample(problem, jax.random.key(3))
    u = solve(problem, a)
    matrix = sparse_matrix(n, tuple(np.asarray(a).ravel().tolist()))
    expected = scipy.sparse.linalg.spsolve(matrix, np.ones(n * n)).reshape(1, n, n)
    assert a.max() / a.min() > 100
    np.testing.assert_allclose(u, expected, atol=1e-9 * expected.max())
    assert relative_residual(problem, a, u) <= 1e-10
    own = np.linalg.norm(matrix @ np.asarray(u).ravel() - 1) / n
    assert float(relative_residual(problem, a, u)) == pytest.approx(own, rel=1e-3)


def test_samples_follow_their_law(x64):
    key, shape = jax.random.key(5), (24, 31)
    g = GaussianRandomField(2.5, 4.0, boundary=("neumann", "periodic"), num_modes=12).sample(
        key, Grid(shape, 1.0, ("dirichlet", "periodic"), "cell")
    )
    options = {"alpha": 2.5, "tau": 4.0, "boundary": ("dirichlet", "periodic"), "num_modes": 12}
    np.testing.assert_array_equal(Darcy(shape, **options).sample(key), np.where(g >= 0, 12.0, 3.0))
    np.testing.assert_array_equal(Darcy(shape, values=(1, 7), **options).sample(key), np.where(g >= 0, 1.0, 7.0))
    np.testing.assert_allclose(Darcy(shape, coefficient="log_normal", **options).sample(key), np.exp(g), rtol=1e-14)
    draw = jax.vmap(Darcy((8, 8)).sample)(jax.random.split(key, 2000))
    assert abs(np.mean(draw == 12.0) - 0.5) < 0.02  # the field is symmetric in law


def test_the_smooth_preconditioner_saves_steps_and_changes_nothing(x64):
    problem = Darcy((40, 40), coefficient="log_normal", scale=12.0, centering="node")
    a, f = sample(problem, jax.random.key(0)), jnp.ones((1, 40, 40))
    plain, scaled = jax.jit(lambda a: [solve_diffusion(problem.grid, a, f, smooth=smooth) for smooth in (False, True)])(
        a
    )
    assert plain.converged
    assert scaled.converged
    assert scaled.num_steps * 5 < plain.num_steps
    np.testing.assert_allclose(plain.value, scaled.value, atol=1e-8 * plain.value.max())


@pytest.mark.parametrize("coefficient", ["two_phase", "log_normal"])
@pytest.mark.parametrize("ndim", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
def test_single_precision(ndim, coefficient, x64):
    n = {1: 200, 2: 48, 3: 14}[ndim]
    problem = Darcy((n,) * ndim, coefficient=coefficient)
    a = sample(problem, jax.random.key(8)).astype("float32")
    smooth = coefficient == "log_normal"

    def solve_and_judge(a):
        solution = solve_diffusion(problem.grid, a, jnp.ones_like(a), smooth=smooth)
        return problem.solve(a), problem.relative_residual(a, solution.value), solution.converged

    u, residual, converged = jax.jit(solve_and_judge)(a)
    truth = solve(problem, a.astype("float64"))
    assert u.dtype == jnp.float32
    assert np.linalg.norm(u - truth) < 2e-5 * np.linalg.norm(truth)
    assert residual < 2 * max(1e-6, n**2 * 1.2e-7 / 4)
    assert converged


def test_a_prediction_is_certified(x64):
    problem = Darcy((32, 32))
    a = sample(problem, jax.random.key(1))
    truth = solve(problem, a)
    method = CG(1e-8, preconditioner=FastPoisson(problem.grid))
    certify = jax.jit(lambda a, start: no.solve(problem.operator(a), problem.load(), method, x0=start))
    cold, warm = certify(a, 0 * a), certify(a, truth * (1 + 1e-4))
    assert warm.converged
    assert warm.num_steps < cold.num_steps
    np.testing.assert_allclose(warm.value, truth, rtol=1e-6)


def test_gradient_in_the_permeability(x64):
    problem = Darcy((10, 9), centering="node", coefficient="log_normal")
    a = sample(problem, jax.random.key(1))
    direction = jnp.sin(jnp.arange(90.0)).reshape(1, 10, 9)
    mean = jax.jit(lambda a: jnp.mean(problem.solve(a) ** 2))
    slope = jnp.vdot(jax.jit(jax.grad(mean))(a), direction)
    step = 1e-4
    difference = (mean(a + step * direction) - mean(a - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_without_a_dirichlet_end_means_are_removed(x64):
    options = {"boundary": ("neumann", "periodic"), "centering": "node"}
    plain = Darcy((16, 12), forcing=lambda x: np.cos(np.pi * x[0]), **options)
    lifted = Darcy((16, 12), forcing=lambda x: np.cos(np.pi * x[0]) + 5.0, **options)
    a = sample(plain, jax.random.key(2))
    u = solve(plain, a)
    np.testing.assert_allclose(solve(lifted, a), u, atol=1e-10 * np.abs(u).max())
    assert abs(np.sum(plain.grid.weights() * u[0])) < 1e-14
    assert relative_residual(plain, a, u) < 1e-10
    assert not solve_diffusion(plain.grid, a, jnp.ones_like(a)).converged


def test_jit_and_vmap(x64):
    problem = Darcy((14, 11))
    a = jax.vmap(problem.sample)(jax.random.split(jax.random.key(3), 4))
    u = jax.jit(jax.vmap(problem.solve))(a)
    residuals = jax.jit(jax.vmap(problem.relative_residual))(a, u)
    assert residuals.shape == (4,)
    assert residuals.max() < 1e-10
    alone = jax.jit(problem.solve)
    for a_i, u_i in zip(a, u, strict=True):
        np.testing.assert_allclose(alone(a_i), u_i, atol=1e-10 * u_i.max())


def test_a_problem_is_a_constant_that_can_be_written_down():
    problem = Darcy((12, 10), boundary=("dirichlet", MIXED), values=(2, 1), rtol=1e-8, num_modes=6)
    assert jax.tree.leaves(problem) == []
    assert problem == Darcy(**problem.parameters())
    assert problem.with_points(24).num_points == (24, 24)
    assert problem.with_points(24).rtol == 1e-8
    named = Darcy(8, forcing=np.sin).parameters()["forcing"]
    assert named.endswith("sin")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"coefficient": "three_phase"}, "coefficient"),
        ({"values": (1.0, -3.0)}, "values"),
        ({"values": 12.0}, "values"),
        ({"alpha": 1.0}, "alpha"),
        ({"tau": float("nan")}, "tau"),
        ({"scale": 0.0}, "scale"),
        ({"rtol": -1e-3}, "rtol"),
        ({"forcing": 0.0}, "forcing"),
        ({"forcing": "one"}, "forcing"),
        ({"forcing": lambda x: x}, "forcing"),
        ({"boundary": "neumann"}, "forcing: without a Dirichlet end"),
        ({"boundary": "periodic"}, "forcing: without a Dirichlet end"),
        ({"num_points": (8, -8)}, "num_points"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        Darcy(**{"num_points": (8, 8), **arguments})


def test_refuses_bad_fields():
    problem = Darcy((8, 8))
    for bad in (jnp.ones((8, 8)), jnp.ones((1, 8, 9)), jnp.ones((1, 8, 8), bool), jnp.ones((2, 8, 8))):
        with pytest.raises(ValueError, match="a: "):
            problem.solve(bad)
        with pytest.raises(ValueError, match="u: "):
            problem.residual(jnp.ones((1, 8, 8)), bad)


def test_trigonometric_medium(x64):
    """The same product on every grid, positive, within its bounds, and solved."""
    problem = Darcy((48, 48), coefficient="trigonometric")
    a = sample(problem, jax.random.key(4))
    fine = sample(problem.with_points((144, 144)), jax.random.key(4))
    np.testing.assert_allclose(a[0], fine[0, 1::3, 1::3], rtol=1e-10)  # midpoints of cells in the middle of three
    assert 0.5**12 < float(a.min()) < float(a.max()) < 1.5**12
    assert float(relative_residual(problem, a, solve(problem, a))) < 1e-9
    with pytest.raises(ValueError, match="two dimensions"):
        Darcy(16, coefficient="trigonometric")
