"""The arithmetic under losses and metrics: samples checked, mean squares, norms, and ratios of norms without a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_plain
from neuralops.grid import Grid
from neuralops.scale import root, unit

Field = Float[Array, "channels *grid"]


def check_option(value: Any, kind: type, name: str, mend: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}; give {mend}.")


def prepare(prediction: Any, target: Any, weights: Any, mask: Any) -> tuple[Array, Array, Array | None]:
    """Checks a sample; returns error and target with masked points at zero, and the weight of each point.

    Sums are taken in float32 at least: squares of half-precision numbers overflow.
    """
    for name, u in (("prediction", prediction), ("target", target)):
        check_plain(u, name)
        if not hasattr(u, "shape") or not jnp.issubdtype(u.dtype, jnp.floating):
            raise ValueError(
                f"{name}: expected a real floating array (channels, *grid), got "
                f"{getattr(u, 'dtype', type(u).__name__)}; use u.astype(jnp.float32)."
            )
    shape = tuple(target.shape)
    if tuple(prediction.shape) != shape or len(shape) < 2:
        raise ValueError(
            f"prediction: expected the shape of target, (channels, *grid), got {tuple(prediction.shape)} beside "
            f"{shape}; bring both to one grid and channel count (arrays are not broadcast here)."
        )
    dtype = jnp.promote_types(jnp.result_type(prediction, target), jnp.float32)
    prediction, target = jnp.asarray(prediction, dtype), jnp.asarray(target, dtype)
    weight = None
    if weights is not None:
        if tuple(np.shape(weights)) != shape[1:]:
            raise ValueError(
                f"weights: expected the shape {shape[1:]} of the grid, got {tuple(np.shape(weights))}; "
                "use grid.weights()."
            )
        weight = jnp.broadcast_to(jnp.asarray(weights, dtype), shape)
    if mask is not None:
        if tuple(np.shape(mask)) not in (shape[1:], shape) or jnp.result_type(mask) != jnp.bool_:
            raise ValueError(
                f"mask: expected truth values of shape {shape[1:]} or {shape}, got {jnp.result_type(mask)} of shape "
                f"{tuple(np.shape(mask))}; True marks the points that count, use mask.astype(bool)."
            )
        inside = jnp.broadcast_to(mask, shape)
        # Replaced before any arithmetic: 0 * NaN would be NaN, in the value and in the gradient.
        prediction, target = jnp.where(inside, prediction, 0), jnp.where(inside, target, 0)
        weight = inside.astype(dtype) if weight is None else jnp.where(inside, weight, 0)
    return prediction - target, target, weight


def mean(x: Array, weight: Array | None, share: Array | None = None) -> Array:
    """Weighted mean over the grid, channel by channel; `share` are the points that count among the weighted."""
    axes = tuple(range(1, x.ndim))
    if weight is None:
        return jnp.mean(x, axes)
    total = jnp.sum(weight, axes)
    counted = weight if share is None else jnp.where(share, weight, 0)
    return jnp.sum(x * counted, axes) / jnp.where(total == 0, 1, total)  # nothing counts: the mean is zero


def mean_square(x: Array, weight: Array | None) -> Array:
    """The mean of `x^2` over the grid, `(channels,)`."""
    return mean(x**2, weight)


def root_mean(u: Array, square: Callable[[Array], Array], per_channel: bool) -> tuple[Array, Array]:
    """A norm as a power of two and a number of the size of one, whose product it is.

    `square` gives the mean square of each channel, `(channels,)`.
    """
    size = unit(u, range(1, u.ndim) if per_channel else None)
    squares = square(u / size)
    return size.reshape(-1 if per_channel else ()), root(squares if per_channel else jnp.mean(squares))


def ratio(
    error: Array,
    target: Array,
    square: Callable[[Array], Array],
    per_channel: bool,
    eps: float | None,
    whole: Callable[[Array], Array] | None = None,
) -> Array:
    """The norm of the error over that of the target, by channel and averaged if so wished.

    `square` as in `root_mean`; `whole` is the same for the target where that differs.
    """
    (p, a), (q, b) = root_mean(error, square, per_channel), root_mean(target, whole or square, per_channel)
    if eps is not None:
        return jnp.mean(p * a / (q * b + eps))
    none = b == 0
    return jnp.mean(jnp.where(none, jnp.where(a == 0, 0, jnp.inf), p / q * (a / jnp.where(none, 1, b))))


def h1_differences(u: Array, grid: Grid, weight: Array | None) -> Array:
    total = mean_square(u, weight)
    for axis, (h, boundary) in enumerate(zip(grid.spacing, grid.boundary, strict=True), start=1):
        slope = _difference(jnp.moveaxis(u, axis, -1), h, boundary == "periodic")
        slope = jnp.moveaxis(slope, -1, axis)
        share = None
        if weight is not None:
            inside = jnp.moveaxis(weight != 0, axis, -1)
            share = jnp.moveaxis(_whole_stencil(inside, boundary == "periodic"), -1, axis)
        total = total + mean(slope**2, weight, share)
    return total


def _difference(u: Array, h: float, periodic: bool) -> Array:
    """The first derivative along the last axis: central inside, wrapped or one-sided at the ends."""
    n = u.shape[-1]
    if periodic:
        return (jnp.roll(u, -1, -1) - jnp.roll(u, 1, -1)) / (2 * h)
    if n == 1:
        return jnp.zeros_like(u)
    # Coefficients of the one-sided formulas of order n - 1 up to 3, e.g. LeVeque 2007, section 1.5.
    ends = {2: (-1.0, 1.0), 3: (-1.5, 2.0, -0.5)}.get(n, (-11 / 6, 3.0, -1.5, 1 / 3))
    low = sum(c * u[..., j] for j, c in enumerate(ends)) / h
    high = -sum(c * u[..., n - 1 - j] for j, c in enumerate(ends)) / h
    inner = (u[..., 2:] - u[..., :-2]) / (2 * h)
    return jnp.concatenate([jnp.stack([low], -1), inner, jnp.stack([high], -1)], -1)


def _whole_stencil(inside: Array, periodic: bool) -> Array:
    """Where every point that `_difference` reads is inside."""
    if periodic:
        return inside & jnp.roll(inside, -1, -1) & jnp.roll(inside, 1, -1)
    if inside.shape[-1] == 1:
        return inside
    low, high = jnp.all(inside[..., :4], -1, keepdims=True), jnp.all(inside[..., -4:], -1, keepdims=True)
    return jnp.concatenate([low, inside[..., 2:] & inside[..., 1:-1] & inside[..., :-2], high], -1)


def modal_squares(u: Array, grid: Grid) -> tuple[Array, list[np.ndarray]]:
    """The share of each mode in the mean of `u^2`, `(channels, *modes)`, and its half-waves per axis.

    By Parseval's identity for the grid's quadrature the shares add up to the mean square.
    """
    half_waves = []
    for dim, axis in enumerate(grid.axes, start=1):
        u = transforms.to_modes(u, dim, axis)
        half_waves.append(transforms.wavenumbers(axis.boundary, axis.num_points))
    squares = u**2
    for dim, (axis, w) in enumerate(zip(grid.axes, half_waves, strict=True), start=1):
        norms = np.where(w == 0, 1.0, 0.5)
        if _top_mode_alternates(axis):  # it is +-1 at every point
            norms[-1] = 1.0
        squares = squares * jnp.asarray(norms.reshape((-1,) + (1,) * (squares.ndim - 1 - dim)), squares.dtype)
    return squares, half_waves


def _top_mode_alternates(axis: transforms.Axis) -> bool:
    n, cell = axis.num_points, axis.centering == "cell"
    return {"periodic": n % 2 == 0, "dirichlet": cell, "neumann": not cell and n > 1}.get(str(axis.boundary), False)


def h1_modes(u: Array, grid: Grid, weight: Array | None) -> Array:
    squares, half_waves = modal_squares(u, grid)
    factor = np.ones(())
    for w, extent in zip(half_waves, grid.domain_extent, strict=True):
        factor = np.add.outer(factor, (np.pi * w / extent) ** 2)
    return jnp.sum(squares * jnp.asarray(factor, squares.dtype), tuple(range(1, u.ndim)))
