"""Bad inputs: each is refused before any computation, by an error that says what was expected and what to do.

Refusals that need files or a running training stand in their own tests (`test_data_refusals.py`,
`test_checkpoint.py`, `test_training.py`); this list is the one a user meets at the keyboard.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import inverse
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.inverse import maps
from neuralops.nn import (
    Affine,
    ChannelMLP,
    Deformation,
    GroupNorm,
    Linear,
    MLPEncoder,
    NeuralSpectralBlock,
    PhysicsAttention,
    SeparableConv,
    SoftGate,
    SpectralConv,
)

key = jax.random.key(0)
U = jnp.ones((1, 8, 8))
X = np.ones((6, 1, 8, 8), np.float32)
NAN = X * np.where(np.arange(6) == 3, np.nan, 1)[:, None, None, None].astype(np.float32)
G = no.Grid((8, 8))
WALLS = no.Grid((8, 8), boundary="dirichlet", centering="cell")
A = no.Diffusion(WALLS)
POINTS = np.full((1, 3), 0.5, np.float32)
CLOUD, PLACES = jnp.ones((1, 5)), jnp.full((2, 5), 0.5)
LINE = jnp.ones((1, 4))
LATENT = {"n_levels": 2, "n_heads": 1, "n_basis": 2}
CODED = Samples(np.ones((2, 1, 5), np.float32))
WEAK = no.pde.WeakDarcy(((0, 1),), num_centers=2)
DECODER = no.MultiONet(4, 1, 1, 3, n_layers=3, sum_layers=2, domain=((0, 1),), key=key)


def fno(**changes):
    return no.FNO(**{"n_modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4, **changes}, key=key)


def conv(**changes):
    return SpectralConv(**{"in_channels": 2, "out_channels": 2, "n_modes": (4, 4), **changes}, key=key)


def separable(**changes):
    return SeparableConv(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **changes}, key=key)


def block(num_patches=2, **changes):
    return NeuralSpectralBlock(**{"in_channels": 4, "num_patches": num_patches, "n_heads": 2, **changes}, key=key)


def lsm(**changes):
    return no.LSM(**{"in_channels": 1, "out_channels": 1, "hidden_channels": 2, **LATENT, **changes}, key=key)


def convex(kind=no.nn.ConvexConv, *given, **changes):
    return no.LPN(kind(*(given or (1, 2)), **changes, key=key))


def geo(body=None, **changes):
    options = {"in_channels": 1, "out_channels": 1, "n_modes": (2, 2), "latent_points": 4, **changes}
    return no.GeoOperator(no.LatentUNet(2, **LATENT, key=key) if body is None else body, **options, key=key)


def wavenet(**changes):
    return no.WaveNet(**{"in_channels": 1, "out_channels": 1, "hidden_channels": 2, "ndim": 2, **changes}, key=key)


def transolver(**changes):
    options = {"hidden_channels": 4, "n_layers": 1, "n_heads": 2, "n_slices": 2, **changes}
    return no.Transolver(1, 1, **options, key=key)


def encoder(numbers=4):
    return MLPEncoder(5, 1, numbers, (3,), key=key)


def dgno(front=None, **changes):
    return no.DGNO(front or encoder(), DECODER, **changes)


def posterior(**changes):
    measured = inverse.PointMeasurement(POINTS, np.zeros(3), noise=0.1)
    return inverse.Posterior(dgno(medium=DECODER), inverse.Normal(4), measured, **changes)


def draws(size):
    return inverse.Draws(jnp.ones((2, 9, size)), "exact")


def fit(op=None, data=(X, X), **changes):
    options = {"loss": no.losses.mse, "optimizer": optax.adam(1e-2), "num_epochs": 1, "batch_size": 2, "key": key}
    return no.fit(op or Linear(1, 1, key=key), data, progress=False, **{**options, **changes})


def written(path, content):
    path.write_bytes(content)
    return path


def saved(path):
    no.save(path, Linear(1, 1, key=key))
    return path


def stored(path):
    problem = no.pde.Poisson((4, 4))
    no.data.generate(problem, key=0, num_samples=2, path=path, progress=False).close()
    return path


CASES = {
    # grids
    "no points": lambda p: no.Grid(()),
    "negative points": lambda p: no.Grid((8, -1)),
    "fractional points": lambda p: no.Grid((8.5,)),
    "extent zero": lambda p: no.Grid((8,), domain_extent=0.0),
    "extents of another dimension": lambda p: no.Grid((8,), domain_extent=(1.0, 1.0)),
    "unknown boundary": lambda p: no.Grid((8,), boundary="wall"),
    "half periodic": lambda p: no.Grid((8,), boundary=(("periodic", "neumann"),)),
    "unknown centring": lambda p: no.Grid((8,), centering="corner"),
    "one Neumann node": lambda p: no.Grid((1,), boundary="neumann"),
    "resample off the grid": lambda p: no.resample(U, no.Grid((9, 9)), G),
    "resample to another box": lambda p: no.resample(U, G, no.Grid((8, 8), domain_extent=2.0)),
    "resample to another boundary": lambda p: no.resample(U, G, WALLS),
    # models and layers
    "modes as text": lambda p: fno(n_modes="16"),
    "no modes": lambda p: fno(n_modes=()),
    "four dimensions": lambda p: fno(n_modes=(4, 4, 4, 4)),
    "zero modes": lambda p: fno(n_modes=(4, 0)),
    "zero channels": lambda p: fno(in_channels=0),
    "fractional width": lambda p: fno(hidden_channels=4.0),
    "no layers": lambda p: fno(n_layers=0),
    "negative ratio": lambda p: fno(lifting_channel_ratio=-1),
    "unknown embedding": lambda p: fno(positional_embedding="sin"),
    "unknown activation": lambda p: fno(activation="gelu_new"),
    "unknown norm": lambda p: fno(norm="batch_norm"),
    "unknown factorization": lambda p: fno(factorization="svd"),
    "rank zero": lambda p: fno(factorization="cp", rank=0.0),
    "rank above one": lambda p: fno(factorization="tucker", rank=2.0),
    "ranks of the wrong number": lambda p: fno(factorization="tucker", rank=(2, 2)),
    "negative padding": lambda p: fno(domain_padding=-0.1),
    "padding of another dimension": lambda p: fno(domain_padding=(0.1,)),
    "boundary of another dimension": lambda p: fno(boundary=("periodic",)),
    "unknown model boundary": lambda p: fno(boundary="open"),
    "unknown model centring": lambda p: fno(centering="face"),
    "unknown paper": lambda p: no.FNO.paper("burgers", key=key),
    "separable with unequal channels": lambda p: conv(out_channels=3, separable=True),
    "negative spread": lambda p: conv(init_std=-1.0),
    "output grid of another dimension": lambda p: conv()(jnp.ones((2, 8, 8)), num_points=(4, 4, 4)),
    "output grid of no points": lambda p: conv()(jnp.ones((2, 8, 8)), num_points=0),
    "groups that do not divide": lambda p: GroupNorm(4, 3),
    "unknown skip": lambda p: fno(skip="identity"),
    "nothing to compress": lambda p: fno(compress=("kernel", 1)),
    "compression without a rank": lambda p: fno(skip="local", compress=("kernel",)),
    "compression of the cycles by a word": lambda p: no.MgNO(1, 1, 2, compress="cp", key=key),
    "compression of rank zero": lambda p: lsm(compress=("cp", 0)),
    "unknown variant": lambda p: separable(variant="tucker"),
    "factors of rank zero": lambda p: separable(rank=0),
    "all of the parameters": lambda p: separable(rank=1.0),
    "kernels of no points": lambda p: separable(kernel_size=0),
    "kernels of another dimension": lambda p: separable(kernel_size=(3, 3, 3)),
    "unknown continuation": lambda p: separable(boundary="reflect"),
    "zeros on one side of a period": lambda p: separable(boundary=(("zero", "periodic"), "zero")),
    "three ends": lambda p: separable(boundary=(("zero", "neumann", "zero"), "zero")),
    "unknown centring of a convolution": lambda p: separable(centering="face"),
    "unknown padding": lambda p: separable(padding="full"),
    "padding below zero": lambda p: separable(padding=-1),
    "padding of three ends": lambda p: separable(padding=((1, 1, 1), 0)),
    "unknown evaluation": lambda p: separable(evaluation="fast"),
    "a chain for every pair": lambda p: separable(evaluation="chain"),
    "dilation zero": lambda p: separable(dilation=0),
    "kernel wider than the field": lambda p: separable(padding="valid", dilation=4)(U),
    "kernel without channels": lambda p: SeparableConv.from_dense_kernel(np.ones((3, 3)), 1),
    "no starts": lambda p: SeparableConv.from_dense_kernel(np.ones((3, 3, 1, 1)), 1, num_starts=0),
    "even kernels": lambda p: wavenet(kernel_size=4),
    "kernels of three axes over two": lambda p: wavenet(kernel_size=(3, 3, 3)),
    "no dilations in a block": lambda p: wavenet(dilations=()),
    "one dilation as a number": lambda p: wavenet(dilations=2),
    "dilation of zero points": lambda p: wavenet(dilations=(1, (1, 0))),
    "four axes": lambda p: wavenet(ndim=4),
    "unknown end of a block": lambda p: wavenet(boundary="open"),
    "unknown centring of a block": lambda p: wavenet(centering="face"),
    "time that comes round": lambda p: wavenet(causal=True, boundary="periodic"),
    "moments of the future": lambda p: wavenet(causal=True, norm="instance_norm"),
    "unknown norm of a block": lambda p: wavenet(norm="layer_norm"),
    "unknown embedding of a block": lambda p: wavenet(positional_embedding="time"),
    "unknown activation of a block": lambda p: wavenet(activation="swish"),
    "blocks of rank zero": lambda p: wavenet(compress=("kernel", 0)),
    "block of one axis": lambda p: wavenet()(jnp.ones((1, 8))),
    "parabola through frames": lambda p: no.Residual(jnp.sin, order=2),
    "expansion": lambda p: no.Residual(jnp.sin, contraction=1.1),
    "contraction to nothing": lambda p: no.Residual(jnp.sin, contraction=0.0),
    "contraction by a word": lambda p: no.Residual(jnp.sin, contraction="slow"),
    "contractions": lambda p: no.Residual(jnp.sin, contraction=np.full(2, 0.5)),
    "frames of no channels": lambda p: no.Residual(jnp.sin, frame_channels=0),
    "line through one frame": lambda p: no.Residual(jnp.sin, order=1)(U),
    "half a frame of change": lambda p: no.Residual(jnp.sin, frame_channels=2)(U),
    "change on another grid": lambda p: no.Residual(lambda u: u[:, ::2])(U),
    "step of no operator": lambda p: no.Residual(3),
    "truncation to no modes": lambda p: no.Truncated(jnp.sin, (4, 0)),
    "truncation in four dimensions": lambda p: no.Truncated(jnp.sin, (4, 4, 4, 4)),
    "truncation in an unknown basis": lambda p: no.Truncated(jnp.sin, (4, 4), boundary="zero"),
    "truncation at unknown places": lambda p: no.Truncated(jnp.sin, (4, 4), centering="face"),
    "truncation on a line": lambda p: no.Truncated(jnp.sin, 4)(U),
    "states of constants alone": lambda p: no.rollout(jnp.sin, U, 2, constants=1),
    "negative constants": lambda p: no.Rollout(jnp.sin, 2, constants=-1),
    "constants in a loss": lambda p: no.losses.rollout(2, no.losses.mse, constants=0.5),
    "energy that is a number": lambda p: no.metrics.energy_drift(3, 1.0),
    "energy of more frames than there are": lambda p: no.metrics.energy_drift(3, frames=4),
    "no hidden channels": lambda p: ChannelMLP(1, 1, 0, key=key),
    "no gate channels": lambda p: SoftGate(0),
    "batched field": lambda p: fno()(jnp.ones((5, 1, 8, 8))),
    "field without channels": lambda p: fno()(jnp.ones((8, 8))),
    "channels last": lambda p: fno(in_channels=3)(jnp.ones((8, 8, 3))),
    "too many channels": lambda p: fno()(jnp.ones((2, 8, 8))),
    "integer field": lambda p: fno()(jnp.ones((1, 8, 8), int)),
    "complex field": lambda p: fno()(jnp.ones((1, 8, 8), complex)),
    "list instead of a field": lambda p: fno()([[[1.0]]]),
    "empty grid": lambda p: fno()(jnp.ones((1, 0, 8))),
    "operator that cannot be called": lambda p: no.as_operator(3),
    # solvers
    "operator on another grid": lambda p: A(jnp.ones((9, 9))),
    "coefficient off the grid": lambda p: no.Diffusion.from_coefficient(WALLS, jnp.ones((9, 9))),
    "unknown face mean": lambda p: no.Diffusion.from_coefficient(WALLS, jnp.ones((8, 8)), mean="median"),
    "faces of other shapes": lambda p: no.Diffusion(WALLS, (jnp.ones((8, 8)), jnp.ones((8, 8)))),
    "integer right-hand side": lambda p: no.solve(A, jnp.ones((8, 8), int), no.CG()),
    "start of another shape": lambda p: no.solve(A, jnp.ones((8, 8)), no.CG(), x0=jnp.ones((9, 9))),
    "method by name": lambda p: no.solve(A, jnp.ones((8, 8)), "cg"),
    "negative tolerance": lambda p: no.CG(rtol=-1.0),
    "grid that is no grid": lambda p: no.FastPoisson((8, 8)),
    # problems
    "unknown coefficient": lambda p: no.pde.Darcy((8, 8), coefficient="three_phase"),
    "negative permeability": lambda p: no.pde.Darcy((8, 8), values=(12.0, -3.0)),
    "Neumann Darcy with unit forcing": lambda p: no.pde.Darcy((8, 8), boundary="neumann"),
    "covariance without trace": lambda p: no.pde.Darcy((8, 8), alpha=0.5),
    "no viscosity": lambda p: no.pde.Burgers(64, viscosity=0.0),
    "flow on a line": lambda p: no.pde.NavierStokes((64,)),
    "flow at one time": lambda p: no.pde.NavierStokes((8, 8), num_times=1),
    "waves of no medium": lambda p: no.pde.Wave((16, 16), medium=1.0),
    "waves behind prescribed walls": lambda p: no.pde.Wave((16, 16), walls="prescribed"),
    "receivers outside": lambda p: no.pde.Wave((64, 64), receivers=((0.5, 1.5),)),
    "rings without a place": lambda p: no.pde.waves.Rings(margin=0.5).sample(jax.random.key(0), no.Grid((8, 8))),
    "frames that are not there": lambda p: no.data.pairs(no.data.Samples(np.ones((2, 3, 1, 4))), inputs=3, outputs=0),
    "trajectories of fields without times": lambda p: no.data.generate(
        no.pde.NavierStokes((8, 8)), key=0, num_samples=1, trajectories=("vorticity", "pressure")
    ),
    "velocity between walls": lambda p: no.pde.velocity_from_vorticity(U, WALLS),
    "trajectories without times": lambda p: no.data.generate(
        no.pde.Poisson((8, 8)), key=0, num_samples=1, trajectories="u"
    ),
    "trajectories without a name": lambda p: no.data.generate(
        no.pde.NavierStokes((8, 8)), key=0, num_samples=1, trajectories=True
    ),
    # latent codes
    "integers to a DGNO": lambda p: dgno()(jnp.ones((1, 5), int)),
    "codes of mean and variance by halves": lambda p: dgno(encoder(5), variational=True, code="identity"),
    "stream function on a line": lambda p: dgno(stream_function=True),
    "phases as text": lambda p: dgno(phases="two"),
    "factor of another code": lambda p: inverse.Gaussian(jnp.ones(3), jnp.ones((4, 2))),
    "bounded as text": lambda p: inverse.Gaussian(jnp.ones(3), jnp.ones((3, 2)), bounded="no"),
    "field of the flux": lambda p: posterior().fields(jnp.ones((2, 4)), POINTS, of="flux"),
    "draws as an array": lambda p: inverse.summary(jnp.ones((2, 9, 4)), posterior(), POINTS),
    "draws of another posterior": lambda p: inverse.summary(draws(3), posterior(), POINTS),
    "bands of 90": lambda p: inverse.summary(draws(4), posterior(), POINTS, level=90),
    "truth elsewhere": lambda p: inverse.summary(draws(4), posterior(), POINTS, truth=jnp.ones((1, 7))),
    "coverage of one experiment": lambda p: inverse.coverage_study(posterior(), POINTS, key=key, num_experiments=1),
    "batches that leave a rest": lambda p: inverse.coverage_study(posterior(), POINTS, key=key, batch_size=30),
    "coverage with physics": lambda p: inverse.coverage_study(
        posterior(physics=lambda model, code: jnp.sum(code), physics_weight=1), POINTS, key=key
    ),
    # objectives without labels
    "equation not built": lambda p: no.losses.virtual_observables(no.pde.WeakDarcy),
    "unknown reduction": lambda p: no.losses.virtual_observables(WEAK, reduction="sum"),
    "quadratic medium": lambda p: no.losses.virtual_observables(WEAK, order=2),
    "negative top": lambda p: no.losses.virtual_observables(WEAK, top=-1),
    "residual that is no function": lambda p: no.losses.grid_residual(3),
    "unknown reduction on a grid": lambda p: no.losses.grid_residual(no.pde.darcy_differences, reduction="sum"),
    "observed at NaN": lambda p: no.losses.observed(np.full((1, 3), np.nan)),
    "observed with an unknown reduction": lambda p: no.losses.observed(POINTS, reduction="sum"),
    "no channels": lambda p: no.losses.observed(POINTS, channels=()),
    "one channel without its tuple": lambda p: no.losses.observed(POINTS, channels=0),
    "channel that is not there": lambda p: no.losses.observed(POINTS, channels=(1,))(dgno(), CODED, key=key),
    "values that the data lack": lambda p: no.losses.observed(POINTS, "y")(dgno(), CODED, key=key),
    "reconstruction without a decoder": lambda p: no.losses.reconstruction()(dgno(), CODED, key=key),
    "reconstruction of no code": lambda p: no.losses.reconstruction()(fno(), CODED, key=key),
    "divergence of no code": lambda p: no.losses.kl()(fno(), CODED, key=key),
    "flux that is not decoded": lambda p: no.losses.virtual_observables(WEAK)(dgno(), CODED, key=key),
    # data
    "no samples": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key=0, num_samples=0),
    "seed as text": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key="1", num_samples=1),
    "problem class": lambda p: no.data.generate(no.pde.Poisson, key=0, num_samples=1),
    "half precision labels": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key=0, num_samples=1, dtype="float16"),
    "truncated HDF5": lambda p: no.data.open(written(p / "cut.h5", stored(p / "whole.h5").read_bytes()[:-100])),
    "text as HDF5": lambda p: no.data.open(written(p / "t.h5", b"no HDF5")),
    "text as MATLAB": lambda p: no.data.read_mat(written(p / "t.mat", b"<html>")),
    "unknown data set": lambda p: no.data.read_published("burgers", p),
    "split that is not there": lambda p: no.data.read_published("pipe", p, split="valid"),
    "missing array": lambda p: no.data.read_npz(npz(p, y=X)),
    "NaN in a file": lambda p: no.data.read_npz(npz(p, x=NAN, y=X)),
    "samples that do not pair": lambda p: no.data.read_npz(npz(p, x=X, y=X[:-1])),
    "normaliser of NaN": lambda p: Normalizer.fit(NAN),
    "normaliser without spread": lambda p: Normalizer((0.0,), (0.0,), 2),
    "normaliser that is a pair": lambda p: Normalized(Linear(1, 1, key=key), inputs=(0.0, 1.0)),
    # training and judging
    "NaN in the data": lambda p: fit(data=(NAN, X)),
    "unpaired data": lambda p: fit(data=(X, X[:-1])),
    "data without channels": lambda p: fit(data=(X[:, 0], X)),
    "outputs of other channels": lambda p: fit(Linear(1, 2, key=key)),
    "batch above the data": lambda p: fit(batch_size=7),
    "no epochs": lambda p: fit(num_epochs=0),
    "optimiser not built": lambda p: fit(optimizer=optax.adam),
    "loss per point": lambda p: fit(loss=lambda prediction, target: prediction - target),
    "seed instead of a key": lambda p: fit(key=0),
    "resume without a folder": lambda p: fit(resume=True),
    "metric by name": lambda p: no.evaluate(Linear(1, 1, key=key), (X, X), metrics="mse"),
    "loss on another grid": lambda p: no.losses.relative_h1(U, U, grid=no.Grid((9, 9))),
    "unknown derivative": lambda p: no.losses.relative_h1(U, U, grid=G, derivative="exact"),
    "mask of numbers": lambda p: no.losses.relative_l2(U, U, mask=np.ones((8, 8))),
    "too many POD modes": lambda p: no.baselines.linear_pod((X, X), num_modes=6),
    "negative ridge": lambda p: no.baselines.linear_pod((X, X), num_modes=2, ridge=-1.0),
    # checkpoints and pictures
    "truncated checkpoint": lambda p: no.load(written(p / "cut", saved(p / "op").read_bytes()[:-9])),
    "pickle as checkpoint": lambda p: no.load(written(p / "pickle", b"\x80\x04cos\nsystem\n.")),
    "malicious class": lambda p: no.load(
        written(p / "bad", saved(p / "op").read_bytes().replace(b'\\"Linear\\"', b'\\"system\\"'))
    ),
    "saving a number": lambda p: no.save(p / "op", 3),
    "pictures of other shapes": lambda p: no.plotting.panel(X, X, X[..., :4]),
    # latent spectral models, Transolver and operators on points
    "patches and patch size": lambda p: block(patch_size=2),
    "neither patches nor their size": lambda p: block(None),
    "patches of another dimension": lambda p: block((2, 2, 2)),
    "no patches": lambda p: block(0),
    "heads that do not divide": lambda p: block(n_heads=3),
    "no tokens": lambda p: block(n_tokens=0),
    "no basis": lambda p: block(n_basis=0),
    "four dimensions of patches": lambda p: block(ndim=4),
    "fewer points than patches": lambda p: block(9)(jnp.ones((4, 8, 8))),
    "no multiple of the patch": lambda p: block(None, patch_size=3)(jnp.ones((4, 8, 8))),
    "one level": lambda p: lsm(n_levels=1),
    "batch normalisation": lambda p: lsm(norm="batch_norm"),
    "layer norm in a U-Net": lambda p: lsm(norm="layer_norm"),
    "unknown embedding of a latent model": lambda p: lsm(positional_embedding="coordinates"),
    "width that heads do not divide": lambda p: lsm(hidden_channels=3, n_heads=2),
    "unknown latent paper": lambda p: no.LSM.paper("burgers", key=key),
    "potential that is no function": lambda p: no.LPN(3),
    "a center for each point": lambda p: no.LPN(jnp.sum, center=jnp.ones(3)),
    "potential of no sharpness": lambda p: convex(beta=0),
    "potential that is not convex": lambda p: convex(alpha=-0.1),
    "potential of an unknown start": lambda p: convex(init="zeros"),
    "strides of three": lambda p: convex(strides=(3,)),
    "window that does not fit": lambda p: convex(window=5)(jnp.ones((1, 8, 8))),
    "levels turned around": lambda p: convex(code_range=(0.2, 0.1)),
    "level that is missing": lambda p: convex(code_range=(0.1, 0.2))(jnp.ones((1, 8, 8))),
    "level that is not declared": lambda p: convex()(jnp.ones((1, 8, 8)), code=jnp.ones(1)),
    "level for a function": lambda p: no.LPN(jnp.sum)(jnp.ones((1, 8)), code=jnp.ones(1)),
    "levels of a batch": lambda p: convex(code_range=(0.1, 0.2)).prior(jnp.ones((1, 8, 8)), code=jnp.ones(3)),
    "potential at other points": lambda p: convex(no.nn.ConvexDense, 4)(jnp.ones((1, 5))),
    "potential of no points": lambda p: convex(no.nn.ConvexDense, ()),
    "no multiple of the coarsest grid": lambda p: convex(no.nn.ConvexIntegral, 4).potential(jnp.ones((1, 6))),
    "no dilations": lambda p: convex(no.nn.ConvexIntegral, 4, dilations=()),
    "walls of an unknown kind": lambda p: convex(no.nn.ConvexIntegral, 4, boundary="open"),
    "box of no extent": lambda p: convex(no.nn.ConvexIntegral, 4, domain_extent=0.0),
    "unknown proximal paper": lambda p: no.LPN.paper("bsd", key=key),
    "patches of another operator": lambda p: no.Patched(Linear(1, 1, key=key), 4),
    "stride that does not divide": lambda p: no.Patched(convex(no.nn.ConvexDense, 4), 4, 3),
    "patches of another dimension than the potential": lambda p: no.Patched(convex(), (4, 4, 4)),
    "gamma of zero": lambda p: no.losses.proximal_matching(0.0),
    "gamma that is not a number": lambda p: no.losses.proximal_matching("small"),
    "gammas of no factor": lambda p: no.losses.gamma_schedule(0.1, (1, 0)),
    "denoising without a loss": lambda p: no.losses.denoising(0.1, noise=0.1),
    "noise below zero": lambda p: no.losses.denoising(no.losses.mse, noise=-0.1),
    "noise levels turned around": lambda p: no.losses.denoising(no.losses.mse, noise=(0.2, 0.1)),
    "latent model of another dimension": lambda p: lsm()(jnp.ones((1, 8))),
    "affine norm in an FNO": lambda p: fno(norm="affine"),
    "no channels to scale": lambda p: Affine(0),
    "body of unequal channels": lambda p: geo(Linear(2, 3, key=key)),
    "body that is a function": lambda p: geo(jnp.sin),
    "body of another dimension": lambda p: geo(no.FNO((2,), 2, 2, 2, key=key)),
    "latent grid below its modes": lambda p: geo(latent_points=1),
    "deformation that is a function": lambda p: geo(deformation=jnp.sin),
    "deformation of another dimension": lambda p: geo(deformation=Deformation(1, width=4, key=key)),
    "unknown transform": lambda p: geo(transform="fft"),
    "box turned around": lambda p: geo(domain=((1, 0), (0, 1))),
    "box of another dimension": lambda p: geo(domain=((0, 1),)),
    "chunks of none": lambda p: geo(chunk_size=0),
    "points that are missing": lambda p: geo()(CLOUD),
    "points of another number": lambda p: geo()(CLOUD, coords=jnp.ones((2, 4))),
    "points elsewhere in three dimensions": lambda p: geo()(CLOUD, coords=PLACES, query=jnp.ones((3, 4))),
    "weights of another number": lambda p: geo()(CLOUD, coords=PLACES, weights=jnp.ones(4)),
    "weights with channels": lambda p: geo()(CLOUD, coords=PLACES, weights=jnp.ones((1, 5))),
    "mask of another number": lambda p: geo()(CLOUD, coords=PLACES, mask=np.ones(4, bool)),
    "code without a deformation": lambda p: geo()(CLOUD, coords=PLACES, code=jnp.ones(2)),
    "code that is not declared": lambda p: Deformation(width=4, key=key)(PLACES, code=jnp.ones(2)),
    "code of another size": lambda p: Deformation(width=4, code_channels=3, key=key)(PLACES, code=jnp.ones(2)),
    "width of no octaves": lambda p: Deformation(width=6, key=key),
    "heads that do not divide in attention": lambda p: PhysicsAttention(4, 3, key=key),
    "no slices": lambda p: PhysicsAttention(4, 2, 0, key=key),
    "kernel in four dimensions": lambda p: PhysicsAttention(4, 2, 2, kernel_ndim=4, key=key),
    "attention with weights of another number": lambda p: PhysicsAttention(1, 1, 2, key=key)(
        CLOUD, weights=jnp.ones(4)
    ),
    "perceptron of no width": lambda p: transolver(mlp_ratio=0),
    "unknown positions": lambda p: transolver(positional_embedding="grid"),
    "unknown activation of a transformer": lambda p: transolver(activation="swish"),
    "unknown paper of a transformer": lambda p: no.Transolver.paper("plasticity", key=key),
    "cloud without places": lambda p: transolver()(CLOUD),
    "cloud with places elsewhere": lambda p: transolver()(CLOUD, coords=jnp.ones((2, 4))),
    "time that is not given": lambda p: transolver(time_input=True)(CLOUD, coords=PLACES),
    "time that is not taken": lambda p: transolver()(CLOUD, coords=PLACES, time=0.5),
    "times of a series": lambda p: transolver(time_input=True)(CLOUD, coords=PLACES, time=jnp.ones(3)),
    "fixing weights of an operator without": lambda p: no.at(fno(), weights=jnp.ones((8, 8))),
    "fixing a code without a deformation": lambda p: no.at(geo(), code=jnp.ones(2)),
    "fixing a time that is not taken": lambda p: no.at(transolver(), time=0.5),
    # linear measurements
    "shape without channels": lambda p: maps.Identity((8,)),
    "shape of four dimensions": lambda p: maps.Gradient((1, 2, 2, 2, 2)),
    "shape as a number": lambda p: maps.BlockMean(8, 2),
    "blocks that do not divide": lambda p: maps.BlockMean((1, 8, 8), 3),
    "no spacing": lambda p: maps.Gradient((1, 8), 0.0),
    "unknown boundary of a blur": lambda p: maps.Blur((1, 8), [1.0, 2.0], "dirichlet"),
    "kernel of another dimension": lambda p: maps.Blur((1, 8, 8), np.ones(3)),
    "kernel of integers": lambda p: maps.Blur((1, 8), np.ones(3, int)),
    "separable kernel of another dimension": lambda p: maps.Blur((1, 8), maps.gaussian(1.0)),
    "no width of a Gaussian": lambda p: maps.gaussian(0.0),
    "even Gaussian": lambda p: maps.gaussian(1.0, size=4),
    "Radon in three dimensions": lambda p: maps.Radon(no.Grid((4, 4, 4)), [0.0]),
    "no angles": lambda p: maps.Radon(G, []),
    "angles with NaN": lambda p: maps.Radon(G, [0.0, np.nan]),
    "angles as a number": lambda p: maps.Radon(G, 60),
    "traced angles": lambda p: jax.eval_shape(lambda t: maps.Radon(G, t)(U), jnp.ones(3)),
    "no distance of detectors": lambda p: maps.Radon(G, [0.0], 8, 0.0),
    "detectors too close": lambda p: maps.Radon(G, [0.0], 8, 1e-4),
    "back-projection of an image": lambda p: maps.FilteredBackProjection(G),
    "unknown window": lambda p: maps.FilteredBackProjection(maps.Radon(G, [0.0]), "hamming"),
    "image of another size": lambda p: maps.Radon(G, [0.0])(jnp.ones((1, 9, 9))),
    "image without channels": lambda p: maps.Radon(G, [0.0])(jnp.ones((8, 8))),
    "batch to a map": lambda p: maps.Identity((1, 8, 8))(X),
    "complex field to a map": lambda p: maps.Identity((1, 8, 8))(U.astype(complex)),
    "measurement of another shape": lambda p: maps.BlockMean((1, 8, 8), 2).adjoint(U),
    "complex mask": lambda p: maps.SubsampledFourier(np.ones((4, 4), complex)),
    "mask as a list": lambda p: maps.Inpainting([1, 0]),
    "more measurements than numbers": lambda p: maps.CompressedSensing((1, 8), 9),
    "measuring at points of another dimension": lambda p: maps.PointValues(G, POINTS),
    "measuring at integer points": lambda p: maps.PointValues(G, np.ones((2, 3), int)),
    "measuring by squares": lambda p: maps.PointValues(G, np.ones((2, 3)), order=2),
    "source of an equation without operator": lambda p: maps.SourceToSolution(no.pde.Darcy((4, 4))),
    "linearised at a number": lambda p: maps.Linearized(jnp.sin, 1.0),
    "linearised map to two fields": lambda p: maps.Linearized(lambda x: (x, x), U),
    "integer matrix": lambda p: maps.Matrix(np.ones((3, 3), int)),
    "matrix of another shape": lambda p: maps.Matrix(np.ones((3, 4)), (1, 3)),
    "product that does not fit": lambda p: maps.Identity((1, 8)) @ maps.BlockMean((1, 8), 2),
    "sum that does not fit": lambda p: maps.Identity((1, 8)) + maps.BlockMean((1, 8), 2),
    "map times field": lambda p: maps.Identity((1, 8)) @ U,
    "map plus number": lambda p: maps.Identity((1, 8)) + 1.0,
    "map times array": lambda p: maps.Identity((1, 8)) * U,
    "map times complex number": lambda p: maps.Identity((1, 8)) * 1j,
    "stack of nothing": lambda p: maps.stack(),
    "stack of two fields": lambda p: maps.stack(maps.Identity((1, 8)), maps.Identity((1, 9))),
    "norm without steps": lambda p: maps.Blur((1, 8), [1.0, 2.0]).norm(0),
    "phantom without ellipses": lambda p: inverse.random_ellipses(key, num_ellipses=0),
    "phantom in three dimensions": lambda p: inverse.shepp_logan((1.0, 1.0, 1.0)),
    "picture of a phantom on a line": lambda p: inverse.shepp_logan().image(no.Grid((8,))),
    # reconstruction by splitting
    "map without an adjoint": lambda p: inverse.reconstruct(jnp.sin, LINE, inverse.L1(), inverse.PGD()),
    "network that is no regulariser": lambda p: rebuilt(regularizer=fno()),
    "method that is not built": lambda p: rebuilt(method=inverse.ADMM),
    "method of solve": lambda p: rebuilt(method=no.CG()),
    "reconstruction of another shape": lambda p: rebuilt(y=jnp.ones((1, 5))),
    "measurements in a batch": lambda p: rebuilt(y=jnp.ones((2, 1, 4))),
    "measurement of integers": lambda p: rebuilt(y=np.ones((1, 4), int)),
    "reconstruction from another shape": lambda p: rebuilt(x0=jnp.ones((1, 5))),
    "scale of zero": lambda p: rebuilt(scale=0.0),
    "norm below zero": lambda p: rebuilt(norm=-1.0),
    "monitor of a denoiser without a value": lambda p: rebuilt(regularizer=inverse.Learned(jnp.tanh), monitor=1),
    "monitor beyond the last step": lambda p: rebuilt(method=inverse.PGD(max_steps=3), monitor=4),
    "value of a denoiser without one": lambda p: inverse.Learned(jnp.tanh).value(LINE),
    "denoiser that is no function": lambda p: inverse.Learned(3.0),
    "code of two levels": lambda p: inverse.Learned(jnp.tanh, code=np.ones(2)),
    "rho of zero": lambda p: inverse.ADMM(0.0),
    "rho below zero": lambda p: inverse.ADMM(-1.0),
    "rho of no size": lambda p: inverse.ADMM(np.nan),
    "rho in words": lambda p: inverse.ADMM("large"),
    "inner method that is none": lambda p: inverse.ADMM(1.0, inner=inverse.PGD()),
    "infinite step": lambda p: inverse.PGD(np.inf),
    "several steps": lambda p: inverse.FISTA(np.ones(2)),
    "dual step of zero": lambda p: inverse.PDHG(1.0, 0.0),
    "no steps": lambda p: inverse.PDHG(max_steps=0),
    "tolerance below zero": lambda p: inverse.PGD(rtol=-1.0),
    "weight below zero": lambda p: inverse.L1(-1.0),
    "complex weight": lambda p: inverse.L2(np.complex64(1)),
    "box upside down": lambda p: inverse.Box(1.0, 0.0),
    "box in words": lambda p: inverse.Box("low", "high"),
    "unknown total variation": lambda p: inverse.TotalVariation(kind="huber"),
    "wavelet that is not orthogonal": lambda p: inverse.Wavelets(wavelet="bior2.2"),
    "wavelet that is none": lambda p: inverse.Wavelets(wavelet="wave"),
    "field that does not divide by the levels": lambda p: inverse.Wavelets(levels=3).prox(jnp.ones((1, 12)), 1.0),
    "denoiser of one layer": lambda p: no.ConvDenoiser(n_layers=1, key=key),
    "denoiser of unknown activation": lambda p: no.ConvDenoiser(activation="swish", key=key),
    "gradient step of nothing": lambda p: no.GradientStep(1.0),
    "gradient step of other channels": lambda p: no.GradientStep(Linear(1, 2, key=key))(LINE),
    # pictures
    "unknown picture": lambda p: no.data.pictures.picture("lena"),
    "pictures twice": lambda p: no.data.pictures.patches(("coins", "coins"), 8, 2, seed=0),
    "no picture for training": lambda p: no.data.pictures.split(("coins", "text"), num_test=2),
    "patch beyond the picture": lambda p: no.data.pictures.patches("text", 200, 2, seed=0),
    "range of zero": lambda p: no.metrics.psnr(U, U, data_range=0.0),
    "similarity with a mask": lambda p: no.metrics.ssim(U, U, mask=np.ones((8, 8), bool)),
    "similarity of a small field": lambda p: no.metrics.ssim(U, U),
    "window of no width": lambda p: no.metrics.ssim(U, U, sigma=0.0),
}


def rebuilt(y=None, regularizer=None, method=None, **options):
    A = maps.Identity((1, 4))
    y = LINE if y is None else y
    return inverse.reconstruct(A, y, regularizer or inverse.L1(), method or inverse.PGD(0.5), **options)


def npz(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_there_are_many():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match=r".{20,}") as error:
        CASES[name](tmp_path)
    message = str(error.value)
    assert ":" in message  # the argument that is wrong ...
    assert ";" in message  # ... and, after what was expected and what came, the mend


def test_what_the_cases_are_made_of_is_good():
    """So that a case is not refused for what stands around the mistake."""
    assert rebuilt(monitor=1).converged
    op = dgno()
    assert op(jnp.ones((1, 5)), query=POINTS).shape == (1, 3)
    assert posterior().fields(jnp.ones((2, 4)), POINTS, of="solution").shape == (2, 1, 3)
    assert no.losses.observed(POINTS, channels=(0,))(op, CODED, key=key).shape == ()
    assert fno()(U).shape == (1, 8, 8)
    shape = lambda op, u, **more: jax.eval_shape(lambda: op(u, **more)).shape
    assert shape(lsm(), U) == (1, 8, 8)
    for patches in (block(), block(None, patch_size=4)):
        assert shape(patches, jnp.ones((4, 8, 8))) == (4, 8, 8)
    assert shape(geo(), CLOUD, coords=PLACES, weights=jnp.ones(5), mask=np.ones(5, bool)) == (1, 5)
    assert shape(transolver(time_input=True), CLOUD, coords=PLACES, time=0.5) == (1, 5)
    assert shape(Deformation(width=4, code_channels=2, key=key), PLACES, code=jnp.ones(2)) == (2, 5)
