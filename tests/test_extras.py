"""Weights, codes and times that stand beside the samples reach the operator, in training, judging and prediction."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops import losses
from neuralops.data import Samples
from neuralops.operator import keywords_of
from neuralops.training.predict import predict

KEY = jax.random.key(8)
SAMPLES, POINTS = 6, 5
SIZES = np.asarray([5, 4, 3, 5, 2, 4])
RNG = np.random.default_rng(0)
U = RNG.normal(size=(SAMPLES, 1, POINTS)).astype(np.float32)
EXTRAS = {
    "weights": RNG.uniform(0.5, 2, (SAMPLES, POINTS)).astype(np.float32),
    "code": RNG.normal(size=(SAMPLES, 3)).astype(np.float32),
    "time": RNG.uniform(size=SAMPLES).astype(np.float32),
}
MASK = np.arange(POINTS) < SIZES[:, None]


class Mean(no.AbstractOperator):
    """a . code + b time + c times the mean of u by the weights, at every point."""

    a: jax.Array
    b: jax.Array
    c: jax.Array

    def __init__(self, a=(0.0, 0.0, 0.0), b=0.0, c=0.0):
        self.a, self.b, self.c = (jnp.asarray(x, jnp.float32) for x in (a, b, c))

    @property
    def envelope(self):
        return no.operator.Envelope((1,), ("periodic",), "consistent", order=1)

    def __call__(self, u, /, *, weights=None, code=None, time=None, mask=None, key=None):
        weights = jnp.ones(u.shape[1:]) if weights is None else weights
        weights = weights if mask is None else jnp.where(mask, weights, 0)
        mean = jnp.sum(u * weights) / jnp.sum(weights)
        code = jnp.zeros(3) if code is None else code
        time = 0.0 if time is None else time
        return jnp.broadcast_to(self.a @ code + self.b * time + self.c * mean, u.shape)


TRUTH = Mean((0.5, -1.0, 2.0), 1.5, -0.7)


def by_hand(op, mask=MASK, weights=EXTRAS["weights"]):
    weights = np.where(mask, weights, 0)
    mean = np.sum(np.where(mask, U[:, 0], 0) * weights, 1) / weights.sum(1)
    level = EXTRAS["code"] @ np.asarray(op.a) + op.b * EXTRAS["time"] + op.c * mean
    return np.broadcast_to(level[:, None, None], U.shape)


def samples(fill=0.0, **changes):
    padded = lambda x: np.where(MASK if x.ndim == 2 else MASK[:, None], x, np.float32(fill))
    extras = {**EXTRAS, "weights": padded(EXTRAS["weights"]), **changes}
    return Samples(padded(U), padded(by_hand(TRUTH)), mask=MASK, extras=extras)


def test_each_sample_gets_its_own():
    np.testing.assert_allclose(predict(TRUTH, samples())[MASK[:, None]], by_hand(TRUTH)[MASK[:, None]], rtol=1e-5)
    error = no.evaluate(TRUTH, samples(), metrics={"error": losses.l2()}, batch_size=4)["error"]
    assert np.max(np.abs(error)) < 1e-5
    for name, x in EXTRAS.items():  # turned among the samples each is missed
        error = no.evaluate(TRUTH, samples(**{name: x[::-1]}), metrics={"error": losses.l2()}, batch_size=4)["error"]
        assert np.max(np.abs(error)) > 1e-3, name


def test_an_operator_gets_what_it_names_alone():
    class Deaf(Mean):
        @property
        def keywords(self):
            return super().keywords - {"code", "weights"}

    out = predict(Deaf(TRUTH.a, TRUTH.b, TRUTH.c), samples())
    mean = np.sum(np.where(MASK, U[:, 0], 0), 1) / SIZES
    wanted = TRUTH.b * EXTRAS["time"] + TRUTH.c * mean
    np.testing.assert_allclose(out[:, 0, 0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_training_finds_the_operator_that_uses_them():
    options = {"loss": losses.mse, "optimizer": optax.adam(0.1), "num_epochs": 500, "batch_size": 6, "key": KEY}
    runs = [
        no.fit(Mean(), samples(fill), progress=False, validation=samples(fill), **options) for fill in (0.0, np.nan)
    ]
    op, history = runs[0]
    assert history.loss[-1] < 1e-3 * history.loss[0]
    for a, b in zip(jax.tree.leaves(op), jax.tree.leaves(TRUTH), strict=True):
        np.testing.assert_allclose(a, b, atol=0.1)
    for other, told in runs[1:]:  # what masked points hold, weights included, changes nothing
        np.testing.assert_array_equal(told.loss, history.loss)
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(op), strict=True):
            np.testing.assert_array_equal(a, b)


GEO = {"n_modes": (3, 2), "latent_points": 4, "projection_channels": 4, "key": KEY}


def transolver():
    return no.Transolver(1, 1, 4, n_layers=1, n_heads=2, n_slices=2, time_input=True, key=KEY)


def geo():
    body = no.FNO((2, 2), 2, 2, 2, n_layers=1, key=KEY)
    return no.GeoOperator(body, 1, 1, deformation=no.nn.Deformation(width=4, code_channels=3, key=KEY), **GEO)


@pytest.mark.slow  # to compile
@pytest.mark.parametrize("make", [transolver, geo])
def test_public_operators_train_and_are_judged_with_them(make):
    op, coords = make(), RNG.uniform(size=(SAMPLES, 2, POINTS)).astype(np.float32)
    data = samples(np.nan)
    data = Samples(data.inputs, data.outputs, mask=MASK, extras=data.extras,
                   coords=np.where(MASK[:, None], coords, np.nan))  # fmt: skip
    trained, history = no.fit(op, data, loss=losses.mse, optimizer=optax.adam(1e-2), num_epochs=3, batch_size=3,
                              key=KEY, progress=False)  # fmt: skip
    assert np.isfinite(history.loss).all()
    assert history.loss[-1] < history.loss[0]
    out = predict(trained, data)
    i, n = 1, SIZES[1]
    more = {name: EXTRAS[name][i] for name in ("code", "time") if name in keywords_of(op)}
    more |= {"coords": coords[i, :, :n], "weights": EXTRAS["weights"][i, :n]}
    alone = jax.jit(lambda op, u, more: op(u, **more))(trained, U[i, :, :n], more)
    np.testing.assert_allclose(out[i, :, :n], alone, rtol=1e-4, atol=1e-5)


def test_fixed_for_good():
    u = jnp.asarray(U[0])
    given = {name: x[0] for name, x in EXTRAS.items()}
    op = no.at(TRUTH, **given)
    assert keywords_of(op) == {"mask", "key"}
    np.testing.assert_allclose(op(u), TRUTH(u, **given), rtol=1e-6)
    step = no.at(no.at(no.at(TRUTH, time=given["time"]), code=given["code"]), weights=given["weights"])
    np.testing.assert_allclose(step(u), op(u), rtol=1e-6)
    part = no.at(TRUTH, code=given["code"])
    assert keywords_of(part) == {"weights", "time", "mask", "key"}
    np.testing.assert_allclose(part(u, time=2.0), TRUTH(u, code=given["code"], time=2.0), rtol=1e-6)
    assert [x is y for x, y in zip(jax.tree.leaves(op), jax.tree.leaves(TRUTH), strict=True)] == [True] * 3
    traced = []
    run = jax.jit(lambda op, u: traced.append(op.time) or op(u))
    run(op, u)
    run(no.at(TRUTH, **{name: np.array(x) for name, x in given.items()}), u)
    assert len(traced) == 1  # equal arrays, the same program
    run(no.at(TRUTH, **given | {"time": 0.125}), u)
    assert len(traced) == 2
    for name in EXTRAS:
        with pytest.raises(ValueError, match=f"^{name}: expected one of the extra inputs that Linear names"):
            no.at(no.nn.Linear(1, 1, key=KEY), **{name: given[name]})
        with pytest.raises(ValueError, match=f"^{name}: expected an array with values, got a traced one"):
            jax.jit(lambda x, name=name: no.at(TRUTH, **{name: x})(u))(given[name])


def test_fixed_arrays_are_saved(tmp_path):
    op = no.at(transolver(), coords=RNG.uniform(size=(2, POINTS)), weights=EXTRAS["weights"][0], time=0.25)
    no.save(tmp_path / "op", op)
    again = no.load(tmp_path / "op")
    np.testing.assert_array_equal(again.weights.array, EXTRAS["weights"][0])
    assert again.time == op.time
    assert jax.tree.structure(again) == jax.tree.structure(op)
    np.testing.assert_array_equal(eqx.filter_jit(again)(U[0]), eqx.filter_jit(op)(U[0]))
