"""DGNO: the published sizes, its decoders, phases, and objectives without labels."""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neuralops as no
from neuralops.data import Samples
from neuralops.nn import MLPEncoder, PointEncoder

key = jax.random.key(3)
SQUARE = ((0.0, 1.0), (0.0, 1.0))


def small(phases=None, flux=(), variational=False, **options):
    keys = jax.random.split(key, 4)
    decoder = functools.partial(no.MultiONet, 4, 1, hidden_channels=8, n_layers=3, sum_layers=2)
    return no.DGNO(
        MLPEncoder((5, 5), 1, 8 if variational else 4, (8,), key=keys[0]),
        started(decoder(out_channels=1, factor="both", key=keys[1])),
        started(decoder(out_channels=1, key=keys[2])),
        started(decoder(out_channels=2, key=keys[3])) if flux else (),
        phases=phases,
        code="identity" if variational else "tanh",
        variational=variational,
        **options,
    )


def started(op):
    """With weights of the inner products that are not zero."""
    weight = jax.random.normal(jax.random.key(9), op.weight.shape)
    return eqx.tree_at(lambda op: op.weight, op, weight)


def test_the_published_sizes():
    counts = {"darcy_smooth": 368_828, "darcy_two_phase": 1_437_476, "burgers": 196_702, "stokes": 445_499}
    for name, expected in counts.items():
        op = jax.eval_shape(lambda name=name: no.DGNO.paper(name, key=key))
        assert sum(leaf.size for leaf in jax.tree.leaves(op)) == expected
        # of which the first is printed in the authors' notebook; the others are the sums of the sheet's parts
    parts = {"u": 94_005, "encoder": 595_328}
    assert counts["darcy_two_phase"] - 3 * parts["u"] - parts["encoder"] == 560_133  # 5 layers of 256, twice
    assert counts["burgers"] == 82_496 + 114_206
    assert counts["stokes"] == 115_200 + 2 * 114_206 + 101_887


def test_halves_make_the_whole():
    op, a = small(), jax.random.normal(key, (1, 5, 5))
    query = jax.random.uniform(key, (2, 6))
    code = op.encode(a)
    assert code.shape == (4,)
    assert np.abs(code).max() < 1
    np.testing.assert_allclose(code, jnp.tanh(op.encoder(a)[0]), rtol=1e-6)
    np.testing.assert_array_equal(op(a, query=query), op.decode(code, query))
    nodes = np.stack(np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 5), indexing="ij")).astype(np.float32)
    np.testing.assert_allclose(op(a), op(a, query=nodes), rtol=1e-6)
    walls = np.array([[0, 1, 0.3, 0.7], [0.2, 0.5, 0, 1]], np.float32)
    assert np.abs(op(a, query=walls)).max() < 1e-6
    assert np.abs(op.decode_input(code, walls)).min() > 1e-6  # the factor is the solution's alone


def test_two_phases():
    op, a = small(phases=(5.0, 10.0)), jnp.full((1, 5, 5), 7.5).at[0, 0, 0].set(10)
    assert (op.shift, op.scale) == (7.5, 2.5)
    code, query = op.encode(a), jax.random.uniform(key, (2, 40))
    share = jax.nn.sigmoid(op.medium(code[None], query=query))
    np.testing.assert_allclose(op.decode_input(code, query), 5 + 5 * share, rtol=1e-6)
    # log-odds of zero: the mean of many draws is the middle, their noise in the logit has variance pi^2 / (3 S)
    flat = eqx.tree_at(lambda op: (op.medium.weight, op.medium.bias), op, (jnp.zeros((2, 1)), jnp.zeros(1)))
    points = jnp.zeros((2, 4000))
    draws = flat.sample_input(code, points, key=key, num_draws=25)
    assert abs(float(draws.mean()) - 7.5) < 0.05
    logit = lambda x: jnp.log(x / (1 - x))
    assert float(jnp.var(logit((draws - 5) / 5))) == pytest.approx(math.pi**2 / 75, rel=0.1)
    # large ones: hard phases
    hard = eqx.tree_at(lambda op: op.medium.bias, flat, jnp.full(1, 20.0))
    np.testing.assert_allclose(hard.sample_input(code, points, key=key), 10, rtol=1e-5)


def test_cross_entropy_is_least_at_the_indicator():
    op = small(phases=(5.0, 10.0))
    batch = Samples(jnp.where(jax.random.bernoulli(key, 0.4, (3, 1, 5, 5)), 10.0, 5.0))
    value = no.losses.reconstruction()(op, batch, key=key)

    def entropy(share, p):  # in NumPy, of probabilities
        return -np.mean(share * np.log(p) + (1 - share) * np.log(1 - p))

    share = (np.asarray(batch.inputs, np.float64) - 5) / 5
    p = np.stack([(np.asarray(op.decode_input(op.encode(a)), np.float64) - 5) / 5 for a in batch.inputs])
    np.testing.assert_allclose(value, entropy(share, p), rtol=1e-5)
    assert entropy(share, np.clip(share, 1e-9, 1 - 1e-9)) < 1e-8 < value


def test_reconstruction_is_the_plain_norm():
    op, a = small(), jax.random.normal(key, (3, 1, 5, 5))
    value = no.losses.reconstruction()(op, Samples(a), key=key)
    expected = np.mean([np.linalg.norm(op.decode_input(op.encode(x)) - x) for x in a])
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_a_variational_encoder():
    op, a = small(variational=True), jax.random.normal(key, (1, 5, 5))
    mean, log_variance = op.law(a)
    draws = jax.vmap(lambda key: op.encode(a, key=key))(jax.random.split(key, 4000))
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(draws.var(0), np.exp(log_variance), rtol=0.15)
    np.testing.assert_array_equal(op.encode(a), mean)
    # the divergence by sampling: the mean of log q - log p
    log_q = jax.scipy.stats.norm.logpdf(draws, mean, jnp.exp(log_variance / 2)).sum(1)
    expected = jnp.mean(log_q - jax.scipy.stats.norm.logpdf(draws).sum(1))
    np.testing.assert_allclose(no.losses.kl()(op, Samples(a[None]), key=key), expected, rtol=0.1)


@pytest.mark.slow
def test_a_stream_function_has_no_divergence(x64):
    keys = jax.random.split(key, 3)
    decoder = functools.partial(no.MultiONet, 4, 1, 1, 8, n_layers=3, sum_layers=2)
    op = no.DGNO(
        MLPEncoder(5, 1, 4, (8,), key=keys[0]),
        [started(decoder(key=keys[1])), started(decoder(key=keys[2]))],
        stream_function=True,
        code="identity",
    )
    op = jax.tree.map(lambda x: x.astype(jnp.float64), op)
    code, x = op.encode(jnp.arange(5.0)[None]), jax.random.uniform(key, (2, 7), minval=0.1, maxval=0.9)
    h = 1e-5
    psi = lambda x: op.solution[0](code[None], query=x)[0]
    step = lambda axis: h * jnp.eye(2)[axis][:, None]
    slope = lambda f, axis: (f(x + step(axis)) - f(x - step(axis))) / (2 * h)
    velocity = op.decode(code, x)
    np.testing.assert_allclose(velocity[0], slope(psi, 1), atol=1e-8)
    np.testing.assert_allclose(velocity[1], -slope(psi, 0), atol=1e-8)
    np.testing.assert_allclose(velocity[2], op.solution[1](code[None], query=x)[0], rtol=1e-12)
    divergence = slope(lambda x: op.decode(code, x)[0], 0) + slope(lambda x: op.decode(code, x)[1], 1)
    np.testing.assert_allclose(divergence, 0, atol=1e-7)


def test_inputs_on_clouds_of_points():
    """An encoder of points: order and padding change neither code nor objectives."""
    keys = jax.random.split(key, 4)
    decoder = functools.partial(no.MultiONet, 4, 1, 1, 8, n_layers=3, sum_layers=2)
    op = no.DGNO(PointEncoder(1, 4, (8,), key=keys[0]), started(decoder(key=keys[1])), started(decoder(key=keys[2])))
    assert no.operator.keywords_of(op) == {"coords", "mask", "query", "key"}
    coords, a = jax.random.uniform(keys[3], (2, 9)), jax.random.normal(keys[3], (1, 9))
    code = op.encode(a, coords=coords)
    order = jnp.array([3, 1, 4, 0, 2, 8, 6, 5, 7])
    np.testing.assert_allclose(op.encode(a[:, order], coords=coords[:, order]), code, rtol=1e-5, atol=1e-6)
    padded = Samples(
        jnp.pad(a, ((0, 0), (0, 3)), constant_values=jnp.nan)[None],
        coords=jnp.pad(coords, ((0, 0), (0, 3)), constant_values=7.0)[None],
        mask=(jnp.arange(12) < 9)[None],
    )
    objectives = (no.losses.reconstruction(), no.losses.observed(np.asarray(coords[:, :2]), 0.5))
    both = lambda op, batch: [objective(op, batch, key=key) for objective in objectives]
    back, near = jax.jit(both)(op, padded)
    np.testing.assert_allclose(back, np.linalg.norm(op.decode_input(code, coords) - a), rtol=1e-5)
    np.testing.assert_allclose(near, np.mean((op.decode(code, coords[:, :2]) - 0.5) ** 2), rtol=1e-4)
    with pytest.raises(ValueError, match="PointEncoder"):
        small()(jnp.zeros((1, 5, 5)), coords=jnp.zeros((2, 5, 5)))
    with pytest.raises(ValueError, match="PointEncoder"):
        no.MultiONet(5, 1, 1, 8, key=key).encode(jnp.zeros((1, 5)), coords=jnp.zeros((1, 5)))


def test_parts_that_do_not_fit_are_refused():
    encoder, decoder = MLPEncoder((5, 5), 1, 4, (8,), key=key), no.MultiONet(4, 1, 1, 8, key=key)
    cases = [
        (lambda: no.DGNO(lambda a: a, decoder), "encoder"),
        (lambda: no.DGNO(encoder, no.MultiONet(5, 1, 1, 8, key=key)), "solution"),
        (lambda: no.DGNO(encoder, no.FNO((4,), 1, 1, 4, key=key)), "solution"),
        (lambda: no.DGNO(encoder, ()), "solution"),
        (lambda: no.DGNO(encoder, decoder, no.MultiONet(4, 1, 1, 8, domain=((0, 2),), key=key)), "domain"),
        (lambda: no.DGNO(encoder, decoder, phases=(5, 5)), "phases"),
        (lambda: no.DGNO(encoder, decoder, phases=(5, 10)), "medium"),
        (lambda: no.DGNO(encoder, decoder, variational=True), "code"),
        (lambda: no.DGNO(encoder, decoder, code="relu"), "code"),
        (lambda: no.DGNO(encoder, decoder, scale=0), "scale"),
        (lambda: no.DGNO(encoder, decoder).decode_input(jnp.zeros(4)), "medium"),
        (lambda: no.DGNO(encoder, decoder).decode_flux(jnp.zeros(4)), "flux"),
        (lambda: no.DGNO(encoder, decoder).law(jnp.zeros((1, 5, 5))), "variational"),
        (lambda: no.DGNO(encoder, decoder)(jnp.zeros((1, 6, 6))), "sensors"),
        (lambda: no.DGNO(encoder, decoder)(jnp.zeros((1, 5, 5)), query=jnp.full((2, 3), 1.5)), "query"),
        (lambda: no.DGNO(encoder, decoder)(jnp.zeros((1, 5, 5)), query=jnp.full((2, 3), jnp.nan)), "NaN"),
        (lambda: no.DGNO.paper("poisson", key=key), "name"),
        (lambda: no.losses.virtual_observables(3), "equation"),
        (lambda: no.losses.observed(np.zeros(3)), "points"),
        (lambda: no.losses.supervised(no.losses.l2(), where=3), "where"),
    ]
    for make, word in cases:
        with pytest.raises(ValueError, match=word):
            make()


def test_partly_labelled_samples():
    """The labelled ones alone count; what stands for the others does not matter."""
    op, a = small(), jax.random.normal(key, (6, 1, 5, 5))
    labels = jax.random.normal(jax.random.key(1), (6, 1, 5, 5))
    labelled = np.array([1, 0, 1, 0, 0, 1], np.float32)
    objective = no.losses.supervised(no.losses.l2(), where="labelled")
    value = lambda filler: objective(
        op,
        Samples(a, jnp.where(labelled[:, None, None, None] > 0, labels, filler), extras={"labelled": labelled}),
        key=key,
    )
    rows = np.flatnonzero(labelled)
    expected = no.losses.supervised(no.losses.l2())(op, Samples(a[rows], labels[rows]), key=key)
    np.testing.assert_allclose(value(0.0), expected, rtol=1e-6)
    np.testing.assert_array_equal(value(0.0), value(1e6))


def test_values_at_points():
    op, a = small(), jax.random.normal(key, (3, 1, 5, 5))
    points = np.random.default_rng(0).uniform(size=(2, 7)).astype(np.float32)
    known = np.random.default_rng(1).normal(size=(3, 1, 7)).astype(np.float32)
    u = np.stack([op(x, query=points) for x in a])
    batch = Samples(a, extras={"y": jnp.asarray(known), "x": jnp.asarray(np.stack([points] * 3))})
    expected = np.mean((u - known) ** 2)
    np.testing.assert_allclose(no.losses.observed(points, "y")(op, batch, key=key), expected, rtol=1e-5)
    np.testing.assert_allclose(no.losses.observed("x", "y")(op, batch, key=key), expected, rtol=1e-5)
    norms = np.mean(np.linalg.norm((u - 0.5).reshape(3, -1), axis=1))
    got = no.losses.observed(points, 0.5, reduction="norm")(op, batch, key=key)
    np.testing.assert_allclose(got, norms, rtol=1e-5)
    assert no.losses.observed(points, 0.5) == no.losses.observed(points.copy(), 0.5)
    assert no.losses.observed(points, 0.5) != no.losses.observed(points + 1, 0.5)
