"""An operator applied to its own output, again and again."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.operator import AbstractWrapper, as_operator, check_field, keywords_of

__all__ = ["Rollout", "advance", "rollout"]


def advance(
    state: Float[Array, " channels *grid"], new: Float[Array, " new *grid"], constants: int = 0
) -> Float[Array, " channels *grid"]:
    """What the next step sees: the first `constants` channels stay, the oldest others give way to the new ones."""
    moving = jnp.concatenate([state[constants:], new])
    return jnp.concatenate([state[:constants], moving[len(new) :]])


def check_constants(constants: int, channels: int) -> None:
    """Refuses states of constants alone.

    **Raises:** `ValueError` with the counts.
    """
    if constants >= channels:
        raise ValueError(
            f"constants: expected fewer than the {channels} channels of the state, got {constants}; what moves follows "
            "the channels that stay."
        )


def rollout(
    op: Any,
    start: Float[Array, " channels *grid"],
    num_steps: int,
    *,
    constants: int = 0,
    key: Array | None = None,
    recompute: bool = False,
    **keywords: Any,
) -> Float[Array, "num_steps channels_out *grid"]:
    """Applies `op` again and again, by `jax.lax.scan`: a step compiles once, whatever their number.

    **Arguments:**

    - `op`: an operator from `(channels, *grid)` to `(channels_out, *grid)`. Its input holds one or more frames in
      its channels, the oldest first; each output is appended and the oldest channels are dropped.
    - `start`: the frames to begin with.
    - `num_steps`: how often `op` is applied.
    - `constants`: how many channels in front of the frames stay as they are at every step, such as a medium.
    - `key`: split into one for each step, for an operator that draws random numbers; others do not get it.
    - `recompute`: whether gradients compute each step anew instead of keeping what is inside it: memory then grows
      with the frames alone, for about a third more time.
    - `keywords`: `coords` and the like, handed to every step.

    **Returns:** the outputs of all steps.

    **Raises:** `ValueError` when `op` changes the grid, or a count does not fit.
    """
    op = as_operator(op)
    num_steps, recompute = count(num_steps, "num_steps"), flag(recompute, "recompute")
    constants = count(constants, "constants", least=0)
    check_field(start, channels=None, ndim=None, name="start", where="rollout")
    check_constants(constants, len(start))
    start = jnp.asarray(start)
    if "key" not in keywords_of(op):
        key = None
    with_key = keywords if key is None else {**keywords, "key": key}  # some operators do not run without
    out = jax.eval_shape(lambda op, u: op(u, **with_key), op, start)
    if out.shape[1:] != start.shape[1:] or out.dtype != start.dtype:
        raise ValueError(
            f"op: expected an operator that stays on the grid and in the dtype of start, {start.shape} {start.dtype}, "
            f"got one that makes {out.shape} {out.dtype} of it; resample its output, or cast start."
        )
    keys = None if key is None else jax.random.split(key, num_steps)

    def step(state: Array, key: Any) -> tuple[Array, Array]:
        new = op(state, **keywords) if key is None else op(state, key=key, **keywords)
        return advance(state, new, constants), new

    # The body of a scan is compiled by itself, so nothing has to keep XLA from merging what is computed twice.
    body = jax.checkpoint(step, prevent_cse=False) if recompute else step
    return jax.lax.scan(body, start, keys, length=num_steps)[1]


class Rollout(AbstractWrapper):
    """An operator that applies another one `num_steps` times and stacks the frames in its channels, time-major.

    From `(channels, *grid)` to `(num_steps * channels_out, *grid)`, the layout of `data.windows(horizon=num_steps)`:
    `evaluate(Rollout(op, 10), pairs, metrics={"steps": metrics.per_step(metrics.relative_l2, 10)})`.

    **Arguments:** those of `rollout`. **Raises:** `ValueError` when a count does not fit.
    """

    op: Any
    num_steps: int = eqx.field(static=True)
    recompute: bool = eqx.field(static=True)
    constants: int = eqx.field(static=True)

    def __init__(self, op: Any, num_steps: int, recompute: bool = False, *, constants: int = 0) -> None:
        self.op = as_operator(op)
        self.num_steps, self.recompute = count(num_steps, "num_steps"), flag(recompute, "recompute")
        self.constants = count(constants, "constants", least=0)

    def __call__(self, u: Float[Array, " channels *grid"], /, **keywords: Any) -> Float[Array, " stacked *grid"]:
        frames = rollout(self.op, u, self.num_steps, constants=self.constants, recompute=self.recompute, **keywords)
        return frames.reshape(-1, *frames.shape[2:])
