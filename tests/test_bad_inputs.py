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
from neuralops.data import Normalized, Normalizer
from neuralops.nn import ChannelMLP, GroupNorm, Linear, SoftGate, SpectralConv

key = jax.random.key(0)
U = jnp.ones((1, 8, 8))
X = np.ones((6, 1, 8, 8), np.float32)
NAN = X * np.where(np.arange(6) == 3, np.nan, 1)[:, None, None, None].astype(np.float32)
G = no.Grid((8, 8))
WALLS = no.Grid((8, 8), boundary="dirichlet", centering="cell")
A = no.Diffusion(WALLS)


def fno(**changes):
    return no.FNO(**{"n_modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4, **changes}, key=key)


def conv(**changes):
    return SpectralConv(**{"in_channels": 2, "out_channels": 2, "n_modes": (4, 4), **changes}, key=key)


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
    # data
    "no samples": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key=0, num_samples=0),
    "seed as text": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key="1", num_samples=1),
    "problem class": lambda p: no.data.generate(no.pde.Poisson, key=0, num_samples=1),
    "half precision labels": lambda p: no.data.generate(no.pde.Poisson((4, 4)), key=0, num_samples=1, dtype="float16"),
    "truncated HDF5": lambda p: no.data.open(written(p / "cut.h5", stored(p / "whole.h5").read_bytes()[:-100])),
    "text as HDF5": lambda p: no.data.open(written(p / "t.h5", b"no HDF5")),
    "text as MATLAB": lambda p: no.data.read_mat(written(p / "t.mat", b"<html>")),
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
}


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
