"""Denoising objectives: proximal matching at its limits, noise anew in each step, one program for all gamma."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.data import Samples
from neuralops.training import losses, steps
from neuralops.training.numbers import split

KEY = jax.random.key(0)


def test_limits_of_proximal_matching():
    """gamma^2 m is the squared error where gamma is large; m is 1 where it is small, 0 without an error, and 1 - 1/e at
    r = gamma."""
    target = jnp.zeros((2, 3))
    error = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)), jnp.float32)
    r = float(jnp.linalg.norm(error))
    np.testing.assert_allclose(1e6 * losses.proximal_matching(1e3)(error, target), r**2, rtol=1e-5)
    assert losses.proximal_matching(1e-3)(error, target) == 1
    assert losses.proximal_matching(1e-3)(target, target) == 0
    np.testing.assert_allclose(losses.proximal_matching(r)(error, target), 1 - np.exp(-1), rtol=1e-6)
    np.testing.assert_allclose(
        losses.proximal_matching(r / np.sqrt(6), mean=True)(error, target), 1 - np.exp(-1), rtol=1e-6
    )
    assert losses.gamma_schedule(2.24) == pytest.approx((17.92, 8.96, 4.48, 2.24))


def test_masked_points_do_not_count():
    error = jnp.array([[1.0, jnp.nan, 2.0]])
    mask = np.array([True, False, True])
    found = losses.proximal_matching(2.0)(error, jnp.zeros((1, 3)), mask=mask)
    np.testing.assert_allclose(found, 1 - np.exp(-5 / 4), rtol=1e-6)
    found = losses.proximal_matching(2.0, mean=True)(error, jnp.zeros((1, 3)), mask=mask)
    np.testing.assert_allclose(found, 1 - np.exp(-5 / 8), rtol=1e-6)


def scaled(a, u):
    return a * u


def test_noise_is_of_its_level_and_new_for_each_key():
    """Of the identity the mean squared error is the variance of the noise, from arrays, inputs or outputs."""
    x = np.random.default_rng(0).normal(size=(400, 1, 50)).astype(np.float32)
    objective = losses.denoising(losses.mse, noise=0.3)
    identity = jax.tree_util.Partial(scaled, jnp.ones(()))
    values = [float(objective(identity, x, key=jax.random.key(i))) for i in range(2)]
    np.testing.assert_allclose(values, 0.09, rtol=0.03)
    assert values[0] != values[1]
    assert float(objective(identity, Samples(x), key=jax.random.key(0))) == values[0]
    assert float(objective(identity, Samples(0 * x, x), key=jax.random.key(0))) == values[0]


class Told:
    """Returns the level it is told at every point."""

    def __call__(self, u, *, code):
        return jnp.broadcast_to(code[0], u.shape)


def test_a_level_for_each_sample():
    """Between the two, and the operator is told the level that was drawn."""
    x = np.zeros((2000, 1, 30), np.float32)
    levels = losses.denoising(lambda p, t: p[0, 0], noise=(0.1, 0.5))(Told(), x, key=KEY)
    np.testing.assert_allclose(levels, 0.3, atol=0.01)
    least = losses.denoising(lambda p, t: 1.0 * ((p[0, 0] >= 0.1) & (p[0, 0] <= 0.5)), noise=(0.1, 0.5))
    assert least(Told(), x, key=KEY) == 1

    def spread(u, *, code):
        return (jnp.std(u) / code[0]).reshape(1, 1) * jnp.ones_like(u)

    ratio = losses.denoising(lambda p, t: p[0, 0], noise=(0.1, 0.5))(spread, x, key=KEY)
    np.testing.assert_allclose(ratio, 0.98, atol=0.02)  # of 30 numbers


def test_a_gaussian_has_one_denoiser_for_all_losses():
    """y t^2 / (t^2 + sigma^2), whatever the loss: mean, median and mode are one."""
    t, sigma = 2.0, 1.0
    x = (t * np.random.default_rng(0).normal(size=(2000, 1, 1))).astype(np.float32)
    start = jax.tree_util.Partial(scaled, jnp.float32(0.5))
    for loss in (losses.mse, losses.proximal_matching(1.0)):
        op, _ = no.fit(
            start, x, objective=losses.denoising(loss, noise=sigma), optimizer=optax.adam(0.02), num_epochs=12,
            batch_size=100, key=KEY, progress=False, average=0.98,
        )  # fmt: skip
        assert float(op.args[0]) == pytest.approx(t**2 / (t**2 + sigma**2), abs=0.02)


def test_one_program_serves_all_gamma():
    """Also where losses are inside of other objectives; other structures have programs of their own."""
    x = np.random.default_rng(0).laplace(size=(8, 1, 1)).astype(np.float32)
    op, optimizer = jax.tree_util.Partial(scaled, jnp.float32(0.5)), optax.sgd(0.1)
    traced = []

    def count(prediction, target):
        traced.append(None)
        return jnp.mean((prediction - target) ** 2)

    def fitted(gamma):
        terms = {"far": losses.denoising(losses.proximal_matching(gamma), noise=1.0),
                 "near": losses.denoising(count, noise=0.1)}  # fmt: skip
        objective = losses.weighted_sum(terms, {"near": 0.0})
        settings = {"optimizer": optimizer, "num_epochs": 1, "batch_size": 8, "key": KEY, "progress": False}
        return no.fit(op, x, objective=objective, validation=x, **settings)

    before = steps._stepper.cache_info().misses
    first, history = fitted(2.0)
    seen = len(traced)
    second, other = fitted(0.5)
    assert steps._stepper.cache_info().misses == before + 1
    assert len(traced) == seen  # nothing was traced again
    assert float(first.args[0]) != float(second.args[0])
    # The number that counts is the given one.
    objective = losses.denoising(losses.proximal_matching(0.5), noise=1.0)
    step_key = jax.random.fold_in(jax.random.fold_in(KEY, 2**32 - 1), 0)
    order = jax.random.permutation(jax.random.fold_in(KEY, 0), 8)
    expected = objective(op, x[np.asarray(order)], key=jax.random.fold_in(step_key, 0))
    np.testing.assert_allclose(other.loss[0], expected, rtol=1e-5)
    assert history.loss[0] != other.loss[0]


def test_what_is_compiled_in():
    """Floating arrays of trees are given; functions, counts and Python's numbers are compiled in."""
    two = [split(losses.denoising(losses.proximal_matching(g), noise=0.1)) for g in (0.1, 0.2)]
    assert two[0][0] == two[1][0]
    assert hash(two[0][0]) == hash(two[1][0])
    assert [float(x) for x in two[1][1]] == [0.2]
    assert split(losses.denoising(losses.mse, noise=0.1))[0] != split(losses.denoising(losses.mse, noise=0.2))[0]
    partial = jax.tree_util.Partial(scaled, 0.5)
    fixed, numbers = split(partial)
    assert numbers == ()
    assert fixed.with_numbers(()).args == (0.5,)
    fixed, numbers = split(losses.l2())
    assert numbers == ()
    assert fixed.with_numbers(()) == losses.l2()
    fixed, numbers = split(jax.tree_util.Partial(scaled, np.float32([1, 2])))
    np.testing.assert_array_equal(fixed.with_numbers(numbers).args[0], [1, 2])
