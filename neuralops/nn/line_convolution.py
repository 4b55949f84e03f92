"""Convolutions along one axis, each channel alone."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

__all__ = ["line_convolution"]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def line_convolution(u: Array, taps: Float[Array, "taps channels"], axis: int, stride: int, dilation: int) -> Array:
    """out[i] = sum over taps of u[stride i + dilation tap] taps[tap] along one axis, each channel alone, no padding.

    A sum of shifted fields: on a CPU far faster than a convolution with groups of channels.
    """
    pieces = _shifted(u, taps.shape[0], axis, stride, dilation)
    return _summed([piece * taps[t] for t, piece in enumerate(pieces)])


@functools.partial(line_convolution.defjvp, symbolic_zeros=True)
def _line_convolution_jvp(axis: int, stride: int, dilation: int, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (u, taps), (du, dtaps) = primals, tangents
    out, linear = line_convolution(u, taps, axis, stride, dilation), []
    if type(du) is not SymbolicZero:
        linear.append(line_convolution(du, taps, axis, stride, dilation))
    if type(dtaps) is not SymbolicZero:
        # As products with a column of ones, so that the transpose is a product of matrices and not a sum over points,
        # which XLA on a CPU does slowly.
        pieces = _shifted(u, taps.shape[0], axis, stride, dilation)
        ones = jnp.ones((math.prod(out.shape[:-1]), 1), u.dtype)
        linear.append(_summed([p * (ones @ dtaps[t][None]).reshape(p.shape) for t, p in enumerate(pieces)]))
    return out, _summed(linear) if linear else jnp.zeros_like(out)


def _shifted(u: Array, taps: int, axis: int, stride: int, dilation: int) -> list[Array]:
    reach = dilation * (taps - 1)
    last = (u.shape[axis] - reach - 1) // stride * stride + 1
    return [lax.slice_in_dim(u, dilation * t, dilation * t + last, stride, axis) for t in range(taps)]


def _summed(terms: list[Array]) -> Array:
    return functools.reduce(jnp.add, terms)
