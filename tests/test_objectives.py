"""Objectives: what they carry, what they see, and that a loss is one of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neuralops import losses, metrics, pde
from neuralops.data import Samples
from neuralops.training import evaluate, fit

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 1, 6)).astype(np.float32)
Y = (0.5 * X + 0.1 * RNG.normal(size=X.shape)).astype(np.float32)


class Scale(eqx.Module):
    """u -> factor * u, the smallest operator that can be trained."""

    factor: jax.Array

    def __call__(self, u):
        return self.factor * u


def train(op, data, **options):
    options = {"optimizer": optax.sgd(0.1), "num_epochs": 2, "batch_size": 5, "key": KEY, "progress": False} | options
    return fit(op, data, **options)


def start():
    return Scale(jnp.float32(0.2))


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_loss_is_the_supervised_objective():
    by_loss, first = train(start(), (X, Y), loss=losses.l2(), batch_size=4, validation=(X, Y))
    by_objective, second = train(start(), (X, Y), objective=losses.supervised(losses.l2()), batch_size=4,
                                 validation=(X, Y))  # fmt: skip
    assert same(by_loss, by_objective)
    np.testing.assert_array_equal(first.loss, second.loss)
    np.testing.assert_array_equal(first.validation, second.validation)


def test_the_last_batch_is_smaller_and_never_filled_up():
    sizes = []

    def objective(op, batch, *, key):
        sizes.append(batch.inputs.shape[0])
        return jnp.sum(op.factor * batch.inputs[:, 0, 0])  # a sum, which filled-up rows would change

    op, _ = train(start(), (X, Y), objective=objective, batch_size=4, num_epochs=1)
    assert set(sizes) == {4, 2}
    # Plain SGD on a linear sum: every sample moves the factor once, whatever the batches.
    np.testing.assert_allclose(op.factor, 0.2 - 0.1 * X[:, 0, 0].sum(), rtol=1e-5)
    sizes.clear()
    train(start(), (X, Y), objective=lambda *a, key: objective(*a, key=key), batch_size=4, num_epochs=1, drop_last=True)
    assert set(sizes) == {4}


class Profile(eqx.Module):
    """u(x) = a x (1 - x) N(x) for an amplitude a, asked for at any points."""

    net: eqx.nn.MLP

    def __call__(self, a, query):
        shape = query * (1 - query) * jax.vmap(self.net, in_axes=1, out_axes=1)(2 * query - 1)
        return a[:, :1] * shape


def test_physics_at_collocation_points_drawn_anew_each_step():
    """-u'' = a pi^2 sin(pi x) with u = 0 at both ends is solved by a sin(pi x), which nobody tells the network."""

    def objective(op, batch, *, key):
        points = jax.random.uniform(key, (1, 16))

        def residual(a):
            u = lambda x: op(a, query=x[None, None])[0, 0]
            second = jax.vmap(jax.grad(jax.grad(u)))(points[0])
            return second / np.pi**2 + a[0, 0] * jnp.sin(np.pi * points[0])

        return jnp.mean(jax.vmap(residual)(batch.inputs) ** 2)

    amplitudes = RNG.uniform(0.5, 2, size=(20, 1, 1)).astype(np.float32)
    net = eqx.nn.MLP(1, 1, 16, 1, activation=jnp.tanh, key=KEY)
    op, history = train(Profile(net), Samples(amplitudes), objective=objective, optimizer=optax.adam(1e-2),
                        num_epochs=150, batch_size=10)  # fmt: skip
    x = np.linspace(0, 1, 33, dtype=np.float32)[None]
    exact = 1.5 * np.sin(np.pi * x)
    error = np.abs(op(np.full((1, 1), 1.5, np.float32), query=jnp.asarray(x)) - exact).max()
    assert error < 0.03 * 1.5
    assert history.loss[-1] < 1e-2 * history.loss[0]


def test_noise_drawn_per_step_trains_wieners_denoiser():
    """Of clean + noise, the best linear guess of clean is var / (var + noise variance) of it."""
    clean, sigma = RNG.normal(size=(400, 1, 8)).astype(np.float32), 0.7

    def objective(op, batch, *, key):
        noisy = batch.inputs + sigma * jax.random.normal(key, batch.inputs.shape)
        return jnp.mean((losses.predict(op, batch.replace(inputs=noisy)) - batch.inputs) ** 2)

    op, _ = train(start(), Samples(clean), objective=objective, num_epochs=20, batch_size=100)
    assert float(op.factor) == pytest.approx(clean.var() / (clean.var() + sigma**2), rel=0.03)


def test_the_sum_of_the_largest_residuals_of_a_batch():
    def objective(op, batch, *, key):
        errors = jax.vmap(losses.mse)(losses.predict(op, batch), batch.outputs)
        return jnp.sum(jax.lax.top_k(errors, 3)[0])

    op, _ = train(start(), (X, Y), objective=objective, batch_size=10, num_epochs=1)
    errors = ((0.2 * X - Y) ** 2).mean((1, 2))
    worst = np.argsort(errors)[-3:]
    gradient = (2 * (0.2 * X - Y) * X).mean((1, 2))[worst].sum()
    assert float(op.factor) == pytest.approx(0.2 - 0.1 * gradient, rel=1e-5)


def test_losses_with_weights_are_all_reported():
    objective = losses.weighted_sum(
        {"fit": losses.supervised(losses.mse), "size": lambda op, batch, *, key: op.factor**2}, weights={"size": 0.25}
    )
    seen = []
    op, history = train(start(), (X, Y), objective=objective, batch_size=10, num_epochs=3,
                        callback=lambda epoch, report: seen.append(report))  # fmt: skip
    factor = 0.2
    for epoch in range(3):
        mse = ((factor * X - Y) ** 2).mean()
        assert history.reports["fit"][epoch] == pytest.approx(mse, rel=1e-5) == seen[epoch]["fit"]
        assert history.reports["size"][epoch] == pytest.approx(factor**2, rel=1e-5)
        assert history.loss[epoch] == pytest.approx(mse + 0.25 * factor**2, rel=1e-5)
        factor -= 0.1 * ((2 * (factor * X - Y) * X).mean() + 0.5 * factor)
    assert float(op.factor) == pytest.approx(factor, rel=1e-5)


def test_an_adversarial_and_an_energy_loss_that_need_the_operator():
    def objective(op, batch, *, key):
        def one(u, v):
            attack = jax.grad(lambda u: losses.mse(op(u), v))(u)  # the worst direction, by the operator itself
            worst = u + 0.1 * jnp.sign(jax.lax.stop_gradient(attack))
            energy = jnp.mean(jnp.diff(op(u)) ** 2)
            return losses.mse(op(worst), v) + energy

        return jnp.mean(jax.vmap(one)(batch.inputs, batch.outputs))

    op, _ = train(start(), (X, Y), objective=objective, batch_size=10, num_epochs=1)
    f = 0.2
    worst = X + 0.1 * np.sign(f * (f * X - Y))
    gradient = (2 * (f * worst - Y) * worst).mean() + (2 * f * np.diff(X) ** 2).mean()
    assert float(op.factor) == pytest.approx(f - 0.1 * gradient, rel=1e-5)


def draws(op, batch, *, key):
    draw = jax.random.uniform(key)
    return (op.factor - draw) ** 2, {"draw": draw}


def test_the_key_is_new_at_every_step_and_the_same_after_a_resume(tmp_path):
    options = {"objective": draws, "batch_size": 5, "optimizer": optax.adam(0.1), "average": 0.5}
    whole, history = train(start(), Samples(X), num_epochs=6, **options)
    assert len(set(history.reports["draw"])) == 6
    train(start(), Samples(X), num_epochs=3, checkpoint=tmp_path, **options)
    resumed, again = train(start(), Samples(X), num_epochs=6, checkpoint=tmp_path, resume=True, **options)
    assert same(whole, resumed)
    assert same(history.iterate, again.iterate)
    np.testing.assert_array_equal(history.reports["draw"], again.reports["draw"])
    one_step, fine = train(start(), Samples(X), num_epochs=6, **options | {"batch_size": 10})
    assert len(set(fine.reports["draw"])) == 6
    assert not same(whole, one_step)


def test_physics_of_a_problem_is_its_mean_squared_relative_residual():
    problem = pde.Poisson(8)
    f = np.stack([problem.sample(jax.random.key(i)) for i in range(6)])
    objective = losses.physics(problem)
    _, history = train(start(), Samples(f), objective=objective, batch_size=6, num_epochs=40, validation=Samples(f),
                        optimizer=optax.adam(0.02))  # fmt: skip
    residual = [float(problem.relative_residual(jnp.asarray(a), 0.2 * jnp.asarray(a))) for a in f]
    assert history.loss[0] == pytest.approx(np.mean(np.square(residual)), rel=1e-4)
    assert history.validation[-1] < history.loss[0]
    assert objective == losses.physics(problem)  # found again by value


def test_the_optimisers_state_comes_back():
    """Schedule-free SGD means other parameters than it iterates on; its state tells which."""
    optimizer = optax.contrib.schedule_free_sgd(0.05)
    op, history = train(start(), (X, Y), loss=losses.mse, optimizer=optimizer, batch_size=10, num_epochs=5)
    by_hand, state = jnp.float32(0.2), optimizer.init(jnp.float32(0.2))
    for _ in range(5):
        grad = jax.grad(lambda f: jnp.mean((f * X - Y) ** 2))(by_hand)
        updates, state = optimizer.update(grad, state, by_hand)
        by_hand = optax.apply_updates(by_hand, updates)
    wanted = optax.contrib.schedule_free_eval_params(state, by_hand)
    assert float(optax.contrib.schedule_free_eval_params(history.optimizer_state, op).factor) == pytest.approx(
        float(wanted), rel=1e-5
    )
    assert float(op.factor) == pytest.approx(float(by_hand), rel=1e-5)


def test_the_average_of_the_parameters_is_judged_kept_and_returned(tmp_path):
    def run(**options):
        return train(start(), (X, Y), loss=losses.mse, optimizer=optax.sgd(0.3), batch_size=10, num_epochs=8,
                     average=0.6, validation=(X, Y), **options)  # fmt: skip

    op, history = run()
    factor, average = 0.2, 0.2
    for step in range(8):
        factor -= 0.3 * (2 * (factor * X - Y) * X).mean()
        average += max(1 - 0.6, 1 / (step + 1)) * (factor - average)
    assert float(op.factor) == pytest.approx(average, rel=1e-4)
    assert float(history.iterate.factor) == pytest.approx(factor, rel=1e-4)
    assert history.validation[-1] == pytest.approx(((average * X - Y) ** 2).mean(), rel=1e-4)
    run(checkpoint=tmp_path)
    from neuralops import load

    assert same(load(tmp_path / "best.safetensors", like=op), history.best)


def test_any_pytree_of_arrays_is_data_for_an_objective():
    def objective(op, batch, *, key):
        return jnp.mean(batch["weight"] * jnp.mean((op(batch["a"]) - batch["b"]) ** 2, (1, 2)))

    weight = RNG.uniform(size=10).astype(np.float32)
    _, history = train(start(), {"a": X, "b": Y, "weight": weight}, objective=objective, batch_size=10, num_epochs=1)
    assert history.loss[0] == pytest.approx((weight * ((0.2 * X - Y) ** 2).mean((1, 2))).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="data: expected a mapping with 'inputs' and 'outputs'"):
        train(start(), {"a": X, "b": Y}, loss=losses.mse)


class Items:
    """A data set as torch knows it: `len` and integer indexing."""

    def __init__(self, item):
        self.item = item

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.item(i)


@pytest.mark.parametrize(
    "item", [lambda i: {"x": X[i], "y": Y[i]}, lambda i: (X[i], Y[i]), lambda i: Samples(X[i], Y[i])],
    ids=["mapping", "pair", "samples"],
)  # fmt: skip
def test_mappings_and_sources_of_other_libraries_are_taken(item):
    by_pair, _ = train(start(), (X, Y), loss=losses.mse)
    assert same(by_pair, train(start(), {"x": X, "y": Y}, loss=losses.mse)[0])
    assert same(by_pair, train(start(), Items(item), loss=losses.mse)[0])


@pytest.mark.parametrize("true", [True, np.True_, np.bool_(1), jnp.asarray(True)], ids=["bool", "numpy", "np", "jax"])
def test_any_true_ends_the_training(true):
    _, history = train(start(), (X, Y), loss=losses.mse, num_epochs=9, callback=lambda epoch, report: true)
    assert history.stopped == "callback"
    assert len(history.loss) == 1


BAD = {
    "neither": (lambda: train(start(), (X, Y)), "loss, objective: expected one of them, got neither"),
    "both": (lambda: train(start(), (X, Y), loss=losses.mse, objective=draws), "expected one of them, got both"),
    "no function": (lambda: train(start(), (X, Y), objective="l2"), "objective: expected a function"),
    "no labels": (lambda: train(start(), Samples(X), loss=losses.mse), "data.outputs: expected what the operator"),
    "many numbers": (lambda: train(start(), (X, Y), objective=lambda op, b, *, key: op(b.inputs)),
                     "objective: expected one real number"),
    "a taken name": (lambda: train(start(), (X, Y), objective=lambda op, b, *, key: (op.factor, {"seconds": 1.0})),
                     "objective: expected reports under free names"),
    "a report of many": (lambda: train(start(), (X, Y), objective=lambda op, b, *, key: (op.factor, {"u": b.inputs})),
                         "objective: expected one real number for 'u'"),
    "no decay": (lambda: train(start(), (X, Y), loss=losses.mse, average=1.5), "average: expected a decay"),
    "an odd answer": (lambda: train(start(), (X, Y), loss=losses.mse, callback=lambda epoch, report: "stop"),
                      "callback: expected True or False"),
    "no terms": (lambda: losses.weighted_sum({}), "terms: expected objectives by name"),
    "an unknown weight": (lambda: losses.weighted_sum({"a": draws}, {"b": 1.0}), "weights: expected names among"),
    "an infinite weight": (lambda: losses.weighted_sum({"a": draws}, {"a": np.inf}), "weights: expected finite"),
    "an uncalled problem": (lambda: losses.physics(pde.Poisson), "problem: expected a Problem"),
    "no steps": (lambda: losses.rollout(0, losses.mse), "num_steps: expected a positive integer"),
    "unequal frames": (lambda: train(start(), (X, np.repeat(Y, 3, 1)), objective=losses.rollout(2, losses.mse)),
                       "data: expected outputs with the frames of 2 steps"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_refused(case):
    call, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        call()


def test_metrics_beside_an_objective_are_those_of_evaluate():
    op, history = train(start(), (X, Y), objective=draws, validation=(X, Y), metrics=(metrics.relative_l2,))
    assert history.metrics["relative_l2"][-1] == pytest.approx(evaluate(op, (X, Y))["relative_l2"].mean(), rel=1e-6)


def test_names_of_ones_own_beside_x_stay_a_mapping():
    """A field called x is no pair when names are there that `Samples` has not."""
    seen = []

    def objective(op, batch, *, key):
        seen.append(sorted(batch))
        return jnp.mean((op(batch["x"]) - batch["points"]) ** 2)

    train(start(), {"x": X, "points": Y}, objective=objective, num_epochs=1)
    assert seen[0] == ["points", "x"]
