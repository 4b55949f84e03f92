"""The diffusion operator against a matrix assembled face by face in plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from neuralops.grid import Grid
from neuralops.solvers import Diffusion

WORDS = ["periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet")]
KINDS = list(itertools.product(WORDS, ["node", "cell"]))


def assemble(grid, a, mask=None, mean="harmonic", widths=None):
    """The matrix from the finite-volume balance: one loop over points, one over the faces of each.

    Everything is in units of one cell: a face of relative area s conducts s * coefficient / h^2; between cells of
    other widths h * distance takes the place of h^2.
    """
    a, shape, d = np.asarray(a), grid.shape, grid.ndim
    mask = np.ones(shape, bool) if mask is None else mask
    number = np.arange(a.size).reshape(shape)
    matrix = sp.lil_matrix((a.size, a.size))

    def extent(axis, i):  # of the control volume of point i, over h
        if widths is not None and widths[axis] is not None:
            return widths[axis][i] / grid.spacing[axis]
        return 0.5 if half(axis, i) else 1.0

    def half(axis, i):  # does point i own half a control volume along this axis?
        low, high = grid.axes[axis].ends
        ends = (low == "neumann" and i == 0) or (high == "neumann" and i == shape[axis] - 1)
        return grid.centering[axis] == "node" and ends

    for index in np.ndindex(*shape):
        if not mask[index]:
            continue
        row = number[index]
        for axis, step in itertools.product(range(d), (-1, 1)):
            area = np.prod([extent(other, index[other]) for other in range(d) if other != axis])
            there = list(index)
            there[axis] += step
            end = grid.axes[axis].ends[0 if step < 0 else 1]
            h2 = grid.spacing[axis] ** 2
            if not 0 <= there[axis] < shape[axis]:
                if end == "dirichlet":
                    distance = extent(axis, index[axis]) / 2 if grid.centering[axis] == "cell" else 1.0
                    matrix[row, row] += area * a[index] / distance / h2
                    continue
                if end == "neumann":
                    continue
                there[axis] %= shape[axis]
            there = tuple(there)
            if not mask[there]:
                continue
            p, q = a[index], a[there]
            s, t = 0.5, 0.5  # from either point to the face
            if grid.centering[axis] == "cell":
                s, t = extent(axis, index[axis]) / 2, extent(axis, there[axis]) / 2
            inside = (s + t) / (s / p + t / q) if mean == "harmonic" else (t * p + s * q) / (s + t)
            c = area * inside / (s + t) / h2
            matrix[row, row] += c
            matrix[row, number[there]] -= c
    return matrix.toarray()


def coefficient(shape, seed=0):
    return np.exp(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("mean", ["harmonic", "arithmetic"])
@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_equals_assembled_matrix_in_1d(x64, boundary, centering, mean):
    for n in (2, 5):
        grid = Grid(n, domain_extent=1.3, boundary=(boundary,), centering=centering)
        a = coefficient(grid.shape)
        matrix = jax.jit(lambda a, grid=grid: Diffusion.from_coefficient(grid, a, mean=mean).as_matrix())(a)
        np.testing.assert_allclose(matrix, assemble(grid, a, mean=mean), rtol=1e-13, atol=1e-12)


GRIDS = [
    Grid((5, 4), (1.0, 2.0), (("dirichlet", "neumann"), "periodic"), ("cell", "node")),
    Grid((4, 5), (1.0, 0.7), ("neumann", "neumann"), ("node", "cell")),
    Grid((4, 5), (1.0, 0.7), ("neumann", ("neumann", "dirichlet")), "node"),
    Grid((3, 4), 1.0, "dirichlet", ("node", "cell")),
    Grid((3, 4, 2), (1.0, 2.0, 3.0), ("neumann", "dirichlet", "periodic"), ("node", "cell", "node")),
    Grid((3, 2, 4), 1.0, ("neumann", ("neumann", "dirichlet"), "neumann"), "node"),
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_equals_assembled_matrix_with_mask(x64, grid, masked):
    a = coefficient(grid.shape)
    mask = np.random.default_rng(1).random(grid.shape) < 0.7 if masked else None
    make = jax.jit(Diffusion.from_coefficient, static_argnums=0)
    A = make(grid, a if mask is None else np.where(mask, a, np.nan), mask=mask)
    matrix = np.asarray(jax.jit(A.as_matrix)())
    np.testing.assert_allclose(matrix, assemble(grid, a, mask), rtol=1e-13, atol=1e-12)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(A.diagonal().ravel(), np.diag(matrix), rtol=1e-13)
    if masked:
        assert np.all(matrix[~mask.ravel()] == 0)
        f = np.ones(grid.shape)
        np.testing.assert_array_equal(np.asarray(A.load(f))[~mask], 0)


def stretched(grid, axes, seed=4):
    """Random cell widths on some axes."""
    rng = np.random.default_rng(seed)
    raw = [rng.uniform(0.3, 1, n) for n in grid.shape]
    return tuple(
        w * L / w.sum() if a in axes else None for a, (w, L) in enumerate(zip(raw, grid.domain_extent, strict=True))
    )


@pytest.mark.parametrize("mean", ["harmonic", "arithmetic"])
@pytest.mark.parametrize("boundary", WORDS, ids=str)
def test_widths_equal_the_assembled_matrix(x64, boundary, mean):
    grid = Grid((4, 3, 3), (1.3, 2.0, 0.7), (boundary, "dirichlet", "neumann"), ("cell", "cell", "node"))
    widths = stretched(grid, (0, 1))
    a, mask = coefficient(grid.shape), np.random.default_rng(1).random(grid.shape) < 0.8
    A = Diffusion.from_coefficient(grid, np.where(mask, a, np.nan), mask=mask, mean=mean, widths=widths)
    matrix = np.asarray(jax.jit(A.as_matrix)())
    np.testing.assert_allclose(matrix, assemble(grid, a, mask, mean, widths), rtol=1e-13, atol=1e-11)
    np.testing.assert_array_equal(matrix, matrix.T)
    volumes = np.einsum("i,j,k->ijk", *(1 if w is None else w for w in (*widths[:2], [0.175, 0.35, 0.175])))
    np.testing.assert_allclose(A.load(np.ones(grid.shape)), mask * volumes / grid.cell_volume, rtol=1e-13)


@pytest.mark.parametrize("boundary", WORDS, ids=str)
def test_widths_without_faces_mean_the_unit_coefficient(x64, boundary):
    grid = Grid((5, 3), (1.3, 2.0), (boundary, "neumann"), "cell")
    widths = stretched(grid, (0, 1))
    unit, explicit = (
        Diffusion(grid, widths=widths),
        Diffusion.from_coefficient(grid, np.ones(grid.shape), widths=widths),
    )
    assert jax.tree.leaves(unit) == []
    even = Diffusion(grid, widths=[np.full(5, 0.26), None])
    found = [np.asarray(jax.jit(A.as_matrix)()) for A in (unit, explicit, even, Diffusion(grid))]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-14)
    np.testing.assert_allclose(found[2], found[3], rtol=1e-13)
    assert isinstance(hash(even.widths), int)
    assert Diffusion(grid, widths=(None, None)).widths is None


def test_smoothly_stretched_grids_are_of_second_order(x64):
    """-(a u')' = f with a = 1 + x^2 and u = sin(pi x) on cells that cluster at both walls."""
    errors = []
    for n in (32, 64, 128):
        edges = (1 - np.cos(np.pi * np.linspace(0, 1, n + 1))) / 2
        edges = 0.7 * edges + 0.3 * np.linspace(0, 1, n + 1)
        w = np.diff(edges)
        x = np.cumsum(w) - w / 2
        f = np.pi**2 * (1 + x**2) * np.sin(np.pi * x) - 2 * np.pi * x * np.cos(np.pi * x)

        grid = Grid(n, boundary="dirichlet", centering="cell")

        @jax.jit
        def system(a, f, grid=grid, w=w):
            A = Diffusion.from_coefficient(grid, a, widths=[w])
            return A.as_matrix(), A.load(f)

        u = np.linalg.solve(*system(1 + x**2, f))
        errors.append(np.abs(u - np.sin(np.pi * x)).max())
    assert np.all(np.log2(np.divide(errors[:-1], errors[1:])) > 1.9)


@pytest.mark.parametrize(("boundary", "centering"), KINDS)
def test_no_faces_means_the_unit_coefficient(x64, boundary, centering):
    grid = Grid((4, 3), (1.0, 0.6), (boundary, "neumann"), (centering, "node"))
    unit, explicit = Diffusion(grid), Diffusion.from_coefficient(grid, jnp.ones(grid.shape))
    assert jax.tree.leaves(unit) == []
    for name in ("as_matrix", "diagonal"):
        np.testing.assert_allclose(jax.jit(getattr(unit, name))(), jax.jit(getattr(explicit, name))(), rtol=1e-14)
    u = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    assert unit(u).dtype == jnp.float32


def test_single_points(x64):
    for boundary, expected in (("periodic", 0.0), ("neumann", 0.0), ("dirichlet", 4.0)):
        A = Diffusion(Grid(1, boundary=boundary, centering="cell"))
        np.testing.assert_allclose(A.as_matrix(), [[expected]])
        np.testing.assert_allclose(A.diagonal(), [expected])


def test_load_is_the_source_times_the_control_volumes(x64):
    grid = Grid((5, 4), (2.0, 3.0), ("neumann", "dirichlet"), "node")
    f = np.random.default_rng(0).normal(size=grid.shape)
    expected = f * grid.weights() / grid.cell_volume
    np.testing.assert_allclose(Diffusion(grid).load(f), expected, rtol=1e-14)


@pytest.mark.parametrize("grid", [GRIDS[1], Grid((4, 6), boundary="periodic"), GRIDS[3]], ids=str)
def test_range_and_gauge_are_transposes_and_change_nothing_else(x64, grid):
    a, mask = coefficient(grid.shape), np.ones(grid.shape, bool)
    mask[0, :2] = False
    A = Diffusion.from_coefficient(grid, a, mask=mask)
    n, basis = a.size, jnp.eye(a.size).reshape(a.size, *grid.shape)
    P, Q = (
        np.asarray(jax.jit(jax.vmap(g))(basis)).reshape(n, n).T
        for g in (A.null_space().to_range, A.null_space().fix_gauge)
    )
    matrix = np.asarray(jax.jit(A.as_matrix)())
    scale = np.abs(matrix).max()
    np.testing.assert_allclose(P, Q.T, atol=1e-14)
    np.testing.assert_allclose(P @ P, P, atol=1e-14)
    np.testing.assert_allclose(P @ matrix, matrix, atol=1e-13 * scale)
    np.testing.assert_allclose(matrix @ Q, matrix, atol=1e-13 * scale)
    assert np.linalg.matrix_rank(matrix, tol=1e-8 * scale) == np.linalg.matrix_rank(P)


def test_differentiable_in_the_coefficient(x64):
    grid = Grid((4, 5), boundary=("dirichlet", "neumann"), centering=("cell", "node"))
    a, u = coefficient(grid.shape), np.random.default_rng(2).normal(size=grid.shape)
    mask = np.ones(grid.shape, bool)
    mask[2, 2] = False

    @jax.jit
    def energy(a):
        return jnp.vdot(u, Diffusion.from_coefficient(grid, a, mask=mask)(u))

    gradient, direction = jax.grad(energy)(jnp.asarray(a)), np.random.default_rng(3).normal(size=grid.shape)
    step = 1e-5
    difference = (energy(a + step * direction) - energy(a - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(gradient, direction), difference, rtol=1e-7)
    assert gradient[2, 2] == 0
    zero = jax.grad(lambda a: jnp.sum(Diffusion.from_coefficient(grid, a)(u)))(jnp.zeros(grid.shape))
    assert np.all(np.isfinite(zero))  # the harmonic mean of two zeros


def test_leading_axes_and_transformations(getkey):
    grid = Grid((6, 5), boundary=("periodic", "dirichlet"))
    A = Diffusion.from_coefficient(grid, jnp.asarray(coefficient(grid.shape), jnp.float32))
    u = jax.random.normal(getkey(), (3, 2, *grid.shape))
    one_by_one = jnp.stack([jnp.stack([A(v) for v in row]) for row in u])
    np.testing.assert_allclose(A(u), one_by_one, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(A)(u), one_by_one, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(A)(u), one_by_one, rtol=1e-5)
    last, _ = jax.lax.scan(lambda v, _: (1e-3 * A(v), None), u, length=2)
    np.testing.assert_allclose(last, 1e-6 * A(A(u)), rtol=1e-4, atol=1e-6)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(A))
    assert A.envelope.refinement == "grid-locked"


GRID = Grid((4, 5), boundary="dirichlet")
CELLS = Grid((4, 5), boundary="dirichlet", centering="cell")
ONES = np.ones(GRID.shape)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Diffusion((4, 5)), "grid: expected a Grid"),
        (
            lambda: Diffusion(GRID, [ONES, ONES]),
            r"faces: expected one array per axis with shapes \(\(5, 5\), \(4, 6\)\)",
        ),
        (lambda: Diffusion(GRID, [np.ones((5, 5), int), np.ones((4, 6), int)]), "faces: expected a real floating"),
        (lambda: Diffusion.from_coefficient(GRID, np.ones((5, 4))), r"a: expected shape \(4, 5\)"),
        (lambda: Diffusion.from_coefficient(GRID, ONES.astype(int)), "a: expected a real floating"),
        (lambda: Diffusion.from_coefficient(GRID, ONES, mean="geometric"), "mean: expected 'harmonic'"),
        (lambda: Diffusion.from_coefficient(GRID, ONES, mask=ONES), "mask: expected booleans"),
        (lambda: Diffusion.from_coefficient(GRID, ONES, mask=np.ones((2, 2), bool)), "mask: expected shape"),
        (lambda: Diffusion.from_coefficient(None, ONES), "grid: expected a Grid"),
        (lambda: Diffusion(GRID, widths=([0.25] * 4, None)), "widths: expected None on axis 0, whose points are nodes"),
        (lambda: Diffusion(CELLS, widths=[0.25] * 4), r"widths: expected one entry per axis \(2\)"),
        (lambda: Diffusion(CELLS, widths=np.ones(4)), "widths: expected one entry per axis"),
        (lambda: Diffusion(CELLS, widths=(None, [0.25] * 4)), "widths: expected 5 positive finite widths on axis 1"),
        (lambda: Diffusion(CELLS, widths=([0.5, 0.5, 0.5, -0.5], None)), "widths: expected 4 positive finite"),
        (lambda: Diffusion(CELLS, widths=([0.5] * 4, None)), "widths: expected a sum of 1.0, the domain_extent"),
        (
            lambda: jax.jit(lambda w: Diffusion(CELLS, widths=(w, None))(ONES))(jnp.full(4, 0.25)),
            "widths: expected 4 plain numbers on axis 0",
        ),
        (lambda: Diffusion(GRID)(np.ones((5, 5))), r"u: Diffusion is locked to the grid \(4, 5\)"),
        (lambda: Diffusion(GRID)(np.ones((4, 5), int)), "u: expected a real floating"),
        (lambda: Diffusion(GRID).load(np.ones(4)), "u: Diffusion is locked"),
    ],
)
def test_bad_input(build, match):
    with pytest.raises(ValueError, match=match):
        build()
