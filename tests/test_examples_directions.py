"""The learned directions, trained as their examples do: they must be worth steps, and say what they cost."""

import sys

import jax
import pytest
from test_examples_solvers import load

import neuralops as no


@pytest.mark.slow
def test_a_trained_direction_halves_the_steps_of_cg(tmp_path, monkeypatch, capsys):
    """Section 11, test 12 of the fact sheet: on held-out right-hand sides, at one, two and four times the size."""
    module = load("deep_conjugate_direction")
    monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path), "--quiet", "--num-train", "2000"])
    module.main()
    report = (tmp_path / "report.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.splitlines() if line.startswith("| ")]
    ratios = {row[0]: float(row[3]) for row in rows if row[1] == "DCDM"}
    assert set(ratios) == {"32^2", "64^2", "128^2"}
    assert max(ratios.values()) < 0.5
    assert isinstance(no.load(tmp_path / "direction.safetensors"), no.DirectionNet)
    assert (tmp_path / "deep_conjugate_direction.png").stat().st_size > 10_000
    assert "saved" in capsys.readouterr().out


@pytest.mark.slow
def test_a_short_training_shortens_the_learned_cycle(tmp_path, monkeypatch):
    module = load("learned_multigrid")
    monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path), "--quiet"])
    try:
        module.main()
    finally:
        jax.config.update("jax_enable_x64", False)  # the example sets it
    rows = [line.split("|")[1:-1] for line in (tmp_path / "table.md").read_text().splitlines() if "^2 |" in line]
    steps = {row[0].strip(): [float(row[i].split()[0]) for i in (2, 3, 4)] for row in rows}
    _, classical, learned = steps["rough"]
    assert learned < 0.9 * classical
    assert all(learned <= cg for cg, _, learned in steps.values())
    assert isinstance(no.load(tmp_path / "network.safetensors"), no.MultigridDirection)
    assert (tmp_path / "learned_multigrid.png").stat().st_size > 10_000
