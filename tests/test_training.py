"""Training against hand-written loops and closed forms; runs that are killed, diverge or are resumed."""

import os
import signal
import subprocess
import sys
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neuralops import checkpoint, losses, metrics
from neuralops.data import Normalized, Samples
from neuralops.grid import Grid
from neuralops.models import FNO
from neuralops.operator import AbstractOperator, Envelope
from neuralops.training import DivergedError, evaluate, fit
from neuralops.training.feeds import read_ahead
from neuralops.training.outline import check_objective


class Pointwise(AbstractOperator):
    """A linear map of the channels, the smallest operator there is."""

    weight: jax.Array
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)

    def __init__(self, in_channels, out_channels, *, key):
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = 0.1 * jax.random.normal(key, (out_channels, in_channels))

    @property
    def envelope(self):
        return Envelope((1, 2, 3), ("periodic",), "exact")

    def __call__(self, u, /, *, key=None):
        if u.shape[0] != self.in_channels:
            raise ValueError(f"u: expected {self.in_channels} channels, got {u.shape[0]}; change them.")
        return jnp.tensordot(self.weight, u, 1)


class NonNegative(AbstractOperator):
    """A map whose weight must not be negative."""

    weight: jax.Array

    @property
    def envelope(self):
        return Envelope((1, 2, 3), ("periodic",), "exact")

    def __call__(self, u, /, *, key=None):
        return self.weight * u

    def project(self):
        return eqx.tree_at(lambda op: op.weight, self, jnp.maximum(self.weight, 0))


class Source:
    """Lazy samples that remember how they were read."""

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs, self.threads = inputs, outputs, set()

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        self.threads.add(threading.current_thread().name)
        return {"inputs": self.inputs[i], "outputs": self.outputs[i]}


def samples(num=10, noise=0.1, points=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, 2, points)).astype(np.float32)
    truth = np.array([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]], np.float32)
    return x, np.einsum("oi,bin->bon", truth, x) + noise * rng.normal(size=(num, 3, points)).astype(np.float32)


DATA = samples()
KEY = jax.random.key(7)
OPTIMIZER = optax.adam(1e-2)


def quick(op=None, data=DATA, **changes):
    arguments = {"loss": losses.mse, "optimizer": OPTIMIZER, "num_epochs": 2, "batch_size": 4, "key": KEY,
                 "progress": False}  # fmt: skip
    return fit(Pointwise(2, 3, key=jax.random.key(1)) if op is None else op, data, **{**arguments, **changes})


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def by_hand(op, data, loss, optimizer, num_epochs, batch_size, key, drop_last=False):
    """The textbook loop, batch by batch."""
    x, y = (jnp.asarray(a) for a in data)
    state, history = optimizer.init(op), []

    @jax.jit
    def step(op, state, u, v):
        value, grad = jax.value_and_grad(lambda op: jnp.mean(jax.vmap(loss)(jax.vmap(op)(u), v)))(op)
        updates, state = optimizer.update(grad, state, op)
        return optax.apply_updates(op, updates), state, value

    for epoch in range(num_epochs):
        order = jax.random.permutation(jax.random.fold_in(key, epoch), len(x))
        total, count = 0.0, 0
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            if drop_last and len(rows) < batch_size:
                break
            op, state, value = step(op, state, x[rows], y[rows])
            total, count = total + float(value) * len(rows), count + len(rows)
        history.append(total / count)
    return op, np.array(history)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_fit_is_the_textbook_loop(lazy, drop_last):
    op = Pointwise(2, 3, key=jax.random.key(1))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(0.05, 20)))
    expected, history = by_hand(op, DATA, losses.relative_l2, optimizer, 5, 4, KEY, drop_last)
    got, told = quick(op, Source(*DATA) if lazy else DATA, loss=losses.relative_l2, optimizer=optimizer, num_epochs=5,
                      drop_last=drop_last)  # fmt: skip
    np.testing.assert_allclose(got.weight, expected.weight, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told.loss, history, rtol=1e-5)
    assert told.seconds.shape == (5,)
    assert np.all(told.seconds > 0)
    assert told.validation is None


def test_fit_finds_the_least_squares_solution():
    x, y = DATA
    design = x.transpose(0, 2, 1).reshape(-1, 2)
    expected = np.linalg.lstsq(design, y.transpose(0, 2, 1).reshape(-1, 3), rcond=None)[0].T
    op, history = quick(optimizer=optax.sgd(0.3), batch_size=10, num_epochs=150)
    np.testing.assert_allclose(op.weight, expected, atol=1e-4)
    assert history.loss[-1] < history.loss[0] / 100


def test_a_lazy_source_gives_the_same_as_its_arrays_and_is_read_in_a_thread():
    data = samples(50)  # 13 batches of 4: more than one feed, and a last one that is filled up
    source = Source(*data)
    a, told_a = quick(data=data)
    b, told_b = quick(data=source, validation=Source(*data))
    np.testing.assert_allclose(a.weight, b.weight, rtol=1e-6)
    np.testing.assert_allclose(told_a.loss, told_b.loss, rtol=1e-6)
    assert "neuralops-read-ahead" in source.threads
    assert not [t for t in threading.enumerate() if t.name == "neuralops-read-ahead"]


def test_read_ahead_hands_over_errors_and_stops_when_left():
    def items():
        yield 1
        raise OSError("disk")

    stream = read_ahead(items())
    assert next(stream) == 1
    with pytest.raises(OSError, match="disk"):
        next(stream)
    drawn = []
    stream = read_ahead(drawn.append(i) or i for i in range(1000))
    assert next(stream) == 0
    stream.close()
    assert len(drawn) < 10
    assert not [t for t in threading.enumerate() if t.name == "neuralops-read-ahead"]


def test_the_operator_and_the_arrays_given_stay_usable():
    op = Pointwise(2, 3, key=KEY)
    before = np.array(op.weight)
    data = tuple(jnp.asarray(a) for a in DATA)
    fitted, history = quick(op, data)
    np.testing.assert_array_equal(op.weight, before)
    assert jnp.all(jax.vmap(op)(data[0]).shape == data[1].shape)
    for result in (fitted, history.best):
        assert jax.vmap(result)(data[0]).shape == data[1].shape


def test_nothing_is_compiled_twice():
    traces = []

    def loss(p, t):
        traces.append(1)
        return losses.mse(p, t)

    quick(loss=loss)
    once = len(traces)
    quick(Pointwise(2, 3, key=jax.random.key(5)), samples(seed=1), loss=loss, num_epochs=3)
    assert len(traces) == once
    evaluate(Pointwise(2, 3, key=KEY), DATA, metrics=loss)
    once = len(traces)
    evaluate(Pointwise(2, 3, key=KEY), samples(seed=2), metrics=loss)
    assert len(traces) == once


def test_validation_is_evaluate_and_the_best_is_kept():
    test = samples(7, seed=3)
    reports = []
    op, history = quick(num_epochs=6, optimizer=optax.sgd(0.9, momentum=0.9), validation=test,
                        metrics=(metrics.max_error,),
                        callback=lambda epoch, report: reports.append((epoch, report)))  # fmt: skip
    assert [epoch for epoch, _ in reports] == list(range(6))
    for epoch, report in reports:
        result = evaluate(report["op"], test, metrics=(losses.mse, metrics.max_error))
        assert history.validation[epoch] == pytest.approx(result["mse"].mean(), rel=1e-6)
        assert history.metrics["max_error"][epoch] == pytest.approx(result["max_error"].mean(), rel=1e-6)
        assert report["validation"] == history.validation[epoch]
        assert report["loss"] == history.loss[epoch]
    assert history.best_epoch == np.argmin(history.validation) != 5  # momentum this large overshoots
    assert_same(history.best, reports[history.best_epoch][1]["op"])
    assert_same(op, reports[-1][1]["op"])


def test_a_callback_that_says_true_ends_the_training():
    _, history = quick(num_epochs=50, callback=lambda epoch, report: epoch == 3)
    assert len(history.loss) == 4
    assert history.stopped == "callback"


def test_control_c_returns_the_last_finished_epoch(tmp_path):
    def interrupt(epoch, report):
        if epoch == 2:
            raise KeyboardInterrupt

    op, history = quick(num_epochs=50, callback=interrupt, checkpoint=tmp_path)
    assert history.stopped == "interrupted"
    assert_same(op, quick(num_epochs=3)[0])
    resumed, _ = quick(num_epochs=5, checkpoint=tmp_path, resume=True)
    assert_same(resumed, quick(num_epochs=5)[0])


def exploding(step):
    return jnp.where(step == 6, 1e38, 1e-2)


def test_nan_stops_with_the_step_and_the_last_good_operator(tmp_path):
    """Three steps an epoch; the update of step 6 (epoch 2, step 0) throws the weights far away."""
    with pytest.raises(DivergedError, match="epoch 2, step 1") as caught:
        quick(optimizer=optax.sgd(exploding), num_epochs=9, checkpoint=tmp_path)
    error = caught.value
    assert isinstance(error, FloatingPointError)
    assert (error.epoch, error.step, len(error.history.loss)) == (2, 1, 2)
    good, _ = quick(optimizer=optax.sgd(exploding), num_epochs=2)
    assert_same(error.op, good)
    assert_same(checkpoint.load(tmp_path / "best.safetensors", like=good), error.history.best)
    resumed, history = quick(optimizer=optax.sgd(exploding), num_epochs=2, checkpoint=tmp_path, resume=True)
    assert_same(resumed, good)
    assert np.isfinite(history.loss).all()


def test_parameters_that_end_an_epoch_at_infinity_are_noticed():
    schedule = lambda step: jnp.where(step == 2, jnp.inf, 1e-2)
    with pytest.raises(DivergedError, match="parameters after epoch 0") as caught:
        quick(optimizer=optax.sgd(schedule))
    assert caught.value.step is None
    np.testing.assert_array_equal(caught.value.op.weight, Pointwise(2, 3, key=jax.random.key(1)).weight)


def test_a_declared_projection_follows_every_step():
    x = np.ones((4, 1, 3), np.float32)
    seen = []
    op, _ = quick(NonNegative(jnp.ones(())), (x, -x), optimizer=optax.sgd(0.2), num_epochs=4,
                  callback=lambda epoch, report: seen.append(float(report["op"].weight)))  # fmt: skip
    assert seen[0] == pytest.approx(0.2)  # 1 - 0.2 * 2 * (1 + 1)
    assert seen[1:] == [0.0, 0.0, 0.0]
    assert float(op.weight) == 0
    inside, _ = quick(Normalized(NonNegative(jnp.ones(()))), (x, -x), optimizer=optax.sgd(0.2), num_epochs=4)
    assert float(inside.op.weight) == 0  # of what is wrapped too


OPTIMIZERS = {
    "extra arguments": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
    "line search": optax.lbfgs(memory_size=3),
    "accumulation": optax.MultiSteps(optax.adam(1e-2), 2),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(1e-2, 0.0, 10)),
    "random": optax.chain(optax.add_noise(0.01, 0.5, jax.random.key(3)), optax.sgd(0.05)),
    "masked": optax.masked(optax.sgd(0.1), lambda op: jax.tree.map(lambda _: True, op)),
    "average": optax.chain(optax.sgd(0.1), optax.ema(0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optax_transformation_trains_and_resumes_to_the_bit(name, tmp_path):
    optimizer = OPTIMIZERS[name]
    whole, history = quick(optimizer=optimizer, num_epochs=4)
    assert history.loss[-1] < history.loss[0]
    quick(optimizer=optimizer, num_epochs=2, checkpoint=tmp_path)
    resumed, told = quick(optimizer=optimizer, num_epochs=4, checkpoint=tmp_path, resume=True)
    assert_same(resumed, whole)
    np.testing.assert_array_equal(told.loss, history.loss)
    assert told.best_epoch == history.best_epoch
    assert_same(told.best, history.best)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from test_training import fno_run
fno_run({folder!r}, resume=False, num_epochs=100000)
"""


def fno_run(folder, *, resume, num_epochs, **changes):
    op = FNO((6,), 1, 1, 6, n_layers=1, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (22, 1, 24))
    arguments = {
        "loss": losses.h1(Grid((24,))),
        "optimizer": optax.adamw(1e-3),
        "num_epochs": num_epochs,
        "batch_size": 4,
        "key": jax.random.key(2),
        "progress": False,
        "validation": (x[:5], x[:5] ** 2),
    }
    if folder is not None:
        arguments |= {"checkpoint": folder, "resume": resume}
    return fit(op, (x, x**2), **{**arguments, **changes})


@pytest.mark.slow  # two processes that start, compile and are killed
def test_a_killed_run_resumes_to_the_bit(tmp_path):
    """SIGKILL at an arbitrary moment, twice in a row; then the end is that of a run left alone."""
    folder, state = tmp_path / "run", tmp_path / "run" / "state.safetensors"
    script = SCRIPT.format(here=os.path.dirname(__file__), folder=str(folder))
    reached = 0
    for attempt in range(2):
        code = script if attempt == 0 else script.replace("resume=False", "resume=True")
        process = subprocess.Popen([sys.executable, "-c", code], cwd=os.getcwd())
        before = state.stat().st_mtime_ns if state.exists() else None
        deadline = time.monotonic() + 240
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.05 + 0.037 * attempt)  # epochs take milliseconds: this lands anywhere in one, or in a write
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        _, history = fno_run(folder, resume=True, num_epochs=1)  # only reads: that many epochs are done
        assert len(history.loss) > reached
        reached = len(history.loss)
    resumed, told = fno_run(folder, resume=True, num_epochs=reached + 2)
    whole, history = fno_run(None, resume=False, num_epochs=reached + 2)
    assert_same(resumed, whole)
    np.testing.assert_array_equal(told.loss, history.loss)
    np.testing.assert_array_equal(told.validation, history.validation)
    assert_same(told.best, history.best)
    assert_same(checkpoint.load(folder / "best.safetensors"), history.best)
    assert sorted(p.name for p in folder.iterdir()) == ["best.safetensors", "state.safetensors"]


def test_checkpoints_every_few_epochs_and_at_the_end(tmp_path):
    written = []
    quick(num_epochs=5, checkpoint=tmp_path, checkpoint_every=2,
          callback=lambda epoch, report: written.append((tmp_path / "state.safetensors").exists()))  # fmt: skip
    assert written == [False, True, True, True, True]
    _, history = quick(num_epochs=5, checkpoint=tmp_path / "stopped", checkpoint_every=4,
                       callback=lambda epoch, report: epoch == 1)  # fmt: skip
    assert len(quick(num_epochs=1, checkpoint=tmp_path / "stopped", resume=True)[1].loss) == len(history.loss) == 2
    op, history = quick(num_epochs=5, checkpoint=tmp_path, resume=True)  # nothing is left to do
    assert len(history.loss) == 5
    assert_same(op, quick(num_epochs=5)[0])


def test_another_run_is_not_resumed(tmp_path):
    quick(checkpoint=tmp_path)
    op = Pointwise(2, 3, key=KEY)
    for changes, words in (
        ({"batch_size": 5}, "batch_size = 4, now it is 5"),
        ({"key": jax.random.key(8)}, "had key"),
        ({"data": samples(11)}, "had num_samples = 10, now it is 11"),
        ({"data": samples(points=7)}, "had shapes"),
        ({"drop_last": True}, "had drop_last"),
        ({"validation": DATA}, "had validated"),
        ({"optimizer": optax.sgd(0.1)}, "another optimizer"),
        ({"optimizer": optax.adam(1e-2, mu_dtype=jnp.bfloat16)}, "another optimizer.*bfloat16"),
        ({"op": NonNegative(jnp.ones((3, 1))), "data": (DATA[0][:, :1], DATA[1])}, "had shapes|another op"),
        ({"op": jax.tree.map(lambda x: x.astype(jnp.float16), op)}, "another op"),
    ):
        with pytest.raises(ValueError, match=words):
            quick(checkpoint=tmp_path, resume=True, **changes)
    with pytest.raises(ValueError, match="which holds one; pass resume=True"):
        quick(checkpoint=tmp_path)
    for name in ("state", "best"):
        path = tmp_path / f"{name}.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:-3])
        with pytest.raises(ValueError, match="cut short"):
            quick(checkpoint=tmp_path, resume=True)
        path.write_bytes(whole)
    with pytest.raises(ValueError, match="expected operator"):
        checkpoint.load(tmp_path / "state.safetensors")


def test_the_best_checkpoint_of_a_library_operator_loads_by_itself(tmp_path):
    _, history = fno_run(tmp_path, resume=True, num_epochs=2)
    assert_same(checkpoint.load(tmp_path / "best.safetensors"), history.best)


def test_any_callable_pytree_is_trained():
    apply = lambda params, u: jnp.einsum("oi,in->on", params["dense"]["kernel"], u) + params["bias"][:, None]
    params = {"dense": {"kernel": jnp.zeros((3, 2))}, "bias": jnp.zeros(3)}
    op, history = quick(jax.tree_util.Partial(apply, params), optimizer=optax.adam(0.1), num_epochs=60)
    assert history.loss[-1] < 0.05
    assert op(DATA[0][0]).shape == (3, 6)


def test_double_precision_is_kept(x64):
    x, y = (a.astype(np.float64) for a in samples(noise=0.0))
    for data in ((x, y), Source(x, y)):
        op, history = quick(data=data, optimizer=optax.sgd(0.4), batch_size=10, num_epochs=300)
        assert op.weight.dtype == jnp.float64
        assert history.loss[-1] < 1e-13  # beyond what float32 labels allow


def test_data_take_the_precision_of_the_operator():
    x, y = (a.astype(np.float64) for a in DATA)
    assert quick(data=(x, y))[0].weight.dtype == jnp.float32


def test_a_half_precision_operator_is_judged_against_the_full_truth():
    x, y = DATA
    op = jax.tree.map(lambda w: w.astype(jnp.bfloat16), Pointwise(2, 3, key=KEY))
    prediction = np.asarray(jax.vmap(op)(jnp.asarray(x, jnp.bfloat16)), np.float32)
    for data in (DATA, Source(x, y)):
        worst = evaluate(op, data, metrics=metrics.max_error)["max_error"]
        np.testing.assert_array_equal(worst, np.abs(prediction - y).max((1, 2)))
    fitted, history = quick(op, num_epochs=5)
    assert fitted.weight.dtype == jnp.bfloat16
    assert history.loss[-1] < history.loss[0]


def test_progress_false_is_silent_and_true_shows_loss(capfd):
    quick()
    assert capfd.readouterr() == ("", "")
    quick(progress=True, validation=DATA)
    shown = capfd.readouterr().err
    assert "epoch 2/2" in shown
    assert "validation=" in shown
    assert "6/6" in shown


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
@pytest.mark.parametrize("lazy", [False, True])
def test_evaluate_gives_each_sample_its_number_in_order(lazy, batch_size):
    op = Pointwise(2, 3, key=KEY)
    x, y = DATA
    e = np.einsum("oi,bin->bon", np.asarray(op.weight), x) - y
    result = evaluate(op, Source(x, y) if lazy else DATA, batch_size=batch_size,
                      metrics={"mine": losses.relative_l2, "worst": metrics.max_error})  # fmt: skip
    expected = np.linalg.norm(e.reshape(10, -1), axis=1) / np.linalg.norm(y.reshape(10, -1), axis=1)
    np.testing.assert_allclose(result["mine"], expected, rtol=1e-5)
    np.testing.assert_allclose(result["worst"], np.abs(e).max((1, 2)), rtol=1e-5)
    assert all(isinstance(value, np.ndarray) for value in result.values())


def test_evaluate_takes_functions_and_losses_with_options():
    x, _ = DATA
    grid = Grid((6,))
    result = evaluate(lambda u: 2 * u, (x, x), metrics=[losses.relative_l2, losses.h1(grid)])
    np.testing.assert_allclose(result["relative_l2"], 1, rtol=1e-6)
    np.testing.assert_allclose(result["relative_h1"], 1, rtol=1e-6)
    assert list(evaluate(lambda u: u, (x, x))) == ["relative_l2"]
    many = samples(123)[0]  # several groups of batches
    np.testing.assert_array_equal(
        evaluate(lambda u: 0 * u, (many, many), metrics=metrics.max_error, batch_size=5)["max_error"],
        np.abs(many).max((1, 2)),
    )


X, Y = DATA
NAN = np.where(np.arange(10)[:, None, None] == 3, np.nan, X)
BAD = {
    "counts differ": (lambda: quick(data=(X, Y[:-1])), "data: expected as many inputs as outputs"),
    "NaN in the inputs": (lambda: quick(data=(NAN, Y)), "data.inputs: expected finite numbers.*3"),
    "infinite outputs": (lambda: quick(data=(X, Y * np.inf)), "data.outputs: expected finite numbers"),
    "NaN in a source": (lambda: quick(data=Source(NAN, Y)), r"data\[3\].inputs: expected finite numbers"),
    "grids change": (lambda: quick(data=Source([*X[:5], *X[5:, :, :4]], Y)), "expected inputs of shape"),
    "integers": (lambda: quick(data=(X.astype(int), Y)), "data.inputs: expected a real floating dtype"),
    "truth values in a source": (lambda: quick(data=Source(X > 0, Y)), r"data\[0\].inputs: expected a real floating"),
    "no channel axis": (lambda: quick(data=(X[:, 0], Y)), "data.inputs: expected an array"),
    "one array": (lambda: quick(data=X), "data: expected Samples or a pair"),
    "no samples": (lambda: quick(data=Source([], [])), "data: expected at least one sample"),
    "other items": (lambda: quick(data=Source.__new__(List)), r"data\[0\].inputs: expected an array"),
    "channels of the operator": (lambda: quick(data=(X[:, :1], Y)), "u: expected 2 channels"),
    "channels of the outputs": (lambda: quick(data=(X, Y[:, :2])), "data: expected outputs of shape"),
    "validation on another grid": (lambda: quick(validation=(X, Y[..., :3])), "validation: expected outputs of shape"),
    "NaN in validation": (lambda: quick(validation=(NAN, Y)), "validation.inputs: expected finite"),
    "batch too large": (lambda: quick(batch_size=11), "batch_size: expected at most the 10 samples"),
    "batch of none": (lambda: quick(batch_size=0), "batch_size: expected a positive integer"),
    "half an epoch": (lambda: quick(num_epochs=0.5), "num_epochs: expected a positive integer"),
    "no epochs": (lambda: quick(num_epochs=0), "num_epochs: expected a positive integer"),
    "an uncalled optimiser": (lambda: quick(optimizer=optax.adam), "optimizer: expected an optax transformation"),
    "a seed for a key": (lambda: quick(key=0), "key: expected one random key"),
    "many keys": (lambda: quick(key=jax.random.split(KEY)), "key: expected one random key"),
    "a loss per point": (lambda: quick(loss=lambda p, t: (p - t) ** 2), "loss: expected one real number"),
    "a word for a loss": (lambda: quick(loss="mse"), "loss: expected a function"),
    "no callable": (lambda: quick(op=3), "op: expected a callable"),
    "no parameters": (lambda: quick(op=lambda u: u), "op: expected a callable pytree with arrays"),
    "integer parameters": (lambda: quick(op=jax.tree_util.Partial(jnp.add, jnp.arange(3))), "real floating leaves"),
    "resume from nowhere": (lambda: quick(resume=True), "resume: expected a folder"),
    "metrics without data": (lambda: quick(metrics=losses.mse), "metrics: they are taken on validation data"),
    "a word for a metric": (lambda: evaluate(lambda u: u, (X, X), metrics="mse"), "metrics: expected functions"),
    "no metrics": (lambda: evaluate(lambda u: u, (X, X), metrics=()), "metrics: expected at least one"),
    "a reserved name": (lambda: quick(validation=DATA, metrics={"loss": losses.mse}), "free names"),
    "two of one name": (lambda: evaluate(lambda u: u, (X, X), metrics=[losses.l2(), losses.l2(eps=1.0)]), "distinct"),
    "evaluation of NaN": (lambda: evaluate(lambda u: u, (NAN, X)), "data.inputs: expected finite"),
    "evaluation in batches of 0": (lambda: evaluate(lambda u: u, (X, X), batch_size=0), "batch_size: expected a pos"),
}  # fmt: skip


class List(Source):
    def __init__(self):
        pass

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return [1, 2]


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()


class Convolution(AbstractOperator):
    """A circular 3-point convolution, the smallest operator that XLA lowers to one."""

    weight: jax.Array

    @property
    def envelope(self):
        return Envelope((1,), ("periodic",), "grid-locked")

    def __call__(self, u, /, *, key=None):
        padded = jnp.concatenate([u[:, -1:], u, u[:, :1]], 1)
        return jax.lax.conv_general_dilated(padded[None], self.weight, (1,), "VALID")[0]


def test_convolutions_are_stepped_outside_the_loop():
    """Their gradients are slow inside a loop on a CPU; the steps are the same ones, checked against NumPy's."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(6, 1, 8)).astype(np.float32), np.array([0.5, -1.0, 0.25])
    y = sum(w[k] * np.roll(x, 1 - k, -1) for k in range(3)).astype(np.float32)
    op = Convolution(jnp.zeros((1, 1, 3)))
    batch = Samples(jnp.asarray(x), jnp.asarray(y))
    assert not check_objective(op, losses.supervised(losses.mse), batch, ())[1]
    fitted, _ = fit(
        op, (x, y), loss=losses.mse, optimizer=optax.sgd(0.3), num_epochs=60, batch_size=6, key=jax.random.key(0),
        progress=False,
    )  # fmt: skip
    weight = np.zeros(3)
    for _ in range(60):
        error = sum(weight[k] * np.roll(x, 1 - k, -1) for k in range(3)) - y
        weight -= 0.3 * np.array([2 * np.mean(error * np.roll(x, 1 - k, -1)) for k in range(3)])
    np.testing.assert_allclose(fitted.weight[0, 0], weight, atol=1e-5)


def test_nan_outside_the_mask_of_a_loss_is_harmless():
    """Where every loss and metric has a mask of its own, the outputs may hold anything elsewhere."""
    inside = np.arange(X.shape[-1]) < 4
    holes = np.where(inside, Y, np.nan)
    masked = losses.Bound(losses.mse, mask=inside)
    with_nan, history = quick(data=(X, holes), loss=masked, validation=(X, holes), metrics={"again": masked})
    without, _ = quick(data=(X, np.where(inside, Y, 0)), loss=masked)
    assert_same(with_nan, without)
    assert np.isfinite(history.metrics["again"]).all()
    assert np.isfinite(evaluate(with_nan, (X, holes), metrics=masked)["mse"]).all()
    with pytest.raises(ValueError, match=r"data\.outputs: expected finite numbers"):
        evaluate(with_nan, (X, holes), metrics={"masked": masked, "whole": losses.mse})
    with pytest.raises(ValueError, match=r"data\.inputs: expected finite numbers"):
        quick(data=(np.where(inside, X, np.nan), Y), loss=masked)  # the operator would spread it


def test_a_file_is_no_folder_for_a_run(tmp_path, monkeypatch):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="checkpoint: expected a folder, got the file"):
        quick(checkpoint=tmp_path / "run")
    monkeypatch.setenv("HOME", str(tmp_path))
    quick(checkpoint="~/home")
    assert (tmp_path / "home" / "state.safetensors").is_file()
