"""Learning rates that change once per epoch, as optax schedules."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import optax

from neuralops.arguments import count

__all__ = ["one_cycle"]


def one_cycle(
    max_value: float,
    num_epochs: int,
    steps_per_epoch: int,
    *,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> optax.Schedule:
    """One cosine up, one cosine down, constant within an epoch: PyTorch's `OneCycleLR` stepped per epoch (Smith 2018).

    From `max_value / div_factor` up to `max_value`, reached at epoch `pct_start * num_epochs - 1`, and down to
    `max_value / (div_factor * final_div_factor)` in the last one. `optax.cosine_onecycle_schedule` does so per step.

    With weight decay added to the gradient, as `torch.optim.Adam` does it (not AdamW):

    ```python
    rate = one_cycle(5e-4, 500, 125, pct_start=0.2, div_factor=2, final_div_factor=100)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(rate))
    ```

    **Raises:** `ValueError` on counts below 1 or fractions outside (0, 1).
    """
    num_epochs, steps_per_epoch = count(num_epochs, "num_epochs"), count(steps_per_epoch, "steps_per_epoch")
    if not 0 < pct_start < 1:
        raise ValueError(f"pct_start: expected a fraction between 0 and 1, got {pct_start!r}; give e.g. 0.3.")
    for name, number in (("max_value", max_value), ("div_factor", div_factor), ("final_div_factor", final_div_factor)):
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name}: expected a positive number, got {number!r}; give e.g. 25.0.")
    return functools.partial(
        _one_cycle,
        steps_per_epoch=steps_per_epoch,
        values=(max_value / div_factor, max_value, max_value / div_factor / final_div_factor),
        epochs=(pct_start * num_epochs - 1, num_epochs - 1),
    )


def _one_cycle(
    count: jnp.ndarray, *, steps_per_epoch: int, values: tuple[float, float, float], epochs: tuple[float, float]
) -> jnp.ndarray:
    (first, most, last), (top, end) = values, epochs

    def between(start: float, stop: float, fraction: jnp.ndarray) -> jnp.ndarray:
        return stop + (start - stop) / 2 * (1 + jnp.cos(math.pi * fraction))

    epoch = jnp.minimum(jnp.asarray(count) // steps_per_epoch, end)
    up = between(first, most, epoch / top) if top > 0 else jnp.asarray(most)
    down = between(most, last, (epoch - top) / max(end - top, 1))
    return jnp.where(epoch <= top, up, down)
