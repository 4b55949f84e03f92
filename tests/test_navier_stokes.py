"""Two-dimensional flow against closed forms, balances of energy and enstrophy, and a plain method of lines."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from neuralops import data
from neuralops.data.files import store
from neuralops.grid import Grid, resample
from neuralops.pde import GaussianRandomField, NavierStokes, Problem, enstrophy, kinetic_energy, velocity_from_vorticity
from neuralops.pde.integrating_factor import IntegratingFactor, to_pair
from neuralops.pde.navier_stokes import _advection, _Modes

# A problem is a constant: one program for all that it does, not one for each operation.
sample, solve, relative_residual = (
    jax.jit(method, static_argnums=0)
    for method in (NavierStokes.sample, NavierStokes.solve, NavierStokes.relative_residual)
)
velocity, energy, squares = (
    jax.jit(function, static_argnums=1) for function in (velocity_from_vorticity, kinetic_energy, enstrophy)
)
COARSE = NavierStokes((12, 12), viscosity=0.005, final_time=1.0, num_times=2, num_modes=5, scale=300.0)


def angles(problem):
    """2 pi x/X and 2 pi y/Y on the grid."""
    return 2 * np.pi * problem.grid.coordinates() / np.reshape(problem.domain_extent, (2, 1, 1))


def derivatives(w, extent=(1.0, 1.0)):
    """w_x, w_y and the stream function of fields without last modes, by complex transforms in NumPy."""
    kx, ky = (2 * np.pi / L * np.fft.fftfreq(n, 1 / n) for n, L in zip(w.shape[-2:], extent, strict=True))
    modes, k2 = np.fft.fft2(w), kx[:, None] ** 2 + ky**2
    psi = np.where(k2 > 0, modes / np.where(k2 > 0, k2, 1), 0)
    return [np.fft.ifft2(c).real for c in (1j * kx[:, None] * modes, 1j * ky * modes, psi)]


def method_of_lines(w, viscosity, force, times, points):
    """The equation in conservation form on the unit box, with twice the modes kept and SciPy's eighth-order pair."""
    k = 2 * np.pi * np.fft.fftfreq(points, 1 / points)
    kx, ky = np.meshgrid(k, k, indexing="ij")
    k2 = kx**2 + ky**2
    kept = np.maximum(np.abs(kx), np.abs(ky)) < 2 * np.pi * points / 3

    def slope(t, y):
        modes = np.fft.fft2(y.reshape(points, points)) * kept
        psi = np.where(k2 > 0, modes / np.where(k2 > 0, k2, 1), 0)
        u, v, w = (np.fft.ifft2(c).real for c in (1j * ky * psi, -1j * kx * psi, modes))
        flux = 1j * kx * np.fft.fft2(u * w) + 1j * ky * np.fft.fft2(v * w)
        return (np.fft.ifft2((-flux - viscosity * k2 * modes) * kept).real + force).ravel()

    run = scipy.integrate.solve_ivp(slope, (0, times[-1]), w.ravel(), "DOP853", times, rtol=1e-11, atol=1e-12)
    return run.y.T.reshape(-1, points, points)


@pytest.mark.parametrize(
    ("points", "mode"), [((12, 9), (3, -2)), ((8, 12), (4, 1)), pytest.param((9, 8), (4, 4), marks=pytest.mark.slow)]
)
def test_a_single_wave_decays(points, mode, x64):
    """It moves nothing of itself, whatever its direction, on even and odd grids, and on their last modes."""
    problem = NavierStokes(points, domain_extent=(1.0, 2.0), viscosity=0.01, forcing=0.0, final_time=0.5, num_times=3)
    x, y = angles(problem)
    a = 3 * np.cos(mode[0] * x + mode[1] * y)
    rate = 0.01 * ((2 * np.pi * mode[0]) ** 2 + (np.pi * mode[1]) ** 2)
    expected = a * np.exp(-rate * problem.times)[:, None, None]
    np.testing.assert_allclose(solve(problem, jnp.asarray(a[None])), expected, atol=1e-12)


def test_taylor_green_vortices_decay(x64):
    problem = NavierStokes((16, 16), viscosity=0.02, forcing=0.0, final_time=0.5, num_times=2)
    x, y = angles(problem)
    a = jnp.asarray((2 * np.cos(x) * np.cos(y) + 0.7 * np.sin(x) * np.cos(y))[None])  # one eigenvalue, four waves
    expected = a[0] * np.exp(-0.02 * 8 * np.pi**2 * 0.5)
    np.testing.assert_allclose(solve(problem, a)[1], expected, atol=1e-12)


def test_the_force_alone_brings_a_laminar_flow(x64):
    """From rest w = f (1 - exp(-decay t))/decay; and f/decay stays where it is."""
    problem = NavierStokes((8, 9), domain_extent=(1.0, 1.5), viscosity=0.05, forcing=0.3, final_time=1.0, num_times=4)
    decay = 0.05 * ((2 * np.pi) ** 2 + (2 * np.pi / 1.5) ** 2)
    theta = angles(problem).sum(0)
    f = 0.3 * (np.sin(theta) + np.cos(theta))
    np.testing.assert_allclose(problem.force()[0], f, atol=1e-14)
    u = solve(problem, jnp.zeros((1, 8, 9)))
    expected = f * ((1 - np.exp(-decay * problem.times)) / decay)[:, None, None]
    np.testing.assert_allclose(u, expected, atol=1e-9)
    steady = jnp.asarray(f[None] / decay)
    np.testing.assert_allclose(solve(problem, steady), np.repeat(steady, 4, 0), atol=1e-9)


def test_equals_a_method_of_lines(x64):
    problem = NavierStokes((17, 17), viscosity=0.02, final_time=1.0, num_times=3, num_modes=7, scale=400.0)
    a = sample(problem, jax.random.key(0))
    u = np.asarray(solve(problem, a))
    fine = Grid((51, 51))
    theta = 2 * np.pi * fine.coordinates().sum(0)
    force = 0.1 * (np.sin(theta) + np.cos(theta))
    start = np.asarray(resample(a[0], problem.grid, fine))
    truth = method_of_lines(start, 0.02, force, problem.times, 51)[:, ::3, ::3]
    scaled = truth[0] * np.vdot(truth[2], truth[0]) / np.vdot(truth[0], truth[0])
    assert np.linalg.norm(truth[2] - scaled) > 0.3 * np.linalg.norm(truth[2])  # it has moved, not just decayed
    np.testing.assert_allclose(u, truth, atol=1e-6 * np.abs(truth).max())


@pytest.mark.slow
def test_spatial_error_falls_faster_than_any_power(x64):
    errors = []
    for n in (10, 15, 22):
        problem = NavierStokes((n, n), viscosity=0.01, final_time=1.0, num_times=2, num_modes=7, scale=400.0)
        a = sample(problem, jax.random.key(4))
        errors.append(float(relative_residual(problem, a, solve(problem, a))))
    first, second = (np.log2(errors[i] / errors[i + 1]) for i in (0, 1))
    assert errors[2] > 1e-10  # that of the steps is below
    assert first > 4, errors  # orders 7 or more, as the points grow by half
    assert second > first + 2, errors


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tsit5", "dopri5"])
def test_order_in_time_is_five(scheme, x64):
    """Fixed steps, against steps so small that rounding is left."""
    grid = Grid((16, 16))
    modes = _Modes(grid)
    y = to_pair(
        modes.of(30 * GaussianRandomField(4.0, 7.0, boundary="periodic").sample(jax.random.key(1), grid)[0], grid)
    )
    args = modes.kx, modes.ky, 1 / modes.nonzero, modes.wave(0.5)
    args = jnp.asarray(0.01 * modes.minus_laplacian), tuple(map(jnp.asarray, args))

    @jax.jit
    def run(step):
        scheme_ = IntegratingFactor(scheme)
        return diffrax.diffeqsolve(diffrax.ODETerm(_advection), scheme_, 0.0, 0.5, step, y, args=args).ys[0]

    truth = run(0.5 / 512)
    errors = [float(jnp.linalg.norm(run(0.5 / steps) - truth)) for steps in (32, 64)]
    assert errors[1] > 1e-12
    assert 4.8 < np.log2(errors[0] / errors[1]) < 6.2, errors


def test_energy_and_enstrophy_balance(x64):
    """dE/dt = -2 nu Z + power of the force; dZ/dt = -2 nu P + power, P half the square of the gradient."""
    problem = NavierStokes((24, 24), viscosity=0.005, forcing=0.5, final_time=2.0, num_times=65, num_modes=7)
    a = sample(problem, jax.random.key(2))
    w = np.asarray(solve(problem, 5 * a))
    w_x, w_y, psi = derivatives(w)
    f, mean = problem.force()[0], lambda x: x.mean((1, 2))
    E, Z, P = 0.5 * mean(psi * w), 0.5 * mean(w * w), 0.5 * mean(w_x**2 + w_y**2)
    np.testing.assert_allclose(energy(w[-1:], problem.grid), E[-1], rtol=1e-12)
    np.testing.assert_allclose(squares(w[-1:], problem.grid), Z[-1], rtol=1e-12)
    for quantity, rate in ((E, mean(f * psi) - 2 * 0.005 * Z), (Z, mean(f * w) - 2 * 0.005 * P)):
        gained = scipy.integrate.simpson(rate, x=problem.times)
        assert np.ptp(quantity) > 0.1 * quantity.max()
        np.testing.assert_allclose(quantity[-1] - quantity[0], gained, rtol=1e-6)


@pytest.mark.parametrize("points", [(16, 16), pytest.param((15, 18), marks=pytest.mark.slow)])
def test_without_viscosity_nothing_is_lost(points, x64):
    """Not even on a grid far too coarse: the method itself conserves both, for the products are free of aliasing."""
    problem = NavierStokes(points, viscosity=0.0, forcing=0.0, final_time=4.0, num_times=2, scale=80.0)
    a = sample(problem, jax.random.key(3))
    # The last modes of an even grid leave the grid they are seen on, so they stay out of the comparison.
    odd = problem.grid.with_points([2 * (n // 2) + 1 for n in points])
    problem = problem.with_points(odd.shape)
    a = resample(a, Grid(points), odd)
    u = solve(problem, a)
    assert np.linalg.norm(u[1] - u[0]) > 0.5 * np.linalg.norm(u[0])
    for quantity in (energy, squares):
        before, after = (quantity(w[None], problem.grid) for w in u)
        np.testing.assert_allclose(after, before, rtol=1e-8)


def test_velocity_energy_and_enstrophy_in_closed_form(x64):
    grid = Grid((12, 9), (1.0, 2.0))
    x, y = 2 * np.pi * grid.coordinates() / np.array([1.0, 2.0])[:, None, None]
    w = (3 + np.sin(2 * x + y))[None]  # psi = (w - 3)/k2
    k2 = (4 * np.pi) ** 2 + np.pi**2
    expected = np.stack([np.pi * np.cos(2 * x + y), -4 * np.pi * np.cos(2 * x + y)]) / k2
    for dtype, tolerance in (("float64", 1e-13), ("float32", 1e-5)):
        given = jnp.asarray(w, dtype)
        assert velocity(given, grid).dtype == energy(given, grid).dtype == squares(given, grid).dtype == dtype
        np.testing.assert_allclose(velocity(given, grid), expected, atol=tolerance)
        np.testing.assert_allclose(energy(given, grid), 0.5 * 2 * 0.5 / k2, rtol=tolerance)
        np.testing.assert_allclose(squares(given, grid), 0.5 * 2 * (9 + 0.5), rtol=tolerance)


def test_the_last_mode_of_an_even_grid(x64):
    """cos(8 pi x) is 1 or -1 at all points and its square 1/2 on average; its derivative vanishes at all points."""
    grid = Grid((8, 9))
    w = np.cos(8 * np.pi * grid.coordinates()[:1])
    np.testing.assert_allclose(squares(w, grid), 0.25, rtol=1e-13)
    np.testing.assert_allclose(energy(w, grid), 0.25 / (8 * np.pi) ** 2, rtol=1e-13)
    np.testing.assert_allclose(velocity(w, grid), 0, atol=1e-14)


def test_frames_are_the_solution_at_their_times(x64):
    many = NavierStokes(**{**COARSE.parameters(), "num_times": 6})
    a = sample(COARSE, jax.random.key(5))
    u = solve(many, a)
    np.testing.assert_array_equal(u[0], a[0])
    np.testing.assert_allclose(many.times, np.linspace(0, 1, 6))
    np.testing.assert_allclose(u[5], solve(COARSE, a)[1], atol=1e-9 * np.abs(u).max())


class Decay(Problem):
    """w exp(-t) at three times: compiles at once."""

    input_fields, output_fields = ("w",), ("w0", "w1", "w2")
    times, grid = np.array([0.0, 0.5, 1.0]), Grid((8, 8))

    def sample(self, key):
        return jax.random.normal(key, (1, 8, 8))

    def solve(self, a):
        return a * jnp.exp(-self.times)[:, None, None]

    def residual(self, a, u):
        return u - self.solve(a)

    def reference(self, a, u):
        return u


FLOW = NavierStokes((8, 8), viscosity=0.02, final_time=0.5, num_times=3, scale=100.0)


@pytest.mark.parametrize("problem", [Decay(), pytest.param(FLOW, marks=pytest.mark.slow)])
def test_trajectories_are_generated_shard_by_shard(problem, tmp_path, monkeypatch):
    arguments = {"key": 3, "num_samples": 3, "shard_size": 1, "trajectories": "vorticity", "progress": False}
    arguments["max_residual"] = 1e-2  # a coarse grid
    whole = data.generate(problem, **arguments)
    assert whole.inputs.shape == (3, 3, 1, 8, 8)
    assert whole.outputs is None
    with jax.enable_x64(True):
        a = problem.sample(jax.random.fold_in(jax.random.key(3), 1))
        np.testing.assert_allclose(whole.inputs[1, :, 0], problem.solve(a), atol=1e-6)
    write, path, written = store.write_file, tmp_path / "flow.h5", []

    def killed(*args, **options):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write(*args, **options))

    monkeypatch.setattr(store, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        data.generate(problem, path=path, **arguments)
    assert not path.exists()
    monkeypatch.setattr(store, "write_file", write)
    source = data.generate(problem, path=path, **arguments)
    data.validate(path)
    assert source.input_fields == ("vorticity",)
    assert type(problem)(**source.parameters) == problem
    np.testing.assert_array_equal(source.times, problem.times)
    for found, expected in zip(*map(jax.tree.leaves, (source.load(), whole)), strict=True):
        np.testing.assert_array_equal(found, expected)
    pairs = data.windows(source, horizon=2).load()
    np.testing.assert_array_equal(pairs.inputs, whole.inputs[:, 0])
    np.testing.assert_array_equal(pairs.outputs, whole.inputs[:, 1:, 0])
    with pytest.raises(ValueError, match="already holds other data"):
        data.generate(problem, path=path, **{**arguments, "trajectories": None})


@pytest.mark.slow
def test_one_function_at_every_resolution_and_refinement(x64):
    key, options = jax.random.key(7), {"viscosity": 0.02, "final_time": 0.5, "num_times": 2, "scale": 200.0}
    problems = {
        "24": NavierStokes((24, 24), num_modes=5, **options),
        "25": NavierStokes((25, 25), num_modes=5, **options),
        "48": NavierStokes((48, 48), num_modes=5, **options),
        "12, refined": NavierStokes((12, 12), num_modes=5, refine=4, **options),
        "16 x 36": NavierStokes((16, 36), num_modes=5, refine=2, **options),
    }
    u = {name: solve(problem, sample(problem, key)) for name, problem in problems.items()}
    scale = np.abs(u["48"]).max()
    np.testing.assert_allclose(u["24"], u["48"][:, ::2, ::2], atol=1e-7 * scale)
    np.testing.assert_allclose(u["25"][:, ::5, ::5][:, 0, 0], u["48"][:, 0, 0], atol=1e-7 * scale)
    np.testing.assert_allclose(u["12, refined"], u["48"][:, ::4, ::4], atol=1e-8 * scale)
    np.testing.assert_allclose(u["16 x 36"][:, ::4, ::3], u["48"][:, ::12, ::4], atol=1e-7 * scale)


def test_residual_tells_a_grid_that_is_too_coarse(x64):
    a = sample(COARSE, jax.random.key(4))
    u = solve(COARSE, a)
    finest = NavierStokes(**{**COARSE.parameters(), "refine": 4})
    error = float(np.linalg.norm(u - solve(finest, a)) / np.linalg.norm(u))
    assert float(relative_residual(COARSE, a, u)) == pytest.approx(error, rel=0.1)
    assert error > 1e-4


def test_not_a_number_is_returned_not_raised(x64):
    a = sample(COARSE, jax.random.key(0)).at[0, 3, 2].set(jnp.nan)
    u = solve(COARSE, a)
    assert np.isnan(u[1:]).all()
    assert np.isnan(relative_residual(COARSE, a, u))


def test_the_mean_moves_nothing_and_stays(x64):
    a = sample(COARSE, jax.random.key(6))
    assert abs(a.mean()) < 1e-14
    u = solve(COARSE, a + 2)
    np.testing.assert_allclose(u - 2, solve(COARSE, a), atol=1e-8)
    np.testing.assert_allclose(u.mean((1, 2)), 2, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_precision_jit_and_vmap(dtype, x64):
    a = jax.vmap(lambda key: sample(COARSE, key))(jax.random.split(jax.random.key(3), 2))
    truth = solve(COARSE, a[1])
    u = jax.jit(jax.vmap(COARSE.solve))(a.astype(dtype))
    assert u.dtype == dtype
    tolerance = 2e-5 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(u[1], truth, atol=tolerance * np.abs(truth).max())


def test_a_slow_flow_is_as_accurate(x64):
    """No unit hides in the step control: slower by 1e6 and 1e6 times as long is the same flow."""
    changed = {"viscosity": 0.005e-6, "forcing": 0.1e-12, "final_time": 1e6}
    slow = NavierStokes(**{**COARSE.parameters(), **changed})
    a = sample(COARSE, jax.random.key(1))
    np.testing.assert_allclose(1e6 * solve(slow, 1e-6 * a), solve(COARSE, a), atol=1e-8)


@pytest.mark.slow
def test_gradient(x64):
    problem = NavierStokes((8, 8), viscosity=0.02, final_time=0.3, num_times=2, scale=100.0, rtol=1e-8)
    a = sample(problem, jax.random.key(3))
    direction = jnp.sin(jnp.arange(64.0)).reshape(1, 8, 8)
    energy = jax.jit(lambda a: jnp.sum(solve(problem, a)[1] ** 2))
    slope = jnp.vdot(jax.jit(jax.grad(energy))(a), direction)
    difference = (energy(a + 1e-4 * direction) - energy(a - 1e-4 * direction)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_input_law():
    problem = NavierStokes((16, 16))
    law = GaussianRandomField(2.5, 7.0, boundary="periodic", scale=7**0.75)
    np.testing.assert_array_equal(problem.sample(jax.random.key(0)), law.sample(jax.random.key(0), Grid((16, 16))))
    few = NavierStokes((8, 8), num_modes=5)
    draws = jax.jit(jax.vmap(few.sample))(jax.random.split(jax.random.key(1), 4000))
    k = 2 * np.pi * np.arange(-2, 3)
    k2 = np.add.outer(k**2, k**2)
    variance = np.sum(np.where(k2 > 0, 7**1.5 * (k2 + 49) ** -2.5, 0))  # of N(0, 7^(3/2) (-Laplacian + 49)^(-5/2))
    np.testing.assert_allclose(np.var(draws, axis=0), variance, rtol=6 * np.sqrt(2 / 4000))


def test_a_problem_is_a_constant_that_can_be_written_down():
    problem = NavierStokes((8, 9), viscosity=0.02, num_times=3, rtol=1e-7)
    assert jax.tree.leaves(problem) == []
    assert problem == NavierStokes(**problem.parameters())
    assert problem.with_points((12, 12)).grid.shape == (12, 12)
    assert problem.output_fields == ("vorticity_0", "vorticity_1", "vorticity_2")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_points": 8}, "num_points"),
        ({"num_points": (8, 8, 8)}, "num_points"),
        ({"num_points": (8, 3)}, "num_points"),
        ({"viscosity": -1e-3}, "viscosity"),
        ({"forcing": float("nan")}, "forcing"),
        ({"final_time": 0.0}, "final_time"),
        ({"num_times": 1}, "num_times"),
        ({"domain_extent": (1.0, 0.0)}, "domain_extent"),
        ({"alpha": 1.0}, "alpha"),
        ({"tau": 0.0}, "scale"),
        ({"scale": -1.0}, "scale"),
        ({"rtol": 0.0}, "rtol"),
        ({"refine": 0}, "refine"),
        ({"num_modes": (3, -3)}, "num_modes"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        NavierStokes(**{"num_points": (16, 16), **arguments})


def test_refuses_bad_fields():
    problem = NavierStokes((8, 8), num_times=3)
    for bad in (jnp.ones((8, 8)), jnp.ones((1, 8, 9)), jnp.ones((1, 8, 8), complex), jnp.ones((3, 8, 8))):
        with pytest.raises(ValueError, match="a: "):
            problem.solve(bad)
    with pytest.raises(ValueError, match="u: "):
        problem.residual(jnp.ones((1, 8, 8)), jnp.ones((1, 8, 8)))
    for grid in (Grid((8, 8), boundary="dirichlet"), Grid((8, 8), centering="cell"), Grid((8,))):
        with pytest.raises(ValueError, match="grid: "):
            velocity_from_vorticity(jnp.ones((1, 8, 8)), grid)
    with pytest.raises(ValueError, match="w: "):
        enstrophy(jnp.ones((2, 8, 8)), Grid((8, 8)))
