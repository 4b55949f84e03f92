"""The MgNO example: the mirror images it may train on are samples, and a short run leaves what it says."""

import sys

import jax
import numpy as np
import pytest
from test_examples_solvers import load

import neuralops as no
from neuralops.data import Samples


@pytest.mark.slow
def test_mirror_images_are_samples_of_the_same_problem():
    module = load("mgno_darcy")
    problem = no.pde.Darcy((12, 12))
    a = problem.sample(jax.random.key(0))
    u = problem.solve(a)
    images = module.images(Samples(np.asarray(a)[None], np.asarray(u)[None]))
    assert len({image.tobytes() for image in images.inputs}) == module.SYMMETRIES
    for image, solution in zip(images.inputs, images.outputs, strict=True):
        np.testing.assert_allclose(problem.solve(image), solution, rtol=0, atol=1e-4 * np.abs(solution).max())


@pytest.mark.slow
def test_a_short_run(tmp_path, monkeypatch, capsys):
    module = load("mgno_darcy")
    size = ["--num-points", "16", "--num-train", "64", "--num-test", "8", "--num-epochs", "8"]
    monkeypatch.setattr(
        sys, "argv", ["x", *size, "--symmetries", "--equal-seconds", "--quiet", "--output", str(tmp_path)]
    )
    module.main()
    report = (tmp_path / "report.md").read_text()
    for name in ("MgNO", "FNO", "FNO, as many seconds", "nearest neighbour"):
        assert f"| {name} |" in report
    assert isinstance(no.load(tmp_path / "mgno.safetensors").op, no.MgNO)
    assert (tmp_path / "mgno_darcy.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["x", "--symmetries", "--num-epochs", "12"])
    with pytest.raises(SystemExit):
        module.main()
    assert "multiple of 8" in capsys.readouterr().err
