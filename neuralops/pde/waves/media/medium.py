"""What every law of a medium keeps, and the draws that their numbers are made from."""

from __future__ import annotations

import dataclasses
import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.grid import Grid
from neuralops.pde.random_fields import check_dtype

Range = float | tuple[float, float]
Counts = int | tuple[int, int]


class Medium(eqx.Module):
    """Base class of the laws for drawing an acoustic medium: sound speed and density on a box.

    A medium is a function of position. Its numbers come from the key and from the box alone, never from the points, so
    one key is one medium on every grid of a box, in float32 and in float64; at a jump rounding may give a point to
    either side. Where an argument takes a value or a range `(low, high)`, a range is drawn from uniformly.

    A law holds plain numbers only, no arrays: it is a hashable constant under `jax.jit`, and its static fields carry
    the names of its constructor's arguments.
    """

    @property
    @abstractmethod
    def speeds(self) -> tuple[float, float]:
        """Bounds of the sound speed, (lowest, highest), that every sample keeps to the rounding of its dtype.

        The time step follows from the highest, points per wavelength from the lowest.
        """

    @property
    def densities(self) -> tuple[float, float]:
        """Bounds of the density, (lowest, highest): those of all arguments that are densities."""
        names = [field.name for field in dataclasses.fields(self) if field.name.endswith("density")]
        return hull(*(getattr(self, name) for name in names))

    def sample(self, key: Array, grid: Grid, *, dtype: Any = None) -> Float[Array, " 2 *grid"]:
        """One medium at the points of `grid`: channel 0 the sound speed (length / time), 1 the density (mass / volume).

        `dtype` defaults to JAX's floating type (float64 inside `jax.enable_x64`).

        **Raises:** `ValueError` when the law does not fit the grid, or when JAX cannot hold `dtype`.
        """
        dtype = check_dtype(dtype)
        self._check(grid)
        return _sample(self, key, grid, dtype)

    def _check(self, grid: Grid) -> None:
        """Refuses a grid that the law has no medium for."""
        return

    @abstractmethod
    def _draw(self, key: Array, grid: Grid, dtype: Any) -> tuple[Array, Array]:
        """Speed and density, each of a shape that broadcasts to the grid's."""


@functools.partial(jax.jit, static_argnums=3)  # op by op, a first draw would take seconds
def _sample(medium: Medium, key: Array, grid: Grid, dtype: Any) -> Array:
    speed, density = medium._draw(key, grid, dtype)
    speed = jnp.clip(speed, *medium.speeds)  # a sum of rounded terms may pass a bound by a digit
    return jnp.stack([jnp.broadcast_to(field, grid.shape).astype(dtype) for field in (speed, density)])


def uniform(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Numbers in (0, 1), the same in every dtype: `jax.random.uniform` draws others in float64."""
    whole = jax.random.bits(key, shape, jnp.uint32) >> 9
    return (whole.astype(dtype) + 0.5) * 2.0**-23  # 24 digits: exact in float32


def between(key: Array, value: Range, shape: tuple[int, ...], dtype: Any) -> Array:
    """Uniform in the range, or the value itself."""
    low, high = ends(value)
    return low + (high - low) * uniform(key, shape, dtype)


def whole_between(key: Array, value: Counts) -> Array:
    """A whole number, uniform from the lowest to the highest, both included."""
    low, high = ends(value)
    return low + jnp.floor((high - low + 1) * uniform(key, (), jnp.float32)).astype(jnp.int32)


def ends(value: Any) -> tuple[Any, Any]:
    """The lowest and highest of a range; a value is a range of its own."""
    return value if isinstance(value, tuple) else (value, value)


def hull(*ranges: Range) -> tuple[float, float]:
    """The range that holds all of these."""
    return min(ends(r)[0] for r in ranges), max(ends(r)[1] for r in ranges)


def check_range(
    value: Any, name: str, *, above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf
) -> Range:
    """A number, or a pair (low, high) of numbers, inside the bounds, or a `ValueError`."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        hint = "give a number in range, or a pair (low, high)."
        number = check_number(value, name, above=above, at_least=at_least, hint=hint)
        if number > at_most:
            raise ValueError(f"{name}: expected at most {at_most:g}, got {value!r}; {hint}")
        return number
    if len(value) != 2:
        raise ValueError(f"{name}: expected a number or a pair (low, high), got {value!r}; give one of them.")
    low, high = (ends(check_range(v, name, above=above, at_least=at_least, at_most=at_most))[0] for v in value)
    if low > high:
        raise ValueError(f"{name}: expected the lower end first, got {value!r}; swap the two.")
    return low, high


def check_counts(value: Any, name: str, least: int = 1) -> Counts:
    """A count, or a pair (fewest, most), or a `ValueError`."""
    hint = "give a count, or a pair (fewest, most)."
    if not isinstance(value, Sequence) or isinstance(value, str):
        return count(value, name, least, hint=hint)
    if len(value) != 2:
        raise ValueError(f"{name}: expected a count or a pair (fewest, most), got {value!r}; give one of them.")
    fewest, most = (count(v, name, least, hint=hint) for v in value)
    if fewest > most:
        raise ValueError(f"{name}: expected the lower end first, got {value!r}; swap the two.")
    return fewest, most
