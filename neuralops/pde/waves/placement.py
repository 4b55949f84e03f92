"""Points between the points of a grid: where sources act and receivers listen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from neuralops.grid import lagrange
from neuralops.transforms import Axis

__all__ = ["Placement", "place"]


class Placement(NamedTuple):
    """Polynomials through the nearest samples; reading and spreading are each other's transposes."""

    samples: Int[Array, "samples points"]  # into the flattened field
    weights: Float[Array, "samples points"]

    def read(self, u: Float[Array, "*grid"]) -> Float[Array, " points"]:
        """The field at the points."""
        return jnp.sum(u.reshape(-1)[self.samples] * self.weights, axis=0)

    def spread(self, u: Float[Array, "*grid"], values: Float[Array, " points"]) -> Float[Array, "*grid"]:
        """The field with `values` added, each shared among the samples around its point."""
        return u.reshape(-1).at[self.samples].add(self.weights * values).reshape(u.shape)


def place(
    points: Float[Array, " ndim points"], axes: Sequence[Axis], first: Sequence[float], spacing: Sequence[float],
    num_samples: int,
) -> Placement:  # fmt: skip
    """The polynomial through `num_samples` samples per axis around each point (an even number).

    `first`: where the first sample of each axis lies. Periodic axes wrap; a wall at a node, where the field vanishes,
    is a sample too, which neither gives nor takes; near other ends the samples lie on one side.
    """
    points = jnp.asarray(points)
    count, ndim = points.shape[1], len(axes)
    index, weights = jnp.zeros((1,) * ndim + (count,), int), jnp.ones((1,) * ndim + (count,), points.dtype)
    for a, (axis, start, h) in enumerate(zip(axes, first, spacing, strict=True)):
        n = axis.num_points
        walls = [axis.centering == "node" and end == "dirichlet" for end in axis.ends]
        at = (points[a] - start) / h
        low = jnp.floor(jax.lax.stop_gradient(at)) - (num_samples // 2 - 1)
        if axis.boundary != "periodic":
            low = jnp.clip(low, -int(walls[0]), n - num_samples + int(walls[1]))
        samples = low.astype(int) + np.arange(num_samples)[:, None]
        polynomials = lagrange(at - low, num_samples - 1)
        if axis.boundary == "periodic":
            samples = samples % n
        else:
            polynomials = jnp.where((samples >= 0) & (samples < n), polynomials, 0)
            samples = jnp.clip(samples, 0, n - 1)
        along = (1,) * a + (num_samples,) + (1,) * (ndim - a - 1) + (count,)
        index = index * n + samples.reshape(along)
        weights = weights * polynomials.reshape(along)
    return Placement(index.reshape(-1, count), weights.reshape(-1, count))
