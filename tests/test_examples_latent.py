"""The latent spectral examples: their helpers against known fields, and short runs that leave what they say."""

import sys

import jax
import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no
from neuralops.data import Samples


def clouds(rng, number, points=60):
    """Fields x + 2 y at random points, the last ten of them masked and full of nonsense."""
    places = rng.uniform(size=(number, 2, points)).astype("float32")
    values = (places[:, :1] + 2 * places[:, 1:]).astype("float32")
    mask = np.arange(points) < points - 10
    values[..., ~mask] = 1e6
    distance = np.broadcast_to(np.linspace(0, 0.3, points, dtype="float32"), (number, points))
    return Samples(
        places, values, coords=places, mask=np.broadcast_to(mask, (number, points)), extras={"hole_distance": distance}
    )


def test_fields_on_the_grid_are_exact_where_they_are_linear():
    module = load("point_cloud")
    places = np.concatenate([np.random.default_rng(0).uniform(size=(2, 40)), [[0, 1, 0, 1], [0, 0, 1, 1]]], 1)
    x = np.linspace(0, 1, 9)
    np.testing.assert_allclose(
        module.on_grid(3 * places[0] - places[1], places, 9), 3 * x[:, None] - x[None], rtol=0, atol=1e-6
    )
    inner = 0.25 + 0.5 * places  # outside of the points their nearest value counts
    found = module.on_grid(inner[0], inner, 9)
    np.testing.assert_allclose(found[[0, -1], [0, -1]], [0.25, 0.75], rtol=0, atol=1e-6)


def test_errors_count_points_inside_by_their_distance():
    module = load("point_cloud")
    test = clouds(np.random.default_rng(1), 3)
    inside = np.asarray(test.mask[0])
    truth = np.asarray(test.outputs)
    exact = module.errors(np.where(test.mask[:, None], truth, -7), test)
    assert all(value == 0 for value in exact.values() if np.isfinite(value))
    near = inside & (np.asarray(test.extras["hole_distance"][0]) < 0.02)
    wrong = np.where(near, 1.5 * truth, 1.0 * truth)
    found = module.errors(wrong, test)
    t = truth[:, 0]
    size = np.sqrt(np.mean(t[:, inside] ** 2))
    np.testing.assert_allclose(found["0 to 0.02"], 0.5 * np.sqrt(np.mean(t[:, near] ** 2)) / size, rtol=1e-5)
    assert found["0.02 to 0.05"] == 0
    each = 0.5 * np.linalg.norm(t[:, near], axis=1) / np.linalg.norm(t[:, inside], axis=1)
    np.testing.assert_allclose(found["relative L2"], each.mean(), rtol=1e-5)


def test_the_baselines_on_the_grid_know_the_training_samples():
    module = load("point_cloud")
    train = clouds(np.random.default_rng(2), 4, points=150)
    train.outputs[:, 0] *= np.arange(1, 5, dtype="float32")[:, None]  # four plates that differ
    train.inputs[:, 0] *= np.arange(1, 5, dtype="float32")[:, None]
    found = module.on_grid_baselines(train, train, "poisson", points=24)
    assert set(found) == {"linear POD map", "nearest plate"}
    inside, truth = np.asarray(train.mask[0]), np.asarray(train.outputs)
    for predicted in found.values():  # linear fields, so only the rim beyond the points is not exact
        assert np.median(np.abs(predicted - truth)[..., inside] / truth[..., inside]) < 0.02


def test_the_errors_of_grids_are_percentages_of_the_field():
    module = load("lsm_darcy")
    u = np.random.default_rng(3).uniform(1, 2, size=(5, 1, 8, 8)).astype("float32")
    assert module.error(jax.tree_util.Partial(lambda u: 1.25 * u), Samples(u, u)) == pytest.approx(25, rel=1e-5)


def test_grids_that_are_not_whole_are_refused(monkeypatch, capsys):
    module = load("lsm_darcy")
    for factors in (["0.3", "1"], ["0.5", "2"], ["0.125", "1"]):
        monkeypatch.setattr(sys, "argv", ["x", "--num-points", "16", "--factors", *factors])
        with pytest.raises(SystemExit):
            module.parse()
        assert "--factors: expected 1 and others" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["x", "--num-points", "16", "--factors", "2", "0.5", "1"])
    assert module.parse().grids == [8, 16, 32]


@pytest.mark.slow
def test_a_short_run_on_darcy(tmp_path, monkeypatch, capsys):
    module = load("lsm_darcy")
    size = ["--num-points", "16", "--num-train", "64", "--num-test", "8", "--num-epochs", "8"]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--quiet", "--output", str(tmp_path)])
    module.main()
    report = (tmp_path / "report.md").read_text()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in report.splitlines() if line.startswith("| ")}
    at = {name: float(rows[name][1]) for name in ("LSM", "FNO", "training mean")}
    assert max(at["LSM"], at["FNO"]) < at["training mean"]
    assert rows["nearest neighbour"][0].strip() == "-"
    assert isinstance(no.load(tmp_path / "lsm.safetensors").op, no.LSM)
    assert (tmp_path / "lsm_darcy.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("equation", ["elasticity", "poisson"])
def test_a_short_run_on_points(tmp_path, monkeypatch, capsys, equation):
    pytest.importorskip("skfem")
    module = load("point_cloud")
    size = ["--num-train", "12", "--num-test", "4", "--seconds", "0.5", "--spacing", "0.2", "--equation", equation]
    monkeypatch.setattr(sys, "argv", ["x", *size, "--quiet", "--output", str(tmp_path)])
    module.main()
    report = (tmp_path / "report.md").read_text()
    for name in ("LSM", "Geo-FNO", "Transolver", "linear POD map", "nearest plate", "nearest point", "training mean"):
        assert f"| {name} |" in report
    assert isinstance(no.load(tmp_path / "transolver_0.safetensors").op, no.Transolver)
    assert (tmp_path / "point_cloud.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out
