"""Blur: the convolution of each channel with a kernel, with a stated boundary."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.arguments import check_number, check_plain, count
from neuralops.inverse.maps.linear_map import AbstractLinearMap, check_shape
from neuralops.operator import Envelope

__all__ = ["Blur", "gaussian"]

BOUNDARIES = {"periodic": "periodic", "zero": "dirichlet", "full": "dirichlet", "reflect": "neumann"}
PADDING = {"periodic": "wrap", "zero": "constant", "full": "constant", "reflect": "symmetric"}


class Blur(AbstractLinearMap):
    """The convolution y_i = sum_k kernel_k x_(i + c - k) of each channel, c = size // 2 the middle of the kernel.

    Boundaries, in the words of the map (SciPy's `mode` in brackets):

    - `"periodic"` (wrap): the field goes on from the other side.
    - `"zero"` (constant): nothing is outside, and what is blurred outwards is lost.
    - `"full"`: nothing is outside, and all that is blurred is seen: `size - 1` points more along each axis, as
      `numpy.convolve` does.
    - `"reflect"` (reflect): the mirror image at the wall half a point outside, `d c b a | a b c d | d c b a`.

    The adjoint is that of the matrix, boundary included; only with "periodic" is it the blur by the mirrored kernel.

    **Arguments:**

    - `in_shape`: `(channels, *grid)`.
    - `kernel`: an array with as many axes as the grid, or a tuple of vectors, one per axis, for a separable kernel
      (faster): `gaussian(1.5)`. Of any size, odd or even; not normalised. Leaves.
    - `boundary`: one of the words above.

    **Raises:** `ValueError` on another word, or a kernel that is not real or has other axes than the grid.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    kernel: tuple[Array, ...] | Array
    boundary: str = eqx.field(static=True)

    def __init__(self, in_shape: Sequence[int], kernel: Any, boundary: str = "reflect"):
        self.in_shape = check_shape(in_shape, "in_shape")
        ndim = len(self.in_shape) - 1
        if boundary not in BOUNDARIES:
            raise ValueError(
                f"boundary: expected one of {tuple(BOUNDARIES)}, got {boundary!r}; use one of these words."
            )
        self.boundary = boundary
        if isinstance(kernel, tuple):
            self.kernel = tuple(_kernel(k, 1) for k in kernel)
            if len(self.kernel) != ndim:
                raise ValueError(
                    f"kernel: expected one vector per axis of the grid, {ndim}, got {len(self.kernel)}; use "
                    f"gaussian(sigma, {ndim})."
                )
        else:
            self.kernel = _kernel(kernel, ndim)

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.in_shape) - 1,), (BOUNDARIES[self.boundary],), "grid-locked")

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(len(k) for k in self.kernel) if isinstance(self.kernel, tuple) else self.kernel.shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        if self.boundary != "full":
            return self.in_shape
        return (self.in_shape[0], *(n + k - 1 for n, k in zip(self.in_shape[1:], self._sizes, strict=True)))

    def apply(self, x: Array) -> Array:
        if not isinstance(self.kernel, tuple):
            x = self._padded(x, range(1, x.ndim))
            own = lax.rev(self.kernel, tuple(range(self.kernel.ndim))).astype(x.dtype)
            # channels as a batch of fields with one channel
            ones = (1,) * self.kernel.ndim
            return lax.conv_general_dilated(x[:, None], own[None, None], ones, "VALID", precision="highest")[:, 0]
        for axis, k in enumerate(self.kernel, start=1):
            size, k = len(k), k.astype(x.dtype)
            x = self._padded(x, [axis])
            n = x.shape[axis] - size + 1
            terms = [k[size - 1 - i] * lax.slice_in_dim(x, i, i + n, axis=axis) for i in range(size)]
            x = functools.reduce(jnp.add, terms)
        return x

    def _padded(self, x: Array, axes: Any) -> Array:
        widths = [(0, 0)] * x.ndim
        for a in axes:
            size = self._sizes[a - 1]
            below = size - 1 - size // 2  # of the mirrored kernel, whose middle is there
            widths[a] = (size - 1, size - 1) if self.boundary == "full" else (below, size // 2)
        return jnp.pad(x, widths, mode=PADDING[self.boundary])


def gaussian(sigma: float, ndim: int = 2, *, size: int | None = None) -> tuple[Array, ...]:
    """A Gaussian kernel for `Blur`, one vector per axis, each of sum 1.

    **Arguments:**

    - `sigma`: its standard deviation in points.
    - `ndim`: the dimensions of the grid.
    - `size`: points per axis, odd; by default to 4 sigma on both sides.

    **Raises:** `ValueError` on a sigma that is not positive, or an even size.
    """
    sigma = check_number(sigma, "sigma", above=0, hint="give a number of points such as 1.5.")
    size = 2 * math.ceil(4 * sigma) + 1 if size is None else count(size, "size")
    if size % 2 == 0:
        raise ValueError(f"size: expected an odd number, got {size}; give {size + 1}.")
    offsets = np.arange(size) - size // 2
    values = np.exp(-0.5 * (offsets / sigma) ** 2)
    vector = jnp.asarray(values / values.sum(), float)
    return (vector,) * count(ndim, "ndim", most=3)


def _kernel(kernel: Any, ndim: int) -> Array:
    check_plain(kernel, "kernel")
    shape, dtype = np.shape(kernel), getattr(kernel, "dtype", None)
    if dtype is None and not isinstance(kernel, str):
        dtype = np.asarray(kernel).dtype if not isinstance(kernel, jax.core.Tracer) else None
    if len(shape) != ndim or 0 in shape or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"kernel: expected real floating numbers with {ndim} axes, got {dtype} of shape {shape}; give an array "
            "with the axes of the grid, or a tuple of vectors such as gaussian(1.5)."
        )
    return jnp.asarray(kernel)
