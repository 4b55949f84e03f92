"""The space-time surrogate: against SciPy's correlations, closed-form counts, and what its reach says."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage

import neuralops as no
from neuralops.nn import conv_counts
from neuralops.nn.kernel_factors import VARIANTS, KernelFactors

KEY = jax.random.key(3)
RNG = np.random.default_rng(3)


def size(op):
    return sum(leaf.size for leaf in jax.tree.leaves(op))


def is_factors(x):
    return isinstance(x, KernelFactors)


def as_dense(op):
    """The same network with each kernel composed."""
    return jax.tree.map(lambda x: x.array() if is_factors(x) else x, op, is_leaf=is_factors)


def wide(op):
    return jax.tree.map(lambda x: x.astype(jnp.float64), op)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("compress", [None, ("kernel", 2), ("cp", 3), ("depthwise", 1)])
def test_counts_are_those_of_the_formula(ndim, compress):
    h, layers, dilations, kernel = 4, 2, (1, 2, 4), (3, 5, 3)[:ndim]
    op = no.WaveNet(2, 3, h, kernel_size=kernel, n_layers=layers, dilations=dilations, ndim=ndim, compress=compress,
                    norm="group_norm", positional_embedding="grid", key=KEY)  # fmt: skip
    one = h * h * math.prod(kernel) + h
    if compress is not None:
        one = conv_counts(h, h, kernel, compress[1], variant=compress[0]).parameters
    affine = 2 * h  # of a norm
    assert size(op) == (2 + ndim) * h + h + layers * len(dilations) * (one + affine) + h * 3 + 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_compressed_is_dense_with_the_composed_kernels(variant, x64):
    op = wide(no.WaveNet(1, 2, 4, n_layers=2, dilations=(1, 2), compress=(variant, 2), key=KEY))
    dense = as_dense(op)
    assert not any(map(is_factors, jax.tree.leaves(dense, is_leaf=is_factors)))
    u = jnp.asarray(RNG.normal(size=(1, 5, 4, 6)))
    run = jax.jit(lambda op, u: op(u))
    np.testing.assert_allclose(run(op, u), run(dense, u), rtol=1e-11, atol=1e-12)


MODES = {("zero", "node"): "constant", ("periodic", "node"): "wrap", ("neumann", "node"): "mirror",
         ("neumann", "cell"): "reflect", ("periodic", "cell"): "wrap"}  # fmt: skip


def stretched(kernel, dilation):
    """A kernel with zeros between its taps."""
    shape = [d * (k - 1) + 1 for k, d in zip(kernel.shape, dilation, strict=True)]
    out = np.zeros(shape)
    out[tuple(slice(None, None, d) for d in dilation)] = kernel
    return out


@pytest.mark.parametrize(("boundary", "centering"), MODES)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_network_is_that_of_scipy(boundary, centering, ndim, x64):
    kernel, dilations = {2: ((3, 5), (1, (2, 1))), 3: (3, ((2, 1, 3), 2))}[ndim]
    op = wide(no.WaveNet(2, 1, 3, kernel_size=kernel, n_layers=1, dilations=dilations, ndim=ndim, boundary=boundary,
                         centering=centering, activation="tanh", key=KEY))  # fmt: skip
    op = eqx.tree_at(lambda op: [c.bias for b in op.blocks for c in b.convolutions], op,
                     [jnp.asarray(RNG.normal(size=3)) for _ in range(2)])  # fmt: skip
    u = RNG.normal(size=(2, 8, 9, 7)[: ndim + 1])
    linear = lambda layer, v: (
        np.einsum("oi,i...->o...", layer.weight, v) + np.asarray(layer.bias).reshape(-1, *(1,) * ndim)
    )
    v = linear(op.lifting, u)
    for block in op.blocks:
        w = v
        for convolution, dilation in zip(block.convolutions, op.dilations, strict=True):
            w, out = np.tanh(w), np.zeros_like(w) + np.asarray(convolution.bias).reshape(-1, *(1,) * ndim)
            for i, o in itertools.product(range(3), range(3)):
                taps = stretched(np.asarray(convolution.kernel)[..., i, o], dilation)
                out[o] += scipy.ndimage.correlate(w[i], taps, mode=MODES[boundary, centering])
            w = out
        v = v + w
    np.testing.assert_allclose(jax.jit(op)(jnp.asarray(u)), linear(op.projection, np.tanh(v)), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_a_point_depends_on_its_reach_and_on_nothing_else(causal, x64):
    op = wide(no.WaveNet(1, 1, 3, kernel_size=(3, 2 if causal else 3), n_layers=2, dilations=(1, (1, 2)), ndim=2,
                         causal=causal, activation="tanh", key=KEY))  # fmt: skip
    (before, behind), (past, future) = op.reach
    assert (before, behind) == (4, 4)
    assert (past, future) == ((6, 0) if causal else (6, 6))
    slope = jax.grad(lambda u: op(u)[0, 8, 9])(jnp.asarray(RNG.normal(size=(1, 17, 19))))[0]
    rows, columns = (np.flatnonzero(np.any(slope != 0, axis)) for axis in (1, 0))
    assert (rows.min(), rows.max()) == (8 - before, 8 + behind)
    assert (columns.min(), columns.max()) == (9 - past, 9 + future)


def test_a_causal_network_does_not_see_what_comes():
    u = RNG.normal(size=(1, 6, 9)).astype(np.float32)
    later = np.where(np.arange(9) < 5, u, -u)
    for causal in (False, True):
        op = no.WaveNet(1, 1, 3, n_layers=1, ndim=2, boundary=("periodic", "zero"), causal=causal, key=KEY)
        one, other = jax.jit(jax.vmap(op))(jnp.stack([u, later]))
        same = np.isclose(one, other, rtol=1e-5, atol=1e-6).all((0, 1))
        assert same[:5].all() == causal
        assert not same[5:].any()


def test_periodic_axes_commute_with_shifts(x64):
    op = wide(no.WaveNet(1, 1, 3, n_layers=2, dilations=(1, 2), ndim=2, boundary="periodic", norm="instance_norm",
                         key=KEY))  # fmt: skip
    u = jnp.asarray(RNG.normal(size=(1, 6, 7)))
    run = jax.jit(op)
    shifted = run(jnp.roll(u, (2, 3), (1, 2)))
    np.testing.assert_allclose(shifted, jnp.roll(run(u), (2, 3), (1, 2)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("compress", [None, ("kernel", 1), ("cp", 16)])
def test_depth_does_not_make_fields_grow(compress):
    u = jnp.asarray(RNG.normal(size=(16, 12, 12)), jnp.float32)
    spread = {}
    for depth in (1, 6):
        options = {"n_layers": depth, "dilations": (1, 2), "ndim": 2, "boundary": "periodic", "activation": "relu"}
        op = no.WaveNet(16, 16, 16, **options, compress=compress, key=KEY)
        spread[depth] = float(jnp.std(jax.jit(lambda op, u: op(u))(op, u)))
    assert 0.4 < spread[6] / spread[1] < 2.5


def test_recomputed_blocks_have_the_same_gradient():
    u = jnp.asarray(RNG.normal(size=(1, 6, 5)), jnp.float32)
    slopes = []
    for flag in (False, True):
        op = no.WaveNet(1, 1, 3, n_layers=2, dilations=(1,), ndim=2, checkpoint_blocks=flag, key=KEY)
        slopes.append(jax.jit(jax.grad(lambda op: jnp.sum(op(u) ** 2)))(op))
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_learns_the_block_that_a_wave_fills():
    """Two pulses that part, u(x, t) = (f(x - t) + f(x + t)) / 2 by d'Alembert, from f at all times alike."""
    x, t = np.arange(12)[:, None], np.arange(5)[None]

    def blocks(num):
        k = np.arange(1, 3)[:, None, None]
        a, b = np.random.default_rng(num).normal(size=(2, num, 2, 1, 1))
        f = lambda s: np.sum(a * np.cos(np.pi * k * s / 6) + b * np.sin(np.pi * k * s / 6), 1)
        pair = np.stack([f(x + 0 * t), (f(x - t) + f(x + t)) / 2]).astype(np.float32)
        return pair[0][:, None], pair[1][:, None]

    op = no.WaveNet(1, 1, 8, n_layers=1, dilations=(1, 2, 2), ndim=2, boundary=("periodic", "zero"), activation="tanh",
                    positional_embedding="grid", key=KEY)  # fmt: skip
    data, test = blocks(64), blocks(16)
    op, _ = no.fit(op, data, loss=no.losses.l2(), optimizer=optax.adam(1e-2), num_epochs=14, batch_size=16, key=KEY,
                   progress=False)  # fmt: skip
    error = no.evaluate(op, test)["relative_l2"].mean()
    first_frame = np.mean([no.metrics.relative_l2(*pair) for pair in zip(*map(jnp.asarray, test), strict=True)])
    assert error < 0.25 * first_frame
