"""Callables of other libraries as operators, and which extra inputs a callable names."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import neuralops as no
from neuralops import losses
from neuralops.data import Normalized, Normalizer
from neuralops.operator import Partitioned, as_operator, keywords_of, original

KEY = jax.random.key(1)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 2, 3, 4)).astype(np.float32)
Y = np.tanh(X[:, :1] - X[:, 1:])
U = jnp.asarray(X[0])


class Pointwise(eqx.Module):
    """A perceptron at every point of a grid; functions and counts lie among its leaves."""

    mlp: eqx.nn.MLP
    scale: np.ndarray
    calls: jax.Array

    def __init__(self, key=KEY):
        self.mlp = eqx.nn.MLP(2, 1, 6, 1, key=key)
        self.scale, self.calls = np.full(1, 0.5, np.float32), jnp.arange(2)

    def __call__(self, u):
        return jax.vmap(jax.vmap(self.mlp, 1, 1), 2, 2)(u) * self.scale[0]


def same(a, b):
    assert jax.tree.structure(eqx.filter(a, eqx.is_array)) == jax.tree.structure(eqx.filter(b, eqx.is_array))
    for x, y in zip(*(jax.tree.leaves(eqx.filter(m, eqx.is_array)) for m in (a, b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_module_with_functions_goes_through_plain_jax():
    module = Pointwise()
    op = as_operator(module)
    assert isinstance(op, Partitioned)
    assert isinstance(op, no.Operator)
    assert as_operator(op) is op
    assert len(jax.tree.leaves(op)) == len(jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))) == 5
    assert original(op).calls is module.calls
    hash(jax.tree.structure(op))
    total = lambda op, u: jnp.sum(jnp.sin(op(u)))
    traces = []

    @jax.jit
    def run(op, u):
        traces.append(1)
        return op(u), jax.vmap(op)(u[None])[0], jax.grad(total)(op, u)

    value, batched, gradient = run(op, U)
    np.testing.assert_allclose(value, module(U), rtol=1e-5)
    np.testing.assert_allclose(batched, module(U), rtol=1e-5)
    same(original(gradient).mlp, eqx.filter_grad(total)(module, U).mlp)
    run(as_operator(module), U)  # wrapped again: the same program
    run(jax.tree.map(lambda x: x + 1, op), U)
    assert len(traces) == 1
    bound = as_operator(jax.tree_util.Partial(lambda net, u: -net(u), module))
    assert len(jax.tree.leaves(bound)) == 5
    np.testing.assert_allclose(jax.jit(lambda op, u: op(u))(bound, U), -module(U), rtol=1e-5)


def train(op, **options):
    return no.fit(op, (X, Y), loss=losses.mse, optimizer=optax.sgd(0.1), num_epochs=2, batch_size=8, key=KEY,
                  progress=False, **options)  # fmt: skip


def test_a_module_is_trained_judged_wrapped_and_comes_back_as_itself():
    module = Pointwise()
    seen = []
    trained, history = train(module, callback=lambda epoch, report: seen.append(report["op"]))
    assert {type(trained), type(history.best), type(seen[0])} == {Pointwise}
    by_hand = module
    gradient = eqx.filter_jit(eqx.filter_grad(lambda m: jnp.mean((jax.vmap(m)(X) - Y) ** 2)))
    for _ in range(2):
        slope = gradient(by_hand)
        by_hand = eqx.apply_updates(by_hand, jax.tree.map(lambda g: -0.1 * g, slope))
    same(trained, by_hand)
    assert trained.mlp.activation is module.mlp.activation
    assert trained.calls is module.calls
    values = no.evaluate(trained, (X, Y), metrics={"mse": losses.mse})["mse"]
    np.testing.assert_allclose(values, ((jax.vmap(by_hand)(X) - Y) ** 2).mean((1, 2, 3)), rtol=1e-4)

    wrapped = Normalized(module, None, Normalizer((1.0,), (2.0,), 2))
    np.testing.assert_allclose(wrapped(U), 2 * module(U) + 1, rtol=1e-5, atol=1e-6)
    assert isinstance(train(wrapped)[0], Normalized)
    square = Pointwise()
    square = eqx.tree_at(lambda m: m.mlp, square, eqx.nn.MLP(2, 2, 6, 1, key=KEY))
    frames = jax.jit(lambda op, u: op(u))(no.Rollout(square, 2), U)
    np.testing.assert_allclose(frames, jnp.concatenate([square(U), square(square(U))]), rtol=1e-5, atol=1e-6)


class Positive(eqx.Module):
    weight: jax.Array
    function: object

    def __call__(self, u):
        return self.function(self.weight * u)

    def project(self):
        return Positive(jnp.maximum(self.weight, 0), self.function)


def test_a_module_with_functions_is_projected_too():
    x = np.ones((4, 1, 3), np.float32)
    op, _ = no.fit(Positive(jnp.float32(0.1), jnp.tanh), (x, -x), loss=losses.mse, optimizer=optax.sgd(1.0),
                   num_epochs=1, batch_size=4, key=KEY, progress=False)  # fmt: skip
    assert float(op.weight) == 0
    assert not hasattr(as_operator(Pointwise()), "project")
    assert not hasattr(no.Rollout(Pointwise(), 2), "project")
    wrapped = no.Rollout(Positive(jnp.float32(-1), jnp.tanh), 2)
    projected = jax.jit(lambda op: op.project())(wrapped)
    assert jax.tree.structure(projected) == jax.tree.structure(wrapped)
    assert float(projected.op.module.weight) == 0


def points(u, coords, mask=None):
    return u


class Nested:
    def __call__(self, u, /, *, query=None, key=None, **rest):
        return u


class Attention(nnx.Module):
    def __call__(self, u, mask=None):
        return u


CALLABLES = {
    "a function": (points, {"coords", "mask"}),
    "a bound keyword": (functools.partial(points, coords=1), {"mask"}),
    "a bound keyword of JAX": (jax.tree_util.Partial(points, mask=1), {"coords"}),
    "a bound argument": (functools.partial(lambda params, u, coords: u, 1), {"coords"}),
    "the field by another name": (lambda query: query, set()),
    "any keywords": (lambda u, **coords: u, set()),
    "any arguments": (lambda *mask: mask, set()),
    "a jitted function": (jax.jit(points), {"coords", "mask"}),
    "an object": (Nested(), {"query", "key"}),
    "a method": (Nested().__call__, {"query", "key"}),
    "a builtin": (np.sin, set()),
    "an NNX module": (Attention(), {"mask"}),
    "an Equinox module": (eqx.nn.MLP(1, 1, 1, 1, key=KEY), {"key"}),
    "a partitioned one": (as_operator(eqx.nn.MLP(1, 1, 1, 1, key=KEY)), {"key"}),
    "an operator": (no.nn.Linear(1, 1, key=KEY), {"key"}),
    "a normalised one": (Normalized(points), {"coords", "mask"}),
    "a fixed one": (no.at(points, mask=np.ones(3, bool)), {"coords"}),
    "a rollout": (no.Rollout(points, 2), {"coords", "mask"}),
    "an inverse": (no.Inverse(no.Diffusion(no.Grid((4,), boundary="dirichlet")), no.CG()), {"key"}),
}


@pytest.mark.parametrize("case", CALLABLES, ids=list(CALLABLES))
def test_the_extra_inputs_a_callable_names(case):
    op, names = CALLABLES[case]
    assert keywords_of(op) == names
    assert keywords_of(as_operator(op)) == names


def test_a_bound_function_is_found_again():
    """Its wrapping is equal each time, so that nothing compiles twice."""
    double = functools.partial(lambda factor, u: factor * u, 2.0)
    assert jax.tree.structure(as_operator(double)) == jax.tree.structure(as_operator(double))
    np.testing.assert_array_equal(as_operator(double)(U), 2 * U)
    assert keywords_of(as_operator(functools.partial(np.dot, 2.0))) == set()


def test_what_cannot_be_called_is_refused():
    with pytest.raises(ValueError, match=r"op: expected a callable .*got dict; pass"):
        as_operator({"weight": U})
