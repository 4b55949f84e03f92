"""The rollout example: its trajectories obey the equation, its errors are those counted by hand."""

import argparse
import sys

import jax
import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no


@pytest.mark.slow
def test_a_trajectory_is_the_solution_at_successive_times():
    module = load("rollout")
    step = no.pde.Burgers(16, viscosity=0.05, final_time=0.1)
    frames = module.trajectories(step, jax.random.key(0), 1, 3)
    assert frames.shape == (1, 4, 1, 16)
    whole = jax.jit(no.pde.Burgers(16, viscosity=0.05, final_time=0.3).solve)(frames[0, 0])
    np.testing.assert_allclose(frames[0, -1], whole, rtol=0, atol=1e-4)
    assert np.abs(frames[0, -1] - frames[0, 0]).max() > 1e-2


def test_the_errors_are_those_counted_by_hand():
    module = load("rollout")
    truth = np.ones((1, 3, 1, 4), "float32")
    wrong = truth * np.array([1.01, 1.05, 1.5], "float32")[None, :, None, None]
    errors, valid = module.judge(wrong, truth, argparse.Namespace(threshold=0.1, dt=0.5))
    np.testing.assert_allclose(errors, [0.01, 0.05, 0.5], rtol=1e-3)
    assert valid == pytest.approx(1.0)


@pytest.mark.slow
def test_a_short_run(tmp_path, monkeypatch):
    module = load("rollout")
    size = ["--num-points", "32", "--viscosity", "0.05", "--num-train", "16", "--num-test", "4", "--num-steps", "6"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--unroll", "2", "--quiet", "--output", str(tmp_path)])
    module.main()
    rows = (tmp_path / "report.md").read_text().splitlines()
    first = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in rows[2:]}
    assert float(first["one step"]) < float(first["persistence"])  # it has learned something
    assert (tmp_path / "rollout.png").stat().st_size > 10_000
