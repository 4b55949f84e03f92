"""Convolutions with small kernels on a box: on one grid, to every second point, and back.

Fields are channels-last, `(*grid, channels)`, kernels `(*taps, channels_in, channels_out)`. Where a kernel reaches over
the edge it reads ghost points, and these follow from the boundary, as in `Grid`: a periodic field is wrapped around,
a Dirichlet field continued as an odd function and a Neumann field as an even one, about the wall, which is the first
point outside (Dirichlet nodes, so that the ghost is zero), the last point (Neumann nodes) or half a spacing outside
(cells). `"zero"` is the plain zero padding of image networks.

The forms in which a convolution is fast and those in which its transposes are differ. Each function here computes the
fast form, and writes its derivative (`custom_jvp`) in forms whose transposes are fast on a CPU: in the kernel one
product of matrices, in the field of a strided convolution a plain one on pairs of points (`docs/benchmarks.md`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from neuralops.continuation import continued, end_rules

__all__ = ["coarse_points", "coarsen", "convolve", "correlate", "ghost_rule", "refine"]

Field = Float[Array, "*grid channels"]
Kernel = Float[Array, "*taps channels channels_out"]
Padding = tuple[tuple[int, int], ...]


def ghost_rule(boundary: str | tuple[str, str], centering: str) -> tuple[str, str]:
    """How an axis continues beyond its low and high end, by the one point that kernels of three taps read.

    The `end_rules` of `neuralops.continuation`; beyond a Dirichlet node that one point is the wall, and `"zero"`.
    """
    low, high = ("zero" if rule == "wall" else rule for rule in end_rules(boundary, centering))
    return low, high


def coarse_points(num_points: int, kept: str) -> int:
    """How many points of an axis a coarse grid keeps: those with `"even"` or with `"odd"` index, counted from 0.

    Only odd points with a neighbour on both sides stay, so an axis of 2m points keeps m even but m - 1 odd ones.
    """
    return (num_points + 1) // 2 if kept == "even" else (num_points - 1) // 2


def convolve(u: Field, kernel: Kernel, ghosts: Sequence[tuple[str, str]]) -> Field:
    """The convolution with a kernel of three taps per axis, centred at each point; `ghosts` per axis."""
    return _extended(u, kernel, ghosts, 1, stride=1)


def coarsen(u: Field, kernel: Kernel, ghosts: Sequence[tuple[str, str]], kept: str) -> Field:
    """The same at every second point only, those of `coarse_points`."""
    return _extended(u, kernel, ghosts, 1 if kept == "even" else 0, stride=2)


def refine(u: Field, kernel: Kernel, ghosts: Sequence[tuple[str, str]], kept: str, num_points: Sequence[int]) -> Field:
    """The transposed convolution: each coarse value spreads the kernel onto a grid of `num_points`.

    With three taps the kernel is centred on the fine point that the coarse one was, with four half a spacing
    further, so that a pair of cells shares one coarse cell. Ghosts are those of the coarse field.
    """
    first = -1 if kept == "even" else 0  # the fine point, relative to twice the coarse index, of the kernel's tap 0
    taps = kernel.shape[0]
    windows = [_window(parity, first, taps) for parity in (0, 1)]
    u, kernel = _promoted(u, kernel)
    margins, starts, counts = [], [], []
    for m, n in zip(u.shape[:-1], num_points, strict=True):
        per_parity = [(window[0], (n - parity + 1) // 2) for parity, window in enumerate(windows)]
        low = max(0, -min(start for start, _ in per_parity))
        high = max(0, max(start + count + 1 for start, count in per_parity) - m)
        margins.append((low, high))
        starts.append([start + low for start, _ in per_parity])
        counts.append([count for _, count in per_parity])
    wide = _ghosts_added(u, ghosts, margins)
    every = _correlate(wide, _by_parity(kernel, windows), ((0, 0),) * len(margins), 1)
    ndim, channels = len(margins), kernel.shape[-1]
    every = every.reshape(*every.shape[:-1], *(2,) * ndim, channels)
    for axis in range(ndim):  # interleave axis by axis; the parities of the remaining axes follow the grid
        both = []
        for parity in (0, 1):
            part = lax.index_in_dim(every, parity, ndim, keepdims=False)
            start, count = starts[axis][parity], max(counts[axis])
            missing = start + count - part.shape[axis]
            if missing > 0:  # only for the last odd point, which does not exist then
                part = jnp.pad(part, [(0, missing if a == axis else 0) for a in range(part.ndim)])
            both.append(lax.slice_in_dim(part, start, start + count, axis=axis))
        joined = jnp.stack(both, axis + 1)
        joined = joined.reshape(*joined.shape[:axis], -1, *joined.shape[axis + 2 :])
        every = lax.slice_in_dim(joined, 0, num_points[axis], axis=axis)
    return every


def correlate(
    u: Field, kernel: Kernel, padding: Padding, stride: Sequence[int], dilation: Sequence[int]
) -> Float[Array, "*grid_out channels_out"]:
    """out[i] = sum over taps of u[stride i + dilation tap] kernel[tap] with any taps, strides and dilations per axis.

    Zeros as `padding` says, in front and behind per axis.
    """
    u, kernel = _promoted(u, kernel)
    if max(stride) == 1 and len(set(kernel.shape[:-2])) == 1:
        if max(dilation) == 1:
            return _correlate(u, kernel, padding, 1)
        if len(padding) == 3 and jax.default_backend() == "cpu":
            return _by_phases(u, kernel, padding, dilation)
    space = "DHW"[3 - len(padding) :]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    return lax.conv_general_dilated(u[None], kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=numbers)[
        0
    ]


def _by_phases(u: Field, kernel: Kernel, padding: Padding, dilation: Sequence[int]) -> Field:
    """A dilated convolution as plain ones on every d-th point: XLA on a CPU takes its fast 3-D one only for those."""
    ndim, taps = len(padding), kernel.shape[0]
    wide = [n + sum(p) for n, p in zip(u.shape[:-1], padding, strict=True)]
    counts = [-(-n // d) for n, d in zip(wide, dilation, strict=True)]
    ends = [(p[0], c * d - n - p[0], 0) for p, c, d, n in zip(padding, counts, dilation, u.shape[:-1], strict=True)]
    u = lax.pad(u, jnp.zeros((), u.dtype), [*ends, (0, 0, 0)])
    u = u.reshape(*itertools.chain.from_iterable(zip(counts, dilation, strict=True)), u.shape[-1])
    points, phases = range(0, 2 * ndim, 2), range(1, 2 * ndim, 2)
    u = u.transpose(*phases, *points, 2 * ndim).reshape(math.prod(dilation), *counts, -1)
    u = jax.vmap(lambda v: _correlate(v, kernel, ((0, 0),) * ndim, 1))(u)
    kept = u.shape[1:-1]
    u = u.reshape(*dilation, *kept, -1)
    u = u.transpose(*itertools.chain.from_iterable((ndim + a, a) for a in range(ndim)), 2 * ndim)
    u = u.reshape(*(c * d for c, d in zip(kept, dilation, strict=True)), -1)
    sizes = [n - d * (taps - 1) for n, d in zip(wide, dilation, strict=True)]
    return u[tuple(slice(0, n) for n in sizes)]


def _window(parity: int, first: int, taps: int) -> tuple[int, tuple[int, int]]:
    """Which coarse points reach the fine points 2j + parity: the first, j + start, and the kernel's tap for it and the
    next one (`taps` where it has none)."""

    def shifts(parity: int) -> list[int]:
        return [(parity - first - tap) // 2 for tap in range(taps) if (parity - first - tap) % 2 == 0]

    # With three taps one parity has a single one: its window starts where that of the other does.
    start = min(shifts(parity) if len(shifts(parity)) == 2 else shifts(1 - parity))
    chosen = [parity - first - 2 * (start + t) for t in (0, 1)]
    return start, (chosen[0] if 0 <= chosen[0] < taps else taps, chosen[1] if 0 <= chosen[1] < taps else taps)


def _by_parity(kernel: Kernel, windows: Sequence[tuple[int, tuple[int, int]]]) -> Kernel:
    """The kernel of two taps per axis whose channels are those of all parities of the fine points."""
    ndim = kernel.ndim - 2
    for axis in reversed(range(ndim)):  # (..., taps, ...) to (..., 2, 2 parities, ...)
        zero = jnp.zeros_like(lax.index_in_dim(kernel, 0, axis, keepdims=False))
        every = [lax.index_in_dim(kernel, a, axis, keepdims=False) for a in range(kernel.shape[axis])] + [zero]
        kernel = jnp.stack([jnp.stack([every[taps[t]] for _, taps in windows], axis) for t in (0, 1)], axis)
    where, parities = range(0, 2 * ndim, 2), range(1, 2 * ndim, 2)
    kernel = kernel.transpose(*where, 2 * ndim, *parities, 2 * ndim + 1)
    return kernel.reshape(*(2,) * ndim, kernel.shape[ndim], -1)


def _extended(u: Field, kernel: Kernel, ghosts: Sequence[tuple[str, str]], margin: int, *, stride: int) -> Field:
    """The convolution of a field continued by `margin` points; zeros are left to the convolution as padding."""
    plain = [rule == ("zero", "zero") for rule in ghosts]
    added = [(0, 0) if zero else (margin, margin) for zero in plain]
    padding = tuple((margin, margin) if zero else (0, 0) for zero in plain)
    u, kernel = _promoted(u, kernel)
    return _correlate(_ghosts_added(u, ghosts, added), kernel, padding, stride)


def _promoted(u: Field, kernel: Kernel) -> tuple[Field, Kernel]:
    dtype = jnp.result_type(u, kernel)
    return u.astype(dtype), kernel.astype(dtype)


def _ghosts_added(u: Field, ghosts: Sequence[tuple[str, str]], margins: Sequence[tuple[int, int]]) -> Field:
    for axis, (rules, margin) in enumerate(zip(ghosts, margins, strict=True)):
        u = continued(u, axis, rules, margin)
    return u


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _correlate(u: Field, kernel: Kernel, padding: Padding, stride: int) -> Field:
    """out[i] = sum over taps of u[stride i + tap] kernel[tap], with zeros as `padding` says."""
    return _plain(u, kernel, padding, stride)


@functools.partial(_correlate.defjvp, symbolic_zeros=True)
def _correlate_jvp(padding: Padding, stride: int, primals: tuple[Field, Kernel], tangents: tuple) -> tuple:
    (u, kernel), (du, dkernel) = primals, tangents
    out = _correlate(u, kernel, padding, stride)
    linear = []
    if type(du) is not SymbolicZero:
        linear.append(_plain_by_pairs(du, kernel, padding, stride))
    if type(dkernel) is not SymbolicZero:
        linear.append(_by_products(u, dkernel, padding, stride))
    return out, sum(linear[1:], linear[0]) if linear else jnp.zeros_like(out)


def _plain(u: Field, kernel: Kernel, padding: Padding, stride: int) -> Field:
    space = "DHW"[3 - len(padding) :]
    numbers = (f"N{space}C", f"{space}IO", f"N{space}C")
    # On a CPU XLA takes its fast convolution only where there is padding: some zeros more, and their results cut off.
    cut = stride == 1 and not any(low + high for low, high in padding) and jax.default_backend() == "cpu"
    if cut:
        padding = ((1, 1),) * len(padding)
    out = lax.conv_general_dilated(u[None], kernel, (stride,) * len(padding), padding, dimension_numbers=numbers)[0]
    return out[tuple(slice(1, -1) for _ in padding)] if cut else out


def _plain_by_pairs(u: Field, kernel: Kernel, padding: Padding, stride: int) -> Field:
    """`_plain`, with a fast transpose in the field."""
    if stride == 1 or jax.default_backend() != "cpu":
        return _plain(u, kernel, padding, stride)
    return _plain(*_in_pairs(u, kernel, padding), ((0, 0),) * len(padding), 1)


def _by_products(u: Field, kernel: Kernel, padding: Padding, stride: int) -> Field:
    """`_plain`, with a fast transpose in the kernel: one product of matrices.

    Neighbours along the first axes are gathered as channels, those along the other axes scattered from channels, so
    that the product has all taps at once and neither side is copied more often than it must be.
    """
    if jax.default_backend() != "cpu":
        return _plain(u, kernel, padding, stride)
    if stride == 2:
        u, kernel = _in_pairs(u, kernel, padding)
        padding = ((0, 0),) * len(padding)
    ndim, taps = len(padding), kernel.shape[0]
    # Where there are fewer points than channels the fields are smaller than the kernels to be summed, and one product
    # over all samples is faster.
    if math.prod(u.shape[:-1]) >= kernel.shape[-2]:
        kernel = per_sample(kernel, u)
    gathered = (ndim + 1) // 2
    for axis in range(gathered):
        low, high = padding[axis]
        u = jnp.concatenate([_padded(u, axis, low - t, high + t - taps + 1) for t in range(taps)], -1)
    c_in, c_out = kernel.shape[-2:]
    # Rows: the taps gathered last vary slowest. Columns: the taps to scatter first vary slowest.
    order = (*reversed(range(gathered)), ndim, *range(gathered, ndim), ndim + 1)
    matrix = kernel.transpose(order).reshape(taps**gathered * c_in, taps ** (ndim - gathered) * c_out)
    v = (u.reshape(-1, u.shape[-1]) @ matrix).reshape(*u.shape[:-1], -1)
    for axis in range(gathered, ndim):
        low, high = padding[axis]
        parts = lax.split(v, [v.shape[-1] // taps] * taps, axis=ndim)
        v = functools.reduce(
            jnp.add, [_padded(part, axis, low - t, high + t - taps + 1) for t, part in enumerate(parts)]
        )
    return v


def per_sample(weights: Any, u: Array) -> Any:
    """The weights, tied to a sample: under `vmap` derivatives in them are products sample by sample, and their sum.

    The one product over points and samples at once makes XLA on a CPU transpose the fields first. Elsewhere nothing.
    """
    if jax.default_backend() != "cpu":
        return weights
    itself = u.ravel()[0] == u.ravel()[0]
    return jax.tree.map(lambda w: lax.select(jnp.broadcast_to(itself, w.shape), w, w), weights)


def _padded(u: Field, axis: int, low: int, high: int) -> Field:
    """Zeros in front of and behind the field along one axis; negative counts cut points off."""
    amounts = [(low, high, 0) if a == axis else (0, 0, 0) for a in range(u.ndim)]
    return lax.pad(u, jnp.zeros((), u.dtype), amounts)


def _in_pairs(u: Field, kernel: Kernel, padding: Padding) -> tuple[Field, Kernel]:
    """A convolution to every second point as one of two taps on the grid of pairs of points, channels side by side."""
    ndim, taps = len(padding), kernel.shape[:-2]
    pairs = [(n + sum(p) - k) // 2 + 2 for n, k, p in zip(u.shape[:-1], taps, padding, strict=True)]
    margins = [(p[0], 2 * m - n - p[0], 0) for m, n, p in zip(pairs, u.shape[:-1], padding, strict=True)]
    u = lax.pad(u, jnp.zeros((), u.dtype), [*margins, (0, 0, 0)])
    u = u.reshape(*itertools.chain.from_iterable((m, 2) for m in pairs), u.shape[-1])
    grid, parities = range(0, 2 * ndim, 2), range(1, 2 * ndim, 2)
    u = u.transpose(*grid, *parities, 2 * ndim).reshape(*pairs, -1)
    kernel = jnp.pad(kernel, (*((0, 4 - k) for k in taps), (0, 0), (0, 0)))
    kernel = kernel.reshape(*(2,) * (2 * ndim), *kernel.shape[-2:])
    kernel = kernel.transpose(*grid, *parities, 2 * ndim, 2 * ndim + 1)
    return u, kernel.reshape(*(2,) * ndim, -1, kernel.shape[-1])
