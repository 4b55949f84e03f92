"""One test for all public operators: what the protocol promises holds for every class that is exported.

A new operator joins by being exported from `neuralops` or one of its rooms; the test then asks for a line
in `EXAMPLES` and checks the rest by itself.
"""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops.data import Normalized, Normalizer
from neuralops.grid import Grid
from neuralops.inverse import maps
from neuralops.nn import (
    Affine,
    ChannelMLP,
    ConvEncoder,
    ConvexConv,
    ConvexDense,
    ConvexIntegral,
    Deformation,
    GroupNorm,
    LayerNorm,
    Linear,
    MLPEncoder,
    MultigridConv,
    NeuralSpectralBlock,
    PhysicsAttention,
    PointEncoder,
    SeparableConv,
    SoftGate,
    SpectralConv,
)
from neuralops.solvers import Chebyshev, Jacobi, Scaled

key = jax.random.key(7)
WALLS = ("neumann", "periodic", "dirichlet")
BOX = Grid((6, 7), boundary=("dirichlet", "periodic"), centering="cell")
COEFFICIENT = 1 + np.random.default_rng(0).uniform(size=BOX.shape)
VARIED = no.Diffusion.from_coefficient(BOX, jnp.asarray(COEFFICIENT))

SCALE = Normalizer((1.0,), (2.0,), 1)
NODES = Grid((4, 5), boundary="neumann")
CLOUD, WANTED = np.random.default_rng(1).uniform(size=(2, 2, 5)).astype(np.float32)  # inside every domain below

BLURRED = maps.Blur((1, 6, 7), maps.gaussian(0.8), "zero")
PROJECTED = maps.Radon(BOX, (0.1, 1.0, 2.5))


def decoder(seed, out_channels=1, **options):
    """A decoder of codes of four numbers, as trained: at the start its outputs are zero."""
    op = no.MultiONet(4, 1, out_channels, 6, n_layers=3, sum_layers=2, key=jax.random.key(seed), **options)
    return eqx.tree_at(lambda op: op.weight, op, jax.random.normal(jax.random.key(seed), op.weight.shape))


# Per class: makers of the operators to try, each with the shape of a field it takes. Extra inputs that an operator
# cannot do without are fixed by `at`.
EXAMPLES = {
    "At": [(lambda: no.at(Normalized(Linear(1, 1, key=key), SCALE, None), mask=np.arange(5) < 3), (1, 5))],
    "Chebyshev": [(lambda: Chebyshev(VARIED, 3, bounds=(0.1, 2.0)), (1, 6, 7))],
    "ChannelMLP": [(lambda: ChannelMLP(2, 3, 4, key=key), (2, 5, 6))],
    "ConvEncoder": [
        (lambda: ConvEncoder((7, 9), 2, 5, (6,), conv_channels=(3, 4), last_activation="tanh", key=key), (2, 7, 9)),
        (lambda: ConvEncoder(11, 1, 3, (), conv_channels=(4,), kernel_size=5, stride=3, key=key), (1, 11)),
    ],
    "ConvDenoiser": [
        (lambda: no.ConvDenoiser(2, 3, 2, key=key), (2, 5, 6)),
        (
            lambda: no.ConvDenoiser(
                1,
                2,
                3,
                ndim=3,
                boundary=WALLS,
                centering="node",
                use_bias=False,
                residual=False,
                activation="silu",
                key=key,
            ),
            (1, 3, 4, 5),
        ),
    ],
    "ConvexConv": [(lambda: ConvexConv(1, 2, ndim=1, strides=(2,), window=2, readout_channels=2, key=key), (1, 5))],
    "ConvexDense": [(lambda: ConvexDense((2, 2), 1, 3, n_layers=1, alpha=0.1, key=key), (1, 2, 2))],
    "ConvexIntegral": [(lambda: ConvexIntegral(2, 1, 2, dilations=(1, 2), key=key), (1, 4))],
    "DGNO": [
        (lambda: no.DGNO(MLPEncoder((5, 5), 1, 4, (8,), key=key), decoder(1, factor="both"), decoder(2)), (1, 5, 5)),
        (
            lambda: no.DGNO(
                MLPEncoder((5, 5), 1, 4, (8,), key=key),
                [decoder(1), decoder(2)],
                decoder(3),
                decoder(4, 2),
                phases=(5.0, 10.0),
                stream_function=True,
            ),
            (1, 5, 5),
        ),
        (
            lambda: no.DGNO(
                MLPEncoder((5, 5), 1, 8, (8,), key=key), decoder(1), variational=True, code="identity", shift=1, scale=2
            ),
            (1, 5, 5),
        ),
    ],
    "DeepONet": [
        (lambda: no.DeepONet(NODES, 1, 2, 6, n_layers=2, last_activation="tanh", key=key), (1, 4, 5)),
        (
            lambda: no.at(
                no.DeepONet(
                    None,
                    1,
                    1,
                    4,
                    n_layers=2,
                    branch_layers=0,
                    encoder=PointEncoder(1, 4, (5,), key=key),
                    domain=((-1, 1),) * 2,
                    key=key,
                ),
                coords=CLOUD,
                query=WANTED,
            ),
            (1, 5),
        ),
    ],
    "Diffusion": [
        (lambda: VARIED, (1, 6, 7)),
        (lambda: no.Diffusion(BOX), (1, 6, 7)),
    ],
    "DirectionNet": [
        (lambda: no.DirectionNet((1, 1, 1), 4, ndim=2, key=key), (1, 6, 8)),
        (
            lambda: no.DirectionNet((0, 1, 0), 3, ndim=3, boundary=WALLS, centering="cell", scaling="rms", key=key),
            (1, 4, 6, 2),
        ),
    ],
    "FNO": [
        (lambda: no.FNO((4,), 2, 1, 4, n_layers=2, key=key), (2, 9)),
        (lambda: no.FNO((4, 4), 1, 2, 4, n_layers=2, norm="group_norm", domain_padding=0.2, key=key), (1, 8, 7)),
        (lambda: no.FNO((4, 3, 2), 1, 1, 4, boundary=WALLS, centering="cell", key=key), (1, 6, 5, 4)),
        (lambda: no.FNO((4, 4), 1, 1, 4, n_layers=1, skip="local", compress=("cp", 2), key=key), (1, 6, 5)),
        (lambda: no.FNO((4, 4), 1, 1, 4, factorization="tucker", rank=0.5, preactivation=True, key=key), (1, 8, 8)),
    ],
    "FastPoisson": [(lambda: no.FastPoisson(BOX), (1, 6, 7))],
    "GradientStep": [
        (lambda: no.GradientStep(no.ConvDenoiser(1, 3, 2, ndim=1, activation="silu", key=key)), (1, 7)),
    ],
    "GroupNorm": [(lambda: GroupNorm(4, 2, boundary="neumann"), (4, 6))],
    "Inverse": [
        (lambda: no.Inverse(VARIED, no.CG(1e-6, preconditioner=no.FastPoisson(BOX)), dtype="float32"), (1, 6, 7)),
        (lambda: no.Inverse(no.Diffusion(BOX), no.FastPoisson(BOX)), (1, 6, 7)),
    ],
    "Jacobi": [(lambda: Jacobi(VARIED), (1, 6, 7))],
    "LayerNorm": [(lambda: LayerNorm(3, (4, 5)), (3, 4, 5))],
    "Linear": [(lambda: Linear(2, 3, key=key), (2, 5))],
    "MLPEncoder": [(lambda: MLPEncoder((2, 3), 2, 5, (6, 4), key=key), (2, 2, 3))],
    "MgNO": [
        (lambda: no.MgNO(1, 2, 4, n_layers=1, sweeps=((1, 1), (2, 0)), boundary=WALLS[:2], key=key), (1, 9, 8)),
        (
            lambda: no.MgNO(
                2,
                2,
                3,
                n_layers=1,
                sweeps=((1, 0), (1, 0)),
                ndim=1,
                norm="layer",
                num_points=9,
                residual=True,
                head="cycle",
                use_bias=True,
                key=key,
            ),
            (2, 9),
        ),
    ],
    "Multigrid": [
        (lambda: no.Multigrid(no.Diffusion.from_coefficient(BOX, jnp.asarray(COEFFICIENT))), (1, 6, 7)),
        (
            lambda: no.Multigrid(no.Diffusion(Grid(150, boundary="dirichlet")), smoother="chebyshev", cycle="W"),
            (1, 150),
        ),
        (
            lambda: no.Multigrid(
                no.Diffusion(Grid((20, 9), boundary="dirichlet")),
                coarsening="nodes",
                learned=no.MultigridDirection(*no.Multigrid.learned_channels(2), 4, key=key),
            ),
            (1, 20, 9),
        ),
    ],
    "MultigridDirection": [
        (lambda: no.MultigridDirection(17, 14, 4, n_layers=2, key=key), (17, 5, 6)),
        (lambda: no.MultigridDirection(5, 5, 4, ndim=1, boundary="periodic", key=key), (5, 7)),
    ],
    "MultiONet": [
        (
            lambda: no.MultiONet(
                Grid((7, 9), boundary="dirichlet", centering="cell"),
                1,
                1,
                6,
                n_layers=4,
                sum_layers=2,
                encoder=ConvEncoder((7, 9), 1, 5, (6,), conv_channels=(3,), key=key),
                factor="both",
                chunk_size=20,
                key=key,
            ),
            (1, 7, 9),
        ),
        (
            lambda: no.at(
                no.MultiONet(4, 2, 3, 5, n_layers=3, sum_layers=2, variant="x", branch_activation="silu_id", key=key),
                query=WANTED,
            ),
            (2, 4),
        ),
        (
            lambda: no.at(
                no.MultiONet(
                    None,
                    1,
                    2,
                    4,
                    n_layers=3,
                    sum_layers=2,
                    encoder=PointEncoder(1, 5, (6,), key=key),
                    domain=((-1, 1),) * 2,
                    key=key,
                ),
                coords=CLOUD,
                query=WANTED,
            ),
            (1, 5),
        ),
    ],
    "MultigridConv": [
        (
            lambda: MultigridConv(
                2,
                3,
                ((1, 1), (1, 0)),
                ndim=3,
                transfer="residual",
                coarse_init="zero",
                boundary="neumann",
                centering="cell",
                key=key,
            ),
            (2, 6, 5, 4),
        ),
    ],
    "PointEncoder": [(lambda: no.at(PointEncoder(2, 4, (6, 5), key=key), coords=CLOUD), (2, 5))],
    "Residual": [
        (lambda: no.Residual(Linear(3, 1, key=key), order=1, contraction=0.9), (3, 5)),
        (lambda: no.Residual(Linear(2, 4, key=key), frame_channels=2), (2, 5)),
    ],
    "Rollout": [
        (lambda: no.Rollout(Linear(2, 2, key=key), 3, recompute=True), (2, 5)),
        (lambda: no.Rollout(Linear(3, 1, key=key), 3, constants=1), (3, 5)),
    ],
    "Truncated": [
        (lambda: no.Truncated(Linear(1, 2, key=key), 4), (1, 9)),
        (lambda: no.Truncated(Linear(1, 1, key=key), (3, 2, 2), boundary=WALLS, centering="cell"), (1, 6, 5, 4)),
    ],
    "Normalized": [(lambda: Normalized(Linear(1, 1, key=key), Normalizer((1.0,), (2.0,), 1), None), (1, 5))],
    "Scaled": [(lambda: Scaled(no.FastPoisson(BOX), jnp.asarray(COEFFICIENT) ** -0.5), (1, 6, 7))],
    "SeparableConv": [
        (lambda: SeparableConv(2, 3, 3, key=key), (2, 5, 6)),
        (lambda: SeparableConv(2, 2, (3, 5), 3, variant="cp", boundary=WALLS[:2], stride=2, key=key), (2, 6, 7)),
        (
            lambda: SeparableConv(
                2, 3, 3, 0.5, variant="depthwise", ndim=3, padding=(0, 1, (0, 2)), use_bias=False, key=key
            ),
            (2, 4, 3, 5),
        ),
    ],
    "SoftGate": [(lambda: SoftGate(3), (3, 4, 4))],
    "SpectralConv": [
        (lambda: SpectralConv(2, 3, (4, 5), key=key), (2, 8, 9)),
        (lambda: SpectralConv(2, 2, (4, 5), boundary=WALLS[::2], factorization="tt", rank=0.5, key=key), (2, 8, 9)),
    ],
    # latent spectral models, Transolver and operators on points
    "Affine": [(lambda: Affine(3), (3, 4, 5))],
    "Deformation": [
        (lambda: Deformation(width=4, key=key), (2, 5)),
        (lambda: no.at(Deformation(1, width=4, code_channels=3, key=key), code=np.ones(3)), (1, 6)),
    ],
    "GeoOperator": [
        (
            lambda: no.at(
                no.GeoOperator(
                    Linear(4, 4, key=key),
                    1,
                    2,
                    n_modes=(4, 3),
                    latent_points=5,
                    deformation=Deformation(width=4, code_channels=3, key=key),
                    projection_channels=6,
                    key=key,
                ),
                coords=CLOUD,
                query=WANTED,
                weights=np.linspace(1, 2, 5),
                code=np.ones(3),
            ),
            (1, 5),
        ),
        (
            lambda: no.at(
                no.GeoOperator(
                    Linear(2, 2, key=key),
                    1,
                    1,
                    n_modes=(3, 4),
                    latent_points=(4, 6),
                    transform="published",
                    chunk_size=2,
                    domain=((-1, 2),) * 2,
                    key=key,
                ),
                coords=CLOUD,
            ),
            (1, 5),
        ),
    ],
    "LPN": [
        (lambda: no.LPN(ConvexDense(3, 2, 3, n_layers=1, key=key)), (2, 3)),
        (lambda: no.at(no.LPN(ConvexDense(3, 1, 3, code_range=(0, 1), key=key)), code=np.ones(1, np.float32)), (1, 3)),
    ],
    "LSM": [(lambda: no.LSM(1, 2, 2, ndim=1, n_levels=2, n_heads=2, n_tokens=2, n_basis=2, key=key), (1, 7))],
    "LatentUNet": [
        (
            lambda: no.LatentUNet(
                2,
                ndim=1,
                n_levels=2,
                patch_size=2,
                n_heads=1,
                n_basis=2,
                norm="affine",
                checkpoint_levels=True,
                key=key,
            ),
            (2, 5),
        ),
    ],
    "NeuralSpectralBlock": [
        (lambda: NeuralSpectralBlock(4, (2, 3), n_heads=2, n_tokens=3, n_basis=3, key=key), (4, 7, 6)),
        (lambda: NeuralSpectralBlock(2, patch_size=3, ndim=1, n_heads=2, key=key), (2, 9)),
    ],
    "Patched": [(lambda: no.Patched(no.LPN(ConvexDense(4, 1, 2, n_layers=1, key=key)), 4, chunk_size=2), (1, 5))],
    "PhysicsAttention": [
        (lambda: no.at(PhysicsAttention(4, 2, 3, key=key), weights=np.linspace(1, 2, 5)), (4, 5)),
        (lambda: PhysicsAttention(4, 2, 3, kernel_ndim=2, key=key), (4, 5, 4)),
    ],
    "Transolver": [
        (
            lambda: no.at(
                no.Transolver(1, 2, 8, n_layers=1, n_heads=2, n_slices=3, key=key),
                coords=CLOUD,
                mask=np.arange(5) < 4,
            ),
            (1, 5),
        ),
        (
            lambda: no.Transolver(
                1,
                1,
                8,
                structured=True,
                n_layers=1,
                n_heads=2,
                n_slices=3,
                positional_embedding="reference",
                reference_points=3,
                checkpoint_blocks=True,
                key=key,
            ),
            (1, 5, 4),
        ),
    ],
    "WaveNet": [
        (lambda: no.WaveNet(2, 1, 3, n_layers=1, dilations=(1, 2), key=key), (2, 5, 6, 4)),
        (
            lambda: no.WaveNet(
                1,
                2,
                4,
                kernel_size=(3, 2),
                n_layers=2,
                dilations=(1, (2, 1)),
                ndim=2,
                boundary=("periodic", "zero"),
                causal=True,
                compress=("depthwise", 1),
                positional_embedding="grid",
                checkpoint_blocks=True,
                key=key,
            ),
            (1, 6, 5),
        ),
        (lambda: no.WaveNet(1, 1, 4, n_layers=1, ndim=1, boundary="neumann", norm="group_norm", key=key), (1, 7)),
    ],
    # linear measurements
    "Added": [(lambda: BLURRED + maps.Inpainting(np.arange(42).reshape(6, 7) % 3 > 0), (1, 6, 7))],
    "BlockMean": [(lambda: maps.BlockMean((2, 6, 4), (3, 2)), (2, 6, 4))],
    "Blur": [
        (lambda: BLURRED, (1, 6, 7)),
        (lambda: maps.Blur((2, 9), jnp.asarray([0.2, 0.5, 1.0, 0.1]), "full"), (2, 9)),
    ],
    "Composed": [(lambda: maps.BlockMean((1, 6, 7), (3, 1)) @ BLURRED, (1, 6, 7))],
    "CompressedSensing": [(lambda: maps.CompressedSensing((1, 4, 5), 7, seed=2), (1, 4, 5))],
    "FilteredBackProjection": [(lambda: maps.FilteredBackProjection(PROJECTED, "hann"), (1, 3, 10))],
    "Gradient": [(lambda: maps.Gradient((2, 4, 5), (1.0, 0.5)), (2, 4, 5))],
    "Identity": [(lambda: maps.Identity((2, 5)), (2, 5))],
    "Inpainting": [(lambda: maps.Inpainting(np.arange(7) > 2, channels=2), (2, 7))],
    "Linearized": [(lambda: maps.Linearized(Linear(2, 3, key=key), jnp.ones((2, 5))), (2, 5))],
    "Matrix": [(lambda: maps.Matrix(jnp.asarray(COEFFICIENT, jnp.float32), (1, 7)), (1, 7))],
    "Multiple": [(lambda: 2 * BLURRED, (1, 6, 7))],
    "Normal": [(lambda: BLURRED.normal(), (1, 6, 7))],
    "PointValues": [(lambda: maps.PointValues(BOX, WANTED), (1, 6, 7))],
    "Radon": [
        (lambda: PROJECTED, (1, 6, 7)),
        (lambda: maps.Radon(BOX, maps.half_turn(4), 5, 0.3), (1, 6, 7)),
    ],
    "SourceToSolution": [
        (lambda: maps.SourceToSolution(no.pde.Poisson((6, 7))), (1, 6, 7)),
        (lambda: maps.SourceToSolution(VARIED, no.CG(1e-6, preconditioner=no.FastPoisson(BOX))), (1, 6, 7)),
    ],
    "Stack": [(lambda: maps.stack(BLURRED, maps.Gradient((1, 6, 7)), PROJECTED), (1, 6, 7))],
    "SubsampledFourier": [(lambda: maps.SubsampledFourier(np.eye(4, 5)), (1, 4, 5))],
    "Transposed": [(lambda: maps.BlockMean((1, 6, 4), 2).T, (1, 3, 2))],
}


def public_operators():
    found = {}
    for room in (no, no.nn, no.models, no.solvers, no.data, no.pde, maps):
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isclass(value) and issubclass(value, no.AbstractOperator) and not inspect.isabstract(value):
                found[name] = value
    return found


built = functools.cache(lambda make: make())  # when a test asks for it: making them all takes ten seconds


@pytest.fixture
def op(make):
    return built(make)


def each_operator(slow=()):
    return pytest.mark.parametrize(
        ("make", "shape"),
        [
            pytest.param(make, shape, id=f"{name}-{i}", marks=[pytest.mark.slow] * (name in slow))
            for name, examples in EXAMPLES.items()
            for i, (make, shape) in enumerate(examples)
        ],
    )


every_operator = each_operator()


def field(shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


# One program for an operator and its like; operation by operation, which compiles each, one example of a class is tried
# in `test_plain_transformations`.
run = jax.jit(lambda op, u: op(u))


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max())))


def test_every_public_operator_is_tried():
    assert {*public_operators(), "At"} == set(EXAMPLES)  # made by a function, no.at


@every_operator
def test_leaves_are_real_arrays(op, shape):
    assert isinstance(op, no.Operator)
    for leaf in jax.tree.leaves(op):
        assert isinstance(leaf, jax.Array)
        assert jnp.issubdtype(leaf.dtype, jnp.floating)
    hash(jax.tree.structure(op))  # static fields are hashable, so the operator may be a jit argument
    assert op == op
    assert hash(op) == object.__hash__(op)


@each_operator(slow=("GeoOperator", "LSM", "LatentUNet"))  # to compile
def test_plain_transformations(op, make, shape):
    u, v = field(shape), field(shape, 1)
    expected = op(u) if make is EXAMPLES[type(op).__name__][0][0] else run(op, u)
    total = lambda op, u: jnp.sum(jnp.sin(op(u)))

    def descend(carry, x):
        slopes = jax.grad(total, argnums=(0, 1))(carry, x)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, carry, slopes[0]), (carry(x), slopes[1])

    @jax.jit
    def transformed(op, u, v):
        return {
            "argument": op(u),
            "vmap": jax.vmap(op)(jnp.stack([v, u]))[1],
            "checkpoint": jax.checkpoint(op)(u),
            "slope": jax.jvp(lambda u: total(op, u), (u,), (v,))[1],
            "scan": jax.lax.scan(descend, op, jnp.stack([u, v])),
        }

    got = transformed(op, u, v)
    close(run(op, u), expected)
    for name in ("argument", "vmap", "checkpoint"):
        close(got[name], expected)
    last, (outputs, slopes) = got["scan"]
    close(np.vdot(slopes[0], v), got["slope"], 2e-4)
    close(outputs[0], expected)
    assert jax.tree.structure(last) == jax.tree.structure(op)


@every_operator
def test_double_precision(op, shape):
    single = run(op, field(shape))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: p.astype(jnp.float64), op)
        double = run(wide, field(shape, dtype=np.float64))
        assert double.dtype == jnp.float64
    assert single.dtype == jnp.float32
    close(single, double)


@every_operator
def test_save_and_load(op, shape, tmp_path):
    no.save(tmp_path / "op.safetensors", op)
    again = no.load(tmp_path / "op.safetensors")
    assert type(again) is type(op)
    assert jax.tree.structure(again) == jax.tree.structure(op)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(op), strict=True):
        np.testing.assert_array_equal(a, b)
    # To rounding: arrays that were one object are two after loading, and XLA may fuse the two programs differently.
    np.testing.assert_allclose(jax.jit(again)(field(shape)), run(op, field(shape)), rtol=1e-5, atol=1e-7)


@every_operator
def test_wrong_fields_are_refused(op, shape):
    bad = [np.ones((*shape, 3, 3, 3), np.float32), np.ones(shape, np.int32), np.ones(shape, complex)]
    if op.envelope.refinement == "grid-locked":
        bad.append(np.ones((*shape[:-1], shape[-1] + 1), np.float32))
    else:
        bad += [np.ones((shape[0] + 1, *shape[1:]), np.float32), np.ones(shape[-1:], np.float32)]
    if len(op.envelope.ndim) > 1:
        bad = bad[1:]  # takes fields of any dimension
    for u in bad:
        with pytest.raises(ValueError, match=r"expected|expects|locked") as error:
            jax.eval_shape(op, u)  # without computing anything
        assert ";" in str(error.value)  # after what came, the mend


@every_operator
def test_declared_refinement(op, shape):
    """Exact operators give the same function on a finer grid; the others are measured in their own tests."""
    envelope = op.envelope
    assert envelope.refinement in ("exact", "consistent", "spacing-locked", "grid-locked")
    assert (envelope.order is not None) == (envelope.refinement == "consistent")
    assert set(envelope.boundary) <= {"periodic", "dirichlet", "neumann"}
    if envelope.refinement != "exact":
        return
    boundary = getattr(op, "boundary", "periodic")
    grid = Grid(shape[1:], boundary=boundary, centering=getattr(op, "centering", "node"))
    fine = grid.with_points([3 * n for n in grid.shape])
    coarse_modes = grid.with_points([min(n, 3) for n in grid.shape])  # a field of three modes per axis
    seed = field((shape[0], *coarse_modes.shape))
    resample = jax.jit(no.resample, static_argnums=(1, 2))
    u, u_fine = (resample(seed, coarse_modes, g) for g in (grid, fine))
    if type(op).__name__ == "SpectralConv":
        close(jax.jit(lambda op, u: op(u, num_points=fine.shape))(op, u), run(op, u_fine), 1e-5)
    elif type(op).__name__ == "GroupNorm":  # a quadrature: exact moments for band-limited squares
        close(resample(run(op, u), grid, fine), run(op, u_fine), 1e-4)
    elif type(op).__name__ in ("Affine", "Linear", "SoftGate"):  # linear and pointwise: commutes with resampling
        shift = lambda op, g: run(op, jnp.zeros((shape[0], *g.shape)))
        close(resample(run(op, u) - shift(op, grid), grid, fine), run(op, u_fine) - shift(op, fine), 1e-5)


@every_operator
def test_config_rebuilds_the_operator(op, shape):
    config = no.operator.config_of(op)
    takes_key = "key" in inspect.signature(type(op).__init__).parameters
    rebuilt = eqx.filter_eval_shape(lambda: type(op)(**config, **({"key": key} if takes_key else {})))
    assert jax.tree.structure(rebuilt) == jax.tree.structure(jax.eval_shape(lambda: op))
