"""The examples of learned proximal networks: the exact functions they compare with, and short runs."""

import sys

import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no


def test_the_exact_functions():
    """The posterior of a Laplace number by quadrature: its mean and median; the mode is soft thresholding."""
    module = load("lpn_laplace")
    x = np.linspace(-30, 30, 600_001)
    for sigma in (1.0, 0.6):
        y = np.array([-2.0, 0.0, 0.5, 3.0])
        found = module.exact(y, sigma)
        for i, value in enumerate(y):
            p = np.exp(-np.abs(x) - (x - value) ** 2 / (2 * sigma**2))
            np.testing.assert_allclose(found["squared error"][i], np.sum(x * p) / np.sum(p), atol=1e-4)
            np.testing.assert_allclose(
                found["absolute error"][i], x[np.searchsorted(np.cumsum(p), p.sum() / 2)], atol=2e-4
            )
            np.testing.assert_allclose(found["proximal matching"][i], x[np.argmax(p)], atol=2e-4)


def test_the_clean_numbers():
    x = load("lpn_laplace").laplace(10_000)
    assert x.shape == (10_000, 1, 1)
    np.testing.assert_allclose([x.mean(), np.abs(x).mean(), np.var(x)], [0, 1, 2], atol=0.01)


@pytest.mark.slow
def test_a_short_run(tmp_path, monkeypatch, capsys):
    """Already then the squared error gives about the mean, and proximal matching is nearest to soft thresholding."""
    module = load("lpn_laplace")
    monkeypatch.setattr(sys, "argv", ["x", "--steps", "400", "--quiet", "--output", str(tmp_path)])
    module.main()
    lines = (tmp_path / "report.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines[2:]}
    assert float(rows["squared error"][0]) < 0.15
    distance = {name: float(row[2]) for name, row in rows.items()}
    assert distance["proximal matching"] == min(distance.values())
    assert max(float(row[4]) for row in rows.values()) < 1e-3  # all are inverted
    assert isinstance(no.load(tmp_path / "proximal_matching.safetensors"), no.LPN)
    assert (tmp_path / "lpn_laplace.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out
