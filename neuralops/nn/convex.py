"""Input-convex potentials: numbers psi(y) that are convex in the field y, with their gradients.

h_0 = g(m_0 H_0 y + b_0), h_k = g(W_k h_{k-1} + m_k H_k S_k y + b_k), psi = sum of w^T h_K + alpha |y|^2 (Amos, Xu and
Kolter 2017; Fang, Buchanan and Sulam 2024). All W_k and w are at least zero and g, the softplus of sharpness beta, is
convex and increasing, so psi is convex, and with alpha > 0 strongly so. H_k and b_k are free, S_k is a linear change of
the grid. With a `code` c the biases and the factors m_k are functions of c: psi stays convex in y for every c.

The gradient is written out as a second sweep through the layers instead of being left to `jax.grad`: training then
differentiates once, through convolutions whose derivatives in the kernel are fast (`nn.convolution`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count, flag
from neuralops.grid import BOUNDARIES
from neuralops.nn.pointwise import Linear
from neuralops.operator import KEYWORDS, AbstractOperator, Envelope, check_field

INITS = ("average", "published", "sparse")
CODE_FEATURES = 16


def softplus(x: Array, beta: float) -> Array:
    """(1 / beta) log(1 + exp(beta x)), without overflow."""
    x = beta * x
    return (jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))) / beta


class ConvexLayer(eqx.Module):
    """The arrays of one layer, kernels `(*taps, in, out)`: `main` (at least zero), `skip`, `bias`, and how a code
    changes the bias and scales the skip."""

    main: Float[Array, "*taps hidden out"] | None
    skip: Float[Array, "*taps channels out"]
    bias: Float[Array, " out"] | None
    shift: Float[Array, "features out"] | None
    scale: Float[Array, "features out"] | None

    def offset(self, features: Array | None) -> Array | float:
        bias = 0.0 if self.bias is None else self.bias
        return bias if features is None or self.shift is None else bias + features @ self.shift

    def factor(self, features: Array | None) -> Array | float:
        return 1.0 if features is None or self.scale is None else 1 + features @ self.scale


class Map(NamedTuple):
    """A linear map and its transpose."""

    apply: Callable[[Array], Array]
    transpose: Callable[[Array], Array]


class Stage(NamedTuple):
    """A layer on a given grid."""

    main: Map | None
    skip: Map
    layer: ConvexLayer


class AbstractPotential(AbstractOperator):
    """A convex function of a field, `(in_channels, *grid)`, and its gradient.

    As an operator it gives the number as a field of one point, `(1, 1)`.
    """

    layers: eqx.AbstractVar[tuple[ConvexLayer, ...]]
    readout: eqx.AbstractVar[Array]
    encoder: eqx.AbstractVar[tuple[Linear, ...]]
    in_channels: eqx.AbstractVar[int]
    beta: eqx.AbstractVar[float]
    alpha: eqx.AbstractVar[float]
    code_range: eqx.AbstractVar[tuple[float, float] | None]

    @property
    def keywords(self) -> frozenset[str]:
        return frozenset(KEYWORDS) & ({"code"} if self.code_range else set())

    def __call__(
        self,
        u: Float[Array, " channels *grid"],
        /,
        *,
        code: Float[Array, " 1"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, "1 1"]:
        return self.value(u, code=code).reshape(1, 1)

    @abstractmethod
    def check(self, y: Any) -> None:
        """Refuses fields that it does not take: `ValueError`."""

    @abstractmethod
    def stages(self, grid: tuple[int, ...]) -> list[Stage]:
        """The layers on a grid."""

    def measure(self, grid: tuple[int, ...]) -> float:
        """What one point of the grid counts for in the inner product that gradients are taken in."""
        return 1.0

    def value(self, y: Float[Array, " channels *grid"], *, code: Any = None) -> Float[Array, ""]:
        """psi(y)."""
        self.check(y)
        features = self._features(y, code)
        return self._value(self._inside(y), features)

    def gradient(self, y: Float[Array, " channels *grid"], *, code: Any = None) -> Float[Array, " channels *grid"]:
        """The gradient of psi at y, in the inner product that weighs each point by `measure`."""
        self.check(y)
        features = self._features(y, code)
        return self._outside(self._gradient(self._inside(y), features), y.shape)

    def project(self) -> Any:
        """The same with negative constrained weights at zero: `fit` applies it after each step."""
        constrained = lambda p: [*(layer.main for layer in p.layers if layer.main is not None), p.readout]
        return eqx.tree_at(constrained, self, [jnp.maximum(w, 0) for w in constrained(self)])

    def _inside(self, y: Array) -> Array:
        return jnp.moveaxis(y, 0, -1)

    def _outside(self, f: Array, shape: tuple[int, ...]) -> Array:
        return jnp.moveaxis(f, -1, 0)

    def _features(self, y: Array, code: Any) -> Array | None:
        if self.code_range is None:
            if code is not None:
                raise ValueError(
                    f"code: {type(self).__name__} without code_range expects None, got one; build it with "
                    "code_range=(low, high), the noise levels that it is for."
                )
            return None
        if code is None or jnp.shape(code) != (1,):
            raise ValueError(
                f"code: {type(self).__name__} expects an array of one number, the noise level, got "
                f"{None if code is None else jnp.shape(code)}; give op(y, code=jnp.array([0.1]))."
            )
        low, high = self.code_range
        x = (2 * jnp.asarray(code, y.dtype) - low - high) / (high - low)
        return jnp.tanh(self.encoder[0].channels_last(x))

    def _weights(self, features: Array | None) -> Array:
        """w, in which the code is a positive factor."""
        if features is None:
            return self.readout
        return self.readout * jnp.exp(self.encoder[1].channels_last(features))

    def _sweep(self, stages: list[Stage], y: Array, features: Array | None) -> list[Array]:
        """What goes into each activation."""
        zs: list[Array] = []
        for main, skip, layer in stages:
            z = layer.factor(features) * skip.apply(y) + layer.offset(features)
            zs.append(z if main is None else z + main.apply(softplus(zs[-1], self.beta)))
        return zs

    def _value(self, y: Array, features: Array | None) -> Array:
        zs = self._sweep(self.stages(y.shape[:-1]), y, features)
        return jnp.sum(softplus(zs[-1], self.beta) @ self._weights(features)) + self.alpha * jnp.sum(y**2)

    def _gradient(self, y: Array, features: Array | None) -> Array:
        stages = self.stages(y.shape[:-1])
        zs = self._sweep(stages, y, features)
        v = jnp.broadcast_to(self._weights(features), zs[-1].shape)
        total = 2 * self.alpha * y
        for (main, skip, layer), z in zip(reversed(stages), reversed(zs), strict=True):
            v = v * jax.nn.sigmoid(self.beta * z)
            total = total + skip.transpose(layer.factor(features) * v)
            v = v if main is None else main.transpose(v)
        return total


class ConvexDense(AbstractPotential):
    """Dense layers on the values of a field at fixed points.

    **Arguments:**

    - `num_points`: points per axis of the field, or their number.
    - `in_channels`, `hidden_channels`: channels of the field, width of the layers.
    - `n_layers`: maps W_k between hidden layers; the toy network of the paper has 4.
    - `beta`: sharpness of the softplus; at 100 it is nearly the positive part.
    - `alpha`: psi holds alpha |y|^2 (no half), so its gradient is at least 2 alpha strongly monotone.
    - `affine`: adds <s, y> + c with free s and c, as the toy network does.
    - `code_range`: noise levels, lowest and highest, that `code=` may give; `None` takes no code.
    - `init`: `"published"`: W_k and w by PyTorch's default, the negative ones at zero. `"average"`: each unit is
      about a mean of those before it, so that width and depth do not change the size of anything. `"sparse"`: each
      takes one of those before it, drawn at random, which starts with more variety.

    Refinement: *grid-locked*.

    **Raises:** `ValueError` on arguments outside the above, and on fields of another shape.
    """

    layers: tuple[ConvexLayer, ...]
    readout: Float[Array, " hidden"]
    slope: Float[Array, " numbers"] | None
    constant: Float[Array, " 1"] | None
    encoder: tuple[Linear, ...]
    num_points: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    beta: float = eqx.field(static=True)
    alpha: float = eqx.field(static=True)
    affine: bool = eqx.field(static=True)
    code_range: tuple[float, float] | None = eqx.field(static=True)
    init: str = eqx.field(static=True)

    def __init__(
        self,
        num_points: int | Sequence[int],
        in_channels: int = 1,
        hidden_channels: int = 50,
        *,
        n_layers: int = 4,
        beta: float = 10.0,
        alpha: float = 0.0,
        affine: bool = True,
        code_range: tuple[float, float] | None = None,
        init: str = "average",
        key: Array,
    ) -> None:
        points = num_points if isinstance(num_points, Sequence) else (num_points,)
        self.num_points = tuple(count(n, "num_points") for n in points)
        if not self.num_points:
            raise ValueError("num_points: expected at least one axis, got (); give the points of the field, such as 1.")
        self.in_channels = count(in_channels, "in_channels")
        self.hidden_channels = width = count(hidden_channels, "hidden_channels")
        self.n_layers, self.affine = count(n_layers, "n_layers"), flag(affine, "affine")
        self.beta, self.alpha, self.code_range = check_numbers(beta, alpha, code_range)
        self.init = check_init(init)
        size = self.in_channels * math.prod(self.num_points)
        layer_key, readout_key, affine_key, code_key = jax.random.split(key, 4)
        shapes = [(None, (size, width), False), *((((width, width), (size, width), True),) * self.n_layers)]
        start = "clipped" if init == "published" else init
        self.layers = make_layers(shapes, start, self.code_range, layer_key)
        self.readout = positive((width,), width, start, readout_key)
        both = default_uniform((size + 1,), size, affine_key)
        self.slope, self.constant = (both[:-1], both[-1:]) if self.affine else (None, None)
        self.encoder = code_encoder(self.code_range, width, code_key)

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.num_points),), BOUNDARIES, "grid-locked")

    def check(self, y: Any) -> None:
        check_field(y, channels=self.in_channels, ndim=len(self.num_points), where="ConvexDense")
        if tuple(y.shape[1:]) != self.num_points:
            raise ValueError(
                f"u: ConvexDense is locked to the points {self.num_points} it was built for, got a field on "
                f"{tuple(y.shape[1:])}; use a ConvexConv or a ConvexIntegral, which take any number."
            )

    def stages(self, grid: tuple[int, ...]) -> list[Stage]:
        return [
            Stage(None if layer.main is None else _matrix(layer.main), _matrix(layer.skip), layer)
            for layer in self.layers
        ]

    def _inside(self, y: Array) -> Array:
        return y.reshape(-1)

    def _outside(self, f: Array, shape: tuple[int, ...]) -> Array:
        return f.reshape(shape)

    def _value(self, y: Array, features: Array | None) -> Array:
        value = super()._value(y, features)
        if self.slope is not None and self.constant is not None:
            value = value + jnp.sum(self.slope * y) + self.constant[0]
        return value

    def _gradient(self, y: Array, features: Array | None) -> Array:
        gradient = super()._gradient(y, features)
        return gradient if self.slope is None else gradient + self.slope


def _matrix(weight: Float[Array, "in out"]) -> Map:
    return Map(lambda x: x @ weight, lambda z: z @ weight.T)


def check_numbers(beta: Any, alpha: Any, code_range: Any) -> tuple[float, float, tuple[float, float] | None]:
    """Sharpness, strong convexity and noise levels as plain numbers."""
    beta, alpha = check_number(beta, "beta", above=0), check_number(alpha, "alpha", at_least=0)
    if code_range is not None:
        if not isinstance(code_range, Sequence) or len(code_range) != 2 or not 0 <= code_range[0] < code_range[1]:
            raise ValueError(
                f"code_range: expected the lowest and the highest noise level or None, got {code_range!r}; give e.g. "
                "(0.01, 0.2)."
            )
        code_range = float(code_range[0]), float(code_range[1])
    return beta, alpha, code_range


def check_init(init: Any) -> str:
    if init not in INITS:
        raise ValueError(f"init: expected one of {INITS}, got {init!r}; use one of these words.")
    return init


def default_uniform(shape: tuple[int, ...], fan_in: int, key: Array) -> Array:
    """PyTorch's default."""
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def positive(shape: tuple[int, ...], fan_in: int, init: str, key: Array) -> Array:
    """The start of a constrained weight."""
    if init == "published":
        return jnp.exp(0.1 * jax.random.normal(key, shape) - 10)
    if init == "clipped":
        return jnp.maximum(default_uniform(shape, fan_in, key), 0)
    if init == "sparse" and len(shape) > 1:
        chosen = jax.random.randint(key, shape[-1:], 0, fan_in)
        return jax.nn.one_hot(chosen, fan_in, axis=0).reshape(shape)
    return jax.random.uniform(key, shape, maxval=2 / fan_in)


def make_layers(
    shapes: Sequence[tuple[tuple[int, ...] | None, tuple[int, ...], bool]], init: str, code_range: Any, key: Array
) -> tuple[ConvexLayer, ...]:
    """Layers with kernels of these shapes, main and skip, and whether each has a bias."""
    layers = []
    for (main, skip, bias), k in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        main_key, skip_key, bias_key = jax.random.split(k, 3)
        fan_in = math.prod(skip[:-1])
        layers.append(
            ConvexLayer(
                None if main is None else positive(main, math.prod(main[:-1]), init, main_key),
                default_uniform(skip, fan_in, skip_key),
                default_uniform(skip[-1:], fan_in, bias_key) if bias else None,
                *(jnp.zeros((CODE_FEATURES, skip[-1])) if code_range else None for _ in range(2)),  # without effect yet
            )
        )
    return tuple(layers)


def code_encoder(code_range: Any, width: int, key: Array) -> tuple[Linear, ...]:
    """From the level to its features, and from these to the logarithm of what w is multiplied by."""
    if code_range is None:
        return ()
    first, second = jax.random.split(key)
    last = Linear(CODE_FEATURES, width, key=second)
    return Linear(1, CODE_FEATURES, key=first), jax.tree.map(jnp.zeros_like, last)
