"""How a field goes on beyond the ends of an axis, by any number of points, and maps of one axis on top of it.

`"wrap"`: around, `"zero"`: as zeros, `"even"` and `"odd"`: mirrored about the face half a spacing outside,
`"reflect"`: mirrored about the last point, `"wall"`: odd about the first point outside, where it is zero. All are
linear along their axis alone, so they commute with maps along the others.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from neuralops.nn.convolution import ghost_rule

__all__ = ["continued", "end_rules", "line_convolution", "source_of"]

Rules = tuple[str, str]
Amounts = tuple[int, int]


def end_rules(boundary: str | tuple[str, str], centering: str) -> Rules:
    """The rules of an axis from its boundary words, as `ghost_rule`, but for more than one point; and `"zero"`."""
    ends = (boundary, boundary) if isinstance(boundary, str) else boundary
    walls = {("dirichlet", "node"): "wall", ("zero", "node"): "zero", ("zero", "cell"): "zero"}
    low, high = (walls.get((word, centering)) or ghost_rule(word, centering)[0] for word in ends)
    return low, high


@functools.lru_cache(maxsize=4096)
def source_of(i: int, n: int, rules: Rules) -> tuple[int, int]:
    """The point of an axis of `n` points whose value, times the sign, stands at point `i`, which may lie outside."""
    sign = 1
    while not 0 <= i < n:
        rule = rules[0] if i < 0 else rules[1]
        if rule == "zero" or (rule == "wall" and i in (-1, n)):
            return 0, 0
        if rule == "wrap" or (rule == "reflect" and n == 1):
            i = i % n
        else:
            # The mirror: twice its place, so that it may lie between two points.
            mirror = {"odd": -1, "even": -1, "reflect": 0, "wall": -2}[rule]
            i = mirror - i if i < 0 else 2 * (n - 1) - mirror - i
            sign = -sign if rule in ("odd", "wall") else sign
    return i, sign


def continued(u: Float[Array, "*grid channels"], axis: int, rules: Rules, margin: Amounts) -> Array:
    """The field with `margin` points more in front of and behind one axis."""
    if not any(margin):
        return u
    if rules == ("zero", "zero"):
        return lax.pad(u, jnp.zeros((), u.dtype), [(*margin, 0) if a == axis else (0, 0, 0) for a in range(u.ndim)])
    n = u.shape[axis]
    before = _pieces(u, axis, [source_of(i, n, rules) for i in range(-margin[0], 0)])
    behind = _pieces(u, axis, [source_of(i, n, rules) for i in range(n, n + margin[1])])
    return jnp.concatenate([*before, u, *behind], axis)


def _pieces(u: Array, axis: int, sources: list[tuple[int, int]]) -> list[Array]:
    """The values at the sources, as few slices as there are runs of neighbours."""
    pieces: list[Array] = []
    start = 0
    while start < len(sources):
        (i, sign), end = sources[start], start + 1
        step = sources[end][0] - i if end < len(sources) else 1
        while end < len(sources) and sources[end] == (i + step * (end - start), sign) and step in (-1, 0, 1):
            end += 1
        m = end - start
        low = i - m + 1 if step == -1 and m > 1 else i
        piece = lax.slice_in_dim(u, low, low + (1 if step == 0 or m == 1 else m), axis=axis)
        piece = lax.rev(piece, (axis,)) if step == -1 and m > 1 else piece
        if step == 0 and m > 1:
            piece = jnp.concatenate([piece] * m, axis)
        pieces.append(jnp.zeros_like(piece) if sign == 0 else piece if sign > 0 else -piece)
        start = end
    return pieces


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
