"""The DGNO examples: what they train on is small at the solution, and short runs learn something."""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_examples_solvers import EXAMPLES, load

import neuralops as no
from neuralops.data import Samples

ARGS = argparse.Namespace(medium="two_phase", num_centers=30, radius=1e-2)


class Layers:
    """The exact answer to -u'' a = 10 in x for layers a = 5 below 1/2, 10 above, and its stream function."""

    phases = (5.0, 10.0)
    variational = False
    keywords = frozenset({"query"})
    c = 10 * (0.125 / 5 + 0.375 / 10) / (0.5 / 5 + 0.5 / 10)

    def encode(self, a):
        return jnp.zeros(1)

    def decode(self, code, x):
        left = lambda x: (self.c * x - 5 * x**2) / 5
        right = left(0.5) + (self.c * (x[0] - 0.5) - 5 * (x[0] ** 2 - 0.25)) / 10
        return jnp.where(x[0] < 0.5, left(x[0]), right)[None]

    def decode_flux(self, code, x):
        return ((self.c - 2.5 - 5 * x[0]) * x[1] + 2.5 * x[0])[None]

    def decode_logits(self, code, query=None):
        return jnp.where(jnp.arange(29) < 14, -40.0, 40.0)[None, :, None] * jnp.ones((1, 29, 29))


@pytest.mark.slow
def test_the_objective_of_two_phases_vanishes_at_the_solution():
    module = load("dgno_forward")
    a = np.where(np.arange(29) < 14, 5.0, 10.0)[None, None, :, None] * np.ones((2, 1, 29, 29))
    a[:, :, 14] = 10.0  # the cell of the middle node reaches 1/56 below 1/2
    objective = module.objective(ARGS, 10.0)
    _, report = objective(Layers(), Samples(jnp.asarray(a, jnp.float32)), key=jax.random.key(0))
    assert report["input"] < 1e-6
    size = 25.0 / 5  # of |flux|^2 / a
    assert report["equation"] < 0.05 * size  # what the strip of that cell leaves


def test_the_networks_are_those_of_the_page():
    module = load("dgno_forward")
    smooth = jax.eval_shape(lambda: module.build("smooth", jax.random.key(0)))
    assert sum(x.size for x in jax.tree.leaves(smooth)) == 368_828
    two = jax.eval_shape(lambda: module.build("two_phase", jax.random.key(0)))
    assert sum(x.size for x in jax.tree.leaves(two)) == 595_328 + 3 * 94_005


@pytest.mark.slow
def test_short_runs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))  # the second one uses the first
    forward = load("dgno_forward")
    few = ["--quiet", "--num-train", "200", "--output", str(tmp_path / "forward")]
    monkeypatch.setattr(sys, "argv", ["x", *few, "--medium", "two_phase", "--num-epochs", "20", "--num-test", "10"])
    forward.main()
    rows = (tmp_path / "forward/report.md").read_text().splitlines()
    assert float(rows[2].split("|")[2]) < 12  # per cent; a constant coefficient leaves about as much
    assert (tmp_path / "forward/dgno_forward.png").stat().st_size > 10_000
    inverse = load("dgno_inverse")
    short = ["--num-warmup", "50", "--num-samples", "50", "--rank", "4", "--num-train", "100", "--quiet"]
    checkpoint = ["--operator", str(tmp_path / "forward/dgno.safetensors"), "--output", str(tmp_path / "inverse")]
    monkeypatch.setattr(sys, "argv", ["x", *short, *checkpoint])
    inverse.main()
    report = (tmp_path / "inverse/report.txt").read_text()
    assert "Posterior from 100 values, 200 draws" in report
    assert (tmp_path / "inverse/dgno_inverse.png").stat().st_size > 10_000
    assert no.load(tmp_path / "inverse/dgno.safetensors").phases == (5.0, 10.0)
