"""How pictures are compared: the peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import check_number
from neuralops.training.norms import Field, mean_square, prepare

__all__ = ["psnr", "ssim"]

TRUNCATE = 3.5  # standard deviations at which the gaussian window ends
K1, K2 = 0.01, 0.03
SPAN = "give 1.0 for fields in [0, 1]."


def psnr(
    prediction: Field, target: Field, *, data_range: float = 1.0, weights: Any = None, mask: Any = None
) -> Float[Array, ""]:
    """The peak signal-to-noise ratio 10 log10(data_range^2 / mean of (p - t)^2), in decibels.

    The mean is over channels and points. Infinite for equal fields. Larger is better, so it is a metric and no loss.

    **Arguments:** `data_range`: the distance between the least and the largest possible value.

    **Raises:** `ValueError` when shapes or dtypes do not fit or the range is no positive number.
    """
    error, _, weight = prepare(prediction, target, weights, mask)
    span = check_number(data_range, "data_range", above=0, hint=SPAN)
    return 20 * jnp.log10(span) - 10 * jnp.log10(jnp.mean(mean_square(error, weight)))


def ssim(
    prediction: Field, target: Field, *, data_range: float = 1.0, sigma: float = 1.5, mask: None = None
) -> Float[Array, ""]:
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004), at most 1, in 1-D to 3-D.

    With means m, variances v and covariance c of both fields under a gaussian window,

        (2 m_p m_t + C1) (2 c + C2) / ((m_p^2 + m_t^2 + C1) (v_p + v_t + C2)),  C1 = (0.01 range)^2, C2 = (0.03 range)^2

    averaged over all points whose window lies inside the field, and over channels. The window ends at 3.5 sigma, 5
    points for the usual sigma of 1.5 points. It is scikit-image's `structural_similarity` with
    `gaussian_weights=True, use_sample_covariance=False`. Larger is better, so it is a metric and no loss.

    **Arguments:** `data_range`: the distance between the least and the largest possible value; `sigma`: of the window,
    in points.

    **Raises:** `ValueError` when shapes or dtypes do not fit, the field is smaller than the window, a number is not
    positive, and for any `mask`: a window needs every point.
    """
    if mask is not None:
        raise ValueError(
            "mask: expected None, because windows need every point, got a mask; use psnr for masked fields."
        )
    span = check_number(data_range, "data_range", above=0, hint=SPAN)
    sigma = check_number(sigma, "sigma", above=0, hint="give a number of points such as 1.5.")
    error, target, _ = prepare(prediction, target, None, None)
    prediction = error + target
    radius = int(TRUNCATE * sigma + 0.5)
    if min(target.shape[1:]) < 2 * radius + 1:
        raise ValueError(
            f"prediction: expected at least {2 * radius + 1} points per axis, the size of the window, got "
            f"{tuple(target.shape[1:])}; give a smaller sigma."
        )
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-0.5 * (offsets / sigma) ** 2)
    window /= window.sum()

    def blurred(u: Array) -> Array:  # only where the whole window is inside
        for axis in range(1, u.ndim):
            n = u.shape[axis] - 2 * radius
            u = sum(w * lax.slice_in_dim(u, i, i + n, axis=axis) for i, w in enumerate(window.tolist()))  # type: ignore[assignment, unused-ignore]
        return u

    mean_p, mean_t = blurred(prediction), blurred(target)
    # of the deviations from one number, or the squares of large means would swallow the variances
    centre = jnp.mean(target)
    p, t = prediction - centre, target - centre
    shift_p, shift_t = mean_p - centre, mean_t - centre
    var_p, var_t = blurred(p**2) - shift_p**2, blurred(t**2) - shift_t**2
    both = blurred(p * t) - shift_p * shift_t
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    top = (2 * mean_p * mean_t + c1) * (2 * both + c2)
    return jnp.mean(top / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2)))
