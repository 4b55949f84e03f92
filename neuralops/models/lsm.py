"""Latent spectral models (Wu, Hu, Luo, Wang and Long, ICML 2023): neural spectral blocks on five scales."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.grid import per_axis
from neuralops.models.geo import GeoOperator
from neuralops.nn.deformation import Deformation
from neuralops.nn.kernel_factors import Compress, KernelFactors, check_compress
from neuralops.nn.latent import ANY, NeuralSpectralBlock
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.norm import Affine, GroupNorm, make_norm
from neuralops.nn.pointwise import ChannelMLP, Linear
from neuralops.nn.separable import convolve
from neuralops.operator import AbstractOperator, Envelope, check_field

ZERO = ("zero", "zero")


class DoubleConv(AbstractLayer):
    """Twice: a convolution of three points per axis with zero padding and no bias, normalisation, ReLU."""

    kernels: tuple[Float[Array, "*taps channels channels_out"] | KernelFactors, ...]
    norms: tuple[GroupNorm | Affine | None, ...]
    in_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        middle_channels: int,
        out_channels: int,
        *,
        ndim: int,
        norm: str | None,
        compress: Compress | None = None,
        key: Array,
    ) -> None:
        self.in_channels, self.ndim = in_channels, ndim
        widths: tuple[int, ...] = (in_channels, middle_channels, out_channels)
        kernels: list[Array | KernelFactors] = []
        for before, after, k in zip(widths[:-1], widths[1:], jax.random.split(key), strict=True):
            shape, bound = (*(3,) * ndim, before, after), 1 / math.sqrt(before * 3**ndim)  # PyTorch's default
            if compress is None:
                kernels.append(jax.random.uniform(k, shape, minval=-bound, maxval=bound))
            else:
                kernels.append(KernelFactors(shape, compress, variance=bound**2 / 3, key=k))
        self.kernels = tuple(kernels)
        self.norms = tuple(make_norm(norm, width, "periodic", "node", use_affine=True) for width in widths[1:])

    @property
    def envelope(self) -> Envelope:
        return Envelope((self.ndim,), ANY, "spacing-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            u = convolve(u, kernel, (ZERO,) * self.ndim)
            u = jax.nn.relu(u if norm is None else norm.channels_last(u))
        return u


class LatentUNet(AbstractLayer):
    """The inside of a latent spectral model: a U-Net of convolutions with a neural spectral block on every scale.

    x_1 = DC(u), x_k = DC(max-pool(x_{k-1})); then from the coarsest y = x_5', y = DC([x_k', up(y)]), with x_k' the
    neural spectral block of x_k and `up` the linear interpolation that keeps the ends; last a linear map. Scale k has
    2^(k-1) times the channels, the coarsest as many as the one before.

    It works on any grid: zeros are added at the end of each axis, up to a multiple of 2^(n_levels - 1) points, and cut
    off again. There are 2^(n_levels - k) patches per axis on scale k, the coarsest is one; or `patch_size` points per
    axis and patch on every scale.

    **Arguments:** as in `LSM`; `in_channels` channels come in and go out.
    """

    down: tuple[DoubleConv, ...]
    up: tuple[DoubleConv, ...]
    blocks: tuple[NeuralSpectralBlock, ...]
    last: Linear
    in_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    n_levels: int = eqx.field(static=True)
    patch_size: tuple[int, ...] | None = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    n_tokens: int = eqx.field(static=True)
    n_basis: int = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)
    checkpoint_levels: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        *,
        ndim: int = 2,
        n_levels: int = 5,
        patch_size: int | Sequence[int] | None = None,
        n_heads: int = 8,
        n_tokens: int = 4,
        n_basis: int = 12,
        norm: str | None = "instance_norm",
        compress: Compress | None = None,
        checkpoint_levels: bool = False,
        key: Array,
    ) -> None:
        self.in_channels, self.ndim = count(in_channels, "in_channels"), count(ndim, "ndim", most=3)
        self.n_levels, self.norm = count(n_levels, "n_levels", least=2), norm
        self.checkpoint_levels = flag(checkpoint_levels, "checkpoint_levels")
        self.compress = compress = None if compress is None else check_compress(compress)
        self.patch_size = None
        if patch_size is not None:
            self.patch_size = tuple(count(n, "patch_size") for n in per_axis(patch_size, self.ndim, "patch_size"))
        widths = [self.in_channels * 2 ** min(k, self.n_levels - 2) for k in range(self.n_levels)]
        down_key, up_key, block_key, last_key = jax.random.split(key, 4)
        down, up, blocks = [], [], []
        shared: dict[str, Any] = {"ndim": self.ndim, "norm": norm, "compress": compress}
        for k, (down_k, block_k) in enumerate(
            zip(jax.random.split(down_key, self.n_levels), jax.random.split(block_key, self.n_levels), strict=True)
        ):
            before = widths[max(k - 1, 0)]
            down.append(DoubleConv(before, widths[k], widths[k], **shared, key=down_k))
            shape = (
                {"patch_size": self.patch_size} if self.patch_size else {"num_patches": 2 ** (self.n_levels - 1 - k)}
            )
            blocks.append(
                NeuralSpectralBlock(
                    widths[k],
                    **shape,
                    ndim=self.ndim,
                    n_heads=n_heads,
                    n_tokens=n_tokens,
                    n_basis=n_basis,
                    key=block_k,
                )
            )
        for k, up_k in enumerate(jax.random.split(up_key, self.n_levels - 1)):
            both = 2 * widths[k]  # from the coarser scale come as many channels as from this one
            up.append(DoubleConv(both, both // 2, widths[max(k - 1, 0)], **shared, key=up_k))
        self.down, self.up, self.blocks = tuple(down), tuple(up), tuple(blocks)
        self.last = Linear(self.in_channels, self.in_channels, key=last_key)
        self.n_heads, self.n_tokens, self.n_basis = blocks[0].n_heads, blocks[0].n_tokens, blocks[0].n_basis

    @property
    def envelope(self) -> Envelope:
        return Envelope((self.ndim,), ANY, "spacing-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        grid = u.shape[:-1]
        sizes = self.patch_size or (1,) * self.ndim
        units = [p * 2 ** (self.n_levels - 1) for p in sizes]
        padding = [-n % unit for n, unit in zip(grid, units, strict=True)]
        if any(padding):
            u = jnp.pad(u, [*((0, p) for p in padding), (0, 0)])
        once = jax.checkpoint if self.checkpoint_levels else lambda f: f
        apply = once(lambda layer, x: layer.channels_last(x))
        levels = [apply(self.down[0], u)]
        for layer in self.down[1:]:
            levels.append(apply(layer, max_pool(levels[-1])))
        y = apply(self.blocks[-1], levels[-1])
        for block, layer, x in reversed(list(zip(self.blocks[:-1], self.up, levels[:-1], strict=True))):
            y = apply(layer, jnp.concatenate([apply(block, x), doubled(y)], -1))
        y = self.last.channels_last(y)
        return y[tuple(slice(0, n) for n in grid)]


def max_pool(u: Float[Array, "*grid channels"]) -> Float[Array, "*half channels"]:
    """The largest of each pair of points along every axis."""
    for axis in range(u.ndim - 1):
        pairs = u.reshape(*u.shape[:axis], u.shape[axis] // 2, 2, *u.shape[axis + 1 :])
        u = jnp.max(pairs, axis + 1)
    return u


def doubled(u: Float[Array, "*grid channels"]) -> Float[Array, "*double channels"]:
    """Twice the points along every axis by linear interpolation, first and last point kept."""
    for axis in range(u.ndim - 1):
        matrix = jnp.asarray(_interpolation(u.shape[axis]), u.dtype)
        u = jnp.moveaxis(jnp.tensordot(matrix, u, ((1,), (axis,))), 0, axis)
    return u


@functools.lru_cache(maxsize=256)
def _interpolation(n: int) -> np.ndarray:
    place = np.arange(2 * n) * (n - 1) / (2 * n - 1)
    left = np.minimum(np.floor(place).astype(int), max(n - 2, 0))
    matrix, rows = np.zeros((2 * n, n)), np.arange(2 * n)
    matrix[rows, left] = 1 - (place - left)
    matrix[rows, np.minimum(left + 1, n - 1)] += place - left
    return matrix


class LSM(AbstractOperator):
    """A latent spectral model in 1-D, 2-D or 3-D.

    A linear map of values and coordinates to `hidden_channels`, a `LatentUNet`, and a two-layer perceptron at each
    point. On irregular points: `GeoOperator(LatentUNet(...), ...)`, which is what `LSM.paper("elasticity")` returns.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `hidden_channels`: channels on the finest scale, a multiple of `n_heads`.
    - `ndim`: dimension of the grid.
    - `n_levels`: scales; 5 as published. An axis is filled up to a multiple of 2^(n_levels - 1) points.
    - `patch_size`: points per axis of a patch, the same on every scale; `None` cuts the finest scale into
      2^(n_levels - 1) patches per axis and the coarsest into one, which gives the published patches.
    - `n_heads`, `n_tokens`, `n_basis`: see `NeuralSpectralBlock`.
    - `norm`: `"instance_norm"`, `"group_norm"`, both with a scale and a shift per channel, `"affine"` (those alone:
      batch normalisation at evaluation, for official weights) or `None`.
    - `compress`: `None`, or variant and rank as in `SeparableConv`, such as `("cp", 0.25)`: the kernels of all
      convolutions are held as one-way factors.
    - `positional_embedding`: `"grid"` gives the network the coordinates too, from 0 at the first to 1 at the last
      point of each axis, in the order of the axes; `None` does not.
    - `projection_channels`: width of the last perceptron.
    - `checkpoint_levels`: makes each scale anew in the backward pass: less memory for more time.

    Input `(in_channels, *grid)`, output `(out_channels, *grid)`.

    Refinement: *spacing-locked*; the convolutions count points, so a network trained on one grid is another map on a
    finer one. `docs/lsm.md` shows by how much, and `GeoOperator` around the same `LatentUNet` is consistent.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    lifting: Linear
    network: LatentUNet
    projection: ChannelMLP
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    n_levels: int = eqx.field(static=True)
    patch_size: tuple[int, ...] | None = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    n_tokens: int = eqx.field(static=True)
    n_basis: int = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)
    positional_embedding: str | None = eqx.field(static=True)
    projection_channels: int = eqx.field(static=True)
    checkpoint_levels: bool = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        ndim: int = 2,
        n_levels: int = 5,
        patch_size: int | Sequence[int] | None = None,
        n_heads: int = 8,
        n_tokens: int = 4,
        n_basis: int = 12,
        norm: str | None = "instance_norm",
        compress: Compress | None = None,
        positional_embedding: str | None = "grid",
        projection_channels: int = 128,
        checkpoint_levels: bool = False,
        key: Array,
    ) -> None:
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels = count(hidden_channels, "hidden_channels")
        if positional_embedding not in ("grid", None):
            raise ValueError(
                f"positional_embedding: expected 'grid' or None, got {positional_embedding!r}; use one of these."
            )
        self.positional_embedding = positional_embedding
        self.projection_channels = count(projection_channels, "projection_channels")
        lifting_key, network_key, projection_key = jax.random.split(key, 3)
        self.network = LatentUNet(
            self.hidden_channels,
            ndim=ndim,
            n_levels=n_levels,
            patch_size=patch_size,
            n_heads=n_heads,
            n_tokens=n_tokens,
            n_basis=n_basis,
            norm=norm,
            compress=compress,
            checkpoint_levels=checkpoint_levels,
            key=network_key,
        )
        for name in (
            "ndim", "n_levels", "patch_size", "n_heads", "n_tokens", "n_basis", "norm", "compress", "checkpoint_levels",
        ):  # fmt: skip
            setattr(self, name, getattr(self.network, name))
        places = self.ndim if positional_embedding else 0
        self.lifting = Linear(self.in_channels + places, self.hidden_channels, key=lifting_key)
        self.projection = ChannelMLP(
            self.hidden_channels, self.out_channels, self.projection_channels, key=projection_key
        )

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> LSM | GeoOperator:
        """A configuration of the authors' code; batch normalisation counts as its scale and shift.

        | name | input | parameters |
        | --- | --- | --- |
        | `"darcy"` | the coefficient on 85 x 85 | 19,187,457 |
        | `"navier_stokes"` | ten frames of vorticity on 64 x 64 | 19,188,033 |
        | `"airfoil"` | the mesh, two coordinates on 221 x 51 | 4,812,833 |
        | `"pipe"` | the mesh, two coordinates on 129 x 129 | 10,804,913 |
        | `"elasticity_grid"` | a mask on 41 x 41 | 4,812,801 |
        | `"plasticity"` | the die on 101 x 31 x 20, four outputs | 13,457,828 |
        | `"elasticity"` | a cloud of points, two coordinates each, and 42 numbers of the shape | 5,992,609 + 63,746 |

        `changes` override single arguments. `"elasticity"` is a `GeoOperator`, called as `op(x, coords=x, code=rr)`;
        its second number is that of the deformation; changes go to the `GeoOperator`.

        **Raises:** `ValueError` on another name.
        """
        if name not in (*_PAPER, "elasticity"):
            raise ValueError(
                f"name: expected one of {sorted([*_PAPER, 'elasticity'])}, got {name!r}; use one of these names."
            )
        if name != "elasticity":
            return cls(**{**_PAPER[name], **changes}, key=key)
        network_key, deformation_key, key = jax.random.split(key, 3)
        parts = {
            "body": LatentUNet(32, key=network_key),
            "deformation": Deformation(code_channels=42, key=deformation_key),
            "in_channels": 2,
            "out_channels": 1,
            "transform": "published",
        }
        return GeoOperator(**{**parts, **changes}, key=key)

    @property
    def envelope(self) -> Envelope:
        return self.network.envelope

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid"]:
        check_field(u, channels=self.in_channels, ndim=self.ndim, where="LSM")
        x = jnp.moveaxis(u, 0, -1)
        if self.positional_embedding:
            x = jnp.concatenate([x, jnp.asarray(unit_coordinates(u.shape[1:]), x.dtype)], -1)
        x = self.network.channels_last(self.lifting.channels_last(x))
        return jnp.moveaxis(self.projection.channels_last(x), -1, 0)


def unit_coordinates(grid: Sequence[int]) -> np.ndarray:
    """From 0 at the first to 1 at the last point of each axis, `(*grid, ndim)`."""
    return np.stack(np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij"), -1)


_PAPER: dict[str, dict[str, Any]] = {
    "darcy": {"in_channels": 1, "out_channels": 1, "hidden_channels": 64},
    "navier_stokes": {"in_channels": 10, "out_channels": 1, "hidden_channels": 64},
    "airfoil": {"in_channels": 2, "out_channels": 1, "hidden_channels": 32},
    "pipe": {"in_channels": 2, "out_channels": 1, "hidden_channels": 48},
    "elasticity_grid": {"in_channels": 1, "out_channels": 1, "hidden_channels": 32},
    "plasticity": {"in_channels": 1, "out_channels": 4, "hidden_channels": 32, "ndim": 3},
}
