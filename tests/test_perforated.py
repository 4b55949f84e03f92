"""Plates with holes: solutions known in closed form with measured orders, meshes, and clouds that can be made again."""

import sys
from pathlib import Path

import numpy as np
import pytest

import neuralops as no
from neuralops.pde.perforated import (
    PerforatedDomain,
    elasticity,
    poisson,
    random_domain,
    triangulate,
    von_mises,
)

pytest.importorskip("skfem")
sys.path.insert(0, str(Path(__file__).parent.parent / "datasets"))
import perforated

RADIUS, CENTRE = 0.15, np.array([0.45, 0.55])
SMALL = {"spacing": 0.25, "hole_spacing": 0.06}


def circle(radius=RADIUS):
    return PerforatedDomain(CENTRE[None], [radius], np.zeros((1, 0)), np.zeros((1, 0)))


@pytest.fixture(scope="module")
def meshes():
    mesh = triangulate(circle(), 0.15, hole_spacing=0.06)
    return [mesh, mesh.refined(), mesh.refined().refined()]


@pytest.fixture(scope="module")
def domain():
    return random_domain(np.random.default_rng(1), num_holes=(3, 3))


def polar(x):
    away = x - CENTRE.reshape(2, *[1] * (x.ndim - 1))
    return np.hypot(*away), np.arctan2(away[1], away[0])


def kirsch(x):
    """Kirsch (1898): the infinite plate with a round hole, pulled along x by a stress of 1."""
    r, t = polar(x)
    a, c, s = RADIUS / r, np.cos(t), np.sin(t)
    rr = (1 - a**2) / 2 + (1 - 4 * a**2 + 3 * a**4) / 2 * np.cos(2 * t)
    tt = (1 + a**2) / 2 - (1 + 3 * a**4) / 2 * np.cos(2 * t)
    rt = -(1 + 2 * a**2 - 3 * a**4) / 2 * np.sin(2 * t)
    xy = (rr - tt) * c * s + rt * (c**2 - s**2)
    return np.array([[rr * c**2 + tt * s**2 - 2 * rt * c * s, xy], [xy, rr * s**2 + tt * c**2 + 2 * rt * c * s]])


def annulus(x):
    """u with Laplacian u = 1 and no flux through the circle."""
    r, _ = polar(x)
    return r**2 / 4 - RADIUS**2 / 2 * np.log(r)


def relative(mesh, value, exact):
    w = mesh.weights()
    return np.sqrt((w * (value - exact) ** 2).sum() / (w * exact**2).sum())


# The mesh.


def test_triangles_fill_the_domain(domain):
    mesh = triangulate(domain)
    edges, times = mesh.edges()
    rim = np.unique(edges[:, times == 1])
    off = rim[(np.minimum(mesh.points, 1 - mesh.points)[:, rim] > 0).all(0)]
    assert mesh.angles().min() > 15
    assert len(np.unique(mesh.triangles)) == mesh.points.shape[1]
    np.testing.assert_allclose(domain.hole_distance(mesh.points[:, off]), 0, atol=1e-12)
    # Euler: corners - edges + triangles = 1 - holes, so nothing overlaps and nothing is missing.
    assert mesh.points.shape[1] - edges.shape[1] + mesh.triangles.shape[1] == 1 - 3
    assert mesh.areas().min() > 0
    distance = domain.hole_distance(mesh.points)
    length = np.linalg.norm(mesh.points[:, edges[0]] - mesh.points[:, edges[1]], axis=0)
    near = distance[edges].max(0) < 0.02
    assert length[near].mean() < 0.5 * length[distance[edges].min(0) > 0.15].mean()  # graded


def test_area_converges_with_order_two(domain):
    mesh = triangulate(domain)
    misses = []
    for _ in range(3):
        misses.append(mesh.weights().sum() - domain.area())
        mesh = mesh.refined()
    np.testing.assert_allclose(np.log2(np.divide(misses[:-1], misses[1:])), 2, atol=0.05)


def test_weights_are_integrals_of_hat_functions(meshes):
    mesh = meshes[0]
    rim = np.abs(polar(mesh.points)[0] - RADIUS) < 1e-12
    k = rim.sum()
    polygon = k * RADIUS**2 * np.sin(2 * np.pi / k) / 2
    weights = mesh.weights()
    assert weights.min() > 0
    assert weights.sum() == pytest.approx(1 - polygon, rel=1e-12)
    # Exact for linear functions: the centroid of a regular polygon is the centre.
    np.testing.assert_allclose(mesh.points @ weights, 0.5 - polygon * CENTRE, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_random_domains_keep_holes_apart(seed):
    domain = random_domain(np.random.default_rng(seed), gap=0.1)
    theta = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    rims = [domain.boundary(hole, theta) for hole in range(len(domain.radii))]
    assert min(np.minimum(x, 1 - x).min() for x in rims) >= 0.1
    for i, x in enumerate(rims):
        for y in rims[:i]:
            assert np.linalg.norm(x[:, ::10, None] - y[:, None, ::10], axis=0).min() > 0.1
    polygons = sum((x[0] * np.roll(x[1], -1) - np.roll(x[0], -1) * x[1]).sum() / 2 for x in rims)
    assert domain.area() == pytest.approx(1 - polygons, rel=1e-5)
    again = random_domain(np.random.default_rng(seed), gap=0.1)
    np.testing.assert_array_equal(again.boundary(0, theta), rims[0])


def test_distance_to_the_holes(domain):
    points = np.random.default_rng(0).uniform(size=(2, 300))
    np.testing.assert_allclose(circle().hole_distance(points), np.abs(polar(points)[0] - RADIUS), atol=1e-14)
    theta = np.linspace(0, 2 * np.pi, 20000, endpoint=False)
    rims = np.concatenate([domain.boundary(hole, theta) for hole in range(3)], 1)
    brute = np.array([np.linalg.norm(rims - x[:, None], axis=0).min() for x in points.T])
    found = domain.hole_distance(points)
    assert np.abs(found - brute).max() < 1e-5
    assert (found - brute).max() < 1e-12  # samples of the boundary are never nearer than the boundary
    numeric = (domain.boundary(1, theta + 1e-5, 1) - domain.boundary(1, theta - 1e-5, 1)) / 2e-5
    np.testing.assert_allclose(domain.boundary(1, theta, 2), numeric, atol=1e-6)


# The equations.


def test_poisson_on_an_annulus_has_order_three(meshes):
    # The walls hold the values of the annulus' solution, which no flux leaves at the circle.
    errors = []
    for mesh in meshes:
        u, residual = poisson(mesh, lambda x: -np.ones(x.shape[1:]), wall=annulus)
        errors.append(relative(mesh, u, annulus(mesh.points)))
        assert residual < 1e-12
    assert errors[0] < 2e-5
    assert np.log2(errors[0] / errors[2]) / 2 > 2.8, errors  # of a factor two; 2.9


def test_poisson_with_a_coefficient(meshes):
    def source(x):  # -div(a grad u) = -a - grad a . grad u, a = 1 + x y
        r, t = polar(x)
        slope = r / 2 - RADIUS**2 / (2 * r)
        return -(1 + x[0] * x[1]) - slope * (x[1] * np.cos(t) + x[0] * np.sin(t))

    errors = [
        relative(
            mesh, poisson(mesh, source, coefficient=lambda x: 1 + x[0] * x[1], wall=annulus).value, annulus(mesh.points)
        )
        for mesh in meshes[::2]
    ]
    assert errors[1] < 1e-6
    assert np.log2(errors[0] / errors[1]) / 2 > 2.8, errors


def test_kirsch_plate_has_order_three(meshes):
    errors = []
    for mesh in meshes[:2]:
        stresses, residual = elasticity(mesh, kirsch)
        exact = kirsch(mesh.points)
        exact = np.stack([exact[0, 0], exact[1, 1], exact[0, 1]])
        errors.append(relative(mesh, von_mises(stresses), von_mises(exact)))
        assert residual < 1e-11
    assert np.log2(errors[0] / errors[1]) > 2.7, errors  # 2.9
    assert errors[1] < 3e-4
    # The sides of the hole bear three times the pull.
    assert von_mises(stresses).max() == pytest.approx(3, abs=0.05)


def test_a_far_plate_is_pulled_evenly_and_holes_forget_poissons_ratio(meshes):
    far = PerforatedDomain([[0.5, 0.5]], [0.02], np.zeros((1, 0)), np.zeros((1, 0)))
    mesh = triangulate(far, 0.15, hole_spacing=0.008)
    stresses = elasticity(mesh, ((2.0, 0.5), (0.5, 1.0))).value
    there = far.hole_distance(mesh.points) > 0.35
    np.testing.assert_allclose(stresses[:, there].mean(1), [2, 1, 0.5], rtol=0.01)
    assert von_mises(stresses).max() > 4  # and yet the hole is felt
    one, other = (elasticity(meshes[0], poisson_ratio=nu).value for nu in (0.0, 0.45))
    assert np.abs(one - other).max() < 0.05 * np.abs(one).max()  # equal but for the discretisation
    np.testing.assert_allclose(von_mises(np.array([3.0, 1.0, 2.0])), np.sqrt(9 - 3 + 1 + 12))


# Samples.


@pytest.mark.parametrize(("equation", "limit"), [("poisson", 1e-3), ("elasticity", 1e-2)])
def test_labels_hold_under_refinement(equation, limit):
    cloud, fine = (no.pde.Perforated(equation, spacing=0.15, refinements=k).draw((0, 2)) for k in range(2))
    np.testing.assert_array_equal(fine.mesh.points, cloud.mesh.points)
    np.testing.assert_array_equal(fine.inputs, cloud.inputs)
    if equation == "elasticity":
        np.testing.assert_array_equal(cloud.inputs, cloud.mesh.points)
    error = relative(cloud.mesh, cloud.outputs[0], fine.outputs[0])
    assert 1e-7 < error < limit
    assert cloud.residual < 1e-11


def test_clouds_are_samples_and_can_be_made_again():
    problem = no.pde.Perforated("poisson", **SMALL)
    samples = no.data.check_samples(no.data.pad(**problem.clouds(4, 7, progress=False)))
    later = no.data.pad(**problem.clouds(2, (7,), first=2, progress=False))
    for i in range(2):
        n = later.mask[i].sum()
        assert samples.mask[2 + i].sum() == n
        np.testing.assert_array_equal(samples.outputs[2 + i, :, :n], later.outputs[i, :, :n])
        np.testing.assert_array_equal(samples.coords[2 + i, :, :n], later.coords[i, :, :n])
        np.testing.assert_array_equal(samples.extras["weights"][2 + i, :n], later.extras["weights"][i, :n])
    same = no.pde.Perforated(**problem.parameters())
    cloud = same.draw((7, 1))
    n = len(cloud.weights)
    weights = samples.extras["weights"]
    np.testing.assert_array_equal(samples.inputs[1, :, :n], cloud.inputs.astype(np.float32))
    assert weights[1].sum() == pytest.approx(cloud.mesh.areas().sum(), rel=1e-5)
    assert not weights[~samples.mask].any()
    assert (weights > 0)[samples.mask].all()
    # u = 0 on the walls; f is drawn anew and so are the holes.
    walls = (np.minimum(cloud.mesh.points, 1 - cloud.mesh.points) < 1e-12).any(0)
    assert not cloud.outputs[0, walls].any()
    assert np.abs(cloud.outputs).max() > 1e-4
    assert len({x.sum() for x in weights}) == 4


def test_sources_are_fields_of_unit_variance_with_the_length_scale():
    from neuralops.pde.perforated.problem import _Source

    points = np.array([[0.2, 0.4, 0.9], [0.5, 0.5, 0.1]])
    values = np.stack([_Source(np.random.default_rng(i), 0.2)(points) for i in range(3000)])
    distance = np.linalg.norm(points[:, :, None] - points[:, None], axis=0)
    np.testing.assert_allclose(np.cov(values.T), np.exp(-(distance**2) / 0.08), atol=0.06)


def test_files_do_not_depend_on_the_shards(tmp_path, monkeypatch):
    problem = no.pde.Perforated("poisson", **SMALL)
    whole = perforated.make(problem, 2, (0, 1), tmp_path / "whole.h5", shard_size=2, progress=False)
    no.data.validate(tmp_path / "whole.h5")
    # Killed after the first shard, then taken up again: what is there is not computed again.
    drawn, clouds = [], no.pde.Perforated.clouds

    def killed(self, *args, first, **options):
        drawn.append(first)
        if first == 1 and len(drawn) == 2:
            raise KeyboardInterrupt
        return clouds(self, *args, first=first, **options)

    monkeypatch.setattr(no.pde.Perforated, "clouds", killed)
    path = tmp_path / "cut.h5"
    with pytest.raises(KeyboardInterrupt):
        perforated.make(problem, 2, (0, 1), path, shard_size=1, progress=False)
    cut = perforated.make(problem, 2, (0, 1), path, shard_size=1, progress=False)
    assert drawn == [0, 1, 1]
    assert cut.sha256() == whole.sha256()
    assert not path.with_name("cut.h5.parts").exists()
    samples = cut.load()
    assert set(samples.extras) == {"weights", "hole_distance"}
    assert (cut.input_fields, cut.output_fields) == (("source",), ("solution",))
    other = no.pde.Perforated("poisson", **SMALL | {"gap": 0.1})
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        perforated.make(problem, 2, (0, 1), tmp_path / "b.h5", shard_size=1, progress=False)
    with pytest.raises(ValueError, match=r"path: expected shards of .*'gap': 0.1.*move the folder"):
        perforated.make(other, 2, (0, 1), tmp_path / "b.h5", shard_size=1, progress=False)


# Bad input.

RNG = np.random.default_rng(0)
REFUSED = {
    "equation": (
        lambda: no.pde.Perforated("heat"),
        r"equation: expected one of \('poisson', 'elasticity'\), got 'heat'",
    ),
    "length_scale": (lambda: no.pde.Perforated(length_scale=0), "length_scale: expected a positive number, got 0"),
    "no room": (lambda: random_domain(RNG, num_holes=(9, 9)), "num_holes: expected room for 9 holes"),
    "no holes": (lambda: random_domain(RNG, num_holes=(0, 2)), "num_holes: expected a positive integer, got 0"),
    "radii": (lambda: random_domain(RNG, radii=(0.2, 0.1)), "radii, roughness, gap: expected 0 < least radius"),
    "shapes": (
        lambda: PerforatedDomain(CENTRE, [0.1], [[0]], [[0]]),
        r"centres: expected finite numbers of shape \(1, 2\)",
    ),
    "wobble": (lambda: PerforatedDomain(CENTRE[None], [0.1], [[1.0]], [[0]]), "radii: expected holes whose boundary"),
    "wall": (
        lambda: PerforatedDomain([[0.1, 0.5]], [0.1], [[0.1]], [[0]]),
        "centres: expected holes that touch neither",
    ),
    "spacing": (lambda: triangulate(circle(), 0.3), "spacing: expected 0 < hole_spacing <= spacing <= 0.25"),
    "refinements": (lambda: no.pde.Perforated(refinements=-1), "refinements: expected zero or a positive"),
    "samples": (lambda: no.pde.Perforated().clouds(0, 0), "num_samples: expected a positive integer, got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_functions_are_refused(meshes):
    one = lambda x: np.ones(x.shape[1:])
    with pytest.raises(ValueError, match=r"source: expected finite numbers .*return one number per point"):
        poisson(meshes[0], lambda x: x)
    with pytest.raises(ValueError, match="coefficient: expected positive numbers, got -1"):
        poisson(meshes[0], one, coefficient=lambda x: -one(x))
    with pytest.raises(ValueError, match=r"stress: expected a tensor \(2, 2\) or a function, got shape \(2,\)"):
        elasticity(meshes[0], (1, 0))
    with pytest.raises(ValueError, match="stress: expected forces on the sides in equilibrium"):
        elasticity(meshes[0], ((0.0, 1.0), (0.0, 0.0)))
    with pytest.raises(ValueError, match=r"poisson_ratio: expected a number above -1 and at most 0.5, got 0.7"):
        elasticity(meshes[0], poisson_ratio=0.7)


def test_without_scikit_fem_the_extra_is_named(meshes, monkeypatch):
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(ImportError, match=r"pip install neuralops-jax\[fem\]"):
        poisson(meshes[0], lambda x: x[0])
