"""Denoisers against plain NumPy, their counts, and what their gradients must be."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no

KEY = jax.random.key(0)


def mirrored(u, kernel):
    """Three taps per axis, the picture continued as its mirror image; channels first, by shifts."""
    ndim = u.ndim - 1
    padded = np.pad(u, [(0, 0), *[(1, 1)] * ndim], mode="symmetric")
    out = np.zeros((kernel.shape[-1], *u.shape[1:]))
    for taps in itertools.product(range(3), repeat=ndim):
        window = tuple(slice(t, t + n) for t, n in zip(taps, u.shape[1:], strict=True))
        out += np.einsum("io,i...->o...", kernel[taps], padded[(slice(None), *window)])
    return out


@pytest.mark.parametrize("grid", [(9,), (6, 5), (3, 4, 5)])
def test_the_layers_one_by_one(x64, grid):
    op = no.ConvDenoiser(2, 3, 3, ndim=len(grid), key=KEY)
    random = np.random.default_rng(0)
    op = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) * 0.3), op)
    u = random.normal(size=(2, *grid))
    h = u
    for i, (kernel, bias) in enumerate(zip(op.kernels, op.biases, strict=True)):
        h = mirrored(h, np.asarray(kernel)) + np.asarray(bias).reshape(-1, *(1,) * len(grid))
        h = np.maximum(h, 0) if i < 2 else h
    assert np.allclose(op(jnp.asarray(u)), u - h, atol=1e-12)
    alone = eqx.tree_at(lambda _: (), op, ())
    object.__setattr__(alone, "residual", False)
    assert np.allclose(alone(jnp.asarray(u)), h, atol=1e-12)


def test_counts():
    size = lambda op: sum(leaf.size for leaf in jax.tree.leaves(op))
    # Zhang et al. 2017 without batch norm: 17 layers of 64 with 3 x 3 taps
    assert size(no.ConvDenoiser(key=KEY)) == 9 * 64 + 64 + 15 * (9 * 64 * 64 + 64) + 9 * 64 + 1
    assert size(no.ConvDenoiser(3, 8, 4, ndim=3, use_bias=False, key=KEY)) == 27 * (3 * 8 + 2 * 64 + 8 * 3)


def test_without_biases_the_size_of_the_field_passes_through(x64):
    op = no.ConvDenoiser(1, 4, 4, use_bias=False, key=KEY)
    u = jax.random.normal(KEY, (1, 6, 7))
    assert jnp.allclose(op(1e-3 * u), 1e-3 * op(u), rtol=1e-6)


def test_a_gradient_step_is_the_gradient_of_its_potential(x64):
    op = no.GradientStep(no.ConvDenoiser(1, 4, 3, ndim=1, activation="silu", key=KEY))
    op = jax.tree.map(lambda leaf: leaf.astype(float) + 0.1 * jax.random.normal(KEY, leaf.shape), op)
    u = jax.random.normal(jax.random.key(1), (1, 6))
    assert jnp.allclose(op(u), jax.grad(op.potential)(u), atol=1e-12)
    # its Jacobian is symmetric, that of the network alone is not
    a, b = jax.random.normal(jax.random.key(2), (2, *u.shape))

    def skew(f):
        moved = [jnp.sum(w * jax.jvp(f, (u,), (v,))[1]) for v, w in ((a, b), (b, a))]
        return jnp.abs(moved[0] - moved[1])

    assert skew(op) < 1e-12
    assert skew(op.op) > 1e-3


def test_a_linear_network_has_the_closed_form(x64):
    """N(y) = M y gives D = 1 - (1 - M)^T (1 - M), whatever M."""
    M = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4)))
    op = no.GradientStep(jax.tree_util.Partial(lambda m, y: (m @ y[0])[None], M))
    y = jnp.asarray(np.random.default_rng(3).normal(size=(1, 4)))
    rest = jnp.eye(4) - M
    assert jnp.allclose(op(y)[0], y[0] - rest.T @ rest @ y[0], atol=1e-12)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="op: expected a network"):
        no.GradientStep(no.nn.Linear(1, 2, key=KEY))(jnp.ones((1, 4)))
    with pytest.raises(ValueError, match="centering"):
        no.ConvDenoiser(1, 4, 3, centering="corner", key=KEY)
    with pytest.raises(ValueError, match="n_layers"):
        no.ConvDenoiser(1, 4, 1, key=KEY)


@pytest.mark.slow
def test_training_lowers_the_noise(x64):
    random = np.random.default_rng(0)
    ramps = np.sin(np.linspace(0, 3, 16) + random.uniform(0, 6, (64, 1, 1)))
    noisy = ramps + 0.3 * random.normal(size=ramps.shape)
    op = no.GradientStep(no.ConvDenoiser(1, 8, 3, ndim=1, activation="silu", key=KEY))
    options = {"num_epochs": 30, "batch_size": 16, "key": KEY, "progress": False}
    op, _ = no.fit(op, (noisy[:48], ramps[:48]), loss=no.losses.mse, optimizer=optax.adam(3e-3), **options)
    error = float(jnp.mean((jax.vmap(op)(noisy[48:].astype("f4")) - ramps[48:]) ** 2))
    assert error < 0.5 * np.mean((noisy[48:] - ramps[48:]) ** 2)
