"""A learned change of coordinates, so that a cloud of points lies well in a periodic box (Geo-FNO, Li et al. 2022)."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.nn.encoder import perceptron
from neuralops.nn.latent import ANY
from neuralops.nn.pointwise import Linear
from neuralops.operator import AbstractOperator, Envelope, check_field


class Deformation(AbstractOperator):
    """x -> x + x * MLP(features of x, and of a code where one is given), the map phi of Geo-FNO.

    The features of a point are its coordinates, its angle (in two dimensions) and its distance from `center`: a
    linear map of them, and their sines and cosines at the angular frequencies pi 2^j, j < width / 4. A linear map of
    the code stands beside them; without a code, a linear map of the features alone takes their place. Then four linear
    maps with tanh between. As published, the center is a little off zero, where the angle has no derivative.

    **Arguments:**

    - `ndim`: coordinates of a point.
    - `width`: of the feature map, a multiple of 4; the perceptron is four times as wide.
    - `code_channels`: numbers of the code that `code=` takes, or `None`. With them both branches exist, and a call may
      leave the code out, as in the published network.
    - `center`: where angle and distance are taken from, one number for all coordinates.

    Input `(ndim, *points)`, output the same shape.

    **Raises:** `ValueError` on counts that do not fit, and on a code that was not declared or of another size.
    """

    features: Linear
    with_code: Linear | None
    without_code: Linear
    layers: tuple[Linear, ...]
    ndim: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    code_channels: int | None = eqx.field(static=True)
    center: float = eqx.field(static=True)

    def __init__(
        self, ndim: int = 2, *, width: int = 32, code_channels: int | None = None, center: float = 1e-4, key: Array
    ) -> None:
        self.ndim, self.width = count(ndim, "ndim", most=3), count(width, "width", least=4)
        if self.width % 4:
            raise ValueError(f"width: expected a multiple of 4, got {width}; give e.g. 32.")
        self.code_channels = None if code_channels is None else count(code_channels, "code_channels")
        self.center = float(center)
        numbers = self.ndim + (2 if self.ndim == 2 else 1)
        keys = jax.random.split(key, 7)
        self.features = Linear(numbers, self.width, key=keys[0])
        wide, seen = 4 * self.width, self.width + 2 * numbers * (self.width // 4)
        self.with_code = None
        if self.code_channels is not None:  # fills up what the features leave
            self.with_code = Linear(self.code_channels, wide - seen, key=keys[1])
        self.without_code = Linear(seen, wide, key=keys[2])
        self.layers = (
            *(Linear(wide, wide, key=k) for k in keys[3:6]),
            Linear(wide, self.ndim, key=keys[6]),
        )

    @property
    def envelope(self) -> Envelope:
        return Envelope((1, 2, 3), ANY, "exact")

    def __call__(
        self,
        x: Float[Array, " ndim *points"],
        /,
        *,
        code: Float[Array, " numbers"] | None = None,
        key: Array | None = None,
    ) -> Float[Array, " ndim *points"]:
        check_field(x, channels=self.ndim, ndim=None, name="x", where="Deformation")
        if code is not None and tuple(jnp.shape(code)) != (self.code_channels,):
            wanted = "None" if self.code_channels is None else f"shape ({self.code_channels},)"
            raise ValueError(
                f"code: expected {wanted}, got shape {tuple(jnp.shape(code))}; build it with code_channels=."
            )
        places = x.reshape(self.ndim, -1).T
        moved = places - self.center
        radius = jnp.sqrt(jnp.sum(moved**2, -1, keepdims=True))
        angle = [jnp.arctan2(moved[:, 1:], moved[:, :1])] if self.ndim == 2 else []
        seen = jnp.concatenate([places, *angle, radius], -1)
        octaves = jnp.asarray([math.pi * 2**j for j in range(self.width // 4)], x.dtype)
        angles = (seen[:, :, None] * octaves).reshape(len(seen), -1)
        seen = jnp.concatenate([self.features.channels_last(seen), jnp.sin(angles), jnp.cos(angles)], -1)
        if code is None or self.with_code is None:
            seen = self.without_code.channels_last(seen)
        else:
            known = jnp.broadcast_to(self.with_code.channels_last(code), (len(seen), self.with_code.out_channels))
            seen = jnp.concatenate([known.astype(seen.dtype), seen], -1)
        places = places + places * perceptron(self.layers, "tanh", seen)
        return places.T.reshape(x.shape)
