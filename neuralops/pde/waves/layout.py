"""Where the points of a wave field lie: the grid, the layers around it, and points between its points."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from neuralops import transforms
from neuralops.grid import Grid, interpolation
from neuralops.transforms import Axis

__all__ = ["AbstractLayout", "Layout", "Placement", "Profiles"]


class Placement(NamedTuple):
    """Polynomials through the samples around each point; reading and spreading are each other's transposes."""

    samples: Int[Array, "samples points"]  # of the flattened field
    weights: Float[Array, "samples points"]

    def read(self, u: Float[Array, "*wide"]) -> Float[Array, " points"]:
        """The field at the points."""
        return jnp.sum(u.reshape(-1)[self.samples] * self.weights, axis=0)

    def spread(self, u: Float[Array, "*wide"], values: Float[Array, " points"]) -> Float[Array, "*wide"]:
        """The field with `values`, `(points,)`, shared among the samples around each point."""
        return u.reshape(-1).at[self.samples].add(self.weights * values).reshape(u.shape)

    def densities(self, stiffness: Float[Array, "*wide"], volumes: Float[Array, "*wide"]) -> Placement:
        """What a unit at each point adds to a field, per volume, times the stiffness there."""
        return self._replace(weights=self.weights * (stiffness / volumes).reshape(-1)[self.samples])


class Profiles(NamedTuple):
    """Fields that sources are spread over, in place of points."""

    profiles: Array  # (sources, *wide)

    def spread(self, u: Float[Array, "*wide"], values: Float[Array, " sources"]) -> Float[Array, "*wide"]:
        """The field with each profile added so many times."""
        return u + jnp.tensordot(values, self.profiles, 1)

    def densities(self, stiffness: Float[Array, "*wide"], volumes: Float[Array, "*wide"]) -> Profiles:
        """As in `Placement`; a profile is per volume already."""
        return Profiles(self.profiles * stiffness)


@dataclasses.dataclass(frozen=True)
class AbstractLayout(abc.ABC):
    """Where the points of a field lie. Static, no arrays.

    *Narrow* is a field on the grid, *wide* one with the layers outside it, as a step takes it.
    """

    grid: Grid
    axes: tuple[Axis, ...]  # the wide ones

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a wide field."""
        return tuple(axis.num_points for axis in self.axes)

    @property
    def mesh_axes(self) -> tuple[str | None, ...]:
        """By which each axis is divided over devices."""
        return (None,) * self.grid.ndim

    @property
    @abc.abstractmethod
    def narrow_shape(self) -> tuple[int, ...]:
        """Of a narrow field."""

    @abc.abstractmethod
    def widen(self, medium: Float[Array, "*grid"]) -> Float[Array, "*wide"]:
        """A medium, continued into the layers by its values at the walls."""

    @abc.abstractmethod
    def surrounded(self, u: Float[Array, "*grid"]) -> Float[Array, "*wide"]:
        """A field, zero in the layers."""

    @abc.abstractmethod
    def narrow(self, u: Float[Array, "*wide"]) -> Float[Array, "*grid"]:
        """What of a field lies on the grid."""

    @abc.abstractmethod
    def volumes(self) -> Any:
        """Quadrature weights, `(*wide,)`."""

    @abc.abstractmethod
    def place(self, points: Float[Array, "ndim points"], order: int, *, spread: bool) -> Placement:
        """The polynomials of degree `order` around points of the box, to read there, or to spread from there."""

    def joined(self, u: Float[Array, "*wide"]) -> Float[Array, "*wide"]:
        """A field that knows what its neighbours on other devices hold next to it."""
        return u

    def summed(self, x: Array) -> Array:
        """Over the devices."""
        return x


@dataclasses.dataclass(frozen=True)
class Layout(AbstractLayout):
    """The whole grid and, per axis and end, the points of the layer outside it."""

    layer_points: tuple[tuple[int, int], ...]

    @property
    def narrow_shape(self) -> tuple[int, ...]:
        return self.grid.shape

    def widen(self, medium: Float[Array, "*grid"]) -> Float[Array, "*wide"]:
        return jnp.pad(medium, self.layer_points, mode="edge")

    def surrounded(self, u: Float[Array, "*grid"]) -> Float[Array, "*wide"]:
        return jnp.pad(u, self.layer_points)

    def narrow(self, u: Float[Array, "*wide"]) -> Float[Array, "*grid"]:
        starts = [low for low, _ in self.layer_points]
        return lax.slice(u, starts, [s + n for s, n in zip(starts, self.grid.shape, strict=True)])

    def volumes(self) -> Float[np.ndarray, "*wide"]:
        """As float64 NumPy."""
        total = np.ones(())
        for axis, h in zip(self.axes, self.grid.spacing, strict=True):
            total = np.multiply.outer(total, h * transforms.relative_weights(axis))
        return total

    @property
    def first(self) -> list[float]:
        """The coordinates of the first wide point."""
        h = self.grid.spacing
        return [float(self.grid.points(a)[0] - low * h[a]) for a, (low, _) in enumerate(self.layer_points)]

    def place(self, points: Float[Array, "ndim points"], order: int, *, spread: bool) -> Placement:
        return Placement(*interpolation(points, self.axes, self.first, self.grid.spacing, order))
