"""Spectral layers against analytic responses and against an FFT written out in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_grid import BOUNDARIES, CENTERINGS, wave

from neuralops.grid import Grid
from neuralops.nn import SpectralConv

GRIDS = (16, 17, 31, 48, 64, 65)
# One program each, not one for each operation.
run = jax.jit(lambda conv, u: conv(u))
run_onto = jax.jit(lambda conv, u, num_points: conv(u, num_points=num_points), static_argnums=2)
array = jax.jit(lambda weight: weight.array())


def make(*args, key, **options):
    return jax.jit(lambda key: SpectralConv(*args, **options, key=key))(key)


def complex_weight(conv):
    weight = np.asarray(array(conv.weight), np.float64)
    return weight[0] + 1j * weight[1]


def fft_reference(weight, u, n_modes):
    """The periodic layer mode by mode with NumPy's FFT in float64, all axes; weights by signed frequency."""
    axes = tuple(range(1, u.ndim))
    shape = u.shape[1:]
    spectrum = np.fft.rfftn(u, axes=axes, norm="forward")
    out = np.zeros((weight.shape[1], *spectrum.shape[1:]), complex)
    signed = [range(-(k // 2), k // 2 + k % 2) for k in (min(m, n) for m, n in zip(n_modes[:-1], shape, strict=False))]
    half = range(min(n_modes[-1] // 2 + 1, shape[-1] // 2 + 1))
    for f in itertools.product(*signed, half):
        at = (slice(None), *(k % n for k, n in zip(f[:-1], shape, strict=False)), f[-1])
        row = (slice(None), slice(None), *(k + m // 2 for k, m in zip(f[:-1], n_modes, strict=False)), f[-1])
        out[at] = weight[row].T @ spectrum[at]
    return np.fft.irfftn(out, s=shape, axes=axes, norm="forward")


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [
        ((16,), (6,)), ((17,), (7,)), ((16,), (16,)), ((9,), (16,)), ((16, 16), (6, 6)), ((16, 17), (16, 16)),
        ((15, 16), (7, 5)), ((8, 8), (16, 16)), ((9, 9), (11, 12)), ((8, 9, 10), (4, 4, 4)), ((8, 6, 8), (12, 6, 8)),
        ((1, 4), (3, 3)),
    ],
)  # fmt: skip
def test_periodic_layer_equals_the_fft(getkey, shape, n_modes):
    conv = make(2, 3, n_modes, use_bias=False, key=getkey())
    u = jax.random.normal(getkey(), (2, *shape))
    expected = fft_reference(complex_weight(conv), np.asarray(u, np.float64), n_modes)
    np.testing.assert_allclose(run(conv, u), expected, atol=2e-6 * np.abs(expected).max())
    batched = jax.jit(jax.vmap(conv))(np.stack([u, 2 * u]))[1]
    np.testing.assert_allclose(batched, 2 * expected, atol=4e-6 * np.abs(expected).max())


def response(conv, boundary, modes, coefficients, x):
    """The analytic output function for a 1-D input with the given modal coefficients."""
    if boundary != "periodic":
        weight = np.asarray(array(conv.weight), np.float64)
        return sum(c * weight[0, 0, m] * wave(boundary, m, x) for m, c in zip(modes, coefficients, strict=True))
    weight = complex_weight(conv)[0, 0]
    out = 0
    for m, c in zip(modes, coefficients, strict=True):  # cos k or sin k becomes the real part of W e^{ikx} (times -i)
        k = (m + 1) // 2
        phase = 1 if (m % 2 or m == 0) else -1j
        out = out + c * (phase * (weight[k] if k else weight[k].real) * np.exp(2j * np.pi * k * x)).real
    return out


@pytest.mark.parametrize(("boundary", "centering"), itertools.product(BOUNDARIES, CENTERINGS))
def test_right_on_every_grid(getkey, boundary, centering):
    """Band-limited input, the same output function on every grid: coarser than `n_modes`, and onto other grids."""
    conv = make(1, 1, 24, use_bias=False, boundary=(boundary,), centering=centering, key=getkey())
    modes = range(7)
    c = np.random.default_rng(3).normal(size=7)
    scale = np.abs(response(conv, boundary, modes, c, np.linspace(0, 1, 400))).max()
    for n in (*GRIDS, 8, 9, 13):  # the last three are coarser than 24 modes
        x = Grid(n, boundary=(boundary,), centering=centering).points(0)
        u = jnp.asarray(sum(ci * wave(boundary, m, x) for m, ci in zip(modes, c, strict=True)), jnp.float32)[None]
        sizes = (n, 2 * n, 8, 33)
        outputs = jax.jit(lambda u, sizes=sizes: [conv(u, num_points=n_out) for n_out in sizes])(u)
        for n_out, v in zip(sizes, outputs, strict=True):
            y = Grid(n_out, boundary=(boundary,), centering=centering).points(0)
            np.testing.assert_allclose(v[0], response(conv, boundary, modes, c, y), atol=1e-6 * scale)


@pytest.mark.parametrize(
    "boundaries",
    [
        ("periodic", "dirichlet"),
        ("neumann", "periodic", "dirichlet"),
        ("dirichlet", "neumann"),
        ("periodic", "neumann", "periodic"),
        ("periodic", "periodic", "dirichlet"),
    ],
)
def test_mixed_boundaries_agree_between_grids(getkey, boundaries):
    ndim = len(boundaries)
    conv = make(2, 2, (5,) * ndim, boundary=boundaries, key=getkey())
    rng = np.random.default_rng(0)
    c = rng.normal(size=(2,) + (4,) * ndim)

    def sample(grid):
        basis = [np.stack([wave(b, m, grid.points(a)) for m in range(4)]) for a, b in enumerate(boundaries)]
        u = c
        for a in range(ndim):
            u = np.tensordot(u, basis[a], (1, 0))
        return jnp.asarray(u, jnp.float32)

    coarse = Grid((9, 10, 11)[:ndim], boundary=boundaries)
    fine = Grid((18, 14, 15)[:ndim], boundary=boundaries)
    on_fine, on_coarse = run(conv, sample(fine)), run(conv, sample(coarse))
    np.testing.assert_allclose(run_onto(conv, sample(coarse), fine.shape), on_fine, atol=3e-6)
    np.testing.assert_allclose(run_onto(conv, sample(fine), coarse.shape), on_coarse, atol=3e-6)


def test_derivative_weights_differentiate(x64):
    """With R = 2 pi i k the layer is d/dx; checked on an analytic function in 2-D, both axes."""
    n_modes = (9, 9)
    conv = make(1, 1, n_modes, use_bias=False, key=jax.random.key(0))
    grid = Grid((20, 23))
    x, y = grid.coordinates()
    u = jnp.asarray(np.sin(2 * np.pi * (2 * x - 3 * y)) + np.cos(2 * np.pi * (x + y)))[None]
    exact = [
        2 * np.pi * (2 * np.cos(2 * np.pi * (2 * x - 3 * y)) - np.sin(2 * np.pi * (x + y))),
        2 * np.pi * (-3 * np.cos(2 * np.pi * (2 * x - 3 * y)) - np.sin(2 * np.pi * (x + y))),
    ]
    for axis in range(2):
        k = [np.arange(-4, 5)[:, None], np.arange(5)[None]][axis] * np.ones((9, 5))
        core = jnp.asarray(np.stack([0 * k, 2 * np.pi * k])[:, None, None])
        derivative = jax.tree.map(lambda _, core=core: core, conv)
        np.testing.assert_allclose(run(derivative, u)[0], exact[axis], atol=1e-11)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize(
    ("factorization", "rank"),
    [
        ("tucker", 0.3),
        ("cp", 0.2),
        ("tt", 0.3),
        *(
            pytest.param(*x, marks=pytest.mark.slow)
            for x in (("tucker", (2, 2, 3, 3)), ("cp", (5,)), ("tt", (2, 4, 3)))
        ),
    ],
)
def test_factorized_weights_equal_their_dense_product(getkey, boundary, factorization, rank):
    conv = make(4, 4, (6, 6), factorization=factorization, rank=rank, boundary=boundary, key=getkey())
    dense = make(4, 4, (6, 6), boundary=boundary, key=getkey())
    parts = [np.asarray(p, np.float64) for p in (conv.weight.core, *conv.weight.factors)]
    if boundary == "periodic":
        parts = [p[0] + 1j * p[1] for p in parts]
    core, *factors = parts
    letters = "abcd"
    if factorization == "tucker":
        product = np.einsum("wxyz,aw,bx,cy,dz->abcd", core, *factors)
    elif factorization == "cp":
        product = np.einsum("r,ar,br,cr,dr->abcd", core, *factors)
    else:
        product = np.einsum("iaj,jbk,kcl,ldm->abcd", core, *factors)
    del letters
    product = np.stack([product.real, product.imag]) if boundary == "periodic" else product
    u = jax.random.normal(getkey(), (4, 12, 11))
    dense = eqx_replace_core(dense, product, conv.bias)
    np.testing.assert_allclose(run(conv, u), run(dense, u), atol=1e-5)
    if isinstance(rank, float):
        count = sum(leaf.size for leaf in jax.tree.leaves(conv.weight))
        full = sum(leaf.size for leaf in jax.tree.leaves(dense.weight))
        assert 0.5 * rank * full < count <= rank * full


def eqx_replace_core(conv, core, bias):
    leaves, treedef = jax.tree.flatten(conv)
    return jax.tree.unflatten(treedef, [jnp.asarray(core, jnp.float32), bias][: len(leaves)])


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
def test_separable_is_dense_with_a_diagonal(getkey, boundary):
    separable = make(3, 3, (4, 6), separable=True, boundary=boundary, key=getkey())
    dense = make(3, 3, (4, 6), boundary=boundary, key=getkey())
    weight = separable.weight.core
    lead = weight.ndim - 3
    diagonal = jnp.expand_dims(weight, lead + 1) * jnp.eye(3).reshape((1,) * lead + (3, 3, 1, 1))
    u = jax.random.normal(getkey(), (3, 9, 10))
    dense = eqx_replace_core(dense, diagonal, separable.bias)
    np.testing.assert_allclose(run(separable, u), run(dense, u), atol=2e-6)


@pytest.mark.slow
def test_initial_spread_is_that_of_the_fact(getkey):
    """E|w|^2 = 2/(in + out) for dense complex weights, the same for the factorised ones on average."""
    conv = make(32, 32, (16, 16), key=getkey())
    assert np.sqrt((np.abs(complex_weight(conv)) ** 2).mean()) == pytest.approx(np.sqrt(2 / 64), rel=0.01)
    spread = [
        (np.abs(complex_weight(make(16, 16, (8, 8), factorization=f, rank=0.5, key=getkey()))) ** 2).mean()
        for f in ("tucker", "cp", "tt")
        for _ in range(3)
    ]
    assert np.mean(spread) == pytest.approx(2 / 32, rel=0.35)
