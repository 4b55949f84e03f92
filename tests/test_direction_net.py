"""DirectionNet: exact counts, its wiring against a plain NumPy version, and what it refuses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no


@pytest.mark.parametrize(("name", "count"), [("from_64", 97_457), ("from_128", 152_881)])
def test_exact_parameter_counts(name, count):
    net = no.DirectionNet.paper(name, key=jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(net)) == count
    for n in (64, 96, 128):
        out = jax.eval_shape(net, jax.ShapeDtypeStruct((1, n, n, n), jnp.float32))
        assert out.shape == (1, n, n, n)


def convolution(u, kernel, bias):
    """Three taps per axis, zeros outside, channels first, by shifts."""
    ndim = u.ndim - 1
    padded = np.pad(u, [(0, 0), *[(1, 1)] * ndim])
    out = np.zeros((kernel.shape[-1], *u.shape[1:]))
    for taps in itertools.product(range(3), repeat=ndim):
        window = tuple(slice(t, t + n) for t, n in zip(taps, u.shape[1:], strict=True))
        out += np.einsum("io,i...->o...", kernel[taps], padded[(slice(None), *window)])
    return out + bias.reshape(-1, *(1,) * ndim)


def released_topology(net, u):
    """The layers of the sheet's section 6, one by one (`from_64`: 15 convolutions)."""
    relu = lambda v: np.maximum(v, 0)
    layer = lambda c, v: relu(convolution(v, np.asarray(c.kernel, float), np.asarray(c.bias, float)))
    h0 = convolution(u, np.asarray(net.first.kernel, float), np.asarray(net.first.bias, float))
    a = layer(net.before[0], h0)
    b = layer(net.before[1], a)
    a = layer(net.before[2], b) + a
    b = layer(net.before[3], a)
    c, *grid = b.shape
    d = b.reshape(c, *itertools.chain.from_iterable((n // 2, 2) for n in grid))
    d = d.mean(tuple(range(2, 2 * len(grid) + 1, 2)))
    for i in range(3):
        e = layer(net.coarse[2 * i], d)
        d = layer(net.coarse[2 * i + 1], e) + d
    for axis in range(1, len(grid) + 1):
        d = np.repeat(d, 2, axis)
    w = d + b
    for i in range(2):
        e = layer(net.after[2 * i], w)
        w = layer(net.after[2 * i + 1], e) + w
    return np.einsum("i,i...->...", np.asarray(net.weight, float), w)[None] + float(net.bias)


@pytest.mark.parametrize("grid", [(12,), (8, 6), pytest.param((6, 4, 8), marks=pytest.mark.slow)])
def test_the_released_topology(grid):
    net = no.DirectionNet.paper("from_64", ndim=len(grid), hidden_channels=5, key=jax.random.key(1))
    random = np.random.default_rng(0)  # biases start at zero and would hide a mistake
    net = jax.tree.map(lambda v: v + jnp.asarray(0.1 * random.normal(size=v.shape), v.dtype), net)
    u = random.normal(size=(1, *grid))
    expected = released_topology(net, u)
    np.testing.assert_allclose(net(jnp.asarray(u, jnp.float32)), expected, atol=1e-5 * np.abs(expected).max())


def test_receptive_field_of_two_levels():
    """An impulse is seen 21 points away and no further, as two levels cannot (pairs (1, 3, 2))."""
    net = no.DirectionNet.paper("from_64", ndim=1, activation="tanh", key=jax.random.key(2))
    u = np.zeros((1, 96))
    gradient = jax.jacfwd(lambda s: net(jnp.asarray(u, jnp.float32).at[0, 48].set(s)))(0.0)
    seen = np.flatnonzero(np.abs(np.asarray(gradient[0])) > 0)
    assert 20 <= 48 - seen.min() <= 22
    assert 20 <= seen.max() - 48 <= 22


def test_rms_scaling_makes_grids_alike():
    """With it a unit residual and the same one on a grid of twice the points, each value doubled, enter alike."""
    net = no.DirectionNet((1, 1, 1), 4, ndim=1, scaling="rms", key=jax.random.key(3))
    plain = no.DirectionNet((1, 1, 1), 4, ndim=1, key=jax.random.key(3))
    u = jnp.asarray(np.random.default_rng(1).normal(size=(1, 16)), jnp.float32)
    np.testing.assert_allclose(net(u / 4), plain(u), rtol=1e-5, atol=1e-5)


def test_refusals():
    net = no.DirectionNet((1, 1, 1), 4, ndim=2, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"even number of points.*\(6, 7\).*\(6, 8\)"):
        net(jnp.ones((1, 6, 7)))
    for arguments, word in (
        ({"pairs": (1, 2)}, "pairs"),
        ({"pairs": (1, -2, 3)}, "pairs"),
        ({"ndim": 4}, "ndim"),
        ({"scaling": "unit"}, "scaling"),
        ({"hidden_channels": 0}, "hidden_channels"),
        ({"boundary": "open"}, "boundary"),
        ({"activation": "elusive"}, "activation"),
    ):
        with pytest.raises(ValueError, match=word):
            no.DirectionNet(**arguments, key=jax.random.key(0))
    with pytest.raises(ValueError, match="from_128"):
        no.DirectionNet.paper("from_32", key=jax.random.key(0))
