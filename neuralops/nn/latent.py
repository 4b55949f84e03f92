"""The neural spectral block of latent spectral models (Wu, Hu, Luo, Wang and Long, ICML 2023).

A patch of a field is projected to a few latent tokens by attention, the tokens are changed by a trigonometric
polynomial of their values, and the patch reads them back by attention. Cost and memory are linear in the points.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import per_axis
from neuralops.nn.assignment import softmax_over_points
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.pointwise import Linear
from neuralops.operator import Envelope

ANY = ("periodic", "dirichlet", "neumann")


class NeuralSpectralBlock(AbstractLayer):
    """Attention to latent tokens, a trigonometric map of each of their values, attention back, and a skip.

    On a patch with the values x_l of its points, per head h with the latent queries Z:

        T = softmax_l(Z K^T) V + Z,                            K, V linear in x
        T'_tc = T_tc + sum_{k < M} [a_ck sin(pi k T_tc / M) + b_ck cos(pi k T_tc / M)]
        y_l = softmax_t(Q_l T'^T) T' + x_l,                    Q linear in x

    without a scale in the softmax (the authors' code; the frequencies are pi k / M, all below pi). The first softmax
    is over the points of the patch, the second over the tokens.

    Weights that are there because the published block has them, and do nothing: `sine[:, 0]`, the factor of sin 0,
    and the bias of `keys`, which a softmax over points does not see. Their gradients are exactly zero.

    **Arguments:**

    - `in_channels`: channels in and out, a multiple of `n_heads`.
    - `num_patches`: patches per axis, one number or one per axis. A patch is a part of the box of fixed size, whatever
      the grid. Where a cell of the grid lies across the border of two patches each counts its part of it in the
      average, so that the block converges of order 2 when the grid is refined.
    - `patch_size`: instead of that, points per axis of a patch, as published. The points of the grid must be a
      multiple of it; on a finer grid the patches are smaller.
    - `ndim`: dimension of the grid.
    - `n_heads`, `n_tokens`, `n_basis`: heads, tokens per patch, and M.
    - `key`: the tokens and a, b are uniform in [0, 1/in_channels) at the start, as published.

    Input and output `(in_channels, *grid)`. Refinement: *consistent* of order 2 on a grid of cells (order 1 on nodes,
    where the last ones lie on the border), *spacing-locked* with `patch_size`.

    **Raises:** `ValueError` on counts that do not fit, and on grids with fewer points than patches.
    """

    tokens: Float[Array, "heads tokens part"]
    sine: Float[Array, "channels basis"]
    cosine: Float[Array, "channels basis"]
    keys: Linear
    values: Linear
    queries: Linear
    in_channels: int = eqx.field(static=True)
    num_patches: tuple[int, ...] | None = eqx.field(static=True)
    patch_size: tuple[int, ...] | None = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    n_tokens: int = eqx.field(static=True)
    n_basis: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        num_patches: int | Sequence[int] | None = None,
        *,
        patch_size: int | Sequence[int] | None = None,
        ndim: int = 2,
        n_heads: int = 8,
        n_tokens: int = 4,
        n_basis: int = 12,
        key: Array,
    ) -> None:
        self.in_channels = count(in_channels, "in_channels")
        self.ndim = count(ndim, "ndim", most=3)
        self.n_heads, self.n_tokens = check_heads(n_heads, self.in_channels), count(n_tokens, "n_tokens")
        self.n_basis = count(n_basis, "n_basis")
        if (num_patches is None) == (patch_size is None):
            raise ValueError(
                f"num_patches: expected either patches per axis or patch_size, got {num_patches!r} and {patch_size!r}; "
                "give one of them."
            )
        self.num_patches = _counts(num_patches, self.ndim, "num_patches")
        self.patch_size = _counts(patch_size, self.ndim, "patch_size")
        names = ("tokens", "sine", "cosine", "keys", "values", "queries")
        seed = dict(zip(names, jax.random.split(key, len(names)), strict=True))
        channels, most = self.in_channels, 1 / self.in_channels
        uniform = lambda name, shape: jax.random.uniform(seed[name], shape, maxval=most)
        self.tokens = uniform("tokens", (self.n_heads, self.n_tokens, channels // self.n_heads))
        self.sine, self.cosine = (uniform(name, (channels, self.n_basis)) for name in ("sine", "cosine"))
        self.keys, self.values, self.queries = (Linear(channels, channels, key=seed[name]) for name in names[3:])

    @property
    def envelope(self) -> Envelope:
        if self.num_patches is None:
            return Envelope((self.ndim,), ANY, "spacing-locked", min_points=min(self.patch_size or (1,)))
        return Envelope((self.ndim,), ANY, "consistent", order=1, min_points=max(self.num_patches))

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        grid, channels = u.shape[:-1], u.shape[-1]
        if self.num_patches is None:
            assert self.patch_size is not None
            if any(n % p for n, p in zip(grid, self.patch_size, strict=True)):
                raise ValueError(
                    f"u: NeuralSpectralBlock expects multiples of the patch {self.patch_size}, got {grid} points; pad "
                    "the field, or build it with num_patches=, which takes any grid."
                )
            num_patches: tuple[int, ...] = tuple(n // p for n, p in zip(grid, self.patch_size, strict=True))
        else:
            num_patches = self.num_patches
        windows = [_windows(n, p) for n, p in zip(grid, num_patches, strict=True)]
        if all(window.whole for window in windows):
            cut = [(p, n // p) for n, p in zip(grid, num_patches, strict=True)]
            x = u.reshape(*(m for pair in cut for m in pair), channels)
            x = x.transpose(*range(0, 2 * self.ndim, 2), *range(1, 2 * self.ndim, 2), 2 * self.ndim)
            y = self._on_patches(x.reshape(math.prod(num_patches), -1, channels), None)
            y = y.reshape(*num_patches, *(m for _, m in cut), channels)
            order = [a + b * self.ndim for a in range(self.ndim) for b in (0, 1)]
            return y.transpose(*order, 2 * self.ndim).reshape(u.shape)
        # Some cells belong to two patches: overlapping windows of equal size, and the fraction of each cell inside.
        inside = functools.reduce(np.multiply.outer, [window.share for window in windows])
        inside = inside.transpose(*range(0, 2 * self.ndim, 2), *range(1, 2 * self.ndim, 2))
        x = u
        for axis, window in enumerate(windows):
            x = jnp.take(x, window.points, axis=2 * axis)
        x = x.transpose(*range(0, 2 * self.ndim, 2), *range(1, 2 * self.ndim, 2), 2 * self.ndim)
        shape = x.shape
        patches = math.prod(num_patches)
        measure = jnp.asarray(inside.reshape(patches, -1), u.dtype)
        y = self._on_patches(x.reshape(patches, -1, channels), measure).reshape(shape)
        order = [a + b * self.ndim for a in range(self.ndim) for b in (0, 1)]
        y = y.transpose(*order, 2 * self.ndim)
        for axis in range(self.ndim):  # each point reads the patch in which it lies
            y = y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])
            y = jnp.take(y, windows[axis].home, axis=axis)
        return y

    def _on_patches(
        self, x: Float[Array, "patches points channels"], measure: Float[Array, "patches points"] | None
    ) -> Float[Array, "patches points channels"]:
        """The block on patches of equal size.

        The linear maps are moved to the few tokens: the score Z . (W_k x) is (W_k^T Z) . x, an average of W_v x is W_v
        times the average of x, and Q T' is (W_q^T T') . x. What is left to do at the points is the attention.
        """
        heads = lambda linear: linear.weight.reshape(self.n_heads, -1, self.in_channels)
        latent = self.tokens
        sight = jnp.einsum("htd,hdc->htc", latent, heads(self.keys)).reshape(-1, self.in_channels)
        shares = softmax_over_points(jnp.einsum("plc,sc->pls", x, sight), measure)
        means = jnp.einsum("pls,plc->psc", shares, x).reshape(len(x), self.n_heads, self.n_tokens, -1)
        tokens = jnp.einsum("phtc,hdc->phtd", means, heads(self.values))
        assert self.values.bias is not None
        assert self.queries.bias is not None
        tokens = tokens + self.values.bias.reshape(self.n_heads, 1, -1) + latent
        per_head = lambda w: w.reshape(self.n_heads, 1, -1, self.n_basis)
        tokens = tokens + trigonometric(tokens, per_head(self.sine), per_head(self.cosine))
        sight = jnp.einsum("phtd,hdc->phtc", tokens, heads(self.queries))
        offset = jnp.einsum("phtd,hd->pht", tokens, self.queries.bias.reshape(self.n_heads, -1))
        scores = jnp.einsum("plc,psc->pls", x, sight.reshape(len(x), -1, self.in_channels))
        scores = scores.reshape(*x.shape[:2], self.n_heads, self.n_tokens) + offset[:, None]
        read = jnp.einsum("plht,phtd->plhd", jax.nn.softmax(scores, axis=-1), tokens)
        return x + read.reshape(x.shape)


@jax.checkpoint  # two dozen waves a value are made again from the value rather than kept
def trigonometric(
    x: Float[Array, "*values"], sine: Float[Array, "*values basis"], cosine: Float[Array, "*values basis"]
) -> Float[Array, "*values"]:
    """sum_{k < M} sine_k sin(pi k x / M) + cosine_k cos(pi k x / M), elementwise; `sine[..., 0]` does not enter."""
    basis = sine.shape[-1]
    s, c = jnp.sin(x * (math.pi / basis)), jnp.cos(x * (math.pi / basis))
    total, wave_s, wave_c = jnp.broadcast_to(cosine[..., 0], x.shape), s, c
    for k in range(1, basis):  # the next frequency by the addition theorems
        total = total + sine[..., k] * wave_s + cosine[..., k] * wave_c
        wave_s, wave_c = wave_s * c + wave_c * s, wave_c * c - wave_s * s
    return total


class _Windows(NamedTuple):
    """The points that each patch of an axis touches, and how much of each point's cell lies inside."""

    points: np.ndarray  # (patches, size), clipped to the axis where a window has too many
    share: np.ndarray  # (patches, size), from 0 to 1
    home: np.ndarray  # (points,), where in the flattened windows each point is read
    whole: bool  # no cell lies across a border


@functools.lru_cache(maxsize=256)
def _windows(num_points: int, num_patches: int) -> _Windows:
    if num_points < num_patches:
        raise ValueError(
            f"u: expected at least one point for each of {num_patches} patches along every axis, got {num_points}; "
            "give a finer field, or fewer patches."
        )
    if num_points % num_patches == 0:
        size = num_points // num_patches
        # Indices have 32 bits at any precision: JAX keeps programs that index, across changes of `jax.enable_x64`.
        home = np.arange(num_points, dtype=np.int32)
        return _Windows(home.reshape(num_patches, size), np.ones((num_patches, size)), home, True)
    ends = np.arange(num_patches + 1) * num_points  # in units of 1 / num_patches of a cell
    first = ends[:-1] // num_patches
    size = int(np.max(-(-ends[1:] // num_patches) - first))
    points = first[:, None] + np.arange(size)
    low = np.maximum(points * num_patches, ends[:-1, None])
    high = np.minimum((points + 1) * num_patches, ends[1:, None])
    share = np.where(points < num_points, np.maximum(high - low, 0) / num_patches, 0.0)
    centre = (2 * np.arange(num_points) + 1) * num_patches  # doubled, so that it is whole
    patch = np.minimum(centre // (2 * num_points), num_patches - 1)
    home = patch * size + np.arange(num_points) - first[patch]
    points, home = np.minimum(points, num_points - 1).astype(np.int32), home.astype(np.int32)
    return _Windows(points, share, home, False)


def check_heads(n_heads: Any, channels: int, name: str = "in_channels") -> int:
    """Heads that share the channels evenly."""
    heads = count(n_heads, "n_heads")
    if channels % heads:
        raise ValueError(
            f"n_heads: expected a divisor of {name}={channels}, got {heads}; give a divisor, or other channels."
        )
    return heads


def _counts(value: Any, ndim: int, name: str) -> tuple[int, ...] | None:
    return None if value is None else tuple(count(n, name) for n in per_axis(value, ndim, name))
