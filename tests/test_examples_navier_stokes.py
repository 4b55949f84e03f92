"""The example of two-dimensional flow: its trajectories obey the equation, its errors are those counted by hand."""

import argparse
import sys

import jax
import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no


@pytest.mark.slow
def test_trajectories_are_solutions_after_the_beginning():
    module = load("navier_stokes")
    options = {"num_points": 8, "viscosity": 0.01, "scale": 7**1.5, "dt": 0.5, "skip": 2, "num_steps": 2}
    frames = module.trajectories(jax.random.key(0), 2, argparse.Namespace(**options))
    assert frames.shape == (2, 3, 1, 8, 8)
    problem = no.pde.NavierStokes((8, 8), viscosity=0.01, scale=7**1.5, final_time=2.0, num_times=5)
    whole = jax.jit(problem.solve)(problem.sample(jax.random.split(jax.random.key(0), 2)[1]))
    np.testing.assert_allclose(frames[1, :, 0], whole[2:], atol=1e-5)
    assert np.abs(frames[1, 2] - frames[1, 0]).max() > 0.01


def test_the_errors_are_those_counted_by_hand():
    module = load("navier_stokes")
    truth = np.ones((2, 3, 1, 4, 4), "float32")
    wrong = truth * np.array([1.01, 1.05, 1.5], "float32")[None, :, None, None, None]
    errors, valid = module.judge(wrong, truth, argparse.Namespace(threshold=0.1, dt=0.5))
    np.testing.assert_allclose(errors, [0.01, 0.05, 0.5], rtol=1e-3)
    assert valid == pytest.approx(1.0)
    text = module.table({"one": (errors, valid)}, argparse.Namespace(num_steps=3))
    assert text.splitlines()[-1] == "| one | 1.00 | 50.00 | 1.00 |"


@pytest.mark.slow
def test_a_short_run(tmp_path, monkeypatch):
    module = load("navier_stokes")
    size = ["--num-points", "16", "--num-train", "16", "--num-test", "4", "--num-steps", "4", "--seconds", "3"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--unroll", "2", "--output", str(tmp_path)])
    module.main()
    rows = (tmp_path / "report.md").read_text().splitlines()
    first = {row.split("|")[1].strip(): float(row.split("|")[2]) for row in rows[2:]}
    assert set(first) == {"one step", "2 steps", "persistence"}
    assert first["one step"] < first["persistence"]  # it has learned something
    assert (tmp_path / "navier_stokes.png").stat().st_size > 10_000
