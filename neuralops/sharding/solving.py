"""Solvers on many devices: a grid divided into blocks over a mesh, with exchange of the layers between them.

Inside `jax.shard_map` a `BlockDiffusion` stands for the operator: it holds the conductances of its device's block and
asks its neighbours for one layer of the field per application. `solve`, `CG`, `FlexibleCG` and `Multigrid` take it like
a `Diffusion`; inner products are summed over the mesh, and coarse multigrid levels are gathered on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope
from neuralops.solvers import Diffusion, Solution
from neuralops.solvers import solve as solve_here
from neuralops.solvers.algebra.null_space import Constants
from neuralops.solvers.elliptic.stencil import after, cut, outflow, own_block, sides
from neuralops.solvers.elliptic.volumes import Widths, relative_volumes

__all__ = ["BlockDiffusion", "divided", "on_blocks", "solve"]

Placement = tuple[tuple[str, int] | None, ...]


class BlockDiffusion(AbstractOperator):
    """A device's block of a `Diffusion`, for use inside `jax.shard_map`; `neuralops.sharding.solve` makes it.

    **Arguments:**

    - `grid`: the whole grid.
    - `faces`: per axis the conductances of the block's faces, one more than its points.
    - `placement`: per axis the mesh axis and the number of parts, or `None` for an axis that is not divided.
    - `widths`: cell widths of the whole grid, as in `Diffusion`.
    - `connected`: as in `Diffusion`, and needed where no wall holds the field: components are not searched for across
      devices.
    """

    grid: Grid = eqx.field(static=True)
    faces: tuple[Array, ...]
    placement: Placement = eqx.field(static=True)
    widths: Widths = eqx.field(static=True)
    connected: bool = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        faces: Sequence[Array],
        placement: Placement,
        widths: Widths = None,
        *,
        connected: bool = True,
    ):
        self.grid, self.faces, self.placement = grid, tuple(faces), placement
        self.widths, self.connected = widths, flag(connected, "connected")

    @property
    def envelope(self) -> Envelope:
        return Diffusion(self.grid).envelope

    @property
    def mesh_axes(self) -> tuple[str, ...]:
        return tuple(place[0] for place in self.placement if place)

    def __call__(self, u: Float[Array, "*lead *block"], /, *, key: Array | None = None) -> Float[Array, "*lead *block"]:
        self._check(u)
        names = [place and place[0] for place in self.placement]
        return outflow(u, self.faces, [b == "periodic" for b in self.grid.boundary], names)

    def all_faces(self, dtype: Any = None) -> list[Array]:
        return list(self.faces)

    def diagonal(self) -> Float[Array, "*block"]:
        total = sum(below + above for below, above in (sides(c, axis) for axis, c in enumerate(self.faces)))
        return jnp.broadcast_to(total, self._shape)

    def null_space(self) -> Constants | None:
        """Constants, unless a wall holds the field, and whatever stands at points no face reaches."""
        isolated = self.diagonal() == 0
        if any("dirichlet" in axis.ends for axis in self.grid.axes):
            return Constants(None, isolated, mesh_axes=self.mesh_axes)
        volumes = jnp.broadcast_to(jnp.asarray(relative_volumes(self.grid, self.widths)), self.grid.shape)
        block = own_block(volumes.astype(self.faces[0].dtype), self.placement)
        return Constants(jnp.where(isolated, 0, block), isolated, mesh_axes=self.mesh_axes)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(n // (place[1] if place else 1) for n, place in zip(self.grid.shape, self.placement, strict=True))

    def _check(self, u: Any) -> None:
        ndim = self.grid.ndim
        if u.ndim < ndim or u.shape[u.ndim - ndim :] != self._shape:
            raise ValueError(
                f"u: expected a device's block {self._shape} of the grid {self.grid.shape}, got shape {u.shape}; call "
                "it inside jax.shard_map, with the field divided like the operator."
            )


def solve(
    A: Diffusion,
    b: Float[Array, "*grid"],
    method: Any,
    *,
    mesh: Mesh,
    axes: Sequence[str | None],
    x0: Float[Array, "*grid"] | None = None,
) -> Solution:
    """`neuralops.solve` on a grid divided over the devices of a mesh.

    ```python
    mesh = jax.make_mesh((4,), ("x",))
    solution = sharding.solve(A, b, lambda A: CG(1e-8, preconditioner=Multigrid(A)), mesh=mesh, axes=("x", None))
    ```

    Every device works on its block and exchanges single layers with its neighbours; no device ever holds the whole
    fine grid. Differentiable, and to be called inside `jax.jit` like `neuralops.solve`.

    **Arguments:**

    - `A`: the operator of the whole grid.
    - `b`, `x0`: fields of the whole grid, divided already or not.
    - `method`: a method, or a function from the block's operator to one: preconditioners that depend on the operator
      must be made on each device.
    - `mesh`, `axes`: the mesh, and for each axis of the grid the mesh axis that divides it, or `None`.

    **Returns:** a `Solution` whose value is divided like the grid.

    **Raises:** `ValueError` when the grid cannot be divided that way, or would fall into components that are unknown.
    """
    placement = _placement(A, mesh, axes)
    singular = not any("dirichlet" in axis.ends for axis in A.grid.axes)
    if singular and not (A.connected or A.faces is None):
        raise ValueError(
            "A: expected a promise that no face cuts the grid apart, got a singular operator without one; components "
            "are not searched for across devices. Use Diffusion(grid, faces, connected=True) if there is one only."
        )
    field = P(*axes)
    lows, lasts, low_specs, last_specs = [], [], [], []
    for axis, c in enumerate(A.all_faces(b.dtype)):
        n = A.grid.shape[axis]
        lows.append(cut(c, 0, n, axis))
        lasts.append(cut(c, n, None, axis))
        divided = [name if c.shape[a] > 1 else None for a, name in enumerate(axes)]
        low_specs.append(P(*divided))
        last_specs.append(P(*[None if a == axis else name for a, name in enumerate(divided)]))

    def on_block(lows: list[Array], lasts: list[Array], b: Array, x0: Array | None) -> Solution:
        faces = [
            _own_faces(low, last, axis, placement[axis])
            for axis, (low, last) in enumerate(zip(lows, lasts, strict=True))
        ]
        block = BlockDiffusion(A.grid, faces, placement, A.widths, connected=A.connected)
        made = method(block) if _is_recipe(method) else method
        return solve_here(block, b, made, x0=x0)

    out = Solution(field, P(), P(), P(), P(), P(), P())  # type: ignore[arg-type]
    return on_blocks(on_block, mesh, (lows, lasts, b, x0), (low_specs, last_specs, field, field), out)


def on_blocks(f: Callable[..., Any], mesh: Mesh, given: tuple[Any, ...], specs: tuple[Any, ...], out: Any) -> Any:
    """`f` on each device's blocks of what is given; `specs` and `out` say how that and the result are divided."""
    if jax.sharding.AxisType.Explicit in mesh.axis_types:  # such a mesh wants its arrays divided beforehand
        placed = lambda spec, tree: jax.tree.map(lambda u: jax.reshard(u, NamedSharding(mesh, spec)), tree)
        given = jax.tree.map(placed, specs, given, is_leaf=lambda spec: isinstance(spec, P))
    return jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(*given)


def _is_recipe(method: Any) -> bool:
    return callable(method) and not isinstance(method, eqx.Module)


def _own_faces(low: Array, last: Array, axis: int, place: tuple[str, int] | None) -> Array:
    """The faces of a block: those below its points, and the one above the last, which is the next block's first."""
    if place is None:
        return lax.concatenate([low, last], axis)
    following = after(cut(low, 0, 1, axis), False, place[0])
    closing = jnp.where(lax.axis_index(place[0]) == place[1] - 1, last, following)
    return lax.concatenate([low, closing], axis)


def _placement(A: Any, mesh: Mesh, axes: Sequence[str | None]) -> Placement:
    if not isinstance(A, Diffusion):
        raise ValueError(f"A: expected a Diffusion, got {type(A).__name__}; other operators exchange their own layers.")
    return divided(A.grid.shape, mesh, axes)


def divided(shape: Sequence[int], mesh: Mesh, axes: Sequence[str | None]) -> Placement:
    """Per axis of a grid the mesh axis that divides it, and into how many parts.

    **Raises:** `ValueError` where the axes are not those of the mesh or the points do not divide.
    """
    names = [name for name in axes if name is not None]
    if len(axes) != len(shape) or any(name not in mesh.axis_names for name in names) or len(set(names)) < len(names):
        raise ValueError(
            f"axes: expected {len(shape)} names among {mesh.axis_names} or None, got {axes!r}; name the mesh axis "
            "that divides each axis of the grid."
        )
    placement = tuple(None if name is None else (name, int(mesh.shape[name])) for name in axes)
    for a, (n, place) in enumerate(zip(shape, placement, strict=True)):
        if place and n % place[1]:
            raise ValueError(
                f"axes: expected a number of points divisible by the {place[1]} devices of {place[0]!r} on axis {a}, "
                f"got {n}; take a multiple of it, or divide another axis."
            )
    return placement
