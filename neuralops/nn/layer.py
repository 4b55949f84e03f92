"""Channels first outside, channels last inside.

With the channels last in memory every pointwise map and its gradient is a matrix product without a
transposition of the field, under `vmap` too; with the channels first XLA inserts one for each gradient. A layer
therefore defines `channels_last`, models chain those, and `__call__` shows the face that all operators share.
"""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.operator import AbstractOperator, check_field


class AbstractLayer(AbstractOperator):
    """An operator that is defined on channels-last arrays."""

    in_channels: eqx.AbstractVar[int]

    @abstractmethod
    def channels_last(self, u: Float[Array, "*grid channels"]) -> Float[Array, "*grid channels_out"]:
        """The same map on `(*grid, channels)`, without checks."""

    def __call__(
        self, u: Float[Array, " channels *grid"], /, *, key: Array | None = None
    ) -> Float[Array, " channels_out *grid"]:
        ndim = self.envelope.ndim
        check_field(u, channels=self.in_channels, ndim=ndim[0] if len(ndim) == 1 else None, where=type(self).__name__)
        return jnp.moveaxis(self.channels_last(jnp.moveaxis(u, 0, -1)), -1, 0)
