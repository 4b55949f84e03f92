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


def test_weights_are_chosen_by_the_images_for_tuning():
    """Not by those of the test, and a reconstruction that is not finite is never chosen."""
    module = load("lpn_tomography")
    truth = np.random.default_rng(0).uniform(size=(6, 1, 8, 8)).astype("float32")
    noisy = {1.0: truth + 0.1, 2.0: truth + 0.01, 3.0: np.full_like(truth, np.nan)}
    noisy[1.0][2:] = truth[2:]  # better on the test
    chosen, images = module.best(noisy.__getitem__, (1.0, 2.0, 3.0), truth, 2)
    assert chosen == 2.0
    assert images is noisy[2.0]


@pytest.mark.slow
def test_a_short_tomography(tmp_path, monkeypatch):
    """Both regularisers are better than filtered back-projection, by a decibel at least."""
    module = load("lpn_tomography")
    monkeypatch.setattr(sys, "argv", ["x", "--quiet", "--output", str(tmp_path)])
    module.main()
    rows = [line.split("|")[1:3] for line in (tmp_path / "report.md").read_text().splitlines() if "±" in line]
    psnr = {name.strip(): float(value.split("±")[0]) for name, value in rows}
    back = psnr.pop("filtered back-projection")
    assert len(psnr) == 2
    assert min(psnr.values()) > back + 1
    assert (tmp_path / "lpn_tomography_12.png").stat().st_size > 10_000
    assert isinstance(no.load(tmp_path / "lpn.safetensors"), no.LPN)
