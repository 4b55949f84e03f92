"""Points gathered in a few tokens by shares, with quadrature weights and a mask.

A token is the average of a function over the points, each with its share in that token. With quadrature weights the
average is a ratio of integrals, so it converges when the mesh is refined, however unevenly; without them it counts
points, and a mesh that is finer in one place is heard louder from there. Points are one axis here, `(points, ...)`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def measure_of(weights: Any, mask: Any, points: tuple[int, ...], dtype: Any) -> Float[Array, " points"] | None:
    """How much each point counts, scaled to the mean 1 over those that do; `None` where all count alike.

    **Arguments:** `weights`, not negative, in any unit, and `mask`, true where a point counts, for points of shape
    `points`, or `None`.

    **Raises:** `ValueError` on other shapes.
    """
    for name, x in (("weights", weights), ("mask", mask)):
        if x is not None and tuple(jnp.shape(x)) != tuple(points):
            raise ValueError(
                f"{name}: expected one number for each point of u, shape {tuple(points)}, got {tuple(jnp.shape(x))}; "
                "give them as they lie in u, without a channel axis."
            )
    if weights is None and mask is None:
        return None
    inside = None if mask is None else jnp.asarray(mask).astype(bool).reshape(-1)
    if weights is None:
        return inside.astype(dtype)  # type: ignore[union-attr]
    weights = jnp.asarray(weights).astype(dtype).reshape(-1)
    if inside is not None:
        weights = jnp.where(inside, weights, 0)
    largest = jnp.max(weights)
    weights = weights / jnp.where(largest > 0, largest, 1)  # a sum of tiny or huge weights stays in range
    number = weights.size if inside is None else jnp.sum(inside)
    total = jnp.sum(weights)
    return weights * (number / jnp.where(total > 0, total, 1)).astype(dtype)


def cleared(u: Float[Array, "points channels"], mask: Any) -> Float[Array, "points channels"]:
    """The values with zeros at masked points, whatever those hold."""
    return u if mask is None else jnp.where(jnp.asarray(mask).astype(bool).reshape(-1, 1), u, 0)


def softmax_over_points(
    scores: Float[Array, "*lead points tokens"], measure: Float[Array, "*lead points"] | None = None
) -> Float[Array, "*lead points tokens"]:
    """exp(score) measure, over its sum along the points: shares of a token that add up to one."""
    if measure is None:
        return jax.nn.softmax(scores, axis=-2)
    counts = (measure > 0)[..., None]
    highest = jnp.max(jnp.where(counts, scores, -jnp.inf), axis=-2, keepdims=True)
    highest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(highest), highest, 0))
    # Points that do not count get the exponent 0 before they are dropped, so that none overflows.
    shares = measure[..., None] * jnp.exp(jnp.where(counts, scores - highest, 0))
    total = jnp.sum(shares, axis=-2, keepdims=True)
    return shares / jnp.where(total > 0, total, 1)


def averages(
    shares: Float[Array, "heads tokens points"],
    values: Float[Array, "heads channels points"],
    measure: Float[Array, " points"] | None = None,
    eps: float = 0.0,
) -> Float[Array, "heads tokens channels"]:
    """sum_n q_n s_tn f_n / (sum_n q_n s_tn + eps), head by head, with the measure q."""
    if measure is not None:
        shares = shares * measure
    total = jnp.sum(shares, axis=-1)[..., None] + eps
    return jnp.einsum("htn,hcn->htc", shares, values) / total
