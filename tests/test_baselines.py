"""Baselines on masked fields and point clouds against loops in NumPy."""

import inspect

import jax
import numpy as np
import optax
import pytest

import neuralops as no
from neuralops.data import Samples
from neuralops.training import baselines

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(6, c, 4, 3)).astype(np.float32) for c in (1, 2))
MASK = RNG.uniform(size=(6, 4, 3)) < 0.6


def data(inputs, outputs, **parts):
    return Samples(inputs, outputs, **parts)


def hidden(x, mask):
    return np.where(mask[:, None], x, np.nan)


def test_the_mean_over_the_samples_that_count():
    mask = MASK.copy()
    mask[:, 0, 0] = False
    model = baselines.training_mean(data(hidden(X, mask), hidden(Y, mask), mask=mask))
    expected = np.zeros((2, 4, 3))
    for c, i, j in np.ndindex(2, 4, 3):
        values = Y[mask[:, i, j], c, i, j]
        expected[c, i, j] = values.mean() if values.size else 0
    np.testing.assert_allclose(model(X[0]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(baselines.training_mean((X, Y))(X[0]), Y.mean(0), rtol=1e-5, atol=1e-6)


def test_the_closest_input_over_the_points_that_count_in_both():
    model = baselines.nearest_neighbour(data(hidden(X, MASK), hidden(Y, MASK), mask=MASK))
    asked, masks = RNG.normal(size=(8, 1, 4, 3)).astype(np.float32), RNG.uniform(size=(8, 4, 3)) < 0.7
    for u, mask in zip(asked, masks, strict=True):
        distance = [np.mean((x[:, m & mask] - u[:, m & mask]) ** 2) for x, m in zip(X, MASK, strict=True)]
        best = int(np.argmin(distance))
        found = model(np.where(mask, u, np.nan), mask=mask)
        np.testing.assert_allclose(np.asarray(found)[:, MASK[best]], Y[best][:, MASK[best]], rtol=1e-6)


COORDS = (1e-6 * RNG.uniform(size=(6, 2, 10))).astype(np.float32)
VALUES = (1e20 * RNG.normal(size=(6, 1, 10))).astype(np.float32)
INSIDE = np.arange(10) < RNG.integers(5, 11, 6)[:, None]


def brute(features, outputs, asked):
    """Columns are points; each feature over its deviation."""
    shift, spread = features.mean(1, keepdims=True), features.std(1, keepdims=True)
    a, b = (features - shift) / spread, (asked - shift) / spread
    return np.stack([outputs[:, np.argmin(((a - q[:, None]) ** 2).sum(0))] for q in b.T], 1)


def gather(x, mask):
    return np.concatenate([a[:, m] for a, m in zip(x.astype(float), mask, strict=True)], 1)


@pytest.mark.parametrize("entries", [1 << 22, 20])
def test_the_closest_point_of_all_clouds(monkeypatch, entries):
    monkeypatch.setattr(baselines, "ENTRIES", entries)
    out = RNG.normal(size=(6, 2, 10)).astype(np.float32)
    cloud = data(hidden(VALUES, INSIDE), hidden(out, INSIDE), coords=hidden(COORDS, INSIDE), mask=INSIDE)
    model = baselines.nearest_neighbour(cloud)
    u, points = 1e20 * RNG.normal(size=(1, 7)), 1e-6 * RNG.uniform(size=(2, 7))
    features = np.concatenate([gather(COORDS, INSIDE), gather(VALUES, INSIDE)])
    expected = brute(features, gather(out, INSIDE), np.concatenate([points, u]))
    np.testing.assert_allclose(model(u.astype("f4"), coords=points.astype("f4")), expected, rtol=1e-6)
    assert "coords" in inspect.signature(model).parameters
    level = baselines.training_mean(cloud)(u)
    np.testing.assert_allclose(level, np.tile(gather(out, INSIDE).mean(1)[:, None], 7), rtol=1e-5)


def test_outputs_at_points_of_their_own():
    query, out = RNG.uniform(size=(6, 2, 5)).astype(np.float32) * 1e-6, RNG.normal(size=(6, 2, 5)).astype(np.float32)
    counted = np.arange(5) < RNG.integers(2, 6, 6)[:, None]
    cloud = data(hidden(VALUES, INSIDE), hidden(out, counted), coords=COORDS, query=query, mask=INSIDE,
                 query_mask=counted)  # fmt: skip

    def borrow(values, coords, query, inside):
        near = [np.argmin(np.where(inside, ((coords - q[:, None]) ** 2).sum(0), np.inf)) for q in query.T]
        return values[:, near]

    double = [a.astype(float) for a in (VALUES, COORDS, query)]
    at = np.stack([borrow(*sample) for sample in zip(*double, INSIDE, strict=True)])
    features = np.concatenate([gather(query, counted), gather(at, counted)])
    u, points, asked = double[0][0] * 0.9, double[1][0], 1e-6 * RNG.uniform(size=(2, 4))
    mask = np.arange(10) < 6
    expected = brute(features, gather(out, counted), np.concatenate([asked, borrow(u, points, asked, mask)]))
    model = jax.jit(baselines.nearest_neighbour(cloud))
    arrays = [a.astype("f4") for a in (u, points, asked)]
    np.testing.assert_allclose(model(arrays[0], coords=arrays[1], query=arrays[2], mask=mask), expected, rtol=1e-6)
    level = baselines.training_mean(cloud)(arrays[0], query=arrays[2])
    np.testing.assert_allclose(level, np.tile(gather(out, counted).mean(1)[:, None], 4), rtol=1e-5)
    with pytest.raises(ValueError, match=r"data\.coords: expected the points"):
        baselines.nearest_neighbour(data(X, out, query=query))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"data\.mask: expected shape"):
        baselines.training_mean(data(X, Y, mask=MASK[:, :2]))
    with pytest.raises(ValueError, match="NaN"):
        baselines.training_mean(data(X * np.nan, Y, mask=MASK))


def test_baselines_of_clouds_pass_through_fit_and_evaluate():
    """Ragged clouds in, judged where their points count; the mean of the outputs is what least squares trains it to."""
    rng = np.random.default_rng(5)
    where = [rng.uniform(size=(2, n)).astype(np.float32) for n in (5, 9, 7, 6)]
    values = [np.sin(3 * x[:1]) + 0.2 * x[1:] for x in where]
    clouds = no.data.pad([x[1:] for x in where], values, coords=where)
    errors = no.evaluate(baselines.nearest_neighbour(clouds), clouds, metrics=no.metrics.max_error)["max_error"]
    np.testing.assert_allclose(errors, 0, atol=1e-6)  # each point is its own closest
    level = baselines.training_mean(clouds)
    mean = np.concatenate(values, 1).mean()
    errors = no.evaluate(level, clouds, metrics=no.losses.mse)["mse"]
    np.testing.assert_allclose(errors, [((v - mean) ** 2).mean() for v in values], rtol=1e-5)
    trained, history = no.fit(level, clouds, loss=no.losses.mse, optimizer=optax.sgd(0.1), num_epochs=40, batch_size=4,
                              key=jax.random.key(0), progress=False)  # fmt: skip
    best = np.mean([v.mean() for v in values])  # of the loss that weighs samples alike
    np.testing.assert_allclose(trained.args[0], [best], rtol=1e-3)
    assert history.loss[-1] <= history.loss[0]
