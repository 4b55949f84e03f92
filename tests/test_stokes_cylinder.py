"""The flow around a cylinder: manufactured solutions with measured orders, Poiseuille flow, conservation of mass."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import neuralops as no

skfem = pytest.importorskip("skfem")
sys.path.insert(0, str(Path(__file__).parent.parent / "datasets"))
import stokes_cylinder  # noqa: E402
from stokes_cylinder import CENTRE, RADIUS, VISCOSITY, Stokes, inflow, make, refine, triangulate  # noqa: E402


def angles(mesh):
    out = []
    for i in range(3):
        a, b, c = (mesh.p[:, mesh.t[(i + k) % 3]] for k in range(3))
        cosine = np.sum((b - a) * (c - a), 0) / np.linalg.norm(b - a, axis=0) / np.linalg.norm(c - a, axis=0)
        out.append(np.degrees(np.arccos(cosine)))
    return np.array(out)


def test_triangles_fit_the_domain():
    mesh = triangulate()
    assert 1650 < mesh.nvertices < 1750
    assert angles(mesh).min() > 30
    inside = np.linalg.norm(mesh.p - CENTRE, axis=0)
    assert inside.min() > RADIUS * (1 - 1e-12)
    around = np.sum(inside < RADIUS * (1 + 1e-12))
    polygon = around * RADIUS**2 * np.sin(2 * np.pi / around) / 2
    a, b, c = (mesh.p[:, corner] for corner in mesh.t)
    area = np.abs((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]).sum() / 2
    assert area == pytest.approx(2 - polygon, rel=1e-12)  # no holes, no overlaps
    assert len(np.unique(mesh.t)) == mesh.nvertices


# A flow u = d psi/dy, v = -d psi/dx with psi = (1 + (x - 2)^3) sin(3 y) and p = (x - 2) cos(4 y): at the outlet
# u_x = v_x = p = 0, so nothing has to be done there.
def flow(x):
    c, dc = 1 + (x[0] - 2) ** 3, 3 * (x[0] - 2) ** 2
    return np.stack([3 * c * np.cos(3 * x[1]), -dc * np.sin(3 * x[1])])


def force(x):
    """-mu Laplacian (u, v) + grad p."""
    c, dc, d2c = 1 + (x[0] - 2) ** 3, 3 * (x[0] - 2) ** 2, 6 * (x[0] - 2)
    sine, cosine = np.sin(3 * x[1]), np.cos(3 * x[1])
    first = -VISCOSITY * (3 * d2c - 27 * c) * cosine + np.cos(4 * x[1])
    second = VISCOSITY * (6 - 9 * dc) * sine - 4 * (x[0] - 2) * np.sin(4 * x[1])
    return np.stack([first, second])


def errors(mesh):
    stokes = Stokes(mesh)
    number = len(stokes.given)
    values = flow(stokes.velocity.doflocs[:, stokes.given])
    vertical = np.concatenate([stokes.velocity.nodal_dofs[1], stokes.velocity.facet_dofs[1]])
    boundary = values[np.isin(stokes.given, vertical).astype(int), np.arange(number)]
    f = skfem.LinearForm(lambda v, w: np.sum(force(w.x) * v, axis=0)).assemble(stokes.velocity)
    unknowns = stokes.solve(boundary, np.concatenate([f, np.zeros(stokes.pressure.N)]))
    u, p = np.split(unknowns, [stokes.velocity.N])
    square = skfem.Functional(lambda w: np.sum((w.u - flow(w.x)) ** 2, axis=0))
    velocity = square.assemble(stokes.velocity, u=stokes.velocity.interpolate(u))
    square = skfem.Functional(lambda w: (w.p - (w.x[0] - 2) * np.cos(4 * w.x[1])) ** 2)
    return np.sqrt([velocity, square.assemble(stokes.pressure, p=stokes.pressure.interpolate(p))])


def test_orders_are_three_for_velocity_and_two_for_pressure():
    coarse = triangulate(0.12)
    first, second = errors(coarse), errors(refine(coarse))
    orders = np.log2(first / second)
    assert abs(orders[0] - 3) < 0.15, (orders, first)
    assert abs(orders[1] - 2) < 0.15, (orders, first)


def test_poiseuille_is_exact_without_the_disc():
    stokes = Stokes(triangulate(0.3, disc=False))
    heights, responses = stokes.responses()
    u, v, p = stokes.at_points(responses @ (4 * heights * (1 - heights)))
    x, y = stokes.points
    np.testing.assert_allclose(u, 4 * y * (1 - y), atol=1e-11)
    np.testing.assert_allclose(v, 0, atol=1e-11)
    np.testing.assert_allclose(p, 8 * VISCOSITY * (2 - x), atol=1e-11)


@pytest.fixture(scope="module")
def coarse():
    return Stokes(triangulate(0.12))


def test_mass_is_conserved(coarse):
    heights, responses = coarse.responses()
    unknowns = responses @ inflow(heights, np.array([[4.0, 5.5]]))[0]
    flux = skfem.Functional(lambda w: w.u[0] * w.n[0])
    through = {}
    for side, facets in coarse.sides.items():
        face = skfem.FacetBasis(coarse.velocity.mesh, coarse.velocity.elem, facets=facets, intorder=6)
        through[side] = flux.assemble(face, u=face.interpolate(unknowns[: coarse.velocity.N]))
    y = np.linspace(0, 1, 2001)
    exact = np.trapezoid(inflow(y, np.array([[4.0, 5.5]]))[0], y)
    assert through["inlet"] == pytest.approx(-exact, rel=1e-3)
    assert through["outlet"] == pytest.approx(-through["inlet"], rel=1e-10)
    assert abs(through["disc"]) < 1e-12


def test_samples_are_solutions_and_make_a_file(coarse, tmp_path):
    samples = make(coarse, 3, [0, 1], progress=False)
    b = samples.extras["b"]
    y = samples.coords[1]
    np.testing.assert_allclose(samples.inputs[:, 0], inflow(y, b), rtol=1e-6)
    assert (samples.inputs.shape, y[0], y[-1]) == ((3, 1, 256), 0, 1)
    assert samples.residual_norm.max() < 1e-11
    # One of them solved by itself, with the whole inflow as boundary value.
    at = coarse.velocity.doflocs[:, coarse.given]
    horizontal = np.isin(coarse.given, np.concatenate([coarse.velocity.nodal_dofs[0], coarse.velocity.facet_dofs[0]]))
    boundary = np.where(horizontal & (at[0] == 0), inflow(at[1], b[2:])[0], 0)
    np.testing.assert_allclose(samples.outputs[2], coarse.at_points(coarse.solve(boundary)), atol=1e-5)
    left = samples.query[0] == 0
    np.testing.assert_allclose(samples.outputs[0, 0, left], inflow(samples.query[1, left], b[:1])[0], atol=1e-6)
    on_disc = np.linalg.norm(samples.query - CENTRE, axis=0) < RADIUS * (1 + 1e-9)
    assert on_disc.sum() > 8
    assert not np.any(samples.outputs[:, :2, on_disc])
    more = make(coarse, 5, [0, 1], progress=False)
    np.testing.assert_allclose(more.outputs[:3], samples.outputs, atol=1e-6)  # more samples extend a split
    names = ["horizontal_velocity", "vertical_velocity", "pressure"]
    source = no.data.write(tmp_path / "a.h5", samples, name="S", input_fields=["inflow"], output_fields=names)
    np.testing.assert_array_equal(source[1]["outputs"], samples.outputs[1])
    np.testing.assert_array_equal(source.load().query, samples.query)


def test_the_script_writes_both_splits_once(tmp_path, monkeypatch, capsys):
    arguments = ["--spacing", "0.15", "--num-train", "2", "--num-test", "1", "--no-progress", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["stokes_cylinder.py", *arguments])
    stokes_cylinder.main()
    train, test = (no.data.open(tmp_path / f"stokes_cylinder_{split}.h5") for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 1)
    assert not np.array_equal(train[0]["inputs"], test[0]["inputs"])
    stokes_cylinder.main()
    assert capsys.readouterr().out.count("there already") == 2


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(ModuleNotFoundError, match=r"neuralops-jax\[fem\]"):
        importlib.reload(stokes_cylinder)
