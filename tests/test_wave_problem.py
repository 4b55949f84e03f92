"""Waves as a problem: against closed forms, against the equation itself, and as data sets."""

import dataclasses
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import data
from neuralops.pde import GaussianRandomField, Wave, waves

pytestmark = pytest.mark.filterwarnings("ignore:.*points per wavelength")  # the grids are as coarse as can be
KEY = jax.random.key(3)
LAWS = (
    waves.Checkerboard(density=(0.5, 2.0)), waves.Fault(), waves.Homogeneous(2.0, density=3.0), waves.Inclusions(),
    waves.Layered(density=(1.0, 2.0)), waves.Lens(background_density=0.5), waves.LogNormal(), waves.Maze(2),
)  # fmt: skip


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def travelling(n, order, t_steps, **options):
    """A sine that travels along a periodic line, with rho = 2, c = 1: where it is and what moves."""
    equation = waves.WaveEquation(n, max_sound_speed=1.0, walls="periodic", order=order, cfl=0.1, density="variable")
    x, one = equation.grid.points(0), jnp.ones(n)
    u = np.sin(2 * np.pi * x)
    v = u[None] / 2
    run = equation.run(
        one, u, density=2 * one, num_steps=t_steps, every=t_steps, velocities=True, initial_velocity=v, **options
    )
    exact = np.sin(2 * np.pi * (x - t_steps * equation.dt))
    return run, exact


@pytest.mark.parametrize("order", [2, 4, "spectral"])
def test_velocities_are_those_of_a_travelling_wave(double, order):
    errors = []
    for n in (16, 32):
        run, exact = travelling(n, order, 2 * n)
        errors.append([abs(run.frames[-1] - exact).max(), abs(run.velocities[-1, 0] - exact / 2).max()])
        assert run.velocities.shape == (2, 1, n)
    rates = np.log2(np.array(errors[0]) / np.array(errors[1]))
    assert np.all(rates > 1.9)  # that of the steps
    assert np.max(errors[1]) < (0.04 if order == 2 else 6e-4 if order == 4 else 1e-4)


@pytest.mark.parametrize("ends", ["neumann", "dirichlet", ("dirichlet", "neumann")])
def test_velocities_stand_between_walls(double, ends):
    equation = waves.WaveEquation((32,), max_sound_speed=1.0, walls=[ends], order=8, cfl=0.1)
    x = equation.grid.coordinates()[0]
    k = np.pi / 2 if isinstance(ends, tuple) else np.pi
    u, slope = (np.cos(k * x), -np.sin(k * x)) if ends == "neumann" else (np.sin(k * x), np.cos(k * x))
    run = equation.run(jnp.ones(32), u, num_steps=90, every=45, velocities=True)
    t = 90 * equation.dt
    np.testing.assert_allclose(run.velocities[-1, 0], -slope * np.sin(k * t), atol=5e-6)
    # In two runs it is the same.
    first = equation.run(jnp.ones(32), u, num_steps=45, every=45, velocities=True)
    second = equation.run(jnp.ones(32), state=first.state, num_steps=45, every=45, velocities=True)
    np.testing.assert_allclose(second.velocities[-1], run.velocities[-1], atol=1e-13)
    np.testing.assert_array_equal(second.velocities[0], first.velocities[-1])


def test_velocities_are_open_where_walls_absorb(double):
    """A wave that leaves through a wall does so with the velocity u / (rho c), and leaves the medium at rest."""
    layer = waves.AbsorbingLayer(wavelength=0.3, reflection=1e-4)
    equation = waves.WaveEquation(
        (100,), max_sound_speed=1.0, order=8, cfl=0.2, layer=layer, walls=[("neumann", "absorbing")]
    )
    x = equation.grid.coordinates()[0]
    u = np.exp(-(((x - 0.5) / 0.05) ** 2)) * np.sin(2 * np.pi * (x - 0.5) / 0.2)
    every = round(0.4 / equation.dt)
    run = equation.run(jnp.ones(100), u, num_steps=5 * every, every=every, velocities=True, initial_velocity=u[None])
    np.testing.assert_allclose(run.velocities[:, 0], run.frames, atol=1e-3)
    assert abs(run.velocities[1]).max() > 0.5 > 1000 * abs(run.velocities[-1]).max()


def test_velocities_are_differentiable(double):
    equation = waves.WaveEquation((12,), max_sound_speed=1.0, walls="neumann", order=4)
    u = np.exp(-(np.linspace(-3, 3, 12) ** 2))

    def heard(c):
        return jnp.sum(equation.run(c, u, num_steps=9, every=9, velocities=True).velocities[-1] ** 3)

    c, d = jnp.full(12, 0.8), jnp.asarray(np.random.default_rng(0).normal(size=12))
    h = 1e-5
    np.testing.assert_allclose(
        jnp.vdot(jax.grad(heard)(c), d), (heard(c + h * d) - heard(c - h * d)) / (2 * h), rtol=1e-6
    )


@pytest.mark.parametrize("time_order", [2, 4])
def test_a_source_spread_over_one_cell_is_a_point(double, time_order):
    equation = waves.WaveEquation((12, 10), max_sound_speed=1.0, walls="neumann", time_order=time_order)
    grid, times = equation.grid, equation.dt * np.arange(30)
    c = 0.6 + 0.4 * np.random.default_rng(0).random(grid.shape)
    f = waves.ricker(times, 3.0)[None]
    profile = np.zeros((1, *grid.shape))
    profile[0, 7, 4] = 1 / grid.cell_volume
    spread = equation.run(c, num_steps=30, sources=waves.ExtendedSources(profile, f)).final
    place = grid.coordinates()[:, 7, 4][:, None]
    np.testing.assert_allclose(spread, equation.run(c, num_steps=30, sources=waves.Sources(place, f)).final, atol=1e-12)


def test_two_waves_part_as_dalembert_says(double):
    problem = Wave((256,), walls="periodic", initial=waves.Rings(count=1), cfl=0.2, final_time=0.7, num_times=8)
    a = problem.sample(KEY)
    modes = np.fft.fft(a[0])
    shifted = lambda t: np.fft.ifft(modes * np.exp(2j * np.pi * np.fft.fftfreq(256, 1 / 256) * t)).real
    exact = np.stack([(shifted(t) + shifted(-t)) / 2 for t in problem.times])
    assert abs(problem.solve(a) - exact).max() < 2e-3 * abs(a[0]).max()


@pytest.mark.parametrize("medium", [waves.Homogeneous(), waves.Layered(density=(0.5, 2.0))])
def test_the_residual_is_an_estimate_of_the_error(double, medium):
    problem = Wave((48,), walls="neumann", medium=medium, final_time=0.5, order=4)
    a, refined = problem.sample(KEY), dataclasses.replace(problem, refine=2)
    u, better, best = problem.solve(a), refined.solve(a), dataclasses.replace(problem, refine=16).solve(a)
    error = lambda v: float(jnp.linalg.norm(v - best) / jnp.linalg.norm(best))
    assert error(better) < 0.55 * error(u)
    np.testing.assert_allclose(problem.residual(a, u), u - better, atol=1e-13)
    assert 0.4 * error(u) < problem.relative_residual(a, u) < 1.2 * error(u)


def test_records_and_frames_are_those_of_the_equation(double):
    problem = Wave(
        (24, 20), domain_extent=(1.2, 1.0), walls=("neumann", "absorbing"), medium=waves.Inclusions(density=2.0),
        receivers=((0.1, 0.2), (0.9, 0.5)), records_per_frame=3, num_times=4, velocities=True, final_time=0.3,
    )  # fmt: skip
    assert problem.input_fields == ("initial_pressure", "sound_speed", "density")
    assert problem.output_fields[:4] == ("pressure_0", "velocity_x_0", "velocity_y_0", "pressure_1")
    a = problem.sample(KEY)
    u, extras = problem.label(a)
    equation = problem._equation(1)
    steps = round(0.3 / equation.dt)
    assert steps % 9 == 0
    np.testing.assert_allclose(steps * equation.dt, 0.3)
    where = np.array([[0.1, 0.9], [0.2, 0.5]])
    run = equation.run(
        a[1], a[0], density=a[2], num_steps=steps, every=steps // 3, receivers=where, velocities=True
    )  # fmt: skip
    np.testing.assert_allclose(u.reshape(4, 3, 24, 20)[:, 0], run.frames, atol=1e-13)
    np.testing.assert_allclose(u.reshape(4, 3, 24, 20)[:, 1:], run.velocities, atol=1e-13)
    np.testing.assert_allclose(extras["records"], run.records[:, :: steps // 9], atol=1e-13)
    assert extras["records"].shape == (2, len(problem.record_times))


def test_a_source_begins_at_rest(double):
    problem = Wave((40,), walls="neumann", frequency=4.0, num_times=3, final_time=0.6, initial=waves.Rings(radius=0.0))
    assert problem.input_fields == ("source", "sound_speed")
    a = problem.sample(KEY)
    u = problem.solve(a)
    np.testing.assert_array_equal(u[0], 0)
    np.testing.assert_allclose(problem.solve(a.at[0].multiply(2.0)), 2 * u, atol=1e-13)  # linear in the source
    # All over the box: u_tt = w(t), whose second integral is a Gaussian's shape.
    even = problem.solve(jnp.ones_like(a))
    b = (np.pi * 4.0) ** 2
    twice = lambda t: -np.exp(-b * (t - 0.3) ** 2) / (2 * b)
    np.testing.assert_allclose(even[1:, 7], twice(problem.times[1:]) - twice(0.0), rtol=0.02, atol=1e-5)


@pytest.mark.parametrize("medium", LAWS, ids=lambda law: type(law).__name__)
def test_a_problem_comes_back_from_its_parameters(medium):
    laws = waves.Rings(count=2), GaussianRandomField(2.0, 3.0, boundary="neumann", scale=3.0)
    for initial, walls in zip(laws, ("absorbing", "periodic"), strict=True):
        problem = Wave((64, 64), medium=medium, initial=initial, walls=walls)
        assert Wave(**json.loads(json.dumps(problem.parameters()))) == problem
    low, high = medium.densities
    drawn = medium.sample(KEY, problem.grid)[1]
    assert low <= drawn.min() * (1 + 1e-6)
    assert drawn.max() <= high * (1 + 1e-6)
    assert problem.with_points(72).num_points == (72, 72)


def test_walls_of_a_maze_are_rigid(double):
    """With rigid cells a corridor closed on all sides is a box of its own."""
    maze = waves.Maze(2, wall_density=1000.0)
    problem = Wave((20, 20), walls="neumann", medium=maze, rigid_above=500.0, order=2, initial=waves.Rings(width=0.3))
    a = problem.sample(KEY)
    solid = np.asarray(a[2] > 500)
    u = np.asarray(problem.solve(a))
    assert solid.any()
    np.testing.assert_array_equal(u[:, solid], 0)
    np.testing.assert_allclose(u[:, ~solid].mean(1), float(a[0][~solid].mean()), rtol=1e-12)  # nothing leaks
    dense = dataclasses.replace(problem, rigid_above=None)
    b = a.at[0].set(jnp.where(solid, 0, a[0]))
    softer, hard = dense.solve(b.at[2].set(jnp.where(solid, 1e6, 1.0))), u[1]
    assert abs(softer[1] - hard)[~solid].max() < 1e-4 * abs(hard).max()  # the limit of dense walls
    assert jnp.isfinite(problem.relative_residual(a, u))


def test_rings_are_one_function_on_every_grid(double):
    law = waves.Rings(count=(1, 3))
    coarse, fine = no.Grid((8, 8), centering="cell"), no.Grid((24, 24), centering="cell")
    drawn = [law.sample(KEY, grid)[0] for grid in (coarse, fine)]
    np.testing.assert_allclose(drawn[0], drawn[1][1::3, 1::3], atol=1e-12)
    np.testing.assert_allclose(law.sample(KEY, fine, dtype="float32")[0], drawn[1], atol=1e-5)
    peaks = [float(jnp.max(waves.Rings(count=1, height=2.0).sample(jax.random.key(i), fine))) for i in range(20)]
    assert 1.9 < max(peaks) <= 2.0
    spectrum = lambda k, w: np.exp(-((k * w / 2) ** 2))
    np.testing.assert_allclose(spectrum(2 * np.pi / law.shortest_wavelength, 0.05), 0.1)


# ---- data sets


def small(**changes):
    arguments = {
        "num_points": (16, 16), "walls": "neumann", "final_time": 0.2, "num_times": 3, "order": 2,
        "medium": waves.Layered(density=(0.8, 1.2)), "initial": waves.Rings(width=0.2), "velocities": True,
        "receivers": ((0.2, 0.2), (0.8, 0.3), (0.5, 0.5)), "records_per_frame": 2,
    }  # fmt: skip
    return Wave(**{**arguments, **changes})


OPTIONS = {"key": 5, "num_samples": 5, "max_residual": 1.0, "progress": False}
NAMES = ("pressure", "velocity_x", "velocity_y")


def test_trajectories_keep_media_and_records_and_are_read_as_pairs(tmp_path):
    problem = small()
    source = data.generate(problem, path=tmp_path / "w.h5", shard_size=2, trajectories=NAMES, **OPTIONS)
    assert problem.frame_fields == NAMES
    data.validate(tmp_path / "w.h5")
    assert Wave(**source.parameters) == problem
    loaded = source.load()
    assert loaded.inputs.shape == (5, 3, 3, 16, 16)
    assert {name: x.shape[1:] for name, x in loaded.extras.items()} == {
        "density": (16, 16), "records": (3, 5), "sound_speed": (16, 16)
    }  # fmt: skip
    # As The Well has them: fields that do not change with time lie among the fields and say so.
    with h5py.File(tmp_path / "w.h5") as file:
        fields = file["t0_fields"]
        assert set(fields.attrs["field_names"]) == {*NAMES, "sound_speed", "density"} == set(fields)
        assert not fields["density"].attrs["time_varying"]
        assert fields["pressure"].attrs["time_varying"]
        assert fields["density"].attrs["dim_varying"].tolist() == [True, True]
        np.testing.assert_allclose(file["dimensions/time"], problem.times)
    # The same numbers as the problem's own.
    with jax.enable_x64(True):
        a = problem.sample(jax.random.fold_in(jax.random.key(5), 4))
        u, extras = jax.jit(problem.label)(a)
    np.testing.assert_allclose(loaded.inputs[4].reshape(9, 16, 16), u, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(loaded.extras["records"][4], extras["records"], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(loaded.extras["density"][4], a[2], rtol=1e-6)

    forward = data.pairs(source, inputs=[("pressure", 0), "sound_speed", "density"], outputs=-1)
    one, some = forward[4], forward[[4, 0]]
    np.testing.assert_array_equal(one.inputs[0], loaded.inputs[4, 0, 0])
    np.testing.assert_array_equal(one.inputs[1:], [loaded.extras["sound_speed"][4], loaded.extras["density"][4]])
    np.testing.assert_array_equal(one.outputs, loaded.inputs[4, -1])
    np.testing.assert_array_equal(some.inputs[0], one.inputs)
    assert some.extras["records"].shape == (2, 3, 5)
    np.testing.assert_array_equal(forward.load().residual_norm, source.residual_norm)

    heard = data.pairs(source, inputs="records", outputs=("pressure", 0))
    assert heard[1].inputs.shape == (1, 3, 5)
    assert heard.load().shared == ("query",)
    np.testing.assert_allclose(heard[0].query, problem.grid.coordinates(), rtol=1e-6)
    windows = data.windows(source, history=1, horizon=2)
    np.testing.assert_array_equal(windows[4].extras["density"], loaded.extras["density"][4])

    for inputs, outputs, message in (
        (3, 0, "expected frames -3 to 2"),
        ("speed", 0, "among \\['density', 'records', 'sound_speed'\\]"),
        (("p", 0), 0, "names among \\['pressure'"),
        ([0, "records"], 1, "same points"),
        (0, "records", "outputs on the grid"),
        ([], 0, "at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            data.pairs(source, inputs=inputs, outputs=outputs)
    with pytest.raises(ValueError, match="expected frames alone"):
        data.pairs(forward.load(), inputs=0, outputs=1)


def test_a_network_learns_from_pairs():
    """A frame from the other one and the medium, u_1 = c u_0: `fit` and `evaluate` read pairs as any source."""
    rng = np.random.default_rng(0)
    u, c = rng.normal(size=(6, 1, 1, 16)).astype("float32"), rng.uniform(0.5, 1.5, (6, 16)).astype("float32")
    frames = data.Samples(np.concatenate([u, c[:, None, None] * u], axis=1), extras={"c": c})
    pairs = data.pairs(frames, inputs=[0, "c"], outputs=1)
    op = no.FNO((4,), 2, 1, 4, n_layers=1, boundary="neumann", key=KEY)
    op, _ = no.fit(
        op, pairs, loss=no.losses.l2(), optimizer=optax.adam(1e-2), num_epochs=20, batch_size=3, key=KEY,
        progress=False,
    )  # fmt: skip
    errors = no.evaluate(op, pairs, metrics={"l2": no.metrics.relative_l2})["l2"]
    assert errors.mean() < 0.8  # of nothing it is 1, of noise more


def test_the_bytes_do_not_depend_on_the_cut(tmp_path):
    problem = small(num_points=(32,), velocities=False, receivers=((0.2,), (0.8,), (0.5,)))
    options = {**OPTIONS, "trajectories": "pressure"}
    files = [tmp_path / f"{size}.h5" for size in (1, 3)]
    for size, path in zip((1, 3), files, strict=True):
        data.generate(problem, path=path, shard_size=size, **options)
    assert files[0].read_bytes() == files[1].read_bytes()
    memory, loaded = data.generate(problem, **options), data.open(files[0]).load()
    assert set(memory.extras) == {"sound_speed", "density", "records"}
    for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(memory), strict=True):
        np.testing.assert_array_equal(x, y)


def test_records_stand_beside_samples_without_time(tmp_path):
    problem = small(num_points=(32,), velocities=False, receivers=((0.2,), (0.8,), (0.5,)))
    source = data.generate(problem, path=tmp_path / "plain.h5", **OPTIONS)
    assert source.output_fields == ("pressure_0", "pressure_1", "pressure_2")
    with jax.enable_x64(True):
        a = problem.sample(jax.random.fold_in(jax.random.key(5), 1))
        _, extras = jax.jit(problem.label)(a)
    np.testing.assert_allclose(source[1]["extras"]["records"], extras["records"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(source[1]["inputs"], a, rtol=1e-6, atol=1e-7)
    data.validate(tmp_path / "plain.h5")


def test_fields_that_stay_are_written_and_checked(tmp_path):
    grid, rng = no.Grid((4, 5)), np.random.default_rng(0)
    frames = data.Samples(
        rng.random((2, 3, 1, 4, 5), np.float32), extras={"c": rng.random((2, 4, 5), np.float32), "nu": np.arange(2.0)}
    )
    source = data.write(tmp_path / "s.h5", frames, grid=grid, name="S", input_fields=["u"])
    np.testing.assert_array_equal(source.load().extras["c"], frames.extras["c"])
    assert source.header.contents.constants == ("c",)
    with pytest.raises(ValueError, match="other names than those of the fields"):
        data.write(tmp_path / "t.h5", frames, grid=grid, name="S", input_fields=["c"])
    source.close()
    with h5py.File(tmp_path / "s.h5", "a") as file:
        file["t0_fields/c"][0, 0, 0] += 1
    with pytest.raises(ValueError, match="t0_fields/c does not have the digest"):
        data.validate(tmp_path / "s.h5")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"medium": 2.0}, "medium: expected a law"),
        ({"medium": {"name": "Inclusion"}}, "a name among"),
        ({"initial": 1.0}, "initial: expected a law"),
        ({"frequency": 0.0}, "frequency"),
        ({"num_times": 1}, "num_times"),
        ({"walls": "prescribed"}, "WaveEquation.run"),
        ({"walls": "open"}, "walls: expected one of"),
        ({"receivers": ((2.0, 0.5),)}, "inside the box"),
        ({"receivers": ((0.5,),)}, "2 numbers"),
        ({"order": 5}, "order: expected one of"),
        ({"initial": waves.Rings(margin=0.6)}, "margin: expected less than half"),
    ],
)
def test_bad_problems_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments).sample(KEY)


def test_bad_velocities_are_refused():
    equation = waves.WaveEquation((12,), max_sound_speed=1.0, walls="neumann")
    c, options = jnp.ones(12), {"num_steps": 4}
    for wrong, message in (
        ({"velocities": True}, "every: expected a number"),
        ({"velocities": True, "every": 2, "gradient": "reversed"}, "cannot be run back"),
        ({"initial_velocity": jnp.ones((1, 12))}, "expected velocities=True"),
        ({"velocities": True, "every": 2, "initial_velocity": jnp.ones(12)}, "put the components first"),
        ({"velocities": 1.5, "every": 2}, "velocities"),
        ({"sources": waves.ExtendedSources(jnp.ones((1, 11)), jnp.ones((1, 4)))}, "expected profiles"),
    ):
        with pytest.raises(ValueError, match=message):
            equation.run(c, **options, **wrong)
    state = equation.run(c, **options).state
    with pytest.raises(ValueError, match="with velocities"):
        equation.run(c, state=state, velocities=True, every=2, **options)
    open_ = waves.WaveEquation((12,), max_sound_speed=1.0, walls="prescribed", order=2)
    with pytest.raises(ValueError, match="not prescribed"):
        open_.run(c, velocities=True, every=2, traces=(((jnp.zeros((5, 1)),) * 2),), **options)


def test_few_points_in_a_wave_warn():
    with pytest.warns(UserWarning, match="points per wavelength are few"):
        Wave((16, 16), order=2)
