"""Physics attention (Wu, Luo, Wang, Wang and Long, "Transolver", ICML 2024): attention among slices of a domain."""

from __future__ import annotations

import math
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.nn.assignment import averages, cleared, measure_of
from neuralops.nn.convolution import convolve, per_sample
from neuralops.nn.latent import ANY, check_heads
from neuralops.nn.pointwise import Linear
from neuralops.operator import AbstractOperator, Envelope, check_field

EPS = 1e-5  # in the denominator of a slice's average, whose numerator sums points
CLAMP = (0.1, 5.0)  # of the temperature on grids, as published


class PhysicsAttention(AbstractOperator):
    """Points are shared out to slices, the slices attend to each other, and the points read them back.

    Per head h, with f = F x and s = S x at each point n:

        w_ng = softmax_g((P s_n + p) / tau_h),   t_g = sum_n q_n w_ng f_n / (sum_n q_n w_ng + 1e-5),
        t' = softmax(t Q (t K)^T / sqrt(d)) t V,   y_n = sum_g w_ng t'_g,

    then the heads are joined by a linear map. P, Q, K, V are the same for all heads. Cost and memory are linear in the
    points. q are quadrature weights scaled to the mean one: with them a slice is a ratio of integrals, which converges
    when the mesh is refined however unevenly; without them (q = 1, as published) it counts points.

    **Arguments:**

    - `in_channels`: channels in and out, a multiple of `n_heads`.
    - `n_heads`, `n_slices`.
    - `kernel_ndim`: `None` for points, where F and S are linear maps; 1, 2 or 3 for a grid of that dimension, where
      they are convolutions of three points per axis with zero padding, and tau is held in [0.1, 5].
    - `key`: at the start weights are normal with deviation 0.02 and biases zero, those of convolutions uniform as in
      PyTorch; tau is 0.5.

    Input and output `(in_channels, *points)`. Refinement: *consistent* of the order of the quadrature on points,
    *spacing-locked* with convolutions.

    **Raises:** `ValueError` on counts that do not fit, and on weights or masks of another shape than the points.
    """

    kernel: Float[Array, "*taps channels both"]
    bias: Float[Array, " both"]
    slices: Linear
    temperature: Float[Array, " heads"]
    query: Float[Array, "part part"]
    key: Float[Array, "part part"]
    value: Float[Array, "part part"]
    joined: Linear
    in_channels: int = eqx.field(static=True)
    n_heads: int = eqx.field(static=True)
    n_slices: int = eqx.field(static=True)
    kernel_ndim: int | None = eqx.field(static=True)

    def __init__(
        self, in_channels: int, n_heads: int = 8, n_slices: int = 64, *, kernel_ndim: int | None = None, key: Array
    ) -> None:
        self.in_channels = count(in_channels, "in_channels")
        self.n_heads, self.n_slices = check_heads(n_heads, self.in_channels), count(n_slices, "n_slices")
        self.kernel_ndim = None if kernel_ndim is None else count(kernel_ndim, "kernel_ndim", most=3)
        keys = jax.random.split(key, 6)
        width, part, taps = self.in_channels, self.in_channels // self.n_heads, (3,) * (self.kernel_ndim or 0)
        if taps:
            bound = 1 / math.sqrt(width * math.prod(taps))
            kernel_key, bias_key = jax.random.split(keys[0])
            uniform = lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)
            self.kernel, self.bias = uniform(kernel_key, (*taps, width, 2 * width)), uniform(bias_key, (2 * width,))
        else:
            self.kernel, self.bias = small(keys[0], (width, 2 * width)), jnp.zeros(2 * width)
        self.slices = small_linear(part, self.n_slices, keys[1])
        self.temperature = jnp.full(self.n_heads, 0.5)
        self.query, self.key, self.value = (small(k, (part, part)) for k in keys[2:5])
        self.joined = small_linear(width, width, keys[5])

    @property
    def envelope(self) -> Envelope:
        if self.kernel_ndim is None:
            return Envelope((1, 2, 3), ANY, "consistent", order=1)
        return Envelope((self.kernel_ndim,), ANY, "spacing-locked")

    def __call__(
        self,
        u: Float[Array, " channels *points"],
        /,
        *,
        mask: Any = None,
        weights: Float[Array, "*points"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, " channels *points"]:
        check_field(u, channels=self.in_channels, ndim=self.kernel_ndim, where="PhysicsAttention")
        measure = measure_of(weights, mask, tuple(u.shape[1:]), u.dtype)
        x = u.reshape(self.in_channels, -1).T
        return self.on_points(cleared(x, mask), tuple(u.shape[1:]), measure).T.reshape(u.shape)

    def on_points(
        self, x: Float[Array, "points channels"], grid: tuple[int, ...], measure: Float[Array, " points"] | None
    ) -> Float[Array, "points channels"]:
        """The same on one axis of points, in the order of `grid`, without checks."""
        if self.kernel_ndim is None:
            both = x @ self.kernel
            temperature = self.temperature
        else:
            both = convolve(x.reshape(*grid, -1), self.kernel, (("zero", "zero"),) * len(grid)).reshape(len(x), -1)
            temperature = jnp.clip(self.temperature, *CLAMP)
        # Heads first, points last: no product below has to transpose what has as many numbers as points and slices.
        values, places = jnp.split((both + self.bias).T.reshape(2 * self.n_heads, -1, len(x)), 2)
        slicing = per_sample(jnp.broadcast_to(self.slices.weight, (self.n_heads, *self.slices.weight.shape)), x)
        bias = cast(Array, self.slices.bias)[:, None]
        scores = (slicing @ places + bias) / temperature[:, None, None]
        shares = jax.nn.softmax(scores, axis=1)
        tokens = averages(shares, values, measure, EPS)
        sight, shown, told = tokens @ self.query, tokens @ self.key, tokens @ self.value
        scores = jnp.einsum("hgd,hkd->hgk", sight, shown) / math.sqrt(tokens.shape[-1])
        tokens = jnp.einsum("hgk,hkd->hgd", jax.nn.softmax(scores, axis=-1), told)
        read = jnp.einsum("hgd,hgn->hdn", tokens, shares)
        return self.joined.channels_last(read.reshape(-1, len(x)).T)


def small(key: Array, shape: tuple[int, ...]) -> Array:
    """Normal numbers of deviation 0.02."""
    return 0.02 * jax.random.normal(key, shape)


def small_linear(in_channels: int, out_channels: int, key: Array) -> Linear:
    """A linear map that starts with small weights and no bias."""
    linear = Linear(in_channels, out_channels, key=key)
    start = small(key, linear.weight.shape), jnp.zeros(out_channels)
    return eqx.tree_at(lambda linear: (linear.weight, linear.bias), linear, start)
