"""DeepONet and MultiONet against their formulas in NumPy, and what is promised of places, walls and unaligned data."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import losses
from neuralops.data import Samples, pad
from neuralops.nn import ConvEncoder, MLPEncoder, PointEncoder
from neuralops.nn.pointwise import ACTIVATIONS

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
run = jax.jit(lambda op, u, x: op(u, query=x))
silu = lambda x: x / (1 + np.exp(-x))
wave = lambda x: np.sin(np.pi * (x + 1))
CLOSED = {
    "tanh_sin": lambda x: np.tanh(wave(x)) + x,
    "silu_sin": lambda x: silu(wave(x)) + x,
    "silu_id": lambda x: silu(x) + x,
    "x_sin": lambda x: x * np.sin(x),
    "silu": silu,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sin": np.sin,
    "identity": lambda x: x,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "gelu": lambda x: x * np.array([0.5 * (1 + math.erf(t / math.sqrt(2))) for t in x]),
}


def draw(*shape, low=0.0):
    return RNG.uniform(low, 1, size=shape).astype(np.float32)


def weighted(op, seed=1):
    """With weights and offsets that do not start at zero."""
    rng = np.random.default_rng(seed)
    fields = lambda op: [x for x in (getattr(op, "weight", None), op.bias) if x is not None]
    return eqx.tree_at(fields, op, [jnp.asarray(rng.normal(size=x.shape), x.dtype) for x in fields(op)])


def by_hand(net, activation, x):
    """All layers of a network on the rows of x."""
    values = []
    for layer in net:
        x = CLOSED[activation](x @ np.asarray(layer.weight, np.float64).T + np.asarray(layer.bias, np.float64))
        values.append(x)
    return values


def multionet(op, v, x):
    """(outputs, points) from the vector v and the points x (points, ndim), by the formula."""
    branch = by_hand(op.branch, op.branch_activation, v[None])[-op.sum_layers :]
    trunk = by_hand(op.trunk, op.trunk_activation, x)[-op.sum_layers :]
    share = op.hidden_channels // op.out_channels
    out = np.zeros((op.out_channels, len(x)))
    for k, (b, t) in enumerate(zip(branch, trunk, strict=True)):
        for o in range(op.out_channels):
            units = slice(o * share, (o + 1) * share)
            out[o] += float(op.weight[k, o]) * np.einsum("h,nh->n", b[0, units], t[:, units])
    return out / op.sum_layers + np.asarray(op.bias)[:, None]


SMALL = {"sensors": 3, "in_channels": 1, "out_channels": 1, "hidden_channels": 4, "n_layers": 4, "sum_layers": 2}


def small(**changes):
    return weighted(no.MultiONet(**SMALL | changes, key=KEY))


# The networks themselves.


def test_counts_of_the_published_configurations():
    count = lambda make: sum(x.size for x in jax.tree.leaves(eqx.filter_eval_shape(make)))
    papers = {"width100_l5": 114_206, "width100_l4": 94_005, "width128_l4": 148_997, "x_variant": 101_887}
    for name, expected in papers.items():
        assert count(lambda name=name: no.MultiONet.paper(name, key=KEY)) == expected
    line = {"n_layers": 4, "domain": ((0, 1),), "key": KEY}
    assert count(lambda: no.DeepONet(128, 1, 1, 128, **line)) == 115_841
    assert count(lambda: no.MultiONet(128, 1, 1, 128, **line | {"n_layers": 4, "sum_layers": 3})) == 115_840 + 4
    assert count(lambda: ConvEncoder((29, 29), 1, 128, (128, 128), key=KEY)) == 140_416
    assert count(lambda: MLPEncoder((29, 29), 1, 128, (512, 256), key=KEY)) == 595_328
    assert count(lambda: MLPEncoder(128, 1, 128, (256, 128, 64), key=KEY)) == 82_496
    assert count(lambda: MLPEncoder(256, 1, 128, (256, 128), key=KEY)) == 115_200
    with pytest.raises(ValueError, match="name: expected one of"):
        no.MultiONet.paper("width7", key=KEY)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_their_closed_forms(name):
    x = np.linspace(-3, 3, 41)
    np.testing.assert_allclose(ACTIVATIONS[name](x.astype(np.float32)), CLOSED[name](x), rtol=2e-5, atol=2e-6)


def test_the_output_starts_at_zero_and_so_do_all_gradients_but_two():
    op = no.MultiONet(3, 1, 1, 4, n_layers=4, sum_layers=2, key=KEY)
    u, x = draw(1, 3), draw(2, 6)

    @jax.jit
    def step(op):
        return jax.value_and_grad(lambda op: jnp.sum((op(u, query=x) - 1) ** 2), has_aux=False)(op)

    value, gradient = step(op)
    assert value == 6  # of (0 - 1)^2 at six points
    for leaf in jax.tree.leaves((gradient.trunk, gradient.branch)):
        np.testing.assert_array_equal(leaf, 0)
    assert (np.abs(gradient.weight) > 1e-3).all()
    assert (np.abs(gradient.bias) > 1).all()


def test_one_output():
    op, v, x = small(trunk_activation="silu_sin", branch_activation="silu_id"), draw(3, low=-1), draw(2, 5)
    np.testing.assert_allclose(run(op, v[None], x), multionet(op, v, x.T), rtol=1e-5, atol=1e-6)


def test_several_outputs_have_units_of_their_own():
    op, v, x = small(out_channels=3, hidden_channels=6, in_channels=2), draw(6, low=-1), draw(2, 5)
    np.testing.assert_allclose(run(op, v.reshape(2, 3), x), multionet(op, v, x.T), rtol=1e-5, atol=1e-6)
    assert op.weight.shape == (2, 3)


def test_one_layer_is_a_deeponet_and_more_are_the_mean_of_such():
    op, v, x = small(sum_layers=3), draw(3, low=-1), draw(2, 5)
    ones = eqx.tree_at(lambda op: op.weight, op, jnp.ones((3, 1)))
    singles = []
    for layers in (2, 3, 4):  # a DeepONet that ends at each of the layers that are summed
        peer = no.DeepONet(3, 1, 1, 4, n_layers=layers, last_activation="tanh_sin", key=KEY)
        take = lambda op: (op.trunk, op.branch, op.bias)
        peer = eqx.tree_at(take, peer, (op.trunk[:layers], op.branch[:layers], op.bias))
        b, t = (by_hand(net[:layers], "tanh_sin", y)[-1] for net, y in ((op.branch, v[None]), (op.trunk, x.T)))
        singles.append(np.asarray(run(peer, v[None], x)))
        np.testing.assert_allclose(singles[-1][0], np.einsum("h,nh->n", b[0], t) + float(op.bias[0]), rtol=1e-5)
    np.testing.assert_allclose(run(ones, v[None], x), np.mean(singles, 0), rtol=1e-5)
    last = eqx.tree_at(lambda op: op.weight, small(sum_layers=1), jnp.ones((1, 1)))
    last = eqx.tree_at(lambda op: op.bias, last, op.bias)  # the same key: the same layers
    np.testing.assert_allclose(run(last, v[None], x), singles[-1], rtol=1e-6)


def test_the_ends_of_a_deeponet():
    v, x = draw(3, low=-1), draw(2, 5)
    op = weighted(no.DeepONet(3, 1, 2, 4, n_layers=3, branch_layers=2, trunk_activation="tanh", key=KEY))
    assert op.last_activation == ("tanh", "identity")
    trunk = by_hand(op.trunk, "tanh", x.T)[-1]
    first = by_hand(op.branch[:1], "tanh_sin", v[None])[0]
    branch = first @ np.asarray(op.branch[1].weight).T + np.asarray(op.branch[1].bias)
    expected = [trunk[:, s] @ branch[0, s] + float(op.bias[o]) for o, s in enumerate((slice(0, 2), slice(2, 4)))]
    np.testing.assert_allclose(run(op, v[None], x), expected, rtol=1e-5, atol=1e-6)
    front = MLPEncoder(3, 1, 4, (5,), key=KEY)
    whole = no.DeepONet(None, 1, 1, 4, n_layers=3, branch_layers=0, encoder=front, key=KEY)
    expected = by_hand(whole.trunk, "tanh_sin", x.T)[-1] @ front(v[None])[0]
    np.testing.assert_allclose(run(whole, v[None], x)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_variant_for_several_outputs(channels):
    """Every sensor through the branch by itself, one inner product for each, and a linear map to the outputs."""
    op = no.MultiONet(5, channels, 3, 4, n_layers=4, sum_layers=2, variant="x", key=KEY)
    u, x = draw(channels, 5, low=-1), draw(2, 6)
    branch = by_hand(op.branch, "tanh_sin", u.T)[-2:]  # (sensors, width)
    trunk = by_hand(op.trunk, "tanh_sin", x.T)[-2:]
    inner = sum(np.einsum("nh,mh->nm", t, b) for t, b in zip(trunk, branch, strict=True)) / 2
    expected = inner @ np.asarray(op.head.weight).T + np.asarray(op.head.bias)
    np.testing.assert_allclose(run(op, u, x), expected.T, rtol=1e-5, atol=1e-6)


# Places.


def test_common_points_are_each_sample_s_own_and_cost_one_trunk():
    op, u, x = small(hidden_channels=5), draw(7, 1, 3), draw(2, 11)
    shared = lambda u, x: jax.vmap(lambda u: op(u, query=x))(u)
    own = lambda u, x: jax.vmap(lambda u, x: op(u, query=x))(u, x)
    repeated = np.repeat(x[None], 7, 0)
    np.testing.assert_allclose(jax.jit(shared)(u, x), jax.jit(own)(u, repeated), rtol=1e-5, atol=1e-6)

    def products(function, *args):  # by the sizes of what they make
        return [
            math.prod(e.outvars[0].aval.shape)
            for e in jax.make_jaxpr(function)(*args).jaxpr.eqns
            if e.primitive.name == "dot_general"
        ]

    assert products(shared, u, x).count(11 * 5) == 4  # four layers of the trunk, at 11 points
    assert products(own, u, repeated).count(7 * 11 * 5) == 4
    assert max(products(shared, u, x)) == 7 * 11  # the inner products alone see samples and points


def test_derivatives_at_points_are_those_of_finite_differences(x64):
    op = jax.tree.map(lambda p: p.astype(jnp.float64), small(factor="both", lift=lambda x: x[0] ** 2))
    u, x, h = jnp.asarray(draw(1, 3), jnp.float64), jnp.asarray(0.1 + 0.8 * draw(2, 5), jnp.float64), 1e-5
    along = jnp.stack([jnp.ones(5), jnp.zeros(5)])

    @jax.jit
    def slopes(op):
        code = op.encode(u)
        value = lambda x: op.decode(code, x)
        slope = lambda x: jax.jvp(value, (x,), (along,))[1]
        differences = [(f(x + h * along) - f(x - h * along)) / (2 * h) for f in (value, slope)]
        return slope(x), jax.jvp(slope, (x,), (along,))[1], *differences

    first, second, by_value, by_slope = slopes(op)
    np.testing.assert_allclose(first, by_value, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(second, by_slope, rtol=1e-7, atol=1e-7)
    assert float(jnp.min(jnp.abs(second))) > 1e-3


def test_factor_and_lift_are_exact_at_the_walls():
    u, s = draw(1, 3), np.linspace(0, 1, 9, dtype=np.float32)
    domain = ((-1.0, 1.0), (0.0, 3.0))
    op = small(factor=("both", "low"), domain=domain)
    left, right, bottom, top, centre = (
        run(op, u, jnp.stack([jnp.broadcast_to(jnp.float32(v), 9) for v in ends]))
        for ends in ((-1, 3 * s), (1, 3 * s), (2 * s - 1, 0), (2 * s - 1, 3), (0, 3))
    )
    for wall in (left, right, bottom):
        np.testing.assert_allclose(wall, 0, atol=1e-6)
    assert np.abs(top[0, 1:-1]).min() > 1e-3  # free there
    free = small(domain=domain)
    np.testing.assert_allclose(centre, run(free, u, jnp.asarray([[0.0], [3.0]]))[:, :1].repeat(9, 1), rtol=1e-5)
    x = np.stack([2 * s - 1, 3 * s[::-1]])
    for word, profile in (("both", np.sin(np.pi * s)), ("low", np.sin(np.pi * s / 2)), ("high", np.cos(np.pi * s / 2))):
        got = run(small(factor=(word, None), domain=domain), u, x)
        np.testing.assert_allclose(got, run(free, u, x) * profile, rtol=1e-5, atol=1e-6)
    lifted = small(factor=lambda x: (1 - x[0]) * (1 + x[0]), lift=lambda x: 2 + x[1], domain=domain)
    walls = run(lifted, u, np.stack([np.where(s > 0.5, 1, -1), 3 * s]).astype(np.float32))
    np.testing.assert_array_equal(walls[0], 2 + 3 * s)


@pytest.mark.parametrize("chunk", [1, 4, 12, 50])
def test_chunks_change_nothing(chunk):
    u, x = draw(1, 3), draw(2, 3, 4)
    whole, parts = small(out_channels=2, factor="both"), small(out_channels=2, factor="both", chunk_size=chunk)
    out = run(whole, u, x)
    assert out.shape == (2, 3, 4)
    np.testing.assert_allclose(run(parts, u, x), out, rtol=1e-5, atol=1e-7)
    batched = jax.jit(jax.vmap(lambda u: parts(u, query=x)))(jnp.stack([u, 2 * u]))
    np.testing.assert_allclose(batched[0], out, rtol=1e-5, atol=1e-7)


def test_encode_and_decode_are_the_call_and_a_grid_is_its_own_query():
    grid = no.Grid((3, 4), (1.0, 2.0), boundary="dirichlet", centering="cell")
    op = small(sensors=grid)
    u = draw(1, 3, 4)
    code = jax.jit(op.encode)(u)
    whole = jax.jit(op)(u)
    np.testing.assert_allclose(jax.jit(op.decode)(code), whole, rtol=1e-6)
    np.testing.assert_allclose(run(op, u, grid.coordinates().astype(np.float32)), whole, rtol=1e-5, atol=1e-6)
    expected = multionet(op, u.reshape(-1), np.reshape(grid.coordinates(), (2, -1)).T)
    np.testing.assert_allclose(whole.reshape(1, -1), expected, rtol=1e-5, atol=1e-6)
    assert op.domain == ((0.0, 1.0), (0.0, 2.0))


def test_a_point_encoder_tends_to_an_integral():
    """The same function at the centres of finer and finer cells: codes converge, at the order of the midpoint rule."""
    op = PointEncoder(1, 3, (8,), key=KEY)
    code = jax.jit(lambda u, x: op(u, coords=x))
    codes = []
    for n in (4, 8, 16, 32):
        x, y = np.meshgrid(*[(np.arange(n) + 0.5) / n] * 2, indexing="ij")
        points, u = np.stack([x, y]).reshape(2, -1), (np.sin(3 * x) * np.cos(2 * y)).reshape(1, -1)
        order = RNG.permutation(n * n)
        codes.append(np.asarray(code(u[:, order].astype(np.float32), points[:, order].astype(np.float32))))
    steps = [np.abs(b - a).max() for a, b in itertools.pairwise(codes)]
    assert steps[0] > 1e-5
    assert steps[0] / steps[1] > 3.5
    padded = np.concatenate([u, np.full((1, 7), 1e9)], 1), np.concatenate([points, np.full((2, 7), np.nan)], 1)
    mask = np.arange(n * n + 7) < n * n
    same = jax.jit(lambda u, x: op(u, coords=x, mask=mask))(*(a.astype(np.float32) for a in padded))
    np.testing.assert_allclose(same, codes[-1], rtol=1e-5, atol=1e-6)


# Unaligned data, files, mistakes.


@pytest.fixture(scope="module")
def clouds():
    """u(x) = a sin(pi x) at points that differ in number and place; a is read at three sensors."""
    rng = np.random.default_rng(4)
    a = rng.uniform(0.5, 1.5, size=16).astype(np.float32)
    query = [rng.uniform(size=(1, rng.integers(4, 9))).astype(np.float32) for _ in a]
    outputs = [x * np.sin(np.pi * q) for x, q in zip(a, query, strict=True)]
    return pad([np.full((1, 3), x, np.float32) for x in a], outputs, query=query)


def test_training_on_unaligned_data(clouds):
    assert clouds.query_mask.sum(1).min() < clouds.query_mask.sum(1).max()
    op = no.MultiONet(3, 1, 1, 16, n_layers=3, sum_layers=2, domain=((0, 1),), key=KEY)
    options = {"loss": losses.l2(), "optimizer": optax.adam(1e-2), "num_epochs": 60, "batch_size": 8, "key": KEY}
    runs = []
    for held in (0.0, 0.5):  # what is held in the padding
        inside = clouds.query_mask[:, None]
        data = Samples(
            clouds.inputs,
            np.where(inside, clouds.outputs, 1e6 * held),
            mask=clouds.mask,
            query=np.where(inside, clouds.query, np.nan if held else 0),
            query_mask=clouds.query_mask,
        )
        runs.append(no.fit(op, data, progress=False, **options))
    (trained, history), (again, same) = runs
    np.testing.assert_array_equal(history.loss, same.loss)
    for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert history.loss[0] > 0.5
    assert history.loss[-1] < 0.1
    x = np.linspace(0, 1, 33, dtype=np.float32)[None]  # judged where nothing was measured
    grid = Samples(np.full((1, 1, 3), 1.2, np.float32), 1.2 * np.sin(np.pi * x)[None], query=x)
    assert no.evaluate(trained, grid)["relative_l2"][0] < 0.1


def test_files_keep_an_operator_with_its_encoder(tmp_path):
    grid = no.Grid((7, 9), boundary="dirichlet", centering="cell")
    front = ConvEncoder((7, 9), 1, 5, (6,), conv_channels=(3,), kernel_size=5, last_activation="tanh", key=KEY)
    op, u, x = small(sensors=grid, encoder=front, factor=("both", None)), draw(1, 7, 9), draw(2, 4)
    no.save(tmp_path / "op.safetensors", op)
    again = no.load(tmp_path / "op.safetensors")
    assert jax.tree.structure(again) == jax.tree.structure(op)
    np.testing.assert_array_equal(run(again, u, x), run(op, u, x))


SQUARE = np.full((2, 4), 0.5, np.float32)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda op: op(draw(1, 3), query=2 * SQUARE + 0.5), "query: .* between 0.0 and 1.0 on axis 0, got 1.5 to 1.5"),
        (lambda op: op(draw(1, 3), query=SQUARE * [[1], [np.nan]]), "query: .* got NaN on axis 1"),
        (lambda op: op(draw(1, 3), query=SQUARE.T), r"query: .*got shape \(4, 2\); .*use points.T"),
        (lambda op: op(draw(1, 3), query=SQUARE[0]), r"query: .*got shape \(4,\)"),
        (lambda op: op(draw(1, 3), query=SQUARE[:, :0]), r"query: .*got shape \(2, 0\)"),
        (lambda op: op(draw(1, 3)), "query: .* got none; give"),
        (lambda op: op(draw(1, 4), query=SQUARE), r"u: .*locked to the sensors \(3,\)"),
        (lambda op: op(draw(2, 3), query=SQUARE), "expects 1 channel"),
        (lambda op: op(draw(3), query=SQUARE), "u: "),
        (lambda op: op(draw(1, 3), query=SQUARE, coords=SQUARE), "coords: expected None, because this MultiONet reads"),
        (lambda op: op(draw(1, 3), query=SQUARE, mask=np.ones(3, bool)), "mask: expected None"),
        (lambda op: no.at(op, coords=SQUARE), "coords: expected one of the extra inputs"),
    ],
)
def test_wrong_calls(call, told):
    with pytest.raises(ValueError, match=told):
        call(small())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sum_layers": 4}, "sum_layers: expected fewer than the 4 layers"),
        ({"sum_layers": 0}, "sum_layers: expected a positive integer"),
        ({"out_channels": 3}, "hidden_channels: expected a multiple of the 3 outputs"),
        ({"hidden_channels": (4, 4)}, "hidden_channels: expected one width"),
        ({"trunk_activation": "Tanh_Sin"}, "activation: expected one of"),
        ({"variant": "y"}, "variant: expected one of"),
        ({"sensors": None}, "sensors: expected the points of the input"),
        ({"sensors": 0}, "sensors: expected a positive integer"),
        ({"domain": ((1, 0),)}, "domain: expected finite pairs low < high"),
        ({"domain": (0, 1)}, r"domain: expected pairs \(low, high\)"),
        ({"factor": "left"}, "factor: expected one of"),
        ({"lift": 1.0}, "lift: expected a function"),
        ({"chunk_size": 0}, "chunk_size: expected a positive integer"),
        ({"encoder": lambda u: u}, "encoder: expected an operator from 1 channel"),
        ({"encoder": "front"}, "encoder: expected an operator from 1 channel"),
    ],
)
def test_wrong_arguments(changes, told):
    with pytest.raises(ValueError, match=told) as error:
        small(**changes)
    assert ";" in str(error.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: no.DeepONet(3, 1, 1, 4, branch_layers=0, key=KEY), "branch_layers: expected 0 only with an encoder"),
        (lambda: no.DeepONet(3, 1, 3, 4, key=KEY), "hidden_channels: expected a multiple of the 3"),
        (lambda: no.DeepONet(3, 1, 1, 4, last_activation=("tanh",), key=KEY), "last_activation: expected a name or a"),
        (lambda: no.DeepONet(3, 1, 1, 4, last_activation="Tanh", key=KEY), "activation: expected one of"),
        (lambda: MLPEncoder(3, 1, 4, 5, key=KEY), "hidden_channels: expected widths of layers"),
        (lambda: ConvEncoder(5, 1, 4, (), key=KEY), "conv_channels: expected few enough"),
        (lambda: ConvEncoder(9, 1, 4, (), conv_channels=(), key=KEY), "conv_channels: expected widths"),
        (lambda: ConvEncoder(9, 1, 4, (), conv_channels=(2,), stride=0, key=KEY), "stride: expected a positive"),
        (lambda: PointEncoder(1, 4, (), key=KEY), "hidden_channels: expected widths of layers"),
        (lambda: PointEncoder(1, 4, (3,), key=KEY)(np.ones((1, 5), np.float32)), "coords: PointEncoder expects"),
        (
            lambda: PointEncoder(1, 4, (3,), key=KEY)(np.ones((1, 5), np.float32), coords=np.ones((5, 2), np.float32)),
            r"coords: PointEncoder expects \(2, points\) = \(2, 5\) beside u, got shape \(5, 2\)",
        ),
        (lambda: MLPEncoder(3, 1, 4, (5,), key=KEY)(np.ones((1, 4), np.float32)), "locked to the sensors"),
    ],
)
def test_other_wrong_arguments(make, told):
    with pytest.raises(ValueError, match=told):
        make()
