"""The examples that embed the solvers: their physics at small sizes, and that they run."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no

pytest.importorskip("matplotlib")
EXAMPLES = Path(__file__).parents[1] / "examples"
COUNT = 12


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # NamedTuples look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def smoke():
    module = load("smoke_projection")
    module.RADIUS, module.ORBIT = 0.19, 0.24  # some cells wholly inside, on grids that compile quickly
    return module


@pytest.fixture(scope="module")
def small(smoke):
    """A run of a few steps in double precision, its settings, start, final state and reports."""
    with jax.enable_x64(True):
        grid = no.Grid((16, 12), boundary="neumann", centering="cell")
        settings = smoke.Settings(grid, 0.08, 1e-12)
        speeds = jnp.linspace(1.0, 2.0, COUNT)
        state, report = smoke.simulate(settings, smoke.rest(grid), speeds)
    return settings, speeds, state, report


def test_projection_leaves_no_divergence_in_any_cell_with_fluid(smoke, small):
    settings, _, state, report = small
    h = settings.grid.spacing
    x, y = (np.asarray(u) for u in state.flow)
    divergence = (x[1:] - x[:-1]) / h[0] + (y[:, 1:] - y[:, :-1]) / h[1]
    # Cells without fluid move rigidly, so nothing is left anywhere.
    assert np.max(np.abs(divergence)) < 1e-9
    assert np.all(np.asarray(report.result) == no.solvers.Result.converged)
    np.testing.assert_array_less(0.1, report.divergence_before)
    np.testing.assert_allclose(report.divergence_after[-1], np.max(np.abs(divergence)), atol=1e-12)
    # A closed box: no net flow through any line across it.
    np.testing.assert_allclose(np.sum(x, 1), 0, atol=1e-10)
    np.testing.assert_allclose(np.sum(y, 0), 0, atol=1e-10)


def test_solids_move_as_they_are_told(smoke, small):
    """On faces that a disc closes, the flow is the disc's own."""
    settings, speeds, state, _ = small
    with jax.enable_x64(True):
        opening, solid = smoke.openings(settings.grid, state.angle), smoke.turning(settings.grid, speeds[-1])
    for flow, w, s, walls in zip(state.flow, opening, solid, (2 * 12, 2 * 16), strict=True):
        closed = np.asarray(w) == 0
        assert closed.sum() > walls + 4
        np.testing.assert_allclose(np.asarray(flow)[closed], np.asarray(s)[closed], rtol=0, atol=1e-15)


def test_pressure_matches_a_dense_solve(smoke, small):
    """The same projection by an assembled matrix: fluid cells only, one value per pair of neighbours."""
    settings, speeds, state, _ = small
    grid, h = settings.grid, settings.grid.spacing
    nx, ny = grid.shape
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        velocity = (jnp.asarray(rng.normal(size=(nx + 1, ny))), jnp.asarray(rng.normal(size=(nx, ny + 1))))
        opening, solid = smoke.openings(grid, state.angle), smoke.turning(grid, speeds[-1])
        project = jax.jit(lambda *args: smoke.project(settings, *args, None))
        _, pressure, report = project(velocity, solid, opening)
    wx, wy = (np.asarray(w) for w in opening)
    before = [np.asarray(w) * np.asarray(u) + (1 - np.asarray(w)) * np.asarray(s)
              for w, u, s in zip(opening, velocity, solid, strict=True)]  # fmt: skip
    matrix, index = np.zeros((nx * ny, nx * ny)), np.arange(nx * ny).reshape(nx, ny)
    for low, high, weight in (
        (index[:-1], index[1:], wx[1:-1] / h[0] ** 2),
        (index[:, :-1], index[:, 1:], wy[:, 1:-1] / h[1] ** 2),
    ):
        for i, j, c in zip(low.ravel(), high.ravel(), weight.ravel(), strict=True):
            matrix[[i, j], [i, j]] += c
            matrix[[i, j], [j, i]] -= c
    fluid = np.diag(matrix) > 0
    b = -(np.diff(before[0], axis=0) / h[0] + np.diff(before[1], axis=1) / h[1]).ravel()
    expected = np.linalg.lstsq(matrix[np.ix_(fluid, fluid)], b[fluid], rcond=1e-13)[0]
    ours = np.asarray(pressure).ravel()[fluid]
    np.testing.assert_allclose(ours - ours.mean(), expected - expected.mean(), atol=1e-8 * np.abs(expected).max())
    assert int(report.num_steps) < 40


def test_right_hand_side_is_compatible_whatever_the_flow_was(smoke, small):
    """Around moving rigid bodies the displaced fluid adds up to nothing, to rounding."""
    settings, speeds, state, _ = small
    rng, (nx, ny), h = np.random.default_rng(1), settings.grid.shape, settings.grid.spacing
    with jax.enable_x64(True):
        opening, solid = smoke.openings(settings.grid, state.angle), smoke.turning(settings.grid, speeds[-1])
        velocity = (rng.normal(size=(nx + 1, ny)), rng.normal(size=(nx, ny + 1)))
        flow = [w * u + (1 - w) * s for w, u, s in zip(opening, velocity, solid, strict=True)]
        A = no.Diffusion(settings.grid, [w / d**2 for w, d in zip(opening, h, strict=True)])
        b = A.load(-smoke.divergence(flow, h))
        assert np.sum(np.asarray(A.diagonal()) == 0) > 4  # there are cells wholly inside the discs
        assert float(jnp.abs(jnp.sum(b))) < 1e-12 * float(jnp.sum(jnp.abs(b)))
        assert float(jnp.max(A.null_space().incompatibility(b))) < 1e-12


def test_layers_of_smoke_are_held_by_pressure(smoke, monkeypatch):
    """Buoyancy that is the same along every horizontal is a gradient: an empty box neither moves nor loses smoke."""
    monkeypatch.setattr(smoke, "INFLOW", 0.0)
    monkeypatch.setattr(smoke, "RADIUS", -1.0)
    with jax.enable_x64(True):
        grid = no.Grid((8, 16), boundary="neumann", centering="cell")
        settings = smoke.Settings(grid, rtol=1e-13)
        step = jax.jit(lambda state: smoke.step(settings, state, jnp.zeros(())))
        layers = jnp.broadcast_to(jnp.linspace(0, 1, 16) ** 2, grid.shape)
        state = smoke.rest(grid)._replace(smoke=layers)
        for _ in range(3):
            state, report = step(state)
        assert int(report.result) == no.solvers.Result.converged
        assert max(float(jnp.max(jnp.abs(u))) for u in state.flow) < 1e-10
        assert abs(float(jnp.sum(state.smoke) / jnp.sum(layers)) - 1) < 1e-9
        # Hydrostatic: dt times the smoke is the slope of the pressure.
        slope = np.diff(np.asarray(state.pressure), axis=1) / grid.spacing[1]
        np.testing.assert_allclose(slope, settings.dt * (layers[:, 1:] + layers[:, :-1]) / 2, atol=1e-10)

        still, report = step(smoke.rest(grid))
        assert all(float(jnp.max(jnp.abs(leaf))) == 0 for leaf in jax.tree.leaves(still))
        assert int(report.num_steps) == 0


def test_advection_carries_a_blob_at_the_speed_of_the_flow(smoke):
    """Solid rotation by a quarter turn: the blob arrives, its mass with it."""
    with jax.enable_x64(True):
        grid = no.Grid((64, 64), boundary="neumann", centering="cell")
        flow = smoke.turning(grid, jnp.asarray(np.pi / 2 / (0.05 * 20)))
        at = smoke.places(grid, smoke.CENTRES)
        blob = lambda x, y: jnp.asarray(np.exp(-80 * ((at[0] - x) ** 2 + (at[1] - y) ** 2)))
        advect = jax.jit(lambda u: smoke.advect(smoke.Settings(grid, 0.05), flow, u)[1])
        u = blob(0.7, 0.5)
        for _ in range(20):
            u = advect(u)
        assert float(jnp.linalg.norm(u - blob(0.5, 0.7)) / jnp.linalg.norm(u)) < 0.02
        np.testing.assert_allclose(jnp.sum(u), jnp.sum(blob(0.5, 0.7)), rtol=1e-3)


@pytest.mark.slow
def test_gradient_through_the_simulation_equals_finite_differences(smoke, small):
    """In the turning speed of every step, through moving boundaries, solves and transport."""
    settings, speeds, _, _ = small
    with jax.enable_x64(True):
        probe = jnp.asarray(np.random.default_rng(2).normal(size=settings.grid.shape))

        def objective(speeds):
            state, _ = smoke.simulate(settings, smoke.rest(settings.grid), speeds)
            return jnp.sum(state.smoke * probe) + jnp.sum(state.flow[0] ** 2)

        slope = jax.jit(jax.grad(objective))(speeds)
        for seed in (0, 1):
            direction, width = jnp.asarray(np.random.default_rng(seed).normal(size=COUNT)), 1e-6
            ends = [float(objective(speeds + sign * width * direction)) for sign in (1, -1)]
            np.testing.assert_allclose(slope @ direction, (ends[0] - ends[1]) / (2 * width), rtol=1e-5)


def test_the_start_does_not_change_the_answer(smoke, small):
    settings, speeds, state, _ = small
    with jax.enable_x64(True):
        start = settings._replace(start="extrapolated")
        other, _ = smoke.simulate(start, smoke.rest(settings.grid), speeds)
        np.testing.assert_allclose(other.smoke, state.smoke, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "made"),
    [
        ("smoke_projection", ["--num-points=24", "--num-steps=12", "--num-frames=6"], ["png", "gif"]),
        ("smoke_projection", ["--num-points=16", "--num-steps=10", "--optimise", "--num-gradients=1"], ["png"]),
        ("poisson", ["--num-points=24", "--repeats=1"], ["png", "md"]),
    ],
)
def test_examples_run(name, arguments, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--quiet", "--output", str(tmp_path)])
    load(name).main()
    assert {path.suffix[1:] for path in tmp_path.iterdir()} == set(made)
    printed = capsys.readouterr().out
    if name == "poisson":
        rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("|") and "---" not in line]
        results = [row for row in rows if row[0] != "| method"]
        assert len(results) == 2 * 12
        assert all(row[5] == "converged" and float(row[4]) <= 1e-8 for row in results)
