"""Trivial predictors that every accuracy table should carry, so that an easy problem cannot flatter a network.

Each is made from training samples (`linear_pod` on one grid without masks) and is a callable pytree from field to
field, accepted wherever an operator is; its arrays are data, not weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.data.samples import check_samples, target_mask
from neuralops.scale import power_of_two
from neuralops.training.norms import scaled

ENTRIES = 1 << 22  # distances held at once by the search over point clouds

__all__ = ["linear_pod", "nearest_neighbour", "training_mean"]


class _Data(NamedTuple):
    """Training data as NumPy arrays, zero where a point does not count; masks `(samples, *points)` or `None`."""

    inputs: np.ndarray
    outputs: np.ndarray
    coords: np.ndarray | None
    query: np.ndarray | None
    mask: np.ndarray | None
    output_mask: np.ndarray | None

    @property
    def places(self) -> np.ndarray | None:
        """Where the outputs are known."""
        return self.coords if self.query is None else self.query

    @property
    def scattered(self) -> bool:
        """Whether every sample has output points of its own, `(samples, ndim, *points)`."""
        return self.places is not None and self.places.ndim == self.outputs.ndim


def _data(data: Any) -> _Data:
    samples = check_samples(data, "data").map(np.asarray, np.asarray)
    inputs, mask = _filled(samples.inputs, samples.mask)
    outputs, output_mask = _filled(samples.outputs, target_mask(samples, batched=True))
    return _Data(inputs, outputs, samples.coords, samples.query, mask, output_mask)


def _filled(x: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    if mask is None:
        return x, None
    mask = np.broadcast_to(mask, (len(x), *x.shape[2:]))
    return np.where(mask[:, None], x, x.dtype.type(0)), mask


def training_mean(data: Any) -> jax.tree_util.Partial:
    """Predicts the mean training output, whatever the input.

    On one set of points the mean over the samples in which a point counts (0 where it counts in none). Where every
    sample has points of its own, the mean of each channel over all points that count, at the points asked.

    `data` is `Samples` or a pair of arrays `(samples, channels, *grid)`, as for the others here.
    """
    found = _data(data)
    outputs, mask = np.asarray(found.outputs, np.float64), found.output_mask
    dtype = found.outputs.dtype
    if mask is None:
        mask = np.ones((len(outputs), *outputs.shape[2:]), bool)
    axes = (0, *range(2, outputs.ndim)) if found.scattered else (0,)
    mean = outputs.sum(axes) / np.maximum(mask[:, None].sum(axes), 1)
    if not found.scattered:
        return jax.tree_util.Partial(_constant, jnp.asarray(mean, dtype))
    return jax.tree_util.Partial(_level if found.query is None else _level_at, jnp.asarray(mean, dtype))


def _constant(output: Array, u: Array) -> Array:
    return output


def _level(mean: Array, u: Array) -> Array:
    return jnp.broadcast_to(mean.reshape((-1,) + (1,) * (u.ndim - 1)), (len(mean), *u.shape[1:]))


def _level_at(mean: Array, u: Array, *, query: Array) -> Array:
    return _level(mean, query)


def nearest_neighbour(data: Any) -> jax.tree_util.Partial:
    """Predicts the output of what is closest among the training data.

    On one set of points: the output of the training input closest in the 2-norm. With masks the distance is the mean
    square over the points that count in both (call it with the `mask` of the input), and infinite if none does.

    Where every sample has points of its own: for each point asked, the output at the training point closest in
    coordinates and input values together, each over its deviation in the training data. Call it with `coords=`; with
    outputs at other points also with `query=`, and a query point takes the input values of the input point closest to
    it (among those inside `mask=`).

    **Raises:** `ValueError` when outputs have points of their own and the inputs have no coordinates.
    """
    found = _data(data)
    if found.scattered:
        return _point_cloud(found)
    arrays = jnp.asarray(found.inputs), jnp.asarray(found.outputs)
    if found.mask is None:
        return jax.tree_util.Partial(_closest, *arrays)
    return jax.tree_util.Partial(_closest_masked, *arrays, jnp.asarray(found.mask[:, None]))


def _closest(inputs: Array, outputs: Array, u: Float[Array, " channels *grid"]) -> Array:
    difference, _ = scaled(inputs - u, False)  # squares of large or small fields leave the range
    return outputs[jnp.argmin(jnp.sum(difference**2, axis=tuple(range(1, inputs.ndim))))]


def _closest_masked(
    inputs: Array, outputs: Array, inside: Array, u: Float[Array, " channels *grid"], *, mask: Array | None = None
) -> Array:
    shared = inside if mask is None else inside & mask
    difference, _ = scaled(jnp.where(shared, inputs - u, 0), False)
    axes = tuple(range(1, inputs.ndim))
    shared_points = jnp.sum(shared, axes)
    distance = jnp.sum(difference**2, axes) / jnp.maximum(shared_points, 1)
    return outputs[jnp.argmin(jnp.where(shared_points == 0, jnp.inf, distance))]


def _point_cloud(data: _Data) -> jax.tree_util.Partial:
    if data.coords is None:
        raise ValueError(
            "data.coords: expected the points of the inputs, because the outputs have points of their own, got None; "
            "give coords (ndim, *points)."
        )
    count, channels = data.inputs.shape[:2]
    coords = np.broadcast_to(data.coords, (count, *data.coords.shape[-data.inputs.ndim + 1 :])).astype(np.float64)
    coords, values = coords.reshape(count, len(coords[0]), -1), data.inputs.reshape(count, channels, -1)
    inside = np.ones((count, coords.shape[-1]), bool) if data.mask is None else data.mask.reshape(count, -1)
    places, at = coords, values
    if data.query is not None:
        places = data.query.astype(np.float64).reshape(count, data.query.shape[1], -1)
        at = np.stack([_borrowed(values[i], coords[i], places[i], inside[i]) for i in range(count)])
    features = np.concatenate([places, at], 1)
    chosen = np.ones((count, places.shape[-1]), bool)
    if data.output_mask is not None:
        chosen = data.output_mask.reshape(count, -1)
    features = np.moveaxis(features, 1, 0)[:, chosen].T  # (points, ndim + channels), what counts only
    outputs = np.moveaxis(data.outputs.reshape(*data.outputs.shape[:2], -1), 1, 0)[:, chosen].T
    shift, largest = features.mean(0), np.abs(features - features.mean(0)).max(0)
    largest = np.where(largest > 0, largest, 1)
    spread = largest * ((features - shift) / largest).std(0)
    spread = np.where(spread > 0, spread, 1)
    arrays = [jnp.asarray(a, jnp.float32) for a in ((features - shift) / spread, shift, spread)]
    function = _closest_point if data.query is None else _closest_query
    return jax.tree_util.Partial(function, *arrays, jnp.asarray(outputs))


def _borrowed(values: Any, coords: Any, query: Any, inside: Any) -> Any:
    """The input values `(channels, queries)` of the input points closest to the queries, all flat."""
    coords, query = jnp.asarray(coords, jnp.float32).T, jnp.asarray(query, jnp.float32).T
    size = power_of_two(jnp.nanmax(jnp.abs(query)))  # squares of micrometres may leave the range
    table = jnp.where(jnp.asarray(inside)[:, None], coords / size, jnp.inf)
    return jnp.asarray(values)[:, _nearest(table, query / size)]


def _nearest(table: Array, asked: Array) -> Array:
    """The row of `table` closest to each of `asked`, with at most about `ENTRIES` distances in memory."""
    one = lambda row: jnp.argmin(jnp.sum((table - row) ** 2, -1))
    return jax.lax.map(one, asked, batch_size=min(max(ENTRIES // len(table), 1), len(asked)))


def _closest_point(
    table: Array, shift: Array, spread: Array, outputs: Array, u: Float[Array, " channels *points"], *, coords: Array
) -> Array:
    features = jnp.concatenate([a.reshape(len(a), -1) for a in (coords, u)]).T
    found = outputs[_nearest(table, (features - shift) / spread)]
    return found.T.reshape(-1, *u.shape[1:])


def _closest_query(
    table: Array,
    shift: Array,
    spread: Array,
    outputs: Array,
    u: Float[Array, " channels *points"],
    *,
    coords: Array,
    query: Array,
    mask: Array | None = None,
) -> Array:
    values, at, asked = (a.reshape(len(a), -1) for a in (u, coords, query))
    inside = jnp.ones(values.shape[1], bool) if mask is None else mask.reshape(-1)
    found = _closest_point(table, shift, spread, outputs, _borrowed(values, at, asked, inside), coords=asked)
    return found.reshape(-1, *query.shape[1:])


def linear_pod(data: Any, *, num_modes: int = 32, ridge: float = 1e-6) -> jax.tree_util.Partial:
    """The best linear map between the leading principal components (POD modes) of inputs and outputs.

    **Arguments:** `num_modes`, components kept on each side (at most the number of samples less one);
    `ridge`, the penalty of the least-squares fit relative to the largest input variance.

    **Raises:** `ValueError` on a count or penalty out of range.
    """
    samples = check_samples(data, "data")
    most = len(samples) - 1  # components of centred samples
    num_modes = count(num_modes, "num_modes", 1, most, f"give {max(min(32, most), 1)}, or more samples.")
    if not ridge >= 0:
        raise ValueError(f"ridge: expected zero or more, got {ridge!r}; give 1e-6.")
    x, x_mean, x_scale, x_modes = _components(samples.inputs, num_modes)
    y, y_mean, y_scale, y_modes = _components(samples.outputs, num_modes)
    gram = x.T @ x
    penalty = ridge * max(np.trace(gram), np.finfo(np.float64).tiny) / len(gram)
    matrix = np.linalg.solve(gram + penalty * np.eye(len(gram)), x.T @ y)
    arrays = (x_mean, x_scale, x_modes @ matrix @ y_modes.T, y_scale, y_mean)
    return jax.tree_util.Partial(_affine, *(jnp.asarray(a, jnp.float32) for a in arrays))


def _components(fields: Any, num_modes: int) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Scores (samples, modes) over the scale, mean field, scale, and orthonormal modes (points, modes)."""
    fields = np.asarray(fields, np.float64)
    centred = (fields - fields.mean(0)).reshape(len(fields), -1)
    scale = float(np.abs(centred).max()) or 1.0  # the map between unit fields; in SI units it may leave float32
    modes = np.linalg.svd(centred / scale, full_matrices=False)[2][:num_modes].T
    return centred / scale @ modes, fields.mean(0), scale, modes


def _affine(
    x_mean: Array, x_scale: Array, matrix: Array, y_scale: Array, y_mean: Array, u: Float[Array, " channels *grid"]
) -> Array:
    return (((u - x_mean) / x_scale).reshape(-1) @ matrix).reshape(y_mean.shape) * y_scale + y_mean
