"""The wave equation: exact discrete solutions, conservation, orders, walls that absorb, sources, gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.pde.waves import (
    AbsorbingLayer,
    Sources,
    WaveEquation,
    WaveState,
    gaussian_pulse,
    plane_wave,
    ricker,
    rings,
    stencils,
)
from neuralops.pde.waves import equation as module
from neuralops.pde.waves.stencils import (
    ORDERS,
    difference,
    dual,
    second_difference,
    second_differences,
    stiffness,
    symbol,
)
from neuralops.transforms import Axis

BOUNDARIES = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def field(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def speeds(shape, low=0.5, high=1.0, seed=1):
    return jnp.asarray(low + (high - low) * np.random.default_rng(seed).random(shape))


# ---- differences


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("centering", ["node", "cell"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_differences_have_their_order_up_to_the_walls_and_are_transposes(boundary, centering, order):
    errors = []
    for n in (24, 48):
        axis = Axis(n, boundary, centering)
        p, q = transforms.positions(axis)
        h, x = 2 / q, p / q
        across = dual(axis)
        y = np.divide(*transforms.positions(across))
        assert dual(across) == axis
        if boundary == "periodic":
            w = 4 * np.pi
            u, slope = np.sin(w * x + 0.3), w * np.cos(w * y + 0.3)
        elif axis.ends[0] == "dirichlet":
            w = np.pi * (3 if boundary == "dirichlet" else 2.5)
            u, slope = np.sin(w * x), w * np.cos(w * y)
        else:
            w = np.pi * (3 if boundary == "neumann" else 2.5)
            u, slope = np.cos(w * x), -w * np.sin(w * y)
        first = difference(jnp.asarray(u), 0, axis, h, order)
        second = second_difference(jnp.asarray(u), 0, axis, h, order)
        errors.append([np.abs(first - slope).max() / w, np.abs(second + w**2 * u).max() / w**2])
    if order == "spectral":
        assert np.max(errors) < 1e-12
    else:
        assert np.log2(np.divide(*errors)) == pytest.approx([order, order], abs=0.3)
    D = jax.jacobian(lambda u: difference(u, 0, axis, h, order))(jnp.zeros(n))
    E = jax.jacobian(lambda u: difference(u, 0, across, h, order))(jnp.zeros(across.num_points))
    W, V = (np.diag(transforms.relative_weights(a)) for a in (axis, across))
    np.testing.assert_allclose(W @ np.asarray(E), -np.asarray(D).T @ V, atol=1e-9 / h)
    S = W @ np.asarray(jax.jacobian(lambda u: second_difference(u, 0, axis, h, order))(jnp.zeros(n)))
    np.testing.assert_allclose(S, S.T, atol=1e-9 / h**2)


def one_by_one(u, axes, spacings, order, known=None):
    """The sum of second differences, axis by axis."""
    total = jnp.zeros_like(u)
    for d, (axis, h) in enumerate(zip(axes, spacings, strict=True)):
        total = total + second_difference(u, d, axis, h, order, (None, None) if known is None else known[d])
    return total


def same_derivatives(f, g, *x):
    """The values of two functions, their derivatives along a direction and the transposes of these."""
    along = jax.tree.map(lambda a: field(a.shape, 8), x)

    def both(h, back):
        return [*jax.jvp(h, x, along), *jax.tree.leaves(jax.vjp(h, *x)[1](back))]

    back = field(x[0].shape, 9)
    for one, other in zip(*jax.jit(lambda b: (both(f, b), both(g, b)))(back), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize(("centering", "order"), [("node", 4), ("cell", 8)])
def test_differences_of_all_axes_at_once_are_those_axis_by_axis(centering, order):
    words = (("dirichlet", "neumann"), "periodic", "neumann")
    axes = [Axis(n, word, centering) for n, word in zip((17, 18, 19), words, strict=True)]
    f, g = (lambda u, h=h: h(u, axes, (0.1, 0.2, 0.15), order) for h in (second_differences, one_by_one))
    u = field((17, 18, 19))
    same_derivatives(f, g, u)
    if centering == "cell":
        np.testing.assert_array_equal(jax.jit(f)(u), jax.jit(g)(u))  # to the bit


@pytest.mark.parametrize("ends", [(True, True), (False, True)])
def test_prescribed_values_at_once_are_those_axis_by_axis(ends):
    low, high = ("dirichlet" if given else "neumann" for given in ends)
    axes = [Axis(18, low if low == high else (low, high), "node"), Axis(17, "neumann", "node")]
    given = tuple(field((2, 17), i) if there else None for i, there in enumerate(ends))
    f, g = (
        lambda u, given, h=h: h(u, axes, (0.1, 0.2), 4, (given, (None, None))) for h in (second_differences, one_by_one)
    )
    same_derivatives(f, g, field((18, 17)), given)


@pytest.mark.parametrize("centering", ["node", "cell"])
@pytest.mark.parametrize("shape", [(12, 9), (9, 6, 8)])
def test_periodic_modes_at_once_are_those_axis_by_axis(shape, centering, monkeypatch):
    axes, spacings = [Axis(n, "periodic", centering) for n in shape], (0.1, 0.2, 0.15)[: len(shape)]
    f, g = (lambda u, h=h: h(u, axes, spacings, "spectral") for h in (second_differences, one_by_one))
    monkeypatch.setattr(stencils, "_FEW_MODES", 0)
    assert "fft" in str(jax.make_jaxpr(f)(field(shape)))
    same_derivatives(f, g, field(shape))


def test_small_planes_go_axis_by_axis(monkeypatch):
    axes, u = [Axis(n, "periodic", "cell") for n in (12, 13)], field((12, 13))
    program = lambda order: str(jax.make_jaxpr(lambda u: second_differences(u, axes, (0.1, 0.2), order))(u))
    assert "dynamic_update_slice" not in program(2)
    assert "dynamic_update_slice" in program(4)
    assert "fft" not in program("spectral")
    monkeypatch.setattr(stencils, "_FEW", 0)
    assert "dynamic_update_slice" in program(2)
    f, g = (lambda u, h=h: h(u, axes, (0.1, 0.2), 2) for h in (second_differences, one_by_one))
    same_derivatives(f, g, u)


def test_stiffness_is_that_of_the_tables():
    assert [stiffness(o) for o in ORDERS] == pytest.approx([4, 16 / 3, 272 / 45, 2048 / 315, np.pi**2])
    assert stiffness(4, compact=False) == pytest.approx(49 / 9)


# ---- exact discrete solutions


@pytest.mark.parametrize(("order", "time_order"), [(2, 2), (4, 2), (8, 2), ("spectral", 2), (8, 4)])
@pytest.mark.parametrize("walls", ["periodic", "dirichlet", "neumann"])
def test_an_eigenmode_of_the_scheme_is_kept(order, time_order, walls):
    equation = WaveEquation(
        (20, 18), domain_extent=(1.0, 1.3), max_sound_speed=2.0, walls=walls, order=order, time_order=time_order
    )
    grid, modes = equation.grid, (4, 3)
    u, X = 1.0, 0.0
    for axis, h, m in zip(grid.axes, grid.spacing, modes, strict=True):
        u = np.multiply.outer(u, transforms.synthesis_matrix(axis)[:, m])
        theta = np.pi * transforms.wavenumbers(axis.boundary, 20)[m] * 2 / transforms.positions(axis)[1]
        X += (2.0 * equation.dt / h) ** 2 * symbol(np.asarray(theta), order)
    X = X - X**2 / 12 if time_order == 4 else X
    w = 2 * np.arcsin(np.sqrt(X / 4))  # radians per step
    state = WaveState(jnp.asarray(u * np.cos(-w)), jnp.asarray(u))
    final = equation.run(jnp.full((20, 18), 2.0), state=state, num_steps=5000).final
    np.testing.assert_allclose(final, u * np.cos(5000 * w), atol=1e-10)


def settings():
    for order in (2, 6, "spectral"):
        for centering in ("node", "cell"):
            yield order, centering


@pytest.mark.parametrize(("order", "centering"), settings())
@pytest.mark.parametrize("walls", [("neumann", "periodic"), ("dirichlet", ("dirichlet", "neumann"))])
def test_energy_is_constant_and_time_runs_back(walls, order, centering):
    shape = (14, 17)
    c, rho = speeds(shape), 1 + speeds(shape, seed=2)
    mask = jnp.ones(shape).at[4:7, 6:10].set(0.0)
    cases = [("constant", None, None), ("variable", rho, None)]
    cases += [] if order == "spectral" else [("variable", rho, mask)]
    for density, given, inside in cases:
        make = functools.partial(WaveEquation, shape, max_sound_speed=1.0, walls=walls, order=order, density=density)
        equation = make(centering=centering, obstacle=None if inside is None else "neumann")
        medium = {"density": given, "mask": inside}
        start = field(shape) * (1 if inside is None else inside)
        first = equation.run(c, start, num_steps=1, **medium).state
        last = equation.run(c, state=first, num_steps=400, **medium).state
        energies = [float(equation.energy(s, c, **medium)) for s in (first, last)]
        assert energies[1] == pytest.approx(energies[0], rel=1e-10)
        back = equation.run(c, state=WaveState(last.current, last.previous), num_steps=400, **medium).state
        np.testing.assert_allclose(back.current, first.previous, atol=1e-9)
        if inside is not None:
            assert np.all(np.asarray(last.current)[4:7, 6:10] == 0)


def standing(equation, t, k=(2, 3)):
    """A standing wave between walls at which the slope vanishes."""
    x = equation.grid.coordinates()
    return np.cos(np.pi * k[0] * x[0]) * np.cos(np.pi * k[1] * x[1]) * np.cos(np.pi * np.hypot(*k) * t)


@pytest.mark.parametrize("order", [2, 4, 6, 8, "spectral"])
def test_orders_in_space(order):
    errors = []
    for n in (16, 32):
        equation = WaveEquation((n, n), max_sound_speed=1.0, walls="neumann", order=order, time_order=4, dt=2e-3)
        final = equation.run(jnp.ones((n, n)), jnp.asarray(standing(equation, 0.0)), num_steps=200).final
        errors.append(np.abs(final - standing(equation, 0.4)).max())
    if order == "spectral":
        assert max(errors) < 1e-8
    else:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("time_order", [2, 4])
def test_orders_in_time(time_order):
    errors = []
    for dt in (0.02, 0.01):
        make = functools.partial(WaveEquation, (16, 16), max_sound_speed=1.0, walls="neumann", order="spectral")
        equation = make(time_order=time_order, dt=dt)
        rate = np.pi * np.hypot(2, 3)
        shape = standing(equation, 0.0)
        run = equation.run(
            jnp.ones((16, 16)), jnp.asarray(shape), initial_rate=jnp.asarray(shape), num_steps=round(1 / dt)
        )
        errors.append(np.abs(run.final - shape * (np.cos(rate) + np.sin(rate) / rate)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(time_order, abs=0.2)


@pytest.mark.parametrize("order", [2, 8])
@pytest.mark.parametrize("density", ["constant", "variable"])
def test_density_and_obstacles_keep_the_order_of_the_scheme(order, density):
    """A wall as an obstacle: what the grid ends at and what faces close give the same field."""
    inside = np.zeros((20, 12))
    inside[:13] = 1.0
    rho = (
        None
        if density == "constant"
        else jnp.asarray(1 + 0.5 * np.cos(np.pi * np.arange(20) / 13))[:, None] + jnp.zeros((20, 12))
    )
    make = functools.partial(WaveEquation, max_sound_speed=1.0, walls="neumann", order=order, density=density, dt=5e-3)
    whole = make((20, 12), domain_extent=(20 / 13, 1.0), obstacle="neumann")
    part = make((13, 12), obstacle="neumann")
    start = field((20, 12)) * inside
    a = whole.run(jnp.ones((20, 12)), start, mask=inside, density=rho, num_steps=200).final
    rest = {"mask": np.ones((13, 12)), "density": None if rho is None else rho[:13]}
    b = part.run(jnp.ones((13, 12)), start[:13], num_steps=200, **rest).final
    np.testing.assert_allclose(a[:13], b, atol=1e-9)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_obstacles_that_are_not_there_change_nothing(order):
    """Their polynomial in differences of second order is the staggered difference of the scheme's order."""
    make = functools.partial(WaveEquation, (20, 18), max_sound_speed=1.0, order=order, density="variable", dt=0.01)
    walls = (("dirichlet", "neumann"), "periodic")
    c, rho, u = speeds((20, 18)), 1 + speeds((20, 18), seed=2), field((20, 18))
    plain = make(walls=walls).run(c, u, density=rho, num_steps=100).final
    masked = make(walls=walls, obstacle="neumann").run(c, u, density=rho, mask=np.ones((20, 18)), num_steps=100).final
    np.testing.assert_allclose(masked, plain, atol=1e-10)


def test_a_soft_obstacle_is_a_wall():
    """Cells of value zero beside a field are a Dirichlet wall at their centres, which is one of nodes."""
    mask = np.zeros((20, 9))
    mask[:12] = 1.0
    make = functools.partial(WaveEquation, max_sound_speed=1.0, order=2, dt=0.01)
    whole = make((20, 9), domain_extent=(20 / 12.5, 1.0), walls="neumann", obstacle="dirichlet")
    part = make((12, 9), walls=("dirichlet", "neumann"), centering=("node", "cell"), domain_extent=(13 / 12.5, 1.0))
    assert whole.grid.spacing == pytest.approx(part.grid.spacing)
    start = field((20, 9)) * mask
    start = start.at[0].set(0.0)  # far from where the other ends differ, for as many steps as there are points
    quiet = start.at[:8].set(0.0)
    a = whole.run(jnp.ones((20, 9)), quiet, mask=mask, num_steps=7)
    b = part.run(jnp.ones((12, 9)), quiet[:12], num_steps=7)
    np.testing.assert_allclose(a.final[:12], b.final, atol=1e-12)
    later = whole.run(jnp.ones((20, 9)), state=a.state, mask=mask, num_steps=300).state
    assert np.all(np.asarray(later.current)[12:] == 0)
    energies = [float(whole.energy(s, jnp.ones((20, 9)), mask=mask)) for s in (a.state, later)]
    assert energies[1] == pytest.approx(energies[0], rel=1e-10)


@pytest.mark.parametrize("order", [2, 8])
def test_obstacles_that_meet_layers(double, order):
    """Rigid cells in front of a wall that absorbs are a wall, and a channel between such cells goes on into a layer."""
    options = {"max_sound_speed": 1.0, "order": order, "layer": AbsorbingLayer(0.3, 1e-3), "dt": 0.02}
    u, c = field((20, 24)), speeds((20, 24))
    run = functools.partial(WaveEquation.run, num_steps=300, every=100)
    for shape, walls, alone in (
        ((20, 22), ("neumann", ("neumann", "absorbing")), "neumann"),
        ((12, 24), ("neumann", "absorbing"), ("neumann", "absorbing")),
    ):
        mask = np.zeros((20, 24))
        mask[: shape[0], : shape[1]] = 1
        extent = tuple(0.1 * n for n in shape)
        whole = WaveEquation((20, 24), domain_extent=(2.0, 2.4), walls=walls, obstacle="neumann", **options)
        box = WaveEquation(shape, domain_extent=extent, walls=alone, density="variable", **options)
        cut = lambda x, shape=shape: x[..., : shape[0], : shape[1]]
        frames = run(box, cut(c), cut(u), density=jnp.ones(shape)).frames
        np.testing.assert_allclose(cut(run(whole, c, u * mask, mask=mask).frames), frames, atol=1e-9)


@pytest.mark.slow
def test_the_longest_step_is_where_stability_ends():
    for order in ORDERS:
        for time_order in (2, 4):
            make = functools.partial(WaveEquation, (12, 12), max_sound_speed=1.0, walls="periodic", order=order)
            limit = make(time_order=time_order).longest_step()
            equation = make(time_order=time_order, dt=0.99 * limit)
            c, u = jnp.ones((12, 12)), field((12, 12))
            assert np.abs(equation.run(c, u, num_steps=1000).final).max() < 100
            beyond = dataclasses.replace(equation)
            object.__setattr__(beyond, "dt", 1.02 * limit)
            assert not np.abs(beyond.run(c, u, num_steps=1000).final).max() < 1e10
            with pytest.raises(ValueError, match=r"dt: expected at most .*CFL"):
                make(time_order=time_order, dt=1.02 * limit)


def test_points_per_wavelength_and_the_error_of_the_phase():
    equation = WaveEquation((100,), max_sound_speed=2.0, walls="periodic", order=2, dt=1e-4)
    assert equation.points_per_wavelength(5.0, 1.0) == pytest.approx(20.0)
    theta = 2 * np.pi / 20
    assert equation.phase_error(5.0, 1.0) == pytest.approx(theta**2 / 24, rel=0.02)
    assert equation.phase_error(200.0, 1.0) == np.inf
    with pytest.warns(UserWarning, match="8 points per wavelength are few for order 2: phases run wrong by 2."):
        assert equation.points_per_wavelength(12.5, 1.0) == pytest.approx(8.0)


def test_a_layer_for_waves_longer_than_the_box_says_so():
    with pytest.warns(UserWarning, match="layer: waves of length 1.5 do not fit into the 1 between walls"):
        WaveEquation((30, 60), max_sound_speed=1.0, domain_extent=(1.0, 2.0), layer=AbsorbingLayer(1.5))


# ---- walls that absorb


def echo(order, points_per_wavelength, reflection, centering="cell"):
    n, wavelength = 160, points_per_wavelength / 160
    layer = AbsorbingLayer(wavelength, reflection)
    make = functools.partial(WaveEquation, max_sound_speed=1.0, order=order, density="variable", centering=centering)
    a = make((n,), domain_extent=1.0 if centering == "cell" else (n - 1) / n, layer=layer)
    cells = 3 * n if centering == "cell" else 3 * n - 2
    b = make((cells,), domain_extent=3.0 if centering == "cell" else 3 * (n - 1) / n, walls="neumann", dt=a.dt)
    first = n if centering == "cell" else n - 1
    x = b.grid.points(0) - 1.5
    u = jnp.asarray(np.exp(-((x / (0.6 * wavelength)) ** 2)) * np.cos(2 * np.pi * x / wavelength))
    steps = round(1.2 / a.dt)
    seen = a.run(jnp.ones(n), u[first : first + n], density=jnp.ones(n), num_steps=steps, every=10).frames
    true = b.run(jnp.ones(cells), u, density=jnp.ones(cells), num_steps=steps, every=10).frames
    return np.abs(seen - true[:, first : first + n]).max() / 0.5, a.layer_points[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 4, 8])
def test_the_echo_of_a_layer_is_what_was_asked_for(order):
    """Against the same waves on a box three times as long; a wave of amplitude 1/2 meets each wall."""
    size, points = echo(order, 8, 1e-3)
    assert points == 10
    assert size < 1e-3
    size, points = echo(order, 8, 1e-4)
    assert points == 20
    assert size < 1e-4
    assert echo(order, 40, 1e-3)[0] < 1e-3


@pytest.mark.parametrize("centering", ["node", "cell"])
def test_the_echo_on_nodes_and_cells(centering):
    assert echo(4, 8, 1e-3, centering)[0] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 8])
def test_no_mode_grows_in_the_layers(order):
    """The eigenvalues of a whole step, memories included, in a medium that varies along the layer."""
    layer = AbsorbingLayer(0.2, 0.1)  # 5 points
    equation = WaveEquation((9, 4), domain_extent=(2.0, 0.3), max_sound_speed=1.0, order=2, layer=layer, cfl=0.99,
                            walls=("absorbing", "neumann")) if order == 2 else WaveEquation(
        (20,), max_sound_speed=1.0, order=order, layer=layer, cfl=0.99)  # fmt: skip
    c = speeds(equation.num_points, 0.2)
    start, restore = ravel_pytree(equation.run(c, num_steps=1).state)
    step = lambda z: ravel_pytree(equation.run(c, state=restore(z), num_steps=1).state)[0]
    eigenvalues = np.linalg.eigvals(np.asarray(jax.jacfwd(step)(jnp.zeros_like(start))))
    assert np.abs(eigenvalues).max() < 1 + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_points", "extent", "walls"),
    [((24, 24), 1.0, "absorbing"), ((48, 8), (6.0, 1.0), "absorbing"), ((40, 8), (5.0, 1.0), ("absorbing", "neumann"))],
)
def test_layers_stay_quiet_for_a_hundred_thousand_steps(num_points, extent, walls):
    """Long boxes are met at grazing incidence; the medium jumps along the layer, and the pulse has a mean."""
    layer = AbsorbingLayer(0.4, 1e-3)
    equation = WaveEquation(num_points, domain_extent=extent, max_sound_speed=1.0, walls=walls, layer=layer, cfl=0.9)
    c = jnp.asarray(np.broadcast_to(np.where(np.arange(num_points[1]) < num_points[1] // 2, 0.4, 1.0), num_points))
    middle = np.reshape([L / 2 for L in equation.domain_extent], (2, 1))
    u = rings(equation.grid, middle, np.zeros(1), np.full(1, 0.15), np.ones(1))
    frames = equation.run(c, u, num_steps=100_000, every=10_000, gradient="stored").frames
    sizes = np.abs(frames).max(axis=(1, 2))
    assert sizes[-1] < 1e-4
    assert np.all(sizes[3:] <= 1.01 * sizes[2:-1])  # in the first 20,000 steps the rest still settles


@pytest.mark.slow
def test_a_scatterer_changes_nothing_before_the_wave_is_there():
    layer = AbsorbingLayer(0.2, 1e-3)
    equation = WaveEquation((40, 30), max_sound_speed=1.0, order=4, layer=layer)
    c = jnp.full((40, 30), 0.8)
    other = c.at[30:36, 10:20].set(0.5)
    where = np.array([[0.11, 0.02], [0.4, 0.9]])  # the second next to a wall
    sources = Sources(where, jnp.tile(ricker(equation.dt * np.arange(150), 5.0), (2, 1)))
    a, b = (equation.run(m, num_steps=150, sources=sources, every=1) for m in (c, other))
    difference_ = np.abs(np.asarray(a.frames - b.frames)).max(axis=(1, 2))
    reached = 6  # steps of at most 3 points along an axis, from 19 points away
    assert np.all(difference_[:reached] == 0)
    assert difference_[-1] > 1e-3
    few = Sources(where, sources.amplitudes[:, :reached])
    a, b = (equation.run(m, num_steps=reached, sources=few).state.current for m in (c, other))
    assert np.all(a == b)  # in the layers too
    assert np.abs(a).max() > 0


# ---- sources and receivers


@pytest.mark.slow
def test_greens_functions():
    """In two dimensions, 1 % at 10 points per shortest wave: (1/2 pi) int f(tau) / sqrt((t - tau)^2 - r^2) dtau."""
    frequency, n = 4.0, 160
    equation = WaveEquation((n, n), domain_extent=1.6, max_sound_speed=1.0, order=8, cfl=0.3, layer=AbsorbingLayer(0.5))
    steps = round(1.0 / equation.dt)
    times = equation.dt * np.arange(steps + 1)
    f = ricker(times[:-1], frequency)
    source, receiver = np.array([[0.803], [0.796]]), np.array([[1.214], [0.987]])
    r = float(np.hypot(*(receiver - source))[0])
    heard = equation.run(
        jnp.ones((n, n)), num_steps=steps, sources=Sources(source, f[None]), receivers=receiver
    ).records[0]
    # tau = t - r cosh(s) takes the root out of the integral.
    s = np.linspace(0, np.arccosh(times[-1] / r), 4001)
    exact = np.array(
        [np.trapezoid(np.where(t - r * np.cosh(s) > 0, ricker(t - r * np.cosh(s), frequency), 0), s) for t in times]
    )
    exact /= 2 * np.pi
    assert np.abs(heard - exact).max() < 0.01 * np.abs(exact).max()


@pytest.mark.slow
def test_greens_function_in_three_dimensions():
    frequency, n = 2.0, 40
    equation = WaveEquation(
        (n,) * 3, domain_extent=1.0, max_sound_speed=1.0, order=8, cfl=0.5, layer=AbsorbingLayer(0.5)
    )
    steps = round(0.95 / equation.dt)
    times = equation.dt * np.arange(steps + 1)
    f = ricker(times[:-1], frequency, 0.6)
    source, receiver = np.full((3, 1), 0.49), np.array([[0.71], [0.62], [0.55]])
    r = float(np.linalg.norm(receiver - source))
    heard = equation.run(
        jnp.ones((n,) * 3), num_steps=steps, sources=Sources(source, f[None]), receivers=receiver
    ).records[0]
    exact = ricker(times - r, frequency, 0.6) / (4 * np.pi * r)
    assert np.abs(heard - exact).max() < 0.01 * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("centering", ["node", "cell"])
def test_reciprocity(centering):
    """A source and a receiver may change places, next to walls and in a layered medium too."""
    make = functools.partial(
        WaveEquation, (24, 20), max_sound_speed=1.0, order=4, density="variable", centering=centering
    )
    equation = make(walls=(("neumann", "dirichlet"), ("absorbing", "neumann")), layer=AbsorbingLayer(0.3))
    c, rho = speeds((24, 20)), 1 + speeds((24, 20), seed=3)
    a, b = np.array([[0.03], [0.31]]), np.array([[0.83], [0.97]])
    f = ricker(equation.dt * np.arange(150), 3.0)[None]
    hear = lambda x, y: equation.run(c, density=rho, num_steps=150, sources=Sources(x, f), receivers=y).records
    here, there = hear(a, b), hear(b, a)
    assert np.abs(here).max() > 1e-3
    np.testing.assert_allclose(here, there, atol=1e-12)


@pytest.mark.slow
def test_a_moving_source_is_one_that_is_placed_anew_each_step():
    equation = WaveEquation((20, 20), max_sound_speed=1.0, walls="neumann")
    path = np.linspace(0.2, 0.7, 40)
    positions = np.stack([path, 0.5 + 0 * path])[:, None]
    f = np.sin(np.arange(40.0))[None]
    moving = equation.run(jnp.ones((20, 20)), num_steps=40, sources=Sources(positions, f)).final
    each = np.eye(40) * f[0]
    fixed = equation.run(jnp.ones((20, 20)), num_steps=40, sources=Sources(positions[:, 0], each)).final
    np.testing.assert_allclose(moving, fixed, atol=1e-13)


def test_fresnel_coefficients():
    """Pressure reflected (Z2 - Z1)/(Z2 + Z1) and transmitted 2 Z2/(Z2 + Z1), Z = rho c."""
    n = 600
    equation = WaveEquation((n,), domain_extent=3.0, max_sound_speed=1.5, walls="neumann", density="variable", cfl=0.5)
    x = equation.grid.points(0)
    c, rho = np.where(x < 1.5, 1.0, 1.5), np.where(x < 1.5, 1.0, 2.0)
    u, rate = plane_wave(equation.grid, (1.0,), 1.0, 0.7, 0.08)
    final = equation.run(
        jnp.asarray(c), u, density=jnp.asarray(rho), initial_rate=rate, num_steps=round(1.2 / equation.dt)
    ).final
    assert float(final[x < 1.5].max()) == pytest.approx(0.5, rel=0.01)  # Z: 1 and 3
    assert float(final[x > 1.5].max()) == pytest.approx(1.5, rel=0.01)


@pytest.mark.slow
def test_a_prescribed_wall_reproduces_the_inside_of_a_larger_run():
    for order, time_order in ((2, 2), (4, 2), (4, 4)):
        m = order // 2
        make = functools.partial(WaveEquation, max_sound_speed=1.0, order=order, time_order=time_order, dt=0.02)
        large = make((30, 20), domain_extent=(1.5, 1.0), walls="neumann")
        small = make((12, 20), domain_extent=(0.6, 1.0), walls=("prescribed", "neumann"))
        c = speeds((30, 20))
        frames = large.run(c, jnp.asarray(field((30, 20)) * 0.1), num_steps=30, every=1).frames
        traces = ((frames[:, 8 - m : 8], frames[:, 20 : 20 + m]), (None, None))
        state = WaveState(frames[0, 8:20], frames[1, 8:20])
        later = ((traces[0][0][1:], traces[0][1][1:]), (None, None))
        inside = small.run(c[8:20], state=state, traces=later, num_steps=29).final
        tolerance = 1e-12 if time_order == 2 else 5e-3  # the rim's own acceleration takes three steps of the trace
        assert np.abs(inside - frames[-1, 8:20]).max() < tolerance


# ---- gradients


def misfit(equation, c, gradient, data=0.0):
    sources = Sources(np.array([[0.3], [0.4]]), ricker(equation.dt * np.arange(60), 4.0)[None])
    heard = np.array([[0.7, 0.2], [0.6, 0.8]])
    run = equation.run(c, num_steps=60, sources=sources, receivers=heard, gradient=gradient, every=25)
    return jnp.sum((run.records - data) ** 2) + jnp.sum(run.frames**2)


@pytest.mark.slow
@pytest.mark.parametrize("walls", ["neumann", "absorbing"])
def test_gradients_agree_and_the_taylor_remainder_is_of_second_order(walls):
    layer = AbsorbingLayer(0.3) if walls == "absorbing" else None
    equation = WaveEquation((14, 15), max_sound_speed=1.2, walls=walls, order=4, layer=layer)
    c, direction = speeds((14, 15)), field((14, 15), 5)
    value, slope = jax.value_and_grad(lambda c: misfit(equation, c, "stored"))(c)
    again = jax.grad(lambda c: misfit(equation, c, "recomputed"))(c)
    np.testing.assert_allclose(again, slope, rtol=1e-12, atol=1e-14)
    at = jax.jit(lambda e: misfit(equation, c + e * direction, "stored"))
    remainders = [abs(at(e) - value - e * jnp.vdot(slope, direction)) for e in (2e-3, 1e-3)]
    assert np.log2(remainders[0] / remainders[1]) == pytest.approx(2, abs=0.1)


def test_the_gradient_on_the_way_back_is_the_same():
    equation = WaveEquation((14, 15), max_sound_speed=1.2, walls="neumann", order=4)
    c = speeds((14, 15))
    slope, back = (jax.grad(lambda c: misfit(equation, c, gradient))(c) for gradient in ("stored", "reversed"))  # noqa: B023
    np.testing.assert_allclose(back, slope, atol=1e-9 * np.abs(slope).max())


@pytest.mark.slow
def test_forward_and_backward_derivatives_are_transposes():
    equation = WaveEquation((14, 15), max_sound_speed=1.2, order=4, layer=AbsorbingLayer(0.3))
    heard, sources = (
        np.array([[0.7, 0.2], [0.6, 0.8]]),
        Sources(np.full((2, 1), 0.4), ricker(equation.dt * np.arange(60), 4.0)[None]),
    )
    F = lambda c: equation.run(c, num_steps=60, sources=sources, receivers=heard).records
    c, dc = speeds((14, 15)), field((14, 15), 6)
    out, pushed = jax.jvp(F, (c,), (dc,))
    d = field(out.shape, 7)
    pulled = jax.vjp(F, c)[1](d)[0]
    assert float(jnp.vdot(pushed, d)) == pytest.approx(float(jnp.vdot(dc, pulled)), rel=1e-10)


def test_memory_of_the_gradient_grows_like_the_root_of_the_steps():
    equation = WaveEquation((64, 64), max_sound_speed=1.0, walls="neumann", order=2)

    def temporary(steps, gradient):
        f = lambda c, u: jnp.sum(equation.run(c, u, num_steps=steps, gradient=gradient).final ** 2)
        u = jnp.ones((64, 64))
        analysis = jax.jit(jax.grad(f)).lower(u, u).compile().memory_analysis()
        return analysis.temp_size_in_bytes / u.nbytes  # in fields

    few, many = temporary(100, "recomputed"), temporary(1600, "recomputed")
    assert many / few < 5  # 4 is the root of 16
    assert temporary(1600, "stored") > 1600
    assert temporary(1600, "reversed") < 30


# ---- plain JAX


def test_batches_scans_and_snapshots():
    equation = WaveEquation((12, 13), max_sound_speed=1.0, order=4, walls=("neumann", "periodic"))
    c, u = speeds((3, 12, 13)), field((3, 12, 13))
    batch = jax.jit(jax.vmap(lambda c, u: equation.run(c, u, num_steps=21, every=5).frames))(c, u)
    assert batch.shape == (3, 5, 12, 13)
    for i in range(3):
        run = equation.run(c[i], u[i], num_steps=20)
        np.testing.assert_allclose(batch[i, -1], run.final, atol=1e-12)
        half = equation.run(c[i], u[i], num_steps=7)
        np.testing.assert_allclose(equation.run(c[i], state=half.state, num_steps=13).final, run.final, atol=1e-12)


@pytest.mark.slow
def test_batches_and_states_with_layers():
    equation = WaveEquation((12, 13), max_sound_speed=1.0, order=4, layer=AbsorbingLayer(0.3))
    c, u = speeds((3, 12, 13)), field((3, 12, 13))
    batch = jax.jit(jax.vmap(lambda c, u: equation.run(c, u, num_steps=20).final))(c, u)
    half = equation.run(c[0], u[0], num_steps=7)
    np.testing.assert_allclose(equation.run(c[0], state=half.state, num_steps=13).final, batch[0], atol=1e-12)


def test_single_precision_and_speeds_beyond_the_bound():
    equation = WaveEquation((16,), max_sound_speed=1.0, walls="periodic", order=2)
    c = jnp.ones(16, jnp.float32)
    assert equation.run(c, c, num_steps=3).final.dtype == jnp.float32
    assert np.isnan(jax.jit(lambda c: equation.run(c, c, num_steps=3).final)(1.5 * c)).all()
    with pytest.raises(ValueError, match="sound_speed: expected values in"):
        equation.run(1.5 * c, c, num_steps=3)


@pytest.mark.parametrize("order", [2, 4, 6, 8])
def test_the_mean_stays_in_single_precision(order):
    """Weights that sum to a rounding error instead of zero let the constant part grow like the square of the steps."""
    equation = WaveEquation((64,), domain_extent=0.25, max_sound_speed=1.0, walls="periodic", order=order)
    c, u = (x.astype(jnp.float32) for x in (speeds((64,)), speeds((64,), seed=2)))
    mean = lambda u: np.sum(np.asarray(u, float) / np.asarray(c, float) ** 2)
    assert mean(equation.run(c, u, num_steps=5000).final) == pytest.approx(mean(u), rel=5e-3)


def test_densities_that_are_not_positive():
    equation = WaveEquation((16,), max_sound_speed=1.0, walls="periodic", density="variable")
    c, rho = jnp.ones(16), jnp.ones(16).at[3].set(-1.0)
    assert np.isnan(jax.jit(lambda rho: equation.run(c, c, density=rho, num_steps=3).final)(rho)).all()
    with pytest.raises(ValueError, match=r"density: expected values in \(0, inf\], got -1 to 1; give positive numbers"):
        equation.run(c, c, density=rho, num_steps=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 3}, "order: expected one of"),
        ({"time_order": 3}, "time_order: expected 2 or 4"),
        ({"walls": "open"}, "walls: expected one of"),
        ({"walls": ("periodic", ("periodic", "neumann"))}, "walls: expected one of"),
        ({"walls": "absorbing"}, "layer: expected an AbsorbingLayer"),
        ({"walls": "absorbing", "layer": AbsorbingLayer(0.2), "time_order": 4}, "time_order: the fourth-order step"),
        ({"walls": "prescribed", "order": "spectral"}, "order: modes know neither"),
        ({"density": 2.0}, "density: expected 'constant' or 'variable'"),
        ({"obstacle": "soft"}, "obstacle: expected"),
        ({"cfl": 1.5}, "cfl: expected a fraction"),
        ({"max_sound_speed": 0.0}, "max_sound_speed: expected a finite number > 0"),
        ({"num_points": (4, 30), "order": 4}, "num_points: differences of order 4"),
    ],
)
def test_bad_equations_are_refused(arguments, message):
    given = {"num_points": (16, 16), "max_sound_speed": 1.0, "walls": "neumann", **arguments}
    with pytest.raises(ValueError, match=message):
        WaveEquation(given.pop("num_points"), **given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sound_speed": jnp.ones(4)}, r"sound_speed: expected a field on the grid \(16, 16\)"),
        ({"density": jnp.ones((16, 16))}, "density: expected None"),
        ({"num_steps": 0}, "num_steps: expected a positive integer"),
        ({"every": 9}, "every: expected an integer from 1 to 5"),
        ({"gradient": "fast"}, "gradient: expected one of"),
        ({"receivers": jnp.ones((3, 2))}, r"receivers: expected positions \(2, points\)"),
        ({"sources": Sources(np.ones((2, 1)), np.ones((1, 4)))}, "sources: expected positions"),
        ({"traces": (None, None)}, "traces: expected None"),
        ({"mask": jnp.ones((16, 16))}, "mask: expected None"),
        ({"state": WaveState(jnp.ones((16, 4)), jnp.ones((16, 16)))}, "state: expected that of a run"),
        ({"state": jnp.ones((16, 16))}, "state: expected that of a run"),
        ({"state": WaveState(*jnp.ones((2, 16, 16))), "initial": jnp.ones((16, 16))}, "state: expected it alone"),
    ],
)
def test_bad_runs_are_refused(arguments, message):
    equation = WaveEquation((16, 16), max_sound_speed=1.0, walls="neumann")
    given = {"sound_speed": jnp.ones((16, 16)), "num_steps": 5, **arguments}
    with pytest.raises(ValueError, match=message):
        equation.run(given.pop("sound_speed"), **given)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0.0,), "wavelength: "), ((1.0, 1.5), "reflection: expected a number below")]
)
def test_bad_layers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AbsorbingLayer(*arguments)


def test_wavelets_and_initial_waves():
    t = np.linspace(0, 2, 2001)
    w = ricker(t, 3.0)
    assert float(t[np.argmax(w)]) == pytest.approx(0.4)
    assert float(np.sum(w)) == pytest.approx(0, abs=1e-2)
    assert float(gaussian_pulse(0.4, 0.1)) == pytest.approx(1.0)
    grid = Grid((40, 40))
    ring = rings(grid, np.array([[0.5], [0.5]]), np.array([0.2]), np.array([0.05]), np.array([2.0]))
    r = np.hypot(*(grid.coordinates() - 0.5))
    np.testing.assert_allclose(ring, 2 * np.exp(-(((r - 0.2) / 0.05) ** 2)), atol=1e-12)
    with pytest.raises(ValueError, match="centres: expected"):
        rings(grid, np.ones((3, 1)), 0.1, 0.1, 1.0)
    with pytest.raises(ValueError, match="direction: expected"):
        plane_wave(grid, (0.0, 0.0), 1.0, 0.0, 0.1)
    assert module.WALLS[0] == "periodic"
