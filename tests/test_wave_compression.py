"""The study of compressed convolutions on waves (`benchmarks/wave_compression.py`), at toy size."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import wave_compression as study


@pytest.mark.parametrize(("k", "dilation"), [(3, 2), (5, 1)])
def test_the_ordinary_convolution_is_the_one_in_3d(k, dilation):
    with jax.enable_x64(True):
        rng = np.random.default_rng(k)
        u, kernel = jnp.asarray(rng.normal(size=(7, 6, 5, 3))), jnp.asarray(rng.normal(size=(k, k, k, 3, 2)))
        reach = dilation * (k // 2)
        expected = lax.conv_general_dilated(
            u[None], kernel, (1, 1, 1), [(reach, reach)] * 3, rhs_dilation=(dilation,) * 3,
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )[0]  # fmt: skip
        np.testing.assert_allclose(study.stacked(u, kernel, dilation), expected, atol=1e-12)


@pytest.mark.parametrize("kind", [study.Kind(3, "kernel", 2), study.Kind(5, "cp", 8), study.Kind(3, "depthwise", 3)])
def test_narrower_networks_have_as_many_parameters(kind):
    dense = lambda width: 4 * width + 5 * (width**2 * kind.kernel**3 + width) + width + 1
    width, given = study.narrowed(kind, 8).rank, study.num_parameters(kind, 8)
    assert dense(width - 1) < given <= dense(width)
    net = jax.eval_shape(lambda: study.Net(kind, 8, key=jax.random.key(0)))
    assert study.size(net) == given


def test_only_the_faces_are_given():
    zone = study.Zone(points=5, frames=4)
    rng = np.random.default_rng(0)
    c, u = np.exp(rng.normal(size=(2, 5, 5))), rng.normal(size=(2, 5, 5, 4))
    samples = study.samples_of(zone, c, u)
    inside = (slice(None), 0, slice(1, -1), slice(1, -1), slice(1, None))
    assert not samples.inputs[inside].any()
    given = study.faces(zone)
    assert given.sum() == 5 * 5 * 4 - 3 * 3 * 3
    np.testing.assert_array_equal(samples.inputs[:, 0][:, given], samples.outputs[:, 0][:, given])
    plane = np.add.outer(np.add.outer(2.0 * np.arange(5), -np.arange(5)), np.arange(4.0))[None]
    np.testing.assert_allclose(study.interpolated(jnp.asarray(plane)), plane, atol=1e-5)  # exact for planes


@pytest.mark.slow  # compiles a simulation and two networks
def test_a_stopped_study_goes_on(tmp_path, capsys):
    toy = ["--out", str(tmp_path), "--samples", "5", "10", "--kernels", "3", "--seeds", "0", "--channels", "2",
           "--steps", "4", "--batch-size", "5", "--test", "4", "--zone", "6", "5", "6"]  # fmt: skip
    first = study.main([*toy, "--cells", "1"])
    second = study.main([*toy, "--cells", "2"])
    cells = [row for row in second.rows if row["stage"] == "cell"]
    assert cells[0] == next(row for row in first.rows if row["stage"] == "cell")
    assert [(row["variant"], row["rank"]) for row in cells] == [("dense", 2), ("kernel", 1), ("cp", 2)]
    assert all(np.isfinite(row["test"]) and row["test"] > 0 for row in cells)
    figure = tmp_path / "figure.png"
    capsys.readouterr()
    study.main([*toy, "--report", "--figure", str(figure)])
    shown = capsys.readouterr().out
    assert figure.exists()
    for row in cells:
        assert f"| {row['parameters']:,} |" in shown
        assert f"{100 * row['test']:.1f}" in shown
