"""The examples of learned proximal networks: the exact functions they compare with, and short runs."""

import sys

import jax
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


def test_parts_of_phantoms():
    fields = np.arange(2 * 36.0).reshape(2, 1, 6, 6)
    parts = load("lpn_tomography").crops(fields, 4, 0)
    assert parts.shape == (2, 1, 4, 4)
    for part, field in zip(parts, fields, strict=True):
        i, j = divmod(int(part[0, 0, 0]) % 36, 6)
        np.testing.assert_array_equal(part, field[:, i : i + 4, j : j + 4])
    np.testing.assert_array_equal(load("lpn_tomography").crops(fields, 32, 0), fields)


@pytest.mark.slow
@pytest.mark.parametrize("medium", ["two_phase", "smooth"])
def test_media_and_what_is_seen_of_them(medium):
    law = load("lpn_darcy_inversion").Law(medium)
    x = law.media(3, 2)[1]
    assert x.min() >= 0
    assert x.max() <= 1
    np.testing.assert_allclose(law.to_x(law.to_a(x)), x, atol=1e-6)
    _, inside = law.inner_nodes()
    assert len(inside) == 27**2
    u = law.exact.solve(law.to_a(x))
    forward, y = law.measured(u, inside[::7], 25.0, jax.random.key(0))
    # the faster solver differs by much less than the noise, whose deviation is 1 in these units
    np.testing.assert_allclose(forward(x), y, atol=4)
    assert 0.7 < float(np.std(forward(x) - y)) < 1.3
    assert float(law.error(x, x)) == 0


@pytest.mark.slow
def test_a_short_darcy_inversion(tmp_path, monkeypatch):
    """Each prior finds more of the medium than its mean, and fits the data about as well as the truth does."""
    module = load("lpn_darcy_inversion")
    flags = ["--num-train", "320", "--num-epochs", "4", "--steps", "4", "--quiet", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    module.main()
    lines = (tmp_path / "report.md").read_text().splitlines()
    errors = {row.split("|")[1].strip(): float(row.split("|")[2].strip(" %")) for row in lines if row.endswith("% |")}
    assert len(errors) == 4
    assert max(v for k, v in errors.items() if k != "mean medium") < 0.8 * errors["mean medium"]
    misfits = [float(line.split("misfit ")[1].split()[0]) for line in lines if "misfit" in line]
    assert len(misfits) == 3
    assert max(misfits) < 100
    assert (tmp_path / "lpn_darcy_inversion.png").stat().st_size > 10_000
