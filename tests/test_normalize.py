"""Scaling by static statistics: exact inverse, double-precision sums, no leaves, and physical in, physical out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neuralops.data import Normalized, Normalizer
from neuralops.operator import AbstractOperator, Envelope, config_of


class Gain(AbstractOperator):
    """v = weight u: the smallest operator with a leaf."""

    weight: jax.Array

    def __init__(self, weight):
        self.weight = jnp.asarray(weight)

    @property
    def envelope(self):
        return Envelope((1, 2), ("periodic",), "exact")

    def __call__(self, u, /, *, key=None):
        return self.weight * u


@pytest.mark.parametrize("grid", [(11,), (5, 6), (3, 4, 5)])
def test_statistics_are_those_of_numpy(grid):
    x = np.random.default_rng(0).standard_normal((7, 2, *grid))
    x[:, 1] = 0.1 * x[:, 1] + 40
    fitted = Normalizer.fit(x)
    axes = (0, *range(2, x.ndim))
    np.testing.assert_allclose(fitted.mean, x.mean(axes), rtol=1e-14)
    np.testing.assert_allclose(fitted.std, x.std(axes), rtol=1e-13)
    with jax.enable_x64(True):
        scaled = fitted.encode(jnp.asarray(x))
        np.testing.assert_allclose(scaled.mean(axes), 0, atol=1e-13)
        np.testing.assert_allclose(scaled.std(axes), 1, rtol=1e-13)
        np.testing.assert_allclose(fitted.decode(scaled), x, rtol=1e-13, atol=1e-13)
        np.testing.assert_array_equal(jax.vmap(fitted.encode)(jnp.asarray(x)), scaled)  # leading axes pass through
        assert fitted.encode(x.astype(np.float32)).dtype == np.float32  # the dtype is the field's


def test_sums_do_not_cancel():
    """Means of squares minus squares of means lose everything here; so do sums in float32."""
    x = np.float32(1e6) + np.random.default_rng(1).standard_normal((64, 1, 128, 128)).astype(np.float32)
    np.testing.assert_allclose(Normalizer.fit(x).std[0], x.astype(np.float64).std(), rtol=1e-9)


def test_constant_channel_gives_zeros():
    for value in (0.0, 7.3, -1e-20, 1e20):
        x = np.full((4, 1, 9), value, np.float32)
        fitted = Normalizer.fit(x)
        assert fitted.std == (1.0,)
        np.testing.assert_array_equal(fitted.encode(x), 0)
        np.testing.assert_array_equal(fitted.decode(jnp.zeros((1, 9))), x[0])
    noisy = np.float32(3e5) + np.float32(0.03) * (np.arange(36) % 2).reshape(4, 1, 9).astype(np.float32)
    assert Normalizer.fit(noisy).std == (1.0,)  # one unit in the last place is rounding
    small = 1e-15 * np.random.default_rng(2).standard_normal((4, 1, 9))  # small is not constant
    np.testing.assert_allclose(Normalizer.fit(small).std[0], small.std(), rtol=1e-12)


def test_integers_and_truth_values_can_be_fitted():
    x = np.random.default_rng(3).integers(0, 2, (5, 1, 6, 6)).astype(bool)
    np.testing.assert_allclose(Normalizer.fit(x).std[0], x.std(), rtol=1e-14)


def test_static_and_hashable():
    fitted = Normalizer((1.0,), (2.0,), 1)
    assert jax.tree.leaves(fitted) == []
    assert hash(fitted) == hash(Normalizer([1], [2], 1))
    traces = []

    @jax.jit
    def f(n, u):
        traces.append(1)
        return n.encode(u)

    for _ in range(2):
        np.testing.assert_allclose(f(Normalizer((1.0,), (2.0,), 1), jnp.ones((1, 4))), 0)
    f(Normalizer((3.0,), (2.0,), 1), jnp.ones((1, 4)))
    assert len(traces) == 2  # one per statistics, not one per call


def test_normalized_takes_and_gives_physical_values():
    inputs, outputs = Normalizer((5.0,), (2.0,), 1), Normalizer((-1.0, 3.0), (10.0, 0.5), 1)

    def doubled(u):
        return jnp.concatenate([u, 2 * u])

    u = jnp.linspace(0, 1, 6)[None]
    scaled = (np.asarray(u) - 5) / 2
    expected = np.concatenate([10 * scaled - 1, 0.5 * 2 * scaled + 3])
    np.testing.assert_allclose(Normalized(doubled, inputs, outputs)(u), expected, rtol=1e-6)
    np.testing.assert_allclose(Normalized(doubled, outputs=outputs)(u)[0], 10 * np.asarray(u[0]) - 1, rtol=1e-6)
    np.testing.assert_array_equal(Normalized(doubled)(u), doubled(u))


def test_normalized_is_an_operator_with_the_leaves_of_its_own():
    op = Normalized(Gain(2.0), Normalizer((1.0,), (4.0,), 1), Normalizer((0.5,), (3.0,), 1))
    assert [leaf.shape for leaf in jax.tree.leaves(op)] == [()]
    assert op.envelope == Gain(2.0).envelope
    assert config_of(op) == {"op": op.op, "inputs": op.inputs, "outputs": op.outputs}
    u = jnp.arange(6.0)[None]
    expected = 3 * 2 * (np.arange(6.0) - 1) / 4 + 0.5
    for call in (jax.jit(op), jax.checkpoint(op), lambda u: op(u, key=jax.random.key(0))):
        np.testing.assert_allclose(call(u)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(op)(u[None])[0, 0], expected, rtol=1e-6)
    slope = jax.grad(lambda op: op(u).sum())(op)
    np.testing.assert_allclose(slope.op.weight, (3 * (np.arange(6.0) - 1) / 4).sum(), rtol=1e-6)
    optimizer = optax.adamw(1e-2)
    updates, _ = optimizer.update(slope, optimizer.init(op), op)
    assert optax.apply_updates(op, updates).inputs == op.inputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Normalizer.fit(np.ones((3, 4))), "x: expected training data"),
        (lambda: Normalizer.fit(np.ones((0, 1, 4))), "x: expected training data"),
        (lambda: Normalizer.fit(np.full((3, 1, 4), np.nan)), "NaN or infinity in channel 0"),
        (lambda: Normalizer.fit(np.ones((3, 1, 4), complex)), "expected real numbers"),
        (lambda: Normalizer.fit(np.array([[["a"]]])), "expected real numbers"),
        (lambda: Normalizer((1.0,), (1.0, 2.0), 1), "one number per channel in each"),
        (lambda: Normalizer((), (), 1), "one number per channel"),
        (lambda: Normalizer(1.0, 2.0, 1), "one number per channel"),
        (lambda: Normalizer(("a",), (2.0,), 1), "one number per channel"),
        (lambda: Normalizer((1.0,), (0.0,), 1), "positive deviations"),
        (lambda: Normalizer((np.nan,), (1.0,), 1), "finite means"),
        (lambda: Normalizer((1.0,), (1.0,), 0), "ndim"),
        (lambda: Normalizer((1.0,), (1.0,), 2).encode(jnp.ones((2, 4, 4))), "with 2 space dimensions"),
        (lambda: Normalizer((1.0,), (1.0,), 2).decode(jnp.ones((4, 4))), "with 2 space dimensions"),
        (lambda: Normalizer((1.0,), (1.0,), 1).encode(jnp.ones((1, 4), int)), "floating dtype"),
        (lambda: Normalizer((1.0,), (1.0,), 1).encode([[1.0]]), "got shape"),
        (lambda: Normalized(3), "op: expected a callable"),
        (lambda: Normalized(Gain(1.0), inputs=(0.0, 1.0)), "inputs: expected a Normalizer"),
        (lambda: Normalized(Gain(1.0), outputs="unit"), "outputs: expected a Normalizer"),
        (lambda: Normalized(jnp.sin).envelope, "declares its envelope"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
