"""Maps that act on the values at one point: linear maps of the channels, small MLPs, gates, activations.

They are the same function on every grid, so they never spoil what a spectral layer keeps exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.nn.layer import AbstractLayer
from neuralops.operator import Envelope

ANY_GRID = Envelope(ndim=(1, 2, 3), boundary=("periodic", "dirichlet", "neumann"), refinement="exact")


def gelu(x: Array) -> Array:
    """The exact Gaussian error linear unit, x Phi(x).

    Written with `erf`: the same function as `jax.nn.gelu(x, approximate=False)`, which uses `erfc` and
    costs 14 to 18 % more of an FNO training step on a CPU.
    """
    return 0.5 * x * (1.0 + jax.lax.erf(x * (1.0 / math.sqrt(2.0))))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "identity": lambda x: x,
    # Those of MultiONet (Zang and Koutsourelakis 2025): a bounded wave, or a gate, on top of the identity. Their names
    # there are Tanh_Sin, SiLU_Sin, SiLU_Id and Sinc.
    "tanh_sin": lambda x: jnp.tanh(jnp.sin(math.pi * (x + 1))) + x,
    "silu_sin": lambda x: jax.nn.silu(jnp.sin(math.pi * (x + 1))) + x,
    "silu_id": lambda x: jax.nn.silu(x) + x,
    "x_sin": lambda x: x * jnp.sin(x),
}


def activation_named(name: str) -> Callable[[Array], Array]:
    """The activation function of that name.

    **Raises:** `ValueError` on an unknown name. Names, not functions, are stored in operators: they can
    be written to a checkpoint, and two operators share one compiled function.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}; use one of these names.")
    return ACTIVATIONS[name]


class Linear(AbstractLayer):
    """One linear map of the channels at every point, a 1 x 1 convolution.

    **Arguments:** `in_channels`, `out_channels`, `use_bias`, and `key` for the initial values, which are
    uniform in +-1/sqrt(in_channels) for weight and bias (the default of PyTorch's convolutions).
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"] | None
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    use_bias: bool = eqx.field(static=True)

    def __init__(self, in_channels: int, out_channels: int, *, use_bias: bool = True, key: Array) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.out_channels = out_channels = count(out_channels, "out_channels")
        self.use_bias = use_bias = flag(use_bias, "use_bias")
        weight_key, bias_key = jax.random.split(key)
        bound = 1 / math.sqrt(in_channels)
        self.weight = jax.random.uniform(weight_key, (out_channels, in_channels), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(bias_key, (out_channels,), minval=-bound, maxval=bound) if use_bias else None

    @property
    def envelope(self) -> Envelope:
        return ANY_GRID

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        v = u @ self.weight.T
        return v if self.bias is None else v + self.bias


class ChannelMLP(AbstractLayer):
    """A two-layer perceptron on the channels at every point.

    **Arguments:** `in_channels`, `out_channels`, `hidden_channels`, `activation` by name (not applied
    after the last layer), `key`.
    """

    first: Linear
    second: Linear
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    def __init__(
        self, in_channels: int, out_channels: int, hidden_channels: int, *, activation: str = "gelu", key: Array
    ) -> None:
        activation_named(activation)
        first_key, second_key = jax.random.split(key)
        self.hidden_channels = hidden_channels = count(hidden_channels, "hidden_channels")
        self.first = Linear(in_channels, hidden_channels, key=first_key)
        self.second = Linear(hidden_channels, out_channels, key=second_key)
        self.in_channels, self.out_channels = self.first.in_channels, self.second.out_channels
        self.activation = activation

    @property
    def envelope(self) -> Envelope:
        return ANY_GRID

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        return self.second.channels_last(activation_named(self.activation)(self.first.channels_last(u)))


class SoftGate(AbstractLayer):
    """Multiplies each channel by its own weight, one at the start."""

    weight: Float[Array, " channels"]
    in_channels: int = eqx.field(static=True)

    def __init__(self, in_channels: int, *, key: Array | None = None) -> None:
        self.in_channels = count(in_channels, "in_channels")
        self.weight = jnp.ones(in_channels)

    @property
    def envelope(self) -> Envelope:
        return ANY_GRID

    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels"]:
        return self.weight * u
