"""Denoisers to compare a learned proximal network with: one free of any constraint, one that is a gradient step."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.grid import CENTERINGS, check_boundary, per_axis
from neuralops.nn.convolution import convolve, ghost_rule
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.pointwise import activation_named
from neuralops.operator import AbstractWrapper, Envelope, as_operator

__all__ = ["ConvDenoiser", "GradientStep"]


class ConvDenoiser(AbstractLayer):
    """A residual convolutional denoiser, D(y) = y - N(y), in the shape of DnCNN (Zhang et al. 2017) without batch norm.

    N has `n_layers` convolutions of three taps per axis, all but the last followed by the activation. It is bound by
    nothing: no function need exist whose proximal map it is, and plug-and-play iterations with it may diverge.

    **Arguments:**

    - `in_channels`: of the field, and of what comes out.
    - `hidden_channels`, `n_layers`: width and depth; 64 and 17 in the paper for known noise.
    - `ndim`: number of space dimensions.
    - `boundary`, `centering`: what convolutions read beyond the edge, as in `Grid`; by default the picture continues as
      its mirror image. (The paper pads with zeros: `boundary="dirichlet", centering="node"`.)
    - `use_bias`: without it, D(c y) = c D(y) for a positive c when the activation is `"relu"`.
    - `residual`: `False` gives N alone.
    - `activation`: `"relu"`, `"silu"` and so on, the names of `MgNO`.
    - `key`: kernels are normal with variance 2 / (taps in), times 0.1 in the last layer; biases zero.

    Input `(in_channels, *grid)` and output like it. Refinement: *spacing-locked*.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    kernels: tuple[Float[Array, "*taps in out"], ...]
    biases: tuple[Float[Array, " out"], ...] | None
    in_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)
    residual: bool = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    derived = ("kernels", "biases")

    def __init__(
        self,
        in_channels: int = 1,
        hidden_channels: int = 64,
        n_layers: int = 17,
        *,
        ndim: int = 2,
        boundary: Any = "neumann",
        centering: Any = "cell",
        use_bias: bool = True,
        residual: bool = True,
        activation: str = "relu",
        key: Array,
    ) -> None:
        self.in_channels = count(in_channels, "in_channels")
        self.hidden_channels = count(hidden_channels, "hidden_channels")
        self.n_layers, self.ndim = count(n_layers, "n_layers", 2), count(ndim, "ndim", most=3)
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, self.ndim, "boundary"))
        self.centering = per_axis(centering, self.ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        self.use_bias, self.residual = flag(use_bias, "use_bias"), flag(residual, "residual")
        activation_named(activation)
        self.activation = activation
        widths = [self.in_channels, *[self.hidden_channels] * (self.n_layers - 1), self.in_channels]
        taps = (3,) * self.ndim
        sizes = [math.sqrt(2 / (3**self.ndim * c)) for c in widths[:-1]]
        sizes[-1] *= 0.1  # so that D begins near the identity
        keys = jax.random.split(key, self.n_layers)
        self.kernels = tuple(
            size * jax.random.normal(k, (*taps, a, b))
            for size, k, a, b in zip(sizes, keys, widths[:-1], widths[1:], strict=True)
        )
        self.biases = tuple(jnp.zeros(b) for b in widths[1:]) if self.use_bias else None

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return Envelope((self.ndim,), tuple(sorted(words)), "spacing-locked")

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        ghosts = tuple(ghost_rule(b, c) for b, c in zip(self.boundary, self.centering, strict=True))
        act = activation_named(self.activation)
        h = u
        for i, kernel in enumerate(self.kernels):
            h = convolve(h, kernel, ghosts)
            if self.biases is not None:
                h = h + self.biases[i]
            if i + 1 < self.n_layers:
                h = act(h)
        return u - h if self.residual else h


class GradientStep(AbstractWrapper):
    """A denoiser that is one gradient step, D(y) = y - grad g(y) with g(y) = 1/2 |y - N(y)|^2 (Hurault et al. 2022).

    D = grad psi for psi(y) = 1/2 |y|^2 - g(y), which is `potential`. D is the proximal map of a function where psi is
    convex, that is where grad g has a Lipschitz constant of 1 at most. Nothing here ensures it; an `LPN` has it by
    construction.

    **Arguments:** `op`: the network N, from a field to a like one, smooth (`activation="silu"`, not `"relu"`, whose
    gradients jump).

    Input and output as for `op`, whose envelope it has.

    **Raises:** `ValueError` when `op` cannot be called or returns another shape.
    """

    op: Any

    def __init__(self, op: Any) -> None:
        self.op = as_operator(op)

    def _rest(self, y: Float[Array, " channels *grid"], keywords: dict[str, Any]) -> Float[Array, " channels *grid"]:
        out = self.op(y, **keywords)
        if out.shape != y.shape:
            raise ValueError(
                f"op: expected a network from {y.shape} to the same shape, got {out.shape}; give equal channels."
            )
        return y - out

    def potential(self, y: Float[Array, " channels *grid"], **keywords: Any) -> Float[Array, ""]:
        """psi(y) = 1/2 |y|^2 - 1/2 |y - N(y)|^2, whose gradient the operator is."""
        return 0.5 * jnp.sum(y**2) - 0.5 * jnp.sum(self._rest(y, keywords) ** 2)

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None, **keywords: Any
    ) -> Float[Array, " channels *grid"]:
        if key is not None:
            keywords["key"] = key
        rest, pull = jax.vjp(lambda y: self._rest(y, keywords), u)
        return u - pull(rest)[0]
