"""The example on unaligned data: what is measured is the field, what stands beside the networks is what it says."""

import sys

import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no

RNG = np.random.default_rng(0)


def hills(x, strength):
    return strength * np.sin(np.pi * x[0]) * np.sin(2 * np.pi * x[1])


def test_measurements_are_the_field_at_their_points():
    module = load("deeponet_unaligned")
    grid = no.Grid((24, 32), (1.0, 1.0), boundary="dirichlet", centering="cell")
    counts = np.array([7, 30])
    fields = np.stack([hills(grid.coordinates(), s)[None] for s in (1.0, -2.0)])
    places, values = module.measured(fields, grid, counts, RNG)
    for x, v, s, count in zip(places, values, (1.0, -2.0), counts, strict=True):
        assert x.shape == (2, count)
        np.testing.assert_allclose(v[0], hills(x.astype(float), s), atol=2e-3 * abs(s))  # of a cubic spline
    assert np.abs(places[0][:, :7] - places[1][:, :7]).min() > 0


def test_baselines_on_a_field_that_is_linear_in_the_input():
    module = load("deeponet_unaligned")
    strengths = 3 + 0.5 * RNG.normal(size=40)
    inputs = (strengths[:, None] * np.linspace(1, 2, 9) + 1)[:, None].astype("float32")
    places = [RNG.uniform(size=(2, RNG.integers(100, 150))).astype("float32") for _ in strengths]
    values = [hills(x.astype(float), s)[None] for x, s in zip(places, strengths, strict=True)]
    data = module.Data(inputs, places, values, np.zeros((40, 1, 4, 4)), no.Grid((4, 4)))
    rules = module.baselines(data)
    x, wanted = RNG.uniform(size=(2, 25)), 4.2
    size = np.abs(hills(x, wanted)).max()
    for name, predict in rules.items():
        guess = predict((wanted * np.linspace(1, 2, 9) + 1)[None], x)
        if name.startswith("linear"):
            np.testing.assert_allclose(guess, hills(x, wanted), atol=0.01 * size)
        elif name.startswith("nearest"):
            near = strengths[np.argmin(np.abs(strengths - wanted))]
            np.testing.assert_allclose(guess, hills(x, near), atol=0.1 * size)
        else:
            assert name.startswith("mean")
            np.testing.assert_allclose(guess, hills(x, strengths.mean()), atol=0.1 * size)
            assert np.abs(guess - hills(x, wanted)).max() > 0.2 * size


@pytest.mark.slow
def test_a_short_run(tmp_path, monkeypatch):
    module = load("deeponet_unaligned")
    size = ["--num-points", "16", "--num-sensors", "8", "--num-train", "40", "--num-test", "6", "--num-epochs", "150"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--hidden-channels", "32", "--quiet", "--output", str(tmp_path)])
    module.main()
    rows = (tmp_path / "report.md").read_text().splitlines()[2:]
    errors = {row.split("|")[1].strip(): float(row.split("|")[2]) for row in rows}
    mean = errors["mean of the measurements"]
    assert errors["DeepONet"] < mean
    assert errors["MultiONet"] < mean
    assert (tmp_path / "deeponet_unaligned.png").stat().st_size > 10_000
