"""Fourier neural operators (Li et al., ICLR 2021) with the block of neuraloperator 2.x.

Lifting, then `n_layers` blocks of spectral convolution, linear skip and gated channel MLP, then
projection; the default forward pass reproduces neuraloperator's to rounding for equal weights. With
`boundary="dirichlet"` or `"neumann"` the same network works in the sine or cosine basis, so no padding
is needed where the field is not periodic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.arguments import count, flag
from neuralops.grid import per_axis
from neuralops.nn.convolution import ghost_rule
from neuralops.nn.kernel_factors import Compress, KernelFactors, check_compress
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.norm import GroupNorm, make_norm
from neuralops.nn.pointwise import ChannelMLP, Linear, SoftGate, activation_named
from neuralops.nn.separable import convolve
from neuralops.nn.spectral import SpectralConv
from neuralops.operator import AbstractOperator, Envelope, check_field


class LocalSkip(AbstractLayer):
    """A convolution of three points per axis without bias; what it reads beyond the edges follows from the boundary."""

    kernel: Float[Array, "*taps channels channels_out"] | KernelFactors
    in_channels: int = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, in_channels: int, boundary: Any, centering: Any, compress: Compress | None, key: Array) -> None:
        self.in_channels, self.boundary, self.centering = in_channels, boundary, centering
        shape = (*(3,) * len(boundary), in_channels, in_channels)
        bound = 1 / math.sqrt(math.prod(shape[:-1]))  # as `Linear`
        if compress is None:
            self.kernel = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        else:
            self.kernel = KernelFactors(shape, compress, variance=bound**2 / 3, key=key)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return Envelope((len(self.boundary),), tuple(sorted(words)), "spacing-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        ghosts = tuple(ghost_rule(b, c) for b, c in zip(self.boundary, self.centering, strict=True))
        return convolve(u, self.kernel, ghosts)


class FNOBlock(AbstractLayer):
    """One layer of the operator: spectral convolution plus skip K, linear or local, then a gated channel MLP.

    With input x, post-activation (the default) is

        s = norm_1(spectral(x));  h = act(s + K x);  y = act(norm_2(mlp(h) + g * x))

    and both `act` are left out in the last block (`is_last`). Pre-activation moves `act` and `norm_1`
    in front: x' = norm_1(act(x)), h = act(spectral(x') + K x'), y = mlp(norm_2(h)) + g * x'.
    """

    spectral: SpectralConv
    skip: Linear | LocalSkip
    mlp: ChannelMLP
    gate: SoftGate
    norms: tuple[GroupNorm | None, GroupNorm | None]
    in_channels: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    preactivation: bool = eqx.field(static=True)
    is_last: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        n_modes: Sequence[int],
        *,
        mlp_channels: int,
        activation: str = "gelu",
        norm: str | None = None,
        preactivation: bool = False,
        is_last: bool = False,
        boundary: Any = "periodic",
        centering: Any = "node",
        skip: str = "linear",
        compress: Compress | None = None,
        key: Array,
        **spectral: Any,
    ) -> None:
        keys = jax.random.split(key, 3)
        activation_named(activation)
        self.in_channels, self.activation = count(in_channels, "in_channels"), activation
        self.preactivation, self.is_last = flag(preactivation, "preactivation"), flag(is_last, "is_last")
        self.spectral = SpectralConv(
            in_channels, in_channels, n_modes, boundary=boundary, centering=centering, key=keys[0], **spectral
        )
        walls, centers = self.spectral.boundary, self.spectral.centering
        if skip == "local":
            self.skip = LocalSkip(self.in_channels, walls, centers, compress, keys[1])
        else:
            self.skip = Linear(in_channels, in_channels, use_bias=False, key=keys[1])
        self.mlp = ChannelMLP(in_channels, in_channels, mlp_channels, key=keys[2])
        self.gate = SoftGate(in_channels)
        self.norms = (make_norm(norm, in_channels, walls, centers), make_norm(norm, in_channels, walls, centers))

    @property
    def envelope(self) -> Envelope:
        return self.skip.envelope if isinstance(self.skip, LocalSkip) else self.spectral.envelope

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        act = activation_named(self.activation)
        last_act = activation_named("identity") if self.is_last else act
        norm_1, norm_2 = (norm.channels_last if norm else activation_named("identity") for norm in self.norms)
        spectral, skip = self.spectral.channels_last, self.skip.channels_last
        mlp, gate = self.mlp.channels_last, self.gate.channels_last
        if self.preactivation:
            x = norm_1(act(u))
            h = last_act(spectral(x) + skip(x))
            return mlp(norm_2(h)) + gate(x)
        h = last_act(norm_1(spectral(u)) + skip(u))
        return last_act(norm_2(mlp(h) + gate(u)))


class FNO(AbstractOperator):
    """A Fourier neural operator in 1-D, 2-D or 3-D.

    **Arguments:**

    - `n_modes`: modes per axis, both signs counted (see `SpectralConv`); their number is the dimension.
    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `hidden_channels`: width of the blocks.
    - `n_layers`: number of blocks.
    - `lifting_channel_ratio`, `projection_channel_ratio`: width of the two end MLPs in units of
      `hidden_channels`; `channel_mlp_expansion`: the same for the MLP inside a block.
    - `positional_embedding`: `"grid"` appends the coordinates, as fractions of the extent; `None` does not.
    - `activation`: `"gelu"` (exact, by erf), `"relu"`, `"silu"`, `"tanh"`, `"sin"` or `"identity"`; the MLP
      inside a block always uses GELU, as in neuraloperator.
    - `norm`: `None`, `"instance_norm"` or `"group_norm"`.
    - `factorization`, `rank`, `separable`: see `SpectralConv`.
    - `domain_padding`: zero padding on both sides of each axis between lifting and projection, as a
      fraction of the number of points; one number, one per axis, or `None`.
    - `preactivation`: normalise and activate before the convolution instead of after it.
    - `skip`: beside the spectral convolution, a `"linear"` map of the channels, or a `"local"` convolution of three
      points per axis.
    - `compress`: `None`, or variant and rank as in `SeparableConv`, such as `("kernel", 1)`: the kernels of the local
      skips are held as one-way factors.
    - `checkpoint_blocks`: recompute each block in the backward pass instead of storing it.
    - `boundary`, `centering`: as in `Grid`; they choose the basis, the coordinates and the quadrature.

    Input `(in_channels, *grid)`, output `(out_channels, *grid)`, any grid.

    Refinement: *consistent*. The network itself is defined on functions, and a smooth periodic input
    converges spectrally without `positional_embedding`; the coordinate channel of a periodic axis jumps at
    the end of the axis, which leaves order 1. On non-periodic axes the order is 2. With local skips it is
    *spacing-locked*: their kernels count points.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    lifting: ChannelMLP
    blocks: tuple[FNOBlock, ...]
    projection: ChannelMLP
    n_modes: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    lifting_channel_ratio: float = eqx.field(static=True)
    projection_channel_ratio: float = eqx.field(static=True)
    channel_mlp_expansion: float = eqx.field(static=True)
    positional_embedding: str | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    factorization: str | None = eqx.field(static=True)
    rank: float | tuple[int, ...] = eqx.field(static=True)
    separable: bool = eqx.field(static=True)
    domain_padding: tuple[float, ...] | None = eqx.field(static=True)
    preactivation: bool = eqx.field(static=True)
    skip: str = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)
    checkpoint_blocks: bool = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        n_modes: Sequence[int] | int,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        n_layers: int = 4,
        lifting_channel_ratio: float = 2,
        projection_channel_ratio: float = 2,
        channel_mlp_expansion: float = 0.5,
        positional_embedding: str | None = "grid",
        activation: str = "gelu",
        norm: str | None = None,
        factorization: str | None = None,
        rank: float | Sequence[int] = 1.0,
        separable: bool = False,
        domain_padding: float | Sequence[float] | None = None,
        preactivation: bool = False,
        skip: Literal["linear", "local"] = "linear",
        compress: Compress | None = None,
        checkpoint_blocks: bool = False,
        boundary: Any = "periodic",
        centering: Any = "node",
        key: Array,
    ) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.out_channels = out_channels = count(out_channels, "out_channels")
        self.hidden_channels = hidden_channels = count(hidden_channels, "hidden_channels")
        self.n_layers = n_layers = count(n_layers, "n_layers")
        self.preactivation = flag(preactivation, "preactivation")
        self.checkpoint_blocks = flag(checkpoint_blocks, "checkpoint_blocks")
        for name, ratio in (
            ("lifting_channel_ratio", lifting_channel_ratio),
            ("projection_channel_ratio", projection_channel_ratio),
            ("channel_mlp_expansion", channel_mlp_expansion),
        ):
            if not ratio > 0 or round(ratio * hidden_channels) < 1:
                raise ValueError(f"{name}: expected a positive ratio of hidden_channels, got {ratio!r}; give e.g. 2.")
        if positional_embedding not in ("grid", None):
            raise ValueError(
                f"positional_embedding: expected 'grid' or None, got {positional_embedding!r}; use one of these."
            )
        if skip not in ("linear", "local"):
            raise ValueError(f"skip: expected 'linear' or 'local', got {skip!r}; use one of these.")
        if compress is not None and skip != "local":
            raise ValueError(
                f"compress: expected None, for the linear skip has no kernel to compress, got {compress!r}; use "
                "skip='local', or factorization and rank for the spectral weights."
            )
        self.skip, self.compress = skip, None if compress is None else check_compress(compress)
        keys = jax.random.split(key, n_layers + 2)
        blocks = tuple(
            FNOBlock(
                hidden_channels,
                n_modes,  # type: ignore[arg-type]
                mlp_channels=round(channel_mlp_expansion * hidden_channels),
                activation=activation,
                norm=norm,
                preactivation=preactivation,
                skip=skip,
                compress=self.compress,
                is_last=layer == n_layers - 1,
                boundary=boundary,
                centering=centering,
                factorization=factorization,
                rank=rank,
                separable=separable,
                key=keys[layer],
            )
            for layer in range(n_layers)
        )
        spectral = blocks[0].spectral
        self.n_modes, self.boundary, self.centering = spectral.n_modes, spectral.boundary, spectral.centering
        self.rank, self.factorization, self.separable = spectral.rank, factorization, spectral.separable
        ndim = len(self.n_modes)
        self.domain_padding = None if domain_padding is None else _check_padding(domain_padding, ndim)
        self.lifting_channel_ratio, self.projection_channel_ratio = lifting_channel_ratio, projection_channel_ratio
        self.channel_mlp_expansion = channel_mlp_expansion
        self.positional_embedding, self.activation, self.norm = positional_embedding, activation, norm
        self.lifting = ChannelMLP(
            in_channels + (ndim if positional_embedding else 0),
            hidden_channels,
            int(lifting_channel_ratio * hidden_channels),
            activation=activation,
            key=keys[-2],
        )
        self.blocks = blocks
        self.projection = ChannelMLP(
            hidden_channels,
            out_channels,
            int(projection_channel_ratio * hidden_channels),
            activation=activation,
            key=keys[-1],
        )

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> FNO:
        """A configuration whose parameter count is published or was measured in neuraloperator.

        | name | configuration | real parameters |
        | --- | --- | --- |
        | `"darcy_small"` | neuraloperator's Darcy example: 8 x 8 modes, 24 channels | 191,881 |
        | `"darcy"` | 16 x 16 modes, 64 channels | 4,769,473 |
        | `"nns_to_nos"` | Berner et al. 2025: 64 x 64 modes, 62 channels, ratios 4.13 | 65,013,187 |

        `changes` override single arguments.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        return cls(**{**_PAPER[name], **changes}, key=key)

    @property
    def envelope(self) -> Envelope:
        inner = self.blocks[0].envelope
        if self.skip == "local":
            return inner
        jumps = self.positional_embedding is not None and "periodic" in self.boundary
        return Envelope(inner.ndim, inner.boundary, "consistent", order=1 if jumps or self.domain_padding else 2)

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid"]:
        check_field(u, channels=self.in_channels, ndim=len(self.n_modes), where="FNO")
        grid = u.shape[1:]
        x = jnp.moveaxis(u, 0, -1)
        if self.positional_embedding:
            x = jnp.concatenate([x, jnp.asarray(self._coordinates(grid), x.dtype)], -1)
        v = self.lifting.channels_last(x)
        padding = self._padding(grid)
        if padding:
            v = jnp.pad(v, [*((p, p) for p in padding), (0, 0)])
        for block in self.blocks:
            # The block is an argument of the checkpointed function, so its parameters stay differentiable.
            v = jax.checkpoint(FNOBlock.channels_last)(block, v) if self.checkpoint_blocks else block.channels_last(v)
        if padding:
            v = v[tuple(slice(p, p + n) for p, n in zip(padding, grid, strict=True))]
        return jnp.moveaxis(self.projection.channels_last(v), -1, 0)

    def _coordinates(self, grid: tuple[int, ...]) -> np.ndarray:
        """The coordinates as fractions of the extent, (*grid, ndim)."""
        fractions = []
        for n, boundary, centering in zip(grid, self.boundary, self.centering, strict=True):
            p, q = transforms.positions(transforms.Axis(n, boundary, centering))
            fractions.append(p / q)
        return np.stack(np.meshgrid(*fractions, indexing="ij"), -1)

    def _padding(self, grid: tuple[int, ...]) -> tuple[int, ...] | None:
        if self.domain_padding is None:
            return None
        return tuple(round(fraction * n) for fraction, n in zip(self.domain_padding, grid, strict=True))


def _check_padding(domain_padding: Any, ndim: int) -> tuple[float, ...]:
    fractions = tuple(float(f) for f in per_axis(domain_padding, ndim, "domain_padding"))
    if not all(math.isfinite(f) and f >= 0 for f in fractions):
        raise ValueError(
            f"domain_padding: expected fractions of the points, zero or more, got {domain_padding!r}; give e.g. 0.1."
        )
    return fractions


_PAPER: dict[str, dict[str, Any]] = {
    "darcy_small": {"n_modes": (8, 8), "in_channels": 1, "out_channels": 1, "hidden_channels": 24},
    "darcy": {"n_modes": (16, 16), "in_channels": 1, "out_channels": 1, "hidden_channels": 64},
    "nns_to_nos": {
        "n_modes": (64, 64),
        "in_channels": 1,
        "out_channels": 1,
        "hidden_channels": 62,
        "lifting_channel_ratio": 4.13,
        "projection_channel_ratio": 4.13,
    },
}
