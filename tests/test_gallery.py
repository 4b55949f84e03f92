"""Matrices nobody here made: PyAMG's example gallery, every file of it, beside SciPy's CG."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.solvers import CG, solve
from neuralops.solvers.solution import Result

pytest.importorskip("pyamg")
from pyamg.gallery import load_example
from pyamg.gallery.example import example_names

PATH = Path(__file__).parents[1] / "benchmarks" / "pyamg_gallery.py"
spec = importlib.util.spec_from_file_location(PATH.stem, PATH)
study = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study)


def test_no_file_is_left_out():
    known = {**study.definite(), **study.singular(), **study.unsuitable()}
    assert {name for name in known if name in example_names} == set(example_names)
    assert len(known) > len(example_names)


SLOWER = {"local_disc_galerkin_diffusion", "unit_cube", "airfoil", "bar", "rotated anisotropy 0.001, FE"}
DEFINITE = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOWER else []) for name in sorted(study.definite())]


@pytest.mark.parametrize("name", DEFINITE)
def test_definite_matrices_take_scipys_steps(name):
    A = study.definite()[name]
    b = np.random.default_rng(7).normal(size=A.shape[0])
    r = study.compare(A, b, 1e-8)
    assert r["result"] == Result.converged
    assert abs(r["ours"] - r["theirs"]) <= max(0.02 * r["theirs"], 1)
    assert r["our_residual"] <= 1e-8
    np.testing.assert_allclose(r["said"], r["our_residual"], rtol=1e-5)


@pytest.mark.parametrize("name", sorted(study.singular()))
def test_singular_matrices_solve_what_can_be_solved(name):
    A, basis = study.singular()[name]
    assert np.abs(A @ basis).max() < 1e-12 * abs(A).max() * np.abs(basis).max() * 100
    v = np.random.default_rng(7).normal(size=A.shape[0])
    r = study.compare(A, A @ v, 1e-8)
    assert r["result"] == Result.converged
    assert abs(r["ours"] - r["theirs"]) <= max(0.02 * r["theirs"], 1)
    r = study.compare(A, v, 1e-8)  # and say so where nothing can
    assert r["result"] in (Result.breakdown, Result.stagnated, Result.incompatible, Result.singular)
    np.testing.assert_allclose(r["said"], r["our_residual"], rtol=1e-5)
    r = study.compare(A, v, 1e-8, basis)  # with the null space known, the rest is solved
    outside, *_ = np.linalg.lstsq(basis, v)
    assert r["result"] == Result.incompatible
    np.testing.assert_allclose(r["our_residual"], np.linalg.norm(basis @ outside) / np.linalg.norm(v), rtol=1e-8)


@pytest.mark.parametrize("name", sorted(study.unsuitable()))
def test_others_are_refused(name):
    A = study.unsuitable()[name]
    wanted = "real floating matrix" if np.iscomplexobj(A.data) else "symmetric matrix"
    assert wanted in study.refusal(A, np.ones(A.shape[0]))


def test_what_cannot_be_refused_is_reported(x64):
    """An indefinite matrix is symmetric, so it is tried; NaN is met on the way."""
    A = load_example("bar")["A"].tocsr()
    b = jnp.asarray(np.random.default_rng(7).normal(size=A.shape[0]))
    assert int(solve(-A, b, CG(1e-8)).result) == Result.breakdown
    assert int(solve(A, b, CG(1e-8, max_steps=5)).result) == Result.max_steps
    A.data[0] = np.nan
    assert int(solve(A, b, CG(1e-8)).result) == Result.nonfinite
