"""Null spaces against dense ranks, SciPy's component labels and pseudo-inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage as ndi

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, NullSpace, Result, solve
from neuralops.solvers.algebra.null_space import floating_constants

WALLS = Grid((9, 8), (1.0, 1.2), "neumann", "node")
HELD = Grid((9, 8), (1.0, 1.2), (("dirichlet", "neumann"), "neumann"), "cell")
TORUS = Grid((9, 8), (1.0, 1.2), ("periodic", "neumann"), "cell")


def porous(shape, seed=0, share=0.6):
    return np.random.default_rng(seed).uniform(size=shape) < share


def masked(grid, mask):
    a = np.exp(np.random.default_rng(3).normal(size=grid.shape))
    return Diffusion.from_coefficient(grid, jnp.asarray(a), mask=mask)


@pytest.mark.parametrize("grid", [WALLS, HELD, TORUS], ids=["walls", "held", "torus"])
def test_projections_match_the_dense_matrix(x64, grid):
    @jax.jit
    def parts(mask):
        A = masked(grid, mask)
        null_space, basis = A.null_space(), jnp.eye(mask.size).reshape(-1, *grid.shape)
        return A.as_matrix(), jax.vmap(null_space.to_range)(basis), jax.vmap(null_space.fix_gauge)(basis)

    for seed in range(3):
        matrix, P, Q = (np.asarray(v).reshape(matrix_size(grid), -1).T for v in parts(porous(grid.shape, seed)))
        scale = np.abs(matrix).max()
        rank = np.linalg.matrix_rank(matrix, tol=1e-10 * scale)
        assert rank < matrix_size(grid)
        assert np.linalg.matrix_rank(P, tol=1e-10) == rank
        np.testing.assert_allclose(P, Q.T, atol=1e-14)
        np.testing.assert_allclose(P @ P, P, atol=1e-14)
        np.testing.assert_allclose(P @ matrix, matrix, atol=1e-13 * scale)
        np.testing.assert_allclose(matrix @ Q, matrix, atol=1e-13 * scale)


def matrix_size(grid):
    return int(np.prod(grid.shape))


def spiral(n):
    """Rings with one gap each, on alternating sides: one long way from the outside to the middle."""
    mask = np.ones((n, n), bool)
    for k in range(1, n // 4):
        low, high = 2 * k - 1, n - 2 * k
        for line in (np.s_[low, low : high + 1], np.s_[high, low : high + 1], np.s_[low : high + 1, low]):
            mask[line] = False
        mask[low : high + 1, high] = False
        mask[low if k % 2 else high, (low + high) // 2] = True
    return mask


def test_components_are_those_of_scipy():
    shape = (96, 96)
    grid = Grid(shape, boundary="neumann", centering="cell")

    @jax.jit
    def components(mask):
        A = Diffusion.from_coefficient(grid, jnp.ones(shape), mask=mask)
        found = floating_constants(A.faces, [False, False], jnp.ones(shape))
        return found.labels, found.connected

    fields = [porous(shape, 1), spiral(96), spiral(96)[::-1, ::-1], porous(shape, 2, 0.4), np.ones(shape, bool)]
    for mask in fields:
        labels, connected = (np.asarray(v) for v in components(mask))
        expected, count = ndi.label(mask)
        pairs = np.unique(np.stack([labels[mask], expected[mask]]), axis=1)
        assert pairs.shape[1] == count  # one to one
        assert bool(connected) == bool(mask.all())


def test_islands_compatible_only_globally_are_reported_one_by_one(x64):
    """Islands of one and of two cells; the source sums to zero over all of the fluid, not on each."""
    mask = np.ones(HELD.shape, bool)
    mask[:, 3] = mask[:, 5] = mask[:, 7] = False
    mask[3:, 4] = mask[:2, 4] = False  # island of one cell at (2, 4)
    mask[2:, 6] = False  # island of two cells
    grid = Grid(HELD.shape, HELD.domain_extent, "neumann", "cell")
    rng = np.random.default_rng(0)
    f = np.where(mask, rng.normal(size=mask.shape), 0)
    f = np.where(mask, f - f.sum() / mask.sum(), 0)

    @jax.jit
    def run(b):
        A = masked(grid, mask)  # A.load(b) is b on cells, but for the island of one, which it takes for an obstacle
        null_space = A.null_space()
        again = solve(A, b, CG(1e-10), null_space=null_space)
        return solve(A, b, CG(1e-10)), again, null_space.incompatibility(b), A.as_matrix(), b

    s, again, report, matrix, b = (jax.tree.map(np.asarray, v) for v in run(f))
    assert abs(b.sum()) < 1e-12
    assert int(s.result) == Result.incompatible
    np.testing.assert_array_equal(s.value, again.value)
    labels, count = ndi.label(mask)
    assert count == 3
    inside = np.zeros_like(b)
    for k in range(1, count + 1):
        part = labels == k
        removed = b[part].mean()
        inside[part] = b[part] - removed
        expected = abs(removed) * np.sqrt(part.sum()) / np.linalg.norm(b[part])
        np.testing.assert_allclose(report[part], expected, rtol=1e-12)
        assert abs(s.value[part].mean()) < 1e-12 * np.abs(s.value).max()
    assert report[2, 4] == 1.0  # one cell can take no source at all
    expected = np.linalg.pinv(matrix, rcond=1e-12) @ inside.ravel()
    expected = expected.reshape(mask.shape)
    np.testing.assert_allclose(s.value, expected, atol=1e-8 * np.abs(expected).max())
    compatible = run(inside)[0]
    assert bool(compatible.converged)
    np.testing.assert_allclose(compatible.value, s.value, atol=1e-8 * np.abs(expected).max())


def test_a_batch_of_masks(x64):
    masks = np.stack([porous(WALLS.shape, seed) for seed in range(3)] + [np.ones(WALLS.shape, bool)])
    f = jnp.asarray(np.random.default_rng(1).normal(size=WALLS.shape))

    def run(mask):
        A = masked(WALLS, mask)
        return solve(A, A.null_space().to_range(A.load(f)), CG(1e-9))

    batch, single = jax.jit(jax.vmap(run))(masks), jax.jit(run)
    assert np.all(batch.converged)
    for i, mask in enumerate(masks):
        alone = single(mask)
        np.testing.assert_allclose(batch.value[i], alone.value, atol=1e-8 * np.abs(alone.value).max())
        assert np.all(np.asarray(alone.value)[~mask] == 0)


def test_zero_coefficient_cells(x64):
    """Cells that conduct nothing are points by themselves, with a mask or without."""
    a = np.ones(WALLS.shape)
    a[3, 4] = a[0, 0] = 0
    f = np.random.default_rng(2).normal(size=WALLS.shape)

    @jax.jit
    def run(a, f):
        A = Diffusion.from_coefficient(WALLS, a)
        b = A.null_space().to_range(A.load(f))
        return solve(A, b, CG(1e-10)), solve(A, b.at[3, 4].set(1.0), CG(1e-10)), A.as_matrix(), b

    s, bad, matrix, b = run(a, f)
    assert bool(s.converged)
    assert int(bad.result) == Result.incompatible
    np.testing.assert_allclose(matrix @ s.value.ravel(), b.ravel(), atol=1e-8 * np.abs(b).max())
    np.testing.assert_allclose(bad.value, s.value, atol=1e-9)
    assert s.value[3, 4] == 0
    assert s.value[0, 0] == 0


def test_an_island_cut_off_by_zeros_is_never_a_silent_wrong_answer(x64):
    """Without a mask islands are not looked for; the solve must still say that it failed."""
    grid = Grid((12, 12), boundary="dirichlet", centering="cell")
    a = np.ones(grid.shape)
    a[3, 3:8] = a[7, 3:8] = a[3:8, 3] = a[3:8, 7] = 0
    b = jnp.asarray(np.random.default_rng(2).uniform(1, 2, size=grid.shape) * (a > 0))
    blind = solve(Diffusion.from_coefficient(grid, jnp.asarray(a)), b, CG(1e-8))
    assert not bool(blind.converged)
    assert float(blind.residual_norm) <= 1
    seen = solve(Diffusion.from_coefficient(grid, jnp.asarray(a), mask=a > 0), b, CG(1e-8))
    assert int(seen.result) == Result.incompatible


def test_narrow_channels(x64):
    """A winding channel one cell wide is a chain of resistors."""
    n = 11
    mask = np.ones((n, n), bool)
    for k, row in enumerate(range(1, n, 2)):
        mask[row] = False
        mask[row, -1 if k % 2 == 0 else 0] = True
    grid = Grid((n, n), float(n), "neumann", "cell")
    f = np.zeros((n, n))
    f[0, 0], f[-1, -1 if (n // 2) % 2 == 0 else 0] = 1.0, -1.0
    A = Diffusion.from_coefficient(grid, jnp.ones((n, n)), mask=mask)
    s = jax.jit(lambda A, f: solve(A, f, CG(1e-11)))(A, jnp.asarray(f))
    assert bool(s.converged)
    length = int(mask.sum()) - 1
    drop = float(s.value[0, 0] - s.value[-1, -1 if (n // 2) % 2 == 0 else 0])
    np.testing.assert_allclose(drop, length, rtol=1e-9)


def graph_laplacian(seed=0):
    """Two groups of 8 and 5 nodes, joined within and not across."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((13, 13))
    for group in (np.arange(8), np.arange(8, 13)):
        w = rng.uniform(1, 2, (group.size, group.size))
        w = w + w.T
        matrix[np.ix_(group, group)] = np.diag(w.sum(1)) - w
    return matrix, (np.arange(13) < 8).astype(float)


def test_a_basis_given_by_the_user(x64):
    matrix, first = graph_laplacian()
    b = np.random.default_rng(1).normal(size=13)
    vectors = [1e-30 * first, np.ones(13), 3 * first - 1.0]  # neither orthogonal, nor independent, nor scaled

    @jax.jit
    def run(matrix, b):
        null_space = NullSpace.from_basis(vectors)
        return solve(lambda v: matrix @ v, b, CG(1e-11), null_space=null_space), null_space.to_range(b)

    s, compatible = run(matrix, b)
    expected = np.linalg.pinv(matrix) @ b
    assert int(s.result) == Result.incompatible
    np.testing.assert_allclose(s.value, expected, atol=1e-9)
    indicator = np.stack([first, 1 - first])
    np.testing.assert_allclose(indicator @ compatible, 0, atol=1e-13)
    assert bool(run(matrix, compatible)[0].converged)
    c = np.random.default_rng(2).normal(size=13)
    gradient = jax.grad(lambda b: jnp.vdot(c, run(matrix, b)[0].value))(jnp.asarray(b))
    np.testing.assert_allclose(gradient, np.linalg.pinv(matrix) @ c, atol=1e-9)
    with pytest.raises(ValueError, match="vectors: expected at least one"):
        NullSpace.from_basis([])
    with pytest.raises(ValueError, match="vectors: expected real floating arrays of one shape"):
        NullSpace.from_basis([np.ones(3), np.ones(4)])
    with pytest.raises(ValueError, match="null_space: expected a NullSpace"):
        solve(lambda v: v, jnp.ones(3), CG(), null_space=np.ones(3))


def test_a_basis_of_pytrees():
    b = {"u": jnp.asarray([1.0, 2.0]), "v": jnp.asarray([[3.0], [5.0]])}
    constant = jax.tree.map(jnp.ones_like, b)
    null_space = NullSpace.from_basis([constant])
    s = solve(lambda v: jax.tree.map(lambda u: u - mean(v), v), b, CG(1e-5), null_space=null_space)
    np.testing.assert_allclose(s.value["u"], [1 - 2.75, 2 - 2.75], rtol=1e-5)
    np.testing.assert_allclose(s.value["v"], [[0.25], [2.25]], rtol=1e-5)
    expected = 2.75 * 2 / np.sqrt(1 + 4 + 9 + 25)
    np.testing.assert_allclose(null_space.incompatibility(b)["v"], np.full((2, 1), expected), rtol=1e-5)


def mean(v):
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(v)) / 4
