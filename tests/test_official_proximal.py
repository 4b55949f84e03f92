"""Weights of published learned proximal networks: our operators give the numbers of the published code."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import neuralops as no
from neuralops.interop import official

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "benchmarks/parity"))
import lpn_official  # noqa: E402

sys.path.pop(0)

with np.load(HERE / "fixtures/lpn_official.npz", allow_pickle=False) as file:
    KEPT = dict(file)
CASES = json.loads(str(KEPT["cases"]))
FAST = {"xla_backend_optimization_level": 0}  # of the compiler, which takes longer than the program


def arrays(title, dtype="float32"):
    return lpn_official.weights(CASES[title], list(CASES).index(title), dtype)


@pytest.mark.parametrize("title", [pytest.param(t, marks=[pytest.mark.slow] * (t == "128")) for t in CASES])
def test_numbers_of_published_networks(title):
    """Potential and output of the toy network in one and three dimensions, `lpn_mnist` and `lpn_128`."""
    case = CASES[title]
    with jax.enable_x64(True):
        op = lpn_official.ours(case, arrays(title, "float64"))
        found = lpn_official.evaluate(case, op, lpn_official.inputs(case, list(CASES).index(title)), FAST)
    for what, mine in zip(("potential", "output"), found, strict=True):
        theirs = KEPT[f"{title}|{what}|float64"]
        assert mine.dtype == theirs.dtype == np.float64
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12 * np.abs(theirs).max())
    assert np.ptp(theirs) > 0.01 * np.abs(theirs).max()  # not a constant


def test_sizes_and_what_is_told():
    op = official.lpn(
        {f"module.{name}": x for name, x in arrays("mnist").items()} | {"x": np.ones(2)}, prefix="module."
    )
    assert isinstance(op, no.LPN)
    psi = op.psi
    assert (psi.in_channels, psi.hidden_channels, psi.strides, psi.window, psi.use_bias) == (
        2,
        3,
        (2, 1, 2),
        (7, 7),
        False,
    )
    assert (psi.beta, psi.alpha, psi.readout_channels) == (10, 0.01, 64)
    psi = official.lpn(arrays("128")).psi
    assert (psi.strides, psi.window, psi.use_bias, psi.beta, psi.alpha) == ((2, 1, 2, 1, 2), (16, 16), True, 100, 1e-6)
    assert psi.grids((128, 128))[-1] == (16, 16)
    psi = official.lpn(arrays("toy, 3-D"), beta=2.5, alpha=0.1).psi
    assert (psi.num_points, psi.n_layers, psi.beta, psi.alpha) == ((3,), 2, 2.5, 0.1)
    parts = arrays("toy")
    np.testing.assert_array_equal(official.lpn(parts).psi.layers[2].main, parts["lin.2.weight"].T)
    bad = {**parts, "lin.2.weight": -parts["lin.2.weight"] - 1}
    assert official.lpn(bad).psi.layers[2].main.max() < 0  # as it came
    assert official.lpn(bad).project().psi.layers[2].main.min() == 0


def without(arrays, *names):
    return {name: x for name, x in arrays.items() if name not in names}


TOY, MNIST, LARGE = arrays("toy"), arrays("mnist"), arrays("128")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({**TOY, "extra.weight": np.ones(2)}, r"missing \[\], unknown \['extra.weight'\]"),
        (without(TOY, "res.2.bias"), r"missing \['res.2.bias'\]"),
        (without(TOY, "lin.0.weight"), r"\['lin.0.weight'\] among them"),
        ({**TOY, "lin.1.weight": np.ones((6, 5))}, r"lin.1.weight \(6, 5\) for \(6, 6\)"),
        ({**TOY, "lin.0.weight": np.ones(6)}, "lin.0.weight should have 2 or 4 axes"),
        ({**MNIST, "lin.4.weight": np.ones((64, 100))}, r"lin.4.weight \(64, 100\)"),
        (without(MNIST, "res.3.weight"), r"\['res.3.weight'\] among them"),
        ({**LARGE, "lin.6.weight": np.ones((64, 32))}, "lin.6.weight should have 4 axes"),
        (without(LARGE, "lin.7.bias"), r"missing \['lin.7.bias'\]"),
        (list(TOY), "expected a mapping from names to arrays, got list"),
    ],
)
def test_arrays_that_do_not_fit(arrays, told):
    with pytest.raises(ValueError, match=told) as error:
        official.lpn(arrays)
    assert str(error.value).startswith("arrays: ")
    assert ";" in str(error.value)
