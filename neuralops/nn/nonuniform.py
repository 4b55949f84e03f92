"""The Fourier transform of functions given at arbitrary points, and Fourier series sampled at arbitrary points.

Direct sums, exact to rounding, in real arithmetic and in chunks of points, so that memory does not grow with
points times modes. Coefficients are laid out as in `SpectralConv`: `(*modes, channels, 2)`, real and imaginary part,
signed frequencies -(m // 2) ... m // 2 + m % 2 - 1 on every axis but the last, which has 0 ... m // 2 because the
functions are real. Places are in periods: a point x and x + 1 are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

HIGHEST = jax.lax.Precision.HIGHEST  # on a GPU the default would round to ten bits


def frequencies(n_modes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """The frequencies kept on each axis."""
    signed = [np.arange(-(m // 2), m // 2 + m % 2) for m in n_modes[:-1]]
    return (*signed, np.arange(n_modes[-1] // 2 + 1))


def to_modes(
    u: Float[Array, "points channels"],
    x: Float[Array, "points ndim"],
    n_modes: Sequence[int],
    weights: Float[Array, " points"],
    *,
    chunk_size: int | None = None,
) -> Float[Array, "*modes channels 2"]:
    """sum_n weights_n u_n exp(-2 pi i k . x_n), for each kept k.

    With quadrature weights that sum to one these are the Fourier coefficients of u; with 1/points and the points of a
    uniform grid they are those of the FFT with `norm="forward"`.
    """
    weighted = u * weights[:, None]
    shape = tuple(len(k) for k in frequencies(n_modes))

    def part(x: Array, v: Array) -> Array:
        cosine, sine = _waves(x, n_modes)
        both = jnp.concatenate([cosine, -sine], 1)
        return jnp.einsum("nk,nc->kc", both, v, precision=HIGHEST)

    total: Any = None
    if chunk_size is None or len(x) <= chunk_size:
        total = part(x, weighted)
    else:
        xs, vs = _chunks(x, chunk_size), _chunks(weighted, chunk_size)
        step = jax.checkpoint(lambda total, chunk: (total + part(*chunk), None))
        start = jnp.zeros((2 * math.prod(shape), u.shape[1]), jnp.result_type(weighted, x))
        total = jax.lax.scan(step, start, (xs, vs))[0]
    return jnp.moveaxis(total.reshape(2, *shape, u.shape[1]), 0, -1)


def sample(
    coefficients: Float[Array, "*modes channels 2"],
    x: Float[Array, "points ndim"],
    n_modes: Sequence[int],
    *,
    published: bool = False,
    chunk_size: int | None = None,
) -> Float[Array, "points channels"]:
    """The real function with these coefficients at the points x.

    A frequency k of which only one sign is kept on the last axis stands for the pair k, -k. The published code of
    Geo-FNO and LSM places the partner at -k - (1, 0, ...) instead; `published=True` does so too.
    """
    *_, channels, _ = coefficients.shape
    half = np.asarray(frequencies(n_modes)[-1] > 0)
    doubled = np.broadcast_to(half, tuple(len(k) for k in frequencies(n_modes))).ravel()
    flat = coefficients.reshape(-1, channels, 2)
    re, im = flat[..., 0], flat[..., 1]
    weight = jnp.asarray(np.where(doubled & (not published), 2.0, 1.0)[:, None], re.dtype)
    matrix = jnp.concatenate([weight * re, -weight * im])
    if published:
        inside = jnp.asarray(doubled[:, None], re.dtype)
        pairs = jnp.concatenate([inside * re, -inside * im]), jnp.concatenate([inside * im, inside * re])
        matrix = jnp.concatenate([matrix, *pairs], -1)

    def part(x: Array) -> Array:
        values = jnp.einsum("nk,kc->nc", jnp.concatenate(_waves(x, n_modes), 1), matrix, precision=HIGHEST)
        if not published:
            return values
        # The conjugate of the half sum z, shifted by one frequency: Re(conj(z) exp(-2 pi i x_1)).
        values, z_re, z_im = jnp.split(values, 3, axis=-1)
        angle = 2 * math.pi * x[:, :1]
        return values + z_re * jnp.cos(angle) - z_im * jnp.sin(angle)

    if chunk_size is None or len(x) <= chunk_size:
        return part(x)
    chunks = jax.lax.map(jax.checkpoint(part), _chunks(x, chunk_size))
    return chunks.reshape(-1, channels)[: len(x)]


def _waves(x: Float[Array, "points ndim"], n_modes: Sequence[int]) -> tuple[Array, Array]:
    """cos and sin of 2 pi k . x, `(points, modes)` each, axis by axis from the addition theorems."""
    cosine = sine = None
    for axis, k in enumerate(frequencies(n_modes)):
        # Whole periods are dropped first, so that far points lose no digits.
        turns = x[:, axis, None] - jax.lax.stop_gradient(jnp.round(x[:, axis, None]))
        angle = (2 * math.pi) * turns * jnp.asarray(k, x.dtype)
        c, s = jnp.cos(angle), jnp.sin(angle)
        if cosine is None or sine is None:
            cosine, sine = c, s
        else:
            a, b = cosine[:, :, None], sine[:, :, None]
            c, s = c[:, None], s[:, None]
            cosine = (a * c - b * s).reshape(len(x), -1)
            sine = (b * c + a * s).reshape(len(x), -1)
    assert cosine is not None
    assert sine is not None
    return cosine, sine


def _chunks(x: Array, size: int) -> Array:
    """(points, ...) as (chunks, size, ...), zeros at the end."""
    missing = -len(x) % size
    return jnp.pad(x, [(0, missing), *[(0, 0)] * (x.ndim - 1)]).reshape(-1, size, *x.shape[1:])
