"""Latent spectral models: counts and grids of the paper, their parts against NumPy and SciPy, padding by hand."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

import neuralops as no
from neuralops.models.lsm import DoubleConv, doubled, max_pool, unit_coordinates

KEY = jax.random.key(2)
SMALL = {"n_levels": 2, "n_heads": 2, "n_tokens": 2, "n_basis": 3, "projection_channels": 6}
run = jax.jit(lambda op, u: op(u))
layer = jax.jit(lambda op, u: op.channels_last(u))


def size(op):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(op))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def wide(op):
    return jax.tree.map(lambda p: p.astype(jnp.float64), op)


COUNTS = {
    "darcy": 19_187_457,
    "navier_stokes": 19_188_033,
    "airfoil": 4_812_833,
    "pipe": 10_804_913,
    "elasticity_grid": 4_812_801,
    "plasticity": 13_457_828,
    "elasticity": 5_992_609 + 63_746,
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_the_paper(name):
    op = eqx.filter_eval_shape(lambda: no.LSM.paper(name, key=KEY))
    assert size(op) == COUNTS[name]
    if name == "elasticity":
        assert size(op.deformation) == 63_746


def test_parameters_of_a_block():
    """3 C^2 + 31 C with four tokens and twelve frequencies."""
    for channels in (16, 32):
        op = eqx.filter_eval_shape(lambda c=channels: no.nn.NeuralSpectralBlock(c, 2, key=KEY))
        assert size(op) == 3 * channels**2 + 31 * channels


# Grid, after padding, points of a patch; the padding of the official scripts is in the last two columns of the paper.
GRIDS = {
    "darcy": ((85, 85), (96, 96), (6, 6)),
    "navier_stokes": ((64, 64), (64, 64), (4, 4)),
    "airfoil": ((221, 51), (224, 64), (14, 4)),
    "pipe": ((129, 129), (144, 144), (9, 9)),
    "elasticity_grid": ((41, 41), (48, 48), (3, 3)),
    "plasticity": ((101, 31, 20), (112, 32, 32), (7, 2, 2)),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_of_the_paper(name, monkeypatch):
    grid, padded, patch = GRIDS[name]
    seen = []
    whole = no.nn.NeuralSpectralBlock.channels_last

    def watched(self, u):
        seen.append((u.shape[:-1], self.num_patches))
        return whole(self, u)

    monkeypatch.setattr(no.nn.NeuralSpectralBlock, "channels_last", watched)
    op = eqx.filter_eval_shape(lambda: no.LSM.paper(name, key=KEY, hidden_channels=8))
    u = jax.ShapeDtypeStruct((op.in_channels, *grid), jnp.float32)
    out = jax.eval_shape(lambda op, u: op(u), op, u)
    assert out.shape == (op.out_channels, *grid)
    assert sorted(points for points, _ in seen) == sorted(tuple(n // 2**level for n in padded) for level in range(5))
    for points, patches in seen:  # the same points in a patch on every scale, one patch on the coarsest
        assert tuple(n // p for n, p in zip(points, patches, strict=True)) == patch
    assert min(patches for _, patches in seen) == (1,) * len(grid)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_doubling_keeps_the_ends_and_is_that_of_scipy(x64, n):
    u = noise(n, 3, 2)
    got = np.asarray(doubled(jnp.asarray(u)))
    assert got.shape == (2 * n, 6, 2)
    rows = np.stack(
        [np.interp(np.linspace(0, max(n - 1, 0), 2 * n), np.arange(n), column) for column in u.reshape(n, -1).T]
    )
    first = rows.T.reshape(2 * n, 3, 2)
    wanted = scipy.ndimage.zoom(first, (1, 2, 1), order=1, grid_mode=False)
    np.testing.assert_allclose(got, wanted, atol=1e-14)
    np.testing.assert_array_equal(got[[0, 0, -1, -1], [0, -1, 0, -1]], u[[0, 0, -1, -1], [0, -1, 0, -1]])


def test_pooling_takes_the_largest():
    u = noise(6, 4, 8, 2)
    wanted = scipy.ndimage.maximum_filter(u, size=(2, 2, 2, 1), origin=(-1, -1, -1, 0))[::2, ::2, ::2]
    np.testing.assert_array_equal(max_pool(jnp.asarray(u)), wanted.astype(np.float32))


@pytest.mark.parametrize(("norm", "grid"), [(None, (7,)), ("instance_norm", (5, 6)), ("affine", (3, 4, 5))])
def test_double_convolution_is_that_of_scipy(x64, norm, grid):
    op = wide(DoubleConv(2, 3, 4, ndim=len(grid), norm=norm, key=KEY))
    if norm is not None:
        names = lambda op: [x for n in op.norms for x in (n.weight, n.bias)]
        op = eqx.tree_at(names, op, [jnp.asarray(noise(*p.shape, seed=i)) for i, p in enumerate(names(op))])
    u = noise(*grid, 2)
    x = u
    for kernel, normal in zip(op.kernels, op.norms, strict=True):
        kernel = np.asarray(kernel)
        x = np.stack(
            [
                sum(
                    scipy.ndimage.correlate(x[..., i], kernel[..., i, o], mode="constant")
                    for i in range(kernel.shape[-2])
                )
                for o in range(kernel.shape[-1])
            ],
            -1,
        )
        axes = tuple(range(len(grid)))
        if norm == "instance_norm":
            x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
        if norm is not None:
            x = x * np.asarray(normal.weight) + np.asarray(normal.bias)
        x = np.maximum(x, 0)
    np.testing.assert_allclose(layer(op, u), x, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("grid", [(8, 7), (5, 8), (7, 6)], ids=["one axis whole", "the other", "both filled"])
def test_padding_is_that_by_hand(x64, grid):
    """Zeros at the end up to a multiple of 2^(n_levels - 1), cut off again: no grid gives an empty field."""
    op = wide(no.LatentUNet(4, n_levels=3, n_heads=2, n_tokens=2, n_basis=3, key=KEY))
    u = noise(4, *grid)
    by_hand = np.pad(u, ((0, 0), *((0, -n % 4) for n in grid)))
    wanted = run(op, by_hand)[:, : grid[0], : grid[1]]
    got = run(op, u)
    assert got.shape == u.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-13)


def test_words_for_norms():
    sizes = {}
    for norm in ("instance_norm", "group_norm", "affine", None):
        op = eqx.filter_eval_shape(lambda n=norm: no.LSM(1, 1, 4, **SMALL, norm=n, key=KEY))
        sizes[norm] = size(op)
    widths = [4, 4, 4, 4, 4, 4]  # two of each double convolution: two down, one up
    assert sizes["instance_norm"] == sizes["group_norm"] == sizes["affine"] == sizes[None] + 2 * sum(widths)
    for word in ("batch_norm", "layer_norm"):
        with pytest.raises(ValueError, match="norm: expected"):
            no.LSM(1, 1, 4, **SMALL, norm=word, key=KEY)


def test_coordinates_run_along_their_axes(x64):
    x = unit_coordinates((3, 5))
    np.testing.assert_array_equal(x[:, 0, 0], [0, 0.5, 1])
    np.testing.assert_array_equal(x[0, :, 1], np.linspace(0, 1, 5))
    np.testing.assert_array_equal(x[:, :, 0], x[:, :1, 0] + np.zeros((3, 5)))
    # The network sees them after the values, in this order.
    op = wide(no.LSM(1, 1, 4, **SMALL, key=KEY))
    bare = wide(no.LSM(3, 1, 4, **SMALL, positional_embedding=None, key=KEY))
    bare = eqx.tree_at(
        lambda op: (op.lifting, op.network, op.projection), bare, (op.lifting, op.network, op.projection)
    )
    u = noise(1, 4, 6)
    both = np.concatenate([u, np.moveaxis(unit_coordinates((4, 6)), -1, 0)])
    np.testing.assert_allclose(run(op, u), run(bare, both), rtol=1e-12)


@pytest.mark.slow  # to compile
def test_levels_made_again_are_the_same():
    u = noise(1, 7).astype(np.float32)
    op = {c: no.LSM(1, 1, 4, **SMALL, ndim=1, checkpoint_levels=c, key=KEY) for c in (False, True)}
    total = jax.jit(jax.value_and_grad(lambda op: jnp.sum(jnp.sin(op(u)))))
    plain, again = total(op[False]), total(op[True])
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(plain[1]), jax.tree.leaves(again[1]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, float(np.abs(a).max())))
    made_again = lambda op: str(jax.make_jaxpr(op)(u)).count("prevent_cse=")  # of each jax.checkpoint
    assert made_again(op[True]) > made_again(op[False])


def test_it_counts_points(x64):
    """Spacing-locked, as declared: on finer grids of one function the output moves away from what it was."""
    op = wide(no.LSM(1, 1, 4, **SMALL, ndim=1, norm=None, key=KEY))
    assert op.envelope.refinement == "spacing-locked"
    field = lambda n: np.sin(5 * unit_coordinates((n,))[:, 0])[None]
    outs = [run(op, field(8 * s + 1))[:, ::s] for s in (1, 2, 4)]
    changes = [np.abs(out - outs[0]).max() / np.ptp(outs[0]) for out in outs[1:]]
    assert min(changes) > 0.1
    block = wide(no.nn.NeuralSpectralBlock(4, 1, ndim=1, n_heads=2, key=KEY))  # where a consistent one comes to rest
    cells = lambda n: np.cos(np.arange(1, 5)[:, None] * (np.arange(n) + 0.5) / n)
    outs = [run(block, cells(9 * s))[:, s // 2 :: s] for s in (1, 3, 9)]
    assert np.abs(outs[2] - outs[1]).max() < 0.2 * np.abs(outs[1] - outs[0]).max()


@pytest.mark.parametrize("options", [{}, {"ndim": 1, "patch_size": 2, "norm": "affine"}], ids=["2-D", "patch size"])
def test_saved_and_loaded(tmp_path, options):
    op = no.LSM(2, 1, 4, **SMALL, **options, key=KEY)
    no.save(tmp_path / "lsm", op)
    again = no.load(tmp_path / "lsm")
    assert no.operator.config_of(again) == no.operator.config_of(op)
    u = jnp.asarray(noise(2, *(8, 5)[: op.ndim]), jnp.float32)
    np.testing.assert_array_equal(run(again, u), run(op, u))
