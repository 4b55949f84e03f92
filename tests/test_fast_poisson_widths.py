"""The direct solver on stretched grids, by matrices and by elimination."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fast_poisson import KINDS, WORDS, afresh, by_fft, check

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, solve
from neuralops.solvers.direct import fast_poisson
from neuralops.solvers.direct.line_modes import Line, by_matrices


def stretched(n, extent, seed=0, symmetric=False):
    w = np.random.default_rng(seed).uniform(0.3, 1, n)
    w = w + w[::-1] if symmetric else w
    return w * extent / w.sum()


@pytest.mark.parametrize("swept", [1, 100], ids=["sweep", "matrix"])
@pytest.mark.parametrize("boundary", WORDS, ids=str)
def test_widths_with_every_other_axis(x64, monkeypatch, boundary, swept):
    by_fft(monkeypatch)
    monkeypatch.setattr(fast_poisson, "SWEPT", swept)
    monkeypatch.setattr(fast_poisson, "WIDE", 1)
    for i, (word, centering) in enumerate(KINDS):
        if i % 3 != WORDS.index(boundary) % 3:
            continue
        if i % 2:
            grid = Grid((5, 4), (1.0, 1.6), (boundary, word), ("cell", centering))
            check(grid, (stretched(5, 1.0), None))
        else:
            grid = Grid((4, 5), (1.6, 1.0), (word, boundary), (centering, "cell"))
            check(grid, (None, stretched(5, 1.0)))


@pytest.mark.parametrize("swept", [pytest.param(1, marks=pytest.mark.slow), 100], ids=["sweep", "matrix"])
@pytest.mark.parametrize("boundary", WORDS, ids=str)
def test_widths_on_every_axis(x64, monkeypatch, boundary, swept):
    monkeypatch.setattr(fast_poisson, "SWEPT", swept)
    monkeypatch.setattr(fast_poisson, "WIDE", 1)
    afresh(monkeypatch)
    for n, symmetric in ((1, False), (4, True), (5, True), (6, False)):
        check(Grid(n, 1.7, (boundary,), "cell"), [stretched(n, 1.7, symmetric=symmetric)])
    grid = Grid((4, 3, 2), (1.0, 1.6, 0.5), (boundary, "neumann", "periodic"), "cell")
    check(grid, [stretched(n, grid.domain_extent[a], a, symmetric=True) for a, n in enumerate(grid.shape)])


def test_even_widths_are_no_widths(x64):
    grid = Grid((120, 3), (2.0, 1.0), "dirichlet", "cell")
    assert fast_poisson._plan(grid, ((1 / 60,) * 120, None), np.float64, True).routes[0] == "joint"
    check(Grid(5, 2.0, "neumann", "cell"), [np.full(5, 0.4)])


@pytest.mark.parametrize("symmetric", [False, True])
def test_modes_of_many_stretched_cells(x64, symmetric):
    """S^T W S = 1 and S^T K S = diag(eigenvalues), to rounding."""
    n, h = 150, 1 / 150
    w = stretched(n, 1.0, symmetric=symmetric)
    t = by_matrices(Line(transforms.Axis(n, "dirichlet", "cell"), 1.0, h, tuple(w)))
    S = np.asarray(t.analyse(jnp.eye(n), 1))
    np.testing.assert_allclose(t.synthesise(jnp.eye(n), 1), S.T, atol=1e-14)
    np.testing.assert_allclose(S.T @ np.diag(w / h) @ S, np.eye(n), atol=1e-12)
    K = np.asarray(Diffusion(Grid(n, 1.0, "dirichlet", "cell"), widths=[w]).as_matrix())
    np.testing.assert_allclose(S.T @ K @ S, np.diag(t.eigenvalues), atol=1e-13 * n * t.eigenvalues.max())


@pytest.mark.parametrize("swept", [1, 100], ids=["sweep", "matrix"])
def test_singular_solutions_have_zero_mean_over_the_volume(x64, monkeypatch, swept):
    monkeypatch.setattr(fast_poisson, "SWEPT", swept)
    monkeypatch.setattr(fast_poisson, "WIDE", 1)
    afresh(monkeypatch)
    grid = Grid((6, 5), (1.0, 2.0), ("neumann", "periodic"), "cell")
    widths = (stretched(6, 1.0), stretched(5, 2.0, 1))
    A, P = Diffusion(grid, widths=widths), FastPoisson(grid, widths)
    f = np.random.default_rng(0).normal(size=grid.shape)
    volumes = np.multiply.outer(*widths)
    u = P(A.load(f))
    assert abs(np.sum(volumes * u)) < 1e-14 * np.sum(volumes) * np.abs(u).max()
    np.testing.assert_allclose(P(A.load(f + 3)), u, atol=1e-12)
    np.testing.assert_allclose(A(u), A.load(f - np.sum(volumes * f) / np.sum(volumes)), atol=1e-11)


def test_elimination_loses_no_digits_on_long_axes(x64):
    """The smoothest modes of 2048 cells, whose eigenvalues the textbook's elimination knows to 1e-10 only."""
    n = 2048
    grid = Grid((n, 32), 1.0, ("dirichlet", "periodic"), "cell")
    w = np.where(np.arange(n) < n // 2, 0.5, 1.5) / n  # two lengths
    b = np.ones(grid.shape)
    found = FastPoisson(grid, (w, None))(Diffusion(grid, widths=(w, None)).load(b))
    edges = np.append(0, np.cumsum(w))
    x = np.cumsum(w) - w / 2
    flux = 0.5 - edges  # of -u'' = 1: exact at faces also in the discrete balance, by symmetry up to its constant
    distance = np.diff(np.concatenate([[0], x, [1]]))
    constant = np.sum(distance * flux) / np.sum(distance)
    expected = np.cumsum(distance * (flux - constant))[:-1]
    np.testing.assert_allclose(found, np.stack([expected] * 32, 1), rtol=2e-13)


def test_smoothly_stretched_grids_are_of_second_order(x64):
    """-lap u = f with u = sin(pi x / 2) cos(2 pi y), x from a Dirichlet to a Neumann wall, y between Neumann walls."""
    errors = []
    for n in (16, 32, 64):
        s = np.linspace(0, 1, n + 1)
        first, second = np.diff(s**2 + s) / 2, np.diff(s - 0.8 * np.sin(2 * np.pi * s) / (2 * np.pi))
        x, y = (np.cumsum(w) - w / 2 for w in (first, second))
        exact = np.multiply.outer(np.sin(np.pi * x / 2), np.cos(2 * np.pi * y))
        grid, widths = Grid((n, n), 1.0, (("dirichlet", "neumann"), "neumann"), "cell"), (first, second)
        f = (np.pi**2 / 4 + 4 * np.pi**2) * exact
        u = FastPoisson(grid, widths)(Diffusion(grid, widths=widths).load(f))
        errors.append(np.abs(u - exact).max())
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > 1.9)


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_preconditions_stretched_grids(x64, dtype):
    grid = Grid((24, 21), (1.0, 2.0), ("dirichlet", ("neumann", "dirichlet")), "cell")
    s = np.linspace(0, 1, 25)
    widths = (np.diff(s**3), stretched(21, 2.0))
    rng = np.random.default_rng(0)
    A = Diffusion.from_coefficient(grid, rng.uniform(1, 4, grid.shape), widths=widths)
    b = A.load(jnp.asarray(rng.normal(size=grid.shape)))
    s = solve(A, b, CG(1e-10, preconditioner=FastPoisson(grid, widths, dtype=dtype)))
    assert bool(s.converged)
    assert int(s.num_steps) <= 30  # contrast 4, a face's harmonic mean inside: the error falls by 3 per step
    residual = np.linalg.norm(b - A(s.value)) / np.linalg.norm(b)
    assert residual < 1e-10
    np.testing.assert_allclose(s.residual_norm, residual, rtol=1e-3)


def test_choice_by_size_and_platform():
    grid, w = Grid((128, 200), 1.0, ("dirichlet", "neumann"), "cell"), np.diff(np.linspace(0, 1, 129) ** 2)
    for on_cpu, expected in ((True, ("sweep", "fft")), (False, ("matrix", "joint"))):
        assert fast_poisson._plan(grid, (tuple(w), None), np.float64, on_cpu).routes == expected


def test_the_way_of_accelerators(x64, monkeypatch):
    """No elimination and no blocks of rows there; the choice is made when the platform is known."""
    monkeypatch.setattr(fast_poisson, "SWEPT", 1)
    monkeypatch.setattr(fast_poisson, "WIDE", 1)
    monkeypatch.setattr(fast_poisson, "BLOCK", 10)
    afresh(monkeypatch)
    grid = Grid((6, 5), (1.0, 2.0), ("dirichlet", "neumann"), "cell")
    widths = (tuple(stretched(6, 1.0)), None)
    b = jnp.asarray(np.random.default_rng(0).normal(size=grid.shape))
    expected = FastPoisson(grid, widths)(b)
    plan = fast_poisson._plan(grid, widths, b.dtype, False)
    assert plan.routes == ("matrix", "matrix")
    assert plan.block is None
    np.testing.assert_allclose(fast_poisson._invert(b, plan, (0, 1), {})[0], expected, rtol=1e-12)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    afresh(monkeypatch)
    np.testing.assert_array_equal(FastPoisson(grid, widths)(b), expected)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
def test_inside_shard_map(monkeypatch, boundary):
    """A batch over two devices: loops there need carries that differ between devices from the start."""
    by_fft(monkeypatch)
    for name in ("SWEPT", "WIDE"):
        monkeypatch.setattr(fast_poisson, name, 1)
    monkeypatch.setattr(fast_poisson, "BLOCK", 16)
    grid = Grid((9, 12), boundary=(boundary, "neumann"), centering=("cell", "node"))
    P = FastPoisson(grid, (stretched(9, 1.0), None))
    b = np.random.default_rng(0).normal(size=(2, *grid.shape)).astype(np.float32)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("batch")
    found = jax.jit(jax.shard_map(P, mesh=mesh, in_specs=spec, out_specs=spec))(b)
    np.testing.assert_allclose(found, P(b), rtol=1e-5, atol=1e-6)
