"""Arithmetic that losses and metrics share: checked samples, means of squares, and ratios free of any unit.

A norm is taken of the field over its largest magnitude (`neuralops.scale`), which has no derivative; none is missing,
because the value does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import check_plain
from neuralops.grid import Grid
from neuralops.scale import power_of_two, root

Field = Float[Array, "channels *grid"]


def check_option(value: Any, kind: type, name: str, mend: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}; give {mend}.")


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """Refuses what is not truth values `(*grid,)` or `(channels, *grid)` for a sample of `shape`."""
    check_plain(mask, "mask")
    if tuple(np.shape(mask)) not in (shape[1:], shape) or jnp.result_type(mask) != jnp.bool_:
        raise ValueError(
            f"mask: expected truth values of shape {shape[1:]} or {shape}, got {jnp.result_type(mask)} of shape "
            f"{tuple(np.shape(mask))}; True marks the points that count, use mask.astype(bool)."
        )


def check_eps(eps: Any) -> None:
    number = isinstance(eps, int | float | np.number) and not isinstance(eps, bool)
    if eps is not None and not (number and 0 <= eps < np.inf):
        raise ValueError(
            f"eps: expected None or a number of at least zero in the unit of the field, got {eps!r}; give None."
        )


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
        weight = jnp.broadcast_to(_relative_weights(weights, dtype), shape)
    if mask is not None:
        check_mask(mask, shape)
        inside = jnp.broadcast_to(mask, shape)
        # Replaced before any arithmetic: 0 * NaN would be NaN, in the value and in the gradient.
        prediction, target = jnp.where(inside, prediction, 0), jnp.where(inside, target, 0)
        weight = inside.astype(dtype) if weight is None else jnp.where(inside, weight, 0)
    return prediction - target, target, weight


def _relative_weights(weights: Any, dtype: Any) -> Array:
    """Weights over a power of two near the largest; those of a box of nanometres are below float32."""
    if isinstance(weights, np.ndarray) and weights.dtype == np.float64:  # before the digits are dropped
        largest = float(np.max(np.abs(weights), initial=0.0))
        exponent = int(np.frexp(largest)[1]) if np.isfinite(largest) else 0
        return jnp.asarray(np.ldexp(weights, -exponent), dtype)
    weights = jnp.asarray(weights, dtype)
    return weights / lax.stop_gradient(power_of_two(jnp.max(jnp.abs(weights), initial=0)))


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


def scaled(x: Array, per_channel: bool) -> tuple[Array, Array]:
    """`x` over a power of two near its largest magnitude, and that power: `()`, or `(channels,)`."""
    axes = tuple(range(1 if per_channel else 0, x.ndim))
    scale = lax.stop_gradient(power_of_two(jnp.max(jnp.abs(lax.stop_gradient(x)), axes, initial=0)))
    return x / scale.reshape(scale.shape + (1,) * len(axes)), scale


def root_mean_square(x: Array, weight: Array | None) -> Array:
    """The root of the mean of `x^2` over grid and channels, `()`."""
    x, scale = scaled(x, False)
    return root(jnp.mean(mean_square(x, weight))) * scale


def relative(
    error: Array,
    target: Array,
    square: Callable[[Array], Array],
    per_channel: bool,
    eps: float | None,
    part: Callable[[Array], Array] | None = None,
) -> Array:
    """|error| / (|target| + eps), with `square` the squared norm per channel, `(channels,)`, homogeneous of degree 2.

    `part` measures the error where that is another norm than the target's. A target of norm 0 without `eps` gives 0
    for an error of norm 0, else infinity, with gradient 0 both times.
    """
    check_eps(eps)
    (error, error_scale), (target, target_scale) = scaled(error, per_channel), scaled(target, per_channel)
    top, bottom = (part or square)(error), square(target)
    if not per_channel:
        top, bottom = jnp.mean(top), jnp.mean(bottom)
    top, bottom, size = root(top), root(bottom), error_scale / target_scale
    if eps is not None and eps >= jnp.finfo(top.dtype).tiny:
        # Both sides over the larger of target and eps, so that neither leaves the range.
        larger = jnp.where(bottom == 0, eps, jnp.maximum(target_scale, eps))
        return jnp.mean(top / (bottom * (target_scale / larger) + eps / larger) * (error_scale / larger))
    zero = bottom == 0
    value = top / jnp.where(zero, 1, bottom) * jnp.where(zero, 1, size)
    return jnp.mean(jnp.where(zero, jnp.where(top == 0, 0, jnp.inf), value))


def h1_square(grid: Grid, weight: Array | None, spectral: bool) -> Callable[[Array], Array]:
    """The mean of `u^2 + |grad u|^2` per channel, as a function of the field."""
    if spectral:
        return lambda u: _h1_modes(u, grid)
    return lambda u: _h1_differences(u, grid, weight)


def _h1_differences(u: Array, grid: Grid, weight: Array | None) -> Array:
    total = mean_square(u, weight)
    for axis, (h, boundary) in enumerate(zip(grid.spacing, grid.boundary, strict=True), start=1):
        slope = difference(jnp.moveaxis(u, axis, -1), h, boundary == "periodic")
        slope = jnp.moveaxis(slope, -1, axis)
        share = None
        if weight is not None:
            inside = jnp.moveaxis(weight != 0, axis, -1)
            share = jnp.moveaxis(_whole_stencil(inside, boundary == "periodic"), -1, axis)
        total = total + mean(slope**2, weight, share)
    return total


def difference(u: Array, h: float, periodic: bool) -> Array:
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
    """Where every point that `difference` reads is inside."""
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


def _h1_modes(u: Array, grid: Grid) -> Array:
    squares, half_waves = modal_squares(u, grid)
    factor = np.ones(())
    for w, extent in zip(half_waves, grid.domain_extent, strict=True):
        factor = np.add.outer(factor, (np.pi * w / extent) ** 2)
    return jnp.sum(squares * jnp.asarray(factor, squares.dtype), tuple(range(1, u.ndim)))
