"""The learned directions, trained as their examples do: they must be worth steps, and say what they cost."""

import sys

import pytest
from test_examples_solvers import load

import neuralops as no


@pytest.mark.slow
def test_a_trained_direction_halves_the_steps_of_cg(tmp_path, monkeypatch, capsys):
    """Section 11, test 12 of the fact sheet: on held-out right-hand sides, at one, two and four times the size."""
    module = load("deep_conjugate_direction")
    monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path), "--quiet", "--num-train", "1000"])
    module.main()
    report = (tmp_path / "report.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")]
    ratios = {row[0]: float(row[3]) for row in rows if row[1] == "DCDM"}
    assert set(ratios) == {"32^2", "64^2", "128^2"}
    assert max(ratios.values()) < 0.5
    assert isinstance(no.load(tmp_path / "direction.safetensors"), no.DirectionNet)
    assert (tmp_path / "deep_conjugate_direction.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out
