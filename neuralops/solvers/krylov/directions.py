"""Search directions that are made A-orthogonal explicitly, whoever proposed them (Notay 2000).

A proposal z becomes d = z - sum_i (z . A d_i) / (d_i . A d_i) d_i over the directions kept, and the step along d is the
best in the energy norm, (d . r) / (d . A d). With e = A^-1 r the step reduces ||e||_A^2 by (d . r)^2 / (d . A d), so it
never does harm.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from neuralops.solvers.algebra.vectors import Dot, sized

__all__ = ["Directions", "Search", "no_directions", "orthogonalised", "remember", "search", "stepped"]


class Directions(NamedTuple):
    """The last directions d and their images A d / unit, along a leading axis of slots."""

    vectors: Any
    images: Any
    weights: Float[Array, " slots"]  # 1 / (d . image), 0 for an empty slot
    kept: Int[Array, ""]  # directions so far
    unit: Float[Array, ""]  # a power of two of the size of A, so that images have squares


class Search(NamedTuple):
    """What the exact line search along a direction d with image q = A d / unit finds."""

    d: Any
    q: Any
    alpha: Float[Array, ""]  # the step along d, 0 if unusable
    fall: Float[Array, ""]  # the change of the residual along q, likewise
    curvature: Float[Array, ""]  # d . q
    slope: Float[Array, ""]  # d . r
    sharpness: Float[Array, ""]  # |A d|^2 / d . A d, below the largest eigenvalue
    usable: Bool[Array, ""]  # finite, of positive curvature beyond rounding, and with a step to take
    finite: Bool[Array, ""]
    cosine: Float[Array, ""]  # between d and A d
    quotient: Float[Array, ""]  # d . A d / d . d, the Rayleigh quotient
    stretch: Float[Array, ""]  # |A d| / |d|


def no_directions(A: Any, memory: int, r: Any, dtype: Any, dot: Dot) -> Directions:
    """An empty memory of so many slots, and the size of A as the residual `r` shows it."""
    empty = jax.tree.map(lambda leaf: jnp.zeros((memory, *leaf.shape), leaf.dtype), r)
    _, unit = sized(A(sized(r, dot.mesh_axes)[0]), dot.mesh_axes)
    return Directions(empty, empty, jnp.zeros((memory,), dtype), jnp.zeros((), jnp.int32), unit.astype(dtype))


def orthogonalised(kept: Directions, z: Any, dot: Dot) -> Any:
    """`z` without its A-projections on the directions kept (which are A-orthogonal to each other)."""
    if not kept.weights.size:
        return z
    coefficients = kept.weights * dot.stacked(kept.images, z)
    return jax.tree.map(
        lambda v, stack: v - jnp.tensordot(coefficients.astype(v.dtype), stack, 1, precision="highest"),
        z,
        kept.vectors,
    )


def search(A: Any, unit: Array, d: Any, r: Any, dot: Dot) -> Search:
    """The best step along `d` from the residual `r`; one product with A, whose size is about `unit`."""
    q = jax.tree.map(lambda v: v / unit.astype(v.dtype), A(d))
    curvature, slope, length, width = dot.many([(d, q), (d, r), (d, d), (q, q)])
    epsilon = float(jnp.finfo(jax.tree.leaves(r)[0].dtype).eps)
    size = jnp.sqrt(length * width)
    finite = jnp.isfinite(curvature) & jnp.isfinite(slope)
    usable = finite & (curvature > epsilon * size) & (slope != 0)
    fall = jnp.where(usable, slope / jnp.where(usable, curvature, 1), 0)
    bent = jnp.where(curvature == 0, 1, curvature)  # unusable then
    cosine = curvature / jnp.where(size == 0, 1, size)
    whole = jnp.where(length == 0, 1, length)
    quotient, stretch = unit * (curvature / whole), unit * jnp.sqrt(width / whole)
    sharpness = unit * (width / bent)
    return Search(d, q, fall / unit, fall, curvature, slope, sharpness, usable, finite, cosine, quotient, stretch)


def stepped(found: Search, u: Any, factor: Array, v: Any) -> Any:
    """u + factor v, or `u` itself, untouched by a NaN in `v`, where the direction is unusable."""
    return jax.tree.map(
        lambda a, b: a + jnp.where(found.usable, factor.astype(a.dtype) * b, 0),
        u,
        v,
    )


def remember(kept: Directions, found: Search) -> Directions:
    """The memory with a usable direction in place of its oldest."""
    slots = kept.weights.size
    if not slots:
        return kept
    slot = kept.kept % slots

    def keep(stack: Array, v: Array) -> Array:
        old = lax.dynamic_index_in_dim(stack, slot, keepdims=False)
        return lax.dynamic_update_index_in_dim(stack, jnp.where(found.usable, v, old), slot, 0)

    return Directions(
        jax.tree.map(keep, kept.vectors, found.d),
        jax.tree.map(keep, kept.images, found.q),
        jnp.where(
            found.usable, kept.weights.at[slot].set(1 / jnp.where(found.usable, found.curvature, 1)), kept.weights
        ),
        kept.kept + found.usable,
        kept.unit,
    )
