"""Masked fields from end to end: what lies on points that do not count is never looked at."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import losses, metrics
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.training.predict import predict

KEY = jax.random.key(2)
RNG = np.random.default_rng(0)
N, POINTS = 6, 12
FIELD = RNG.normal(size=(N, 2, POINTS)).astype(np.float32)  # two input functions: two channels
TARGET = (FIELD[:, :1] * FIELD[:, 1:]).astype(np.float32)
INSIDE = RNG.uniform(size=(N, POINTS)) < 0.7
INSIDE[:, 0] = True


def samples(held):
    """The same field, with other things where nothing counts."""
    put = lambda x: np.where(INSIDE[:, None], x, np.float32(held))
    return Samples(put(FIELD), put(TARGET), mask=INSIDE)


@functools.cache
def start():
    return no.FNO((6,), 2, 1, 4, n_layers=1, key=KEY)


def mean_absolute(prediction, target):  # a user's own: knows of no mask
    return jnp.mean(jnp.abs(prediction - target))


@pytest.mark.parametrize("loss", [losses.l2(), mean_absolute], ids=["takes the mask", "takes none"])
def test_training_sees_nothing_of_masked_points(loss):
    runs = []
    for held in (np.nan, 1e6):
        data = samples(held)
        op, history = no.fit(start(), data, loss=loss, optimizer=optax.adam(1e-2), num_epochs=3, batch_size=3, key=KEY,
                             progress=False, validation=data)  # fmt: skip
        runs.append((op, history.loss, history.validation))
        assert np.isfinite(history.loss).all()
    for a, b in zip(*map(jax.tree.leaves, runs), strict=True):
        np.testing.assert_array_equal(a, b)  # to the bit
    assert runs[0][1][-1] < runs[0][1][0]

    clean = start()
    outputs = np.asarray(jax.jit(jax.vmap(clean))(np.where(INSIDE[:, None], FIELD, 0)))
    if loss is mean_absolute:
        by_hand = (np.abs(outputs - TARGET) * INSIDE[:, None]).mean((1, 2))
    else:
        by_hand = [np.linalg.norm((p - t)[:, m]) / np.linalg.norm(t[:, m])
                   for p, t, m in zip(outputs, TARGET, INSIDE, strict=True)]  # fmt: skip
    np.testing.assert_allclose(
        no.evaluate(clean, samples(np.nan), metrics={"e": loss}, batch_size=3)["e"], by_hand, rtol=1e-4
    )


def test_gradients_of_masked_points_are_zero():
    data = jax.tree.map(jnp.asarray, samples(np.nan))
    objective = losses.supervised(losses.l2())

    @jax.jit
    def slope(inputs, outputs):
        return jax.grad(lambda x, y: objective(start(), data.replace(inputs=x, outputs=y), key=KEY), (0, 1))(
            inputs, outputs
        )

    for gradient in slope(data.inputs, data.outputs):
        outside = np.broadcast_to(~INSIDE[:, None], gradient.shape)
        np.testing.assert_array_equal(gradient[outside], 0)
        assert (np.abs(gradient[~outside]) > 0).all()


@pytest.mark.slow
def test_scaled_operators_and_shared_masks():
    mask = INSIDE[0]
    put = lambda x, held: np.where(mask, x, np.float32(held))
    values = []
    for held in (np.nan, 1e6):
        data = Samples(put(FIELD, held), put(TARGET, held), mask=mask)
        assert data.shared == ("mask",)
        scales = [Normalizer.fit(x, mask=mask) for x in (data.inputs, data.outputs)]
        op = Normalized(start(), *scales)
        values.append(no.evaluate(op, data, metrics=(metrics.relative_l2,))["relative_l2"])
        one = no.evaluate(op, data[2:3], metrics=(metrics.relative_l2,))["relative_l2"]
        np.testing.assert_allclose(one, values[-1][2:3], rtol=1e-5)
    np.testing.assert_array_equal(*values)
    assert np.isfinite(values[0]).all()
    np.testing.assert_allclose(scales[0].mean, FIELD[..., mask].mean((0, 2)), rtol=1e-5)
    scaled = jax.vmap(op)(jnp.where(mask, FIELD, 0), mask=jnp.broadcast_to(mask, (N, POINTS)))
    np.testing.assert_allclose(predict(op, jax.tree.map(jnp.asarray, data)), scaled, rtol=1e-4, atol=1e-5)


def test_a_source_of_masked_samples():
    """Read item by item, the losses are those of the arrays."""
    data = samples(np.nan)
    options = {"loss": losses.l2(), "optimizer": optax.sgd(1e-2), "num_epochs": 1, "batch_size": 3, "key": KEY}
    by_arrays, _ = no.fit(start(), data, progress=False, **options)
    by_items, _ = no.fit(start(), list(data), progress=False, **options)
    for a, b in zip(jax.tree.leaves(by_arrays), jax.tree.leaves(by_items), strict=True):
        np.testing.assert_array_equal(a, b)
