"""What DeepONet and MultiONet share: a code made of the input once, functions of the points, and their inner product.

The output at a point x is `sum_j code_j trunk_j(x) + bias`, per output function, times a factor that vanishes where the
solution is known, plus a lift that takes the known values there. The trunk sees points alone: under `jax.vmap` over
inputs with common points it is evaluated once, and so are its derivatives.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import Grid, per_axis
from neuralops.nn.encoder import BOUNDARIES, check_given, check_sensors, shape_of
from neuralops.operator import AbstractOperator, Envelope, envelope_of, keywords_of

ENDS = (None, "both", "low", "high")


class AbstractBranchTrunk(AbstractOperator):
    """Base of the operators that separate input and place.

    They are called as `op(u)`, `op(u, query=points)`, or in two halves: `code = op.encode(u)`, once for an input, and
    `op.decode(code, points)`. Values at different points are computed independently, so that derivatives with respect
    to the points are one tangent per axis: `jax.jvp(lambda x: op.decode(code, x), (points,), (tangent,))`.
    """

    encoder: eqx.AbstractVar[Any]
    sensors: eqx.AbstractVar[Any]
    in_channels: eqx.AbstractVar[int]
    out_channels: eqx.AbstractVar[int]
    domain: eqx.AbstractVar[tuple[tuple[float, float], ...]]
    factor: eqx.AbstractVar[Any]
    lift: eqx.AbstractVar[Any]
    chunk_size: eqx.AbstractVar[int | None]

    @abstractmethod
    def code_of(self, v: Float[Array, " numbers"]) -> Float[Array, "terms out"]:
        """The coefficients of the trunk functions, from what the branch is given."""

    @abstractmethod
    def trunk_of(self, x: Float[Array, "points ndim"]) -> Float[Array, "points terms"]:
        """The trunk functions at points."""

    @property
    @abstractmethod
    def offset(self) -> Float[Array, " out"]:
        """What is added to the inner products, per output function."""

    @property
    def ndim(self) -> int:
        """Coordinates of a point of the output."""
        return len(self.domain)

    @property
    def envelope(self) -> Envelope:
        if self.encoder is not None:
            return envelope_of(self.encoder)
        return Envelope((len(_shape(self.sensors)),), BOUNDARIES, "grid-locked")

    @property
    def keywords(self) -> frozenset[str]:
        inner = frozenset() if self.encoder is None else keywords_of(self.encoder)
        return frozenset({"query"}) | (inner & {"coords", "mask"})

    def encode(self, u: Float[Array, " channels *points"], **given: Any) -> Float[Array, "terms out"]:
        """The code of one input, for `decode`.

        **Arguments:** `u`, and `coords=` and `mask=` where the encoder takes them.

        **Raises:** `ValueError` when `u` does not lie on the sensors, and on points where there are sensors.
        """
        check_given(given, self.keywords, type(self).__name__)
        if self.encoder is None:
            check_sensors(u, self.in_channels, _shape(self.sensors), type(self).__name__)
            return self.code_of(u.reshape(-1))
        return self.code_of(self.encoder(u, **given).reshape(-1))

    def decode(self, code: Float[Array, "terms out"], query: Any = None) -> Float[Array, " out *points"]:
        """The output functions at points, `(ndim, *points)`; `None` means the sensors.

        Points outside the domain are refused where they are known; inside a compiled function they are extrapolated.

        **Raises:** `ValueError` on points of another dimension, outside the domain, or NaN.
        """
        points = self._points(query, code.dtype)
        x = points.reshape(self.ndim, -1)
        size = self.chunk_size
        if size is None or x.shape[1] <= size:
            values = self._at(code, x)
        else:  # the last chunk is filled up with the first points
            chunks = -(-x.shape[1] // size)
            filled = jnp.pad(x, ((0, 0), (0, chunks * size - x.shape[1])), mode="wrap")
            parts = jax.lax.map(lambda i: self._at(code, jax.lax.dynamic_slice_in_dim(filled, i, size, 1)),
                                jnp.arange(chunks) * size)  # fmt: skip
            values = jnp.moveaxis(parts, 0, 1).reshape(self.out_channels, -1)[:, : x.shape[1]]
        return values.reshape(self.out_channels, *points.shape[1:])

    def __call__(
        self,
        u: Float[Array, " channels *points_in"],
        /,
        *,
        query: Float[Array, " ndim *points"] | None = None,
        coords: Any = None,
        mask: Any = None,
        key: Array | None = None,
    ) -> Float[Array, " out *points"]:
        given = {name: x for name, x in (("coords", coords), ("mask", mask)) if x is not None}
        if query is None:
            self._points(None, jnp.float32)  # refused before anything is computed
        return self.decode(self.encode(u, **given), query)

    def _at(self, code: Array, x: Array) -> Array:
        values = (self.trunk_of(x.T) @ code + self.offset).T
        known = factor_at(self.factor, self.domain, x)
        if known is not None:
            values = values * known
        return values if self.lift is None else values + self.lift(x)

    def _points(self, query: Any, dtype: Any) -> Array:
        where = type(self).__name__
        if query is None:
            if not isinstance(self.sensors, Grid) or self.sensors.ndim != self.ndim:
                raise ValueError(
                    f"query: {where} expects points ({self.ndim}, points), got none; give op(u, query=points), fix "
                    "them with no.at(op, query=points), or build it with a Grid of sensors to get values there."
                )
            return jnp.asarray(self.sensors.coordinates(), dtype)
        shape = tuple(getattr(query, "shape", ()))
        if len(shape) < 2 or shape[0] != self.ndim or min(shape) < 1:
            mend = "coordinates come first: use points.T" if shape[-1:] == (self.ndim,) else "coordinates come first"
            raise ValueError(f"query: {where} expects points ({self.ndim}, points), got shape {shape}; {mend}.")
        if not isinstance(query, jax.core.Tracer):
            check_inside(np.asarray(query), self.domain, where)
        return jnp.asarray(query, dtype)


def _shape(sensors: Any) -> tuple[int, ...]:
    return sensors.shape if isinstance(sensors, Grid) else sensors


def check_inside(points: np.ndarray, domain: tuple[tuple[float, float], ...], where: str) -> None:
    """Refuses points outside a box, rounding allowed for, and NaN.

    **Raises:** `ValueError` naming the axis and the range.
    """
    for axis, (x, (low, high)) in enumerate(zip(points, domain, strict=True)):
        if np.isnan(x).any():
            raise ValueError(f"query: {where} expects finite points, got NaN on axis {axis}; mask such points out.")
        slack = 1e-5 * (high - low)
        if x.min() < low - slack or x.max() > high + slack:
            raise ValueError(
                f"query: {where} expects points between {low} and {high} on axis {axis}, got {x.min():.6g} to "
                f"{x.max():.6g}; keep to the domain, or build the operator with domain= of all points."
            )


def check_domain(domain: Any, sensors: Any) -> tuple[tuple[float, float], ...]:
    """The box of the output's points: as given, the grid's, or the unit square."""
    if domain is None:
        extents = sensors.domain_extent if isinstance(sensors, Grid) else (1.0, 1.0)
        return tuple((0.0, extent) for extent in extents)
    try:
        box = tuple((float(low), float(high)) for low, high in domain)
    except (TypeError, ValueError) as error:
        raise ValueError(f"domain: expected pairs (low, high), one an axis, got {domain!r}; give ((0, 1),).") from error
    if not box or not all(math.isfinite(high - low) and low < high for low, high in box):
        raise ValueError(f"domain: expected finite pairs low < high, one an axis, got {domain!r}; give ((0, 1),).")
    return box


def check_branch(encoder: Any, sensors: Any, in_channels: int) -> tuple[Any, int]:
    """The sensors in their canonical form, and how many numbers the branch is given."""
    if encoder is None:
        if sensors is None:
            raise ValueError(
                "sensors: expected the points of the input, got None; give a Grid, a count, or an encoder."
            )
        sensors = sensors if isinstance(sensors, Grid) else shape_of(sensors, "sensors")
        return sensors, in_channels * math.prod(_shape(sensors))
    out = getattr(encoder, "out_channels", None)
    if not isinstance(encoder, AbstractOperator) or out is None or getattr(encoder, "in_channels", None) != in_channels:
        raise ValueError(
            f"encoder: expected an operator from {in_channels} channel(s) to a code, got {type(encoder).__name__}; "
            "give nn.MLPEncoder, nn.ConvEncoder or nn.PointEncoder with the same in_channels."
        )
    if sensors is not None and not isinstance(sensors, Grid):
        sensors = shape_of(sensors, "sensors")
    return sensors, out


def check_factor(factor: Any, ndim: int) -> Any:
    """Which ends the factor vanishes at, one word an axis; or a function; or `None`."""
    if factor is None or callable(factor):
        return factor
    words = per_axis(factor, ndim, "factor")
    for word in words:
        if word not in ENDS:
            raise ValueError(
                f"factor: expected one of {ENDS} per axis or a function of the points, got {factor!r}; "
                "give 'both' where the solution vanishes at both ends."
            )
    return words


def check_lift(lift: Any) -> Any:
    if lift is not None and not callable(lift):
        raise ValueError(f"lift: expected a function of the points or None, got {lift!r}; give lambda x: x[0].")
    return lift


def factor_at(factor: Any, domain: tuple[tuple[float, float], ...], x: Array) -> Array | None:
    """The hard boundary factor at points `(ndim, points)`, one number a point.

    Per axis, with s from 0 to 1: `"both"` sin(pi s), `"low"` sin(pi s / 2), `"high"` cos(pi s / 2).
    """
    if factor is None or callable(factor):
        return None if factor is None else factor(x)
    waves: dict[str, tuple[Callable[[Array], Array], float]] = {
        "both": (jnp.sin, math.pi), "low": (jnp.sin, math.pi / 2), "high": (jnp.cos, math.pi / 2)}  # fmt: skip
    total: Any = None
    for word, (low, high), place in zip(factor, domain, x, strict=True):
        if word is not None:
            wave, speed = waves[word]
            part = wave((place - low) * (speed / (high - low)))
            total = part if total is None else total * part
    return total


def checked_widths(hidden_channels: Any, n_layers: int) -> tuple[int, ...]:
    """One width for all layers."""
    if isinstance(hidden_channels, Sequence):
        raise ValueError(
            f"hidden_channels: expected one width for all layers, got {hidden_channels!r}; give 100 and n_layers=6."
        )
    return (count(hidden_channels, "hidden_channels"),) * count(n_layers, "n_layers")
