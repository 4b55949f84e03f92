"""Darcy's equation with a flux that balances the source by construction: what is left is the constitutive law.

With s_p any flux of the source, -div s_p = f, every s = s_p + curl psi balances it exactly. Then for every u that
meets the Dirichlet condition (Prager and Synge 1947; Ladeveze and Leguillon 1983)

    integral of |s - a grad u|^2 / a  =  |||u - u*|||^2 + |||s - s*|||^2,

squares of the errors of u and of s in the energy norms, integral of a |grad u|^2 and of |s|^2 / a. So the loss is the
error itself, not a residual, a jump of a costs nothing, and its value bounds the error of u from above.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.pde.residuals.derivatives import Field, value_and_gradient
from neuralops.pde.residuals.weak import take
from neuralops.pde.weak_form import Box, check_domain, latin_hypercube


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class BalancedDarcy:
    """The constitutive law s = a grad u of -div(a grad u) = forcing at drawn points, s balancing the source exactly.

    Needs `fields["u"]`, one channel that meets the Dirichlet condition by a factor, and `fields["potential"]`: in two
    dimensions a stream function psi, one channel; in three a vector potential, three. The flux is

        s = -forcing (x - middle) / ndim + curl psi,    curl psi = (psi_y, -psi_x) in two dimensions.

    - `"constitutive"`: |s - a grad u|^2 / a at the points, `(points,)`. Its mean times the volume of the domain is the
      sum of the squared energy errors of u and s.

    **Arguments:**

    - `domain`: a pair (low, high) per axis, two or three axes.
    - `forcing`: a number.
    - `particular`: a hashable function from points `(ndim, *points)` to a flux `(ndim, *points)` of any other source
      f, with -div = f; then `forcing` is not used.
    - `num_points`: how many points a draw holds.

    **Raises:** `ValueError` on values out of range.
    """

    reduction: ClassVar[str] = "mean_square"
    squared: ClassVar[tuple[str, ...]] = ("constitutive",)

    domain: Box
    forcing: float = dataclasses.field(default=10.0, kw_only=True)
    particular: Callable[[Array], Array] | None = dataclasses.field(default=None, kw_only=True)
    num_points: int = dataclasses.field(default=400, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", check_domain(self.domain, "domain"))
        if len(self.domain) not in (2, 3):
            raise ValueError(f"domain: expected two or three axes, got {len(self.domain)}; a curl needs them.")
        object.__setattr__(self, "forcing", check_number(self.forcing, "forcing"))
        object.__setattr__(self, "num_points", count(self.num_points, "num_points"))
        if self.particular is not None and not callable(self.particular):
            raise ValueError(
                f"particular: expected a function of points or None, got {self.particular!r}; give a flux."
            )

    def draw(self, key: Array, dtype: Any = None) -> Float[Array, " ndim points"]:
        """A Latin hypercube of points in the domain."""
        return latin_hypercube(key, self.domain, self.num_points, jnp.result_type(float) if dtype is None else dtype)

    def flux(self, potential: Field, x: Float[Array, " ndim *points"]) -> Float[Array, " ndim *points"]:
        """The flux of a potential at points; its divergence is that of the source, whatever the potential."""
        if self.particular is not None:
            known = self.particular(x)
        else:
            middle = jnp.asarray([(low + high) / 2 for low, high in self.domain], x.dtype)
            known = (-self.forcing / len(self.domain)) * (x - middle.reshape(-1, *(1,) * (x.ndim - 1)))
        slope = value_and_gradient(potential, x)[1]  # (axis, channel, *points)
        if slope.shape[1] != (1 if len(self.domain) == 2 else 3):
            raise ValueError(
                f"potential: expected {1 if len(self.domain) == 2 else 3} channel(s) in {len(self.domain)} dimensions, "
                f"got {slope.shape[1]}; give a decoder with so many outputs."
            )
        if len(self.domain) == 2:
            return known + jnp.stack([slope[1, 0], -slope[0, 0]])
        return known + jnp.stack([slope[i - 2, i - 1] - slope[i - 1, i - 2] for i in range(3)])

    def residuals(
        self, points: Float[Array, " ndim *points"], a: Field, fields: Mapping[str, Field]
    ) -> dict[str, Float[Array, " *points"]]:
        """`"constitutive"` at points, from field functions `a`, `fields["u"]` and `fields["potential"]`."""
        u, potential = take(fields, ("u", "potential"))
        value = a(points)[0]
        mismatch = self.flux(potential, points) - value * value_and_gradient(u, points)[1][:, 0]
        return {"constitutive": jnp.sum(mismatch**2, axis=0) / value}
