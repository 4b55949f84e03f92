"""Magnitudes taken out before squares are formed, so that a relative quantity has no unit.

In float32 the square of 1e-20 is zero and that of 1e20 infinite. Dividing by a power of two near the largest magnitude
first rounds nothing, and what is compared afterwards is of the size of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["norm", "power_of_two", "root", "unit"]


def power_of_two(value: Array) -> Array:
    """The power of two at or below `value`, so that dividing by it is exact; 1 for zero, NaN and infinity."""
    info = jnp.finfo(value.dtype)
    # Rounding to no mantissa bits gives a power of two; kept normal, below overflow.
    power = lax.reduce_precision(value, exponent_bits=info.nexp, mantissa_bits=0)
    power = jnp.clip(power, info.tiny, math.ldexp(1.0, int(info.maxexp) - 1))
    return jnp.where(jnp.isfinite(value) & (value > 0), power, 1)


def unit(u: Array, axes: Sequence[int] | None = None) -> Array:
    """A power of two near the largest magnitude along `axes` (all by default), which are kept; no gradient."""
    return power_of_two(lax.stop_gradient(jnp.max(jnp.abs(u), None if axes is None else tuple(axes), keepdims=True)))


def root(square: Array) -> Array:
    """The square root with gradient 0 at 0, where an exact prediction would otherwise give NaN."""
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def norm(u: Array) -> Float[Array, ""]:
    """The 2-norm, whatever the size of the entries."""
    size = unit(u)
    return size.reshape(()) * root(jnp.sum((u / size) ** 2))
