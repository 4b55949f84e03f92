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
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import per_axis
from neuralops.nn.assignment import softmax_over_points
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.pointwise import Linear
from neuralops.operator import Envelope
from neuralops.transposition import transposed_by

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
        self.n_basis = count(n_basis, "n_basis", least=2)
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
        z = self._projected(u)
        for axis, window in enumerate(windows):
            if window.whole:
                z = z.reshape(*z.shape[: 2 * axis], *window.points.shape, *z.shape[2 * axis + 1 :])
            else:
                z = jnp.take(z, window.points, axis=2 * axis)
        patches, points = range(0, 2 * self.ndim, 2), range(1, 2 * self.ndim, 2)
        z = z.transpose(*patches, *points, 2 * self.ndim)
        measure = None
        if not all(window.whole for window in windows):
            share = functools.reduce(np.multiply.outer, [window.share for window in windows])
            share = share.transpose(*patches, *points).reshape(math.prod(num_patches), -1)
            measure = jnp.asarray(share, u.dtype)
        y = self._read(z.reshape(math.prod(num_patches), -1, z.shape[-1]), measure)
        y = y.reshape(*z.shape[:-1], channels)
        y = y.transpose(*(a + b * self.ndim for a in range(self.ndim) for b in (0, 1)), 2 * self.ndim)
        for axis, window in enumerate(windows):  # each point reads the patch in which it lies
            y = y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])
            y = y if window.whole else jnp.take(y, window.home, axis=axis)
        return u + y

    def _projected(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid parts"]:
        """At each point the scores of the latent queries, the values and the queries: one product for all.

        The score Z . (W_k x) is taken as (W_k^T Z) . x, which are `n_heads * n_tokens` numbers instead of as many as
        there are channels.
        """
        assert self.values.bias is not None
        assert self.queries.bias is not None
        keys = self.keys.weight.reshape(self.n_heads, -1, self.in_channels)
        sight = jnp.einsum("htd,hdc->htc", self.tokens, keys).reshape(-1, self.in_channels)
        matrix = jnp.concatenate([sight, self.values.weight, self.queries.weight])
        offset = jnp.concatenate([jnp.zeros(len(sight), sight.dtype), self.values.bias, self.queries.bias])
        return u @ matrix.T + offset

    def _read(
        self, z: Float[Array, "patches points parts"], measure: Float[Array, "patches points"] | None
    ) -> Float[Array, "patches points channels"]:
        """What the points of each patch read from its tokens."""
        heads, first = self.n_heads, self.n_heads * self.n_tokens
        scores, values, queries = jnp.split(z, [first, first + self.in_channels], axis=-1)
        by_head = lambda x: x.reshape(*x.shape[:2], heads, -1)
        shares = by_head(softmax_over_points(scores, measure))
        tokens = jnp.einsum("plht,plhd->pthd", shares, by_head(values)) + self.tokens.swapaxes(0, 1)
        flat = tokens.reshape(-1, self.in_channels)
        tokens = (flat + trigonometric(flat, self.sine.T, self.cosine.T)).reshape(tokens.shape)
        shares = jax.nn.softmax(jnp.einsum("plhd,pthd->plht", by_head(queries), tokens), axis=-1)
        return jnp.einsum("plht,pthd->plhd", shares, tokens).reshape(*z.shape[:2], -1)


Weights = Float[Array, "basis channels"]


@jax.checkpoint  # two dozen waves a value are made again from the value rather than kept
def trigonometric(
    x: Float[Array, "values channels"], sine: Weights, cosine: Weights
) -> Float[Array, "values channels"]:
    """sum_{k < M} sine_k sin(pi k x / M) + cosine_k cos(pi k x / M), elementwise; `sine[0]` does not enter."""
    return _series(x, jnp.stack([sine, cosine]))


@jax.custom_jvp
def _series(x: Array, weights: Float[Array, "2 basis channels"]) -> Array:
    sine, cosine = weights
    sines, cosines = _waves(x, len(sine))
    total = jnp.broadcast_to(cosine[0], x.shape)
    for k in range(1, len(sine)):
        total = total + sine[k] * sines[k - 1] + cosine[k] * cosines[k - 1]
    return total


@functools.partial(_series.defjvp, symbolic_zeros=True)
def _series_jvp(primals: tuple[Array, Array], tangents: tuple[Any, Any]) -> tuple[Array, Array]:
    (x, weights), (dx, dweights) = primals, tangents
    basis, total = weights.shape[1], jnp.zeros_like(x)
    if type(dx) is not SymbolicZero:
        speed = jnp.asarray(np.arange(basis)[:, None] * (math.pi / basis), x.dtype)
        total = dx * _series(x, jnp.stack([-speed * weights[1], speed * weights[0]]))
    if type(dweights) is not SymbolicZero:
        # XLA on a CPU makes of the transpose two dozen sums over the values, each with all waves made anew. Ours is one
        # pass with as many sums, five times faster.
        waves = lambda w: _series(x, w) - w[1, 0]
        total = total + dweights[1, 0] + transposed_by(waves, lambda y: _moments(x, y, basis), dweights, x.shape)
    return _series(x, weights), total


def _moments(x: Array, y: Array, basis: int) -> Float[Array, "2 basis channels"]:
    """The sums over the values of y times each sine and cosine but the constant, in one pass."""
    sines, cosines = _waves(x, basis)
    products = tuple(y * wave for wave in (*sines, *cosines))
    add = lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True))
    found = jax.lax.reduce(products, (jnp.zeros((), y.dtype),) * len(products), add, (0,))
    none = jnp.zeros_like(found[0])
    return jnp.stack([jnp.stack([none, *found[: basis - 1]]), jnp.stack([none, *found[basis - 1 :]])])


def _waves(x: Array, basis: int) -> tuple[list[Array], list[Array]]:
    """sin and cos of pi k x / basis for 0 < k < basis, each from the one before by the addition theorems."""
    s, c = jnp.sin(x * (math.pi / basis)), jnp.cos(x * (math.pi / basis))
    sines, cosines = [s], [c]
    for _ in range(basis - 2):
        last_s, last_c = sines[-1], cosines[-1]
        sines.append(last_s * c + last_c * s)
        cosines.append(last_c * c - last_s * s)
    return sines, cosines


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
