"""Learned proximal networks: exact proximal operators whatever their weights, and the regularisers behind them."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import neuralops as no
from neuralops.models.lpn import LPN, Patched
from neuralops.nn import ConvexConv, ConvexDense, ConvexIntegral
from neuralops.nn.convex_conv import resize
from neuralops.nn.convex_integral import hat_convolution
from neuralops.nn.convolution import convolve

KEY = jax.random.key(3)
FAST = {"xla_backend_optimization_level": 0}  # of the compiler, which takes longer than the program
MIXED = ("neumann", "periodic")
EDGES = ("periodic", ("neumann", "dirichlet"))
POTENTIALS = {
    "dense": (lambda: ConvexDense((3,), 2, 8, n_layers=2, alpha=0.01, key=KEY), (2, 3)),
    "dense with a level": (lambda: ConvexDense((4,), 1, 8, alpha=0.02, code_range=(0.1, 0.5), key=KEY), (1, 4)),
    "1-D": (lambda: ConvexConv(2, 5, ndim=1, strides=(2, 1), window=2, readout_channels=4, key=KEY), (2, 7)),
    "2-D": (lambda: ConvexConv(1, 4, strides=(2,), readout_channels=4, beta=20, alpha=0.05, key=KEY), (1, 6, 5)),
    "edges": (lambda: ConvexConv(1, 3, boundary=EDGES, strides=(2, 1), beta=2, alpha=0.05, key=KEY), (1, 6, 5)),
    "functions": (lambda: ConvexIntegral((3, 2), 1, 4, dilations=(1, 2), boundary=MIXED, key=KEY), (1, 6, 4)),
}  # fmt: skip


def field(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def random_weights(psi, seed=0):
    """Every leaf drawn anew, the constrained ones of both signs before `project`."""
    leaves, structure = jax.tree.flatten(psi)
    rng = np.random.default_rng(seed)
    new = [jnp.asarray(rng.normal(size=x.shape) / np.sqrt(max(x.size / x.shape[-1], 1))) for x in leaves]
    return jax.tree.unflatten(structure, new)


def given(psi):
    return {"code": jnp.array([0.3])} if psi.keywords else {}


STEP = 1e-5


@functools.partial(jax.jit, compiler_options=FAST)
def both(op, ys, more):
    return jax.vmap(lambda y: (op.potential(y, **more), op(y, **more)))(ys)


def around(op, y, others=(), **more):
    """Potential and output at y and at the others, and by differences the slope of the potential and the Jacobian."""
    steps = STEP * jnp.eye(y.size).reshape(-1, *y.shape)
    values, outputs = both(op, jnp.concatenate([y + steps, y - steps, y[None], *(z[None] for z in others)]), more)
    n = y.size
    slope = (values[:n] - values[n : 2 * n]) / (2 * STEP)
    J = (outputs[:n] - outputs[n : 2 * n]).reshape(n, n) / (2 * STEP)
    return values[2 * n :], outputs[2 * n :], slope.reshape(y.shape), np.asarray(J)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "2-D")) for n in POTENTIALS])
def test_exact_properties_for_random_weights(name):
    """Gradient of the potential, symmetric Jacobian with eigenvalues of at least 2 alpha, strong monotonicity and
    convexity at midpoints."""
    make, shape = POTENTIALS[name]
    with jax.enable_x64(True):
        psi = random_weights(make()).project()
        op = LPN(psi)
        a, b = jnp.asarray(field(shape, 1)), jnp.asarray(field(shape, 2))
        (va, vb, vm), (fa, fb, _), slope, J = around(op, a, [b, (a + b) / 2], **given(psi))
        measure = op.measure(shape[1:])
        np.testing.assert_allclose(fa, slope / measure, rtol=1e-6, atol=1e-8)
        gap = jnp.sum((a - b) ** 2)
        assert jnp.sum((fa - fb) * (a - b)) >= 2 * psi.alpha * gap
        assert vm <= (va + vb) / 2 - psi.alpha / 4 * gap * measure * (1 - 1e-12)
        np.testing.assert_allclose(J, J.T, rtol=0, atol=1e-7 * np.abs(J).max())
        eigenvalues = np.linalg.eigvalsh(J)
        assert eigenvalues.min() >= 2 * psi.alpha - 1e-7
        assert eigenvalues.max() > 2.5 * psi.alpha  # the network is heard


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1-D", "functions"])
def test_the_output_is_what_autodiff_gives(name):
    """In value, in its derivatives in the weights, and in those of forward mode."""
    make, shape = POTENTIALS[name]
    with jax.enable_x64(True):
        op = LPN(random_weights(make()).project())
        y, v = jnp.asarray(field(shape, 1)), jnp.asarray(field(shape, 2))
        auto = lambda op, y: jax.grad(op.potential)(y) / op.measure(shape[1:])

        def everything(f):
            loss = lambda op, y: jnp.sum(jnp.sin(3 * f(op, y)))
            run = lambda op, y, v: (f(op, y), jax.grad(loss)(op, y), jax.jvp(lambda y: f(op, y), (y,), (v,))[1])
            return jax.tree.leaves(jax.jit(run, compiler_options=FAST)(op, y, v))

        for ours, theirs in zip(everything(lambda op, y: op(y)), everything(auto), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_negative_weight_is_seen():
    """The control: a hidden weight that is negative enough gives a negative eigenvalue, and `project` mends it."""
    with jax.enable_x64(True):
        psi = random_weights(POTENTIALS["dense"][0]()).project()
        # Its layer is nearly the identity there, so psi has minus a convex function in it.
        where = lambda p: (p.layers[2].main, p.layers[2].bias)
        bad = eqx.tree_at(where, psi, (-1 - psi.layers[2].main, psi.layers[2].bias + 20))
        y = jnp.asarray(field((2, 3), 1))
        assert np.linalg.eigvalsh(around(LPN(bad), y)[-1]).min() < -0.01
        assert np.linalg.eigvalsh(around(LPN(bad).project(), y)[-1]).min() > 0.0199


def test_single_precision():
    psi = jax.tree.map(lambda x: x.astype(jnp.float32), random_weights(POTENTIALS["dense"][0]()).project())
    y = jnp.asarray(field((2, 3)), jnp.float32)
    J = jax.jit(jax.jacfwd(LPN(psi)), compiler_options=FAST)(y).reshape(6, 6)
    assert J.dtype == np.float32
    assert np.abs(J - J.T).max() < 1e-5 * np.abs(J).max()


COUNTS = {"toy_1d": 10_502, "mnist": 317_056, "celeba": 7_235_713, "mayo_ct": 7_175_297}


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name):
    op = eqx.filter_eval_shape(lambda: LPN.paper(name, key=KEY))
    assert sum(x.size for x in jax.tree.leaves(op)) == COUNTS[name]
    assert (op.psi.beta, op.psi.alpha) == {"toy_1d": (10, 0), "mnist": (10, 0.01)}.get(name, (100, 1e-6))
    if name != "toy_1d":
        size = 28 if name == "mnist" else 128
        assert op.psi.grids((size, size))[-1] == op.psi.window
        shape = (op.psi.in_channels, size, size)
        assert jax.eval_shape(lambda op, y: op(y), op, jax.ShapeDtypeStruct(shape, jnp.float32)).shape == shape


def test_resizing_takes_the_middle_points():
    """Without antialiasing: against `jax.image.resize`, and the transpose against its inner products."""
    for grid, points in (((16, 12), (4, 6)), ((9, 7), (5, 4)), ((12,), (4,)), ((8, 8), (1, 8))):
        x = jnp.asarray(field((*grid, 2)), jnp.float32)
        way = resize(grid, points)
        expected = jax.image.resize(x, (*points, 2), "linear", antialias=False)
        np.testing.assert_allclose(way.apply(x), expected, rtol=1e-5, atol=1e-6)
        z = jnp.asarray(field((*points, 2), 1), jnp.float32)
        np.testing.assert_allclose(jnp.vdot(way.apply(x), z), jnp.vdot(x, way.transpose(z)), rtol=1e-4, atol=1e-5)


def quadratic(c):
    return jax.tree_util.Partial(half_square, jnp.asarray(c))  # one program for all c


def half_square(c, y):
    return c / 2 * jnp.sum(y**2)


def soft(y):
    return jnp.sum(jnp.maximum(jnp.abs(y) - 1, 0) ** 2) / 2


def test_closed_regularisers():
    """c |y|^2 / 2 gives R = (1 / c - 1) |x|^2 / 2; soft thresholding gives |x|, although it has no inverse at 0."""
    with jax.enable_x64(True):
        x = jnp.asarray(field((2, 5), 4))
        for c in (0.25, 1.0, 3.0):
            found = LPN(quadratic(c)).prior(x, rtol=1e-9)
            np.testing.assert_allclose(found.value, (1 / c - 1) / 2 * jnp.sum(x**2), rtol=1e-7, atol=1e-12)
            np.testing.assert_allclose(found.point, x / c, rtol=1e-7)
            assert found.residual < 1e-9
        op = LPN(soft)
        np.testing.assert_allclose(op(x), jnp.sign(x) * jnp.maximum(jnp.abs(x) - 1, 0), atol=1e-15)
        x = jnp.linspace(-3, 3, 13).reshape(-1, 1, 1)
        found = jax.vmap(op.prior)(x)
        np.testing.assert_allclose(found.value, np.abs(x.ravel()), atol=1e-4)
        assert found.value[6] == 0
        assert found.residual.max() < 1e-4


@pytest.mark.slow
def test_an_affine_shift():
    """psi + <b, y> gives f + b, and R(x - b) - <b, x> + |b|^2 / 2."""
    with jax.enable_x64(True):
        b, x = jnp.asarray(field((1, 3), 5)), jnp.asarray(field((1, 3), 6))
        moved = LPN(lambda y: half_square(0.5, y) + jnp.sum(b * y))
        plain = LPN(quadratic(0.5))
        np.testing.assert_allclose(moved(x), plain(x) + b, rtol=1e-14)
        expected = plain.prior(x - b, rtol=1e-10).value - jnp.sum(b * x) + jnp.sum(b * b) / 2
        np.testing.assert_allclose(moved.prior(x, rtol=1e-10).value, expected, rtol=1e-9)


@pytest.mark.parametrize("name", ["dense", pytest.param("functions", marks=pytest.mark.slow)])
def test_a_center(name):
    """psi(y - c) + <c, y> gives c + f(y - c), and R(x - c) up to a constant."""
    make, shape = POTENTIALS[name]
    with jax.enable_x64(True):
        psi, c = random_weights(make()).project(), 0.5
        moved, plain = LPN(psi, center=c), LPN(psi)
        ys = jnp.stack([jnp.asarray(field(shape, i)) for i in (5, 6)])
        xs = jax.vmap(moved)(ys)
        np.testing.assert_allclose(xs, c + jax.vmap(plain)(ys - c), rtol=1e-14)
        slope = jax.grad(moved.potential)(ys[0]) / moved.measure(shape[1:])
        np.testing.assert_allclose(slope, xs[0], rtol=1e-9)
        there = jax.vmap(lambda x: moved.prior(x, rtol=1e-9).value)(xs)
        here = jax.vmap(lambda x: plain.prior(x, rtol=1e-9).value)(xs - c)
        np.testing.assert_allclose(there[1] - there[0], here[1] - here[0], rtol=1e-7)
        assert moved.project().center == c
    twice = LPN(lambda y: jnp.sum(y**2), center=2.0)  # any convex function
    np.testing.assert_allclose(twice(jnp.full((1, 3), 5.0)), 2 + 2 * 3.0)
    np.testing.assert_allclose(jax.grad(twice.potential)(jnp.full((1, 3), 5.0)), 8.0)


def test_a_sparse_start():
    """Each unit takes one of the layer before; which one is drawn."""
    psi = ConvexConv(1, 8, strides=(1, 2), readout_channels=8, init="sparse", key=KEY)
    for layer in psi.layers[1:]:
        flat = layer.main.reshape(-1, 8)
        np.testing.assert_array_equal(np.sort(flat, axis=0)[-2:], [[0.0] * 8, [1.0] * 8])
        assert len(set(np.argmax(flat, axis=0).tolist())) > 2
    assert psi.readout.min() >= 0
    assert np.ptp(psi.readout) > 0


@pytest.mark.parametrize("name", ["dense", *(pytest.param(n, marks=pytest.mark.slow) for n in ("2-D", "functions"))])
def test_prior_of_random_networks(name):
    """f inverts, f(y) minimises R + |. - y|^2 / 2, and the gradient of R at f(y) is y - f(y)."""
    make, shape = POTENTIALS[name]
    with jax.enable_x64(True):
        op = LPN(random_weights(make()).project())
        y = jnp.asarray(field(shape, 7))
        x = op(y)
        rng, weight = np.random.default_rng(8), op.measure(shape[1:])
        near = [x, *(x + s * jnp.asarray(rng.normal(size=shape)) for s in (1e-3, 1e-2, 0.1))]
        e = jnp.asarray(rng.normal(size=shape))
        near += [x + 1e-4 * e, x - 1e-4 * e]
        found = jax.vmap(lambda x: op.prior(x, rtol=1e-9, max_steps=2000))(jnp.stack(near))
        assert found.residual.max() < 1e-8
        np.testing.assert_allclose(jax.vmap(op)(found.point), jnp.stack(near), rtol=0, atol=1e-6)
        objective = [float(R + weight * jnp.sum((z - y) ** 2) / 2) for R, z in zip(found.value, near, strict=True)]
        assert all(objective[0] < other for other in objective[1:])
        slope = (found.value[4] - found.value[5]) / 2e-4
        np.testing.assert_allclose(slope, weight * jnp.sum((y - x) * e), rtol=1e-4)
        np.testing.assert_allclose(found.point[0], y, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_prior_in_single_precision_and_its_gradients():
    """A batch with its residuals; derivatives in x and in the weights by the envelope theorem, against differences."""
    op = jax.tree.map(lambda x: x.astype(jnp.float32), LPN(random_weights(POTENTIALS["dense"][0]()).project()))
    y = jnp.asarray(field((3, 2, 3), 9), jnp.float32)
    x = jax.vmap(op)(y)
    found = jax.vmap(op.prior)(x)
    assert found.residual.max() < 1e-4
    np.testing.assert_allclose(jax.vmap(op)(found.point), x, rtol=0, atol=1e-4 * np.abs(x).max())
    with jax.enable_x64(True):
        op = LPN(random_weights(POTENTIALS["dense"][0]()).project())
        x = op(jnp.asarray(field((2, 3), 9)))
        value = lambda op, x: op.prior(x, rtol=1e-10).value
        by_op, by_x = jax.grad(value, argnums=(0, 1))(op, x)
        np.testing.assert_allclose(by_x, op.prior(x, rtol=1e-10).point - x, rtol=1e-12)
        step = 1e-5
        moved = [eqx.tree_at(lambda op: op.psi.readout, op, op.psi.readout + s * step) for s in (1, -1)]
        slope = (value(moved[0], x) - value(moved[1], x)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(by_op.psi.readout), slope, rtol=1e-5)


def test_outside_of_the_range_it_says_so():
    """Without alpha the network is bounded, and no y has f(y) = 100."""
    op = LPN.paper("toy_1d", key=KEY, hidden_channels=4)
    assert op.prior(jnp.full((1, 1), 100.0), max_steps=20).residual > 0.5


def test_a_level_is_heard():
    """An exact prox at each level (above), another one at another level; without effect at the start."""
    psi = POTENTIALS["dense with a level"][0]()
    y = jnp.asarray(field((1, 4)), jnp.float32)
    f = lambda psi, level: np.asarray(LPN(psi)(y, code=jnp.array([level])))
    np.testing.assert_array_equal(f(psi, 0.1), f(psi, 0.5))
    psi = jax.tree.map(lambda x: x.astype(jnp.float32), random_weights(psi).project())
    assert np.abs(f(psi, 0.1) - f(psi, 0.5)).max() > 0.01
    assert no.operator.keywords_of(LPN(psi)) == {"code"}
    assert no.operator.keywords_of(LPN(quadratic(1.0))) == set()


@pytest.mark.parametrize(
    ("grid", "patch", "stride"), [((7,), 4, 2), pytest.param((10, 7), (4, 6), (2, 2), marks=pytest.mark.slow)]
)
def test_patches_are_an_exact_gradient(grid, patch, stride):
    """Against the sum over all patches by hand: its potential and its gradient, at every point."""
    with jax.enable_x64(True):
        psi = ConvexDense(patch if len(grid) > 1 else (patch,), 1, 3, n_layers=1, alpha=0.1, key=KEY)
        op = LPN(random_weights(psi).project())
        whole = Patched(op, patch, stride, chunk_size=4)
        y = jnp.asarray(field((1, *grid)))
        p, s = whole.patch, whole.stride
        margin = [(n - m, 2 * n) for n, m in zip(p, s, strict=True)]
        wide = np.pad(np.asarray(y), [(0, 0), *margin])
        starts = [range(0, n + a - b, b) for n, a, b in zip(grid, p, s, strict=True)]
        places = np.stack([i.ravel() for i in np.meshgrid(*starts, indexing="ij")], -1)
        cut = lambda place: (slice(None), *(slice(i, i + n) for i, n in zip(place, p, strict=True)))
        patches = jnp.stack([wide[cut(place)] for place in places])
        counted, total = np.zeros(wide.shape), np.zeros(wide.shape)
        f = np.asarray(jax.vmap(op)(patches))
        for place, one in zip(places, f, strict=True):
            counted[cut(place)] += 1
            total[cut(place)] += one
        inside = (slice(None), *(slice(a, a + n) for (a, _), n in zip(margin, grid, strict=True)))
        coverage = np.prod([n // m for n, m in zip(p, s, strict=True)])
        assert (counted[inside] == coverage).all()
        value, slope = jax.jit(jax.value_and_grad(whole.potential), compiler_options=FAST)(y)
        np.testing.assert_allclose(value, jnp.sum(jax.vmap(op.potential)(patches)) / coverage, rtol=1e-12)
        np.testing.assert_allclose(whole(y), total[inside] / coverage, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(slope, whole(y), rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_the_prior_of_patches():
    """Patches of a quadratic are a quadratic."""
    with jax.enable_x64(True):
        op = Patched(LPN(ConvexDense(4, 1, 3, affine=False, alpha=0.25, key=KEY)), 4, 2)
        op = eqx.tree_at(lambda op: op.op.psi.readout, op, jnp.zeros(3))
        x = jnp.asarray(field((1, 7)))
        found = op.prior(x)
        np.testing.assert_allclose(found.value, (1 / 0.5 - 1) / 2 * jnp.sum(x**2), rtol=1e-6)


def test_hats_on_the_coarsest_grid_are_a_convolution():
    x, kernel = jnp.asarray(field((6, 5, 2)), jnp.float32), jnp.asarray(field((3, 3, 2, 4)), jnp.float32)
    found = hat_convolution(x, kernel, (1, 1), ("dirichlet", "dirichlet"))
    expected = convolve(x, kernel, (("zero", "zero"),) * 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    walls = convolve(x, kernel, (("even", "even"), ("wrap", "wrap")))
    found = hat_convolution(x, kernel, (1, 1), ("neumann", "periodic"))
    np.testing.assert_allclose(found, walls, rtol=1e-4, atol=1e-5)


def wave(n):
    x = 2 * np.pi * (np.arange(n) + 0.5) / n
    return jnp.asarray(np.cos(x) + 0.5 * np.cos(2 * x))[None]


def orders(found):
    """Of convergence, against the last, sixteen times as fine."""
    means = lambda x: np.asarray(x).reshape(8, -1).mean(1) if np.ndim(x) else x  # over cells, of order 2 like the rest
    errors = [np.abs(means(x) - means(found[-1])).max() for x in found[:-1]]
    assert errors[-1] > 1e-9  # not the same by chance
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


@pytest.mark.parametrize("boundary", ["neumann", pytest.param("periodic", marks=pytest.mark.slow)])
def test_a_potential_on_functions_converges(boundary):
    """Potential and output are of order 2."""
    with jax.enable_x64(True):
        psi = ConvexIntegral(
            8, 1, 4, dilations=(1, 2), boundary=boundary, domain_extent=2.0, beta=3, alpha=0.2, key=KEY
        )
        op = LPN(random_weights(psi).project())
        run = jax.jit(lambda op, y: (op.potential(y), op(y)), compiler_options=FAST)
        for found in zip(*(run(op, wave(n)) for n in (8, 16, 32, 128)), strict=True):
            assert (orders(found) > 1.8).all(), orders(found)


@pytest.mark.slow
def test_a_prior_on_functions_converges():
    """So is the regulariser: one that is learned on 32 points serves on 64."""
    with jax.enable_x64(True):
        op = LPN(random_weights(ConvexIntegral(8, 1, 4, dilations=(1, 2), beta=3, alpha=0.2, key=KEY)).project())
        found = [op.prior(wave(n), rtol=1e-10).value for n in (8, 16, 32, 128)]
        assert (orders(found) > 1.8).all(), orders(found)


def test_another_psi():
    """A module of floating arrays that is called is a potential too."""
    op = LPN(jax.tree_util.Partial(lambda c, y: jnp.sum(c * y**2) / 2, jnp.array([[2.0], [3.0]])))
    y = jnp.ones((2, 4))
    np.testing.assert_allclose(op(y), jnp.array([[2.0], [3.0]]) * y)
    np.testing.assert_allclose(op.potential(y), 10.0)
    assert not hasattr(op, "project")


OPTIMISERS = {
    "adam": (lambda: optax.adam(0.05), {}),
    "average": (lambda: optax.adam(0.05), {"average": 0.9}),
    "schedule-free": (lambda: optax.contrib.schedule_free_adamw(0.05), {}),
    "L-BFGS": (lambda: optax.lbfgs(), {}),
    "sgd": (lambda: optax.sgd(0.5, momentum=0.9, nesterov=True), {}),
}


@pytest.mark.parametrize("name", ["adam", *(pytest.param(n, marks=pytest.mark.slow) for n in list(OPTIMISERS)[1:])])
def test_no_constrained_weight_is_negative_after_fit(name):
    """In the operator, its iterate, the best one; the steps alone would have made some negative."""
    make, more = OPTIMISERS[name]
    x = np.random.default_rng(0).laplace(size=(64, 1, 1)).astype(np.float32)
    constrained = lambda op: [*(layer.main for layer in op.psi.layers[1:]), op.psi.readout]
    # from small weights, so that the few steps of L-BFGS reach zero too
    op = LPN(ConvexDense(1, 1, 8, n_layers=2, key=KEY))
    op = eqx.tree_at(constrained, op, [0.01 * w for w in constrained(op)])
    settings = {"num_epochs": 4, "batch_size": 32, "key": KEY, "progress": False, **more}
    objective = no.losses.denoising(no.losses.mse, noise=1.0)
    fitted, history = no.fit(op, x, objective=objective, optimizer=make(), **settings)
    for which in (fitted, history.iterate if more else fitted, history.best):
        weights = np.concatenate([np.ravel(w) for w in constrained(which)])
        assert weights.min() >= 0
        assert (weights == 0).any()  # some were clipped
        assert (weights > 0).any()
    free = lambda op: op.psi.layers[1].skip
    assert np.min(free(fitted)) < 0
    assert np.abs(free(fitted) - free(op)).max() > 1e-4
    if name == "schedule-free":  # the point at which it evaluates is projected by hand
        other = optax.contrib.schedule_free_eval_params(history.optimizer_state, fitted).project()
        assert min(float(w.min()) for w in constrained(other)) >= 0
