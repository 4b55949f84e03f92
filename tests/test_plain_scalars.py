"""Counts and truth values from NumPy and JAX are as good as Python's, wherever an option takes one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops import inverse
from neuralops.nn import (
    Affine,
    ChannelMLP,
    ConvEncoder,
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
    SpectralConv,
)

KEY = jax.random.key(0)
GRID = no.Grid((8, 8), 1.0, "dirichlet")
A = no.Diffusion(GRID)
SWEEPS = [(1, 1), (1, 0)]
LINE = {"sweeps": SWEEPS, "ndim": 1, "key": KEY}

PROX = no.LPN(no.nn.ConvexDense(4, 1, 2, key=KEY))
TWO = {"in_channels": 2, "out_channels": 2}
CONVOLVED = {"hidden_channels": (), "conv_channels": (2,), "key": KEY}
POINTED = {"hidden_channels": (2,), "key": KEY}
CODING = MLPEncoder(4, 1, 8, (2,), key=KEY)
SMALL = {"ndim": 1, "n_levels": 2, "n_heads": 1, "n_basis": 2}
ATTENTIVE = {"hidden_channels": 2, "n_layers": 1, "n_heads": 1, "n_slices": 2}
LATENT = no.LatentUNet(2, **SMALL, key=KEY)


def multionet(**options):
    plain = {"sensors": 4, "in_channels": 1, "out_channels": 1, "hidden_channels": 4, "n_layers": 3, "sum_layers": 2}
    return no.MultiONet(**{**plain, "domain": ((0, 1),), **options}, key=KEY)


# What is built, from the option under test; its name, and a value that is not the default.
CASES = [
    (lambda **o: Linear(**{"in_channels": 1, "out_channels": 1, **o}, key=KEY), {"in_channels": 2, "out_channels": 2}),
    (lambda **o: Linear(1, 1, **o, key=KEY), {"use_bias": False}),
    (lambda **o: ChannelMLP(1, 1, **o, key=KEY), {"hidden_channels": 2}),
    (
        lambda **o: ChannelMLP(**{"in_channels": 1, "out_channels": 1, **o}, hidden_channels=1, key=KEY),
        {"in_channels": 2},
    ),
    (lambda **o: SpectralConv(**{"in_channels": 1, "out_channels": 1, **o}, n_modes=(3,), key=KEY), {"in_channels": 2}),
    (lambda **o: SpectralConv(1, 1, (3,), **o, key=KEY), {"separable": True, "use_bias": False}),
    (
        lambda **o: SeparableConv(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **o}, key=KEY),
        {**TWO, "kernel_size": 5, "stride": 2, "dilation": 3, "ndim": 3, "use_bias": False},
    ),
    (lambda **o: GroupNorm(4, **o), {"groups": 2, "use_affine": False}),
    (lambda **o: LayerNorm(**o, num_points=(3,)), {"in_channels": 2}),
    (lambda **o: MultigridConv(1, 1, SWEEPS, **{"ndim": 1, **o}, key=KEY), {"ndim": 2, "use_bias": True}),
    (lambda **o: MultigridConv(1, 1, SWEEPS, ndim=1, **o, key=KEY), {"first_system": True}),
    (lambda **o: no.FNO((3,), 1, 1, **{"hidden_channels": 2, "n_layers": 1, **o}, key=KEY), {"n_layers": 2}),
    (lambda **o: no.FNO((3,), 1, 1, 2, n_layers=1, **o, key=KEY), {"preactivation": True, "checkpoint_blocks": True}),
    (lambda **o: no.MgNO(1, 1, **{"hidden_channels": 1, "n_layers": 1, **LINE, **o}), {"hidden_channels": 2}),
    (lambda **o: no.MgNO(1, 1, 1, **{"n_layers": 1, **LINE, **o}), {"n_layers": 2, "ndim": 2, "residual": True}),
    (lambda **o: no.MgNO(1, 1, 1, n_layers=1, **LINE, **o), {"checkpoint_layers": True, "use_bias": True}),
    (lambda **o: no.DirectionNet((0, 0, 0), **{"hidden_channels": 1, "ndim": 1, **o}, key=KEY), {"ndim": 2}),
    (lambda **o: no.MultigridDirection(3, 2, **{"hidden_channels": 1, "ndim": 1, **o}, key=KEY), {"n_spatial": 2}),
    (lambda **o: MLPEncoder(4, **{"in_channels": 1, "out_channels": 1, **o}, hidden_channels=(2,), key=KEY), TWO),
    (
        lambda **o: ConvEncoder(9, **{"in_channels": 1, "out_channels": 1, **o}, **CONVOLVED),
        {**TWO, "kernel_size": 2, "stride": 1},
    ),
    (lambda **o: PointEncoder(**{"in_channels": 1, "out_channels": 1, "ndim": 1, **o}, **POINTED), {**TWO, "ndim": 2}),
    (lambda **o: multionet(**o), {"in_channels": 2, "out_channels": 2, "n_layers": 4, "sum_layers": 1}),
    (lambda **o: multionet(**o), {"hidden_channels": 2, "chunk_size": 5}),
    (
        lambda **o: no.DeepONet(4, **{"in_channels": 1, "out_channels": 1, "hidden_channels": 4, **o}, key=KEY),
        {**TWO, "hidden_channels": 2, "n_layers": 2, "branch_layers": 2},
    ),
    (lambda **o: no.DGNO(CODING, multionet(), code="identity", **o), {"variational": True}),
    (
        lambda **o: no.DGNO(CODING, multionet(domain=((0, 1),) * 2, sensors=8), **o),
        {"stream_function": True},
    ),
    (lambda **o: no.pde.TestFunctions(((0, 1),), **o), {"num_centers": 3, "num_points": 5, "corrected": False}),
    (lambda **o: no.pde.WeakDarcy(((0, 1),) * 2, **o), {"space": 2, "num_centers": 3}),
    (lambda **o: no.pde.StrongDarcy(((0, 1),), **o), {"num_points": 3}),
    (lambda **o: no.pde.StrongBurgers(**o), {"num_points": 3}),
    (lambda **o: no.pde.NodalDarcy((8, 8), **o), {"num_modes": 3, "refine": 3}),
    (lambda **o: no.losses.virtual_observables(no.pde.WeakBurgers(), **o), {"top": 3}),
    (lambda **o: inverse.Normal(**o), {"numbers": 3}),
    (lambda **o: inverse.Uniform(**o), {"numbers": 3}),
    (lambda **o: inverse.Gaussian(np.ones(3), np.ones((3, 2)), **o), {"bounded": False}),
    (lambda **o: inverse.PointMeasurement(np.ones((1, 3)), noise=0.1, **o), {"channel": 1}),
    (lambda **o: inverse.maps.Inpainting(np.ones(3), **o), {"channels": 2}),
    (lambda **o: inverse.maps.SubsampledFourier(np.ones(3), **o), {"channels": 2}),
    (lambda **o: inverse.maps.PointValues(GRID, np.ones((2, 3)), **o), {"channels": 2}),
    (
        lambda **o: inverse.maps.CompressedSensing((1, 8), **{"num_measurements": 3, **o}),
        {"num_measurements": 2, "seed": 3},
    ),
    (lambda **o: inverse.maps.Radon(GRID, (0.0,), **o), {"num_detectors": 3}),
    (lambda **o: no.Grid(**o), {"num_points": 5}),
    (lambda **o: no.Diffusion(GRID, **o), {"connected": True}),
    (lambda **o: no.CG(**o), {"history": 3}),
    (lambda **o: no.CG(**o), {"history": True}),
    (lambda **o: no.FlexibleCG(**o), {"memory": 3, "history": False}),
    (lambda **o: no.DeepConjugateDirection(jnp.negative, **o), {"memory": 3, "true_residual_every": 5}),
    (lambda **o: no.DeepConjugateDirection(jnp.negative, **o), {"normalize": False}),
    (lambda **o: no.Multigrid(A, **o), {"pre": 2, "post": 2, "symmetric": False}),
    (lambda **o: no.Inverse(A, no.CG(), **o), {"warn": False}),
    (lambda **o: no.solvers.Chebyshev(A, **o), {"degree": 2}),
    (lambda **o: no.pde.GaussianRandomField(2.0, 3.0, **o), {"zero_mean": False, "num_modes": 3}),
    (lambda **o: no.pde.Burgers(8, **o), {"zero_mean": True, "num_modes": 3}),
    (lambda **o: no.pde.NavierStokes((8, 8), **o), {"num_times": 3, "num_modes": 3, "refine": 2}),
    (lambda **o: no.pde.Poisson((8, 8), **o), {"num_modes": 3}),
    (
        lambda **o: no.pde.Wave((64,), walls="neumann", **o),
        {"num_times": 3, "refine": 2, "velocities": True, "records_per_frame": 2},
    ),
    (lambda **o: no.pde.waves.Rings(**o), {"count": 2}),
    (lambda **o: no.pde.Darcy((8, 8), **o), {"num_modes": 3}),
    (lambda **o: no.pde.PoissonDirections((8, 8), **o), {"num_modes": 3, "theta": 1, "seed": 2}),
    # reconstruction by splitting, denoisers, pictures
    (lambda **o: inverse.ADMM(**o), {"max_steps": 3}),
    (lambda **o: inverse.PGD(**o), {"max_steps": 3}),
    (lambda **o: inverse.FISTA(**o), {"max_steps": 3, "restart": False}),
    (lambda **o: inverse.PDHG(**o), {"max_steps": 3}),
    (lambda **o: inverse.TotalVariation(**o), {"max_steps": 3}),
    (lambda **o: inverse.Wavelets(**o), {"levels": 2}),
    (
        lambda **o: no.ConvDenoiser(**{"hidden_channels": 2, "n_layers": 2, "ndim": 1, **o}, key=KEY),
        {"in_channels": 2, "hidden_channels": 3, "n_layers": 3, "ndim": 2, "use_bias": False, "residual": False},
    ),
    # latent spectral models, Transolver and operators on points
    (lambda **o: Affine(**o), {"in_channels": 2}),
    (lambda **o: Deformation(**{"width": 4, **o}, key=KEY), {"ndim": 1, "width": 8, "code_channels": 2}),
    (
        lambda **o: NeuralSpectralBlock(**{"in_channels": 2, "ndim": 1, "n_heads": 1, **o}, num_patches=1, key=KEY),
        {"in_channels": 4, "ndim": 2, "n_heads": 2, "n_tokens": 2, "n_basis": 2},
    ),
    (
        lambda **o: PhysicsAttention(**{"in_channels": 2, "n_heads": 1, **o}, key=KEY),
        {"in_channels": 4, "n_heads": 2, "n_slices": 2, "kernel_ndim": 1},
    ),
    (
        lambda **o: no.LatentUNet(**{"in_channels": 2, **SMALL, **o}, key=KEY),
        {"in_channels": 4, "n_levels": 3, "n_tokens": 2, "checkpoint_levels": True},
    ),
    (
        lambda **o: no.LSM(**{**TWO, "hidden_channels": 2, **SMALL, **o}, key=KEY),
        {"in_channels": 1, "out_channels": 1, "hidden_channels": 4, "projection_channels": 3, "n_basis": 3},
    ),
    (
        lambda **o: no.GeoOperator(LATENT, **{**TWO, **o}, n_modes=(2,), latent_points=4, key=KEY),
        {"in_channels": 1, "out_channels": 1, "projection_channels": 3, "chunk_size": 2},
    ),
    (
        lambda **o: no.Transolver(**{**TWO, **ATTENTIVE, **o}, key=KEY),
        {"in_channels": 1, "out_channels": 1, "hidden_channels": 4, "ndim": 1, "structured": True, "n_layers": 2},
    ),
    (
        lambda **o: no.Transolver(2, 2, **{**ATTENTIVE, **o}, key=KEY),
        {"n_heads": 2, "n_slices": 3, "reference_points": 2, "time_input": True, "checkpoint_blocks": True},
    ),
    # surrogates of waves and what long rollouts need
    (
        lambda **o: no.WaveNet(**{**TWO, "hidden_channels": 2, "n_layers": 1, "ndim": 2, **o}, key=KEY),
        {"in_channels": 1, "out_channels": 1, "hidden_channels": 3, "kernel_size": 5, "n_layers": 2, "ndim": 1},
    ),
    (
        lambda **o: no.WaveNet(2, 2, 2, n_layers=1, ndim=1, **o, key=KEY),
        {"causal": True, "checkpoint_blocks": True},
    ),
    (lambda **o: no.Residual(Linear(2, 2, key=KEY), **o), {"order": 1, "frame_channels": 2}),
    (lambda **o: no.Rollout(jnp.sin, **{"num_steps": 2, **o}), {"num_steps": 3, "recompute": True, "constants": 1}),
    (lambda **o: no.losses.rollout(2, no.losses.mse, **o), {"constants": 1, "recompute": True}),
    # learned proximal networks
    (
        lambda **o: no.nn.ConvexDense(**{"num_points": 2, **o}, key=KEY),
        {"num_points": 3, "in_channels": 2, "hidden_channels": 4, "n_layers": 2, "affine": False},
    ),
    (
        lambda **o: no.nn.ConvexConv(**{"hidden_channels": 2, "ndim": 1, **o}, key=KEY),
        {"in_channels": 2, "hidden_channels": 3, "window": 2, "readout_channels": 2, "use_bias": False},
    ),
    (
        lambda **o: no.nn.ConvexIntegral(**{"num_points": 2, **o}, key=KEY),
        {"num_points": 3, "in_channels": 2, "hidden_channels": 4},
    ),
    (lambda **o: no.Patched(PROX, **{"patch": 4, **o}), {"patch": 6, "stride": 1, "chunk_size": 2}),
    (lambda **o: no.losses.proximal_matching(0.1, **o), {"mean": True}),
]
OPTIONS = [(build, name, value) for build, options in CASES for name, value in options.items()]


def ids(case):
    return case if isinstance(case, str) else None


@pytest.mark.parametrize(("build", "name", "value"), OPTIONS, ids=ids)
def test_an_option_takes_scalars_of_numpy_and_jax_and_keeps_a_plain_one(build, name, value):
    wanted = build(**{name: value})
    for scalar in (np.asarray(value)[()], np.asarray(value), jnp.asarray(value)):
        made = build(**{name: scalar})
        assert jax.tree.structure(made) == jax.tree.structure(wanted)
        if hasattr(made, name):
            assert type(getattr(made, name)) is type(getattr(wanted, name))
            assert getattr(made, name) == getattr(wanted, name)


@pytest.mark.parametrize(("build", "name", "value"), OPTIONS, ids=ids)
def test_an_option_refuses_what_only_looks_like_one(build, name, value):
    looks = ["yes", 0.5, [value]] if name != "num_points" else ["yes", 0.5, True]
    for wrong in looks:
        if name in ("num_modes", "window", "patch", "stride") and isinstance(wrong, list):
            continue  # one per axis
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            build(**{name: wrong})


def test_functions_take_them_too():
    b = jnp.ones((1, 8, 8))
    for true, false in ((np.True_, np.False_), (jnp.asarray(True), jnp.asarray(False))):
        assert bool(no.solve(A, b, no.FastPoisson(GRID), warn=true, throw=false).converged)
        assert no.Multigrid.learned_channels(np.int64(2), symmetric=true) == no.Multigrid.learned_channels(2)
    field = jax.random.normal(KEY, (8, 8))
    for steps in (np.int32(2), jnp.asarray(2)):
        basis, plain = no.solvers.lanczos(A, field, steps), no.solvers.lanczos(A, field, 2)
        assert jax.tree.map(jnp.shape, basis) == jax.tree.map(jnp.shape, plain)
    with pytest.raises(ValueError, match=r"^warn: expected True or False"):
        no.solve(A, b, no.FastPoisson(GRID), warn="no")
    with pytest.raises(ValueError, match=r"^throw: expected True or False"):
        no.solve(A, b, no.FastPoisson(GRID), throw=0)
