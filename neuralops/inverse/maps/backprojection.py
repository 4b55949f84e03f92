"""Filtered back-projection: the inverse of the Radon transform, up to what the rays missed."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.inverse.maps.radon import Radon

__all__ = ["FilteredBackProjection"]

WINDOWS = ("ramp", "shepp-logan", "cosine", "hann")


class FilteredBackProjection(AbstractLinearMap):
    """x(r) = sum over angles of dtheta (h * y_theta)(r . n), with h the ramp filter, from a sinogram to an image.

    The ramp |frequency| is sampled in space, so that its mean is right (Kak and Slaney 1988, Principles of Computerized
    Tomographic Imaging, section 3.3), and multiplied by a window; rows are interpolated linearly. Each angle
    counts by half the gap to its neighbours on both sides, modulo half a turn, so they need not be equidistant, but
    should cover half a turn.

    A linear map like any other, but not the adjoint of anything here: it starts reconstructions, and is what they are
    compared with. Zero where no ray passes at some angle only by what the others say.

    **Arguments:**

    - `radon`: the transform to invert.
    - `window`: `"ramp"` (none), `"shepp-logan"`, `"cosine"` or `"hann"`, from sharp and noisy to smooth.

    **Raises:** `ValueError` on another window, or when `radon` is no `Radon`.
    """

    radon: Radon
    window: str = eqx.field(static=True)

    def __init__(self, radon: Radon, window: str = "ramp"):
        if not isinstance(radon, Radon):
            raise ValueError(f"radon: expected a Radon, got {type(radon).__name__}; give the transform to invert.")
        if window not in WINDOWS:
            raise ValueError(f"window: expected one of {WINDOWS}, got {window!r}; use one of these words.")
        self.radon, self.window = radon, window

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.radon.out_shape

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.radon.in_shape

    def apply(self, x: Float[Array, " 1 angles detectors"]) -> Float[Array, " 1 *grid"]:
        return _run(self, x)

    def filtered(self, y: Float[Array, " 1 angles detectors"]) -> Float[Array, " 1 angles detectors"]:
        """The sinogram convolved with the filter along the detectors."""
        m, d = self.radon.num_detectors, self.radon.detector_spacing
        size = 2 ** math.ceil(math.log2(2 * m))  # zeros behind, so that the convolution does not wrap
        offset = np.minimum(np.arange(size), size - np.arange(size))
        ramp = np.where(offset % 2 == 1, -1 / (np.pi * np.maximum(offset, 1) * d) ** 2, 0.0)
        ramp[0] = 1 / (2 * d) ** 2
        frequency = np.fft.rfftfreq(size)  # in cycles per detector, to 1/2
        gain = {
            "ramp": np.ones_like(frequency),
            "shepp-logan": np.sinc(frequency),
            "cosine": np.cos(np.pi * frequency),
            "hann": np.cos(np.pi * frequency) ** 2,
        }[self.window]
        response = jnp.asarray(np.fft.rfft(ramp).real * gain * d, y.dtype)
        return jnp.fft.irfft(jnp.fft.rfft(y, size) * response, size)[..., :m]

    def _back(self, y: Array) -> Array:
        radon, dtype = self.radon, y.dtype
        m, angles = radon.num_detectors, np.asarray(radon.angles)
        rows = jnp.pad(self.filtered(y)[0], ((0, 0), (1, 1)))  # zero beyond the last detector
        first, second = (jnp.asarray(radon.grid.points(a) - radon.grid.domain_extent[a] / 2, dtype) for a in (0, 1))

        def add(total: Array, one: tuple[Array, ...]) -> tuple[Array, None]:
            row, cos, sin, weight = one
            s = (first[:, None] * cos + second * sin) / radon.detector_spacing + ((m - 1) / 2 + 1)
            s = jnp.clip(s, 0, m + 1)
            below = jnp.minimum(jnp.floor(s).astype(jnp.int32), m)
            low, high = (row.at[below + k].get(mode="promise_in_bounds") for k in (0, 1))
            return total + weight * (low + (s - below) * (high - low)), None

        each = (rows, *(jnp.asarray(v, dtype) for v in (np.cos(angles), np.sin(angles), _gaps(angles))))
        return lax.scan(add, jnp.zeros(radon.grid.shape, dtype), each)[0][None]


_run = jax.jit(lambda op, y: op._back(y))  # compiled once for a geometry


def _gaps(angles: np.ndarray) -> np.ndarray:
    """Half the distance of the neighbours of each angle modulo half a turn."""
    folded = np.mod(angles, np.pi)
    order = np.argsort(folded)
    ahead = np.diff(folded[order], append=folded[order[0]] + np.pi)
    weights = np.empty(len(angles))
    weights[order] = (ahead + np.roll(ahead, 1)) / 2
    return weights
