"""Losses and metrics with their options filled in, equal by value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.training.norms import check_mask


class Bound:
    """A loss or metric with its options filled in: `Bound(f, a=1)(p, t) = f(p, t, a=1)`.

    Equal by value (arrays by content), unlike a lambda or `functools.partial`, so that compiled functions
    that were built for one are found again for an equal one.

    `mask=` in the call, such as the mask of one sample, is handed on to a function that takes one; where a `mask` is
    bound as well, the points inside both count.

    **Raises:** `ValueError` when `function` cannot be called; in a call with a mask, when it takes none.
    """

    def __init__(self, function: Callable[..., Any], /, **options: Any) -> None:
        if not callable(function):
            raise ValueError(
                f"function: expected a loss (prediction, target), got {type(function).__name__}; give a function."
            )
        self.function, self.options = function, options
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self._value = (function, tuple((name, _frozen(option)) for name, option in sorted(options.items())))

    def __call__(self, prediction: Array, target: Array, *, mask: Any = None) -> Array:
        if mask is None:
            return self.function(prediction, target, **self.options)
        if not takes_mask(self):
            raise ValueError(
                f"mask: expected None, because {self.__name__} takes no mask, got one; use a loss that names `mask`, "
                "such as relative_l2, or fill the points that do not count in both fields."
            )
        bound = self.options.get("mask")
        if bound is not None:
            for part in (mask, bound):
                check_mask(part, tuple(np.shape(target)))
            mask = jnp.logical_and(mask, bound)
        return self.function(prediction, target, **{**self.options, "mask": mask})

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self._value == other._value

    def __repr__(self) -> str:
        return f"{self.__name__}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


def takes_mask(function: Callable[..., Any]) -> bool:
    """Whether a loss or metric names `mask` among its arguments, so that `function(p, t, mask=mask)` is understood.

    Of a `Bound` its function counts, and a metric among its options (`metrics.per_step`) has to name it too. A bare
    `**options` does not count: nobody knows where it ends up.
    """
    if isinstance(function, Bound):
        inner = function.options.get("metric")
        return takes_mask(function.function) and (inner is None or takes_mask(inner))
    try:
        mask = inspect.signature(function).parameters.get("mask")
    except (TypeError, ValueError):  # some built-in callables have no signature
        return False
    return mask is not None and mask.kind in (mask.POSITIONAL_OR_KEYWORD, mask.KEYWORD_ONLY)


def _frozen(option: Any) -> Any:
    if hasattr(option, "__array__") and not np.isscalar(option):
        array = np.asarray(option)
        return array.shape, str(array.dtype), array.tobytes()
    return option
