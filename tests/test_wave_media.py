"""Laws of acoustic media: one key is one medium, bounds, closed-form statistics, and mazes without islands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.optimize
import scipy.sparse
import scipy.special

from neuralops.grid import Grid
from neuralops.pde.waves import Checkerboard, Fault, Homogeneous, Inclusions, Layered, Lens, LogNormal, Maze

KEY = jax.random.key(3)
LAWS = {
    "homogeneous": Homogeneous((1.1, 1.9), density=(0.7, 2.0)),
    "layered": Layered((1.1, 1.9), density=(0.7, 2.0)),
    "rough": Layered((1.1, 1.9), density=(0.7, 2.0), axis=0, roughness=0.03, roughness_length=0.5),
    "fault": Fault((1.1, 1.9), density=(0.7, 2.0)),
    "log-normal": LogNormal(1.4, deviation=0.5, correlation_length=0.6, bounds=(1.1, 1.9), density=(0.7, 2.0)),
    "inclusions": Inclusions((1.3, 1.9), background=1.1, density=(1.1, 2.0), background_density=0.7, radius=0.1),
    "lens": Lens((1.6, 1.9), background=1.1, density=(1.5, 2.0), background_density=0.7),
    "sharp lens": Lens((1.6, 1.9), background=1.1, density=(1.5, 2.0), background_density=0.7, edge=0.0),
    "checkerboard": Checkerboard(1.9, background=1.1, density=2.0, background_density=0.7, num_cells=4),
    "shifted": Checkerboard(1.9, background=1.1, density=2.0, background_density=0.7, num_cells=4, shift=True),
    "maze": Maze(3, wall_thickness=0.4, speed=1.1, wall_speed=1.9, density=0.7, wall_density=2.0),
}
laws = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
PLANE = ("rough", "fault", "maze")  # laws that need two dimensions
FEW = Grid((14, 14), (1.0, 1.0), "neumann", "cell")


def draws(law, count, grid, seed=0):
    """So many media, `(count, 2, *grid)`."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda key: law.sample(key, grid)))(keys))


def within(sample, expected, errors=5.0):
    """Whether the mean of independent numbers is what it should be."""
    sample = np.asarray(sample, float)
    return abs(sample.mean() - expected) < errors * sample.std() / np.sqrt(sample.size)


@laws
def test_bounds_are_kept_and_reached(law, x64):
    assert law.speeds == (1.1, 1.9)
    c, rho = np.moveaxis(draws(law, 50, FEW), 1, 0)
    assert c.min() >= 1.1
    assert c.max() <= 1.9
    assert c.max() - c.min() > 0.75 * 0.8
    assert rho.min() >= 0.7
    assert rho.max() <= 2.0
    assert rho.max() - rho.min() > 0.75 * 1.3


def test_the_bounds_of_the_log_normal_are_three_deviations():
    law = LogNormal(2.0, deviation=0.1)
    np.testing.assert_allclose(np.log(np.array(law.speeds) / 2.0), [-0.3, 0.3], rtol=1e-12)
    assert hash(law) == hash(LogNormal(2.0, deviation=0.1))
    assert law == LogNormal(2.0, deviation=0.1)
    assert law != LogNormal(2.0, deviation=0.2)


@pytest.mark.parametrize(("name", "ndim"), [(name, ndim) for name in LAWS for ndim in (2 if name in PLANE else 1, 3)])
def test_one_key_is_one_medium_on_every_grid(name, ndim):
    law, extent = LAWS[name], (1.0, 2.0, 1.0)[:ndim]
    coarse = Grid((17, 33, 9)[:ndim], extent, "neumann")
    fine = Grid((33, 65, 17)[:ndim], extent, "neumann")
    a, b = (np.asarray(law.sample(KEY, grid)) for grid in (coarse, fine))
    assert a.shape == (2, *coarse.shape)
    np.testing.assert_allclose(a, b[(slice(None), *[slice(None, None, 2)] * ndim)], rtol=2e-5)


@laws
def test_float32_and_float64_are_one_medium(law, x64):
    single, double = (law.sample(KEY, FEW, dtype=dtype) for dtype in ("float32", "float64"))
    assert single.dtype == jnp.float32
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, rtol=1e-5)  # no point of this grid lies on a jump


@laws
def test_keys_differ_and_loops_and_compilers_do_not(law):
    many = draws(law, 4, FEW)
    one_by_one = [law.sample(key, FEW) for key in jax.random.split(jax.random.key(0), 4)]
    np.testing.assert_allclose(many, np.stack(one_by_one), rtol=1e-5)
    # Two boards without a shift are all that there are, so four keys differ in one pair at least.
    assert any(np.abs(many[0] - other).max() > 1e-3 for other in many[1:])


def test_log_normal_is_stationary_with_materns_correlation(x64):
    """Mean, variance and correlation of log c, at the walls as in the middle; r / length is at most 3."""
    count, length, smoothness, deviation = 4000, 0.1, 1.5, 0.3
    law = LogNormal(2.0, deviation=deviation, correlation_length=length, smoothness=smoothness, bounds=(1e-9, 1e9))
    grid = Grid(11, 1.0, "neumann")
    g = np.log(draws(law, count, grid)[:, 0] / 2.0) / deviation
    assert np.abs(g.mean(0)).max() < 5 / np.sqrt(count)
    assert within((g**2).mean(1), 1.0)
    r = np.abs(np.subtract.outer(grid.points(0), grid.points(0)))
    s = np.sqrt(2 * smoothness) * np.maximum(r, 1e-9) / length
    matern = 2 ** (1 - smoothness) / scipy.special.gamma(smoothness) * s**smoothness * scipy.special.kv(smoothness, s)
    # 0.003: the series ends where 0.2 % of Matern's variance is left
    assert np.abs(g.T @ g / count - matern).max() < 0.003 + 5 * np.sqrt(2 / count)


@pytest.mark.parametrize("boundary", [("neumann", "periodic"), ("dirichlet", "neumann")])
def test_log_normal_has_its_variance_everywhere(boundary):
    law = LogNormal(deviation=0.3, correlation_length=0.5, smoothness=2.0, bounds=(1e-9, 1e9))
    count, grid = 4000, Grid((4, 3), (1.0, 1.5), boundary)
    g = np.log(draws(law, count, grid)[:, 0]) / 0.3
    assert np.abs(g.var(0) - 1).max() < 5 * np.sqrt(2 / count)
    assert within((g**2).mean((1, 2)), 1.0)


def test_log_normal_is_periodic_where_the_grid_is(x64):
    law = LogNormal(deviation=0.3, correlation_length=0.5, bounds=(1e-9, 1e9))
    g = np.log(draws(law, 4000, Grid((8, 2), 1.0, ("periodic", "neumann")))[:, 0]) / 0.3
    near, far = np.mean(g[:, 0] * g[:, 7]), np.mean(g[:, 0] * g[:, 1])
    assert abs(near - far) < 5 * 2 / np.sqrt(g[:, 0].size)
    assert near > 0.5


@pytest.mark.parametrize("number", [1, 2, 5, (3, 6)])
def test_layers_are_as_many_and_as_thick_as_stated(number):
    n = 400
    c = draws(Layered(num_layers=number, min_thickness=0.05), 200, Grid(n, 1.0, "neumann", "cell"))[:, 0]
    counts, thinnest = [], n
    for profile in c:
        inner = np.flatnonzero(np.diff(profile))
        counts.append(inner.size + 1)
        thinnest = min(thinnest, np.diff([-1, *inner, n - 1]).min())
    low, high = number if isinstance(number, tuple) else (number, number)
    assert set(counts) == set(range(low, high + 1))
    assert within(counts, (low + high) / 2) or low == high
    assert thinnest >= 0.05 * n - 1
    assert thinnest < 0.06 * n or high == 1


def test_interfaces_are_uniform(x64):
    """Without a least thickness both points lie in one layer with probability (1 - r)^(num_layers - 1)."""
    grid = Grid(10, 1.0, "neumann", "cell")
    c = draws(Layered(num_layers=4), 4000, grid)[:, 0]
    for i, j in ((0, 2), (3, 7), (5, 9)):
        assert within(c[:, i] == c[:, j], (1 - (j - i) / 10) ** 3)


def test_roughness_is_the_deviation_of_an_interface():
    """Of two columns four correlation lengths apart, the difference has the variance 2 roughness^2 (1 - rho)."""
    law = Layered(num_layers=2, min_thickness=0.4, roughness=0.03, roughness_length=0.25)
    c = draws(law, 1000, Grid((2, 200), 1.0, "neumann", ("node", "cell")))[:, 0]
    depth = (np.argmax(np.diff(c, axis=-1) != 0, axis=-1) + 1) / 200
    s = np.sqrt(3) * 4
    expected = 2 * 0.03**2 * (1 - (1 + s) * np.exp(-s))
    assert within((depth[:, 0] - depth[:, 1]) ** 2, expected)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_fault_is_a_plane_along_which_layers_slip(ndim):
    """Layers slip 0.2 at 30 degrees, five points of 0.02; what slipped is parted from what did not by a plane."""
    grid = Grid((20, 50) if ndim == 2 else (12, 12, 50), 1.0, "neumann", "cell")
    options = {"num_layers": 12, "min_thickness": 0.04, "dip": 30.0}
    whole, cut = (np.asarray(Fault(slip=slip, **options).sample(KEY, grid)[0]) for slip in (0.0, 0.2))
    profile = whole.reshape(-1, 50)[0]
    assert (whole == profile).all()
    moved = np.concatenate([np.full(5, profile[0]), profile[:-5]])
    assert ((cut == profile) | (cut == moved)).all()
    x = grid.coordinates()
    above, below = x[:, (cut == moved) & (moved != profile)], x[:, (cut == profile) & (moved != profile)]
    assert min(above.shape[1], below.shape[1]) > 0.1 * x[0].size
    # A plane heading . x - cos(30) z > level with the widest margin, by linear programming; |heading| = sin(30).
    row = lambda points, sign: np.column_stack(
        [*(-sign * points[:-1]), np.full(points.shape[1], sign), np.ones(points.shape[1])]
    )
    height = np.cos(np.pi / 6) * np.concatenate([-above[-1], below[-1]])
    widest = scipy.optimize.linprog(
        [0.0] * ndim + [-1.0],
        np.concatenate([row(above, 1), row(below, -1)]),
        height,
        bounds=[(None, None)] * ndim + [(0, None)],
    )
    assert widest.success
    np.testing.assert_allclose(np.linalg.norm(widest.x[: ndim - 1]), 0.5, rtol=0.1)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_inclusions_cover_as_much_as_they_should(ndim):
    """On a periodic box a point is free of n independent ellipses of volume V with probability (1 - V)^n."""
    law = Inclusions(2.0, num_inclusions=3, radius=0.2, aspect=2.0)
    grid = Grid((32, 20, 8)[:ndim], 1.0, "periodic")
    covered = (draws(law, 300, grid)[:, 0] == 2.0).reshape(300, -1).mean(1)
    volume = (2 * 0.2, np.pi * 0.2**2, 4 / 3 * np.pi * 0.2**3)[ndim - 1] * 2.0
    assert within(covered, 1 - (1 - volume) ** 3)


def test_the_number_of_inclusions_is_random():
    law = Inclusions((1.5, 2.5), num_inclusions=(0, 3), radius=(0.05, 0.1))
    c = draws(law, 100, Grid((32, 32), 1.0, "neumann"))[:, 0]
    counts = np.array([np.unique(field).size - 1 for field in c])
    assert set(counts) == {0, 1, 2, 3}


def test_an_ellipse_has_its_axes(x64):
    """Second moments of a filled ellipse with semi-axes 0.1 and 0.3 have the eigenvalues a^2 / 4."""
    law = Inclusions(2.0, num_inclusions=1, radius=0.1, aspect=3.0)
    grid = Grid((128, 128), 1.0, "periodic")
    inside = np.asarray(law.sample(KEY, grid)[0]) == 2.0
    turn = np.exp(2j * np.pi * grid.coordinates()[:, inside])
    points = np.angle(turn * np.conj(turn.mean(1, keepdims=True))) / (2 * np.pi)  # about the centre, over the ends
    moments = np.linalg.eigvalsh(np.cov(points))
    np.testing.assert_allclose(np.sqrt(moments) * 2, [0.1, 0.3], rtol=0.02)


@pytest.mark.parametrize("edge", [0.0, 0.4, 1.0])
def test_the_profile_of_a_lens(edge, x64):
    law = Lens(0.5, background=1.0, density=3.0, radius=0.23, centre=0.5, edge=edge)
    grid = Grid((21, 20), (1.0, 1.0), "neumann", "cell")
    r = np.hypot(*(grid.coordinates() - 0.5))
    s = np.clip((0.23 - r) / (edge * 0.23), 0, 1) if edge else 1.0 * (r < 0.23)
    share = np.polyval([6, -15, 10, 0, 0, 0], s)
    c, rho = law.sample(KEY, grid)
    np.testing.assert_allclose(c, 1 - share / 2, atol=1e-12)
    np.testing.assert_allclose(rho, 1 + 2 * share, atol=1e-12)


def test_the_place_of_a_lens():
    """The middle of [0, 1] lies within 0.1 of a centre that is uniform in 0.3 to 0.7 half of the time."""
    inside = draws(Lens(2.0, radius=0.1, centre=(0.3, 0.7), edge=0.0), 2000, Grid(1, 1.0, "neumann", "cell"))[:, 0, 0]
    assert within(inside == 2.0, 0.5)
    corners = np.asarray(Lens(2.0, centre=0.0, edge=0.0).sample(KEY, Grid((16, 16), 1.0, "periodic"))[0])
    assert corners[-1, -1] == corners[0, 0] == corners[-1, 0] == 2.0  # wrapped around
    assert corners[8, 8] == 1.0


def test_a_checkerboard_is_one():
    law = Checkerboard(2.0, density=5.0, num_cells=(3, 4))
    c, rho = np.moveaxis(draws(law, 40, Grid((12, 17), (3.0, 1.0), "neumann", ("cell", "node"))), 1, 0)
    i, j = np.arange(12) // 4, np.minimum(np.arange(17) // 4, 3)
    board = 1.0 + (i[:, None] + j) % 2
    assert {(field == board).all() + 2 * (field == 3 - board).all() for field in c} == {1, 2}
    np.testing.assert_array_equal(rho, 4 * c - 3)


def test_a_shifted_checkerboard_has_either_material_half_of_the_time():
    c = draws(Checkerboard(2.0, num_cells=2, shift=True), 1000, Grid((4, 4), 1.0, "periodic"))[:, 0]
    assert all(within(c[:, i, j] == 2.0, 0.5) for i, j in ((0, 0), (1, 3), (2, 2)))
    assert within(c[:, 0, 0] == c[:, 1, 0], 0.5)  # a quarter of a period apart, a jump lies between half of the time
    assert (c[:, 0] == 3 - c[:, 2]).all()


@pytest.mark.parametrize("outer_walls", [True, False])
@pytest.mark.parametrize("cells", [(4, 4), (3, 5), (3, 2, 3)])
def test_a_maze_is_a_tree(cells, outer_walls):
    """All of it can be reached, and it has as many passages as a tree: N - 1. Walls are as thick as corridors here."""
    lattice = [2 * n + 1 if outer_walls else 2 * n - 1 for n in cells]
    grid = Grid([3 * n for n in lattice], 1.0, "dirichlet", "cell")
    fields = draws(Maze(cells, wall_thickness=0.5, outer_walls=outer_walls), 20, grid)
    number = np.prod(cells)
    for density in fields[:, 1]:
        is_open = density == 1.0
        assert scipy.ndimage.label(is_open)[1] == 1
        assert is_open.sum() == (2 * number - 1) * 3 ** len(cells)
        rooms = is_open[tuple(slice(1 if not outer_walls else 4, None, 6) for _ in cells)]
        assert rooms.all()
        assert rooms.size == number
    assert len({density.tobytes() for density in fields[:, 1]}) == 20
    assert (fields[:, 0] == 1.0).all()


def test_walls_and_corridors_have_their_widths():
    """Three cells and four walls of 0.2 of the pitch on a side of 3.2: pitch 1, walls 0.2."""
    grid = Grid((320, 320), 3.2, "neumann", "cell")
    density = np.asarray(Maze(3, wall_thickness=0.2).sample(KEY, grid)[1])
    for line in (density[:10], density[:, :10].T, density[-10:]):
        assert (line == 1000.0).all()
    pillars = grid.points(0) % 1 < 0.2
    assert (density[np.ix_(pillars, pillars)] == 1000.0).all()
    assert (density[np.ix_(~pillars, ~pillars)] == 1.0).all()


def test_a_periodic_maze_is_a_tree_that_wraps():
    n, shape = 4, (8, 9)
    grid = Grid(shape, 1.0, ("periodic", "dirichlet"), "cell")
    fields = draws(Maze(n, wall_thickness=0.5), 20, grid)[:, 1] == 1.0
    index = np.arange(72).reshape(shape)
    assert any(field[0].any() for field in fields)  # a passage through the end of the box
    for field in fields:
        pairs = [(index, np.roll(index, -1, 0), field & np.roll(field, -1, 0))]
        pairs.append((index[:, :-1], index[:, 1:], field[:, :-1] & field[:, 1:]))
        start, stop = (np.concatenate([pair[i][pair[2]] for pair in pairs]) for i in (0, 1))
        graph = scipy.sparse.coo_array((np.ones(start.size), (start, stop)), (72, 72))
        components, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
        assert np.unique(label[field.ravel()]).size == 1
        assert field.sum() == 2 * n * n - 1
        assert components == 72 - field.sum() + 1


def test_passages_of_a_maze_are_alike_in_both_directions():
    lattice = draws(Maze(4, wall_thickness=0.5), 300, Grid((9, 9), 1.0, "neumann", "cell"))[:, 1] == 1.0
    along, across = lattice[:, 2:-1:2, 1::2], lattice[:, 1::2, 2:-1:2]
    assert within(along.mean((1, 2)), 15 / 24)
    assert within(across.mean((1, 2)), 15 / 24)


SQUARE, LINE = Grid((16, 16), 1.0, "neumann"), Grid(16, 1.0, "neumann")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Homogeneous(0.0), "speed: expected a finite number > 0"),
        (lambda: Homogeneous((2.0, 1.0)), "speed: .*swap"),
        (lambda: Homogeneous((1.0, 2.0, 3.0)), "speed: .*pair"),
        (lambda: Homogeneous("fast"), "speed: expected a finite number"),
        (lambda: Homogeneous(density=-1.0), "density"),
        (lambda: LogNormal(deviation=-0.1), "deviation"),
        (lambda: LogNormal(smoothness=0), "smoothness"),
        (lambda: LogNormal(3.0, bounds=(1.0, 2.0)), "bounds: .*median"),
        (lambda: LogNormal(correlation_length=1e-6).sample(KEY, SQUARE), "correlation_length: .*modes.*longer"),
        (lambda: Layered(num_layers=0), "num_layers: expected a positive integer"),
        (lambda: Layered(num_layers=(4, 3)), "num_layers: .*swap"),
        (lambda: Layered(num_layers=(1, 2, 3)), "num_layers: .*pair"),
        (lambda: Layered(axis=0.5), "axis: expected a whole number"),
        (lambda: Layered(axis=2).sample(KEY, SQUARE), "axis: expected one of the grid's 2 axes"),
        (lambda: Layered(min_thickness=0.2).sample(KEY, LINE), "min_thickness: 8 layers.*0.125"),
        (lambda: Layered(roughness=0.1).sample(KEY, LINE), "roughness: .*one dimension"),
        (lambda: Fault().sample(KEY, LINE), "grid: a fault needs two or three dimensions"),
        (lambda: Fault(dip=100.0), "dip: expected at most 90"),
        (lambda: Fault(dip=(10.0, 100.0)), "dip: expected at most 90"),
        (lambda: Fault(axis=-3).sample(KEY, SQUARE), "axis"),
        (lambda: Inclusions(aspect=0.5), "aspect: expected a finite number >= 1"),
        (lambda: Inclusions(num_inclusions=-1), "num_inclusions"),
        (lambda: Lens(edge=1.5), "edge"),
        (lambda: Lens(centre=(0.5, 1.5)), "centre"),
        (lambda: Checkerboard(shift=1), "shift: expected True or False"),
        (lambda: Checkerboard(num_cells=3).sample(KEY, Grid((12, 12))), "num_cells: expected even counts"),
        (lambda: Checkerboard(num_cells=(3, 3, 3)).sample(KEY, SQUARE), "num_cells: expected one value or one per"),
        (lambda: Maze(1), "num_cells: expected an integer of at least 2"),
        (lambda: Maze(wall_thickness=1.0), "wall_thickness: .*below 1"),
        (lambda: Maze(4).sample(KEY, LINE), "grid: a maze needs two or three dimensions"),
        (lambda: Maze(4, wall_thickness=0.1).sample(KEY, SQUARE), "grid: expected a point in every wall"),
        (lambda: Lens().sample(KEY, SQUARE, dtype="int32"), "dtype: expected a real floating type"),
        (lambda: Lens().sample(KEY, SQUARE, dtype="float64"), "dtype: float64 is switched off"),
    ],
)
def test_refusals(build, words):
    with pytest.raises(ValueError, match=words):
        build()
