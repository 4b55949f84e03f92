"""The house as it is described: every room has its sentence and its place in the picture."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def drawing():
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "docs" / "figures" / "architecture.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("package", "places"), [("neuralops", "HOUSE"), ("neuralops.solvers", "SOLVERS")])
def test_every_room_stands_on_a_floor_in_the_picture_and_on_the_page(package, places):
    folder = ROOT / package.replace(".", "/")
    rooms = {p.stem for p in folder.iterdir() if not p.name.startswith("_") and (p.suffix == ".py" or p.is_dir())}
    page = (
        (ROOT / "docs" / "architecture.md").read_text().split("## Inside the solvers")[package == "neuralops.solvers"]
    )
    described = re.findall(r"^\| `(\w+)` \|", page, re.M)
    module = drawing()
    assert rooms == set(described)
    assert len(described) == len(set(described))
    assert rooms == {room for floor in module.floors(package) for room in floor}
    assert rooms <= set(getattr(module, places))


def test_the_lines_that_are_left_out_are_implied_by_those_drawn():
    edges = {("a", "b"): 1, ("b", "c"): 2, ("a", "c"): 3, ("c", "d"): 1, ("a", "d"): 1, ("e", "d"): 1}
    assert drawing().not_implied(edges) == {("a", "b"): 1, ("b", "c"): 2, ("c", "d"): 1, ("e", "d"): 1}
