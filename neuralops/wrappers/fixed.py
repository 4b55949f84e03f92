"""An operator with some of its extra inputs fixed."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from neuralops.arguments import check_plain
from neuralops.operator import KEYWORDS, AbstractWrapper, as_operator, keywords_of

__all__ = ["At", "Constant", "at"]


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
