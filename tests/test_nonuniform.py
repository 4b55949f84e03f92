"""Fourier sums at arbitrary points, against the FFT, direct sums and quadrature theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.nn import nonuniform
from neuralops.nn.nonuniform import frequencies

BOTH = {"float32": 1e-6, "float64": 1e-12}
to_modes = jax.jit(nonuniform.to_modes, static_argnames=("n_modes", "chunk_size"))
sample = jax.jit(nonuniform.sample, static_argnames=("n_modes", "chunk_size", "published"))


def uniform(grid):
    """The points i/n, one axis of them."""
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in grid), indexing="ij"), -1).reshape(-1, len(grid))


def paired(z):
    return np.stack([z.real, z.imag], -1)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape)


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize(
    ("grid", "n_modes"),
    [((12,), (6,)), ((11,), (7,)), ((8, 9), (5, 4)), ((10, 8), (4, 7)), ((6, 5, 7), (4, 3, 5))],
    ids=["1-D even", "1-D odd", "2-D odd even", "2-D even odd", "3-D"],
)
def test_on_a_uniform_grid_it_is_the_fft(grid, n_modes, dtype):
    with jax.enable_x64(dtype == "float64"):
        u = draw(*grid, 2).astype(dtype)
        axes = tuple(range(len(grid)))
        whole = np.fft.rfftn(u.astype(np.float64), axes=axes, norm="forward")
        wanted = paired(whole[np.ix_(*frequencies(n_modes), np.arange(2))])  # negative ones count from the end
        size = np.prod(grid)
        x = uniform(grid).astype(dtype)
        got = to_modes(u.reshape(-1, 2), x, n_modes, np.full(size, 1 / size, dtype))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, atol=BOTH[dtype])
        # Back: the real function of the kept frequencies, on the axes before the last with both signs as they are.
        flat, back = wanted[..., 0] + 1j * wanted[..., 1], 0
        factor = np.where(frequencies(n_modes)[-1] > 0, 2, 1)
        for index in np.ndindex(flat.shape[:-1]):
            k = np.asarray([axis[i] for axis, i in zip(frequencies(n_modes), index, strict=True)])
            wave = np.exp(2j * np.pi * (uniform(grid) @ k))
            back = back + factor[index[-1]] * (wave[:, None] * flat[index]).real
        np.testing.assert_allclose(sample(got, x, n_modes), back, atol=20 * BOTH[dtype])


def real_coefficients(n_modes, channels=2):
    """Random ones of a real function: without the frequency that has no partner, and the plane k = 0 symmetric."""
    z = np.random.default_rng(3).normal(size=(*(len(k) for k in frequencies(n_modes)), channels, 2))
    z = z[..., 0] + 1j * z[..., 1]
    ks = frequencies(n_modes)
    for index in np.ndindex(z.shape[:-1]):
        k = [axis[i] for axis, i in zip(ks, index, strict=True)]
        if any(n % 2 == 0 and j == -(n // 2) for j, n in zip(k[:-1], n_modes[:-1], strict=True)):
            z[index] = 0
        elif k[-1] == 0:
            partner = tuple(list(axis).index(-j) for axis, j in zip(ks, k, strict=True))
            z[index] = z[index].real if partner == index else z[partner].conj()
    return paired(z)


@pytest.mark.parametrize("n_modes", [(6,), (5, 6), (4, 3, 5)], ids=["1-D", "2-D", "3-D"])
def test_there_and_back_at_random_points(x64, n_modes):
    """Sampled anywhere, a band-limited function is that whose coefficients a fine enough grid gives."""
    z = real_coefficients(n_modes)
    grid = uniform([2 * m + 3 for m in n_modes])
    again = to_modes(sample(z, grid, n_modes), grid, n_modes, np.full(len(grid), 1 / len(grid)))
    np.testing.assert_allclose(again, z, atol=1e-13)
    # Points moved at random give back the function by least squares: as many numbers as it has, no more, no less.
    x = draw(500, len(n_modes))
    u = sample(z, x, n_modes)
    columns = np.eye(z[..., 0, :].size).reshape(-1, *z.shape[:-2], 2)
    matrix = sample(np.moveaxis(columns, 0, -2), x, n_modes)
    solution, _, rank, _ = np.linalg.lstsq(matrix, u, rcond=1e-10)
    np.testing.assert_allclose(matrix @ solution, u, atol=1e-10)
    y = draw(40, len(n_modes), seed=1)
    np.testing.assert_allclose(
        sample(np.moveaxis(columns, 0, -2), y, n_modes) @ solution, sample(z, y, n_modes), atol=1e-9
    )
    assert rank < matrix.shape[1]  # the imaginary part of the mean does nothing, nor does one of a pair on k = 0


@pytest.mark.parametrize("n_modes", [(4, 5), (24, 23)], ids=["small", "of the paper"])
def test_the_partners_of_the_published_code(x64, n_modes):
    """There the rows are 0 ... m/2 - 1, -m/2 ... -1; both axes flipped and conjugated give the columns k_2 < 0."""
    rows = np.concatenate([np.arange(n_modes[0] // 2), np.arange(-(n_modes[0] // 2), 0)])
    columns = np.arange(n_modes[1] // 2 + 1)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(len(rows), len(columns), 2)) + 1j * rng.normal(size=(len(rows), len(columns), 2))
    whole = np.concatenate([z, np.conj(z[:, 1:][::-1, ::-1])], axis=1)
    second = np.concatenate([columns, -columns[:0:-1]])
    x = draw(9, 2, seed=4)
    phase = np.exp(2j * np.pi * (x[:, :1, None] * rows[:, None] + x[:, 1:, None] * second))
    wanted = np.einsum("nkl,klc->nc", phase, whole).real
    ours = paired(z[np.argsort(rows)])
    got = sample(ours, x, n_modes, published=True)
    np.testing.assert_allclose(got, wanted, atol=1e-11)
    assert np.abs(got - sample(ours, x, n_modes)).max() > 0.1  # another function than with the true partners


@pytest.mark.parametrize("published", [False, True])
def test_chunks_change_nothing(x64, published):
    n_modes, x, u, weights = (4, 5), draw(11, 2), draw(11, 3, seed=1), draw(11, seed=2)

    def energy(u, x, weights, chunk_size):
        z = nonuniform.to_modes(u, x, n_modes, weights, chunk_size=chunk_size)
        back = nonuniform.sample(z, x[::-1] ** 2, n_modes, published=published, chunk_size=chunk_size)
        return jnp.sum(jnp.sin(back)), (z, back)

    run = jax.jit(jax.value_and_grad(energy, argnums=(0, 1, 2), has_aux=True), static_argnums=3)
    whole = run(u, x, weights, None)
    for chunk_size in (4, 50):
        for a, b in zip(jax.tree.leaves(run(u, x, weights, chunk_size)), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)
    step, slope = 1e-6, whole[1][1]
    for point, axis in ((0, 0), (5, 1), (10, 0)):
        moved = np.zeros_like(x)
        moved[point, axis] = step
        difference = run(u, x + moved, weights, 4)[0][0] - run(u, x - moved, weights, 4)[0][0]
        np.testing.assert_allclose(slope[point, axis], difference / (2 * step), rtol=1e-6, atol=1e-6)


def test_far_points_lose_no_digits_beyond_their_own():
    """A point 1000 periods away has digits of size 6e-5; on binary fractions it has all of them."""
    n_modes, u = (24, 23), draw(256, 2).astype(np.float32)
    x = (np.random.default_rng(1).integers(0, 2**10, size=(256, 2)) / 2**10).astype(np.float32)
    weights = np.full(256, 1 / 256, np.float32)
    z = to_modes(u, x, n_modes, weights)
    far = to_modes(u, x + np.float32(1000), n_modes, weights)
    np.testing.assert_allclose(far, z, atol=1e-6)
    np.testing.assert_allclose(sample(z, x - np.float32(1000), n_modes), sample(z, x, n_modes), atol=1e-5)
    with jax.enable_x64(True):
        exact = to_modes(u.astype(np.float64), x.astype(np.float64), n_modes, weights.astype(np.float64))
    np.testing.assert_allclose(far, exact, atol=1e-6)


def graded(n):
    """Places crowded at 0, centres of cells of a map of the line, and the cells' widths."""
    edges = np.linspace(0, 1, n + 1) ** 2
    return (edges[1:] + edges[:-1])[:, None] / 2, np.diff(edges)


def test_quadrature_weights_give_the_coefficients_of_the_function(x64):
    """Midpoint rule on a graded mesh: order 2 with weights; without, the limit is that of another function."""
    k = np.arange(4)
    wanted = 1 / (np.log(2) - 2j * np.pi * k)  # of 2^x on [0, 1]
    errors, plain = [], []
    for n in (20, 40, 80, 160):
        x, weights = graded(n)
        found = [to_modes(2**x, x, (6,), q)[:, 0] for q in (weights, np.full(n, 1 / n))]
        with_weights, without = (np.abs(z[:, 0] + 1j * z[:, 1] - wanted).max() for z in found)
        errors.append(with_weights)
        plain.append(without)
    orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2, atol=0.15)
    assert errors[-1] < 1e-3
    assert plain[-1] > 0.9 * plain[0] > 0.1


def test_memory_with_chunks_does_not_grow_with_points_times_modes():
    n_modes, n = (24, 23), 20_000

    def energy(u, x, weights, chunk_size):
        z = nonuniform.to_modes(u, x, n_modes, weights, chunk_size=chunk_size)
        return jnp.sum(nonuniform.sample(z, x, n_modes, chunk_size=chunk_size) ** 2)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((n, 2), (n, 2), (n,))]
    gradient = jax.jit(jax.grad(energy, argnums=(0, 1)), static_argnums=3)
    bytes_of = lambda size: gradient.lower(*shapes, size).compile().memory_analysis().temp_size_in_bytes
    waves = n * 24 * 12 * 4  # one array of points times modes
    assert bytes_of(500) < 0.5 * waves
    assert bytes_of(None) > waves
