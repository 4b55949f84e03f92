"""Operators made of other operators: with extra inputs fixed, or applied again and again."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_plain, count, flag
from neuralops.operator import KEYWORDS, AbstractWrapper, as_operator, check_field, keywords_of

__all__ = ["At", "Constant", "Rollout", "advance", "at", "rollout"]


class Constant:
    """An array that belongs to the structure of a pytree: compared and hashed by content."""

    def __init__(self, array: Any) -> None:
        self.array = np.array(array)
        self.array.flags.writeable = False
        self._value = (self.array.shape, str(self.array.dtype), self.array.tobytes())

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._value == other._value

    def __repr__(self) -> str:
        return f"Constant({self.array.dtype}{list(self.array.shape)})"


class At(AbstractWrapper):
    """An operator with some of its extra inputs fixed; built by `at`."""

    op: Any
    coords: Constant | None = eqx.field(static=True)
    query: Constant | None = eqx.field(static=True)
    mask: Constant | None = eqx.field(static=True)
    weights: Constant | None = eqx.field(static=True)
    code: Constant | None = eqx.field(static=True)
    time: Constant | None = eqx.field(static=True)

    def __init__(
        self,
        op: Any,
        coords: Any = None,
        query: Any = None,
        mask: Any = None,
        weights: Any = None,
        code: Any = None,
        time: Any = None,
    ) -> None:
        self.op = as_operator(op)
        named = keywords_of(self.op)
        fixed = {}
        given = {"coords": coords, "query": query, "mask": mask, "weights": weights, "code": code, "time": time}
        for name, value in given.items():
            if value is not None and name not in named:
                raise ValueError(
                    f"{name}: expected one of the extra inputs that {type(op).__name__} names, {sorted(named)}, got "
                    f"{name}; leave it out, or take an operator with points."
                )
            check_plain(value, name)
            if isinstance(value, jax.core.Tracer):
                raise ValueError(
                    f"{name}: expected an array with values, got a traced one; at() fixes an array for good, inside a "
                    f"transformation call op(u, {name}=...)."
                )
            fixed[name] = value if value is None or isinstance(value, Constant) else Constant(value)
        self.coords, self.query, self.mask = fixed["coords"], fixed["query"], fixed["mask"]
        self.weights, self.code, self.time = fixed["weights"], fixed["code"], fixed["time"]

    @property
    def _fixed(self) -> dict[str, Constant]:
        given = {name: getattr(self, name) for name in KEYWORDS if name != "key"}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def keywords(self) -> frozenset[str]:
        return keywords_of(self.op) - set(self._fixed)

    def __call__(self, u: Array, /, **keywords: Any) -> Array:
        fixed = {name: jnp.asarray(value.array) for name, value in self._fixed.items()}
        fixed = {name: x if name == "mask" else x.astype(u.dtype) for name, x in fixed.items()}
        return self.op(u, **fixed, **keywords)


def at(
    op: Any,
    *,
    coords: Any = None,
    query: Any = None,
    mask: Any = None,
    weights: Any = None,
    code: Any = None,
    time: Any = None,
) -> At:
    """Fixes where the input is given, where the output is wanted, which points count, or other extra inputs.

    What is left is an operator of one argument, which every tool takes. The fixed arrays are part of its structure:
    they are not trained, equal ones share a compiled program, other ones compile anew. Where they differ from sample
    to sample, give them to `fit` and `evaluate` with the samples instead.

    **Arguments:** `coords` and `query` `(ndim, *points)`, `mask` and `weights` `(*points)`, `code` `(numbers,)`, `time`
    a number; only what `op` names.

    **Raises:** `ValueError` on an extra input that `op` does not name, and on traced arrays.
    """
    return At(op, coords, query, mask, weights, code, time)


def advance(state: Float[Array, " channels *grid"], new: Float[Array, " new *grid"]) -> Float[Array, " channels *grid"]:
    """The frames that the next step sees: the oldest channels give way to the new ones."""
    return jnp.concatenate([state, new])[-len(state) :]


def rollout(
    op: Any,
    start: Float[Array, " channels *grid"],
    num_steps: int,
    *,
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
    - `key`: split into one for each step, for an operator that draws random numbers; others do not get it.
    - `recompute`: whether gradients compute each step anew instead of keeping what is inside it: memory then grows
      with the frames alone, for about a third more time.
    - `keywords`: `coords` and the like, handed to every step.

    **Returns:** the outputs of all steps.

    **Raises:** `ValueError` when `op` changes the grid, or a count does not fit.
    """
    op = as_operator(op)
    num_steps, recompute = count(num_steps, "num_steps"), flag(recompute, "recompute")
    check_field(start, channels=None, ndim=None, name="start", where="rollout")
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
        return advance(state, new), new

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

    def __init__(self, op: Any, num_steps: int, recompute: bool = False) -> None:
        self.op = as_operator(op)
        self.num_steps, self.recompute = count(num_steps, "num_steps"), flag(recompute, "recompute")

    def __call__(self, u: Float[Array, " channels *grid"], /, **keywords: Any) -> Float[Array, " stacked *grid"]:
        frames = rollout(self.op, u, self.num_steps, recompute=self.recompute, **keywords)
        return frames.reshape(-1, *frames.shape[2:])
