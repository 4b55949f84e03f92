"""How a field goes on beyond the ends of an axis, by any number of points: what every stencil and kernel reads there.

`"wrap"`: around, `"zero"`: as zeros, `"even"` and `"odd"`: mirrored about the face half a spacing outside,
`"reflect"`: mirrored about the last point, `"wall"`: odd about the first point outside, where it is zero. All are
linear along their axis alone, so they commute with maps along the others.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

__all__ = ["Amounts", "Rules", "beyond", "continued", "end_rules", "source_of"]

Rules = tuple[str, str]
Amounts = tuple[int, int]
_WORDS = {
    ("periodic", "node"): "wrap", ("dirichlet", "node"): "wall", ("neumann", "node"): "reflect",
    ("periodic", "cell"): "wrap", ("dirichlet", "cell"): "odd", ("neumann", "cell"): "even",
    ("zero", "node"): "zero", ("zero", "cell"): "zero",
}  # fmt: skip


def end_rules(boundary: str | tuple[str, str], centering: str) -> Rules:
    """The rules of the low and the high end of an axis, from its boundary words as in `Grid`, or `"zero"`."""
    low, high = (boundary, boundary) if isinstance(boundary, str) else boundary
    return _WORDS[low, centering], _WORDS[high, centering]


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


def continued(u: Array, axis: int, rules: Rules, margin: Amounts) -> Array:
    """The field with `margin` points more in front of and behind one axis."""
    if not any(margin):
        return u
    if rules == ("zero", "zero"):
        return lax.pad(u, jnp.zeros((), u.dtype), [(*margin, 0) if a == axis else (0, 0, 0) for a in range(u.ndim)])
    before, behind = beyond(u, axis, rules, margin)
    return jnp.concatenate([*before, u, *behind], axis)


def beyond(u: Array, axis: int, rules: Rules, margin: Amounts) -> tuple[list[Array], list[Array]]:
    """The `margin` points in front of and behind one axis alone, each in pieces in ascending order."""
    n = u.shape[axis]
    before = _pieces(u, axis, [source_of(i, n, rules) for i in range(-margin[0], 0)])
    behind = _pieces(u, axis, [source_of(i, n, rules) for i in range(n, n + margin[1])])
    return before, behind


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
