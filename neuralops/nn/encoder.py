"""From a function to a code of finitely many numbers: the first half of a branch network.

An encoder is an operator whose output is `(1, numbers)`. One that reads the values at fixed sensors is locked to their
grid; `PointEncoder` reads a cloud of points and averages over it, so that order, number and padding do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.nn.pointwise import Linear, activation_named
from neuralops.operator import AbstractOperator, Envelope, check_field

BOUNDARIES = ("periodic", "dirichlet", "neumann")


def widths_of(value: Any, name: str, least: int = 1) -> tuple[int, ...]:
    """Widths of consecutive layers, at least `least` of them."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) < least:
        raise ValueError(f"{name}: expected widths of layers, got {value!r}; give a tuple such as (512, 256).")
    return tuple(count(width, name) for width in value)


def shape_of(value: Any, name: str) -> tuple[int, ...]:
    """The points of a grid of sensors; a number is one axis."""
    shape = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(count(n, name) for n in shape)


def dense(sizes: Sequence[int], key: Array) -> tuple[Linear, ...]:
    """Linear maps between consecutive sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(Linear(i, o, key=k) for i, o, k in zip(sizes[:-1], sizes[1:], keys, strict=True))


def perceptron(layers: Sequence[Linear], activation: str, x: Array) -> Array:
    """Layers with an activation between them, not after the last, on `(..., numbers)`."""
    act = activation_named(activation)
    for layer in layers[:-1]:
        x = act(layer.channels_last(x))
    return layers[-1].channels_last(x)


def check_sensors(u: Any, channels: int, sensors: tuple[int, ...], where: str) -> None:
    """Refuses a field that does not lie on the sensors.

    **Raises:** `ValueError` naming both shapes.
    """
    check_field(u, channels=channels, ndim=len(sensors), where=where)
    if u.shape[1:] != sensors:
        raise ValueError(
            f"u: {where} is locked to the sensors {sensors} it was built for, got a field on {u.shape[1:]}; "
            "bring the field to those points (no.resample), or build one with a PointEncoder, which takes any points."
        )


def check_given(given: Mapping[str, Any], takes: Collection[str], where: str) -> None:
    """Refuses `coords` and `mask` where values are read at fixed sensors.

    **Raises:** `ValueError` naming the keyword.
    """
    unknown = sorted(set(given) - set(takes))
    if unknown:
        raise ValueError(
            f"{unknown[0]}: expected None, because this {where} reads values at fixed sensors, got an array; build it "
            "with encoder=PointEncoder(...), which takes points and masks."
        )


class MLPEncoder(AbstractOperator):
    """A perceptron on the values at all sensors.

    Input `(in_channels, *sensors)`, output `(1, out_channels)`.

    **Arguments:**

    - `sensors`: points per axis of the input, or their number.
    - `in_channels`, `out_channels`: channels of the input, numbers of the code.
    - `hidden_channels`: widths of the layers between; may be none.
    - `activation`, `last_activation`: between the layers and after the last, by name.

    **Raises:** `ValueError` on arguments outside the above, and on a field that does not lie on the sensors.
    """

    layers: tuple[Linear, ...]
    sensors: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: tuple[int, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    last_activation: str = eqx.field(static=True)

    def __init__(
        self,
        sensors: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        hidden_channels: Sequence[int],
        *,
        activation: str = "silu",
        last_activation: str = "identity",
        key: Array,
    ) -> None:
        for name in (activation, last_activation):
            activation_named(name)
        self.sensors, self.activation = shape_of(sensors, "sensors"), activation
        self.last_activation = last_activation
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels = widths_of(hidden_channels, "hidden_channels", 0)
        first = self.in_channels * math.prod(self.sensors)
        self.layers = dense((first, *self.hidden_channels, self.out_channels), key)

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.sensors),), BOUNDARIES, "grid-locked")

    def __call__(self, u: Float[Array, " channels *sensors"], /, *, key: Array | None = None) -> Float[Array, "1 code"]:
        check_sensors(u, self.in_channels, self.sensors, "MLPEncoder")
        return activation_named(self.last_activation)(perceptron(self.layers, self.activation, u.reshape(1, -1)))


class ConvEncoder(AbstractOperator):
    """Strided convolutions, then a perceptron: the encoder of DGNO's smooth Darcy problem .

    Input `(in_channels, *sensors)`, output `(1, out_channels)`. The convolutions have no padding: 29 -> 14 -> 6 -> 2.
    It counts points and is no operator on functions, hence locked.

    **Arguments:** as in `MLPEncoder`, with `conv_channels`, the channels after each convolution, `kernel_size`, points
    of a kernel along every axis, and `stride`.

    **Raises:** `ValueError` on arguments outside the above, on sensors too few for the convolutions, and on a field
    that does not lie on the sensors.
    """

    kernels: tuple[Float[Array, "out in *window"], ...]
    biases: tuple[Float[Array, " out"], ...]
    layers: tuple[Linear, ...]
    sensors: tuple[int, ...] = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: tuple[int, ...] = eqx.field(static=True)
    conv_channels: tuple[int, ...] = eqx.field(static=True)
    kernel_size: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    last_activation: str = eqx.field(static=True)

    def __init__(
        self,
        sensors: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        hidden_channels: Sequence[int],
        *,
        conv_channels: Sequence[int] = (64, 64, 64),
        kernel_size: int = 3,
        stride: int = 2,
        activation: str = "silu",
        last_activation: str = "identity",
        key: Array,
    ) -> None:
        for name in (activation, last_activation):
            activation_named(name)
        self.sensors, self.activation = shape_of(sensors, "sensors"), activation
        self.kernel_size, self.stride = count(kernel_size, "kernel_size"), count(stride, "stride")
        self.last_activation = last_activation
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels = widths_of(hidden_channels, "hidden_channels", 0)
        self.conv_channels = widths_of(conv_channels, "conv_channels")
        points = self.sensors
        for _ in self.conv_channels:
            points = tuple((n - self.kernel_size) // self.stride + 1 for n in points)
        if min(points) < 1:
            raise ValueError(
                f"conv_channels: expected few enough convolutions for sensors {self.sensors}, got "
                f"{len(self.conv_channels)}; give fewer, or more sensors."
            )
        conv_key, dense_key = jax.random.split(key)
        kernels, biases, before = [], [], self.in_channels
        window = (self.kernel_size,) * len(self.sensors)
        for channels, key in zip(self.conv_channels, jax.random.split(conv_key, len(self.conv_channels)), strict=True):
            bound = 1 / math.sqrt(before * math.prod(window))  # PyTorch's default, as for Linear
            shapes = (channels, before, *window), (channels,)
            kernel, bias = (
                jax.random.uniform(k, shape, minval=-bound, maxval=bound)
                for k, shape in zip(jax.random.split(key), shapes, strict=True)
            )
            kernels.append(kernel)
            biases.append(bias)
            before = channels
        self.kernels, self.biases = tuple(kernels), tuple(biases)
        self.layers = dense((before * math.prod(points), *self.hidden_channels, self.out_channels), dense_key)

    @property
    def envelope(self) -> Envelope:
        return Envelope((len(self.sensors),), BOUNDARIES, "grid-locked")

    def __call__(self, u: Float[Array, " channels *sensors"], /, *, key: Array | None = None) -> Float[Array, "1 code"]:
        check_sensors(u, self.in_channels, self.sensors, "ConvEncoder")
        act = activation_named(self.activation)
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            u = jax.lax.conv_general_dilated(u[None], kernel, (self.stride,) * len(self.sensors), "VALID")[0]
            u = act(u + bias.reshape(-1, *(1,) * len(self.sensors)))
        return activation_named(self.last_activation)(perceptron(self.layers, self.activation, u.reshape(1, -1)))


class PointEncoder(AbstractOperator):
    """The mean over the points of a perceptron of value and place, then another perceptron.

    Input `(in_channels, *points)` with `coords` `(ndim, *points)`, output `(1, out_channels)`. The order of the points
    and what masked points hold change nothing. With points that fill the domain evenly the mean tends to an integral,
    at the rate of the rule that the points make.

    **Arguments:**

    - `in_channels`, `out_channels`: channels of the input, numbers of the code.
    - `hidden_channels`: widths of the layers, the same before and after the mean.
    - `ndim`: coordinates of a point.
    - `activation`: by name.

    **Raises:** `ValueError` on arguments outside the above, on missing coordinates, and where shapes do not fit.
    """

    inner: tuple[Linear, ...]
    outer: tuple[Linear, ...]
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: tuple[int, ...] = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: Sequence[int],
        *,
        ndim: int = 2,
        activation: str = "silu",
        key: Array,
    ) -> None:
        activation_named(activation)
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        self.hidden_channels, self.ndim = widths_of(hidden_channels, "hidden_channels"), count(ndim, "ndim")
        self.activation = activation
        inner_key, outer_key = jax.random.split(key)
        self.inner = dense((self.in_channels + self.ndim, *self.hidden_channels), inner_key)
        self.outer = dense((self.hidden_channels[-1], *self.hidden_channels, self.out_channels), outer_key)

    @property
    def envelope(self) -> Envelope:
        return Envelope((self.ndim,), BOUNDARIES, "consistent", order=1)

    def __call__(
        self,
        u: Float[Array, " channels *points"],
        /,
        *,
        coords: Float[Array, " ndim *points"] | None = None,
        mask: Any = None,
        key: Array | None = None,
    ) -> Float[Array, "1 code"]:
        check_field(u, channels=self.in_channels, ndim=None, where="PointEncoder")
        if coords is None or tuple(coords.shape) != (self.ndim, *u.shape[1:]):
            came = "none" if coords is None else f"shape {tuple(coords.shape)}"
            raise ValueError(
                f"coords: PointEncoder expects ({self.ndim}, points) = {(self.ndim, *u.shape[1:])} beside u, got "
                f"{came}; give op(u, coords=...), or fix them with no.at(op, coords=...)."
            )
        if mask is not None:
            u, coords = jnp.where(mask, u, 0), jnp.where(mask, coords, 0)
        x = jnp.concatenate([coords.astype(u.dtype), u]).reshape(self.ndim + self.in_channels, -1).T
        act = activation_named(self.activation)
        x = act(perceptron(self.inner, self.activation, x))
        if mask is None:
            mean = jnp.mean(x, 0)
        else:
            weight = jnp.broadcast_to(mask, u.shape[1:]).reshape(-1, 1).astype(x.dtype)
            mean = jnp.sum(weight * x, 0) / jnp.maximum(jnp.sum(weight), 1)
        return perceptron(self.outer, self.activation, mean[None])
