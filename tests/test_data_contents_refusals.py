"""Files with points, masks, extras and trajectories that break their promises, and samples that fit no file."""

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from test_data_contents import CLOUD, FRAMES, clouds, frames
from test_data_refusals import replace

from neuralops import data
from neuralops.grid import Grid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["neuralops_points"].__delitem__("mask"), "neuralops_points/mask is missing"),
        (lambda f: f.__delitem__("neuralops_extras"), "neuralops_extras/flag is missing"),
        (lambda f: f.__delitem__("neuralops_fields/r"), "neuralops_fields/r is missing"),
        (lambda f: f.attrs.__delitem__("neuralops_contents"), "header is damaged"),
        (lambda f: f.attrs.__setitem__("neuralops_contents", "[]"), "header is damaged"),
        (
            lambda f: f.attrs.__setitem__(
                "neuralops_contents", f.attrs["neuralops_contents"].replace('"shared": false', '"shared": true')
            ),
            "expected points to be shared or not, extras not",
        ),
        (
            lambda f: f.attrs.__setitem__(
                "neuralops_contents", f.attrs["neuralops_contents"].replace('"label"', '"../../label"')
            ),
            "header is damaged",
        ),
        (
            lambda f: f.attrs.__setitem__(
                "neuralops_contents", f.attrs["neuralops_contents"].replace('"points": [7]', '"points": [8]')
            ),
            r"coords has shape \(2, 7\) in a sample, which does not fit fields on \(8,\)",
        ),
        (
            lambda f: replace(f["neuralops_points"], "mask", np.ones(4, bool)),
            r"mask has shape \(4,\), expected \(4, 7\)",
        ),
    ],
)
def test_open_refuses_broken_promises(tmp_path, change, message):
    path = data.write(tmp_path / "c.h5", clouds(), **CLOUD).path
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        data.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["neuralops_extras/label"].__setitem__(1, 7), "neuralops_extras/label does not have the digest"),
        (lambda f: f["neuralops_points/mask"].__setitem__((0, 6), True), "p: expected finite .*mask does not have the"),
        (lambda f: f["neuralops_fields/r"].__setitem__((2, 1), np.nan), r"NaN or infinity in 1 of 4 .*first: 2\)"),
        (lambda f: f["neuralops_points/coords"].__setitem__((3, 0, 5), np.inf), r"coords: expected finite"),
    ],
)
def test_validate_refuses_other_numbers(tmp_path, change, message):
    path = data.write(tmp_path / "c.h5", clouds(), **CLOUD).path
    with h5py.File(path, "r+") as file:
        change(file)
    data.open(path).close()
    with pytest.raises(ValueError, match=message):
        data.validate(path)


def test_write_refuses(tmp_path):
    x, u = clouds(), frames(mask=False)
    plain = data.Samples(x.inputs[:, :, :4], x.outputs[:, :, :4])
    cases = [
        (plain, CLOUD, "expected a grid, or samples with coords"),
        (x.replace(mask=None), CLOUD, "NaN or infinity"),
        (x, {**CLOUD, "output_fields": []}, "name each channel"),
        (x, {**CLOUD, "input_fields": ["p"]}, "on these points"),
        (x.replace(outputs=None), CLOUD, "samples.outputs: expected shape"),
        (x.replace(extras={"when": np.array(["a"] * 4)}), CLOUD, r"extras\['when'\]: expected real numbers"),
        (x.replace(extras={"half": jnp.ones(4, "bfloat16")}), CLOUD, "got dtype bfloat16; convert it"),
        (x.replace(extras={"a/b": np.ones(4)}), CLOUD, "samples.extras: expected plain names"),
        (x.replace(extras={"few": np.ones(3)}), CLOUD, "expected as many inputs as outputs"),
        (u, {**FRAMES, "times": np.arange(8)}, "times: expected 9 increasing numbers"),
        (u, {**FRAMES, "times": np.zeros(9)}, "increasing"),
        (u, {**FRAMES, "grid": Grid((5,))}, "on this grid"),
        (data.Samples(u.inputs, u.inputs[:, :4]), {**FRAMES, "output_fields": ["a", "b"]}, "of 9 frames"),
        (data.Samples(u.inputs[:, 0]), FRAMES, "leave times out"),
        (u, {**FRAMES, "times": None, "grid": None}, "times: expected the times of trajectories on points"),
    ]
    for samples, options, message in cases:
        with pytest.raises(ValueError, match=message):
            data.write(tmp_path / "w.h5", samples, **options)
    assert not list(tmp_path.iterdir())
