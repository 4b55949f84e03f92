"""Gaussian random fields against the closed-form series, SciPy's cosine transform and their moments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.stats

from neuralops.grid import Grid
from neuralops.pde import GaussianRandomField

PAIRS = ("periodic", "dirichlet", "neumann", ("dirichlet", "neumann"), ("neumann", "dirichlet"))


def basis(boundary, num_modes, x, extent):
    """L2-orthonormal modes and their wavenumbers, written out from the table: (points, modes), (modes,)."""
    columns, waves = [], []
    for m in range(num_modes):
        if boundary == "periodic":
            k = 2 * np.pi * ((m + 1) // 2) / extent
            f = np.cos(k * x) if m % 2 or m == 0 else np.sin(k * x)
        elif boundary == "dirichlet":
            k = np.pi * (m + 1) / extent
            f = np.sin(k * x)
        elif boundary == "neumann":
            k = np.pi * m / extent
            f = np.cos(k * x)
        else:
            k = np.pi * (m + 0.5) / extent
            f = np.sin(k * x) if boundary[0] == "dirichlet" else np.cos(k * x)
        columns.append(f * np.sqrt((1 if k == 0 else 2) / extent))
        waves.append(k)
    return np.stack(columns, -1), np.array(waves)


def covariance(boundary, num_modes, x, extent, alpha, tau, scale, zero_mean):
    phi, k = basis(boundary, num_modes, x, extent)
    eigenvalues = scale**2 * (k**2 + tau**2) ** -alpha
    if zero_mean:
        eigenvalues = np.where(k == 0, 0, eigenvalues)
    return (phi * eigenvalues) @ phi.T


@pytest.mark.parametrize("boundary", PAIRS)
@pytest.mark.parametrize("centering", ["node", "cell"])
def test_covariance_is_the_series(boundary, centering, x64):
    count, extent = 20000, 1.7
    grid = Grid(6, extent, "neumann", centering)
    field = GaussianRandomField(1.3, 4.0, boundary=(boundary,), scale=2.0, mean=0.5, zero_mean=False, num_modes=9)
    draw = jax.jit(jax.vmap(lambda key: field.sample(key, grid)[0]))
    u = np.asarray(draw(jax.random.split(jax.random.key(1), count))) - 0.5
    exact = covariance(boundary, 9, grid.points(0), extent, 1.3, 4.0, 2.0, False)
    size = np.sqrt(np.outer(np.diag(exact), np.diag(exact))) + 1e-12
    spread = np.sqrt((exact**2 + size**2) / count)  # standard deviation of an empirical covariance
    assert np.max(np.abs(u.T @ u / count - exact) / spread) < 5
    assert np.max(np.abs(u.mean(0)) / np.sqrt(np.diag(exact) + 1e-12)) < 5 / np.sqrt(count)


def test_two_dimensions_are_the_fno_lines_generator(x64):
    """Their law on cells: orthonormal DCT coefficients n tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2) xi."""
    n, alpha, tau = 48, 2.0, 3.0
    field = GaussianRandomField(alpha, tau, boundary="neumann")
    u = np.asarray(field.sample(jax.random.key(4), Grid((n, n), 1.0, "dirichlet", "cell")))[0]
    k = np.arange(n)
    deviation = n * tau ** (alpha - 1) * (np.pi**2 * (k[:, None] ** 2 + k**2) + tau**2) ** (-alpha / 2)
    xi = scipy.fft.dctn(u, norm="ortho") / deviation
    assert abs(xi[0, 0]) < 1e-12  # the constant mode is left out
    xi = xi.ravel()[1:]
    assert scipy.stats.kstest(xi, "norm").pvalue > 1e-3
    assert abs(np.var(xi) - 1) < 5 * np.sqrt(2 / xi.size)
    neighbours = xi[1:] @ xi[:-1] / xi.size
    assert abs(neighbours) < 5 / np.sqrt(xi.size)


def test_variance_in_three_dimensions(x64):
    count, grid = 4000, Grid((3, 4, 2), (1.0, 2.0, 1.0), "neumann", "cell")
    boundary = ("periodic", "neumann", "dirichlet")
    field = GaussianRandomField(2.0, 3.0, boundary=boundary, num_modes=(5, 4, 3), zero_mean=False)
    draw = jax.jit(jax.vmap(lambda key: field.sample(key, grid)[0]))
    variance = np.asarray(draw(jax.random.split(jax.random.key(9), count))).var(0)
    parts = [
        basis(b, m, grid.points(a), grid.domain_extent[a])
        for a, (b, m) in enumerate(zip(boundary, (5, 4, 3), strict=True))
    ]
    (p0, k0), (p1, k1), (p2, k2) = parts
    laplacian = k0[:, None, None] ** 2 + k1[:, None] ** 2 + k2**2
    eigenvalues = 3.0 ** (2 * 2.0 - 3) * (laplacian + 9.0) ** -2.0
    exact = np.einsum("abc,xa,yb,zc->xyz", eigenvalues, p0**2, p1**2, p2**2)
    np.testing.assert_allclose(variance, exact, rtol=5 * np.sqrt(2 / count))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("boundary", PAIRS)
def test_one_key_is_one_function_on_every_grid(boundary, dtype, x64):
    """Coefficients are read off one grid by quadrature; every other grid must sample that very series."""
    extent, num_modes, key = 2.0, 15, jax.random.key(11)
    field = GaussianRandomField(1.5, 3.0, boundary=(boundary,), scale=20.0, zero_mean=False, num_modes=num_modes)
    fine = Grid(64, extent, "periodic", "cell")
    phi, _ = basis(boundary, num_modes, fine.points(0), extent)
    values = np.asarray(field.sample(key, fine, dtype=dtype)[0], np.float64)
    coefficients = phi.T @ values * fine.cell_volume  # midpoint rule: exact on these modes
    for n, grid_boundary, centering in itertools.product((4, 17, 48), PAIRS, ("node", "cell")):
        grid = Grid(n, extent, (grid_boundary,), centering)
        u = field.sample(key, grid, dtype=dtype)
        assert u.shape == (1, n)
        assert u.dtype == dtype
        expected = basis(boundary, num_modes, grid.points(0), extent)[0] @ coefficients
        np.testing.assert_allclose(u[0], expected, atol=1e-12 if dtype == "float64" else 1e-5 * np.abs(expected).max())


def test_all_modes_nest(x64):
    """With all modes of each grid the coarse field is the leading part of the fine one's series."""
    field, key = GaussianRandomField(2.0, 3.0), jax.random.key(2)
    coarse, fine = (np.asarray(field.sample(key, Grid((n, n), 1.0, "dirichlet", "cell")))[0] for n in (17, 48))
    a, b = scipy.fft.dctn(coarse, norm="ortho") / 17, scipy.fft.dctn(fine, norm="ortho") / 48
    np.testing.assert_allclose(a, b[:17, :17], atol=1e-13)


def test_single_and_double_precision_draw_the_same_field():
    field, key, grid = GaussianRandomField(2.0, 3.0), jax.random.key(5), Grid((40, 40), boundary="dirichlet")
    single = field.sample(key, grid)
    with jax.enable_x64(True):
        double = field.sample(key, grid)
    assert single.dtype == jnp.float32
    assert double.dtype == jnp.float64
    np.testing.assert_allclose(single, double, atol=2e-6)


def test_boundary_conditions(x64):
    key, h = jax.random.key(3), 1e-3
    ends = Grid(1001, 1.0, "neumann", "node")  # holds both ends
    u = np.asarray(GaussianRandomField(2.0, 3.0, boundary="dirichlet", num_modes=8).sample(key, ends))[0]
    assert abs(u[0]) + abs(u[-1]) < 1e-14 < np.abs(u).max()
    u = np.asarray(GaussianRandomField(2.0, 3.0, boundary="neumann", num_modes=8).sample(key, ends))[0]
    slopes = (u[1] - u[0]) / h, (u[-1] - u[-2]) / h
    assert max(map(abs, slopes)) < 1e-2 * np.abs(np.diff(u) / h).max()
    assert abs(np.trapezoid(u, dx=h)) < 1e-14  # no constant mode
    u = np.asarray(GaussianRandomField(2.0, 3.0, boundary="periodic", num_modes=8).sample(key, ends))[0]
    assert abs(u[0] - u[-1]) < 1e-14
    assert abs((u[1] - u[0]) - (u[-1] - u[-2])) / h < 2e-2 * np.abs(np.diff(u) / h).max()
    mixed = GaussianRandomField(2.0, 3.0, boundary=(("dirichlet", "neumann"),), num_modes=8)
    u = np.asarray(mixed.sample(key, ends))[0]
    assert abs(u[0]) < 1e-14
    assert abs(u[-1] - u[-2]) / h < 1e-2 * np.abs(np.diff(u) / h).max()


def test_jit_vmap_and_old_keys(x64):
    field, grid = GaussianRandomField(2.0, 3.0), Grid((9, 7), 1.0, "dirichlet")
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.jit(jax.vmap(lambda key: field.sample(key, grid)))(keys)
    for key, u in zip(keys, batch, strict=True):
        np.testing.assert_allclose(field.sample(key, grid), u, atol=1e-14)
    assert hash(field) == hash(GaussianRandomField(2.0, 3.0))
    assert field == GaussianRandomField(2.0, 3.0)
    np.testing.assert_array_equal(field.sample(jax.random.PRNGKey(7), grid), field.sample(jax.random.key(7), grid))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"tau": -1.0}, "tau"),
        ({"tau": 0.0}, "scale"),
        ({"scale": -2.0}, "scale"),
        ({"mean": float("inf")}, "mean"),
        ({"boundary": "robin"}, "boundary"),
        ({"num_modes": 0}, "num_modes"),
        ({"num_modes": 2.5}, "num_modes"),
    ],
)
def test_refuses_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        GaussianRandomField(**{"alpha": 2.0, "tau": 3.0, **arguments})


def test_refuses_bad_draws():
    grid, key = Grid((8, 8)), jax.random.key(0)
    with pytest.raises(ValueError, match="alpha > 1"):
        GaussianRandomField(1.0, 3.0).sample(key, grid)
    with pytest.raises(ValueError, match="constant mode"):
        GaussianRandomField(2.0, 0.0, scale=1.0, zero_mean=False).sample(key, grid)
    with pytest.raises(ValueError, match="boundary"):
        GaussianRandomField(2.0, 3.0, boundary=("neumann",)).sample(key, grid)
    with pytest.raises(ValueError, match="enable_x64"):
        GaussianRandomField(2.0, 3.0).sample(key, grid, dtype="float64")
    with pytest.raises(ValueError, match="dtype"):
        GaussianRandomField(2.0, 3.0).sample(key, grid, dtype="int32")
