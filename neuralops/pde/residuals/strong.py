"""Strong residuals of equations, pointwise or by differences on a grid: what the weak forms are compared with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.arguments import check_number, count
from neuralops.grid import Grid
from neuralops.operator import check_field
from neuralops.pde.residuals.derivatives import Field, second_derivatives, value_and_gradient
from neuralops.pde.residuals.weak import check_source, source_at, take
from neuralops.pde.weak_form import Box, check_domain, latin_hypercube


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class StrongDarcy:
    """The residual -a lap u - grad a . grad u - forcing of Darcy's equation at drawn points, for one sample.

    Derivatives by nested forward mode. Where a jumps its gradient is not seen: take `WeakDarcy` there.

    **Arguments:**

    - `domain`: a pair (low, high) per axis, one to three axes.
    - `forcing`: a number, or a hashable function from points `(ndim, *points)` to `(*points,)`.
    - `num_points`: how many points a draw holds.

    **Raises:** `ValueError` on values out of range.
    """

    domain: Box
    forcing: float | Callable[[Array], Array] = dataclasses.field(default=10.0, kw_only=True)
    num_points: int = dataclasses.field(default=1000, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", check_domain(self.domain, "domain"))
        object.__setattr__(self, "forcing", check_source(self.forcing))
        object.__setattr__(self, "num_points", count(self.num_points, "num_points"))

    def draw(self, key: Array, dtype: Any = None) -> Float[Array, " ndim points"]:
        """A Latin hypercube of points in the domain."""
        return _draw(self, key, dtype)

    def residuals(
        self, points: Float[Array, " ndim *points"], a: Field, fields: Mapping[str, Field]
    ) -> dict[str, Float[Array, " *points"]]:
        """`"balance"` at points `(ndim, *points)`, `(*points,)`, from field functions `a` and `fields["u"]`."""
        (u,) = take(fields, ("u",))
        _, slope, bend = second_derivatives(u, points)
        value, rate = value_and_gradient(a, points)
        return {"balance": -jnp.sum(value * bend + rate * slope, axis=0)[0] - source_at(self.forcing, points)}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class StrongBurgers:
    """The residual u_t + u u_x - viscosity u_xx at drawn points of space and time, for one sample.

    **Arguments:**

    - `domain`: the pairs (low, high) of x and of time.
    - `viscosity`: above 0.
    - `num_points`: how many points a draw holds.

    **Raises:** `ValueError` on values out of range.
    """

    domain: Box = ((-1.0, 1.0), (0.0, 1.0))
    viscosity: float = dataclasses.field(default=0.1 / math.pi, kw_only=True)
    num_points: int = dataclasses.field(default=1000, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", check_domain(self.domain, "domain"))
        if len(self.domain) != 2:
            raise ValueError(f"domain: expected the pairs of x and of time, got {self.domain}; give two.")
        object.__setattr__(self, "viscosity", check_number(self.viscosity, "viscosity", above=0.0))
        object.__setattr__(self, "num_points", count(self.num_points, "num_points"))

    def draw(self, key: Array, dtype: Any = None) -> Float[Array, " ndim points"]:
        """A Latin hypercube of points in the domain."""
        return _draw(self, key, dtype)

    def residuals(
        self, points: Float[Array, " 2 *points"], a: Any, fields: Mapping[str, Field]
    ) -> dict[str, Float[Array, " *points"]]:
        """`"balance"` at points `(2, *points)`, `(*points,)`, from `fields["u"]`; `a` is not used, may be `None`."""
        (u,) = take(fields, ("u",))
        along_x = jnp.zeros_like(points).at[0].set(1)
        along_t = jnp.zeros_like(points).at[1].set(1)
        slope = lambda x: jax.jvp(u, (x,), (along_x,))
        (value, u_x), (_, u_xx) = jax.jvp(slope, (points,), (along_x,))
        u_t = jax.jvp(u, (points,), (along_t,))[1]
        return {"balance": (u_t + value * u_x - self.viscosity * u_xx)[0]}


def darcy_differences(
    a: Float[Array, " 1 *grid"],
    u: Float[Array, " 1 *grid"],
    grid: Grid,
    *,
    forcing: float | Callable[[Array], Array] = 10.0,
) -> Float[Array, " 1 *inner"]:
    """The residual -div(a grad u) - forcing by central differences on a closed grid of nodes (PINO, PI-DeepONet).

    As Zang and Koutsourelakis have it: the first differences over two spacings, once for grad u and once more for the
    divergence of a grad u; each loses a layer of nodes, so that two are lost on every side. The stencil reaches two
    nodes along each axis and leaves out those between: it does not see a u that alternates from node to node. Of second
    order where a is smooth; across a jump of a it is not consistent.

    **Arguments:**

    - `a`, `u`: coefficient and solution on the grid, walls included.
    - `grid`: nodes with both ends, `Grid(..., boundary="neumann", centering="node")`, at least 5 per axis.
    - `forcing`: a number, or a function from points `(ndim, *points)` to `(*points,)`.

    **Raises:** `ValueError` on another grid, or fields that are not on it.
    """
    if (
        any(axis.ends != ("neumann", "neumann") or axis.centering != "node" for axis in grid.axes)
        or min(grid.shape) < 5
    ):
        raise ValueError(
            f"grid: expected at least 5 nodes per axis, both ends held, got {grid}; use "
            'Grid(..., boundary="neumann", centering="node").'
        )
    for name, field in (("a", a), ("u", u)):
        check_field(field, channels=1, ndim=grid.ndim, name=name, where="darcy_differences")
        grid.check(field, name)
    within = (slice(1, -1),) * grid.ndim
    total = jnp.zeros((), jnp.asarray(u).dtype)
    for axis, h in enumerate(grid.spacing):
        flux = a[0][within] * _central(u[0], axis, h)
        total = total + _central(flux, axis, h)
    inner = jnp.asarray(grid.coordinates()[(slice(None), *[slice(2, -2)] * grid.ndim)], total.dtype)
    return (-total - source_at(check_source(forcing), inner))[None]


def _central(w: Array, axis: int, spacing: float) -> Array:
    """The central first difference along an axis at the inner nodes of all axes."""
    pick = lambda part: w[tuple(part if a == axis else slice(1, -1) for a in range(w.ndim))]
    return (pick(slice(2, None)) - pick(slice(None, -2))) / (2 * spacing)


def _draw(equation: StrongDarcy | StrongBurgers, key: Array, dtype: Any) -> Array:
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    return latin_hypercube(key, equation.domain, equation.num_points, dtype)
