"""DeepONet and MultiONet: the output is an inner product of functions of the input and functions of the place.

DeepONet (Lu et al. 2021) takes the inner product of two last layers. MultiONet (Zang and Koutsourelakis 2025,
J. Comput. Phys. 538, 114137; arXiv 2502.06250) averages it over the last layers of two networks of equal width.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.models.branch_trunk import (
    AbstractBranchTrunk,
    check_branch,
    check_domain,
    check_factor,
    check_lift,
    checked_widths,
)
from neuralops.nn.encoder import dense, perceptron
from neuralops.nn.pointwise import Linear, activation_named

VARIANTS = ("sum", "x")


class MultiONet(AbstractBranchTrunk):
    """The mean over the last L layers of the inner products of branch and trunk.

    With branch b and trunk t of equal widths and activations s_b, s_t after every layer,

        G(u)(x) = (1 / L) sum_{k in the last L layers} w_k <b^(k), t^(k)> + b_0,

    where w_k and b_0 are trained and start at zero: so does the output, and the first step moves them alone.
    Several output functions have their own w and b_0 and a share of the units each. In the variant `"x"` the values at
    every sensor, or every number of the encoder's code, go through the branch alone, A^(k) `(sensors, width)`, and a
    linear map with a bias takes (1 / L) sum_k <A^(k), t^(k)>, one number for each of them, to the outputs; it has no w.

    Input `(in_channels, *sensors)`, output `(out_channels, *points)` at `query` `(ndim, *points)`.

    **Arguments:**

    - `sensors`: where the input is given: a `Grid`, points per axis, or a count for a vector `(in_channels, count)`;
      `None` with an encoder that takes any points. On a `Grid` of the output's dimension, `op(u)` gives values there.
    - `in_channels`, `out_channels`: input and output functions.
    - `hidden_channels`: the width of all layers; with several outputs a multiple of their number.
    - `n_layers`: layers of branch and of trunk, the first included.
    - `sum_layers`: L, the layers whose inner products are averaged, below `n_layers`.
    - `trunk_activation`, `branch_activation`: by name; the paper's are `"tanh_sin"`, `"silu_sin"` and `"silu_id"`.
    - `variant`: `"sum"` or `"x"`.
    - `encoder`: an operator in front of the branch, such as `nn.ConvEncoder`; its code takes the place of the values.
    - `domain`: the box `((low, high), ...)` of the output's points, one pair for each of their coordinates; by default
      that of the grid, or the unit square.
    - `factor`: where the output vanishes, exactly: `None`, or per axis `None`, `"both"`, `"low"`, `"high"` for a sine
      that is zero at those ends; or a function from points `(ndim, points)` to `(points,)`.
    - `lift`: a function from points to `(points,)` or `(out_channels, points)` that is added after the factor.
    - `chunk_size`: evaluates at most so many points at once; a matter of memory only.

    **Raises:** `ValueError` on arguments outside the above, on inputs of other sensors and on points outside the domain
    (as far as they are known before compilation).
    """

    trunk: tuple[Linear, ...]
    branch: tuple[Linear, ...]
    weight: Float[Array, "layers out"] | None
    bias: Float[Array, " out"] | None
    head: Linear | None
    encoder: Any
    sensors: Any = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    sum_layers: int = eqx.field(static=True)
    trunk_activation: str = eqx.field(static=True)
    branch_activation: str = eqx.field(static=True)
    variant: str = eqx.field(static=True)
    domain: tuple[tuple[float, float], ...] = eqx.field(static=True)
    factor: Any = eqx.field(static=True)
    lift: Any = eqx.field(static=True)
    chunk_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        sensors: Any,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        n_layers: int = 6,
        sum_layers: int = 5,
        trunk_activation: str = "tanh_sin",
        branch_activation: str = "tanh_sin",
        variant: str = "sum",
        encoder: Any = None,
        domain: Any = None,
        factor: Any = None,
        lift: Any = None,
        chunk_size: int | None = None,
        key: Array,
    ) -> None:
        for name in (trunk_activation, branch_activation):
            activation_named(name)
        if variant not in VARIANTS:
            raise ValueError(f"variant: expected one of {VARIANTS}, got {variant!r}; use one of these words.")
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        widths = checked_widths(hidden_channels, n_layers)
        self.hidden_channels, self.n_layers, self.variant = widths[0], len(widths), variant
        self.sum_layers = count(sum_layers, "sum_layers")
        if self.sum_layers >= self.n_layers:
            raise ValueError(
                f"sum_layers: expected fewer than the {self.n_layers} layers, because the first one is not summed, got "
                f"{sum_layers}; give at most {self.n_layers - 1}, or more n_layers."
            )
        if variant == "sum" and self.hidden_channels % self.out_channels:
            raise ValueError(
                f"hidden_channels: expected a multiple of the {self.out_channels} outputs, which share the units, got "
                f"{hidden_channels}; round it up, or use variant='x'."
            )
        self.trunk_activation, self.branch_activation = trunk_activation, branch_activation
        self.sensors, numbers = check_branch(encoder, sensors, self.in_channels)
        self.encoder, self.domain = encoder, check_domain(domain, sensors)
        self.factor, self.lift = check_factor(factor, len(self.domain)), check_lift(lift)
        self.chunk_size = None if chunk_size is None else count(chunk_size, "chunk_size")
        trunk_key, branch_key, head_key = jax.random.split(key, 3)
        self.trunk = dense((len(self.domain), *widths), trunk_key)
        plain = variant == "sum"
        alone = 1 if encoder is not None else self.in_channels  # in the variant "x", at once through the branch
        self.branch = dense((numbers if plain else alone, *widths), branch_key)
        self.weight = jnp.zeros((self.sum_layers, self.out_channels)) if plain else None
        self.bias = jnp.zeros(self.out_channels) if plain else None
        self.head = None if plain else Linear(numbers // alone, self.out_channels, key=head_key)

    @classmethod
    def paper(cls, name: str, *, key: Array, **changes: Any) -> MultiONet:
        """A configuration of the authors' code, for codes of 128 numbers and points in two dimensions.

        | name | configuration | parameters |
        | --- | --- | --- |
        | `"width100_l5"` | 6 layers of 100, the last 5 averaged (smooth Darcy, Burgers) | 114,206 |
        | `"width100_l4"` | 5 layers of 100, the last 4 averaged (two-phase Darcy) | 94,005 |
        | `"width128_l4"` | 5 layers of 128, the last 4 averaged | 148,997 |
        | `"x_variant"` | 6 layers of 100, variant `"x"`, three outputs (Stokes) | 101,887 |

        `changes` override single arguments.
        """
        if name not in _PAPER:
            raise ValueError(f"name: expected one of {sorted(_PAPER)}, got {name!r}; use one of these names.")
        return cls(**{**_PAPER[name], **changes}, key=key)

    @property
    def offset(self) -> Float[Array, " out"]:
        offset = self.bias if self.head is None else self.head.bias
        assert offset is not None
        return offset

    def trunk_of(self, x: Float[Array, "points ndim"]) -> Float[Array, "points terms"]:
        return jnp.concatenate(self._layers(self.trunk, self.trunk_activation, x), -1)

    def code_of(self, v: Float[Array, " numbers"]) -> Float[Array, "terms out"]:
        if self.head is not None:  # every sensor for itself; the linear map of the inner products goes into the code
            layers = self._layers(self.branch, self.branch_activation, v.reshape(-1, self.head.in_channels).T)
            return jnp.concatenate([layer.T @ self.head.weight.T for layer in layers]) / self.sum_layers
        assert self.weight is not None
        layers = self._layers(self.branch, self.branch_activation, v)
        share = self.hidden_channels // self.out_channels
        own = jnp.repeat(jnp.eye(self.out_channels, dtype=v.dtype), share, 0)  # which unit belongs to which output
        return jnp.concatenate(
            [b[:, None] * own * (w / self.sum_layers) for b, w in zip(layers, self.weight, strict=True)]
        )

    def _layers(self, net: tuple[Linear, ...], activation: str, x: Array) -> list[Array]:
        """The last L layers of a network, each after its activation."""
        act = activation_named(activation)
        values = []
        for layer in net:
            x = act(layer.channels_last(x))
            values.append(x)
        return values[-self.sum_layers :]


class DeepONet(AbstractBranchTrunk):
    """The inner product of the last layers of two networks, G(u)(x) = <b(u), t(x)> + b_0 (Lu et al. 2021).

    Several output functions have a share of the units each (called "split both" elsewhere).

    Input `(in_channels, *sensors)`, output `(out_channels, *points)` at `query` `(ndim, *points)`.

    **Arguments:** those of `MultiONet` that are named alike, and

    - `n_layers`: linear maps of the trunk, and of the branch unless `branch_layers` says otherwise.
    - `branch_layers`: linear maps of the branch; with 0 the encoder's code, of `hidden_channels` numbers, is all of it.
    - `last_activation`: after the last layer of both, or a pair (trunk, branch); by default the trunk has its own, the
      branch none, as in the code of DeepONet's and of MultiONet's authors.

    **Raises:** `ValueError`, as `MultiONet`.
    """

    trunk: tuple[Linear, ...]
    branch: tuple[Linear, ...]
    bias: Float[Array, " out"]
    encoder: Any
    sensors: Any = eqx.field(static=True)
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    branch_layers: int = eqx.field(static=True)
    trunk_activation: str = eqx.field(static=True)
    branch_activation: str = eqx.field(static=True)
    last_activation: tuple[str, str] = eqx.field(static=True)
    domain: tuple[tuple[float, float], ...] = eqx.field(static=True)
    factor: Any = eqx.field(static=True)
    lift: Any = eqx.field(static=True)
    chunk_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        sensors: Any,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        *,
        n_layers: int = 5,
        branch_layers: int | None = None,
        trunk_activation: str = "tanh_sin",
        branch_activation: str = "tanh_sin",
        last_activation: Any = None,
        encoder: Any = None,
        domain: Any = None,
        factor: Any = None,
        lift: Any = None,
        chunk_size: int | None = None,
        key: Array,
    ) -> None:
        ends = (trunk_activation, "identity") if last_activation is None else last_activation
        ends = (ends,) * 2 if isinstance(ends, str) else tuple(ends)
        for name in (trunk_activation, branch_activation, *ends):
            activation_named(name)
        if len(ends) != 2:
            raise ValueError(
                f"last_activation: expected a name or a pair (trunk, branch), got {last_activation!r}; give 'identity'."
            )
        self.in_channels, self.out_channels = count(in_channels, "in_channels"), count(out_channels, "out_channels")
        widths = checked_widths(hidden_channels, n_layers)
        self.hidden_channels, self.n_layers = widths[0], len(widths)
        if self.hidden_channels % self.out_channels:
            raise ValueError(
                f"hidden_channels: expected a multiple of the {self.out_channels} outputs, which share the units, got "
                f"{hidden_channels}; round it up."
            )
        self.trunk_activation, self.branch_activation, self.last_activation = trunk_activation, branch_activation, ends
        self.sensors, numbers = check_branch(encoder, sensors, self.in_channels)
        self.encoder, self.domain = encoder, check_domain(domain, sensors)
        self.factor, self.lift = check_factor(factor, len(self.domain)), check_lift(lift)
        self.chunk_size = None if chunk_size is None else count(chunk_size, "chunk_size")
        branch_layers = self.n_layers if branch_layers is None else count(branch_layers, "branch_layers", 0)
        if not branch_layers and (encoder is None or numbers != self.hidden_channels):
            raise ValueError(
                f"branch_layers: expected 0 only with an encoder to {self.hidden_channels} numbers, hidden_channels, "
                f"got {'no encoder' if encoder is None else f'one to {numbers}'}; give 1 or more."
            )
        self.branch_layers = branch_layers
        trunk_key, branch_key = jax.random.split(key)
        self.trunk = dense((len(self.domain), *widths), trunk_key)
        self.branch = dense((numbers, *widths[:1] * self.branch_layers), branch_key)
        self.bias = jnp.zeros(self.out_channels)

    @property
    def offset(self) -> Float[Array, " out"]:
        return self.bias

    def trunk_of(self, x: Float[Array, "points ndim"]) -> Float[Array, "points terms"]:
        return activation_named(self.last_activation[0])(perceptron(self.trunk, self.trunk_activation, x))

    def code_of(self, v: Float[Array, " numbers"]) -> Float[Array, "terms out"]:
        v = perceptron(self.branch, self.branch_activation, v) if self.branch else v
        b = activation_named(self.last_activation[1])(v)
        share = self.hidden_channels // self.out_channels
        return b[:, None] * jnp.repeat(jnp.eye(self.out_channels, dtype=b.dtype), share, 0)


_PAPER: dict[str, dict[str, Any]] = {
    "width100_l5": {"hidden_channels": 100, "n_layers": 6, "sum_layers": 5},
    "width100_l4": {"hidden_channels": 100, "n_layers": 5, "sum_layers": 4},
    "width128_l4": {"hidden_channels": 128, "n_layers": 5, "sum_layers": 4},
    "x_variant": {"hidden_channels": 100, "n_layers": 6, "sum_layers": 5, "variant": "x", "out_channels": 3},
}
_PAPER = {name: {"sensors": 128, "in_channels": 1, "out_channels": 1, **config} for name, config in _PAPER.items()}
