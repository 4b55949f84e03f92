"""Samples of the Fourier transform, as magnetic resonance and interferometry take them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.inverse.maps.pixels import as_weights

__all__ = ["SubsampledFourier"]


class SubsampledFourier(AbstractLinearMap):
    """The unitary discrete Fourier transform of each channel where it was sampled, zero elsewhere.

    `(channels, *grid)` goes to `(2 channels, *grid)`: the real parts of all channels, then the imaginary parts,
    frequencies in the order of `numpy.fft.fftfreq`. In these channels the plain dot product is the real part of the
    complex one, and the adjoint is the real part of the inverse transform. A real field has each frequency twice,
    with its negative: a mask that keeps only one of them gives norms below 1.

    **Arguments:**

    - `mask`: `(*grid)`, true or 1 where a frequency was sampled; real weights too. A leaf. `numpy.fft.ifftshift`
      brings a mask with zero frequency in the middle to this order.
    - `channels`: of the field.

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
        return (2 * self.channels, *self.mask.shape)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(1, self.mask.ndim + 1))

    def apply(self, x: Array) -> Array:
        spectrum = jnp.fft.fftn(x, axes=self._axes, norm="ortho")
        return jnp.concatenate([spectrum.real, spectrum.imag]) * self.mask.astype(x.dtype)

    def apply_adjoint(self, y: Array) -> Array:
        real, imaginary = jnp.split(y * self.mask.astype(y.dtype), 2)
        return jnp.fft.ifftn(lax.complex(real, imaginary), axes=self._axes, norm="ortho").real
