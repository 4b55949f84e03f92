"""How far a prediction is from the truth, one number per sample.

Every metric takes one unbatched sample, `prediction` and `target` of shape `(channels, *grid)` in physical
units, and returns one number; `weights`, `mask` and `eps` mean what they mean in `neuralops.losses`, whose
functions are metrics too. `neuralops.evaluate` applies them to a data set and leaves the reduction to the
caller, because a mean hides the samples that went wrong.

With `e = p - t` and `<.>` the (weighted) mean over the points of one channel:

| metric | definition | unit |
| --- | --- | --- |
| `relative_l2` | sqrt(mean over channels of <e^2>) / sqrt(mean over channels of <t^2>) | 1 |
| `relative_h1` | the same with e^2 + abs(grad e)^2 and t^2 + abs(grad t)^2 | 1 |
| `nrmse` | mean over channels of sqrt<e^2> / sqrt<t^2> (PDEBench) | 1 |
| `vrmse` | mean over channels of sqrt<e^2> / sqrt<(t - <t>)^2> (The Well) | 1 |
| `max_error` | the largest abs(e) over channels and points | field |
| `boundary_error` | root mean square of e over the outermost points | field |
| `spectral_error` | root mean square of a band of e, divided by that of t | 1 |
| `per_step` | any of these for each of the time steps stacked in the channels | of the metric |
| `valid_time` | the time up to which the error of every step stays at or below a threshold | time |
| `energy_drift` | E(p) / E(t) - 1 at each step, for an energy E | 1 |
| `psnr` | 10 log10(data_range^2 / mean of e^2 over channels and points) | dB |
| `ssim` | structural similarity (Wang et al. 2004), see `neuralops.training.similarity` | 1 |
| `mse`, `mae` | mean of e^2, of abs(e) over channels and points | field^2, field |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import Grid
from neuralops.training.bound import Bound as Bound
from neuralops.training.bound import takes_mask
from neuralops.training.losses import mae as mae
from neuralops.training.losses import mse as mse
from neuralops.training.losses import relative_h1 as relative_h1
from neuralops.training.losses import relative_l2 as relative_l2
from neuralops.training.norms import (
    Field,
    check_option,
    mean,
    mean_square,
    modal_squares,
    prepare,
    relative,
    root_mean_square,
    scaled,
)  # fmt: skip
from neuralops.training.similarity import psnr as psnr
from neuralops.training.similarity import ssim as ssim

BANDS = ("low", "mid", "high")

__all__ = [
    "Bound",
    "boundary_error",
    "energy_drift",
    "mae",
    "max_error",
    "mse",
    "nrmse",
    "per_step",
    "psnr",
    "relative_h1",
    "relative_l2",
    "spectral_error",
    "ssim",
    "valid_time",
    "vrmse",
]


def nrmse(
    prediction: Field, target: Field, *, weights: Any = None, mask: Any = None, eps: float | None = None
) -> Float[Array, ""]:
    """Root mean square error over root mean square of the target, per channel, averaged over channels.

    The definition of PDEBench (Takamoto et al. 2022). Equals `relative_l2` for one channel.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    return relative_l2(prediction, target, weights=weights, mask=mask, per_channel=True, eps=eps)


def vrmse(
    prediction: Field, target: Field, *, weights: Any = None, mask: Any = None, eps: float | None = None
) -> Float[Array, ""]:
    """Root mean square error over the deviation of the target in space, per channel, averaged over channels.

    Predicting each channel's mean scores 1. The definition of The Well (Ohana et al. 2024), which adds 1e-7 to
    the variance where this adds `eps` to the deviation.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, target, weight = prepare(prediction, target, weights, mask)
    unit, scale = scaled(target, True)  # the sum over the points of a large field may overflow
    column = (-1,) + (1,) * (target.ndim - 1)
    deviation = target - (mean(unit, weight) * scale).reshape(column)
    if weight is not None:
        deviation = jnp.where(weight != 0, deviation, 0)  # what does not count sets no scale
    return relative(error, deviation, lambda u: mean_square(u, weight), True, eps)


def max_error(prediction: Field, target: Field, *, mask: Any = None) -> Float[Array, ""]:
    """The largest absolute error over all channels and points, in the unit of the field.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, _, _ = prepare(prediction, target, None, mask)
    return jnp.max(jnp.abs(error))


def boundary_error(prediction: Field, target: Field, *, grid: Grid | None = None, mask: Any = None) -> Float[Array, ""]:
    """Root mean square error over the outermost points, in the unit of the field.

    **Arguments:**

    - `grid`: says which axes have a boundary: those that are not periodic; `None` takes all axes. The
      outermost points are the first and last along such an axis; they lie on the boundary itself only at
      Neumann nodes, else half a spacing (cells) or one spacing (Dirichlet nodes) inside.

    **Raises:** `ValueError` when shapes or dtypes do not fit, or every axis is periodic.
    """
    error, _, weight = prepare(prediction, target, None, mask)
    axes = range(error.ndim - 1)
    if grid is not None:
        check_option(grid, Grid, "grid", "Grid(num_points, domain_extent, boundary)")
        grid.check(error, "prediction")
        axes = [axis for axis, boundary in enumerate(grid.boundary) if boundary != "periodic"]  # type: ignore[assignment]
        if not axes:
            raise ValueError(
                f"grid: expected an axis with a boundary, got {grid.boundary}; "
                "a periodic box has none, drop this metric."
            )
    edge = np.zeros(error.shape[1:], bool)
    for axis in axes:
        np.moveaxis(edge, axis, 0)[[0, -1]] = True
    share = jnp.asarray(np.broadcast_to(edge, error.shape), error.dtype)
    weight = share if weight is None else share * weight
    return root_mean_square(jnp.where(weight != 0, error, 0), weight)


def spectral_error(
    prediction: Field,
    target: Field,
    *,
    grid: Grid,
    band: str,
    edges: tuple[float, float] = (4, 12),
    eps: float | None = None,
    mask: None = None,
) -> Float[Array, ""]:
    """The part of the relative L2 error that sits in one band of wavenumbers.

    Error and target are expanded in the basis of the grid's boundary; a mode with `k_a` waves over the
    extent of axis `a` has the wavenumber `k = sqrt(sum k_a^2)` (a sine or cosine mode may have half waves).
    The result is `sqrt(sum of e_k^2 over the band) / sqrt(sum of t_k^2 over all k)`: the squares of the three
    bands add up to the square of `relative_l2` with `weights=grid.weights()`.

    **Arguments:**

    - `band`: `"low"` (k < edges[0]), `"mid"`, or `"high"` (k >= edges[1]).
    - `edges`: PDEBench splits at 4 and 12.

    **Raises:** `ValueError` when shapes, dtypes or options do not fit, and for any `mask`: a wave needs every point.
    """
    if mask is not None:
        raise ValueError(
            "mask: expected None, because an expansion in waves needs every point, got a mask; leave spectral_error "
            "out for masked fields, or fill them first."
        )
    check_option(grid, Grid, "grid", "Grid(num_points, domain_extent, boundary)")
    if band not in BANDS:
        raise ValueError(f"band: expected one of {BANDS}, got {band!r}; use one of these words.")
    if len(edges) != 2 or not 0 <= edges[0] <= edges[1]:
        raise ValueError(f"edges: expected two wavenumbers in rising order, got {edges!r}; give e.g. (4, 12).")
    error, target, _ = prepare(prediction, target, None, None)
    grid.check(error, "prediction")
    low, high = {"low": (0, edges[0]), "mid": edges, "high": (edges[1], np.inf)}[band]

    def whole(u: Array) -> Array:
        return jnp.sum(modal_squares(u, grid)[0], tuple(range(1, u.ndim)))

    def part(u: Array) -> Array:
        squares, half_waves = modal_squares(u, grid)
        k_squared = np.zeros(())
        for w in half_waves:
            k_squared = np.add.outer(k_squared, (w / 2) ** 2)
        chosen = (k_squared >= low**2) & (k_squared < high**2)
        return jnp.sum(squares * jnp.asarray(chosen, squares.dtype), tuple(range(1, u.ndim)))

    return relative(error, target, whole, False, eps, part)


def per_step(metric: Callable[..., Any], num_steps: int) -> Bound:
    """`metric` of each time step, `(num_steps,)`, for fields that stack the steps in their channels.

    Prediction and target are `(num_steps * channels, *grid)`, all channels of the first step first. A mask `(*grid,)`
    holds for every step, one of `(num_steps * channels, *grid)` is cut like the field. Equal by value, like `Bound`.

    **Raises:** `ValueError` when `metric` cannot be called or `num_steps` is no count; in the call, when the channels
    do not divide by it, or for a mask that `metric` does not take.
    """
    return Bound(_per_step, metric=_callable(metric), num_steps=count(num_steps, "num_steps"))


def valid_time(num_steps: int, threshold: float, dt: float = 1.0, metric: Callable[..., Any] = relative_l2) -> Bound:
    """The time up to which the error of every step stays at or below `threshold`, one number in the unit of `dt`.

    0 when the first step exceeds it, `num_steps * dt` when none does; a step whose error is NaN exceeds it. Fields and
    masks as for `per_step`. Piecewise constant, so a metric and no loss.

    **Raises:** `ValueError` as `per_step`, and when `threshold` or `dt` is not a positive number.
    """
    for name, value in (("threshold", threshold), ("dt", dt)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
            raise ValueError(f"{name}: expected a positive number, got {value!r}; give e.g. {name}=0.2.")
    steps = count(num_steps, "num_steps")
    return Bound(_valid_time, metric=_callable(metric), num_steps=steps, threshold=float(threshold), dt=float(dt))


def energy_drift(num_steps: int, energy: Callable[[Array], Array] | None = None, frames: int = 1) -> Bound:
    """The energy of a rollout beside that of the truth, E(p) / E(t) - 1 after each step: 0 where none is won or lost.

    Signed, `(num_steps - frames + 1,)`; the last entry is the drift at the end. Where the true energy is 0 it is 0 for
    a prediction without energy, else infinity. Fields as for `per_step`.

    **Arguments:**

    - `num_steps`: time steps stacked in the channels.
    - `energy`: from `(frames * channels, *grid)` to a number; by default the mean square, in which masked points count
      zero.
    - `frames`: how many consecutive frames an energy needs, the oldest first: 2 where it holds a velocity.

    **Raises:** `ValueError` when `energy` cannot be called, a count does not fit, or, in the call, as `per_step`.
    """
    steps = count(num_steps, "num_steps")
    frames = count(frames, "frames", most=steps, hint=f"give at most the {steps} steps.")
    return Bound(_energy_drift, energy=energy if energy is None else _callable(energy, "energy", "(frame)"),
                 num_steps=steps, frames=frames)  # fmt: skip


def _callable(metric: Any, name: str = "metric", arguments: str = "(prediction, target)") -> Any:
    if not callable(metric):
        raise ValueError(f"{name}: expected a function {arguments}, got {type(metric).__name__}; give one.")
    return metric


def _frames(prediction: Field, target: Field, num_steps: int, mask: Any = None) -> list[Array]:
    """Both as `(num_steps, channels, *grid)`, checked."""
    prepare(prediction, target, None, mask)
    if len(target) % num_steps:
        raise ValueError(
            f"num_steps: expected a divisor of the {len(target)} channels, got {num_steps}; give the number of time "
            "steps stacked in the channels."
        )
    return [jnp.reshape(u, (num_steps, -1, *u.shape[1:])) for u in (prediction, target)]


def _per_step(prediction: Field, target: Field, *, metric: Any, num_steps: int, mask: Any = None) -> Array:
    frames = _frames(prediction, target, num_steps, mask)
    if mask is None:
        return jax.vmap(metric)(*frames)
    if not takes_mask(metric):
        raise ValueError(
            f"mask: expected None, because {getattr(metric, '__name__', metric)} takes no mask, got one; use a metric "
            "that names `mask`, such as relative_l2."
        )
    whole = np.ndim(mask) == target.ndim
    mask = jnp.reshape(mask, frames[1].shape) if whole else jnp.asarray(mask)
    masked = jax.vmap(lambda p, t, m: metric(p, t, mask=m), (0, 0, 0 if whole else None))
    return masked(frames[0], frames[1], mask)


def _valid_time(
    prediction: Field, target: Field, *, metric: Any, num_steps: int, threshold: float, dt: float, mask: Any = None
) -> Float[Array, ""]:
    errors = _per_step(prediction, target, metric=metric, num_steps=num_steps, mask=mask)
    return dt * jnp.sum(jnp.cumprod(errors <= threshold))


def _energy_drift(prediction: Field, target: Field, *, energy: Any, num_steps: int, frames: int) -> Array:
    stacked = _frames(prediction, target, num_steps)
    last = num_steps - frames + 1
    joined = [jnp.concatenate([u[i : i + last] for i in range(frames)], axis=1) for u in stacked]
    wide = jnp.promote_types(jnp.result_type(*joined), jnp.float32)
    # The mean square by its root: squares of small or large fields leave the range.
    size = energy or (lambda u: root_mean_square(u, None))
    p, t = (jax.vmap(size)(u.astype(wide)) for u in joined)
    zero = t == 0
    ratio = jnp.where(zero, jnp.where(p == 0, 1, jnp.inf), p / jnp.where(zero, 1, t))
    return ratio - 1 if energy else (ratio - 1) * (ratio + 1)
