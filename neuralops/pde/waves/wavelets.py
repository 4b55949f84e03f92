"""What sources emit, and waves that are there at time 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.grid import Grid

__all__ = ["gaussian_pulse", "plane_wave", "ricker", "rings"]


def ricker(times: Any, frequency: Any, delay: Any = None) -> Array:
    """(1 - 2 a) exp(-a), a = (pi frequency (t - delay))^2: the second derivative of a Gaussian, peak 1.

    Its spectrum peaks at `frequency` and is below a hundredth of that beyond 2.6 times it. `delay` is 1.2 / frequency
    by default, when the wavelet begins at 1e-5 of its peak.
    """
    delay = 1.2 / frequency if delay is None else delay
    a = (jnp.pi * frequency * (jnp.asarray(times) - delay)) ** 2
    return (1 - 2 * a) * jnp.exp(-a)


def gaussian_pulse(times: Any, width: Any, delay: Any = None) -> Array:
    """exp(-((t - delay) / width)^2); `delay` is 4 widths by default, when it begins at 1e-7."""
    delay = 4 * width if delay is None else delay
    return jnp.exp(-(((jnp.asarray(times) - delay) / width) ** 2))


def rings(grid: Grid, centres: Any, radii: Any, widths: Any, heights: Any) -> Float[Array, "*grid"]:
    """A sum of smooth rings, height exp(-((r - radius) / width)^2) around each centre; radius 0 is a pulse.

    `centres`: `(ndim, rings)` in the units of the box, the others `(rings,)`.

    **Raises:** `ValueError` when the centres have another number of axes than the grid.
    """
    centres = jnp.asarray(centres)
    if centres.ndim != 2 or centres.shape[0] != grid.ndim:
        raise ValueError(
            f"centres: expected ({grid.ndim}, rings), got shape {centres.shape}; put the axes first, as in receivers."
        )
    x = jnp.asarray(grid.coordinates(), centres.dtype)[..., None]
    along = (grid.ndim, *(1,) * grid.ndim, -1)
    r = jnp.sqrt(jnp.sum((x - centres.reshape(along)) ** 2, axis=0))
    return jnp.sum(jnp.asarray(heights) * jnp.exp(-(((r - jnp.asarray(radii)) / jnp.asarray(widths)) ** 2)), axis=-1)


def plane_wave(
    grid: Grid, direction: Sequence[float], sound_speed: float, offset: float, width: float
) -> tuple[Array, Array]:
    """u and u_t at time 0 of exp(-((n.x - offset - c t) / width)^2), which travels along `direction` in a medium of
    constant speed. For `initial` and `initial_rate`.

    **Raises:** `ValueError` when the direction has another number of axes than the grid, or no length.
    """
    n = np.asarray(direction, np.float64)
    if n.shape != (grid.ndim,) or not np.linalg.norm(n) > 0:
        raise ValueError(
            f"direction: expected {grid.ndim} numbers, not all zero, got {direction!r}; (1.0, 0.0) is the first axis."
        )
    s = (np.tensordot(n / np.linalg.norm(n), grid.coordinates(), 1) - offset) / width
    u = np.exp(-(s**2))
    return jnp.asarray(u), jnp.asarray(2 * sound_speed / width * s * u)
