"""The network that corrects a classical multigrid cycle: where it starts, it is that cycle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.nn.pointwise import Linear, activation_named
from neuralops.operator import AbstractOperator, Envelope, check_field

__all__ = ["MultigridDirection"]


class MultigridDirection(AbstractOperator):
    """A small convolutional network for the `learned` argument of `Multigrid`.

    ```python
    channels = no.Multigrid.learned_channels(ndim=2, pre=2, post=2)
    network = no.MultigridDirection(*channels, ndim=2, key=key)  # the classical cycle, exactly
    M = no.Multigrid(A, coarsening="nodes", pre=2, post=2, learned=network)
    no.solve(A, b, no.CG(1e-6, preconditioner=M))
    ```

    One network serves the levels of all sizes: it reads the conductances of a level point by point and returns
    logarithms of factors, for the conductances of the next level, the interpolation and the relaxation. Its last
    layer starts at zero, so that all factors are 1. The cycle stays linear, and symmetric positive definite, whatever
    the parameters; a solve with `CG` is therefore right with any of them, and only the number of steps is learned. It
    acts when the cycle is built; a step of the solve costs a tenth to a quarter more.

    Trained by `solvers.energy_decay` on problems of the family it is meant for (`examples/learned_multigrid.py`).

    With h_0 = activation(K_0 u) and h_i = h_(i-1) + activation(K_i h_(i-1)), K_i a map of the channels of a point and,
    for i below `n_spatial`, of its neighbours along the axes (each with a bias), the output is W h_n + w, with W and w
    zero at the start. Set-up time is what such a network costs, hence a small one: corner neighbours and a smooth
    activation doubled it and bought two steps in a hundred (`docs/learned-directions.md`).

    **Arguments:**

    - `in_channels`, `out_channels`: see `Multigrid.learned_channels`.
    - `hidden_channels`: the width.
    - `n_layers`: hidden layers after the first.
    - `n_spatial`: so many of all layers look at neighbours too, the others at one point.
    - `ndim`: space dimensions.
    - `boundary`: per axis or for all; only whether it is `"periodic"` matters: there neighbours wrap around.
    - `activation`: by name.
    - `key`: for the initial values.

    Input `(in_channels, *grid)`, output `(out_channels, *grid)`, any grid. Refinement: *spacing-locked*.

    **Raises:** `ValueError` on arguments outside the above, and on fields of wrong rank, channels or dtype.
    """

    kernels: tuple[Float[Array, "width taps_width"], ...]
    biases: tuple[Float[Array, " width"], ...]
    last: Linear
    in_channels: int = eqx.field(static=True)
    out_channels: int = eqx.field(static=True)
    hidden_channels: int = eqx.field(static=True)
    n_layers: int = eqx.field(static=True)
    n_spatial: int = eqx.field(static=True)
    ndim: int = eqx.field(static=True)
    boundary: str | tuple[str, ...] = eqx.field(static=True)
    activation: str = eqx.field(static=True)

    derived = ("kernels", "biases", "last")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 16,
        *,
        n_layers: int = 1,
        n_spatial: int = 1,
        ndim: int = 2,
        boundary: str | Sequence[str] = "dirichlet",
        activation: str = "relu",
        key: Array,
    ) -> None:
        self.in_channels = in_channels = count(in_channels, "in_channels")
        self.out_channels = out_channels = count(out_channels, "out_channels")
        self.hidden_channels = hidden_channels = count(hidden_channels, "hidden_channels")
        self.n_layers = n_layers = count(n_layers, "n_layers", 0)
        self.n_spatial = n_spatial = count(n_spatial, "n_spatial", 0)
        self.ndim = ndim = count(ndim, "ndim", most=3, hint="networks on more dimensions are not there.")
        self.activation = activation
        if n_spatial > n_layers + 1:
            raise ValueError(
                f"n_spatial: expected at most n_layers + 1 = {n_layers + 1}, got {n_spatial}; add layers or take fewer."
            )
        activation_named(activation)
        self.boundary = boundary if isinstance(boundary, str) else tuple(boundary)
        words = (boundary,) * ndim if isinstance(boundary, str) else tuple(boundary)
        if len(words) != ndim or any(word not in ("periodic", "dirichlet", "neumann") for word in words):
            raise ValueError(
                f"boundary: expected 'periodic', 'dirichlet' or 'neumann', or one of these per axis ({ndim}), got "
                f"{boundary!r}; use boundary='dirichlet'."
            )
        kernels = []
        for i, layer_key in enumerate(jax.random.split(key, n_layers + 1)):
            fan_in = (hidden_channels if i else in_channels) * (2 * ndim + 1 if i < n_spatial else 1)
            kernels.append(jax.random.normal(layer_key, (hidden_channels, fan_in)) / math.sqrt(fan_in))
        self.kernels, self.biases = tuple(kernels), tuple(jnp.zeros(hidden_channels) for _ in kernels)
        self.last = jax.tree.map(jnp.zeros_like, Linear(hidden_channels, out_channels, key=key))

    @property
    def envelope(self) -> Envelope:
        return Envelope(ndim=(self.ndim,), boundary=("periodic", "dirichlet", "neumann"), refinement="spacing-locked")

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid"]:
        check_field(u, channels=self.in_channels, ndim=self.ndim, where=type(self).__name__)
        act: Any = activation_named(self.activation)
        layers = list(zip(self.kernels, self.biases, strict=True))
        h = act(self._affine(u, *layers[0], near=self.n_spatial > 0))
        for i, (kernel, bias) in enumerate(layers[1:], 1):
            h = h + act(self._affine(h, kernel, bias, near=i < self.n_spatial))
        return self._affine(h, self.last.weight, self.last.bias, near=False)

    def _affine(self, u: Array, kernel: Array, bias: Any, near: bool) -> Array:
        """Channels stay first: what follows takes them apart, and small products are fast either way."""
        columns = jnp.concatenate([u, *self._neighbours(u)]) if near else u
        out = kernel @ columns.reshape(columns.shape[0], -1) + bias[:, None]
        return out.reshape(-1, *u.shape[1:])

    def _neighbours(self, u: Array) -> Iterator[Array]:
        words = (self.boundary,) * self.ndim if isinstance(self.boundary, str) else self.boundary
        for axis, word in enumerate(words, 1):
            widths = [(1, 1) if a == axis else (0, 0) for a in range(u.ndim)]
            wide = jnp.pad(u, widths, mode="wrap" if word == "periodic" else "constant")
            for start in (0, 2):
                yield lax.slice_in_dim(wide, start, start + u.shape[axis], axis=axis)
