"""A surrogate of waves on a block of space and time: local convolutions over all of its axes.

In the setting of Boukraichi, Akkari, Casenave and Ryckelynck, "A priori compression of convolutional neural networks
for wave simulators" (arXiv 2304.04964): a zone of interest over a stretch of time is one tensor, (x, y, t), and kernels
may be compressed before training. Their network is not public; this one is our own, a dilated residual network as is
usual for local laws in time (such as Stachenfeld et al., ICLR 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.continuation import end_rules
from neuralops.grid import BOUNDARIES, CENTERINGS, per_axis
from neuralops.models.lsm import unit_coordinates
from neuralops.nn.kernel_factors import Compress, KernelFactors, check_compress
from neuralops.nn.norm import GroupNorm, make_norm
from neuralops.nn.pointwise import Linear, activation_named
from neuralops.nn.separable import check_ends, correlate
from neuralops.operator import AbstractOperator, Envelope, check_field

__all__ = ["WaveNet"]

Margins = tuple[tuple[int, int], ...]


class DilatedConv(eqx.Module):
    """A convolution that keeps the grid, with its taps `dilation` points apart, and a bias."""

    kernel: Float[Array, "*taps channels channels_out"] | KernelFactors
    bias: Float[Array, " channels_out"]

    def __init__(self, channels: int, kernel_size: Sequence[int], compress: Compress | None, gain: float, key: Array):
        shape = (*kernel_size, channels, channels)
        variance = gain / math.prod(shape[:-1])
        if compress is None:
            self.kernel = math.sqrt(variance) * jax.random.normal(key, shape)
        else:
            self.kernel = KernelFactors(shape, compress, variance=variance, key=key)
        self.bias = jnp.zeros(channels)

    def __call__(self, u: Array, rules: Sequence[tuple[str, str]], margins: Margins, dilation: Sequence[int]) -> Array:
        chained = isinstance(self.kernel, KernelFactors) and self.kernel.is_chained
        leaf = jax.tree.leaves(self.kernel)[0]
        u = u.astype(jnp.result_type(u, leaf))
        steps = (1,) * len(margins)
        return correlate(u, self.kernel, rules, margins, stride=steps, dilation=dilation, chained=chained) + self.bias


class DilatedBlock(eqx.Module):
    """v + K_m(... s(K_1(s(v)))): normalisation if any, activation and a dilated convolution, for each dilation."""

    convolutions: tuple[DilatedConv, ...]
    norms: tuple[GroupNorm | None, ...]


class WaveNet(AbstractOperator):
    """A dilated residual network of convolutions over one to three axes, the last of which may be time.

    With P and Q linear maps of the channels at each point, s the activation and K_d a convolution whose taps are d
    points apart,

        v_0 = P a,    v_{l+1} = v_l + (K_{d_m} s ... K_{d_1} s)(v_l),    u = Q s(v_L).

    Every axis is treated alike, as in images: a field (x, y, t) has three axes. A point of the output sees `reach`
    points before and behind it on each axis and no others; they should cover the way that waves travel in the block.
    What is the same at all times, such as a medium or the first frame, is given as channels copied along time, and then
    `positional_embedding="grid"` tells the network which time it is.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input and output functions.
    - `hidden_channels`: width.
    - `kernel_size`: taps per axis, odd numbers, one for all axes or one per axis; with `causal` any along time.
    - `n_layers`: residual blocks.
    - `dilations`: the convolutions of each block, for each the distance of its taps in points, one for all axes or one
      per axis.
    - `ndim`: number of axes, time included.
    - `boundary`, `centering`: what convolutions read beyond the ends, a word for all axes or one per axis, a pair where
      its ends differ: `"zero"`, or as in `Grid` the periodic, odd (`"dirichlet"`) or even (`"neumann"`) continuation.
    - `causal`: whether the last axis is a time that no output sees ahead of itself: the kernel's last tap is then the
      point itself. By default it is not: the whole block is predicted at once from what is known of it, and
      convolutions are centred.
    - `compress`: `None`, or variant and rank as in `SeparableConv`, such as `("kernel", 1)`: the kernels of all
      convolutions are held as one-way factors. P and Q have none to compress.
    - `norm`: `None`, `"instance_norm"` or `"group_norm"`, before each activation.
    - `activation`: `"gelu"`, `"relu"`, `"silu"`, `"tanh"`, `"sin"` or `"identity"`.
    - `positional_embedding`: `"grid"` appends the coordinates, from 0 at the first to 1 at the last point of each axis;
      `None` does not, and then all but the ends is the same at every place.
    - `checkpoint_blocks`: recompute each block in the backward pass instead of storing it.
    - `key`: kernels start with variance 2 / (taps in), in the last convolution of a block over `n_layers` too, so that
      depth does not make fields grow; biases of convolutions are zero.

    Input `(in_channels, *grid)`, output `(out_channels, *grid)`, any grid.

    Refinement: *spacing-locked*: kernels count points, in space and in time.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    lifting: Linear
    blocks: tuple[DilatedBlock, ...]
    projection: Linear
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    kernel_size: tuple[int, ...] = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    dilations: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    causal: bool = eqx.field(static=True)
    compress: Compress | None = eqx.field(static=True)
    norm: str | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    positional_embedding: str | None = eqx.field(static=True)
    checkpoint_blocks: bool = eqx.field(static=True)

    derived = ("lifting", "blocks", "projection")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        n_layers: int = 4,
        dilations: Sequence[int | Sequence[int]] = (1, 2, 4),
        ndim: int = 3,
        boundary: Any = "zero",
        centering: Any = "node",
        causal: bool = False,
        compress: Compress | None = None,
        norm: str | None = None,
        activation: str = "gelu",
        positional_embedding: str | None = None,
        checkpoint_blocks: bool = False,
        key: Array,
    ) -> None:
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels = hidden = count(hidden_channels, "hidden_channels")
        self.n_layers, self.ndim = count(n_layers, "n_layers"), count(ndim, "ndim", most=3)
        self.causal, self.checkpoint_blocks = flag(causal, "causal"), flag(checkpoint_blocks, "checkpoint_blocks")
        self.kernel_size = tuple(count(k, "kernel_size") for k in per_axis(kernel_size, self.ndim, "kernel_size"))
        centred = self.kernel_size[: self.ndim - self.causal]
        if any(k % 2 == 0 for k in centred):
            raise ValueError(
                f"kernel_size: expected odd numbers, whose kernels have a middle, got {self.kernel_size}; give e.g. 3."
            )
        if isinstance(dilations, str) or not isinstance(dilations, Sequence) or not dilations:
            raise ValueError(
                f"dilations: expected a sequence with one for each convolution, got {dilations!r}; give e.g. (1, 2, 4)."
            )
        self.dilations = tuple(
            tuple(count(d, "dilations") for d in per_axis(ds, self.ndim, "dilations")) for ds in dilations
        )
        self.boundary = tuple(check_ends(b) for b in per_axis(boundary, self.ndim, "boundary"))
        self.centering = per_axis(centering, self.ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        if self.causal and self.boundary[-1] != "zero":
            raise ValueError(
                f"boundary: expected 'zero' along time, as any other continuation holds what comes later, got "
                f"{self.boundary[-1]!r}; give it per axis, or causal=False."
            )
        if self.causal and norm is not None:
            raise ValueError(
                f"norm: expected None, as the moments of a norm are of all times, got {norm!r}; leave it out, or use "
                "causal=False."
            )
        if positional_embedding not in ("grid", None):
            raise ValueError(
                f"positional_embedding: expected 'grid' or None, got {positional_embedding!r}; use one of these."
            )
        activation_named(activation)
        self.norm, self.activation, self.positional_embedding = norm, activation, positional_embedding
        self.compress = compress = None if compress is None else check_compress(compress)
        # Zeros beyond the ends are no statement on the field: its quadrature counts all points alike.
        words = tuple(_without_zero(b) for b in self.boundary)
        lifting_key, blocks_key, projection_key = jax.random.split(key, 3)
        places = self.ndim if positional_embedding else 0
        self.lifting = Linear(self.in_channels + places, hidden, key=lifting_key)
        m, blocks = len(self.dilations), []
        for block_key in jax.random.split(blocks_key, self.n_layers):
            gains = [2.0] * (m - 1) + [2.0 / self.n_layers]
            keys = jax.random.split(block_key, m)
            convolutions = tuple(
                DilatedConv(hidden, self.kernel_size, compress, gain, k) for gain, k in zip(gains, keys, strict=True)
            )
            blocks.append(
                DilatedBlock(convolutions, tuple(make_norm(norm, hidden, words, self.centering) for _ in range(m)))
            )
        self.blocks = tuple(blocks)
        self.projection = Linear(hidden, self.out_channels, key=projection_key)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)} - {"zero"}
        # Zeros suit any field: image networks pad so whatever the boundary.
        return Envelope((self.ndim,), tuple(sorted(words)) or BOUNDARIES, "spacing-locked")

    @property
    def reach(self) -> tuple[tuple[int, int], ...]:
        """Per axis, how many points before and behind a point of the output it depends on."""
        margins = [self._margins(dilation) for dilation in self.dilations]
        total = lambda axis, end: self.n_layers * sum(margin[axis][end] for margin in margins)
        return tuple((total(axis, 0), total(axis, 1)) for axis in range(self.ndim))

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid"]:
        check_field(u, channels=self.in_channels, ndim=self.ndim, where="WaveNet")
        x = jnp.moveaxis(u, 0, -1)
        if self.positional_embedding:
            x = jnp.concatenate([x, jnp.asarray(unit_coordinates(u.shape[1:]), x.dtype)], -1)
        v = self.lifting.channels_last(x)
        # The block is an argument of the checkpointed function, so its parameters stay differentiable.
        run = lambda block, v: self._change(block, v)
        change = jax.checkpoint(run) if self.checkpoint_blocks else run
        for block in self.blocks:
            v = v + change(block, v)
        v = self.projection.channels_last(activation_named(self.activation)(v))
        return jnp.moveaxis(v, -1, 0)

    def _change(self, block: DilatedBlock, v: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        rules = [end_rules(b, c) for b, c in zip(self.boundary, self.centering, strict=True)]
        for convolution, norm, dilation in zip(block.convolutions, block.norms, self.dilations, strict=True):
            v = activation_named(self.activation)(v if norm is None else norm.channels_last(v))
            v = convolution(v, rules, self._margins(dilation), dilation)
        return v

    def _margins(self, dilation: Sequence[int]) -> Margins:
        """How many points a convolution reads before and behind each, per axis."""
        spans = [d * (k - 1) for d, k in zip(dilation, self.kernel_size, strict=True)]
        centred = [(s // 2, s // 2) for s in spans]
        return (*centred[:-1], (spans[-1], 0)) if self.causal else tuple(centred)


def _without_zero(boundary: str | tuple[str, str]) -> str | tuple[str, str]:
    if isinstance(boundary, str):
        return "dirichlet" if boundary == "zero" else boundary
    low, high = ("dirichlet" if end == "zero" else end for end in boundary)
    return low, high
