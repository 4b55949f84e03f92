"""Measurements of single points and blocks: inpainting by a mask, super-resolution from means over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_plain, count
from neuralops.grid import per_axis
from neuralops.inverse.maps.linear_map import AbstractLinearMap, check_shape

__all__ = ["BlockMean", "Inpainting"]


class Inpainting(AbstractLinearMap):
    """The field where it was seen, zero elsewhere: x -> mask * x. Its own adjoint.

    **Arguments:**

    - `mask`: `(*grid)`, true or 1 where a point was seen, false or 0 where not; kept as real numbers, which may also
      be weights. A leaf.
    - `channels`: of the field; all are masked alike.

    **Raises:** `ValueError` when the mask is no array of truth values or real numbers.
    """

    mask: Float[Array, "*grid"]
    channels: int = eqx.field(static=True)

    def __init__(self, mask: Any, channels: int = 1):
        self.mask = as_weights(mask, "mask", (1, 2, 3))
        self.channels = count(channels, "channels")

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (self.channels, *self.mask.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.in_shape

    @property
    def symmetric(self) -> bool:
        return True

    def apply(self, x: Array) -> Array:
        return self.mask.astype(x.dtype) * x

    def apply_adjoint(self, y: Array) -> Array:
        return self.apply(y)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return jnp.max(jnp.abs(self.mask))


class BlockMean(AbstractLinearMap):
    """Means over blocks of points, a coarser picture of each channel: super-resolution has this for its forward map.

    On a cell-centred grid it is the exact change to cells `factor` times as wide. A A^T is the identity divided by
    the points per block, so |A| is the root of that.

    **Arguments:**

    - `in_shape`: `(channels, *grid)`.
    - `factor`: points per block along each axis, one for all axes or one per axis; it divides the points.

    **Raises:** `ValueError` when it does not.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    factor: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, in_shape: Sequence[int], factor: int | Sequence[int]):
        self.in_shape = check_shape(in_shape, "in_shape")
        each = per_axis(factor, len(self.in_shape) - 1, "factor")
        self.factor = tuple(count(f, "factor") for f in each)
        if any(n % f for n, f in zip(self.in_shape[1:], self.factor, strict=True)):
            raise ValueError(
                f"factor: expected to divide the points {self.in_shape[1:]}, got {self.factor}; crop or pad the field."
            )

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.in_shape[0], *(n // f for n, f in zip(self.in_shape[1:], self.factor, strict=True)))

    @property
    def _blocks(self) -> tuple[int, ...]:
        pairs = zip(self.out_shape[1:], self.factor, strict=True)
        return (self.in_shape[0], *(size for pair in pairs for size in pair))

    def apply(self, x: Array) -> Array:
        return jnp.mean(x.reshape(self._blocks), axis=tuple(range(2, len(self._blocks), 2)))

    def apply_adjoint(self, y: Array) -> Array:
        wide = jnp.expand_dims(y, tuple(range(2, len(self._blocks), 2)))
        return jnp.broadcast_to(wide / math.prod(self.factor), self._blocks).reshape(self.in_shape)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return jnp.asarray(math.prod(self.factor) ** -0.5)


def as_weights(mask: Any, name: str, ndim: Sequence[int]) -> Array:
    """A mask as real numbers.

    **Raises:** `ValueError` when it is none.
    """
    check_plain(mask, name)
    if isinstance(mask, str) or not hasattr(mask, "shape") or len(mask.shape) not in ndim or 0 in mask.shape:
        came = f"shape {mask.shape}" if hasattr(mask, "shape") else type(mask).__name__
        raise ValueError(f"{name}: expected an array (*grid) of {ndim[0]} to {ndim[-1]} dimensions, got {came}; give "
                         "True where a point was seen.")  # fmt: skip
    if jnp.issubdtype(mask.dtype, jnp.complexfloating):
        raise ValueError(f"{name}: expected truth values or real numbers, got {mask.dtype}; use abs({name}).")
    mask = jnp.asarray(mask)
    return mask if jnp.issubdtype(mask.dtype, jnp.floating) else mask.astype(jax.dtypes.canonicalize_dtype(float))
