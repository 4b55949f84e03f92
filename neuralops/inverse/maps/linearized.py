"""The derivative of a map at a point, for Gauss-Newton steps."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.operator import as_operator, check_field

__all__ = ["Linearized"]


class Linearized(AbstractLinearMap):
    """F'(at), the derivative of a field-to-field map at a field, by JAX: forwards for A, backwards for its adjoint.

    ```python
    A = Linearized(forward, x)                                               # a Gauss-Newton step
    step = solve(A.normal() + rho * Identity(A.in_shape), A.adjoint(y - A.value), CG())
    ```

    Each application evaluates the map again at `at`, or solves its equation again; `A.frozen()` does that once, which
    halves the cost of a Gauss-Newton step inside a compiled function. `A.value` is F(at). Where the map solves an
    equation by an iteration, derivatives are as exact as that solve.

    **Arguments:**

    - `function`: from a field `(channels, *grid)` to a field, differentiable both ways; an operator, a function, or a
      pytree that can be called. What it holds is a leaf, what it closes over is fixed.
    - `at`: the field; a leaf.

    **Raises:** `ValueError` when `function` is none, or gives no real floating array.
    """

    function: Any
    at: Float[Array, " channels *grid"]
    out_shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, function: Any, at: Any):
        check_field(at, channels=None, ndim=None, name="at", where="Linearized")
        self.function, self.at = as_operator(function), jnp.asarray(at)
        out = jax.eval_shape(self.function, self.at)
        if not hasattr(out, "shape") or not jnp.issubdtype(out.dtype, jnp.floating):
            came = f"{out.dtype}" if hasattr(out, "dtype") else type(out).__name__
            raise ValueError(
                f"function: expected a real floating array from it, got {came}; give real and imaginary parts as "
                "channels, and one array."
            )
        self.out_shape = tuple(out.shape)

    @property
    def in_shape(self) -> tuple[int, ...]:
        return self.at.shape

    @property
    def value(self) -> Array:
        """F(at)."""
        return self.function(self.at)

    def frozen(self) -> Frozen:
        """The same map, with what does not depend on the field computed once, F(at) too (`value`).

        For use within one compiled function: its structure is new at each call, so that handed to another one it
        compiles that again. Not differentiable in what the function holds.
        """
        value, tangent = jax.linearize(self.function, self.at)
        return Frozen(value, tangent, self.in_shape, self.out_shape, str(self.at.dtype))

    def apply(self, x: Array) -> Array:
        at = self.at.astype(x.dtype)
        return jax.jvp(self.function, (at,), (x,))[1]

    def apply_adjoint(self, y: Array) -> Array:
        return jax.vjp(self.function, self.at.astype(y.dtype))[1](y)[0]


class Frozen(AbstractLinearMap):
    """What `Linearized.frozen` gives."""

    value: Array
    tangent: Any
    in_shape: tuple[int, ...] = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)
    dtype: str = eqx.field(static=True)

    def apply(self, x: Array) -> Array:
        return self.tangent(x.astype(self.dtype)).astype(x.dtype)
