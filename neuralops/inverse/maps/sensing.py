"""Compressed sensing with a fast random matrix: signs, a circulant matrix, and some of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.inverse.maps.linear_map import AbstractLinearMap, check_shape

__all__ = ["CompressedSensing"]


class CompressedSensing(AbstractLinearMap):
    """y = R C D x: random signs D, a random orthogonal circulant matrix C, and a random subset R of the rows.

    `(channels, *grid)`, flattened, goes to `(1, num_measurements)`. C is diagonal in the Fourier basis, with random
    phases (Romberg 2009, SIAM J. Imaging Sci. 2, 1098), so A A^T is the identity, |A| is 1, the pseudo-inverse is the
    adjoint, and an application costs two transforms of the flattened field.

    **Arguments:**

    - `in_shape`: `(channels, *grid)`.
    - `num_measurements`: rows kept, at most the entries of the field.
    - `seed`: of signs, phases and rows, which are drawn from it whenever they are needed; the map holds no arrays.

    **Raises:** `ValueError` on counts out of range.
    """

    in_shape: tuple[int, ...] = eqx.field(static=True)
    num_measurements: int = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(self, in_shape: Sequence[int], num_measurements: int, seed: int = 0):
        self.in_shape = check_shape(in_shape, "in_shape")
        size = math.prod(self.in_shape)
        self.num_measurements = count(num_measurements, "num_measurements", most=size)
        self.seed = count(seed, "seed", 0)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (1, self.num_measurements)

    def apply(self, x: Array) -> Array:
        signs, phases, rows = self._drawn(x.dtype)
        return self._convolved(signs * x.reshape(-1), phases)[rows][None]

    def apply_adjoint(self, y: Array) -> Array:
        signs, phases, rows = self._drawn(y.dtype)
        full = jnp.zeros(signs.size, y.dtype).at[rows].set(y[0], unique_indices=True, indices_are_sorted=True)
        return (signs * self._convolved(full, phases.conj())).reshape(self.in_shape)

    def norm(self, *args: Any, **options: Any) -> Float[Array, ""]:
        return jnp.ones(())

    def _convolved(self, v: Array, phases: Array) -> Array:
        return jnp.fft.irfft(jnp.fft.rfft(v) * phases, v.size)

    def _drawn(self, dtype: Any) -> tuple[Array, Array, np.ndarray]:
        n = math.prod(self.in_shape)
        uniform = np.random.Generator(np.random.PCG64(self.seed)).random((3, n))
        angle = 2 * np.pi * uniform[1, : n // 2 + 1]
        # the mean, and on an even axis the highest frequency, are real
        real = np.cos(angle) < 0
        phases = np.exp(1j * angle)
        for k in (0, n // 2) if n % 2 == 0 else (0,):
            phases[k] = -1 if real[k] else 1
        rows = np.sort(np.argsort(uniform[2])[: self.num_measurements])
        signs = jnp.asarray(np.where(uniform[0] < 0.5, -1, 1), dtype)
        return signs, jnp.asarray(phases, jnp.result_type(dtype, jnp.complex64)), rows
