"""The law of the directions' right-hand sides (fact sheet DCDM, tests 10 and 11), against dense linear algebra."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops import data
from neuralops.data.files import store
from neuralops.pde import PoissonDirections

MIXED = ("dirichlet", "neumann")
# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual, as_matrix = (
    jax.jit(method, static_argnums=0)
    for method in (
        PoissonDirections.sample, PoissonDirections.solve, PoissonDirections.relative_residual,
        lambda problem: problem.operator.as_matrix(),
    )
)  # fmt: skip


def obstacle(x):
    """Cuts a strip off the box, and a hole into the rest."""
    strip = np.abs(x[1] - 0.7) < 0.06
    hole = (np.abs(x[0] - 0.5) < 0.15) & (np.abs(x[1] - 0.3) < 0.15)
    return ~(strip | hole)


def dense_modes(problem):
    """The modes as rows, by combining unit vectors."""
    count = len(problem.eigenvalues)
    return np.asarray(jax.jit(jax.vmap(problem.combine))(jnp.eye(count))).reshape(count, -1)


def null_vectors(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, values < 1e-9 * values[-1]].T


BOXES = [
    ((7, 6), "neumann", "cell"),
    ((8, 5), "periodic", "cell"),
    ((8, 5), ("periodic", "dirichlet"), "node"),
    ((5, 4, 3), (MIXED, "neumann", "periodic"), ("cell", "cell", "node")),
    ((9,), (("neumann", "dirichlet"),), "cell"),
]


@pytest.mark.parametrize(("num_points", "boundary", "centering"), BOXES)
def test_exact_modes_are_all_eigenvectors_of_the_matrix(num_points, boundary, centering, x64):
    extent = (1.0, 1.5, 0.8)[: len(num_points)]
    problem = PoissonDirections(num_points, domain_extent=extent, boundary=boundary, centering=centering)
    matrix = np.asarray(as_matrix(problem))
    expected = np.linalg.eigvalsh(matrix)
    expected = expected[expected > 1e-9 * expected[-1]]
    np.testing.assert_allclose(problem.eigenvalues, expected, rtol=0, atol=1e-12 * expected[-1])
    q = dense_modes(problem)
    assert np.abs(q @ q.T - np.eye(len(q))).max() < 1e-13
    assert np.abs(q @ matrix - problem.eigenvalues[:, None] * q).max() < 1e-12 * expected[-1]


def test_a_long_axis_takes_the_same_modes(x64):
    problem = PoissonDirections(400, num_modes=399)  # transformed by FFT, not by a matrix
    c = jax.random.normal(jax.random.key(0), (399,))
    i, k = np.arange(400), np.arange(1, 400)
    expected = np.sqrt(2 / 400) * np.cos(np.pi * np.outer(i + 0.5, k) / 400) @ np.asarray(c)
    np.testing.assert_allclose(problem.combine(c)[0], expected, atol=1e-12)
    np.testing.assert_allclose(problem.eigenvalues, (2 * 400 * np.sin(np.pi * k / 800)) ** 2, rtol=1e-11)


def test_fewer_exact_modes_crowd_at_both_ends_like_ritz_values(x64):
    exact = PoissonDirections((20, 19), num_modes=60)
    ritz = PoissonDirections((20, 19), modes="ritz", num_modes=60)
    whole = PoissonDirections((20, 19)).eigenvalues
    assert len(whole) == 379
    chosen = exact.eigenvalues
    assert len(chosen) == 60
    assert len(set(exact.basis.index.tolist())) == 60
    assert np.all(np.diff(chosen) >= -1e-12 * whole[-1])
    np.testing.assert_allclose(chosen[[0, 1, 2, -2, -1]], whole[[0, 1, 2, -2, -1]], rtol=1e-12)

    def distance(first, second):
        """Largest difference between the fractions of values below a given one."""
        at = np.concatenate([first, second])
        below = [np.searchsorted(np.sort(v), at, side="right") / len(v) for v in (first, second)]
        return np.abs(below[0] - below[1]).max()

    assert distance(chosen, ritz.eigenvalues) < 0.07
    assert distance(whole, ritz.eigenvalues) > 0.15  # an even choice would be further off


RITZ = {
    "box": lambda: PoissonDirections((12, 11), modes="ritz", num_modes=100, seed=3),
    "masked": lambda: PoissonDirections((16, 16), modes="ritz", num_modes=120, mask=obstacle),
    "nodes": lambda: PoissonDirections(
        (9, 8), modes="ritz", num_modes=55, centering="node", boundary=("neumann", "periodic")
    ),
}


@pytest.fixture(scope="module")
def ritz_problems():
    """By name, each made when first asked for."""

    class Made(dict):
        def __missing__(self, name):
            return self.setdefault(name, RITZ[name]())

    return Made()


@pytest.mark.parametrize("name", ["box", pytest.param("masked", marks=pytest.mark.slow), "nodes"])
def test_ritz_modes_solve_the_eigenproblem_at_both_ends(name, ritz_problems, x64):
    problem = ritz_problems[name]
    matrix = np.asarray(as_matrix(problem))
    values, q = problem.eigenvalues, dense_modes(problem)
    expected = np.linalg.eigvalsh(matrix)
    positive = expected[expected > 1e-9 * expected[-1]]
    assert np.abs(q @ q.T - np.eye(len(q))).max() < 1e-12
    assert np.all(np.diff(values) >= 0)
    assert np.all(values > 1e-8 * values[-1])
    np.testing.assert_allclose(values[[0, -1]], positive[[0, -1]], rtol=0, atol=1e-9 * expected[-1])
    residuals = np.linalg.norm(q @ matrix - values[:, None] * q, axis=1) / expected[-1]
    assert residuals[[0, 1, -2, -1]].max() < 1e-9
    assert residuals.max() > 1e-3  # inside the spectrum they are mixtures
    assert np.abs(null_vectors(matrix) @ q.T).max(initial=0.0) < 1e-12


def test_low_modes_are_amplified_exactly():
    for num_modes, theta, count in ((60, None, 33), (61, 4, 34), (60, 0, 30)):
        problem = PoissonDirections((12, 11), num_modes=num_modes, theta=theta)
        plain = PoissonDirections((12, 11), num_modes=num_modes, theta=theta, amplitude=1.0)
        assert problem.num_amplified == count
        key = jax.random.key(1)
        ratio = np.asarray(problem.coefficients(key)) / np.asarray(plain.coefficients(key))
        np.testing.assert_allclose(ratio, [9.0] * count + [1.0] * (num_modes - count), rtol=1e-6)
    paper = PoissonDirections((24, 24, 24))
    assert (len(paper.eigenvalues), paper.num_amplified) == (10_000, 5_500)


@pytest.mark.parametrize("name", ["exact", "box"])
def test_samples_follow_the_law(name, ritz_problems, x64):
    """Coefficients recovered from samples by dense modes: variances 81 to 1 within sampling error, no correlation."""
    problem = PoissonDirections((12, 11), num_modes=60) if name == "exact" else ritz_problems[name]
    draws, m, count = 400, len(problem.eigenvalues), problem.num_amplified
    b = np.asarray(jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(3), draws))).reshape(draws, -1)
    np.testing.assert_allclose(np.linalg.norm(b, axis=1), 1, rtol=1e-14)
    q = dense_modes(problem)
    c = b @ q.T
    np.testing.assert_allclose(c @ q, b, atol=1e-13)  # nothing outside the modes
    # Unit length couples the coefficients of a sample; their ratios do not know.
    low, high = np.sum(c[:, :count] ** 2) / count, np.sum(c[:, count:] ** 2) / (m - count)
    error = 81 * np.sqrt(2 / draws) * np.sqrt(1 / count + 1 / (m - count))
    assert abs(low / high - 81) < 4 * error, (low / high, error)
    per_mode = np.mean(c**2, axis=0)
    assert per_mode[:count].min() > 10 * per_mode[count:].max()
    correlation = np.corrcoef(c.T) - np.eye(m)
    assert np.abs(correlation).max() < 5 / np.sqrt(draws)


@pytest.mark.parametrize("name", ["exact", "box", "masked", "nodes"])
def test_projection_on_the_null_space(name, ritz_problems):
    """In single precision too, far below 1e-6."""
    problem = PoissonDirections((12, 11), num_modes=60) if name == "exact" else ritz_problems[name]
    b = np.asarray(sample(problem, jax.random.key(4)))
    assert b.dtype == np.float32
    assert abs(np.linalg.norm(b) - 1) < 1e-6
    null = null_vectors(np.asarray(as_matrix(problem), np.float64))
    if name == "masked":
        outside = ~obstacle(problem.grid.coordinates())
        assert len(null) == outside.sum() + 2  # each solid cell, and constants on either part
        assert np.all(b[0][outside] == 0)
    assert np.abs(null @ b.ravel()).max(initial=0.0) < 2e-7


@pytest.mark.parametrize("name", ["exact", "masked", "nodes"])
def test_solution_equals_a_dense_solve(name, ritz_problems, x64):
    problem = PoissonDirections((12, 11), num_modes=60) if name == "exact" else ritz_problems[name]
    b = sample(problem, jax.random.key(5))
    x = solve(problem, b)
    assert relative_residual(problem, b, x) < (1e-10 if name == "masked" else 1e-12)
    assert relative_residual(problem, b, 0 * x) == pytest.approx(1)
    matrix = np.asarray(as_matrix(problem))
    dense = np.linalg.lstsq(matrix, np.ravel(b), rcond=1e-12)[0]  # orthogonal to the null space: zero mean on cells
    if name == "nodes":
        weights = problem.grid.weights().ravel()
        dense = dense - weights @ dense / weights.sum()
    np.testing.assert_allclose(np.ravel(x), dense, rtol=0, atol=1e-9 * np.abs(dense).max())
    if name == "masked":
        assert np.all(np.asarray(x)[0][~obstacle(problem.grid.coordinates())] == 0)


def test_both_precisions_draw_the_same(ritz_problems):
    for problem in (PoissonDirections((12, 11), num_modes=60), ritz_problems["box"]):
        single = sample(problem, jax.random.key(6))
        with jax.enable_x64(True):
            double = sample(problem, jax.random.key(6))
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(single, double, atol=1e-6)


@pytest.mark.parametrize("name", ["exact", "box"])
def test_generate_goes_on_after_a_kill(name, ritz_problems, tmp_path, monkeypatch):
    problem = PoissonDirections((12, 11), num_modes=60) if name == "exact" else ritz_problems[name]
    arguments = {"key": 7, "num_samples": 4, "shard_size": 2, "store_dtype": "float64", "progress": False}
    whole = data.generate(problem, **arguments)
    assert whole.residual_norm.max() < 1e-12
    np.testing.assert_allclose(np.linalg.norm(whole.inputs.reshape(4, -1), axis=1), 1, rtol=1e-14)
    with jax.enable_x64(True):
        sample = problem.sample(jax.random.fold_in(jax.random.key(7), 2))
        modes = dense_modes(problem)
    # Two programs may draw coefficients (float32) that differ in the last digit; sums of modes have all of float64's.
    np.testing.assert_allclose(whole.inputs[2], sample, rtol=0, atol=1e-6)
    rows = whole.inputs.reshape(4, -1)
    np.testing.assert_allclose(rows @ modes.T @ modes, rows, rtol=0, atol=1e-14)

    certified, certify = itertools.count(), store._certify

    def killed(*args):
        if next(certified) == 3:
            raise KeyboardInterrupt
        certify(*args)

    path = tmp_path / "directions.h5"
    monkeypatch.setattr(store, "_certify", killed)
    with pytest.raises(KeyboardInterrupt):
        data.generate(problem, path=path, **arguments)
    assert not path.exists()
    monkeypatch.setattr(store, "_certify", certify)
    read = data.generate(problem, path=path, **arguments).load()
    for found, expected in zip(*map(jax.tree.leaves, (read, whole)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_problem_is_a_constant_that_can_be_written_down(ritz_problems):
    problem = ritz_problems["box"]
    assert jax.tree.leaves(problem) == []
    again = PoissonDirections(**problem.parameters())
    assert problem == again
    assert hash(problem) == hash(again)
    np.testing.assert_array_equal(problem.eigenvalues, again.eigenvalues)
    finer = PoissonDirections((6, 5), theta=2).with_points((12, 11))
    assert finer == PoissonDirections((12, 11), theta=2)
    assert len(finer.eigenvalues) == 131
    assert problem != finer


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_points": 0}, "num_points"),
        ({"boundary": "robin"}, "boundary"),
        ({"modes": "random"}, "modes: expected one of"),
        ({"num_modes": 0}, "num_modes"),
        ({"num_modes": 64}, "num_modes: expected at most 63"),
        (
            {"num_modes": 64, "modes": "ritz"},
            "num_modes: expected at most [56][0-9], after which Lanczos has found all",
        ),
        ({"num_modes": 65, "modes": "ritz"}, "num_modes: expected at most the 64 points"),
        ({"modes": "ritz"}, "num_modes: modes='ritz' expects the number of Lanczos steps"),
        ({"theta": -1}, "theta"),
        ({"theta": 40}, "theta: expected at most"),
        ({"amplitude": 0.0}, "amplitude"),
        ({"seed": 1.5}, "seed"),
        ({"centering": "node"}, "centering: exact modes"),
        ({"mask": obstacle}, "mask: expected None with modes='exact'"),
        ({"mask": lambda x: x[0], "modes": "ritz", "num_modes": 5}, "mask: expected a function"),
        ({"mask": lambda x: x[0] > 2, "modes": "ritz", "num_modes": 5}, "mask: expected a function"),
        ({"rtol": 0.0}, "rtol"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        PoissonDirections(**{"num_points": (8, 8), **arguments})


def test_refuses_bad_fields():
    problem = PoissonDirections((8, 8))
    for field, match in ((jnp.ones((8, 8)), "channel axis is missing"), (jnp.ones((1, 9, 8)), "resample")):
        with pytest.raises(ValueError, match=match):
            problem.solve(field)
        with pytest.raises(ValueError, match=match):
            problem.residual(jnp.ones((1, 8, 8)), field)
    with pytest.raises(ValueError, match="coefficients: expected floating numbers of shape"):
        problem.combine(jnp.ones(64))
