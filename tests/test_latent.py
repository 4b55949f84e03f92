"""The neural spectral block against its equations written out, and what it promises under refinement."""

import math

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from neuralops.nn import NeuralSpectralBlock
from neuralops.nn.assignment import softmax_over_points
from neuralops.nn.latent import trigonometric

KEY = jax.random.key(5)
run = jax.jit(lambda op, u: op(u))


def block(in_channels=4, num_patches=2, *, spread=1.0, **options):
    """In double precision, tokens and basis weights of both signs and of size `spread`."""
    options = {"n_heads": 2, "n_tokens": 3, "n_basis": 5, "key": KEY, **options}
    op = NeuralSpectralBlock(in_channels, num_patches, **options)
    rng = np.random.default_rng(1)
    op = jax.tree.map(lambda p: p.astype(jnp.float64), op)
    names = lambda op: (op.tokens, op.sine, op.cosine)
    return eqx.tree_at(names, op, [jnp.asarray(spread * rng.normal(size=p.shape)) for p in names(op)])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(scores, axis):
    shares = np.exp(scores - scores.max(axis, keepdims=True))
    return shares / shares.sum(axis, keepdims=True)


def published_patch(op, x):
    """The equations on one patch (points, channels), in the order of the paper: linear maps at the points."""
    op = jax.tree.map(np.asarray, op)
    at_points = lambda linear: x @ linear.weight.T + linear.bias
    keys, values, queries = (at_points(linear) for linear in (op.keys, op.values, op.queries))
    out, part = np.zeros_like(x), x.shape[1] // op.n_heads
    for head in range(op.n_heads):
        own = slice(head * part, (head + 1) * part)
        latent = op.tokens[head]
        tokens = softmax(latent @ keys[:, own].T, axis=1) @ values[:, own] + latent
        changed = tokens.copy()
        for c in range(part):
            for k in range(op.n_basis):
                angle = math.pi * k * tokens[:, c] / op.n_basis
                channel = head * part + c
                changed[:, c] += op.sine[channel, k] * np.sin(angle) + op.cosine[channel, k] * np.cos(angle)
        out[:, own] = softmax(queries[:, own] @ changed.T, axis=1) @ changed
    return out + x


def published(op, u, num_patches):
    out = np.zeros_like(u)
    cuts = [np.split(np.arange(n), p) for n, p in zip(u.shape[1:], num_patches, strict=True)]
    for index in np.ndindex(*num_patches):
        own = np.ix_(np.arange(len(u)), *(cut[i] for cut, i in zip(cuts, index, strict=True)))
        patch = u[own]
        out[own] = published_patch(op, patch.reshape(len(u), -1).T).T.reshape(patch.shape)
    return out


@pytest.mark.parametrize(
    ("grid", "num_patches"), [((12,), (3,)), ((6, 8), (3, 2)), ((4, 2, 6), (2, 1, 3))], ids=["1-D", "2-D", "3-D"]
)
def test_equations_of_the_paper_and_both_ways_to_say_the_patches(x64, grid, num_patches):
    op = block(num_patches=num_patches, ndim=len(grid))
    u = noise(4, *grid)
    out = run(op, u)
    np.testing.assert_allclose(out, published(op, u, num_patches), rtol=1e-11, atol=1e-11)
    size = tuple(n // p for n, p in zip(grid, num_patches, strict=True))
    again = block(num_patches=None, patch_size=size, ndim=len(grid))
    np.testing.assert_array_equal(run(again, u), out)
    assert np.abs(out - u).max() > 0.1


def test_without_basis_weights_it_is_attention_and_a_skip(x64):
    op = block(num_patches=1, ndim=1)
    op = eqx.tree_at(lambda op: (op.sine, op.cosine), op, replace_fn=jnp.zeros_like)
    x = noise(9, 4)
    wanted = x.copy()
    for head in range(2):
        own = slice(2 * head, 2 * head + 2)
        k, v, q = (x @ m.weight[own].T + m.bias[own] for m in (op.keys, op.values, op.queries))
        tokens = softmax(op.tokens[head] @ np.asarray(k).T, 1) @ v + op.tokens[head]
        wanted[:, own] += softmax(np.asarray(q @ tokens.T), 1) @ tokens
    np.testing.assert_allclose(run(op, x.T).T, wanted, rtol=1e-12, atol=1e-12)


def test_weights_that_do_nothing_have_no_gradient(x64):
    op, u = block(num_patches=(2, 3)), noise(4, 5, 6)  # patches divide one axis and not the other
    slopes = jax.jit(jax.grad(lambda op, u: jnp.sum(jnp.sin(op(u)))))(op, u)
    dead = {"sine[:, 0]": slopes.sine[:, 0], "keys.bias": slopes.keys.bias}
    for name, slope in dead.items():
        np.testing.assert_array_equal(slope, 0, err_msg=name)
    alive = [slopes.tokens, slopes.sine[:, 1:], slopes.cosine, slopes.keys.weight]
    alive += [slopes.values.weight, slopes.values.bias, slopes.queries.weight, slopes.queries.bias]
    for slope in alive:
        assert float(jnp.max(jnp.abs(slope))) > 1e-6
    # The whole gradient, against differences along one direction.
    flat, unravel = jax.flatten_util.ravel_pytree(op)
    along = jnp.asarray(noise(flat.size, seed=3))
    total = jax.jit(lambda flat: jnp.sum(jnp.sin(unravel(flat)(u))))
    step = 1e-6
    difference = (total(flat + step * along) - total(flat - step * along)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(jax.flatten_util.ravel_pytree(slopes)[0], along), difference, rtol=1e-6)


def test_order_of_points_in_a_patch_and_of_tokens(x64):
    op, u = block(num_patches=2, ndim=1), noise(4, 12)
    rng = np.random.default_rng(2)
    order = np.concatenate([rng.permutation(6), 6 + rng.permutation(6)])
    out = run(op, u)
    np.testing.assert_allclose(run(op, u[:, order]), out[:, order], rtol=1e-12, atol=1e-13)
    across = np.roll(np.arange(12), 3)
    assert np.abs(run(op, u[:, across]) - out[:, across]).max() > 0.01
    turned = eqx.tree_at(lambda op: op.tokens, op, op.tokens[:, [2, 0, 1]])
    np.testing.assert_allclose(run(turned, u), out, rtol=1e-12, atol=1e-13)


def test_shares_add_up_over_points_to_tokens_and_over_tokens_back(x64):
    op = block(num_patches=2, ndim=1)
    # Equal tokens stay equal, and reading them back gives that token at every point of the patch if shares add to one.
    same = eqx.tree_at(lambda op: op.tokens, op, jnp.broadcast_to(op.tokens[:, :1], op.tokens.shape))
    u = noise(4, 10)
    read = np.asarray(run(same, u) - u).reshape(4, 2, 5)
    np.testing.assert_allclose(read, np.broadcast_to(read[..., :1], read.shape), rtol=1e-12)
    assert np.abs(read[:, 0] - read[:, 1]).max() > 0.01
    # A field that is constant on a patch is its own average if shares add to one: the size of the patch is not seen.
    level = noise(4, 1)
    few, many = (run(op, np.broadcast_to(level, (4, n))) for n in (2, 34))
    np.testing.assert_allclose(few, many[:, ::17], rtol=1e-12)
    shares = softmax_over_points(jnp.asarray(noise(7, 3)), jnp.asarray([1, 0, 2, 0.5, 0, 1, 1]))
    np.testing.assert_allclose(shares.sum(0), 1, rtol=1e-14)
    np.testing.assert_array_equal(shares[jnp.array([1, 4])], 0)
    double = softmax_over_points(jnp.asarray(noise(7, 3)[[0, 1, 1]]))  # the measure 2 is a point said twice
    once = softmax_over_points(jnp.asarray(noise(7, 3)[:2]), jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(once, [double[0], double[1] + double[2]], rtol=1e-13)


def test_shares_of_extreme_scores_and_of_no_points(x64):
    scores = jnp.asarray([[1e5], [-1e5], [1e300]])
    measure = jnp.asarray([1.0, 1.0, 0.0])
    np.testing.assert_array_equal(softmax_over_points(scores, measure)[:, 0], [1, 0, 0])
    slope = jax.grad(lambda s: jnp.sum(softmax_over_points(s, measure) ** 2))(scores)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(softmax_over_points(scores, jnp.zeros(3)), 0)


@pytest.mark.parametrize("basis", [2, 12])
def test_trigonometric_is_the_sum(x64, basis):
    x, sine, cosine = 5 * noise(6, 7), noise(basis, 7, seed=1), noise(basis, 7, seed=2)
    rate = (math.pi * np.arange(basis) / basis)[:, None, None]
    sines, cosines = np.sin(rate * x), np.cos(rate * x)
    wanted = np.sum(sine[:, None] * sines + cosine[:, None] * cosines, 0)
    np.testing.assert_allclose(trigonometric(x, sine, cosine), wanted, rtol=1e-12, atol=1e-12)
    cotangent = noise(6, 7, seed=3)
    value = lambda *given: jnp.sum(cotangent * trigonometric(*given))
    by_hand = (
        cotangent * np.sum(rate * (sine[:, None] * cosines - cosine[:, None] * sines), 0),
        np.sum(cotangent * sines, 1),
        np.sum(cotangent * cosines, 1),
    )
    for ours, theirs in zip(jax.grad(value, (0, 1, 2))(x, sine, cosine), by_hand, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_trigonometric_in_every_mode_of_differentiation(x64):
    given = 5 * noise(2, 2), noise(3, 2, seed=1), noise(3, 2, seed=2)
    value = jax.jit(lambda *given: jnp.sum(trigonometric(*given) ** 2))
    check_grads(value, given, order=2, modes=("fwd", "rev"), rtol=1e-5)
    batch = np.stack([given[0], -given[0]])
    each = jax.vmap(jax.grad(value, (0, 1, 2)), (0, None, None))(batch, *given[1:])
    for i, x in enumerate(batch):
        for one, of_batch in zip(jax.grad(value, (0, 1, 2))(x, *given[1:]), each, strict=True):
            np.testing.assert_allclose(of_batch[i], one, rtol=1e-12, atol=1e-12)


# Relative residual of g(t) - t in the basis on [-2, 2], measured for M = 2, 4, 8, 12 with rcond = 1e-13.
RESIDUALS = {
    "tanh(2t)": (lambda t: np.tanh(2 * t), (4.9e-1, 4.5e-2, 2.5e-3, 5.4e-4)),
    "sin(5t)": (lambda t: np.sin(5 * t), (1.2, 9.6e-1, 4.0e-3, 2.2e-5)),
    "t^2": (np.square, (4.4e-1, 1.7e-3, None, None)),  # then to rounding
    "|t|": (np.abs, (6.3e-1, 3.4e-2, 1.3e-2, 1.1e-2)),
}


@pytest.mark.parametrize("name", RESIDUALS)
def test_functions_that_the_basis_gives(x64, name):
    function, residuals = RESIDUALS[name]
    t = np.linspace(-2, 2, 2001)
    for basis, wanted in zip((2, 4, 8, 12), residuals, strict=True):
        unit, none = np.eye(basis), np.zeros((basis, basis))
        each = np.broadcast_to(t[:, None], (t.size, basis))  # a channel for each wave
        matrix = np.concatenate([trigonometric(each, unit, none), trigonometric(each, none, unit)], 1)
        target = function(t) - t
        solution = np.linalg.lstsq(matrix, target, rcond=1e-13)[0]
        residual = np.linalg.norm(matrix @ solution - target) / np.linalg.norm(function(t))
        if wanted is None:
            assert residual < 1e-9
        else:
            np.testing.assert_allclose(residual, wanted, rtol=0.1)


def smooth(*grid):
    """Four channels at the centres of cells."""
    x = np.meshgrid(*((np.arange(n) + 0.5) / n for n in grid), indexing="ij")
    s = sum((i + 1) * axis for i, axis in enumerate(x))
    return np.stack([np.sin(3 * s), np.cos(2 * s), np.exp(-s) * x[0], x[-1] ** 2])


@pytest.mark.parametrize(
    ("grid", "num_patches", "levels"),
    [((9,), 3, 5), ((10,), 3, 5), ((7,), 5, 5), ((5, 6), (2, 4), 4)],
    ids=["divided", "three of ten", "five of seven", "2-D"],
)
def test_patches_of_the_box_converge_with_order_two(x64, grid, num_patches, levels):
    op = block(num_patches=num_patches, ndim=len(grid))
    outs = []
    for level in range(levels):  # three times the cells, so that old centres stay centres
        step = 3**level
        out = run(op, smooth(*(step * n for n in grid)))
        outs.append(out[(slice(None), *(slice(step // 2, None, step),) * len(grid))])
    errors = [np.abs(out - outs[-1]).max() for out in outs[:-1]]
    orders = np.log(np.asarray(errors[:-1]) / errors[1:]) / math.log(3)
    assert errors[0] > 1e-4
    assert orders[-1] > 1.85
    assert op.envelope.refinement == "consistent"
    assert 1 <= op.envelope.order <= orders[-1]


def test_patches_of_points_do_not(x64):
    by_box, by_points = block(num_patches=2, ndim=1), block(num_patches=None, patch_size=5, ndim=1)
    limit = run(by_box, smooth(810))[:, 40::81]
    errors = [np.abs(run(by_points, smooth(10 * s))[:, s // 2 :: s] - limit).max() for s in (1, 3, 9)]
    assert errors[0] < 0.2 * errors[1]
    assert errors[2] > 0.8 * errors[1]
    assert by_points.envelope.refinement == "spacing-locked"


def test_a_window_at_the_end_of_the_axis_reads_no_point_twice(x64):
    """Wherever cells lie across borders, each patch averages over its own part of the box alone."""
    op = block(num_patches=3, ndim=1)
    op = eqx.tree_at(lambda op: op.tokens, op, jnp.zeros_like(op.tokens))  # equal shares: the average of the patch
    op = eqx.tree_at(lambda op: (op.sine, op.cosine), op, replace_fn=jnp.zeros_like)
    u = noise(4, 10)
    inside = np.zeros((3, 10))
    for patch in range(3):
        for cell in range(10):
            low, high = max(cell, patch * 10 / 3), min(cell + 1, (patch + 1) * 10 / 3)
            inside[patch, cell] = max(high - low, 0)
    means = u @ (inside / inside.sum(1, keepdims=True)).T
    read = op.values.weight @ means + op.values.bias[:, None]
    home = np.asarray([0, 0, 0, 1, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(run(op, u) - u, read[:, home], rtol=1e-11, atol=1e-12)


def test_memory_is_linear_in_the_points():
    op = NeuralSpectralBlock(8, 2, ndim=1, n_heads=2, n_basis=3, key=KEY)
    gradient = jax.jit(jax.grad(lambda op, u: jnp.sum(op(u) ** 2), argnums=(0, 1)))
    shape = lambda n: jax.ShapeDtypeStruct((8, n), jnp.float32)
    bytes_of = lambda n: gradient.lower(op, shape(n)).compile().memory_analysis().temp_size_in_bytes
    small, large = bytes_of(4_000), bytes_of(16_000)
    assert large < 4.4 * small
    assert large < 16_000 * 8 * 4 * 30  # thirty fields
