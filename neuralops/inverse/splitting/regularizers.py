"""What is known of a field before it is measured: a function R, given by its proximal map."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.operator import as_operator, original

__all__ = ["L1", "L2", "AbstractRegularizer", "Box", "Learned", "positive"]

Field = Float[Array, "channels *grid"]


class AbstractRegularizer(eqx.Module):
    """A function R(x) of a field `(channels, *grid)`, known by its proximal map.

    Numbers in it are leaves: other weights do not compile again.
    """

    @abstractmethod
    def prox(self, y: Field, step: Any) -> Field:
        """The minimiser of 1/2 |x - y|^2 + step R(x)."""

    @abstractmethod
    def value(self, x: Field) -> Float[Array, ""]:
        """R(x).

        **Raises:** `ValueError` when it is not known (`has_value` says so).
        """

    @property
    def has_value(self) -> bool:
        """Whether R can be evaluated."""
        return True

    @property
    def convex(self) -> bool:
        """Whether R is convex and `prox` its proximal map: then splittings converge for a wider range of steps."""
        return True

    def factor(self, step: Any) -> Any:
        """By how much R counts in what is minimised when `prox` is called with `step`: by 1, as `prox` heeds it."""
        return jnp.ones(())

    def value_of_prox(self, y: Field, x: Field) -> Float[Array, ""]:
        """R(x) for x = prox(y), where that is cheaper to know."""
        return self.value(x)


class Learned(AbstractRegularizer):
    """A learned proximal network, or any denoiser, in the place of a proximal map (plug and play).

    The network f is applied as it is, whatever the step. If it is the proximal map of R (an `LPN` is, exactly), then
    ADMM makes h + rho R stationary and proximal gradient h + R / step: the step sets how much R counts. R is a
    network's own; it holds the noise level it was trained for, squared.

    R can be evaluated when the network has a `potential` (at what it returns, at no cost) or a `prior` (anywhere).
    A denoiser that is no proximal map has none, and for it no theorem says what is found.

    **Arguments:**

    - `op`: from `(channels, *grid)` to the same shape; a network, or any function.
    - `code`: a number that the network takes as `code=`, such as the noise level of a conditioned one.

    **Raises:** `ValueError` when `op` cannot be called or `code` is no number.
    """

    op: Any
    code: Float[Array, " 1"] | None

    def __init__(self, op: Any, *, code: Any = None) -> None:
        self.op = as_operator(op)
        if code is not None:
            code = jnp.asarray(code, float) if not hasattr(code, "dtype") else jnp.asarray(code)
            if code.shape not in ((), (1,)) or not jnp.issubdtype(code.dtype, jnp.floating):
                raise ValueError(f"code: expected one number, got {code.dtype} of {code.shape}; give the noise level.")
            code = code.reshape(1)
        self.code = code

    @property
    def _network(self) -> Any:
        return original(self.op)

    @property
    def _keywords(self) -> dict[str, Array]:
        return {} if self.code is None else {"code": self.code}

    @property
    def has_value(self) -> bool:
        return hasattr(self._network, "potential") or hasattr(self._network, "prior")

    @property
    def convex(self) -> bool:
        return False

    def prox(self, y: Field, step: Any = None) -> Field:
        """f(y); `step` is not used."""
        return self.op(y, **self._keywords)

    def factor(self, step: Any) -> Any:
        """1 / step: prox_R with any step is the map of R / step."""
        return 1 / jnp.asarray(step)

    def value(self, x: Field) -> Float[Array, ""]:
        if not hasattr(self._network, "prior"):
            raise ValueError(
                f"op: expected a network with `prior`, got {type(self._network).__name__}; leave out monitor=, or take "
                "an LPN."
            )
        return self._network.prior(x, **self._keywords).value / self._measure(x)

    def value_of_prox(self, y: Field, x: Field) -> Float[Array, ""]:
        """<x, y> - 1/2 |x|^2 - potential(y) for x = f(y), with no inversion of f."""
        if not hasattr(self._network, "potential"):
            return self.value(x)
        return jnp.sum(x * y) - 0.5 * jnp.sum(x**2) - self._network.potential(y, **self._keywords) / self._measure(x)

    def _measure(self, x: Field) -> float:
        """What a point counts for in the network's inner product; here it is 1."""
        return self._network.measure(x.shape[1:]) if hasattr(self._network, "measure") else 1.0


class L1(AbstractRegularizer):
    """R(x) = weight sum |x|; its proximal map is soft thresholding at step * weight.

    **Raises:** `ValueError` on a weight that is no number, negative or not finite.
    """

    weight: Any

    def __init__(self, weight: Any = 1.0) -> None:
        self.weight = positive(weight, "weight", zero=True)

    def prox(self, y: Field, step: Any) -> Field:
        return jnp.sign(y) * jnp.maximum(jnp.abs(y) - step * self.weight, 0)

    def value(self, x: Field) -> Float[Array, ""]:
        return self.weight * jnp.sum(jnp.abs(x))


class L2(AbstractRegularizer):
    """R(x) = weight / 2 |x - mean|^2.

    **Arguments:** `weight`; `mean`, a number or a field, by default 0.

    **Raises:** `ValueError` on a weight that is no number, negative or not finite.
    """

    weight: Any
    mean: Any

    def __init__(self, weight: Any = 1.0, mean: Any = 0.0) -> None:
        self.weight = positive(weight, "weight", zero=True)
        self.mean = jnp.asarray(mean, float) if not hasattr(mean, "dtype") else jnp.asarray(mean)

    def prox(self, y: Field, step: Any) -> Field:
        a = step * self.weight
        return (y + a * self.mean.astype(y.dtype)) / (1 + a)

    def value(self, x: Field) -> Float[Array, ""]:
        return 0.5 * self.weight * jnp.sum((x - self.mean.astype(x.dtype)) ** 2)


class Box(AbstractRegularizer):
    """R(x) = 0 where low <= x <= high everywhere, else infinite; its proximal map clips.

    **Raises:** `ValueError` when low is not below high.
    """

    low: Any
    high: Any

    def __init__(self, low: Any = 0.0, high: Any = 1.0) -> None:
        for name, bound in (("low", low), ("high", high)):
            if isinstance(bound, bool | str) or not isinstance(bound, int | float | np.number):
                raise ValueError(f"{name}: expected a number, got {bound!r}; give e.g. Box(0.0, 1.0).")
        if not low < high:
            raise ValueError(f"low, high: expected low below high, got {low!r} and {high!r}; give e.g. Box(0.0, 1.0).")
        self.low, self.high = float(low), float(high)

    def prox(self, y: Field, step: Any = None) -> Field:
        return jnp.clip(y, self.low, self.high)

    def value(self, x: Field) -> Float[Array, ""]:
        slack = 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(self.low), jnp.abs(self.high))
        inside = jnp.all((x >= self.low - slack) & (x <= self.high + slack))
        return jnp.where(inside, 0, jnp.inf).astype(x.dtype)


def positive(value: Any, name: str, *, zero: bool = False) -> Any:
    """A positive number, which may be a scalar array or traced.

    **Raises:** `ValueError` on anything else, as far as its value is known.
    """
    wanted = "zero or a positive number" if zero else "a positive number"
    wrong = isinstance(value, bool | str) or not (isinstance(value, int | float) or hasattr(value, "dtype"))
    if not wrong:
        kind = jnp.result_type(value)
        wrong = np.ndim(value) != 0 or not jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.complexfloating)
    if wrong:
        raise ValueError(f"{name}: expected {wanted}, got {value!r}; give e.g. {name}=0.1.")
    if not isinstance(value, jax.core.Tracer):
        number = float(value)
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
            raise ValueError(f"{name}: expected {wanted}, got {value!r}; give e.g. {name}=0.1.")
        return number if isinstance(value, int | float | np.generic | np.ndarray) else value
    return value
