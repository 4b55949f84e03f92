"""Normalisation by integrals over the domain, so that it means the same on every grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import count, flag
from neuralops.grid import check_boundary, per_axis
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.pointwise import ANY_GRID
from neuralops.operator import Envelope

NORMS = (None, "instance_norm", "group_norm")


class GroupNorm(AbstractLayer):
    """Subtracts the mean and divides by the standard deviation over a group of channels and the domain.

    The two moments are quadratures of the grid (a Neumann end node counts half), not plain averages.

    **Arguments:** `in_channels`; `groups`, which must divide it (`groups=in_channels` is instance
    normalisation); `use_affine` for a weight and a bias per channel; `eps`, added to the variance;
    `boundary`, `centering` as in `Grid`.
    """

    weight: Float[Array, " channels"] | None
    bias: Float[Array, " channels"] | None
    in_channels: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    use_affine: bool = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    boundary: Any = eqx.field(static=True)
    centering: Any = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        groups: int = 1,
        *,
        use_affine: bool = True,
        eps: float = 1e-5,
        boundary: Any = "periodic",
        centering: Any = "node",
        key: Array | None = None,
    ) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.groups = groups = count(groups, "groups")
        self.use_affine = use_affine = flag(use_affine, "use_affine")
        if in_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of {in_channels} channels, got {groups}; use 1 or {in_channels}."
            )
        self.eps, self.boundary, self.centering = eps, boundary, centering
        self.weight = jnp.ones(in_channels) if use_affine else None
        self.bias = jnp.zeros(in_channels) if use_affine else None

    @property
    def envelope(self) -> Envelope:
        return ANY_GRID

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        grid = u.shape[:-1]
        weights = self._weights(grid).astype(u.dtype)[..., None, None]
        grouped = u.reshape(*grid, self.groups, -1)
        axes = tuple(range(len(grid)))
        mean = (grouped * weights).sum(axes, keepdims=True).mean(-1, keepdims=True)
        variance = (jnp.square(grouped - mean) * weights).sum(axes, keepdims=True).mean(-1, keepdims=True)
        v = ((grouped - mean) * jax.lax.rsqrt(variance + self.eps)).reshape(u.shape)
        return v if self.weight is None or self.bias is None else self.weight * v + self.bias

    def _weights(self, grid: tuple[int, ...]) -> np.ndarray:
        """Quadrature weights of the grid, normalised to sum one."""
        boundary = per_axis(self.boundary, len(grid), "boundary")
        centering = per_axis(self.centering, len(grid), "centering")
        total = np.ones(())
        for n, b, c in zip(grid, boundary, centering, strict=True):
            axis = transforms.Axis(n, check_boundary(b), c)
            total = np.multiply.outer(total, transforms.relative_weights(axis))
        return total / math.fsum(total.ravel())


class LayerNorm(AbstractLayer):
    """Subtracts the mean, divides by the standard deviation over all channels and points, and scales point by point.

    The layer norm of image networks: plain averages, and a weight and a bias for every channel at every point, which
    lock it to the grid. `GroupNorm` is the one that means the same on every grid.

    **Arguments:** `in_channels`; `num_points`, the grid; `eps`, added to the variance.

    **Raises:** `ValueError` when called on another grid.
    """

    weight: Float[Array, "*grid channels"]
    bias: Float[Array, "*grid channels"]
    in_channels: int = eqx.field(static=True)
    num_points: tuple[int, ...] = eqx.field(static=True)
    eps: float = eqx.field(static=True)

    def __init__(
        self, in_channels: int, num_points: Sequence[int], *, eps: float = 1e-5, key: Array | None = None
    ) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.num_points = tuple(count(n, "num_points") for n in num_points)
        self.eps = eps
        self.weight = jnp.ones((*self.num_points, in_channels))
        self.bias = jnp.zeros((*self.num_points, in_channels))

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.num_points),), ANY_GRID.boundary, "grid-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        if u.shape[:-1] != self.num_points:
            raise ValueError(
                f"u: LayerNorm has a weight for every point and expects the grid {self.num_points}, got a field on "
                f"{u.shape[:-1]}; resample the field, or build a model without layer_norm."
            )
        centred = u - jnp.mean(u)
        return centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred)) + self.eps) * self.weight + self.bias


class Affine(AbstractLayer):
    """A scale and a shift for each channel, the same at every point: batch normalisation as it is at evaluation.

    **Arguments:** `in_channels`.
    """

    weight: Float[Array, " channels"]
    bias: Float[Array, " channels"]
    in_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, *, key: Array | None = None) -> None:
        self.in_channels = count(in_channels, "in_channels")
        self.weight, self.bias = jnp.ones(self.in_channels), jnp.zeros(self.in_channels)

    @property
    def envelope(self) -> Envelope:
        return ANY_GRID

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        return self.weight * u + self.bias


def make_norm(name: str | None, channels: int, boundary: Any, centering: Any, *, use_affine: bool | None = None) -> Any:
    """The normalisation a model asks for: `None`, `"instance_norm"` or `"group_norm"` (one group).

    Instance normalisation has no affine map and group normalisation has one, unless `use_affine` says; where it is
    true there is `"affine"` too, that map alone.
    """
    words = (*NORMS, "affine") if use_affine else NORMS
    if name not in words:
        raise ValueError(f"norm: expected one of {words}, got {name!r}; use one of these words.")
    if name is None:
        return None
    if name == "affine":
        return Affine(channels)
    groups = channels if name == "instance_norm" else 1
    use_affine = name == "group_norm" if use_affine is None else use_affine
    return GroupNorm(channels, groups, use_affine=use_affine, boundary=boundary, centering=centering)
