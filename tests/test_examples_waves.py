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
