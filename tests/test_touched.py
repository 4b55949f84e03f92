"""`.ci/touched`: from a changed file to the test files whose slow tests look at it."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script():
    loader = importlib.machinery.SourceFileLoader("touched", str(ROOT / ".ci/touched"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("touched", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("changed", "yes", "no"),
    [
        ("neuralops/pde/burgers.py", {"burgers"}, {"mgno", "multigrid", "darcy"}),  # by a name that a room hands on
        ("neuralops/nn/multigrid.py", {"mgno", "examples_mgno"}, {"multigrid", "burgers"}),  # `no.MgNO`, two rooms down
        ("neuralops/solvers/multigrid/cycle.py", {"multigrid", "sharding"}, {"mgno", "burgers", "convolution"}),
        ("neuralops/grid.py", {"burgers", "darcy", "multigrid", "solver_gradients"}, set()),
        ("examples/mgno_darcy.py", {"examples_mgno"}, {"mgno", "examples_solvers"}),  # named in a string
        ("tests/test_darcy.py", {"darcy"}, {"burgers"}),
        ("README.md", set(), {"burgers", "darcy", "mgno"}),
    ],
)
def test_a_change_touches_what_imports_it(script, changed, yes, no):
    found = {test.stem.removeprefix("test_") for test, _ in script.touched({ROOT / changed})}
    assert yes <= found
    assert not no & found


def test_a_name_leads_to_the_module_that_defines_it(script):
    assert script.home("neuralops.FNO") == ROOT / "neuralops/models/fno.py"
    assert script.home("neuralops.pde.Burgers.sample") == ROOT / "neuralops/pde/burgers.py"
    assert script.home("neuralops.losses") == script.home("neuralops.training.losses")
