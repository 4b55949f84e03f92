"""One sample: what an operator makes of it, and what a loss or a metric says of that."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from neuralops.data.samples import Samples, target_mask
from neuralops.operator import EXTRAS, keywords_of
from neuralops.training.bound import takes_mask


def predict_one(op: Any, sample: Samples, *, key: Any = None) -> Any:
    """The output for one unbatched sample; the operator gets those of its points, masks and extras that it names.

    Masked points of the input are zero, whatever they held, and so are their coordinates and weights.
    """
    named = keywords_of(op)
    given = {name: x for name in ("coords", "query", "mask") if (x := getattr(sample, name)) is not None}
    given |= {name: x for name in EXTRAS if (x := sample.extras.get(name)) is not None}
    for name, mask in (("coords", sample.mask), ("query", sample.query_mask), ("weights", sample.mask)):
        if name in given and mask is not None:
            given[name] = jnp.where(mask, given[name], 0)
    keywords = {name: x for name, x in given.items() if name in named}
    if key is not None and "key" in named:
        keywords["key"] = key
    u = sample.inputs
    if sample.mask is not None:
        u = jnp.where(sample.mask, u, 0)
    return op(u, **keywords)


def predict(op: Any, batch: Samples, *, key: Any = None) -> Any:
    """The outputs for a batch, for objectives of one's own.

    **Arguments:**

    - `op`: an operator, or any callable pytree.
    - `batch`: `Samples`, as an objective gets them.
    - `key`: split into one for each sample, for an operator that draws random numbers; `None` draws none.

    **Returns:** `(samples, channels_out, *points_out)`.
    """
    if key is None:
        return jax.vmap(lambda sample: predict_one(op, sample), in_axes=(batch.axes,))(batch)
    keys = jax.random.split(key, len(batch))
    return jax.vmap(lambda sample, key: predict_one(op, sample, key=key), in_axes=(batch.axes, 0))(batch, keys)


def judged(function: Any, prediction: Any, sample: Samples) -> Any:
    """A loss or metric of one prediction, over the points that count.

    One that takes no mask sees zeros at masked points, in prediction and target alike.
    """
    if sample.outputs is None:
        raise ValueError(
            "data.outputs: expected what the operator should make of the inputs, got None; give labels, or leave "
            "losses of prediction and target out of the objective."
        )
    mask = target_mask(sample, batched=False)
    if mask is None:
        return function(prediction, sample.outputs)
    if takes_mask(function):
        return function(prediction, sample.outputs, mask=mask)
    return function(jnp.where(mask, prediction, 0), jnp.where(mask, sample.outputs, 0))
