"""Test functions and their means: the Wendland function, the discrete Gauss identity, both rules, the draws."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neuralops.pde import TestFunctions, second_derivatives, value_and_gradient, wendland, wendland_gradient
from neuralops.pde.weak_form import quadrature

SQUARE = ((0.0, 1.0), (0.0, 1.0))
REFINED = (((0.3, 0.7), (0.4, 0.8)), 56)
CLOSED_FORMS = {  # v in one dimension, and in two and three, written out
    1: lambda r: (1 - r) ** 5 * (8 * r**2 + 5 * r + 1),
    2: lambda r: (1 - r) ** 6 * (35 * r**2 + 18 * r + 3) / 3,
    3: lambda r: (1 - r) ** 6 * (35 * r**2 + 18 * r + 3) / 3,
}


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_wendland(x64, ndim):
    rng = np.random.default_rng(ndim)
    xi = rng.normal(size=(ndim, 200))
    xi *= rng.uniform(0, 1.5, size=200) / np.linalg.norm(xi, axis=0)
    xi[:, 0], xi[:, 1], xi[:, 2] = 0, 0, 0
    xi[0, 1], xi[0, 2] = 1, -1e6
    r = np.linalg.norm(xi, axis=0)
    v, gradient = jax.jit(lambda x: (wendland(x), wendland_gradient(x)))(xi)
    written = lambda x: CLOSED_FORMS[ndim](jnp.linalg.norm(x, axis=0))
    inside = (r > 0) & (r < 1)
    np.testing.assert_allclose(v[inside], written(xi)[inside], atol=1e-14)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(written(x))))(xi)
    np.testing.assert_allclose(gradient[:, inside], slope[:, inside], atol=1e-13)
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: jnp.sum(wendland(x))))(xi), gradient)
    assert v[0] == 1
    assert np.all(v[r >= 1] == 0)
    assert np.all(gradient[:, r >= 1] == 0)
    assert np.all(gradient[:, 0] == 0)
    assert np.all((v[r < 1] > 0) & (v[r < 1] <= 1))


def test_second_derivatives_of_wendland_are_finite(x64):
    xi = jnp.array([[0.0, 0.5, 1.0, 2.0], [0.0, 0.0, 0.0, 3.0]])
    bend = jax.jit(lambda x: second_derivatives(lambda y: wendland(y)[None], x)[2])(xi)
    np.testing.assert_allclose(bend[:, 0, 0], -56 / 3, atol=1e-12)  # v = 1 - (28/3) r^2 + ...
    assert np.all(np.isfinite(bend))
    assert np.all(bend[:, :, 2:] == 0)


@pytest.mark.parametrize(
    ("ndim", "num_points", "kappa", "size"),
    [
        (1, 10, "1.00076", 10),
        (1, 20, "1.0000086", 20),
        (2, 5, "0.8240", 9),
        (2, 7, "0.98763", 25),
        (2, 8, "1.00205", 32),
        (2, 9, "0.99827", 45),
        (2, 11, "0.99961", 69),
        (2, 15, "0.999963", 145),
        (2, 21, "0.9999968", 305),
        (3, 9, None, 251),
    ],
)
def test_quadrature(ndim, num_points, kappa, size):
    xi, v, gradient, found = quadrature(ndim, num_points)
    assert xi.shape == gradient.shape == (ndim, size)
    if kappa is not None:
        assert f"{found:.{len(kappa) - 2}f}" == kappa
    np.testing.assert_allclose(v, wendland(jnp.asarray(xi)), atol=1e-6)
    np.testing.assert_allclose(gradient, wendland_gradient(jnp.asarray(xi)), atol=1e-5)
    np.testing.assert_allclose(np.sort(xi[0]), np.sort(-xi[0]))
    if (ndim, num_points) in ((2, 7), (2, 9)):
        assert f"{v.mean():.5f}" == {7: "0.12604", 9: "0.12416"}[num_points]


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("rule", ["difference", "derivative"])
def test_discrete_gauss_identity(x64, ndim, rule):
    rng = np.random.default_rng(ndim)
    b, J = rng.normal(size=ndim), rng.normal(size=(ndim, ndim))
    for corrected in (True, False):
        tests = TestFunctions(
            ((-1.0, 2.0),) * ndim, num_centers=5, radius=0.3, num_points=7, corrected=corrected, rule=rule
        )
        run = jax.jit(lambda J, tests=tests: tests.draw(jax.random.key(0)).test(
            lambda x: (0.0, b.reshape(-1, 1, 1) + jnp.tensordot(J, x, 1), None)
        )[0])  # fmt: skip
        np.testing.assert_allclose(run(np.zeros_like(J)), 0, atol=1e-13)
        kappa = 1 if corrected else quadrature(ndim, 7)[3]
        np.testing.assert_allclose(run(J), -kappa * np.trace(J) * tests.mean_test, rtol=1e-12)


def test_equations_side_by_side(x64):
    """Several equations in one call, and the third thing handed on."""
    tests = TestFunctions(SQUARE, num_centers=4, radius=0.1)
    patches = tests.draw(jax.random.key(0))
    r, more = patches.test(lambda x: (jnp.ones((3, *x.shape[1:])), jnp.zeros((2, 3, *x.shape[1:])), x))
    np.testing.assert_allclose(r, np.full((3, 4), tests.mean_test))
    np.testing.assert_array_equal(more, patches.points)
    assert patches.points.shape == (2, 4, 45)
    r = np.linalg.norm(patches.points - patches.centers[:, :, None], axis=0)
    np.testing.assert_allclose(r.max(axis=1), 0.1 * np.linalg.norm(quadrature(2, 9)[0], axis=0).max())


def flux_of(x):
    return jnp.stack([jnp.sin(3 * x[0]) * jnp.exp(x[1]), jnp.cos(2 * x[1] + x[0] ** 2)])


def test_rules_agree_to_fourth_order(x64):
    gaps = []
    for radius in (0.2, 0.1):
        r = []
        for rule in ("difference", "derivative"):
            tests = TestFunctions(SQUARE, num_centers=20, radius=radius, rule=rule)
            patches = dataclasses.replace(tests.draw(jax.random.key(0)), centers=jnp.full((2, 20), 0.5))
            r.append(patches.test(lambda x: (jnp.cos(4 * x[0] * x[1]), flux_of(x), None))[0])
        gaps.append(np.abs(r[0] - r[1]).max())
    assert 12 < gaps[0] / gaps[1] < 20


@pytest.mark.parametrize("rule", ["difference", "derivative"])
def test_single_precision(rule):
    """The noise of the plain mean is of the order epsilon/R, that of the derivative of epsilon."""
    errors = []
    for radius in (1e-4, 1e-2):
        tests = TestFunctions(SQUARE, radius=radius, rule=rule)
        run = lambda patches: patches.test(lambda x: (0.0, flux_of(x), None))[0]
        patches = tests.draw(jax.random.key(0), jnp.float32)
        single = np.asarray(jax.jit(run)(patches), np.float64)
        with jax.enable_x64(True):
            wide = dataclasses.replace(patches, centers=np.asarray(patches.centers, np.float64), weight=np.ones(100))
            double = np.asarray(jax.jit(run)(wide))
        errors.append(np.sqrt(np.mean((single - double) ** 2) / np.mean(double**2)))
    if rule == "derivative":
        assert max(errors) < 1e-6
    else:
        assert 1e-5 < errors[0] < 1e-2
        assert errors[1] < 1e-4
        assert 20 < errors[0] / errors[1] < 500


def test_latin_hypercube():
    tests = TestFunctions(((-1.0, 1.0), (2.0, 5.0)), num_centers=50, radius=0.25)
    draw = jax.jit(tests.draw)
    one, other = draw(jax.random.key(0)), draw(jax.random.key(1))
    for patches in (one, other):
        for axis, (lo, hi) in enumerate(((-0.75, 0.75), (2.25, 4.75))):
            slices = np.floor((np.sort(patches.centers[axis]) - lo) / (hi - lo) * 50)
            np.testing.assert_array_equal(slices, np.arange(50))
    assert np.all(one.centers != other.centers)
    assert abs(np.corrcoef(one.centers)[0, 1]) < 0.4
    np.testing.assert_array_equal(draw(jax.random.key(0)).centers, one.centers)
    assert one.centers.dtype == jnp.float32


def outside_disc(x):
    return (x[0] - 0.5) ** 2 + (x[1] - 0.6) ** 2 > 0.1**2


def test_holes_and_refinement():
    tests = TestFunctions(
        ((0.0, 2.0), SQUARE[1]),
        num_centers=200,
        radius=1e-2,
        inside=outside_disc,
        refined=REFINED,
    )
    patches = jax.jit(tests.draw)(jax.random.key(0))
    assert patches.centers.shape == (2, 256)
    assert np.all(outside_disc(patches.centers))
    bare = jax.jit(dataclasses.replace(tests, inside=None).draw)(jax.random.key(0))
    np.testing.assert_array_equal(patches.weight, outside_disc(bare.centers))
    kept = np.asarray(patches.weight) == 1
    assert 5 < np.sum(~kept) < 30
    np.testing.assert_allclose(patches.centers[:, kept], bare.centers[:, kept], rtol=1e-6)
    box = bare.centers[:, 200:]
    assert np.all((box[0] > 0.31) & (box[0] < 0.69) & (box[1] > 0.41) & (box[1] < 0.79))
    r = patches.test(lambda x: (1.0, jnp.zeros(x.shape), None))[0]
    np.testing.assert_allclose(r, tests.mean_test * kept, rtol=1e-6)


def test_time_is_uniform_and_not_tested():
    tests = TestFunctions(((-1.0, 1.0), (0.0, 2.0)), space=1, num_centers=11, radius=0.1, num_points=10)
    patches = tests.draw(jax.random.key(3))
    np.testing.assert_allclose(patches.centers[1], np.linspace(0, 2, 11), rtol=1e-6)
    np.testing.assert_array_equal(patches.points[1], np.broadcast_to(patches.centers[1][:, None], (11, 10)))
    assert np.ptp(patches.points[0], axis=1) == pytest.approx(0.2, rel=1e-5)
    slices = np.floor((np.sort(patches.centers[0]) + 0.9) / 1.8 * 11)
    np.testing.assert_array_equal(slices, np.arange(11))


def test_static_and_equal_by_value():
    one = TestFunctions(((0, 1), [0, 1]), radius=np.float64(0.1), num_centers=np.int64(7))
    same = TestFunctions(SQUARE, radius=0.1, num_centers=7)
    assert one == same
    assert hash(one) == hash(same)
    assert one != TestFunctions(SQUARE, radius=0.2, num_centers=7)
    leaves, structure = jax.tree.flatten(one.draw(jax.random.key(0)))
    assert [leaf.shape for leaf in leaves] == [(2, 7), (7,)]
    assert jax.tree.unflatten(structure, leaves).tests == same


def test_derivatives_of_fields(x64):
    field = lambda x: jnp.stack([jnp.sin(x[0]) * x[1] ** 3, x[0] ** 2 + x[1]])
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    value, slope, bend = jax.jit(functools.partial(second_derivatives, field))(x)
    s, c, y = np.sin(x[0]), np.cos(x[0]), x[1]
    np.testing.assert_allclose(value, [s * y**3, x[0] ** 2 + y], rtol=1e-12)
    np.testing.assert_allclose(slope, [[c * y**3, 2 * x[0]], [3 * s * y**2, np.ones_like(y)]], rtol=1e-12)
    np.testing.assert_allclose(bend, [[-s * y**3, 2 + 0 * y], [6 * s * y, 0 * y]], rtol=1e-12, atol=1e-13)
    first = jax.jit(functools.partial(value_and_gradient, field))(x)
    np.testing.assert_allclose(first[0], value, rtol=1e-14)
    np.testing.assert_allclose(first[1], slope, rtol=1e-14)


def sizes(jaxpr):
    """The sizes of what all operations of a program produce, those inside other operations included."""
    for equation in jaxpr.eqns:
        yield from ((equation.primitive.name, v.aval.size) for v in equation.outvars)
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from sizes(inner)


@pytest.mark.parametrize("rule", ["difference", "derivative"])
def test_what_depends_on_points_alone_is_not_batched(rule):
    """Under `vmap` over codes the expensive part, a function of points, keeps the size that it has for one sample."""
    batch, width = 7, 6
    patches = TestFunctions(SQUARE, num_centers=5, radius=0.1, rule=rule).draw(jax.random.key(0))

    def one(code):
        u = lambda x: jnp.tensordot(code, jnp.tanh(jnp.tensordot(jnp.ones((width, 2)), x, 1)), 1)[None]
        return patches.test(lambda x: (u(x)[0], value_and_gradient(u, x)[1][:, 0], None))[0]

    plain = list(sizes(jax.make_jaxpr(one)(jnp.ones(width)).jaxpr))
    batched = list(sizes(jax.make_jaxpr(jax.vmap(one))(jnp.ones((batch, width))).jaxpr))
    for name in ("tanh", "dot_general"):
        count = lambda found, name=name: sorted(size for kind, size in found if kind == name)
        if name == "tanh":
            assert count(batched) == count(plain)
        else:  # the layer on the points as it was, the product with the code for each sample
            hidden = width * 5 * 45
            assert [s for s in count(plain) if s % hidden == 0] == [s for s in count(batched) if s % hidden == 0]


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("domain", {"domain": 1.0}),
        ("domain", {"domain": ()}),
        ("domain", {"domain": ((0.0, 1.0), (1.0, 0.0))}),
        ("domain", {"domain": ((0.0, float("nan")), (0.0, 1.0))}),
        ("domain", {"domain": ((0.0, 1.0, 2.0),)}),
        ("radius", {"radius": 0.5}),
        ("radius", {"radius": 0.0}),
        ("radius", {"radius": float("nan")}),
        ("radius", {"refined": (((0.4, 0.41), (0.4, 0.8)), 3)}),
        ("num_points", {"num_points": 3}),
        ("num_points", {"num_points": 9.0}),
        ("num_centers", {"num_centers": 0}),
        ("corrected", {"corrected": 1}),
        ("rule", {"rule": "mean"}),
        ("inside", {"inside": 3}),
        ("refined", {"refined": 56}),
        ("refined", {"refined": (((0.4, 1.2), (0.4, 0.8)), 3)}),
        ("refined", {"refined": (((0.4, 0.6),), 3)}),
        ("space", {"space": 3}),
        ("space", {"domain": ((0.0, 1.0),) * 4}),
        ("space", {"domain": ((0.0, 1.0),) * 3, "space": 1}),
    ],
)
def test_refuses(argument, given):
    with pytest.raises(ValueError, match=f"^{argument}: "):
        TestFunctions(given.pop("domain", SQUARE), **given)


def test_refuses_points_and_fluxes_of_the_wrong_shape():
    for function in (wendland, wendland_gradient):
        for xi in (jnp.ones((4, 3)), jnp.ones(())):
            with pytest.raises(ValueError, match=r"^xi: "):
                function(xi)
    patches = TestFunctions(SQUARE, num_centers=3).draw(jax.random.key(0))
    for flux in (lambda x: x[0], lambda x: jnp.concatenate([x, x])):
        with pytest.raises(ValueError, match=r"^terms: "):
            patches.test(lambda x, flux=flux: (0.0, flux(x), None))
