"""Weights that authors publish: our operators give the numbers that the published code gave for them."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops.interop import official

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("parity", HERE.parent / "benchmarks/parity/multionet_official.py")
parity = importlib.util.module_from_spec(spec)
spec.loader.exec_module(parity)
with np.load(HERE / "fixtures/multionet_official.npz", allow_pickle=False) as file:
    KEPT = dict(file)
CASES = json.loads(str(KEPT["cases"]))
key = jax.random.key(0)


def weights(title):
    return {name.split("|")[2]: x for name, x in KEPT.items() if name.startswith(f"{title}|weight|")}


@pytest.mark.parametrize("title", CASES)
def test_numbers_of_the_published_code(title):
    """All forms and activations; `benchmarks/parity/multionet_official.py` ran it in double precision."""
    case, given = CASES[title], KEPT[f"{title}|input|a"]
    outputs = {name.split("|")[2]: x for name, x in KEPT.items() if name.startswith(f"{title}|output|")}
    points = {form: KEPT.get(f"{title}|input|{form}") for form in outputs}
    with jax.enable_x64(True):
        arrays = {name: x.astype(np.float64) for name, x in weights(title).items()}
        ops = [parity.ours(case, arrays, name) for name in parity.ACTIVATIONS]
        run = jax.jit(
            lambda ops: {
                form: jnp.stack([parity.evaluate(case, op, given, x) for op in ops]) for form, x in points.items()
            }
        )
        got = run(ops)
    for form, theirs in outputs.items():
        assert got[form].dtype == theirs.dtype == np.float64
        np.testing.assert_allclose(got[form], theirs, rtol=0, atol=1e-14 * np.abs(theirs).max())
        spread = np.abs(np.diff(theirs, axis=0)).max((1, 2, 3))
        assert (spread > 1e-3 * np.abs(theirs).max()).all()  # no two activations give the same


def test_their_words_and_defaults():
    op = official.multionet(weights("sum"))
    assert (op.trunk_activation, op.branch_activation) == ("silu_sin", "silu")
    assert (op.n_layers, op.sum_layers, op.hidden_channels, op.sensors, op.ndim) == (4, 2, 6, (5,), 2)
    op = official.multionet(weights("older"), branch_activation="Swish", trunk_activation="Sinc")
    assert (op.trunk_activation, op.branch_activation, op.n_layers, op.sum_layers) == ("x_sin", "silu", 3, 2)
    assert official.multionet(weights("older")).branch_activation == "silu_id"
    assert official.multionet(weights("older x")).sum_layers == 2
    with pytest.raises(ValueError, match="sum_layers: expected fewer"):  # four layers, four of them by default
        official.multionet(weights("x"))
    with pytest.raises(ValueError, match="activation: expected one of"):
        official.multionet(weights("sum"), trunk_activation="Nothing")
    with pytest.raises(ValueError, match="sum_layers: expected 2, one for each w"):
        official.multionet(weights("sum"), sum_layers=3)


def test_what_stands_around_the_network():
    """A prefix, a grid of sensors, an encoder, a factor: each as if it were applied outside."""
    plain = official.multionet(weights("sum"))
    u, x = jnp.linspace(-1, 1, 5)[None], jnp.asarray([[0.0, 0.3], [0.4, 0.9]])
    arrays = {f"module.{name}": x for name, x in weights("sum").items()} | {"other.weight": np.ones(3)}
    walled = official.multionet(arrays, prefix="module.", factor="both", domain=((0, 2), (0, 1)), chunk_size=1)
    wall = np.sin(np.pi * x[0] / 2) * np.sin(np.pi * x[1])
    expected = plain(u, query=x)
    np.testing.assert_allclose(walled(u, query=x), expected * wall, rtol=1e-5, atol=1e-6)

    cut = {name: x for name, x in weights("sum").items() if name != "fc_branch_in.weight"}
    shaped = {**cut, "fc_branch_in.weight": np.resize(weights("sum")["fc_branch_in.weight"], (6, 6))}
    field = official.multionet(shaped, sensors=no.Grid((2, 3), (1.0, 2.0)))
    assert field.domain == ((0.0, 1.0), (0.0, 2.0))
    flat = official.multionet(shaped)
    v = jnp.linspace(-1, 1, 6)
    np.testing.assert_allclose(field(v.reshape(1, 2, 3), query=x), flat(v[None], query=x), rtol=1e-6)

    front = no.nn.MLPEncoder(3, 1, 5, (4,), key=key)
    whole = official.multionet(weights("sum"), encoder=front)
    w = jnp.asarray([[0.2, -0.4, 0.9]])
    np.testing.assert_allclose(whole(w, query=x), plain(front(w), query=x), rtol=1e-5)


def without(arrays, *names):
    return {name: x for name, x in arrays.items() if name not in names}


SUM, X = weights("sum"), weights("x")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({**SUM, "extra.weight": np.ones(2), "also": np.ones(1)}, r"missing \[\], unknown \['also', 'extra.weight'\]"),
        (without(SUM, "b", "trunk_net.1.bias"), r"missing \['b', 'trunk_net.1.bias'\], unknown \[\]"),
        (without(SUM, "branch_net.2.weight"), r"missing \['branch_net.2.weight'\]"),
        (without(SUM, "w.0"), r"missing \['w.0'\], unknown \['w.1'\]"),
        ({**X, "w.0": np.ones(())}, r"unknown \['w.0'\]"),
        (without(SUM, "fc_trunk_in.weight"), r"\['fc_trunk_in.weight'\] among them"),
        ({**SUM, "trunk_net.0.weight": np.ones((6, 7))}, r"got \['trunk_net.0.weight \(6, 7\) for \(6, 6\)'\]"),
        ({**SUM, "w.1": np.ones(2)}, r"w.0 \(\) for \(2, 1\)"),
        ({**SUM, "b": np.ones(2)}, r"b \(2,\) for \(1,\)"),
        ({**SUM, "b": np.ones((), int)}, "b should be real and floating, got int64"),
        ({**SUM, "fc_branch_in.weight": np.ones(5)}, "fc_branch_in.weight should be a matrix"),
        ({}, "got \\[\\]"),
        (list(SUM.items()), "expected a mapping from names to arrays, got list"),
    ],
)
def test_arrays_that_do_not_fit(arrays, told):
    with pytest.raises(ValueError, match=told) as error:
        official.multionet(arrays, **({"sum_layers": 2} if "w.0" in arrays and "fc_out.weight" in arrays else {}))
    assert str(error.value).startswith("arrays: ")
    assert ";" in str(error.value)


def test_other_networks_that_do_not_fit():
    words = {"trunk_activation": "Tanh", "branch_activation": "Tanh"}
    arrays = weights("deeponet")
    with pytest.raises(ValueError, match=r"missing \['branch.net.1.bias'\], unknown \['branch.net.3.bias'\]"):
        official.deeponet({**without(arrays, "branch.net.1.bias"), "branch.net.3.bias": np.ones(6)}, **words)
    with pytest.raises(ValueError, match="among them"):
        official.deeponet(weights("deeponet cnn"), **words)  # a branch of one's own, without its encoder
    with pytest.raises(ValueError, match="sensors: expected the points"):
        official.encoder(weights("cnn"))
    with pytest.raises(ValueError, match=r"net.fc_net.0.weight \(5, 8\) for \(5, 12\)"):
        official.encoder(weights("cnn"), sensors=(9, 17))
    with pytest.raises(ValueError, match="conv_channels: expected few enough"):
        official.encoder(weights("cnn"), sensors=(4, 4))
    with pytest.raises(ValueError, match=r"net.net.0.weight \(6, 10\) for \(6, 9\)"):
        official.encoder(weights("fc"), in_channels=3)
    ended = official.encoder(weights("fc"), in_channels=2, last_activation="Tanh")
    u = jnp.ones((2, 5))
    np.testing.assert_allclose(ended(u), np.tanh(official.encoder(weights("fc"), in_channels=2)(u)), rtol=1e-6)
