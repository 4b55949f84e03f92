"""Norms of the difference between two functions, one number per sample.

Every function here takes one unbatched sample, `prediction` and `target` of shape `(channels, *grid)`, and
returns one number; batches are made with `jax.vmap`, and the caller reduces. Squares are averaged over points
and channels, never summed, so that a value does not grow with the grid. The options are the same everywhere:

- `weights`: quadrature weights `(*grid,)`, such as `grid.weights()`; `None` weighs all points equally.
- `mask`: truth values `(*grid,)` or `(channels, *grid)`, `True` where a point counts. A masked point counts
  exactly zero in the value and in every gradient, also where its values are NaN or infinite.
- `eps`: added to the norm of the target before dividing by it, in the unit of the field. `None` adds nothing:
  a relative error is then the same in every unit. A target of norm zero gives 0 for an exact prediction, else
  infinity with gradient 0 (there is no ratio to improve); with `eps` it gives the norm of the error over `eps`.

A relative error and its gradient (times the size of the field) do not change with the unit: fields of 1e-30 and of
1e30 give in float32 what fields of size 1 give. `mse` and `mae` have units and leave the range when their result does.

`h1(grid)` and `l2()` hold the options; what they return is compared by value, so passing a new one to `fit`
does not compile again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.grid import Grid
from neuralops.solvers.learning.direction_losses import angle_loss, energy_loss, one_step_loss
from neuralops.training.bound import Bound as Bound
from neuralops.training.bound import takes_mask as takes_mask
from neuralops.training.denoising import denoising as denoising
from neuralops.training.denoising import gamma_schedule as gamma_schedule
from neuralops.training.denoising import proximal_matching as proximal_matching
from neuralops.training.norms import Field, check_option, h1_square, mean, mean_square, prepare, relative
from neuralops.training.objectives import physics as physics
from neuralops.training.objectives import predict as predict
from neuralops.training.objectives import rollout as rollout
from neuralops.training.objectives import supervised as supervised
from neuralops.training.objectives import weighted_sum as weighted_sum
from neuralops.training.virtual import grid_residual as grid_residual
from neuralops.training.virtual import kl as kl
from neuralops.training.virtual import observed as observed
from neuralops.training.virtual import reconstruction as reconstruction
from neuralops.training.virtual import virtual_observables as virtual_observables

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
    return jnp.mean(mean(jnp.abs(error), weight))


def relative_l2(
    prediction: Field,
    target: Field,
    *,
    weights: Any = None,
    mask: Any = None,
    per_channel: bool = False,
    eps: float | None = None,
) -> Float[Array, ""]:
    """The relative L2 error `|p - t| / (|t| + eps)` with `|u|^2` the mean of `u^2`.

    The norm is that of the whole field, all channels together; `per_channel=True` takes the ratio channel by
    channel and averages the ratios, for channels of different units.

    **Raises:** `ValueError` when shapes or dtypes do not fit.
    """
    error, target, weight = prepare(prediction, target, weights, mask)
    return relative(error, target, lambda u: mean_square(u, weight), per_channel, eps)


def relative_h1(
    prediction: Field,
    target: Field,
    *,
    grid: Grid,
    derivative: str = "finite_difference",
    weights: Any = None,
    mask: Any = None,
    per_channel: bool = False,
    eps: float | None = None,
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
    return relative(error, target, h1_square(grid, weight, derivative == "spectral"), per_channel, eps)


def relative_fourier_h1(
    prediction: Field,
    target: Field,
    *,
    max_wavenumber: int | None = None,
    per_channel: bool = False,
    eps: float | None = None,
    mask: None = None,
) -> Float[Array, ""]:
    """The relative H1 error by discrete Fourier transform that MgNO and HANO train with (He, Liu and Xu 2024).

    `|w p^ - w t^| / (|w t^| + eps)` with w^2 = 1 + k_1^2 + k_2^2 + ... and k the integer wavenumbers, without 2 pi; the
    field counts as periodic whatever its boundary. From `max_wavenumber` on (20 in MgNO) a k_i counts as zero in w.
    For the norm of the function, with its boundary and extent, see `relative_h1`.

    **Raises:** `ValueError` when shapes or dtypes do not fit, and for any `mask`: a wave needs every point.
    """
    if mask is not None:
        raise ValueError(
            "mask: expected None, because a Fourier transform needs every point, got a mask; use relative_h1 (finite "
            "differences) or relative_l2 for masked fields."
        )
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

    return relative(error, target, square, per_channel, eps)


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
