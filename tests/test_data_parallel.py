"""Training and judging on two devices: the same numbers, one all-reduce, resume to the bit."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from neuralops import losses, metrics
from neuralops.data import Samples
from neuralops.training import evaluate, fit
from neuralops.training.numbers import split
from neuralops.training.steps import _stepper

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 2, 6)).astype(np.float32)
Y = np.einsum("oi,bin->bon", [[1.0, -2.0], [0.5, 3.0]], X).astype(np.float32)
OPTIMIZER = optax.adam(0.05)

pytestmark = pytest.mark.skipif(len(jax.devices()) < 2, reason="one device")


class Mix(eqx.Module):
    """Two layers over the channels, so that there are several gradients to sum."""

    first: jax.Array
    second: jax.Array
    bias: jax.Array

    def __init__(self):
        keys = jax.random.split(KEY)
        self.first, self.second = jax.random.normal(keys[0], (4, 2)), jax.random.normal(keys[1], (2, 4))
        self.bias = jnp.zeros(4)

    def __call__(self, u):
        return self.second @ jnp.tanh(self.first @ u + self.bias[:, None])


@pytest.fixture(scope="module", params=["auto", "explicit"])
def mesh(request):
    devices = np.array(jax.devices()[:2])
    return jax.sharding.Mesh(devices, ("batch",)) if request.param == "auto" else jax.make_mesh((2,), ("batch",))


def train(**options):
    options = {"loss": losses.mse, "optimizer": OPTIMIZER, "num_epochs": 3, "batch_size": 4, "key": KEY,
               "progress": False, "average": 0.9} | options  # fmt: skip
    return fit(Mix(), Samples(X, Y), **options)


def leaves(op):
    return [np.asarray(x) for x in jax.tree.leaves(op)]


def test_two_devices_give_the_losses_of_one(mesh):
    """Ten samples in batches of four: the last batch of two is divided as well."""
    alone, first = train(validation=(X, Y), metrics=(metrics.max_error,))
    both, second = train(validation=(X, Y), metrics=(metrics.max_error,), mesh=mesh)
    np.testing.assert_allclose(first.loss, second.loss, rtol=2e-6)
    np.testing.assert_allclose(first.validation, second.validation, rtol=2e-6)
    for a, b in zip(leaves(alone), leaves(both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_objective_over_the_whole_batch_sees_all_of_it(mesh):
    """The largest errors of the batch are not those of its halves."""

    def objective(op, batch, *, key):
        errors = jax.vmap(losses.mse)(losses.predict(op, batch), batch.outputs)
        return jnp.sum(jax.lax.top_k(errors, 2)[0]) + jax.random.uniform(key) * jnp.sum(op.bias**2)

    options = {"loss": None, "objective": objective}
    np.testing.assert_allclose(train(**options)[1].loss, train(**options, mesh=mesh)[1].loss, rtol=2e-6)


def test_a_step_has_one_all_reduce():
    devices = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",))
    whole = NamedSharding(devices, PartitionSpec())
    goal, numbers = split(losses.supervised(losses.mse))
    run = _stepper(goal, OPTIMIZER, True, False, devices)
    op = Mix()
    state = jax.device_put((op, OPTIMIZER.init(op), None, {"loss": jnp.zeros(2)}), whole)
    rows = jax.device_put(jnp.arange(8).reshape(2, 4), whole)
    data = jax.device_put(Samples(X, Y), whole)
    compiled = run.lower(state, data, numbers, rows, KEY, jnp.float32(0), 0, 0, 2).compile()
    text = compiled.as_text()
    found = re.findall(r"= (.*) all-reduce(?:-start)?\(", text)
    assert len(found) == 1
    for shape in ("f32[4,2]", "f32[2,4]", "f32[4]"):  # every gradient is in it
        assert shape in found[0]
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)


def test_resume_on_a_mesh_is_exact(mesh, tmp_path):
    whole, _ = train(mesh=mesh)
    train(mesh=mesh, num_epochs=1, checkpoint=tmp_path)
    resumed, _ = train(mesh=mesh, checkpoint=tmp_path, resume=True)
    for a, b in zip(leaves(whole), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="had devices = 2, now it is 1"):
        train(checkpoint=tmp_path, resume=True)


def test_evaluate_on_a_mesh(mesh):
    alone = evaluate(Mix(), (X, Y), batch_size=3)["relative_l2"]
    np.testing.assert_allclose(evaluate(Mix(), (X, Y), batch_size=3, mesh=mesh)["relative_l2"], alone, rtol=2e-6)


def test_arrays_spread_over_devices_want_a_mesh(mesh):
    auto = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
    spread = jax.device_put((X, Y), NamedSharding(auto, PartitionSpec("batch")))
    for call in (lambda: fit(Mix(), spread, loss=losses.mse, optimizer=OPTIMIZER, num_epochs=1, batch_size=4, key=KEY),
                 lambda: evaluate(Mix(), spread)):  # fmt: skip
        with pytest.raises(ValueError, match=r"data: expected arrays on one device.*give mesh="):
            call()
    op = jax.device_put(Mix(), NamedSharding(auto, PartitionSpec()))
    with pytest.raises(ValueError, match=r"op: expected parameters on one device.*give mesh="):
        fit(op, (X, Y), loss=losses.mse, optimizer=OPTIMIZER, num_epochs=1, batch_size=4, key=KEY)
    together, alone = evaluate(Mix(), spread, mesh=mesh), evaluate(Mix(), (X, Y))
    np.testing.assert_allclose(together["relative_l2"], alone["relative_l2"], rtol=2e-6)


@pytest.mark.parametrize("wrong", ["batch", 2, jax.devices()])
def test_no_mesh_is_refused(wrong):
    with pytest.raises(ValueError, match=r"mesh: expected a jax\.sharding\.Mesh"):
        train(mesh=wrong)
