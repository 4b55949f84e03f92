"""Weights of published latent spectral models and Transolvers: our operators give the numbers of the published code."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops.interop import official

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks/parity"))
import lsm_official  # noqa: E402
import transolver_official  # noqa: E402

sys.path.pop(0)


def fixture(name):
    with np.load(HERE / f"fixtures/{name}_official.npz", allow_pickle=False) as file:
        kept = dict(file)
    return json.loads(str(kept.pop("cases"))), kept


LSM, LSM_OUTPUTS = fixture("lsm")
TRANSOLVER, TRANSOLVER_OUTPUTS = fixture("transolver")
FAST = {"xla_backend_optimization_level": 0}  # of the compiler, which takes longer than the program


def arrays(parity, cases, title, dtype="float32"):
    return parity.weights(cases[title], list(cases).index(title), dtype)


def check(parity, cases, outputs, title):
    case, theirs = cases[title], outputs[f"{title}|float64"]
    with jax.enable_x64(True):
        op = parity.ours(case, arrays(parity, cases, title, "float64"))
        given = parity.inputs(case, list(cases).index(title), 1)
        mine = np.asarray(parity.evaluate(case, op, given, FAST))
    assert mine.dtype == theirs.dtype == np.float64
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-13 * np.abs(theirs).max())
    assert (np.ptp(theirs.reshape(-1, theirs.shape[-1]), axis=0) > 0.1).all()  # not a constant


@pytest.mark.parametrize("title", TRANSOLVER)
def test_numbers_of_published_transolvers(title):
    """On points and grids, with places, distances or neither, with and without the time, in double precision."""
    check(transolver_official, TRANSOLVER, TRANSOLVER_OUTPUTS, title)


@pytest.mark.slow
@pytest.mark.parametrize("title", LSM)
def test_numbers_of_published_latent_spectral_models(title):
    """On grids, two of which their code returns empty, and on points, with and without a code and other points."""
    check(lsm_official, LSM, LSM_OUTPUTS, title)
    padding, _ = lsm_official.padding_of(LSM[title]) if "grid" in LSM[title] else ([], [])
    assert LSM[title]["empty"] == (0 in padding and any(padding))  # some axes alone need none


def test_block_of_published_latent_spectral_model():
    """One neural spectral block by the formulas of the paper, from their arrays: heads, keys and values in turns."""
    parts = arrays(lsm_official, LSM, "2-D", "float64")["model"]
    with jax.enable_x64(True):
        block = official.lsm(parts).network.blocks[1]
        u = np.random.default_rng(0).normal(size=(8, 8, 16))
        mine = np.asarray(jax.jit(block.channels_last, compiler_options=FAST)(jnp.asarray(u)))
    latent, w, basis = parts["process2.latent"], parts["process2.weights"], 12
    matrix, bias = parts["process2.encoder_attn.weight"][..., 0, 0], parts["process2.encoder_attn.bias"]
    back, offset = parts["process2.decoder_attn.weight"][..., 0, 0], parts["process2.decoder_attn.bias"]
    softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    for point in ((0, 3), (5, 6)):  # eight patches an axis, one point each: all of its weight is on itself
        x = u[point]
        values = (matrix @ x + bias)[1::2].reshape(8, 1, 2)
        tokens = np.broadcast_to(values, latent.shape) + latent
        waves = np.pi / basis * tokens[..., None] * np.arange(basis)
        factor = w.reshape(8, 1, 2, 2 * basis)
        tokens = tokens + (np.concatenate([np.sin(waves), np.cos(waves)], -1) * factor).sum(-1)
        query = (back @ x + offset).reshape(8, 2)
        share = softmax(np.einsum("hd,htd->ht", query, tokens))
        np.testing.assert_allclose(mine[point], x + np.einsum("ht,htd->hd", share, tokens).ravel(), rtol=1e-12)


def test_sizes_and_folded_normalisation():
    parts = arrays(lsm_official, LSM, "not padded")["model"]
    op = official.lsm({f"module.{name}": x for name, x in parts.items()} | {"other": np.ones(2)}, prefix="module.")
    assert (op.in_channels, op.out_channels, op.hidden_channels, op.ndim, op.norm) == (1, 1, 8, 2, "affine")
    assert (op.n_heads, op.n_tokens, op.n_basis, op.projection_channels, op.patch_size) == (8, 3, 5, 128, None)
    stem = "up3.conv.double_conv.4"
    x = np.linspace(-1, 1, 16, dtype=np.float32)
    norm = op.network.up[1].norms[1]
    scale, shift, mean, variance = (parts[f"{stem}.{n}"] for n in ("weight", "bias", "running_mean", "running_var"))
    assert np.shape(norm.weight) == scale.shape == (8,)
    expected = (x[:, None] - mean) / np.sqrt(variance + 1e-5) * scale + shift
    np.testing.assert_allclose(
        norm.channels_last(jnp.asarray(np.broadcast_to(x[:, None], (16, 8)))), expected, 1e-5, 1e-6
    )
    kernel = op.network.down[2].kernels[0]
    np.testing.assert_array_equal(kernel[0, 2], parts["down2.maxpool_conv.1.double_conv.0.weight"][:, :, 0, 2].T)
    assert official.lsm(parts, patch_size=(2, 1)).patch_size == (2, 1)


def test_network_on_points():
    """Modes from the arrays, complex or as pairs; the deformation with and without the layer for a code."""
    given = arrays(lsm_official, LSM, "points")
    told = {"latent_points": (16, 32), "chunk_size": 7}
    op = official.lsm(given["model"], deformation=given["deformation"], **told)
    assert isinstance(op, no.GeoOperator)
    assert (op.n_modes, op.latent_points, op.transform, op.chunk_size) == ((6, 7), (16, 32), "published", 7)
    assert (op.deformation.width, op.deformation.code_channels, op.body.norm) == (32, 42, "affine")
    pair = lambda x: np.stack([x.real, x.imag], -1) if np.iscomplexobj(x) else x
    paired = official.lsm({name: pair(x) for name, x in given["model"].items()}, **told)
    assert paired.deformation is None
    core = paired.encoder.weight.core
    np.testing.assert_array_equal(core, op.encoder.weight.core)
    weights = given["model"]["fftproject_in.weights2"]
    np.testing.assert_array_equal(core[0, 3, 5, 1], weights[3, 5, 1].real)  # frequency -2 of -3 ... 2
    np.testing.assert_array_equal(core[1, 3, 5, 4], given["model"]["fftproject_in.weights1"][3, 5, 1].imag)
    plain = {f"iphi.{name}": x for name, x in given["deformation"].items() if not name.startswith("fc_code")}
    op = official.lsm(given["model"], deformation=plain, deformation_prefix="iphi.", **told)
    assert op.deformation.code_channels is None
    assert op.deformation.with_code is None


def test_what_is_told_of_a_transolver():
    parts = arrays(transolver_official, TRANSOLVER, "2-D")["model"]
    op = official.transolver(parts)
    assert (op.structured, op.ndim, op.positional_embedding, op.time_input) == (True, 2, "coordinates", False)
    assert (op.in_channels, op.out_channels, op.n_layers, op.n_heads, op.n_slices) == (2, 1, 2, 4, 5)
    assert not np.any(op.placeholder)  # as published on grids with values
    np.testing.assert_array_equal(official.transolver(parts, placeholder=True).placeholder, parts["placeholder"])
    surface = official.transolver(parts, space_dim=3)  # three coordinates and a value of a grid in two dimensions
    assert (surface.in_channels, surface.positional_embedding, surface.ndim) == (4, None, 2)
    parts = arrays(transolver_official, TRANSOLVER, "points")["model"]
    assert official.transolver(parts).mlp_ratio == 2
    alone = official.transolver(parts, space_dim=3)
    assert (alone.in_channels, alone.positional_embedding, alone.ndim) == (3, None, 3)
    parts = {f"module.{name}": x for name, x in parts.items()}
    assert official.transolver(parts, prefix="module.").hidden_channels == 12
    assert official.transolver(parts, prefix="module.", activation="ELU").activation == "elu"


def without(arrays, *names):
    return {name: x for name, x in arrays.items() if name not in names}


GRID = arrays(lsm_official, LSM, "2-D")["model"]
POINTS = arrays(lsm_official, LSM, "points")["model"]
MOVING = arrays(lsm_official, LSM, "points")["deformation"]
SLICES = arrays(transolver_official, TRANSOLVER, "2-D")["model"]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({**GRID, "extra.weight": np.ones(2)}, r"missing \[\], unknown \['extra.weight'\]"),
        (without(GRID, "process3.latent", "up2.conv.double_conv.1.running_var"), r"missing \['process3.latent', 'up2"),
        (without(GRID, "fc0.weight"), r"\['fc0.weight'\] among them"),
        ({**GRID, "outc.conv.bias": np.ones(9)}, r"outc.conv.bias \(9,\) for \(8,\)"),
        ({**GRID, "down3.maxpool_conv.1.double_conv.0.weight": np.ones((64, 32))}, r"double_conv.0.weight \(64, 32\)"),
        ({**GRID, "process2.weights": np.ones((16, 23))}, r"process2.weights \(16, 23\) for \(16, 12\)"),
        ({**GRID, "inc.double_conv.0.weight": np.ones((8, 8, 3))}, "inc.double_conv.0.weight should have 4 or 5 axes"),
        ({**GRID, "process1.latent": np.ones(3)}, "process1.latent should have 3 axes"),
        ({**GRID, "fc0.weight": np.ones((8, 2))}, "fc0.weight should take values and 2 coordinates, got 2 numbers"),
        ({**GRID, "fc1.bias": np.ones(128, complex)}, "fc1.bias should be real and floating, got complex128"),
        (without(POINTS, "convproject_out.bias"), r"missing \['convproject_out.bias'\]"),
        ({**POINTS, "fftproject_out.weights2": np.ones((8, 8, 3, 5), complex)}, "fftproject_out.weights1"),
        ({**POINTS, "fftproject_in.weights1": np.ones((8, 8, 3, 4))}, "weights1 should have 5 axes"),
        (list(GRID), "expected a mapping from names to arrays, got list"),
    ],
)
def test_arrays_that_do_not_fit_an_lsm(arrays, told):
    with pytest.raises(ValueError, match=told) as error:
        official.lsm(arrays, latent_points=16)
    assert str(error.value).startswith("arrays: ")
    assert ";" in str(error.value)


@pytest.mark.parametrize(
    ("moving", "told"),
    [
        (without(MOVING, "fc2.bias"), r"missing \['fc2.bias'\]"),
        (without(MOVING, "fc_code.weight"), r"\['fc_code.weight'\] among them"),
        ({**MOVING, "fc9.bias": np.ones(2)}, r"unknown \['fc9.bias'\]"),
        ({**MOVING, "fc_code.weight": np.ones(42)}, r"fc_code.weight should have 2 axes"),
        ({**MOVING, "fc1.weight": np.ones((128, 96))}, r"fc1.weight \(128, 96\) for \(128, 128\)"),
        (without(MOVING, "fc0.weight"), r"\['fc0.weight'\] among them"),
        ([], "expected a mapping from names to arrays, got list"),
    ],
)
def test_deformations_that_do_not_fit(moving, told):
    with pytest.raises(ValueError, match=told) as error:
        official.lsm(POINTS, latent_points=16, deformation=moving)
    assert str(error.value).startswith("deformation: ")
    with pytest.raises(ValueError, match="deformation: expected None for a network on a grid"):
        official.lsm(GRID, deformation=MOVING)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({**SLICES, "extra.weight": np.ones(2)}, r"missing \[\], unknown \['extra.weight'\]"),
        (without(SLICES, "blocks.1.Attn.to_k.weight"), r"missing \['blocks.1.Attn.to_k.weight'\]"),
        (without(SLICES, "blocks.1.ln_1.weight"), r"\['blocks.0.mlp2.weight'\] among them"),
        (without(SLICES, "preprocess.linear_pre.0.weight"), r"among them"),
        ({**SLICES, "placeholder": np.ones(9)}, r"for \(18, 4\)|placeholder|n_heads"),
        ({**SLICES, "blocks.0.Attn.temperature": np.ones(4)}, "temperature should have 4 axes"),
        ({**SLICES, "blocks.1.Attn.temperature": np.ones((1, 4, 2, 1))}, r"blocks.1.Attn.temperature \(1, 4, 2, 1\)"),
        ({**SLICES, "blocks.1.Attn.in_project_x.weight": np.ones((12, 12))}, r"in_project_fx.weight \(12, 12, 3, 3\)"),
        ({**SLICES, "preprocess.linear_pre.0.weight": np.ones((24, 1))}, "should take 2 coordinates, got 1 numbers"),
    ],
)
def test_arrays_that_do_not_fit_a_transolver(arrays, told):
    with pytest.raises(ValueError, match=told):
        official.transolver(arrays)


def test_words_that_do_not_fit_a_transolver():
    with pytest.raises(ValueError, match="should take 9 distances and at least one value, got 4 numbers"):
        official.transolver(SLICES, unified_pos=True, ref=3)
    with pytest.raises(ValueError, match="activation: expected one of"):
        official.transolver(SLICES, activation="leaky_relu")
    with pytest.raises(ValueError, match="unified_pos: expected True or False"):
        official.transolver(SLICES, unified_pos="yes")
