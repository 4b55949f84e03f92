"""DirectionNet: the network of the deep conjugate direction method (Kaneda et al., ICML 2023, arXiv 2205.10763)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import CENTERINGS, check_boundary, per_axis
from neuralops.nn.convolution import convolve, ghost_rule
from neuralops.nn.layer import AbstractLayer
from neuralops.nn.pointwise import activation_named
from neuralops.operator import Envelope

__all__ = ["DirectionNet"]

Ghosts = tuple[tuple[str, str], ...]


class _Conv(eqx.Module):
    """A convolution with three taps per axis and a bias."""

    kernel: Float[Array, "*taps in out"]
    bias: Float[Array, " out"]

    def __init__(self, ndim: int, channels_in: int, channels_out: int, key: Array) -> None:
        # Glorot's uniform distribution and zero biases, the defaults of the framework of the released code.
        bound = math.sqrt(6 / (3**ndim * (channels_in + channels_out)))
        self.kernel = jax.random.uniform(key, (*(3,) * ndim, channels_in, channels_out), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(channels_out)

    def __call__(self, u: Float[Array, "*grid in"], ghosts: Ghosts) -> Float[Array, "*grid out"]:
        return convolve(u, self.kernel, ghosts) + self.bias


class DirectionNet(AbstractLayer):
    """A two-level convolutional network from a residual of unit norm to a search direction, in 1-D to 3-D.

    With C a convolution (three taps per axis, with bias) followed by the activation, and a *pair* the map
    x -> C(C(x)) + x,

        h = convolution of the input, then C, pairs[0] pairs, C          the fine level
        v = pairs[1] pairs on the means of h over blocks of two points per axis
        w = pairs[2] pairs on h + v, each value of v copied to its block
        direction = a linear map of the channels of w, with bias

    Two levels only: a point of the direction sees about +-21 points of the residual with (1, 3, 2), +-33 with
    (2, 5, 3). Long waves are left to the iteration around it, `DeepConjugateDirection`.

    **Arguments:**

    - `pairs`: residual pairs before, on, and after the coarse level.
    - `hidden_channels`: channels of every layer, 16 in the paper.
    - `ndim`: number of space dimensions.
    - `boundary`, `centering`: what the convolutions read beyond the edge, as in `Grid`; the default is zeros, as in the
      paper whatever the boundary of the problem.
    - `scaling`: `"rms"` multiplies the input by the root of the number of points, so that a residual of unit 2-norm
      has entries of size 1 on every grid; by default (the paper) it enters as it is, smaller on finer grids.
    - `activation`: `"relu"` in the paper; the names of `MgNO`.
    - `key`: initial kernels are uniform by Glorot's rule, biases zero.

    Input `(1, *grid)` and output like it, an even number of points per axis.

    Refinement: *spacing-locked*: kernels count points. As a direction it may be used on other grids all the same, since
    a solve does not have to believe it.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels, dtype or of an odd
    number of points.
    """

    first: _Conv
    before: tuple[_Conv, ...]
    coarse: tuple[_Conv, ...]
    after: tuple[_Conv, ...]
    weight: Float[Array, " channels"]
    bias: Float[Array, ""]
    pairs: tuple[int, int, int] = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    boundary: tuple[str | tuple[str, str], ...] = eqx.field(static=True)
    centering: tuple[str, ...] = eqx.field(static=True)
    scaling: str | None = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)

    derived = ("first", "before", "coarse", "after", "weight", "bias", "in_channels", "out_channels")

    def __init__(
        self,
        pairs: Sequence[int] = (1, 3, 2),
        hidden_channels: int = 16,
        *,
        ndim: int = 3,
        boundary: Any = "dirichlet",
        centering: Any = "node",
        scaling: Literal["rms"] | None = None,
        activation: str = "relu",
        key: Array,
    ) -> None:
        if not isinstance(pairs, Sequence) or len(pairs) != 3:
            raise ValueError(f"pairs: expected three counts, got {pairs!r}; give e.g. (1, 3, 2).")
        self.ndim = ndim = count(ndim, "ndim", most=3)
        if scaling not in (None, "rms"):
            raise ValueError(f"scaling: expected None or 'rms', got {scaling!r}; use one of these.")
        activation_named(activation)
        one, two, three = (count(pair, "pairs", 0) for pair in pairs)
        self.pairs = (one, two, three)
        self.hidden_channels = hidden_channels = count(hidden_channels, "hidden_channels")
        self.boundary = tuple(check_boundary(b) for b in per_axis(boundary, ndim, "boundary"))
        self.centering = per_axis(centering, ndim, "centering")
        for word in self.centering:
            if word not in CENTERINGS:
                raise ValueError(f"centering: expected one of {CENTERINGS}, got {word!r}; use one of these words.")
        self.scaling, self.activation = scaling, activation
        self.in_channels = self.out_channels = 1
        counts = [2 + 2 * self.pairs[0], 2 * self.pairs[1], 2 * self.pairs[2]]
        keys = iter(jax.random.split(key, 2 + sum(counts)))
        self.first = _Conv(ndim, 1, hidden_channels, next(keys))
        self.before, self.coarse, self.after = (
            tuple(_Conv(ndim, hidden_channels, hidden_channels, next(keys)) for _ in range(n)) for n in counts
        )
        bound = math.sqrt(6 / (hidden_channels + 1))
        self.weight = jax.random.uniform(next(keys), (hidden_channels,), minval=-bound, maxval=bound)
        self.bias = jnp.zeros(())

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> DirectionNet:
        """A network of the released code (repository ayano721/2023_DCDM), which has 3-D ones only.

        | name | trained on | pairs | parameters in 3-D |
        | --- | --- | --- | --- |
        | `"from_64"` | 64^3 cells | (1, 3, 2) | 97,457 |
        | `"from_128"` | 128^3 cells | (2, 5, 3) | 152,881 |

        `changes` replace single arguments: `ndim=2` is the same topology with 3 x 3 kernels, which is ours.

        **Raises:** `ValueError` on an unknown name.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these.")
        return cls(**{"pairs": _PAPER[name], **changes}, key=key)

    @property
    def envelope(self) -> Envelope:
        words = {end for b in self.boundary for end in ((b,) if isinstance(b, str) else b)}
        return Envelope((self.ndim,), tuple(sorted(words)), "spacing-locked", min_points=2)

    def channels_last(self, u: Float[Array, "*grid 1"]) -> Float[Array, "*grid 1"]:
        grid = u.shape[:-1]
        if any(n % 2 for n in grid):
            raise ValueError(
                f"u: DirectionNet expects an even number of points per axis, as its coarse level joins pairs of them, "
                f"got {grid}; pad the field, or solve on {tuple(n + n % 2 for n in grid)} points."
            )
        ghosts = tuple(ghost_rule(b, c) for b, c in zip(self.boundary, self.centering, strict=True))
        act = activation_named(self.activation)

        def pairs(x: Array, convolutions: Sequence[_Conv]) -> Array:
            for one, two in zip(convolutions[::2], convolutions[1::2], strict=True):
                x = act(two(act(one(x, ghosts)), ghosts)) + x
            return x

        if self.scaling == "rms":
            u = u * math.sqrt(math.prod(grid))
        h = act(self.before[0](self.first(u, ghosts), ghosts))
        h = act(self.before[-1](pairs(h, self.before[1:-1]), ghosts))
        v = pairs(_block_means(h), self.coarse)
        w = pairs(h + _copied(v), self.after)
        return (w @ self.weight + self.bias)[..., None]


def _block_means(h: Float[Array, "*grid channels"]) -> Float[Array, "*half channels"]:
    for axis in range(h.ndim - 1):
        h = h.reshape(*h.shape[:axis], h.shape[axis] // 2, 2, *h.shape[axis + 1 :]).mean(axis + 1)
    return h


def _copied(v: Float[Array, "*half channels"]) -> Float[Array, "*grid channels"]:
    for axis in range(v.ndim - 1):
        v = jnp.repeat(v, 2, axis)
    return v


_PAPER = {"from_64": (1, 3, 2), "from_128": (2, 5, 3)}
