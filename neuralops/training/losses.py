"""Norms of the difference between two functions, one number per sample.

Every function here takes one unbatched sample, `prediction` and `target` of shape `(channels, *grid)`, and
returns one number; batches are made with `jax.vmap`, and the caller reduces. Squares are averaged over points
and channels, never summed, so that a value does not grow with the grid. The options are the same everywhere:

- `weights`: quadrature weights `(*grid,)`, such as `grid.weights()`; `None` weighs all points equally.
- `mask`: truth values `(*grid,)` or `(channels, *grid)`, `True` where a point counts. A masked point counts
  exactly zero in the value and in every gradient, also where its values are NaN or infinite.
- `eps`: added to the norm of the target before dividing by it, in the unit of the field, so that a zero
  target has a defined result: 0 for an exact prediction, else the norm of the error divided by `eps`.

`h1(grid)` and `l2()` hold the options; what they return is compared by value, so passing a new one to `fit`
does not compile again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.solvers.learning.direction_losses import angle_loss, energy_loss, one_step_loss
from neuralops.training.objectives import physics as physics
from neuralops.training.objectives import predict as predict
from neuralops.training.objectives import rollout as rollout
from neuralops.training.objectives import supervised as supervised
from neuralops.training.objectives import weighted_sum as weighted_sum

Field = Float[Array, "channels *grid"]
EPS = 1e-12  # far below the rounding of a float32 field of size 1e-4, so it moves no ordinary result
DERIVATIVES = ("finite_difference", "spectral")


def mse(prediction: Field, target: Field, *, weights: Any = None, mask: Any = None) -> Float[Array, ""]:
    """The mean squared error, in the squared unit of the field.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, _, weight = prepare(prediction, target, weights, mask)
    return jnp.mean(mean_square(error, weight))


def mae(prediction: Field, target: Field, *, weights: Any = None, mask: Any = None) -> Float[Array, ""]:
    """The mean absolute error, in the unit of the field.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, _, weight = prepare(prediction, target, weights, mask)
    return jnp.mean(_mean(jnp.abs(error), weight))


def relative_l2(
    prediction: Field,
    target: Field,
    *,
    weights: Any = None,
    mask: Any = None,
    per_channel: bool = False,
    eps: float = EPS,
) -> Float[Array, ""]:
    """The relative L2 error `|p - t| / (|t| + eps)` with `|u|^2` the mean of `u^2`.

    The norm is that of the whole field, all channels together; `per_channel=True` takes the ratio channel by
    channel and averages the ratios, for channels of different units.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, target, weight = prepare(prediction, target, weights, mask)
    return ratio(mean_square(error, weight), mean_square(target, weight), per_channel, eps)


def relative_h1(
    prediction: Field,
    target: Field,
    *,
    grid: Grid,
    derivative: str = "finite_difference",
    weights: Any = None,
    mask: Any = None,
    per_channel: bool = False,
    eps: float = EPS,
) -> Float[Array, ""]:
    """The relative H1 error `|p - t|_1 / (|t|_1 + eps)` with `|u|_1^2` the mean of `u^2 + |grad u|^2`.

    **Arguments:**

    - `grid`: gives spacing and boundary; both fields live on it.
    - `derivative`: `"finite_difference"` takes central differences, wrapped around on a periodic axis and
      with third-order one-sided ends on the others (the field need not satisfy any condition there); with
      the periodic unit box this is the `H1Loss` of neuraloperator. `"spectral"` differentiates the
      series that belongs to the boundary exactly and adds up its modes by Parseval's identity; it is right
      for fields that satisfy the boundary condition, and takes neither weights nor mask (it integrates over
      the whole box with the grid's own quadrature).
    - `per_channel`: averages the ratios of the channels instead of taking one norm of all of them.

    With a mask, a derivative counts where its whole stencil is inside.

    **Raises:** `ValueError` when shapes, dtypes or options do not fit.
    """
    check_option(grid, Grid, "grid", "Grid(num_points, domain_extent, boundary)")
    if derivative not in DERIVATIVES:
        raise ValueError(f"derivative: expected one of {DERIVATIVES}, got {derivative!r}; use one of these words.")
    if derivative == "spectral" and (weights is not None or mask is not None):
        raise ValueError(
            "derivative: the spectral norm integrates over the whole box, got weights or a mask; "
            "use derivative='finite_difference' with them."
        )
    error, target, weight = prepare(prediction, target, weights, mask)
    grid.check(error, "prediction")
    if error.ndim != grid.ndim + 1:
        raise ValueError(
            f"prediction: expected (channels, *grid) with {grid.ndim} space dimensions, got shape {error.shape}; "
            "losses take one sample, use jax.vmap for a batch."
        )
    norm = _h1_modes if derivative == "spectral" else _h1_differences
    return ratio(norm(error, grid, weight), norm(target, grid, weight), per_channel, eps)


def relative_fourier_h1(
    prediction: Field,
    target: Field,
    *,
    max_wavenumber: int | None = None,
    per_channel: bool = False,
    eps: float = EPS,
) -> Float[Array, ""]:
    """The relative H1 error by discrete Fourier transform that MgNO and HANO train with (He, Liu and Xu 2024).

    `|w p^ - w t^| / (|w t^| + eps)` with w^2 = 1 + k_1^2 + k_2^2 + ... and k the integer wavenumbers, without 2 pi; the
    field counts as periodic whatever its boundary. From `max_wavenumber` on (20 in MgNO) a k_i counts as zero in w.
    For the norm of the function, with its boundary and extent, see `relative_h1`.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    if max_wavenumber is not None and (not isinstance(max_wavenumber, int) or max_wavenumber < 1):
        raise ValueError(f"max_wavenumber: expected a positive integer or None, got {max_wavenumber!r}; give e.g. 20.")
    error, target, _ = prepare(prediction, target, None, None)
    axes = tuple(range(1, error.ndim))
    weight = np.ones(())
    for n in error.shape[1:]:
        k = np.abs(np.fft.fftfreq(n, 1 / n))
        if max_wavenumber is not None:
            k = np.where(k < max_wavenumber, k, 0.0)
        weight = np.add.outer(weight, k**2)

    def square(u: Array) -> Array:
        return jnp.sum(jnp.abs(jnp.fft.fftn(u, axes=axes, norm="forward")) ** 2 * jnp.asarray(weight, u.dtype), axes)

    return ratio(square(error), square(target), per_channel, eps)


class Bound:
    """A loss or metric with its options filled in: `Bound(f, a=1)(p, t) = f(p, t, a=1)`.

    Equal by value (arrays by content), unlike a lambda or `functools.partial`, so that compiled functions
    that were built for one are found again for an equal one.

    **Raises:** `ValueError` when `function` cannot be called.
    """

    def __init__(self, function: Callable[..., Any], /, **options: Any) -> None:
        if not callable(function):
            raise ValueError(
                f"function: expected a loss (prediction, target), got {type(function).__name__}; give a function."
            )
        self.function, self.options = function, options
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self._value = (function, tuple((name, _frozen(option)) for name, option in sorted(options.items())))

    def __call__(self, prediction: Array, target: Array, **given: Any) -> Array:
        return self.function(prediction, target, **self.options, **given)

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._value == other._value

    def __repr__(self) -> str:
        return f"{self.__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


def h1(grid: Grid, **options: Any) -> Bound:
    """`relative_h1` on `grid` with the options filled in, ready for `fit`."""
    check_option(grid, Grid, "grid", "Grid(num_points, domain_extent, boundary)")
    return Bound(relative_h1, grid=grid, **options)


def l2(**options: Any) -> Bound:
    """`relative_l2` with the options filled in, ready for `fit`."""
    return Bound(relative_l2, **options)


def fourier_h1(**options: Any) -> Bound:
    """`relative_fourier_h1` with the options filled in, ready for `fit`."""
    return Bound(relative_fourier_h1, **options)


def one_step(A: Any) -> Bound:
    """`solvers.one_step_loss` for `fit`: the prediction is the direction, the target the right-hand side itself."""
    return Bound(_of_direction, A=A, loss=one_step_loss)


def energy(A: Any) -> Bound:
    """`solvers.energy_loss` for `fit`: the prediction is the direction, the target the solution."""
    return Bound(_of_direction, A=A, loss=energy_loss)


def angle(A: Any) -> Bound:
    """`solvers.angle_loss` for `fit`: the prediction is the direction, the target the solution."""
    return Bound(_of_direction, A=A, loss=angle_loss)


def _of_direction(prediction: Field, target: Field, *, A: Any, loss: Callable[..., Array]) -> Array:
    return loss(A, target, prediction)


def _frozen(option: Any) -> Any:
    if hasattr(option, "__array__") and not np.isscalar(option):
        array = np.asarray(option)
        return array.shape, str(array.dtype), array.tobytes()
    return option


def check_option(value: Any, kind: type, name: str, mend: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}; give {mend}.")


def prepare(prediction: Any, target: Any, weights: Any, mask: Any) -> tuple[Array, Array, Array | None]:
    """Checks a sample; returns error and target with masked points at zero, and the weight of each point.

    Sums are taken in float32 at least: squares of half-precision numbers overflow.
    """
    for name, u in (("prediction", prediction), ("target", target)):
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


def _mean(x: Array, weight: Array | None, share: Array | None = None) -> Array:
    """Weighted mean over the grid, channel by channel; `share` are the points that count among the weighted."""
    axes = tuple(range(1, x.ndim))
    if weight is None:
        return jnp.mean(x, axes)
    total = jnp.sum(weight, axes)
    counted = weight if share is None else jnp.where(share, weight, 0)
    return jnp.sum(x * counted, axes) / jnp.where(total == 0, 1, total)  # nothing counts: the mean is zero


def mean_square(x: Array, weight: Array | None) -> Array:
    """The mean of `x^2` over the grid, `(channels,)`."""
    return _mean(x**2, weight)


def root(square: Array) -> Array:
    """The square root with gradient 0 at 0, where an exact prediction would otherwise give NaN."""
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def ratio(error: Array, target: Array, per_channel: bool, eps: float) -> Array:
    """One number from the squared norms of error and target, each `(channels,)`."""
    if not per_channel:
        error, target = jnp.mean(error), jnp.mean(target)
    return jnp.mean(root(error) / (root(target) + eps))


def _h1_differences(u: Array, grid: Grid, weight: Array | None) -> Array:
    total = mean_square(u, weight)
    for axis, (h, boundary) in enumerate(zip(grid.spacing, grid.boundary, strict=True), start=1):
        slope = _difference(jnp.moveaxis(u, axis, -1), h, boundary == "periodic")
        slope = jnp.moveaxis(slope, -1, axis)
        share = None
        if weight is not None:
            inside = jnp.moveaxis(weight != 0, axis, -1)
            share = jnp.moveaxis(_whole_stencil(inside, boundary == "periodic"), -1, axis)
        total = total + _mean(slope**2, weight, share)
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


def _h1_modes(u: Array, grid: Grid, weight: Array | None) -> Array:
    squares, half_waves = modal_squares(u, grid)
    factor = np.ones(())
    for w, extent in zip(half_waves, grid.domain_extent, strict=True):
        factor = np.add.outer(factor, (np.pi * w / extent) ** 2)
    return jnp.sum(squares * jnp.asarray(factor, squares.dtype), tuple(range(1, u.ndim)))
