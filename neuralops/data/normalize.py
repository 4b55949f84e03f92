"""Scaling fields to mean 0 and deviation 1 per channel, with statistics that are static numbers.

The statistics are plain Python floats: no leaf that an optimiser could move, no array that ties them to a
grid. One number per channel keeps the map a map between functions; statistics per point would bind it to one
resolution.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.operator import AbstractWrapper, as_operator, keywords_of

CONSTANT_CHANNEL = 1e-7  # a deviation at most this fraction of |mean| is rounding (float32), not variation


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Normalizer:
    """Shifts and scales each channel: `encode(u) = (u - mean) / std`, `decode` is its inverse.

    **Arguments:**

    - `mean`, `std`: one number per channel, in the units of the field.
    - `ndim`: the number of space dimensions.

    `Normalizer.fit(x)` takes them from data. Static and hashable: it passes `jax.jit` as a constant and has no
    leaves.

    **Raises:** `ValueError` on counts that differ, numbers that are not finite, deviations that are not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    ndim: int

    def __post_init__(self) -> None:
        try:
            mean = tuple(float(m) for m in self.mean)
            std = tuple(float(s) for s in self.std)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"mean, std: expected one number per channel, got {self.mean!r} and {self.std!r}; "
                "give tuples, or use Normalizer.fit(x)."
            ) from error
        if not mean or len(mean) != len(std):
            raise ValueError(
                f"mean, std: expected one number per channel in each, got {len(mean)} and {len(std)}; give as many."
            )
        if not all(math.isfinite(m) for m in mean) or not all(math.isfinite(s) and s > 0 for s in std):
            raise ValueError(
                f"mean, std: expected finite means and positive deviations, got {mean} and {std}; "
                "use Normalizer.fit(x), which gives a constant channel the deviation 1."
            )
        if isinstance(self.ndim, bool) or not isinstance(self.ndim, int) or self.ndim < 1:
            raise ValueError(f"ndim: expected a positive integer, got {self.ndim!r}; give the space dimensions.")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    @classmethod
    def fit(cls, x: Any, mask: Any = None) -> Normalizer:
        """The mean and deviation of each channel over samples and space, summed in double precision.

        **Arguments:**

        - `x`: training data `(samples, channels, *grid)`; only training data, so that nothing leaks from a test.
        - `mask`: truth values `(samples, *grid)` or `(*grid,)`, `True` where a point counts; what stands at the
          others is never read and may be NaN.

        A channel that does not vary gets the deviation 1, so that encoding it gives zeros and not noise.

        **Raises:** `ValueError` on a wrong rank, a dtype that is not real, NaN or infinity where a point counts, a mask
        of another shape or without a point that counts, and a NumPy masked array.
        """
        if isinstance(x, np.ma.MaskedArray):
            raise ValueError(
                "x: expected an ordinary array, got a NumPy masked array; give x.filled(0) and its mask "
                "(samples, *grid) as mask=~x.mask[:, 0]."
            )
        x = np.asarray(x)
        if x.ndim < 3 or x.size == 0:
            raise ValueError(
                f"x: expected training data (samples, channels, *grid), got shape {x.shape}; "
                "add the missing axis, as in x[:, None] for the channel."
            )
        if x.dtype.kind not in "fiub":
            raise ValueError(f"x: expected real numbers, got dtype {x.dtype}; convert with x.astype('float32').")
        inside = None if mask is None else _counted(mask, x.shape)
        mean, std = [], []
        for channel in range(x.shape[1]):
            values = x[:, channel] if inside is None else x[:, channel][inside]
            values = values.astype(np.float64)  # two passes: no cancellation when |mean| >> std
            m = float(values.mean())
            scale = float(np.max(np.abs(values - m))) or 1.0
            s = scale * float(np.sqrt(np.mean(((values - m) / scale) ** 2)))
            if not math.isfinite(s):
                raise ValueError(
                    f"x: expected finite numbers, got NaN or infinity in channel {channel}; remove these samples."
                )
            mean.append(m)
            std.append(s if s > CONSTANT_CHANNEL * abs(m) else 1.0)
        return cls(tuple(mean), tuple(std), x.ndim - 2)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def encode(self, u: Float[Array, "*lead channels *grid"], mask: Any = None) -> Float[Array, "*lead channels *grid"]:
        """From physical values to scaled ones. Leading axes pass through.

        With a `mask` `(*lead, *grid)` or `(*grid,)`, `True` where a point counts, the others become exactly 0.

        **Raises:** `ValueError` when the channel axis does not fit.
        """
        mean, std = self._constants(u)
        if mask is not None:  # before the arithmetic, so that NaN reaches no gradient
            u = jnp.where(self._column(mask, u), u, 0)
        v = ((u - mean) / std).astype(u.dtype)
        return v if mask is None else jnp.where(self._column(mask, u), v, 0)

    def decode(self, u: Float[Array, "*lead channels *grid"], mask: Any = None) -> Float[Array, "*lead channels *grid"]:
        """From scaled values back to physical ones. Leading axes pass through.

        With a `mask` `(*lead, *grid)` or `(*grid,)`, `True` where a point counts, the others become exactly 0.

        **Raises:** `ValueError` when the channel axis does not fit.
        """
        mean, std = self._constants(u)
        if mask is not None:  # before the arithmetic, so that NaN reaches no gradient
            u = jnp.where(self._column(mask, u), u, 0)
        v = (u * std + mean).astype(u.dtype)
        return v if mask is None else jnp.where(self._column(mask, u), v, 0)

    def _column(self, mask: Any, u: Any) -> Array:
        """The mask with an axis for the channels."""
        shape, grid = tuple(np.shape(mask)), tuple(u.shape[-self.ndim :])
        if shape not in (grid, (*u.shape[: -self.ndim - 1], *grid)) or jnp.result_type(mask) != jnp.bool_:
            raise ValueError(
                f"mask: expected truth values of shape {grid}, or with the leading axes of {tuple(u.shape)}, got "
                f"{jnp.result_type(mask)} of shape {shape}; True marks the points that count, use mask.astype(bool)."
            )
        return jnp.expand_dims(jnp.asarray(mask), -self.ndim - 1)

    def _constants(self, u: Any) -> tuple[Array, Array]:
        shape = tuple(getattr(u, "shape", ()))
        if len(shape) < self.ndim + 1 or shape[-self.ndim - 1] != self.channels:
            raise ValueError(
                f"u: expected (*lead, {self.channels}, *grid) with {self.ndim} space dimensions, got shape {shape}; "
                "fit the normalizer on data of this kind."
            )
        if not jnp.issubdtype(u.dtype, jnp.floating):
            raise ValueError(f"u: expected a real floating dtype, got {u.dtype}; use u.astype(jnp.float32).")
        column = (self.channels,) + (1,) * self.ndim
        dtype = jnp.promote_types(u.dtype, jnp.float32)  # statistics in SI units leave the range of half precision
        return jnp.asarray(self.mean, dtype).reshape(column), jnp.asarray(self.std, dtype).reshape(column)


def _counted(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of every sample, `(samples, *grid)`."""
    inside, grid = np.asarray(mask), shape[2:]
    if inside.shape not in (grid, (shape[0], *grid)) or inside.dtype != np.bool_:
        raise ValueError(
            f"mask: expected truth values of shape {(shape[0], *grid)} or {grid}, got {inside.dtype} of shape "
            f"{inside.shape}; True marks the points that count, use mask.astype(bool)."
        )
    if not inside.any():
        raise ValueError("mask: expected a point that counts, got none; True marks the points that count, try ~mask.")
    return np.broadcast_to(inside, (shape[0], *grid))


class Normalized(AbstractWrapper):
    """An operator trained on scaled fields, used on physical ones: `decode(op(encode(u)))`.

    **Arguments:**

    - `op`: the operator (or any callable pytree) between scaled fields; its leaves are the only leaves.
    - `inputs`: the `Normalizer` of the input field, `None` to leave it as it is.
    - `outputs`: the `Normalizer` of the output field, `None` to leave it as it is.

    `mask=` in the call, truth values `(*grid,)`, sets the encoded input to exactly zero where no point counts, whatever
    stands there, and is handed on to an operator that names it.

    The envelope is that of `op`: one shift and scale per channel commutes with every change of grid.

    **Raises:** `ValueError` when an argument is of another kind.
    """

    op: Any
    inputs: Normalizer | None = eqx.field(static=True)
    outputs: Normalizer | None = eqx.field(static=True)

    def __init__(self, op: Any, inputs: Normalizer | None = None, outputs: Normalizer | None = None) -> None:
        for name, normalizer in (("inputs", inputs), ("outputs", outputs)):
            if normalizer is not None and not isinstance(normalizer, Normalizer):
                raise ValueError(
                    f"{name}: expected a Normalizer or None, got {type(normalizer).__name__}; use Normalizer.fit(x)."
                )
        self.op = as_operator(op)
        self.inputs = inputs
        self.outputs = outputs

    @property
    def keywords(self) -> frozenset[str]:
        """What the call understands: the keywords of `op`, and `mask`."""
        return keywords_of(self.op) | {"mask"}

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None, mask: Any = None, **keywords: Any
    ) -> Float[Array, " channels_out *grid_out"]:
        if key is not None:  # a plain function need not know the word
            keywords["key"] = key
        if mask is not None:
            if self.inputs is None:
                u = jnp.where(mask, u, 0)
            if "mask" in keywords_of(self.op):
                keywords["mask"] = mask
        v = self.op(u if self.inputs is None else self.inputs.encode(u, mask), **keywords)
        return v if self.outputs is None else self.outputs.decode(v)
