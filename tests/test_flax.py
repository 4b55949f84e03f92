"""Flax and back: values to the bit, the same losses in every dress, and foreign networks as operators."""

import subprocess
import sys

import equinox as eqx
import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from neuralops.checkpoint import load, save
from neuralops.data import Normalized, Normalizer
from neuralops.grid import Grid
from neuralops.interop.flax import NNXNetwork, from_linen, from_nnx, to_linen, to_nnx
from neuralops.models import FNO
from neuralops.operator import AbstractOperator, Envelope, as_pair, named_leaves
from neuralops.solvers import CG, Diffusion, FastPoisson, solve
from neuralops.training import evaluate, fit
from neuralops.training.losses import relative_l2

TINY = {"n_modes": (4, 4), "in_channels": 1, "out_channels": 2, "hidden_channels": 4, "n_layers": 1}
STEPS = 5


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture
def op(getkey):
    return FNO(**TINY, key=getkey())


@pytest.fixture
def u(getkey):
    return jax.random.normal(getkey(), (1, 8, 8))


def batches(key, out_channels=2, samples=4):
    keys = jax.random.split(key)
    inputs = jax.random.normal(keys[0], (samples, 1, 8, 8))
    return inputs, jax.random.normal(keys[1], (samples, out_channels, 8, 8))


def mean_loss(call, inputs, outputs):
    return jnp.mean(jax.vmap(lambda a, b: relative_l2(call(a), b))(inputs, outputs))


class NNXPointwise(nnx.Module):
    """Two channel mixes on channels-last arrays of any rank; `traces` counts the Python calls."""

    traces = 0

    def __init__(self, channels_out=2, *, rngs, tied=False):
        self.layers = nnx.List([nnx.Linear(1, 3, rngs=rngs), nnx.Linear(3, channels_out, rngs=rngs)])
        self.tied = self.layers[0] if tied else None

    def __call__(self, x, *, negate=False):
        type(self).traces += 1
        x = self.layers[1](jnp.tanh((self.tied or self.layers[0])(x)))
        return -x if negate else x


class LinenPointwise(nn.Module):
    features: tuple = (3, 2)

    @nn.compact
    def __call__(self, x, *, negate=False):
        for i, width in enumerate(self.features):
            x = nn.Dense(width)(jnp.tanh(x) if i else x)
        return -x if negate else x


def by_hand(kernels, u):
    """The same two mixes in NumPy, channels first."""
    (w0, b0), (w1, b1) = [(np.asarray(w, np.float64), np.asarray(b, np.float64)) for w, b in kernels]
    x = np.moveaxis(np.asarray(u, np.float64), 0, -1)
    return np.moveaxis(np.tanh(x @ w0 + b0) @ w1 + b1, -1, 0)


# Operators as Flax modules


@pytest.mark.parametrize(
    "changes", [{}, {"factorization": "tucker", "rank": 0.5, "norm": "group_norm", "checkpoint_blocks": True}]
)
def test_nnx_and_back_to_the_bit(getkey, u, changes):
    op = FNO(**TINY, **changes, key=getkey())
    module, run = to_nnx(op), jax.jit(lambda call, u: call(u))
    assert_same(from_nnx(module), op)
    np.testing.assert_array_equal(run(module, u), run(op, u))
    np.testing.assert_array_equal(run(nnx.merge(*nnx.split(module)), u), run(op, u))
    assert_same(from_nnx(nnx.merge(*nnx.split(module))), op)
    assert_same(from_nnx(jax.tree.map(lambda x: x, module)), op)  # as a plain pytree


def test_one_param_per_leaf_with_the_name_of_the_leaf(op):
    state = nnx.to_flat_state(nnx.state(to_nnx(op), nnx.Param))
    names = {".".join(map(str, path)): x for path, x in state}
    assert set(names) == {f"params.{name}" for name in named_leaves(op)}
    assert "params.blocks.0.spectral.weight.core" in names
    assert all(type(x) is nnx.Param for x in names.values())
    assert not jax.tree.leaves(nnx.state(to_nnx(op), nnx.Not(nnx.Param)))  # nothing else is state


def test_nnx_under_every_transformation(op, getkey):
    module, inputs = to_nnx(op), batches(getkey())[0]
    batched = lambda m, x: jax.vmap(m)(x)
    truth = jax.jit(batched)(op, inputs)
    np.testing.assert_array_equal(jax.jit(batched)(module, inputs), truth)
    np.testing.assert_array_equal(nnx.jit(batched)(module, inputs), truth)
    for got in (jax.jit(jax.vmap(module))(inputs)[0], jax.jit(module)(inputs[0], key=jax.random.key(0))):
        np.testing.assert_allclose(got, truth[0], rtol=2e-5, atol=2e-6)
    energy = lambda m, u: jnp.sum(m(u) ** 2)
    want = jax.jit(jax.grad(energy))(op, inputs[0])
    assert_same(jax.jit(jax.grad(energy))(module, inputs[0]).operator, want)
    state = nnx.jit(nnx.grad(energy))(module, inputs[0])
    got = {".".join(map(str, path[1:])): x.get_value() for path, x in nnx.to_flat_state(state)}
    assert_same(got, named_leaves(want))


def test_training_the_module_leaves_the_operator_alone(op, u):
    module, before = to_nnx(op), jax.tree.map(jnp.copy, op)
    optimizer = nnx.Optimizer(module, optax.sgd(0.1), wrt=nnx.Param)
    optimizer.update(module, nnx.jit(nnx.grad(lambda m: jnp.sum(m(u) ** 2)))(module))
    assert_same(op, before)
    assert not np.array_equal(from_nnx(module).lifting.first.weight, op.lifting.first.weight)


def test_linen_parameters_are_those_of_the_pair(u):
    key = jax.random.key(5)
    module, pair = to_linen(FNO, **TINY), as_pair(FNO, **TINY)
    variables = module.init(key, u)
    assert set(variables) == {"params"}
    assert_same(dict(variables["params"]), pair.init(key))
    op = FNO(**TINY, key=key)
    for params in (variables["params"], variables, flax.core.freeze(variables), named_leaves(op)):
        assert_same(from_linen(module, params), op)
    np.testing.assert_array_equal(module.apply(variables, u), op(u))
    np.testing.assert_array_equal(module.apply(variables, u, key=key), pair.apply(variables["params"], u))
    shapes = jax.eval_shape(module.init, key, u)["params"]  # and without allocating anything
    assert {name: x.shape for name, x in shapes.items()} == {n: x.shape for n, x in variables["params"].items()}


def test_linen_parameters_through_serialization(u):
    module = to_linen(FNO, **TINY)
    variables, other = module.init(jax.random.key(1), u), module.init(jax.random.key(2), u)
    back = flax.serialization.from_bytes(other, flax.serialization.to_bytes(variables))
    assert_same(from_linen(module, back), from_linen(module, variables))


def test_linen_inside_a_linen_network(u):
    class Corrected(nn.Module):
        base: nn.Module

        @nn.compact
        def __call__(self, u):
            mix = nn.Dense(2, name="mix")
            return jnp.moveaxis(mix(jnp.moveaxis(self.base(u), 0, -1)), -1, 0)

    module = Corrected(to_linen(FNO, **TINY))
    variables = module.init(jax.random.key(3), u)
    inner = from_linen(to_linen(FNO, **TINY), variables["params"]["base"])
    want = np.tensordot(np.asarray(variables["params"]["mix"]["kernel"]).T, np.asarray(inner(u)), 1)
    np.testing.assert_allclose(module.apply(variables, u), want, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(from_linen(module, variables)(u), module.apply(variables, u))


def test_linen_refuses_arrays_of_another_structure(u):
    module = to_linen(FNO, **TINY)
    params = dict(module.init(jax.random.key(1), u)["params"])
    with pytest.raises(ValueError, match=r"skip\.weight should have shape"):
        from_linen(module, params | {"blocks.0.skip.weight": jnp.ones((3, 3))})
    params.pop("blocks.0.skip.weight")
    with pytest.raises(ValueError, match="missing"):
        from_linen(module, params)
    with pytest.raises(flax.errors.FlaxError):  # Flax itself, at apply
        module.apply({"params": params}, u)


# The same training in four dresses


@pytest.mark.slow
def test_four_training_loops_give_the_same_losses(getkey, x64):
    key, optimizer = jax.random.key(11), optax.adam(1e-2)
    config = {**TINY, "n_modes": (4,)}  # one dimension compiles fastest
    inputs, outputs = (x[..., 0] for x in batches(getkey()))
    losses = {}

    model = to_nnx(FNO(**config, key=key))
    nnx_optimizer = nnx.Optimizer(model, optimizer, wrt=nnx.Param)

    @nnx.jit
    def nnx_step(model, optimizer):
        value, grads = nnx.value_and_grad(lambda m: mean_loss(m, inputs, outputs))(model)
        optimizer.update(model, grads)
        return value

    losses["nnx"] = [float(nnx_step(model, nnx_optimizer)) for _ in range(STEPS)]

    linen = to_linen(FNO, **config)
    state = TrainState.create(apply_fn=linen.apply, params=linen.init(key, inputs[0])["params"], tx=optimizer)

    @jax.jit
    def linen_step(state):
        value, grads = jax.value_and_grad(
            lambda params: mean_loss(lambda u: state.apply_fn({"params": params}, u), inputs, outputs)
        )(state.params)
        return state.apply_gradients(grads=grads), value

    losses["linen"] = []
    for _ in range(STEPS):
        state, value = linen_step(state)
        losses["linen"].append(float(value))

    init, apply = as_pair(FNO, **config)
    params = init(key)
    opt_state = optimizer.init(params)

    @jax.jit
    def pair_step(params, opt_state):
        value, grads = jax.value_and_grad(lambda p: mean_loss(lambda u: apply(p, u), inputs, outputs))(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    losses["pair"] = []
    for _ in range(STEPS):
        params, opt_state, value = pair_step(params, opt_state)
        losses["pair"].append(float(value))

    fitted, history = fit(
        FNO(**config, key=key), (inputs, outputs), loss=relative_l2, optimizer=optimizer, num_epochs=STEPS,
        batch_size=len(inputs), key=getkey(), progress=False,
    )  # fmt: skip
    assert history.loss[-1] < history.loss[0] - 1e-3
    for name, values in losses.items():
        np.testing.assert_allclose(values, history.loss, rtol=1e-10, err_msg=name)
    for other in (from_nnx(model), from_linen(linen, state.params)):
        for name, x in named_leaves(other).items():
            np.testing.assert_allclose(x, named_leaves(fitted)[name], rtol=1e-6, atol=1e-9, err_msg=name)


class Counting(AbstractOperator):
    """Multiplies by a number and counts how often Python runs it, which is once per trace."""

    scale: jax.Array
    traces = []  # noqa: RUF012

    def __init__(self, *, key):
        self.scale = jax.random.normal(key, ())

    @property
    def envelope(self):
        return Envelope((1, 2, 3), ("periodic",), "exact")

    def __call__(self, u, /, *, key=None):
        self.traces.append(u.shape)
        return self.scale * u


def test_a_second_batch_compiles_nothing(getkey):
    shape = (4, 1, 8, 8)

    def runs(step, state):
        for i in range(3):
            if i == 1:
                Counting.traces.clear()
            state = step(state, jax.random.normal(getkey(), shape))
        assert Counting.traces == []

    model = to_nnx(Counting(key=getkey()))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def nnx_step(model, optimizer, batch):
        optimizer.update(model, nnx.grad(lambda m: jnp.mean(jax.vmap(m)(batch) ** 2))(model))

    runs(lambda _, batch: nnx_step(model, optimizer, batch), None)
    plain = jax.jit(lambda model, batch: jax.tree.map(lambda x: 0.9 * x, (model, jax.vmap(model)(batch)))[0])
    runs(plain, model)
    linen = to_linen(Counting)
    update = jax.jit(lambda p, batch: jax.tree.map(
        lambda x, g: x - 0.1 * g, p, jax.grad(lambda p: jnp.mean(jax.vmap(lambda u: linen.apply(p, u))(batch)))(p)
    ))  # fmt: skip
    runs(update, linen.init(getkey(), jnp.ones(shape[1:])))
    network = from_nnx(NNXPointwise(rngs=nnx.Rngs(0)), channels_last=True)
    step = jax.jit(lambda op, batch: jax.tree.map(lambda p: 0.9 * p, op) if jax.vmap(op)(batch).ndim else op)
    network = step(network, jnp.ones(shape))
    count = NNXPointwise.traces
    network = step(network, 2 * jnp.ones(shape))
    step(from_nnx(network.module, channels_last=True), jnp.ones(shape))  # equal structure, taken apart again
    assert NNXPointwise.traces == count


# Foreign networks as operators


@pytest.fixture(params=["nnx", "linen"])
def network(request, u):
    """A foreign network as an operator, and the same function in NumPy."""
    if request.param == "nnx":
        op = from_nnx(NNXPointwise(rngs=nnx.Rngs(0)), channels_last=True)
        p = op.params
        return op, [(p[f"layers.{i}.kernel"], p[f"layers.{i}.bias"]) for i in range(2)]
    module = LinenPointwise()
    op = from_linen(module, module.init(jax.random.key(0), jnp.moveaxis(u, 0, -1)), channels_last=True)
    return op, [(op.params[f"Dense_{i}"]["kernel"], op.params[f"Dense_{i}"]["bias"]) for i in range(2)]


def test_a_foreign_network_keeps_the_contract_of_operators(network, u, getkey):
    op, kernels = network
    truth = by_hand(kernels, u)
    assert isinstance(op, AbstractOperator)
    np.testing.assert_allclose(op(u), truth, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.jit(op)(u), truth, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(op)(jnp.stack([u, 2 * u]))[0], truth, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.checkpoint(op)(u), truth, rtol=1e-5, atol=1e-6)
    assert all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(op))
    assert set(named_leaves(op)) in (
        {f"params.layers.{i}.{n}" for i in (0, 1) for n in ("kernel", "bias")},
        {f"params.Dense_{i}.{n}" for i in (0, 1) for n in ("kernel", "bias")},
    )
    grad = jax.grad(lambda op: jnp.sum(op(u) ** 2))(op)
    step = optax.apply_updates(op, jax.tree.map(lambda g: -1e-3 * g, grad))
    assert jnp.sum(step(u) ** 2) < jnp.sum(op(u) ** 2)
    _, values = jax.lax.scan(lambda op, _: (jax.tree.map(lambda x: 0.5 * x, op), op(u)), op, None, length=2)
    np.testing.assert_allclose(values[0], truth, rtol=1e-5, atol=1e-6)


def test_fit_evaluate_and_save_take_a_foreign_network(network, getkey, tmp_path):
    op, _ = network
    data = batches(getkey())
    fitted, history = fit(op, data, loss=relative_l2, optimizer=optax.adam(1e-2), num_epochs=3, batch_size=2,
                          key=getkey(), progress=False, checkpoint=tmp_path / "run")  # fmt: skip
    assert history.loss[-1] < history.loss[0]
    errors = evaluate(fitted, data, metrics=(relative_l2,))["relative_l2"]
    want = [np.linalg.norm(fitted(a) - b) / np.linalg.norm(b) for a, b in zip(*data, strict=True)]
    np.testing.assert_allclose(errors, want, rtol=1e-5)
    if isinstance(fitted, NNXNetwork):  # the network with the fitted values, in its own layout
        back = jnp.moveaxis(fitted.module(jnp.moveaxis(data[0][0], 0, -1)), -1, 0)
    else:
        back = jnp.moveaxis(fitted.module.apply({"params": fitted.params}, jnp.moveaxis(data[0][0], 0, -1)), -1, 0)
    np.testing.assert_allclose(back, fitted(data[0][0]), rtol=1e-6)

    save(tmp_path / "network.safetensors", fitted)
    assert_same(load(tmp_path / "network.safetensors", like=op), fitted)
    with pytest.raises(ValueError, match=r"load\(path, like=op\)"):
        load(tmp_path / "network.safetensors")


def test_a_cheap_skeleton_for_load(tmp_path):
    op = from_nnx(NNXPointwise(rngs=nnx.Rngs(4)), channels_last=True)
    save(tmp_path / "a.safetensors", op)
    shapes = nnx.eval_shape(lambda: NNXPointwise(rngs=nnx.Rngs(0)))
    assert_same(load(tmp_path / "a.safetensors", like=from_nnx(shapes, channels_last=True)), op)


def test_an_operator_from_flax_is_saved_whole(tmp_path, op, u):
    module = to_linen(FNO, **TINY)
    for got in (from_nnx(to_nnx(op)), from_linen(module, named_leaves(op))):
        save(tmp_path / "fno.safetensors", got)
        assert_same(load(tmp_path / "fno.safetensors"), op)  # no `like` needed: it is the operator itself


def test_solve_takes_a_foreign_network():
    grid = Grid(12, boundary="dirichlet")
    A = Diffusion(grid)
    b = A.load(jnp.sin(3 * grid.points(0))[None])
    truth = FastPoisson(grid)(b)
    # A network that is linear, symmetric and positive definite: the field as channels, times the inverse matrix.
    inverse = jnp.linalg.inv(jax.vmap(lambda e: A(e[None])[0])(jnp.eye(12)))
    linear = nnx.Linear(12, 12, use_bias=False, rngs=nnx.Rngs(0))
    linear.kernel[...] = inverse
    flax_inverse = from_nnx(linear)
    linen_inverse = from_linen(nn.Dense(12, use_bias=False), {"kernel": inverse})
    np.testing.assert_allclose(solve(A, b, linen_inverse).value, truth, rtol=1e-3, atol=1e-5)
    guided = solve(A, b, CG(rtol=1e-5, preconditioner=flax_inverse))
    assert guided.converged
    assert int(guided.num_steps) <= 3 < int(solve(A, b, CG(rtol=1e-5)).num_steps)
    np.testing.assert_allclose(guided.value, truth, rtol=1e-3, atol=1e-5)
    # and as the operator that is inverted
    matrix = jax.vmap(lambda e: A(e[None])[0])(jnp.eye(12))
    solution = solve(from_linen(nn.Dense(12, use_bias=False), {"kernel": matrix}), b, CG(rtol=1e-5))
    np.testing.assert_allclose(solution.value, truth, rtol=1e-3, atol=1e-5)


def test_layouts(getkey):
    u = jax.random.normal(getkey(), (1, 6, 6))

    class Shapes(nnx.Module):
        """Convolution and group norm, which needs the batch axis: batched and channels last."""

        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)

        def __call__(self, x, *, negate=False):
            assert x.shape == (1, 6, 6, 1)
            return -self.norm(self.conv(x)) if negate else self.norm(self.conv(x))

    net = Shapes(nnx.Rngs(0))
    want = jnp.moveaxis(net(jnp.moveaxis(u, 0, -1)[None])[0], -1, 0)
    op = from_nnx(net, channels_last=True, batched=True)
    np.testing.assert_array_equal(op(u), want)
    np.testing.assert_allclose(jax.vmap(op)(u[None])[0], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(from_nnx(net, channels_last=True, batched=True, negate=True)(u), -want)

    class First(nn.Module):
        """Batched, channels first."""

        @nn.compact
        def __call__(self, x):
            assert x.shape == (1, 1, 6, 6)
            return x * self.param("scale", lambda _: 3 * jnp.ones(()))

    module = First()
    np.testing.assert_array_equal(from_linen(module, module.init(getkey(), u[None]), batched=True)(u), 3 * u)
    same = from_linen(LinenPointwise((2, 6)), LinenPointwise((2, 6)).init(getkey(), u))  # as it comes: mixes the last
    assert same(u).shape == (1, 6, 6)
    np.testing.assert_array_equal(same(u), same.module.apply({"params": same.params}, u))


def test_shared_parameters_stay_shared(u):
    module = NNXPointwise(rngs=nnx.Rngs(0), tied=True)
    op = from_nnx(module, channels_last=True)
    assert len(jax.tree.leaves(op)) == 4
    module = op.module
    assert module.tied is module.layers[0]
    np.testing.assert_array_equal(op(u), jnp.moveaxis(module(jnp.moveaxis(u, 0, -1)), -1, 0))


def test_an_operator_inside_an_nnx_network(op, u):
    class Corrected(nnx.Module):
        def __init__(self, base, rngs):
            self.base, self.scale = base, nnx.Param(2 * jnp.ones(()))

        def __call__(self, u):
            return self.scale * self.base(u)

    whole = from_nnx(Corrected(to_nnx(op), nnx.Rngs(0)))
    assert "params.base.params.blocks.0.spectral.weight.core" in named_leaves(whole)
    np.testing.assert_array_equal(whole(u), 2 * op(u))
    assert_same(from_nnx(whole.module.base), op)


def test_boxed_parameters(u):
    x = jnp.moveaxis(u, 0, -1)
    boxed = nn.Dense(2, kernel_init=nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model")))
    variables = boxed.init(jax.random.key(0), x)
    op = from_linen(boxed, variables, channels_last=True)
    assert set(named_leaves(op)) == {"params.kernel", "params.bias"}
    np.testing.assert_array_equal(op(u), jnp.moveaxis(boxed.apply(variables, x), -1, 0))


def test_a_foreign_network_between_scaled_fields(network, getkey):
    op, _ = network
    inputs, outputs = batches(getkey())
    scaled = Normalized(op, Normalizer.fit(inputs), Normalizer.fit(outputs))
    assert scaled(inputs[0]).shape == (2, 8, 8)
    assert scaled.envelope.refinement == "grid-locked"


# Refusals


class Stateful(nnx.Module):
    def __init__(self, **parts):
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x):
        return x


class Silent(nnx.Module):
    pass


def _refusals():
    rngs, field, params = nnx.Rngs(0), jnp.ones((1, 8, 8)), {"kernel": jnp.ones((8, 8))}
    dense, fno = nn.Dense(8, use_bias=False), to_linen(FNO, **TINY)
    tiny = FNO(**TINY, key=jax.random.key(0))
    yield "not callable", lambda: to_nnx(3), "op: expected a callable"
    yield "an int leaf", lambda: to_nnx(jax.tree_util.Partial(jnp.add, jnp.ones(1, int))), "real floating arrays"
    yield "a complex leaf", lambda: to_nnx(jax.tree_util.Partial(jnp.add, jnp.ones(1, complex))), "real pairs"
    alike = {"a": jnp.ones(1), "a.b": jnp.ones(1)}
    yield "names alike", lambda: to_nnx(jax.tree_util.Partial(jnp.add, alike)), "distinct names"
    alike = {"a": {"b": jnp.ones(1)}, "a.b": jnp.ones(1)}
    yield "names equal", lambda: to_nnx(jax.tree_util.Partial(jnp.add, alike)), "distinct names"
    yield "nnx to nnx", lambda: to_nnx(Silent()), "use it as it is"
    yield "an operator", lambda: to_linen(tiny), "give the class and its arguments"
    yield "no constructor", lambda: to_linen("FNO"), "expected a class or function"
    yield "a key", lambda: to_linen(FNO, **TINY, key=jax.random.key(0)), "leave it out"
    yield "no operator", lambda: to_linen(lambda *, key: 3), "builds an operator"
    yield "no key", lambda: to_linen(FastPoisson, Grid(4)), "takes no key"
    yield "a misspelled argument", lambda: to_linen(FNO, modes=3), "give its own arguments"
    yield "refused by FNO", lambda: to_linen(FNO, **{**TINY, "n_modes": (0, 4)}), "n_modes"
    yield "a function", lambda: from_nnx(lambda u: u), "expected an NNX module"
    yield "a class", lambda: from_nnx(NNXPointwise), "build it first"
    yield "linen to nnx", lambda: from_nnx(dense), "from_linen"
    yield "an operator already", lambda: from_nnx(tiny), "operator already"
    yield "without call", lambda: from_nnx(Silent()), "__call__"
    yield "batch statistics", lambda: from_nnx(Stateful(bn=nnx.BatchNorm(2, rngs=rngs))), "BatchStat"
    yield "a random stream", lambda: from_nnx(Stateful(d=nnx.Dropout(0.1, rngs=rngs))), "without rngs"
    yield "a plain array", lambda: from_nnx(Stateful(w=jnp.ones(2))), "make plain arrays nnx.Param"
    yield "integers", lambda: from_nnx(Stateful(w=nnx.Param(jnp.ones(2, int)))), "int32 for 'w'"
    yield "complex", lambda: from_nnx(Stateful(w=nnx.Param(jnp.ones(2, complex)))), "real pairs"
    yield "a number", lambda: from_nnx(Stateful(w=nnx.Param(1.0))), "one real array"
    yield "unhashable", lambda: from_nnx(Stateful(w=nnx.Param(jnp.ones(2)), sizes=nnx.static([1, 2]))), "tuples instead"
    yield "layout word", lambda: from_nnx(Stateful(), channels_last="yes"), "channels_last: expected True or False"
    yield "layout of ours", lambda: from_nnx(to_nnx(tiny), channels_last=True), "leave them out"
    yield "keyword array", lambda: from_nnx(Stateful(), negate=jnp.ones(2)), "negate: expected hashable"
    yield "two outputs", lambda: from_nnx(Pair())(field), "returns one array"
    yield "batch lost", lambda: from_nnx(Sum(), batched=True)(jnp.ones((2, 8))), "batch axis"
    yield "integer field", lambda: from_nnx(Stateful())(jnp.ones((1, 8), int)), "real floating dtype"
    yield "nnx to linen", lambda: from_linen(NNXPointwise(rngs=rngs), params), "from_nnx"
    yield "no params", lambda: from_linen(dense, [1]), "params: expected a dictionary"
    yield "int params", lambda: from_linen(dense, {"kernel": jnp.ones((8, 8), int)}), "real floating arrays"
    yield "batch_stats", lambda: from_linen(dense, {"params": params, "batch_stats": params}), "batch_stats"
    yield "list attribute", lambda: from_linen(LinenPointwise([3, 2]), params), "tuples instead of lists"
    yield "linen layout of ours", lambda: from_linen(fno, {}, batched=True), "leave them out"
    yield "linen names", lambda: from_linen(fno, params), "unknown"


class Pair(Stateful):
    def __call__(self, x):
        return x, x


class Sum(Stateful):
    def __call__(self, x):
        return jnp.sum(x, 0)


@pytest.mark.parametrize(("call", "message"), [pytest.param(c, m, id=n) for n, c, m in _refusals()])
def test_refusals_name_the_mend(call, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        call()


def test_flax_is_imported_only_when_asked_for():
    code = (
        "import sys, neuralops.interop as interop, neuralops.training, neuralops.models, neuralops.checkpoint;"
        "assert 'flax' not in sys.modules and 'neuralops.interop.flax' not in sys.modules;"
        "assert 'flax' in dir(interop); interop.flax.to_nnx; assert 'flax' in sys.modules;"
        "\ntry: interop.nothing\nexcept AttributeError as e: assert 'flax' in str(e)\nelse: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_skeletons_hold_no_arrays(op):
    """Static parts are hashable and free of arrays, so that they can key a compilation."""
    graphdef, _ = nnx.split(to_nnx(op))
    assert hash(graphdef) == hash(nnx.split(to_nnx(jax.tree.map(lambda x: 2 * x, op)))[0])
    network = from_nnx(NNXPointwise(rngs=nnx.Rngs(0)))
    hash(jax.tree.structure(network))
    assert not jax.tree.leaves(eqx.filter(network, eqx.is_array, inverse=True))
