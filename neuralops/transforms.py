"""Modal transforms along one axis: the sine, cosine and Fourier bases that belong to a boundary.

A field sampled along an axis is a sum of basis functions that satisfy its boundary condition; on
x in [0, L] they are, with `m` counting modes from 0,

| boundary (low, high end) | basis functions |
| --- | --- |
| periodic | 1, cos(2 pi x/L), sin(2 pi x/L), cos(4 pi x/L), ... |
| dirichlet | sin((m + 1) pi x/L) |
| neumann | cos(m pi x/L) |
| (dirichlet, neumann) | sin((m + 1/2) pi x/L) |
| (neumann, dirichlet) | cos((m + 1/2) pi x/L) |

`n` samples determine exactly `n` real coefficients, so all transforms are square and real, and mode `m`
is the same function on every grid. Small axes use a matrix product, which beats an FFT there
(measured on two CPU cores); long axes use one real FFT of the symmetric extension.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MATMUL_LIMIT = 384  # longest axis transformed by a matrix product


class Axis(NamedTuple):
    """The samples along one axis: how many, between which boundaries, at nodes or in cells."""

    num_points: int
    boundary: str | tuple[str, str]
    centering: str

    @property
    def ends(self) -> tuple[str, str]:
        """The boundary words at the low and the high end."""
        return (self.boundary, self.boundary) if isinstance(self.boundary, str) else self.boundary


def positions(axis: Axis) -> tuple[np.ndarray, int]:
    """Sample positions as exact fractions of the extent: integers `p` and a denominator `q`, x = L p/q.

    Cells are sampled at their midpoints. Nodes are those at which the field is unknown: a Dirichlet end
    is left out, a Neumann end is kept, a periodic axis holds its low end only.
    """
    n = axis.num_points
    if axis.centering == "cell":
        return 2 * np.arange(n) + 1, 2 * n
    low, high = axis.ends
    intervals = n if low == "periodic" else n - 1 + (low == "dirichlet") + (high == "dirichlet")
    first = 1 if low == "dirichlet" else 0
    return 2 * (np.arange(n) + first), 2 * max(intervals, 1)


def wavenumbers(boundary: str | tuple[str, str], num_modes: int) -> np.ndarray:
    """Half-waves over the extent, mode by mode: basis function `m` oscillates like cos(pi w_m x/L)."""
    m = np.arange(num_modes)
    if boundary == "periodic":
        return 2.0 * ((m + 1) // 2)
    if boundary == "dirichlet":
        return m + 1.0
    if boundary == "neumann":
        return m + 0.0
    return m + 0.5


def _basis(boundary: str | tuple[str, str], num_modes: int, p: np.ndarray, q: int) -> np.ndarray:
    """Basis functions at x = L p/q as a matrix (points, modes); angles are reduced in integers, then rounded."""
    m = np.arange(num_modes)
    if boundary == "periodic":
        turns = (p[:, None] * ((m + 1) // 2)) % q
        angle = 2 * np.pi * turns / q
        return np.where(m % 2 == 1, np.cos(angle), np.where(m == 0, 1.0, np.sin(angle)))
    if isinstance(boundary, str):
        turns = (p[:, None] * (m + (boundary == "dirichlet"))) % (2 * q)
        angle = np.pi * turns / q
        return np.sin(angle) if boundary == "dirichlet" else np.cos(angle)
    turns = (p[:, None] * (2 * m + 1)) % (4 * q)
    angle = np.pi * turns / (2 * q)
    return np.sin(angle) if boundary[0] == "dirichlet" else np.cos(angle)


@functools.lru_cache(maxsize=128)
def synthesis_matrix(axis: Axis, num_modes: int | None = None) -> np.ndarray:
    """Coefficients to samples, `(num_points, num_modes)`; by default all modes the axis determines."""
    p, q = positions(axis)
    matrix = _basis(axis.boundary, axis.num_points if num_modes is None else num_modes, p, q)
    if _nyquist_is_sine(axis) and matrix.shape[1] >= axis.num_points:
        # On cells cos vanishes at the Nyquist wavenumber; its sine is the mode that the samples see.
        matrix[:, axis.num_points - 1] = np.sin(np.pi * ((p * (axis.num_points // 2)) % q) * 2 / q)
    return matrix


@functools.lru_cache(maxsize=128)
def analysis_matrix(axis: Axis, num_modes: int | None = None) -> np.ndarray:
    """Samples to coefficients, `(num_modes, num_points)`: discrete orthogonality of the basis.

    **Raises:** `ValueError` when more modes are asked for than the samples determine.
    """
    n = axis.num_points
    num_modes = n if num_modes is None else num_modes
    if num_modes > n:
        raise ValueError(f"num_modes: {n} samples determine {n} modes, got {num_modes}; ask for at most {n}.")
    weighted = synthesis_matrix(axis)[:, :num_modes] * relative_weights(axis)[:, None]
    norms = np.einsum("jm,jm->m", weighted, synthesis_matrix(axis)[:, :num_modes])
    return (weighted / norms).T


def relative_weights(axis: Axis) -> np.ndarray:
    """Quadrature weights in units of the spacing: 1, and 1/2 at a Neumann end node."""
    weights = np.ones(axis.num_points)
    if axis.centering == "node":
        for end, position in zip(axis.ends, (0, -1), strict=True):
            if end == "neumann":
                weights[position] = 0.5
    return weights


def shared_modes(axis: Axis) -> int:
    """How many leading modes are the same functions on every grid.

    All of them, except on an even number of periodic cells, where the last mode is the Nyquist sine.
    """
    return axis.num_points - _nyquist_is_sine(axis)


def _nyquist_is_sine(axis: Axis) -> bool:
    return axis.boundary == "periodic" and axis.centering == "cell" and axis.num_points % 2 == 0


def to_modes(u: Array, dim: int, axis: Axis) -> Array:
    """Samples along dimension `dim` to the `num_points` real coefficients of the axis's basis."""
    if axis.num_points <= MATMUL_LIMIT:
        return _apply(analysis_matrix(axis), u, dim)
    u = jnp.moveaxis(u, dim, -1)
    extended, offset = _extend(u, axis)
    total = extended.shape[-1]
    spectrum = jnp.fft.rfft(extended, norm="forward") * _phase(total, -offset, u.dtype)
    return jnp.moveaxis(_pick(spectrum, axis, total), -1, dim)


def from_modes(coefficients: Array, dim: int, axis: Axis) -> Array:
    """Coefficients along dimension `dim` to samples; missing high modes count as zero.

    **Raises:** `ValueError` when there are more modes than the axis can represent.
    """
    num_modes = coefficients.shape[dim]
    if num_modes > axis.num_points:
        raise ValueError(
            f"coefficients: {axis.num_points} points represent {axis.num_points} modes, got {num_modes}; "
            "cut the coefficients or take more points."
        )
    if axis.num_points <= MATMUL_LIMIT:
        return _apply(synthesis_matrix(axis, num_modes), coefficients, dim)
    c = jnp.moveaxis(coefficients, dim, -1)
    c = jnp.pad(c, [(0, 0)] * (c.ndim - 1) + [(0, axis.num_points - num_modes)])
    extended, offset = _extend(jnp.zeros(axis.num_points, c.dtype), axis)
    total = extended.shape[-1]
    spectrum = _place(c, axis, total) * _phase(total, offset, c.dtype)
    samples = jnp.fft.irfft(spectrum, n=total, norm="forward")
    start = 1 if axis.centering == "node" and axis.ends[0] == "dirichlet" else 0
    return jnp.moveaxis(samples[..., start : start + axis.num_points], -1, dim)


def _apply(matrix: np.ndarray, u: Array, dim: int) -> Array:
    dim = dim % u.ndim
    # A product from the left of (before, n, after) needs no transposition, unlike a tensordot.
    flat = u.reshape(math.prod(u.shape[:dim]), u.shape[dim], -1)
    product = jnp.matmul(jnp.asarray(matrix, u.dtype), flat, precision="highest")
    return product.reshape(*u.shape[:dim], matrix.shape[0], *u.shape[dim + 1 :])


def _extend(u: Array, axis: Axis) -> tuple[Array, float]:
    """One full period of the (anti)symmetric extension, and the offset of its first sample in spacings."""
    back = u[..., ::-1]
    low, high = axis.ends
    cell = axis.centering == "cell"
    offset = 0.5 if cell else 0.0
    if low == "periodic":
        return u, offset
    zero = jnp.zeros((*u.shape[:-1], 1), u.dtype)
    sign_high = -1.0 if high == "dirichlet" else 1.0
    if cell:
        half, mirrored = u, back
    elif low == high == "dirichlet":
        return jnp.concatenate([zero, u, zero, -back], -1), offset
    elif low == high == "neumann":
        return jnp.concatenate([u, back[..., 1:-1]], -1), offset
    elif low == "dirichlet":
        half, mirrored = jnp.concatenate([zero, u], -1), back[..., 1:]
    else:
        half, mirrored = jnp.concatenate([u, zero], -1), back[..., :-1]
    period = jnp.concatenate([half, sign_high * mirrored], -1)
    if low != high:  # quarter-wave: the field changes sign after twice the extent
        period = jnp.concatenate([period, -period], -1)
    return period, offset


def _phase(total: int, offset: float, dtype: jnp.dtype) -> Array:
    angle = 2 * np.pi * offset * np.arange(total // 2 + 1) / total
    return jnp.asarray(np.exp(1j * angle), jnp.complex128 if dtype == jnp.float64 else jnp.complex64)


def _indices(axis: Axis, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Where mode m sits in the spectrum of the extension, and its factor (1 at the ends, else 2)."""
    m = np.arange(axis.num_points)
    if axis.boundary == "periodic":
        k = (m + 1) // 2
    elif isinstance(axis.boundary, str):
        k = m + (axis.boundary == "dirichlet")
    else:
        k = 2 * m + 1
    return k, np.where((k == 0) | (2 * k == total), 1.0, 2.0)


def _is_sine(axis: Axis) -> np.ndarray:
    m = np.arange(axis.num_points)
    if axis.boundary == "periodic":
        sine = (m % 2 == 0) & (m > 0)
        if _nyquist_is_sine(axis):
            sine[-1] = True
        return sine
    return np.full(axis.num_points, axis.ends[0] == "dirichlet")


def _pick(spectrum: Array, axis: Axis, total: int) -> Array:
    k, factor = _indices(axis, total)
    chosen = jnp.take(spectrum, k, axis=-1)
    return jnp.where(_is_sine(axis), -chosen.imag, chosen.real) * jnp.asarray(factor, chosen.real.dtype)


def _place(c: Array, axis: Axis, total: int) -> Array:
    k, factor = _indices(axis, total)
    c = c / jnp.asarray(factor, c.dtype)
    sine = _is_sine(axis)
    real, imag = jnp.where(sine, 0, c), jnp.where(sine, -c, 0)
    if axis.boundary == "periodic":  # cosine and sine of one wavenumber share a slot
        real = jnp.concatenate([real[..., :1], real[..., 1::2]], -1)
        imag = jnp.concatenate([imag[..., :1], _interleaved_imag(imag, axis)], -1)
        return real + 1j * imag
    spectrum = real + 1j * imag
    size = total // 2 + 1
    if isinstance(axis.boundary, str):
        before = int(k[0])
        return jnp.pad(spectrum, [(0, 0)] * (c.ndim - 1) + [(before, size - before - c.shape[-1])])
    spread = jnp.stack([jnp.zeros_like(spectrum), spectrum], -1).reshape(*c.shape[:-1], -1)  # odd harmonics
    return jnp.pad(spread, [(0, 0)] * (c.ndim - 1) + [(0, size - spread.shape[-1])])


def _interleaved_imag(imag: Array, axis: Axis) -> Array:
    if axis.num_points % 2 == 1:
        return imag[..., 2::2]
    if axis.num_points == 2:
        return imag[..., 1:2]
    return jnp.concatenate([imag[..., 2::2], imag[..., -1:]], -1)
