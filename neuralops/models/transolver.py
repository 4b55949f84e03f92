"""Transolver (Wu, Luo, Wang, Wang and Long, ICML 2024): a transformer whose attention is among slices of the domain."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.nn.assignment import cleared, measure_of
from neuralops.nn.convolution import per_sample
from neuralops.nn.latent import ANY
from neuralops.nn.physics_attention import PhysicsAttention, small_linear
from neuralops.nn.pointwise import Linear, activation_named
from neuralops.operator import AbstractOperator, Envelope, check_field

POSITIONS = ("coordinates", "reference", None)


class TransolverBlock(eqx.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)), with layer norms over the channels of a point."""

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: PhysicsAttention
    mlp: tuple[Linear, Linear]
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        mlp_channels: int,
        *,
        n_heads: int,
        n_slices: int,
        kernel_ndim: int | None,
        activation: str,
        key: Array,
    ) -> None:
        keys = jax.random.split(key, 3)
        self.norms = eqx.nn.LayerNorm(channels), eqx.nn.LayerNorm(channels)
        self.attention = PhysicsAttention(channels, n_heads, n_slices, kernel_ndim=kernel_ndim, key=keys[0])
        self.mlp = small_linear(channels, mlp_channels, keys[1]), small_linear(mlp_channels, channels, keys[2])
        self.activation = activation

    def __call__(
        self, x: Float[Array, "points channels"], grid: tuple[int, ...], measure: Float[Array, " points"] | None
    ) -> Float[Array, "points channels"]:
        before, after = map(jax.vmap, self.norms)
        x = x + self.attention.on_points(before(x), grid, measure)
        return x + two_layers(self.mlp, self.activation, after(x))


class Transolver(AbstractOperator):
    """A Transolver on clouds of points or on structured grids in 1-D, 2-D or 3-D.

    Values and positions go through a two-layer perceptron to `hidden_channels`, a learned vector is added, then come
    `n_layers` blocks of physics attention, a layer norm and a linear map.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `hidden_channels`: a multiple of `n_heads`.
    - `ndim`: dimension of the space.
    - `structured`: `True` for fields on grids, where the attention's maps are convolutions of three points per axis;
      `False` for points in any order, `(in_channels, *points)` with `coords=`.
    - `n_layers`, `n_heads`, `n_slices`; `mlp_ratio`: width of the perceptron of a block, in units of `hidden_channels`.
    - `positional_embedding`: `"coordinates"` puts the coordinates before the values; `"reference"` the distances to
      `reference_points`^ndim points of the unit box (the authors' `unified_pos`); `None` neither, where the values are
      the coordinates. On a structured grid without `coords=` they run from 0 to 1 along each axis, in the order of
      the axes, ends included.
    - `reference_points`: per axis.
    - `time_input`: the operator takes a scalar `time=`, embedded by sinusoids and a perceptron.
    - `activation`: of the perceptrons, by name.
    - `checkpoint_blocks`: makes each block anew in the backward pass: less memory for more time.

    `mask=` marks padded points and `weights=` gives quadrature weights, see `PhysicsAttention`; the order of points and
    what masked points hold change nothing.

    Refinement: *consistent* of the order of the quadrature on points, given weights on meshes that are not uniform;
    *spacing-locked* on structured grids.

    **Raises:** `ValueError` on arguments outside the above, missing coordinates or time, and shapes that do not fit.
    """

    lifting: tuple[Linear, Linear]
    placeholder: Float[Array, " hidden"]
    time_mlp: tuple[Linear, Linear] | None
    blocks: tuple[TransolverBlock, ...]
    norm: eqx.nn.LayerNorm
    projection: Linear
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    structured: bool = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    n_slices: int = eqx.field(static=True)
    mlp_ratio: float = eqx.field(static=True)
    positional_embedding: str | None = eqx.field(static=True)
    reference_points: int = eqx.field(static=True)
    time_input: bool = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    checkpoint_blocks: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 128,
        *,
        ndim: int = 2,
        structured: bool = False,
        n_layers: int = 8,
        n_heads: int = 8,
        n_slices: int = 64,
        mlp_ratio: float = 1,
        positional_embedding: str | None = "coordinates",
        reference_points: int = 8,
        time_input: bool = False,
        activation: str = "gelu",
        checkpoint_blocks: bool = False,
        key: Array,
    ) -> None:
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels, self.ndim = count(hidden_channels, "hidden_channels"), count(ndim, "ndim", most=3)
        self.structured, self.n_layers = flag(structured, "structured"), count(n_layers, "n_layers")
        if not mlp_ratio > 0 or round(mlp_ratio * self.hidden_channels) < 1:
            raise ValueError(
                f"mlp_ratio: expected a positive ratio of hidden_channels, got {mlp_ratio!r}; give e.g. 1."
            )
        if positional_embedding not in POSITIONS:
            raise ValueError(
                f"positional_embedding: expected one of {POSITIONS}, got {positional_embedding!r}; use one of these."
            )
        self.mlp_ratio, self.positional_embedding = mlp_ratio, positional_embedding
        self.reference_points = count(reference_points, "reference_points")
        self.time_input = flag(time_input, "time_input")
        activation_named(activation)
        self.activation, self.checkpoint_blocks = activation, flag(checkpoint_blocks, "checkpoint_blocks")
        width = self.hidden_channels
        places = {"coordinates": self.ndim, "reference": self.reference_points**self.ndim, None: 0}
        keys = jax.random.split(key, self.n_layers + 6)
        self.lifting = (
            small_linear(self.in_channels + places[positional_embedding], 2 * width, keys[0]),
            small_linear(2 * width, width, keys[1]),
        )
        self.placeholder = jax.random.uniform(keys[2], (width,), maxval=1 / width)
        self.time_mlp = None
        if self.time_input:
            self.time_mlp = small_linear(width, width, keys[3]), small_linear(width, width, keys[4])
        self.blocks = tuple(
            TransolverBlock(
                width,
                round(mlp_ratio * width),
                n_heads=n_heads,
                n_slices=n_slices,
                kernel_ndim=self.ndim if self.structured else None,
                activation=activation,
                key=k,
            )
            for k in keys[6:]
        )
        attention = self.blocks[0].attention
        self.n_heads, self.n_slices = attention.n_heads, attention.n_slices
        self.norm = eqx.nn.LayerNorm(width)
        self.projection = small_linear(width, self.out_channels, keys[5])

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> Transolver:
        """A configuration of the authors' code.

        | name | input | parameters |
        | --- | --- | --- |
        | `"elasticity"` | a cloud of points, two coordinates each | 713,665 |
        | `"darcy"` | the coefficient on 85 x 85, reference distances | 2,826,945 |
        | `"airfoil"` | the mesh, two coordinates on 221 x 51 | 2,810,817 |
        | `"pipe"` | the mesh, two coordinates on 129 x 129, `mlp_ratio=2` | 3,073,985 |

        `changes` override single arguments.

        **Raises:** `ValueError` on another name.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        return cls(**{**_PAPER[name], **changes}, key=key)

    @property
    def envelope(self) -> Envelope:
        if self.structured:
            return Envelope((self.ndim,), ANY, "spacing-locked")
        return Envelope((self.ndim,), ANY, "consistent", order=1)

    @property
    def keywords(self) -> frozenset[str]:
        return frozenset({"coords", "mask", "weights", "key"} | ({"time"} if self.time_input else set()))

    def __call__(
        self,
        u: Float[Array, " channels *points"],
        /,
        *,
        coords: Float[Array, " ndim *points"] | None = None,
        mask: Any = None,
        weights: Float[Array, "*points"] | None = None,
        time: Any = None,
        key: Array | None = None,
    ) -> Float[Array, " channels_out *points"]:
        check_field(u, channels=self.in_channels, ndim=self.ndim if self.structured else None, where="Transolver")
        grid = tuple(u.shape[1:])
        measure = measure_of(weights, mask, grid, u.dtype)
        x = cleared(u.reshape(self.in_channels, -1).T, mask)
        if self.positional_embedding is not None:
            x = jnp.concatenate([self._positions(coords, grid, mask).astype(x.dtype), x], -1)
        # On a CPU gradients of weights then need no transposed copies of what the samples have. XLA would fuse the
        # whole chain of residual sums into each of them, which grows with the square of the layers.
        lifting, placeholder, blocks = per_sample((self.lifting, self.placeholder, self.blocks), x)
        x = two_layers(lifting, self.activation, x) + placeholder
        if (time is None) == self.time_input or (time is not None and jnp.shape(time) != ()):
            wanted = "a number" if self.time_input else "None"
            raise ValueError(
                f"time: expected {wanted}, got {'none' if time is None else jnp.shape(time)}; give op(u, time=0.5), or "
                "build the operator with time_input to match."
            )
        if self.time_mlp is not None:
            x = x + two_layers(self.time_mlp, "silu", sinusoids(time, self.hidden_channels).astype(x.dtype))
        apply = jax.checkpoint(TransolverBlock.__call__, static_argnums=(2,)) if self.checkpoint_blocks else (
            TransolverBlock.__call__
        )  # fmt: skip
        for block in blocks:
            x = cleared(apply(block, x, grid, measure), mask)
        x = self.projection.channels_last(jax.vmap(self.norm)(x))
        return x.T.reshape(self.out_channels, *grid)

    def _positions(self, coords: Any, grid: tuple[int, ...], mask: Any) -> Float[Array, "points places"]:
        if coords is None and self.structured:
            coords = np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij"))
        if coords is None or tuple(jnp.shape(coords)) != (self.ndim, *grid):
            came = "none" if coords is None else f"shape {tuple(jnp.shape(coords))}"
            raise ValueError(
                f"coords: Transolver expects ({self.ndim}, points) = {(self.ndim, *grid)} beside u, got {came}; give "
                "op(u, coords=...), or fix them with no.at(op, coords=...)."
            )
        x = cleared(jnp.asarray(coords).reshape(self.ndim, -1).T, mask)
        if self.positional_embedding == "coordinates":
            return x
        places = np.linspace(0, 1, self.reference_points)
        reference = np.stack(np.meshgrid(*(places,) * self.ndim, indexing="ij"), -1).reshape(-1, self.ndim)
        square = jnp.sum((x[:, None] - jnp.asarray(reference, x.dtype)) ** 2, -1)
        apart = square > 0  # the distance has no derivative at a reference point
        return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1)), 0)


def two_layers(layers: tuple[Linear, Linear], activation: str, x: Array) -> Array:
    """A perceptron of two layers with the activation between them."""
    return layers[1].channels_last(activation_named(activation)(layers[0].channels_last(x)))


def sinusoids(time: Any, channels: int, longest: float = 10_000.0) -> Float[Array, " channels"]:
    """cos and sin of the time at frequencies from 1 down to 1 / `longest`, a zero at the end of an odd number."""
    half = channels // 2
    frequencies = jnp.exp(-math.log(longest) / max(half, 1) * jnp.arange(half))
    angles = jnp.asarray(time) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), jnp.zeros(channels % 2)])


_PAPER: dict[str, dict[str, Any]] = {
    "elasticity": {"in_channels": 2, "out_channels": 1, "positional_embedding": None},
    "darcy": {"in_channels": 1, "out_channels": 1, "structured": True, "positional_embedding": "reference"},
    "airfoil": {"in_channels": 2, "out_channels": 1, "structured": True, "positional_embedding": None},
    "pipe": {"in_channels": 2, "out_channels": 1, "structured": True, "positional_embedding": None, "mlp_ratio": 2},
}
