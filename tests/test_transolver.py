"""Transolver: counts of the authors' code, its equations written out, points of any mesh."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special

import neuralops as no
from neuralops.nn import PhysicsAttention

KEY = jax.random.key(6)
RNG = np.random.default_rng(0)
POINTS = 11
U, X, WEIGHTS = RNG.normal(size=(1, POINTS)), RNG.uniform(size=(2, POINTS)), RNG.uniform(0.5, 2, POINTS)
SMALL = {"hidden_channels": 8, "n_layers": 2, "n_heads": 2, "n_slices": 3}
run = jax.jit(lambda op, u, more: op(u, **more))


def size(op):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(op))


def shaken(op, spread=0.5):
    """In double precision with weights of everyday size: at the start a block does little."""
    leaves, tree = jax.tree.flatten(op)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [jnp.asarray(p + spread * rng.normal(size=p.shape), jnp.float64) for p in leaves])


def transolver(**options):
    op = shaken(no.Transolver(1, 2, **{**SMALL, **options}, key=KEY))
    heat = lambda op: [block.attention.temperature for block in op.blocks]
    return eqx.tree_at(heat, op, [jnp.asarray([0.4, 1.3])[: op.n_heads]] * op.n_layers)


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(np.abs(b).max()))


COUNTS = {
    "elasticity": (lambda: no.Transolver.paper("elasticity", key=KEY), 713_665),
    "darcy": (lambda: no.Transolver.paper("darcy", key=KEY), 2_826_945),
    "airfoil": (lambda: no.Transolver.paper("airfoil", key=KEY), 2_810_817),
    "pipe": (lambda: no.Transolver.paper("pipe", key=KEY), 3_073_985),
    "points": (lambda: no.Transolver(1, 2, 32, n_layers=3, n_heads=4, n_slices=8, key=KEY), 19_526),
    "grid": (
        lambda: no.Transolver(1, 1, 16, n_layers=2, n_heads=4, n_slices=8, structured=True, key=KEY),
        11_945,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_the_authors_code(name):
    make, wanted = COUNTS[name]
    assert size(eqx.filter_eval_shape(make)) == wanted


def softmax(scores, axis):
    return np.exp(scores - scipy.special.logsumexp(scores, axis, keepdims=True))


def linear(layer, x):
    return x @ np.asarray(layer.weight).T + np.asarray(layer.bias)


def attention(op, x, grid, q):
    """Head by head, on points (points, channels) with quadrature weights q of mean one."""
    kernel, bias = np.asarray(op.kernel), np.asarray(op.bias)
    tau, part = np.asarray(op.temperature), x.shape[1] // op.n_heads
    if op.kernel_ndim is None:
        both = x @ kernel
    else:
        tau, field = np.clip(tau, 0.1, 5), x.reshape(*grid, -1)
        both = np.zeros((*grid, kernel.shape[-1]))
        for i in range(kernel.shape[-2]):
            for o in range(kernel.shape[-1]):
                both[..., o] += scipy.ndimage.correlate(field[..., i], kernel[..., i, o], mode="constant")
        both = both.reshape(len(x), -1)
    f, s = np.split(both + bias, 2, axis=1)
    out = np.zeros_like(x)
    for h in range(op.n_heads):
        own = slice(h * part, (h + 1) * part)
        w = softmax(linear(op.slices, s[:, own]) / tau[h], axis=1)
        t = np.stack([(q * w[:, g]) @ f[:, own] / (np.sum(q * w[:, g]) + 1e-5) for g in range(op.n_slices)])
        query, key, value = (t @ np.asarray(m) for m in (op.query, op.key, op.value))
        out[:, own] = w @ (softmax(query @ key.T / math.sqrt(part), axis=1) @ value)
    return linear(op.joined, out)


def layer_norm(norm, x):
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt(x.var(1, keepdims=True) + 1e-5) * np.asarray(norm.weight) + np.asarray(norm.bias)


def gelu(x):
    return x * scipy.special.ndtr(x)


def written_out(op, u, places, time=None, weights=None):
    grid, x = u.shape[1:], u.reshape(len(u), -1).T
    q = np.ones(len(x)) if weights is None else weights / weights.mean()
    x = np.concatenate([places.reshape(len(places), -1).T, x], 1)
    x = linear(op.lifting[1], gelu(linear(op.lifting[0], x))) + np.asarray(op.placeholder)
    if time is not None:
        half = op.hidden_channels // 2
        angles = [time * 10_000 ** (-j / half) for j in range(half)]
        seen = linear(op.time_mlp[0], np.concatenate([np.cos(angles), np.sin(angles)]))
        x = x + linear(op.time_mlp[1], seen * scipy.special.expit(seen))
    for block in op.blocks:
        x = x + attention(block.attention, layer_norm(block.norms[0], x), grid, q)
        x = x + linear(block.mlp[1], gelu(linear(block.mlp[0], layer_norm(block.norms[1], x))))
    return linear(op.projection, layer_norm(op.norm, x)).T.reshape(op.out_channels, *grid)


def test_equations_on_points(x64):
    op = transolver(mlp_ratio=1.5, time_input=True)
    close(run(op, U, {"coords": X, "time": 0.3}), written_out(op, U, X, 0.3))
    close(run(op, U, {"coords": X, "time": 40.0, "weights": WEIGHTS}), written_out(op, U, X, 40.0, WEIGHTS))
    a, b = (run(op, U, {"coords": X, "time": t}) for t in (0.1, 0.2))
    assert np.abs(a - b).max() > 1e-4
    slope = jax.jit(jax.grad(lambda t: jnp.sum(op(U, coords=X, time=t))))(0.3)
    difference = sum(sign * np.sum(run(op, U, {"coords": X, "time": 0.3 + sign * 1e-6})) for sign in (1, -1)) / 2e-6
    np.testing.assert_allclose(slope, difference, rtol=1e-5)


@pytest.mark.parametrize("grid", [(7,), (4, 5), (3, 2, 4)], ids=["1-D", "2-D", "3-D"])
def test_equations_on_grids(x64, grid):
    ndim = len(grid)
    op = transolver(structured=True, ndim=ndim, n_layers=1)
    heat = jnp.asarray([0.01, 7.0])  # held in [0.1, 5] on grids
    op = eqx.tree_at(lambda op: op.blocks[0].attention.temperature, op, heat)
    u = RNG.normal(size=(1, *grid))
    places = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij"))
    close(run(op, u, {}), written_out(op, u, places))
    moved = places**2
    close(run(op, u, {"coords": moved}), written_out(op, u, moved))


@pytest.mark.parametrize("structured", [False, True])
def test_reference_distances(x64, structured):
    op = transolver(structured=structured, positional_embedding="reference", reference_points=3, n_layers=1)
    x = np.stack(np.meshgrid(np.linspace(0, 1, 3), np.linspace(0, 1, 5), indexing="ij"))  # on reference points too
    u, more = (
        (RNG.normal(size=(1, 3, 5)), {}) if structured else (RNG.normal(size=(1, 15)), {"coords": x.reshape(2, -1)})
    )
    distances = [np.hypot(x[0] - a, x[1] - b) for a in (0, 0.5, 1) for b in (0, 0.5, 1)]
    close(run(op, u, more), written_out(op, u, np.stack(distances)))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(op(u, coords=x))))(jnp.asarray(x if structured else more["coords"]))
    assert np.isfinite(slope).all()


def test_order_of_points(x64):
    op, order = transolver(), RNG.permutation(POINTS)
    out = run(op, U, {"coords": X, "weights": WEIGHTS})
    close(run(op, U[:, order], {"coords": X[:, order], "weights": WEIGHTS[order]}), out[:, order])


def test_masked_points_change_nothing_at_all(x64):
    op, mask = transolver(), np.arange(POINTS + 4) < POINTS
    widen = lambda x, fill: np.concatenate([x, np.full((*x.shape[:-1], 4), fill)], -1)

    @jax.jit
    def judged(op, u, x, weights, mask):
        def energy(op, u, x, weights):
            out = op(u, coords=x, weights=weights, mask=mask)
            return jnp.sum(jnp.sin(jnp.where(mask, out, 0))), out

        return jax.value_and_grad(energy, argnums=(0, 1, 2, 3), has_aux=True)(op, u, x, weights)

    results = [judged(op, widen(U, f), widen(X, f), widen(WEIGHTS, f), mask) for f in (np.nan, 0.0, 1e6)]
    for other in results[1:]:
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(results[0]), strict=True):
            np.testing.assert_array_equal(a, b)
    (value, out), (slopes, *zero) = results[0]
    (plain, alone), (wanted, *_) = judged(op, U, X, WEIGHTS, np.ones(POINTS, bool))
    close(value, plain)
    close(out[:, :POINTS], alone)
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
    for slope in zero:
        np.testing.assert_array_equal(slope[..., POINTS:], 0)
        assert np.abs(slope[..., :POINTS]).max() > 1e-8
    masked_only = run(op, widen(U, 3.0), {"coords": widen(X, 0.2), "mask": mask})
    close(masked_only[:, :POINTS], run(op, U, {"coords": X}))


def test_units_of_weights_do_not_matter():
    op = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), transolver())
    u, x, weights = (np.float32(a) for a in (U, X, WEIGHTS))
    out = run(op, u, {"coords": x, "weights": weights})
    for unit in (1e20, 1e-20):
        close(run(op, u, {"coords": x, "weights": np.float32(unit) * weights}), out, 1e-5)
    close(run(op, u, {"coords": x, "weights": np.full(POINTS, 3.0, np.float32)}), run(op, u, {"coords": x}), 1e-5)
    assert np.abs(run(op, u, {"coords": x}) - out).max() > 1e-3


def cells(n, power):
    """Centres of n x n cells and their areas; the middle of a cell of the coarsest mesh stays one when n triples."""
    edges = np.linspace(0, 1, n + 1) ** power, np.linspace(0, 1, n + 1)
    x = np.stack(np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij")).reshape(2, -1)
    return x, np.multiply.outer(*map(np.diff, edges)).ravel()


def test_with_weights_meshes_converge_and_without_they_do_not(x64):
    """Points beyond the mesh, of no weight, are where the outputs are compared."""
    op = transolver(n_layers=2)
    probes = RNG.uniform(size=(2, 5))

    def out(n, power, weighted):
        x, weights = cells(n, power)
        x = np.concatenate([x, probes], 1)
        # Without weights the probes count as points do, which fades as the mesh is refined.
        more = {"weights": np.concatenate([weights, np.zeros(5)])} if weighted else {}
        return run(op, np.exp(x[:1]) * np.cos(4 * x[1:]), {"coords": x} | more)[:, -5:]

    limit = out(72, 1, True)
    for power in (1, 2.5):
        errors = [np.abs(out(n, power, True) - limit).max() / np.abs(limit).max() for n in (6, 12, 24)]
        orders = np.log2(np.asarray(errors[:-1]) / errors[1:])
        assert orders.min() > 1.6
        assert op.envelope.order <= orders.min()
        assert errors[-1] < 2e-3
    plain = [np.abs(out(n, 2.5, False) - limit).max() / np.abs(limit).max() for n in (6, 24)]
    assert plain[1] > 10 * errors[-1]
    assert plain[1] > 0.6 * plain[0]


def test_attention_on_points_is_linear_in_its_slices(x64):
    """One slice holds all points: each reads the same average, which weights turn into a mean of the domain."""
    op = shaken(PhysicsAttention(4, 2, 1, key=KEY))
    u = RNG.normal(size=(4, POINTS))
    out = np.asarray(run(op, u, {"weights": WEIGHTS}))
    np.testing.assert_allclose(out, np.broadcast_to(out[:, :1], out.shape), rtol=1e-12)
    q = WEIGHTS / WEIGHTS.mean()
    f = (u.T @ np.asarray(op.kernel) + np.asarray(op.bias))[:, :4]
    mean = (q @ f / (POINTS + 1e-5)).reshape(2, 2) @ np.asarray(op.value)
    close(out[:, 0], linear(op.joined, mean.ravel()))


def test_slices_of_constant_shares_all_hold_the_average(x64):
    """P = 0: every slice takes the same share of every point, so nothing tells them apart."""
    op = shaken(PhysicsAttention(4, 2, 5, key=KEY))
    op = eqx.tree_at(lambda op: (op.slices.weight, op.slices.bias), op, replace_fn=jnp.zeros_like)
    u = RNG.normal(size=(4, POINTS))
    f = (u.T @ np.asarray(op.kernel) + np.asarray(op.bias))[:, :4]
    mean = (f.sum(0) / 5 / (POINTS / 5 + 1e-5)).reshape(2, 2) @ np.asarray(op.value)
    close(run(op, u, {}), np.broadcast_to(linear(op.joined, mean.ravel())[:, None], (4, POINTS)))


@pytest.mark.slow
def test_blocks_made_again_are_the_same(x64):
    total = jax.jit(jax.value_and_grad(lambda op: jnp.sum(jnp.sin(op(U, coords=X, weights=WEIGHTS)))))
    plain, again = (total(transolver(checkpoint_blocks=c)) for c in (False, True))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    jaxpr = str(jax.make_jaxpr(lambda u: transolver(checkpoint_blocks=True)(u, coords=X))(U))
    assert jaxpr.count("prevent_cse=") == 2  # of each jax.checkpoint
