"""Sine, cosine and Fourier transforms along the last dimension of an array by real FFTs, orthonormal.

Each is a `Transform`: S^T from samples to coefficients and S back, for one kind of axis (see `line_modes`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from neuralops.solvers.direct.line_modes import Line, Transform, stencil_eigenvalues

__all__ = ["by_fft", "fft_length", "makhoul_order", "makhoul_signs", "makhoul_twiddle", "take"]


@functools.lru_cache(maxsize=64)
def by_fft(line: Line) -> Transform:
    """The transform of an evenly spaced axis by one FFT."""
    low, high = line.axis.ends
    if low == "periodic":
        analyse, synthesise, half_waves = _periodic(line.axis.num_points)
    elif low == high:
        makers = {"cell": _cells, "node": _sine_nodes if low == "dirichlet" else _cosine_nodes}
        analyse, synthesise, half_waves = makers[line.axis.centering](line.axis.num_points, low == "dirichlet")
    else:
        analyse, synthesise, half_waves = _quarter(line.axis.num_points, line.axis.centering)
        if low == "dirichlet":  # the formulas count from the Neumann end
            forward, back = analyse, synthesise
            analyse, synthesise = lambda u: forward(u[..., ::-1]), lambda c: back(c)[..., ::-1]
    return Transform(
        lambda u, dim: analyse(u), lambda c, dim: synthesise(c), stencil_eigenvalues(line, half_waves), last=True
    )


def fft_length(line: Line) -> int:
    """The length of the FFT that `by_fft` takes."""
    n, (low, high) = line.axis.num_points, line.axis.ends
    if line.axis.centering == "node" and low == high != "periodic":
        return 2 * (n + 1) if low == "dirichlet" else 2 * (n - 1)
    return n


Maps = tuple[Callable[[Array], Array], Callable[[Array], Array], np.ndarray]  # S^T, S, half-waves of the modes


def _periodic(n: int) -> Maps:
    """Cosines and sines over a period."""
    head = n // 2 + 1
    scale = np.full(head, math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    if n % 2 == 0:
        scale[-1] = scale[0]
    k = np.arange(n // 2 + 1)

    def analyse(u: Array) -> Array:
        spectrum = jnp.fft.rfft(u) * jnp.asarray(scale, u.dtype)
        return jnp.concatenate([spectrum.real, -spectrum.imag[..., 1 : (n + 1) // 2]], -1)

    def synthesise(c: Array) -> Array:
        spectrum = _complex(c) / jnp.asarray(scale, c.dtype)
        return jnp.fft.irfft(spectrum, n=n)

    return analyse, synthesise, 2 * np.concatenate([k, k[1 : (n + 1) // 2]])


def _sine_nodes(n: int, dirichlet: bool) -> Maps:
    """Dirichlet ends at nodes: S_jk = sqrt(2/N) sin(pi j k / N), N = n + 1, its own transpose.

    Of the FFT over twice the interval the mirrored half is left zero: it would only double the imaginary part.
    """
    scale = -math.sqrt(2 / (n + 1))

    def both(u: Array) -> Array:
        padded = jnp.pad(u, [(0, 0)] * (u.ndim - 1) + [(1, n + 1)])
        return jnp.fft.rfft(padded).imag[..., 1 : n + 1] * scale

    return both, both, np.arange(1, n + 1)


def _cosine_nodes(n: int, dirichlet: bool) -> Maps:
    """Neumann ends at nodes: S_jk = sqrt(2/N) r_k cos(pi j k / N), N = n - 1, r = sqrt(1/2) at both ends."""
    scale = np.full(n, math.sqrt(2 / (n - 1)))
    scale[[0, -1]] = math.sqrt(1 / (n - 1))

    def cosines(u: Array) -> Array:
        return jnp.fft.rfft(jnp.pad(u, [(0, 0)] * (u.ndim - 1) + [(0, n - 2)])).real

    return (
        lambda u: cosines(u) * jnp.asarray(scale, u.dtype),
        lambda c: cosines(c * jnp.asarray(scale, c.dtype)),
        np.arange(n),
    )


def _cells(n: int, dirichlet: bool) -> Maps:
    """Like ends in cells: sqrt(2/n) sin or cos(pi k (j + 1/2) / n), by Makhoul's cosine transform."""
    order = makhoul_order(n)
    sign = makhoul_signs(n) if dirichlet else np.ones(n)
    k = np.concatenate([np.arange(n // 2 + 1), n - np.arange(1, (n + 1) // 2)])
    return (
        lambda u: _to_cosines(take(u, order, -1) * jnp.asarray(sign[order], u.dtype)),
        lambda c: take(_from_cosines(c), np.argsort(order), -1) * jnp.asarray(sign, c.dtype),
        n - k if dirichlet else k,
    )


def _quarter(n: int, centering: str) -> Maps:
    """One Neumann end, at which j counts from 0, and one Dirichlet end."""
    if centering == "node":
        return _quarter_nodes(n)
    return _quarter_cells_odd(n) if n % 2 else _quarter_cells_even(n)


def _quarter_nodes(n: int) -> Maps:
    """S_jm = sqrt(2/n) cos(pi j (m + 1/2) / n).

    It is the transpose of the cosine transform of n cells, with points and modes in each other's places, but for a
    factor sqrt(2) at the Neumann node.
    """
    head = n // 2 + 1
    weight = np.ones(n)
    weight[0] = math.sqrt(2)

    def reorder(u: Array) -> Array:  # points between the natural order and that of cosine coefficients; self-inverse
        return jnp.concatenate([u[..., :head], u[..., head:][..., ::-1]], -1)

    return (
        lambda u: _from_cosines(reorder(u * jnp.asarray(weight, u.dtype))),
        lambda c: reorder(_to_cosines(c)) * jnp.asarray(weight, c.dtype),
        makhoul_order(n) + 0.5,
    )


def _quarter_cells_even(n: int) -> Maps:
    """S_jm = sqrt(2/n) cos(pi (j + 1/2)(m + 1/2) / n) for even n, its own transpose.

    With z_j = x_2j + i x_(n-1-2j), coefficients 2k and n-1-2k are real and minus imaginary part of the sum over j of
    z_j exp(-i pi (4j + 1)(4k + 1) / (4 n)): an FFT of n/2 complex numbers.
    """
    half = n // 2
    j = np.arange(half)
    twiddle = np.exp(-1j * np.pi * (8 * j + 1) / (8 * n)) * half**-0.25

    def analyse(u: Array) -> Array:
        z = lax.complex(u[..., ::2], u[..., ::-1][..., ::2])
        z = jnp.fft.fft(z * jnp.asarray(twiddle, z.dtype)) * jnp.asarray(twiddle, z.dtype)
        return jnp.concatenate([z.real, -z.imag], -1)

    def synthesise(c: Array) -> Array:
        z = lax.complex(c[..., :half], -c[..., half:])
        back = jnp.asarray(twiddle.conj(), z.dtype)
        z = jnp.fft.ifft(z * back, norm="forward") * back
        return jnp.stack([z.real, z.imag[..., ::-1]], -1).reshape(c.shape)

    return analyse, synthesise, np.append(2 * j, n - 1 - 2 * j) + 0.5


def _quarter_cells_odd(n: int) -> Maps:
    """The same for odd n: a Hartley transform of the samples in another order.

    With a = 2j + 1 and b = 2m + 1 the mode is cos(2 pi a b / (8 n)), which on odd numbers modulo 8n keeps its value
    from a to -a and turns its sign from a to a + 4n. Let j be represented by that one of +-a, +-a + 4n that is n modulo
    8, and m by that one of +-b, +-b + 4n that is 7 modulo 8, with q = b / 8 modulo n. Then by the Chinese remainder
    theorem the angle is 2 pi (a mod n) q / n - pi / 4, and the mode (cos + sin) / sqrt(2), Hartley's.
    """
    a = 2 * np.arange(n) + 1
    images = np.stack([a, -a, a + 4 * n, 4 * n - a], -1) % (8 * n)
    choice = np.argmax(images % 8 == n % 8, axis=-1)
    place, sign = images[np.arange(n), choice] % n, np.where(choice < 2, 1.0, -1.0)
    b = (7 * n * n + 64 * pow(8, -1, n) * np.arange(n)) % (4 * n)
    half_waves = np.minimum(b, 4 * n - b) / 2
    order, scale = np.argsort(place), 1 / math.sqrt(n)

    def hartley(u: Array) -> Array:
        spectrum = jnp.fft.rfft(u) * scale
        rest = spectrum[..., 1:]
        return jnp.concatenate([spectrum.real - spectrum.imag, (rest.real + rest.imag)[..., ::-1]], -1)

    return (
        lambda u: hartley(take(u, order, -1) * jnp.asarray(sign[order], u.dtype)),
        lambda c: take(hartley(c), place, -1) * jnp.asarray(sign, c.dtype),
        half_waves,
    )


# The cosine transform of n cells by a real FFT of length n (Makhoul 1980, A fast cosine transform in one and two
# dimensions): with v the even samples followed by the odd ones backwards, coefficient k is Re(w_k V_k) and coefficient
# n - k is -Im(w_k V_k), w_k = exp(-i pi k / (2 n)).


def makhoul_order(n: int) -> np.ndarray:
    """Even indices, then the odd ones backwards."""
    return np.concatenate([np.arange(0, n, 2), np.arange(1, n, 2)[::-1]])


def makhoul_signs(n: int) -> np.ndarray:
    """+1 at even, -1 at odd indices: turns sines of n cells into cosines, with modes counted from the other end."""
    return np.where(np.arange(n) % 2, -1.0, 1.0)


def makhoul_twiddle(n: int, count: int) -> np.ndarray:
    return np.exp(-1j * np.pi * np.arange(count) / (2 * n))


def take(u: Array, index: np.ndarray, dim: int) -> Array:
    """`jnp.take` by a permutation known in advance."""
    return jnp.take(u, index.astype(np.int32), axis=dim, mode="clip", unique_indices=True)


def _to_cosines(v: Array) -> Array:
    """Samples in Makhoul's order to orthonormal coefficients in the order 0, ..., n/2, n - 1, n - 2, ..."""
    n = v.shape[-1]
    spectrum = jnp.fft.rfft(v)
    spectrum = spectrum * jnp.asarray(_cosine_factors(n), spectrum.dtype)
    return jnp.concatenate([spectrum.real, -spectrum.imag[..., 1 : (n + 1) // 2]], -1)


def _from_cosines(c: Array) -> Array:
    """The inverse, and the transpose, of `_to_cosines`."""
    n = c.shape[-1]
    factors = 1 / _cosine_factors(n)
    if n % 2 == 0:  # the Nyquist value is real: its real part after the twiddle tells all
        factors[-1] = 1 / _cosine_factors(n)[-1].real
    spectrum = _complex(c)
    return jnp.fft.irfft(spectrum * jnp.asarray(factors, spectrum.dtype), n=n)


def _cosine_factors(n: int) -> np.ndarray:
    factors = makhoul_twiddle(n, n // 2 + 1) * math.sqrt(2 / n)
    factors[0] = math.sqrt(1 / n)
    return factors


def _complex(c: Array) -> Array:
    """Coefficients 0, ..., n/2 and the others as real and minus imaginary part of half a spectrum."""
    n = c.shape[-1]
    imag = jnp.pad(c[..., n // 2 + 1 :], [(0, 0)] * (c.ndim - 1) + [(1, 1 - n % 2)])
    return lax.complex(c[..., : n // 2 + 1], -imag)
