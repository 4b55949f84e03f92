"""The examples of waves: small runs whose numbers are looked at."""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_examples_solvers import load

from neuralops.pde import waves


@pytest.mark.slow
def test_a_lens_is_found(tmp_path, monkeypatch, capsys):
    module = load("full_waveform_inversion")
    size = ["--num-points", "24", "--num-shots", "3", "--num-receivers", "16", "--frequencies", "2.0"]
    arguments = ["full_waveform_inversion", *size, "--num-steps", "8", "--final-time", "1.6", "--quiet"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--output", str(tmp_path)])
    module.main()
    report = (tmp_path / "report.md").read_text()
    assert float(report.split("found to ")[1].split(" %")[0]) < 40
    assert (tmp_path / "full_waveform_inversion.png").stat().st_size > 10_000


def test_instruments_stand_where_the_medium_is_known():
    module = load("full_waveform_inversion")
    for count, sides in ((40, (0, 1, 2, 3)), (6, (0, 2, 3))):
        places = module.ring(count, sides)
        distance = np.minimum(places, 1 - places).min(axis=0)
        np.testing.assert_allclose(distance, 0.06)
        assert len(np.unique(places.round(6), axis=1).T) == count  # no two of them in one place
        assert np.all(distance < module.MARGIN)


@pytest.mark.slow
def test_records_are_those_of_single_shots():
    module = load("full_waveform_inversion")
    args = argparse.Namespace(num_points=20, num_shots=3, num_receivers=4, frequencies=[2.0])
    solver = module.equation(args)
    heard = module.records(solver, jnp.ones((20, 20)), 2.0, 60, args)
    where = module.ring(3, (0, 2, 3))[:, 1:2]
    sources = waves.Sources(where, waves.ricker(solver.dt * np.arange(60), 2.0)[None])
    alone = solver.run(jnp.ones((20, 20)), num_steps=60, sources=sources, receivers=module.ring(4, (0, 1, 2, 3)))
    np.testing.assert_allclose(heard[1], alone.records, atol=1e-6)
    assert jax.numpy.abs(alone.records).max() > 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*points per wavelength")
def test_four_media_and_three_tasks(tmp_path, monkeypatch):
    module = load("wave_data")
    monkeypatch.setattr(module, "MEDIA", {**module.MEDIA, "maze": waves.Maze(3)})
    size = ["--num-samples", "2", "--num-points", "32", "--num-times", "3", "--final-time", "0.4"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--num-receivers", "5", "--quiet", "--output", str(tmp_path)])
    module.main()
    rows = [row.split("|")[1:-1] for row in (tmp_path / "report.md").read_text().splitlines()[2:]]
    assert [row[4].strip() for row in rows] == ["forward", "time reversal", "inverse source"] * 4
    assert max(float(row[3]) for row in rows) < 0.2
    assert rows[-1][5].strip() == "(1, 5, 17)"
    assert (tmp_path / "wave_data.png").stat().st_size > 10_000
    module.main()  # all files are there: nothing is computed again


def test_rollouts_are_judged_by_error_and_energy():
    module = load("wave_surrogate")
    args = argparse.Namespace(num_points=8, dt=0.1, threshold=0.2, num_steps=2)
    truth, c = np.random.default_rng(0).normal(size=(3, 4, 8, 8)).astype("float32"), np.ones((3, 8, 8), "float32")
    right = module.judge(truth, truth, c, args)
    assert right["errors"].tolist() == [0, 0, 0, 0]
    assert (right["valid"], right["drift"]) == (pytest.approx(0.4), 0)
    grown = module.judge(truth * np.array([1, 1.1, 1.5, 1.5], "float32")[:, None, None], truth, c, args)
    np.testing.assert_allclose(grown["errors"], [0, 0.1, 0.5, 0.5], atol=1e-5)
    assert grown["valid"] == pytest.approx(0.2)
    assert grown["drift"] == pytest.approx(1.25, rel=1e-4)
    text = module.table({"a": [{**grown, "seconds": 2.0}] * 2}, args)
    assert text.splitlines()[-1] == "| a | 0.0 ± 0.0 | 10.0 ± 0.0 | 50.0 ± 0.0 | 0.20 ± 0.00 | 125 ± 0 % | 2 |"


@pytest.mark.slow
def test_a_step_learns_and_is_drawn(tmp_path, monkeypatch):
    module = load("wave_surrogate")
    size = ["--num-points", "16", "--num-train", "8", "--num-test", "2", "--num-steps", "6", "--updates", "60"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--forms", "plain", "all", "--quiet", "--output", str(tmp_path)])
    module.main()
    rows = (tmp_path / "report.md").read_text().splitlines()
    first = {row.split("|")[1].strip(): float(row.split("|")[2]) for row in rows[2:]}
    assert set(first) == {"plain", "all", "last frame stays", "line through two frames"}
    assert first["plain"] < first["last frame stays"]
    assert (tmp_path / "wave_surrogate.png").stat().st_size > 10_000
    assert (tmp_path / "wave_surrogate.gif").read_bytes()[:3] == b"GIF"
