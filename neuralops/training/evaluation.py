"""Judging an operator on samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import count
from neuralops.operator import as_operator
from neuralops.training.feeds import Loaded, as_data
from neuralops.training.metrics import relative_l2
from neuralops.training.outline import check_judges
from neuralops.training.steps import per_sample

EVALUATION_BATCH = 32


def evaluate(
    op: Any, data: Any, *, metrics: Any = (relative_l2,), batch_size: int = EVALUATION_BATCH, mesh: Any = None
) -> dict[str, Any]:
    """Applies metrics to every sample.

    **Arguments:**

    - `op`: an operator, a function, or any callable pytree.
    - `data`: as in `fit`, in physical units: wrap an operator between scaled fields in `data.Normalized`. Points and
      masks of the samples go to the operator as far as it names them; masked points count zero.
    - `metrics`: a metric `(prediction, target) -> number` of one unbatched sample, several of them, or a
      dictionary that names them, such as `{"h1": losses.h1(grid)}`. One may return several numbers, as
      `metrics.per_step` does.
    - `batch_size`: samples at once, a matter of memory only.
    - `mesh`: divides batches over the first axis of a `jax.sharding.Mesh`.

    **Returns:** a dictionary from the metric's name to its values, `(samples,)` or `(samples, numbers)`, in the order
    of the data. The caller reduces: `result["relative_l2"].mean()`.

    **Raises:** `ValueError` when `data` or `metrics` do not fit.
    """
    op = as_operator(op)
    batch_size = count(batch_size, "batch_size")
    judges = named(metrics)
    if not judges:
        raise ValueError("metrics: expected at least one metric, got none; use (metrics.relative_l2,).")
    leaves = [x for x in jax.tree.leaves(op) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]
    mesh = as_mesh(mesh)
    loaded = Loaded(jnp.result_type(*leaves) if leaves else None, mesh)
    test = as_data(data, loaded, "data", counted=counted_by(judges))
    check_judges(op, test.like(1), judges, "data")
    return per_sample(op if mesh is None else jax.device_put(op, loaded.place), test, judges, batch_size, mesh)


def as_mesh(mesh: Any) -> Any:
    """A mesh whose axes the compiler may use (not `Explicit` ones, which every operation would have to mention).

    **Raises:** `ValueError` when it is none.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, jax.sharding.Mesh) or not mesh.axis_names:
        raise ValueError(
            f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}; use jax.make_mesh((2,), ('batch',))."
        )
    return jax.sharding.Mesh(mesh.devices, mesh.axis_names)


def named(metrics: Any, reserved: tuple[str, ...] = ()) -> dict[str, Callable[..., Any]]:
    """Metrics by name, whichever way they were given."""
    if callable(metrics):
        metrics = (metrics,)
    if not isinstance(metrics, Mapping):
        listed = list(metrics) if isinstance(metrics, Sequence) and not isinstance(metrics, str) else [metrics]
        metrics = {getattr(metric, "__name__", type(metric).__name__): metric for metric in listed}
        if len(metrics) != len(listed):
            raise ValueError(
                f"metrics: expected distinct names, got {list(metrics)} for {len(listed)} metrics; "
                "name them: metrics={'low': ..., 'high': ...}."
            )
    for name, metric in metrics.items():
        if not callable(metric) or not isinstance(name, str) or name in reserved:
            raise ValueError(
                f"metrics: expected functions (prediction, target) under free names, got {metric!r} under {name!r}; "
                "use those of neuralops.metrics."
            )
    return dict(metrics)


def counted_by(judges: dict[str, Callable[..., Any]]) -> Any:
    """Where at least one loss or metric looks, when each has a mask bound to it; else `None`, everywhere."""
    masks = [getattr(judge, "options", {}).get("mask") for judge in judges.values()]
    if not masks or any(mask is None for mask in masks):
        return None
    return np.logical_or.reduce(np.broadcast_arrays(*(np.asarray(mask) for mask in masks)))
