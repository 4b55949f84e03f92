"""The data term h(x) = scale |A x - y|^2 of a reconstruction."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["DataTerm", "Shifted"]

Field = Float[Array, "channels *grid"]


class DataTerm(NamedTuple):
    """h(x) = scale |A x - y|^2, with gradient 2 scale A^T (A x - y), whose Lipschitz constant is 2 scale |A|^2."""

    A: Any
    y: Array
    scale: Array
    norm: Array  # of A

    @property
    def lipschitz(self) -> Array:
        return 2 * self.scale * self.norm**2

    def value(self, x: Field) -> Array:
        return self.scale * jnp.sum((self.A(x) - self.y) ** 2)

    def gradient(self, x: Field) -> Field:
        return 2 * self.scale * self.A.adjoint(self.A(x) - self.y)


class Shifted(eqx.Module):
    """2 scale A^T A + rho I, the matrix of the data step, for `solve`."""

    A: Any
    scale: Array
    rho: Array
    symmetric: ClassVar[bool] = True  # by construction, so that `solve` need not find out

    def __call__(self, x: Field) -> Field:
        return 2 * self.scale * self.A.adjoint(self.A(x)) + self.rho * x


def length(x: Field) -> Array:
    """|x| for the account of a run, of which nothing is differentiated (a root has no derivative at zero)."""
    return jnp.sqrt(jnp.sum(jax.lax.stop_gradient(x) ** 2))
