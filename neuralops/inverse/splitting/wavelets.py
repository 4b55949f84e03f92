"""Sparsity in an orthonormal wavelet basis."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.extras import require
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive

__all__ = ["Wavelets"]

Field = Float[Array, "channels *grid"]


class Wavelets(AbstractRegularizer):
    """R(x) = weight sum |c| over the detail coefficients c of an orthonormal wavelet transform, in 1-D to 3-D.

    The basis is periodic; its filters are those of PyWavelets (the extra `pictures`), mode `"periodization"`. Because
    it is orthonormal, the proximal map is exact: soft thresholding of the details at step * weight. The coarsest
    means are left as they are.

    **Arguments:**

    - `weight`: how much it counts.
    - `wavelet`: the name of an orthogonal one: `"haar"`, `"db2"`, `"sym4"`, `"coif1"` and so on.
    - `levels`: how often the coarse half is split again. The points per axis must divide by 2^levels.

    **Raises:** `ValueError` on arguments outside the above, and on fields that do not divide; `ImportError` without
    PyWavelets.
    """

    weight: Any
    wavelet: str = eqx.field(static=True)
    levels: int = eqx.field(static=True)
    filters: tuple[tuple[float, ...], tuple[float, ...]] = eqx.field(static=True)

    def __init__(self, weight: Any = 1.0, *, wavelet: str = "sym4", levels: int = 3) -> None:
        self.weight, self.levels = positive(weight, "weight", zero=True), count(levels, "levels")
        pywt = require("pywt", "inverse.Wavelets", "pictures")
        known = pywt.wavelist(kind="discrete")
        if wavelet not in known or not pywt.Wavelet(wavelet).orthogonal:
            raise ValueError(
                f"wavelet: expected an orthogonal wavelet of PyWavelets, got {wavelet!r}; give 'haar', 'db2', 'sym4' "
                "or the like."
            )
        self.wavelet = wavelet
        low, high = pywt.Wavelet(wavelet).filter_bank[2:]  # the synthesis filters, which are the basis functions
        self.filters = (tuple(map(float, low)), tuple(map(float, high)))

    def prox(self, y: Field, step: Any) -> Field:
        coarse, details = self.analysis(y)
        bound = step * self.weight
        shrink = lambda c: jnp.sign(c) * jnp.maximum(jnp.abs(c) - bound, 0)
        return self.synthesis(coarse, [shrink(d) for d in details])

    def value(self, x: Field) -> Float[Array, ""]:
        return self.weight * sum((jnp.sum(jnp.abs(d)) for d in self.analysis(x)[1]), jnp.zeros((), x.dtype))

    def analysis(self, x: Field) -> tuple[Array, list[Array]]:
        """The coarsest coefficients and the details of each level, finest first: `(2^ndim - 1, channels, *half)`.

        **Raises:** `ValueError` when the points per axis do not divide by 2^levels.
        """
        unit = 2**self.levels
        if any(n % unit for n in x.shape[1:]):
            raise ValueError(
                f"y: Wavelets with {self.levels} levels expects points per axis that divide by {unit}, got "
                f"{tuple(x.shape[1:])}; take fewer levels, or cut the field."
            )
        details = []
        for _ in range(self.levels):
            parts = [x]
            for axis in range(1, x.ndim):
                parts = [half for part in parts for half in self._split(part, axis)]
            x, rest = parts[0], parts[1:]
            details.append(jnp.stack(rest))
        return x, details

    def synthesis(self, coarse: Array, details: list[Array]) -> Field:
        """The field with these coefficients: the inverse, and the transpose, of `analysis`."""
        for detail in reversed(details):
            parts = [coarse, *detail]
            for axis in reversed(range(1, coarse.ndim)):
                parts = [self._join(low, high, axis) for low, high in zip(parts[::2], parts[1::2], strict=True)]
            coarse = parts[0]
        return coarse

    @property
    def _first(self) -> int:
        """How far a filter begins before its point, as PyWavelets has it."""
        return len(self.filters[0]) // 2 - 1

    def _split(self, x: Array, axis: int) -> list[Array]:
        even = lambda n: jnp.take(jnp.roll(x, -n, axis), jnp.arange(0, x.shape[axis], 2), axis=axis)
        shifted = [even(n - self._first) for n in range(len(self.filters[0]))]
        return [sum(h * s for h, s in zip(f, shifted, strict=True)) for f in self.filters]  # type: ignore[misc]

    def _join(self, low: Array, high: Array, axis: int) -> Array:
        total = jnp.zeros((), low.dtype)
        for n, (h, g) in enumerate(zip(*self.filters, strict=True)):
            part = jnp.expand_dims(h * low + g * high, axis + 1)
            wide = jnp.concatenate([part, jnp.zeros_like(part)], axis + 1)
            wide = wide.reshape(*low.shape[:axis], 2 * low.shape[axis], *low.shape[axis + 1 :])
            total = total + jnp.roll(wide, n - self._first, axis)
        return total
