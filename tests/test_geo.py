"""Operators on clouds of points by a latent grid: what order, padding, chunks and refinement change, and what not."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops.nn import Deformation

KEY = jax.random.key(4)
POINTS, WANTED = 13, 6
RNG = np.random.default_rng(0)
U, X, QUERY = RNG.normal(size=(1, POINTS)), RNG.uniform(0.1, 0.9, (2, POINTS)), RNG.uniform(0.1, 0.9, (2, WANTED))
WEIGHTS, CODE = RNG.uniform(0.5, 2, POINTS), RNG.normal(size=3)


def fno(width=4):
    return no.FNO((3, 3), width, width, width, n_layers=1, key=KEY)


def unet(width=4):
    return no.LatentUNet(width, n_levels=2, n_heads=2, n_tokens=2, n_basis=3, key=KEY)


def geo(body=fno, **options):
    """In double precision."""
    options = {"n_modes": (4, 3), "latent_points": 6, "projection_channels": 8, **options}
    op = no.GeoOperator(body(), 1, 2, **options, key=KEY)
    return jax.tree.map(lambda p: p.astype(jnp.float64), op)


def coded():
    return Deformation(width=4, code_channels=3, key=KEY)


run = jax.jit(lambda op, u, more: op(u, **more))
both_bodies = pytest.mark.parametrize("body", [fno, unet])


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))


@both_bodies
def test_the_order_of_points_changes_nothing(x64, body):
    op, order = geo(body, deformation=coded()), RNG.permutation(POINTS)
    given = lambda o: {"coords": X[:, o], "weights": WEIGHTS[o], "code": CODE}
    out = run(op, U, given(np.arange(POINTS)))
    close(run(op, U[:, order], given(order)), out[:, order])
    single = jax.tree.map(lambda p: p.astype(jnp.float32), op)
    narrow = lambda o: {name: np.float32(x) for name, x in given(o).items()}
    before = run(single, np.float32(U), narrow(np.arange(POINTS)))
    assert before.dtype == jnp.float32
    close(run(single, np.float32(U[:, order]), narrow(order)), before[:, order], 1e-6 if body is fno else 1e-5)


@pytest.mark.parametrize("body", [fno, pytest.param(unet, marks=pytest.mark.slow)])
def test_masked_points_change_nothing_at_all(x64, body):
    """To the bit, whatever they hold, in values and gradients, at the points of the input and elsewhere."""
    with_code = {"code": CODE} if body is unet else {}
    op = geo(body, deformation=coded() if with_code else None)
    mask = np.arange(POINTS + 5) < POINTS
    widen = lambda x, fill: np.concatenate([x, np.full((*x.shape[:-1], 5), fill)], -1)

    @jax.jit
    def judged(op, u, x, weights, mask):
        def energy(op, u, x, weights):
            more = {"coords": x, "weights": weights, "mask": mask, **with_code}
            home, away = op(u, **more), op(u, query=QUERY, **more)
            return jnp.sum(jnp.sin(jnp.where(mask, home, 0))) + jnp.sum(away**2), (home, away)

        return jax.value_and_grad(energy, argnums=(0, 1, 2, 3), has_aux=True)(op, u, x, weights)

    results = [judged(op, widen(U, f), widen(X, f), widen(WEIGHTS, f), mask) for f in (np.nan, 0.0, 1e6, np.inf)]
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(results[0]), strict=True):
            np.testing.assert_array_equal(a, b)
    (_, (home, _)), (slopes, *zero) = results[0]
    close(home[:, :POINTS], run(op, U, {"coords": X, "weights": WEIGHTS, **with_code}))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    for slope in zero:
        assert np.isfinite(slope).all()
        np.testing.assert_array_equal(slope[..., POINTS:], 0)
        assert np.abs(slope[..., :POINTS]).max() > 1e-8


@both_bodies
def test_two_halves_are_the_whole_and_points_of_the_output_are_free(x64, body):
    op = geo(body)
    latent = jax.jit(lambda op: op.encode(U, coords=X, weights=WEIGHTS))(op)
    assert latent.shape == (4, 2, 4, 2)
    decode = jax.jit(lambda op, latent, query: op.decode(latent, query))
    away = run(op, U, {"coords": X, "weights": WEIGHTS, "query": QUERY})
    close(decode(op, latent, QUERY), away)
    close(decode(op, latent, QUERY[:, 2:3]), away[:, 2:3])
    close(decode(op, latent, QUERY.reshape(2, 3, 2)), np.asarray(away).reshape(2, 3, 2))
    close(decode(op, latent, X), run(op, U, {"coords": X, "weights": WEIGHTS}))


@pytest.mark.parametrize("transform", ["integral", "published"])
def test_chunks_change_nothing(x64, transform):
    total = jax.jit(jax.value_and_grad(lambda op: jnp.sum(jnp.sin(op(U, coords=X, query=QUERY)))))
    whole, parts = (total(geo(transform=transform, chunk_size=size)) for size in (None, 4))
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def mesh(n, power):
    """Centres and areas of n x n cells of the unit square, crowded at one side when `power` is above one."""
    edges = np.linspace(0, 1, n + 1) ** power, np.linspace(0, 1, n + 1)
    x = np.stack(np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij")).reshape(2, -1)
    return x, np.multiply.outer(*map(np.diff, edges)).ravel()


@pytest.mark.slow
def test_with_weights_meshes_converge_and_without_they_do_not(x64):
    op = geo(deformation=Deformation(width=4, key=KEY))
    field = lambda x: np.exp(x[:1]) * np.cos(2 * x[1:])
    out = lambda n, power, weighted: run(
        op,
        field(mesh(n, power)[0]),
        {"coords": mesh(n, power)[0], "query": QUERY} | ({"weights": mesh(n, power)[1]} if weighted else {}),
    )
    limit, sizes = out(96, 1, True), (8, 16, 32)
    size = np.abs(limit).max()
    errors = {w: [np.abs(out(n, 2.5, w) - limit).max() / size for n in sizes] for w in (True, False)}
    orders = np.log2(np.asarray(errors[True][:-1]) / errors[True][1:])
    assert orders.min() > 1.8
    assert op.envelope.order <= orders.min()
    assert errors[True][-1] < 0.1 * errors[False][-1]
    np.testing.assert_allclose(errors[False][-1], errors[False][0], rtol=0.3)  # it comes to rest elsewhere
    plain = [np.abs(out(n, 1, False) - limit).max() / size for n in sizes]  # on a uniform mesh all points count alike
    assert np.log2(np.asarray(plain[:-1]) / plain[1:]).min() > 1.8


def test_units_of_weights_do_not_matter(x64):
    op = geo()
    out = run(op, U, {"coords": X, "weights": WEIGHTS})
    for unit in (1e20, 1e-20):
        close(run(op, U, {"coords": X, "weights": unit * WEIGHTS}), out)
    assert np.abs(out - run(op, U, {"coords": X})).max() > 1e-4 * np.abs(out).max()
    close(run(op, U, {"coords": X, "weights": np.full(POINTS, 7.0)}), run(op, U, {"coords": X}))


def test_the_code_moves_the_points(x64):
    op = geo(deformation=coded())
    total = jax.jit(jax.value_and_grad(lambda code: jnp.sum(jnp.sin(op(U, coords=X, code=code)))))
    value, slope = total(CODE)
    step = 1e-6 * np.eye(3)[1]
    np.testing.assert_allclose(slope[1], (total(CODE + step)[0] - total(CODE - step)[0]) / 2e-6, rtol=1e-5)
    assert abs(total(-CODE)[0] - value) > 1e-6
    assert "code" in no.operator.keywords_of(op)
    assert "code" not in no.operator.keywords_of(geo())


def test_another_box_is_the_unit_box_in_other_units(x64):
    box = ((-1.0, 3.0), (2.0, 2.5))
    low, high = np.asarray(box).T[..., None]
    stretch = lambda x: low + (high - low) * x
    wanted = run(geo(), U, {"coords": X, "query": QUERY})
    close(run(geo(domain=box), U, {"coords": stretch(X), "query": stretch(QUERY)}), wanted)
    moved = X + np.asarray([[1.0], [-2.0]])  # the series is periodic in it, the linear term in the places is not
    op = eqx.tree_at(lambda op: op.point_skip.weight, geo(), replace_fn=jnp.zeros_like)
    close(run(op, U, {"coords": moved}), run(op, U, {"coords": X}), 1e-9)


def test_gradients_are_finite_everywhere(x64):
    """At corners, at reference points of the box, and at points that coincide; the deformation's centre is no place."""
    op = geo(deformation=Deformation(width=4, key=KEY))
    x = np.asarray([[0, 0, 1, 1, 0.5, 0.5, 1e-4], [0, 1, 0, 1, 0.5, 0.5, 0.3]])
    slopes = jax.jit(jax.grad(lambda op, u, x: jnp.sum(op(u, coords=x) ** 2), argnums=(0, 1, 2)))(op, U[:, :7], x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_configuration_of_the_paper():
    op = eqx.filter_eval_shape(lambda: no.LSM.paper("elasticity", key=KEY))
    size = lambda op: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(op))
    assert size(op.deformation) == 63_746
    assert size(op) - size(op.deformation) == 5_992_609
    cloud, code = jax.ShapeDtypeStruct((2, 972), jnp.float32), jax.ShapeDtypeStruct((42,), jnp.float32)
    out = jax.eval_shape(lambda op, u, code: op(u, coords=u, code=code), op, cloud, code)
    assert out.shape == (1, 972)
    assert (op.n_modes, op.latent_points, op.transform) == ((24, 23), (96, 96), "published")


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_deformation_is_its_formula(x64, ndim):
    op = Deformation(ndim, width=8, code_channels=5, key=KEY)
    op = jax.tree.map(lambda p: p.astype(jnp.float64), op)
    x, code = RNG.uniform(-1, 1, (ndim, 4, 3)), RNG.normal(size=5)
    linear = lambda layer, v: v @ np.asarray(layer.weight).T + np.asarray(layer.bias)
    for given in (code, None):
        wanted = np.empty_like(x)
        for index in np.ndindex(4, 3):
            place = x[(slice(None), *index)]
            seen = list(place)
            if ndim == 2:
                seen.append(math.atan2(place[1] - 1e-4, place[0] - 1e-4))
            seen = np.asarray([*seen, math.sqrt(sum((place - 1e-4) ** 2))])
            angles = np.concatenate([math.pi * np.asarray([1, 2]) * s for s in seen])
            v = np.concatenate([linear(op.features, seen), np.sin(angles), np.cos(angles)])
            v = linear(op.without_code, v) if given is None else np.concatenate([linear(op.with_code, given), v])
            for layer in op.layers[:-1]:
                v = np.tanh(linear(layer, v))
            wanted[(slice(None), *index)] = place * (1 + linear(op.layers[-1], v))
        close(jax.jit(lambda op, x, given=given: op(x, code=given))(op, x), wanted, 1e-11)
    assert op.features.in_channels == {1: 2, 2: 4, 3: 4}[ndim]


def test_a_scale_and_a_shift_for_each_channel(x64):
    op, u = no.nn.Affine(3), RNG.normal(size=(3, 4, 5))
    np.testing.assert_array_equal(op(jnp.asarray(u)), u)  # at the start
    scale, shift = RNG.normal(size=(2, 3))
    op = eqx.tree_at(lambda op: (op.weight, op.bias), op, (jnp.asarray(scale), jnp.asarray(shift)))
    np.testing.assert_allclose(op(jnp.asarray(u)), scale[:, None, None] * u + shift[:, None, None], rtol=1e-15)
