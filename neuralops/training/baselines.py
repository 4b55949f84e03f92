"""Trivial predictors that every accuracy table should carry, so that an easy problem cannot flatter a network.

Each is made from training samples on one grid and is a callable pytree from field to field, accepted
wherever an operator is; its arrays are data, not weights.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.data.samples import check_samples
from neuralops.training.norms import scaled

__all__ = ["linear_pod", "nearest_neighbour", "training_mean"]


def training_mean(data: Any) -> jax.tree_util.Partial:
    """Predicts the mean training output, whatever the input.

    `data` is `Samples` or a pair of arrays `(samples, channels, *grid)`, as for the others here.
    """
    outputs = check_samples(data, "data").outputs
    return jax.tree_util.Partial(_constant, jnp.asarray(np.mean(outputs, 0)))


def _constant(output: Array, u: Array) -> Array:
    return output


def nearest_neighbour(data: Any) -> jax.tree_util.Partial:
    """Predicts the output of the training input that is closest in the 2-norm."""
    samples = check_samples(data, "data")
    return jax.tree_util.Partial(_closest, jnp.asarray(samples.inputs), jnp.asarray(samples.outputs))


def _closest(inputs: Array, outputs: Array, u: Float[Array, "channels *grid"]) -> Array:
    difference, _ = scaled(inputs - u, False)  # squares of large or small fields leave the range
    return outputs[jnp.argmin(jnp.sum(difference**2, axis=tuple(range(1, inputs.ndim))))]


def linear_pod(data: Any, *, num_modes: int = 32, ridge: float = 1e-6) -> jax.tree_util.Partial:
    """The best linear map between the leading principal components (POD modes) of inputs and outputs.

    **Arguments:** `num_modes`, components kept on each side (at most the number of samples less one);
    `ridge`, the penalty of the least-squares fit relative to the largest input variance.

    **Raises:** `ValueError` on a count or penalty out of range.
    """
    samples = check_samples(data, "data")
    if isinstance(num_modes, bool) or not isinstance(num_modes, int) or not 1 <= num_modes < len(samples.inputs):
        raise ValueError(
            f"num_modes: expected 1 to {len(samples.inputs) - 1}, fewer than the samples, got {num_modes!r}; give "
            f"num_modes={max(min(32, len(samples.inputs) - 1), 1)} or more samples."
        )
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
    x_mean: Array, x_scale: Array, matrix: Array, y_scale: Array, y_mean: Array, u: Float[Array, "channels *grid"]
) -> Array:
    return (((u - x_mean) / x_scale).reshape(-1) @ matrix).reshape(y_mean.shape) * y_scale + y_mean
