"""The operator u -> -div(a grad u) on a box, by the conductances of the faces between points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope
from neuralops.solvers.algebra.null_space import Constants, NullSpace, floating_constants
from neuralops.solvers.elliptic.stencil import cut, in_series, outflow, sides
from neuralops.solvers.elliptic.volumes import Widths, check_widths, relative_volumes, side_weights, unit_faces

__all__ = ["Diffusion"]


class Diffusion(AbstractOperator):
    """The symmetric finite-volume operator A u = -div(a grad u), of second order, in any dimension.

    Row i is the outflow of the control volume of point i,
    A u_i = sum over faces of c_f (u_i - u_neighbour), divided by the uniform cell volume h_1 ... h_d. A face
    conductance c_f is the coefficient there, divided by h^2 of its axis. Beyond a Dirichlet wall the
    neighbour is zero; a Neumann wall conducts nothing. At a node-centred Neumann end the control volume
    is halved, and the row with it; cells may have their own `widths`. Either way A stays symmetric in the
    plain dot product. Hence A is the diagonal of relative control volumes times the strong form: right-hand
    sides are made from a source field by `load`.

    **Arguments:**

    - `grid`: where the field lives. Boundary words are homogeneous conditions.
    - `faces`: per axis the face conductances, already divided by h^2 and multiplied by the relative face
      area (1/2 along a node-centred Neumann wall). Along its own axis such an array has one entry more than the
      grid, from the low wall to the high wall; on a periodic axis as many, face i lying below point i.
      `None` means the unit coefficient. Commonly made by `Diffusion.from_coefficient`.
    - `widths`: the cells of a stretched grid: per axis `None` (uniform) or one width per cell, with the axis's extent
      as their sum; cell-centred axes only. Points are the centres `np.cumsum(w) - w / 2`. A face then conducts the
      coefficient times its relative area over h and over the distance of the centres it joins. Static, like the grid.
    - `connected`: promises that no part of the grid larger than a point is cut off by faces that conduct nothing.
      Without the promise `solve` looks for such parts, which singular right-hand sides need.

    Grid-locked: a field on another grid is refused.

    **Raises:** `ValueError` when the faces or widths do not fit the grid.
    """

    grid: Grid = eqx.field(static=True)
    faces: tuple[Array, ...] | None
    widths: Widths = eqx.field(static=True)
    connected: bool = eqx.field(static=True)

    symmetric: ClassVar[bool] = True  # `solve` need not find out

    def __init__(
        self,
        grid: Grid,
        faces: Sequence[Any] | None = None,
        widths: Sequence[Any] | None = None,
        *,
        connected: bool = False,
    ):
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        self.grid, self.widths, self.connected = grid, check_widths(grid, widths), flag(connected, "connected")
        self.faces = None
        if faces is not None:
            arrays = tuple(jnp.asarray(c) for c in faces)
            wanted = tuple(_face_shape(grid, a) for a in range(grid.ndim))
            if tuple(c.shape for c in arrays) != wanted:
                raise ValueError(
                    f"faces: expected one array per axis with shapes {wanted}, got "
                    f"{tuple(c.shape for c in arrays)}; use Diffusion.from_coefficient(grid, a)."
                )
            for c in arrays:
                _check_real("faces", c)
            self.faces = arrays

    @classmethod
    def from_coefficient(
        cls,
        grid: Grid,
        a: Any,
        *,
        mask: Any = None,
        mean: Literal["harmonic", "arithmetic"] = "harmonic",
        widths: Sequence[Any] | None = None,
    ) -> Diffusion:
        """The operator of a coefficient sampled at the grid's points; differentiable in `a`.

        A face takes the mean of its two points; a Dirichlet wall takes the adjacent point's coefficient over
        the distance to it (h at nodes, half a width in cells). Between cells of different widths the harmonic
        mean is that of two half cells in series, the arithmetic one the linear interpolation to the face.

        **Arguments:**

        - `grid`: where coefficient and solution live.
        - `a`: the coefficient, `(*grid,)` or `(1, *grid)`, not negative.
        - `mask`: boolean `(*grid,)` or `(1, *grid)`, true inside. Faces touching a point outside conduct nothing: an
          insulated obstacle. `A` returns zero outside, whatever `a` holds there. Without a mask `a` is taken to be
          positive, and parts of the grid that zeros cut off are not looked for: give `mask=a > 0` then.
        - `mean`: `"harmonic"` is right across jumps of the coefficient; `"arithmetic"` suits smooth ones.
        - `widths`: cell widths per axis, as in `Diffusion`.

        **Raises:** `ValueError` on a wrong shape, dtype, mean or width.
        """
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        if mean not in ("harmonic", "arithmetic"):
            raise ValueError(f"mean: expected 'harmonic' or 'arithmetic', got {mean!r}; use one of these words.")
        widths = check_widths(grid, widths)
        a = _scalar_field("a", jnp.asarray(a), grid)
        _check_real("a", a)
        inside = None
        if mask is not None:
            inside = _scalar_field("mask", jnp.asarray(mask), grid)
            if inside.dtype != jnp.bool_:
                raise ValueError(f"mask: expected booleans, true inside, got {inside.dtype}; use mask.astype(bool).")
            a = jnp.where(inside, a, 1)
        return cls(
            grid,
            [_faces_of(grid, widths, a, inside, axis, mean) for axis in range(grid.ndim)],
            widths,
            connected=inside is None,
        )

    @property
    def envelope(self) -> Envelope:
        words = tuple(sorted({end for axis in self.grid.axes for end in axis.ends}))
        return Envelope(ndim=(self.grid.ndim,), boundary=words, refinement="grid-locked")

    def __call__(self, u: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        """Applies the operator to the trailing axes; leading axes (channels) pass through."""
        self._check(u)
        u = jnp.asarray(u)
        return outflow(u, self.all_faces(u.dtype), [boundary == "periodic" for boundary in self.grid.boundary])

    def all_faces(self, dtype: Any = None) -> list[Array]:
        """Conductances per axis, one more than the points: on a periodic axis the first face again at the end.

        Of the unit coefficient, in `dtype` and with length 1 along axes on which they do not vary.
        """
        faces = self._conductances(self._dtype if dtype is None else dtype)
        wraps = [boundary == "periodic" for boundary in self.grid.boundary]
        return [lax.concatenate([c, cut(c, 0, 1, a)], a) if wraps[a] else c for a, c in enumerate(faces)]

    @property
    def placement(self) -> tuple[None, ...]:
        """Over which mesh axis, and into how many parts, each axis is divided: none (see `neuralops.sharding`)."""
        return (None,) * self.grid.ndim

    def diagonal(self) -> Float[Array, "*grid"]:
        """The diagonal of A; zero exactly at points that no face reaches (outside a mask)."""
        total = jnp.zeros((), self._dtype)
        for axis, c in enumerate(self.all_faces()):
            below, above = sides(c, axis)
            total = total + (below + above)
            if self.grid.boundary[axis] == "periodic" and self.grid.num_points[axis] == 1:
                total = total - (below + above)  # the single point is its own neighbour
        return jnp.broadcast_to(total, self.grid.shape)

    def load(self, f: Float[Array, "*lead *grid"]) -> Float[Array, "*lead *grid"]:
        """The right-hand side of -div(a grad u) = f: the source times the relative control volumes.

        Zero at points that no face reaches. The strong residual of a solution is (load(f) - A u) there divided
        by these volumes, which differ from 1 at node-centred Neumann ends and where `widths` are given.
        """
        self._check(f)
        f = jnp.asarray(f)
        return self._zero_outside(f * jnp.asarray(self._volumes(), f.dtype))

    def as_matrix(self) -> Float[Array, "points points"]:
        """The dense matrix in C order, for tests and small problems."""
        n = math.prod(self.grid.shape)
        basis = jnp.eye(n, dtype=self._dtype).reshape(n, *self.grid.shape)
        return self(basis).reshape(n, n).T

    def null_space(self) -> NullSpace | None:
        """What A cannot produce and cannot see; `solve` asks for it once.

        Constants on each component of points joined by conducting faces that no Dirichlet wall holds; a point that
        no face reaches is one by itself. The solution has zero mean on each.
        """
        volumes = jnp.broadcast_to(jnp.asarray(self._volumes(), self._dtype), self.grid.shape)
        if self.faces is None:
            return Constants(volumes) if self.singular else None
        if self.connected:
            isolated = self.diagonal() == 0
            return Constants(jnp.where(isolated, 0, volumes) if self.singular else None, isolated)
        return floating_constants(self.faces, [word == "periodic" for word in self.grid.boundary], volumes)

    def to_range(self, b: Float[Array, "*lead *grid"]) -> Float[Array, "*lead *grid"]:
        """Removes from a right-hand side what no field can produce."""
        null_space = self.null_space()
        return b if null_space is None else null_space.to_range(b)

    @property
    def singular(self) -> bool:
        """Whether no axis has a Dirichlet end, so that constants are in the null space."""
        return not any("dirichlet" in axis.ends for axis in self.grid.axes)

    @property
    def _dtype(self) -> Any:
        return jnp.zeros(()).dtype if self.faces is None else self.faces[0].dtype

    def _conductances(self, dtype: Any) -> tuple[Array, ...]:
        if self.faces is not None:
            return self.faces
        return tuple(jnp.asarray(unit_faces(self.grid, self.widths, axis), dtype) for axis in range(self.grid.ndim))

    def _volumes(self) -> np.ndarray:
        return relative_volumes(self.grid, self.widths)

    def _zero_outside(self, u: Array) -> Array:
        return u if self.faces is None else jnp.where(self.diagonal() > 0, u, 0)

    def _check(self, u: Any) -> None:
        shape, ndim = tuple(getattr(u, "shape", ())), self.grid.ndim
        if len(shape) < ndim or shape[-ndim:] != self.grid.shape:
            raise ValueError(
                f"u: Diffusion is locked to the grid {self.grid.shape} (leading axes free), got shape {shape}; build "
                "Diffusion.from_coefficient on the field's grid, or use resample(u, grid, new_grid)."
            )
        _check_real("u", u)


def _check_real(name: str, u: Any) -> None:
    if not jnp.issubdtype(u.dtype, jnp.floating):
        raise ValueError(f"{name}: expected a real floating array, got {u.dtype}; use {name}.astype(jnp.float32).")


def _scalar_field(name: str, a: Array, grid: Grid) -> Array:
    if a.shape == (1, *grid.shape):
        return a[0]
    if a.shape != grid.shape:
        raise ValueError(
            f"{name}: expected shape {grid.shape} or {(1, *grid.shape)}, got {a.shape}; use jax.vmap for a batch and "
            "resample(a, grid, new_grid) to change grids."
        )
    return a


def _face_shape(grid: Grid, axis: int) -> tuple[int, ...]:
    shape = list(grid.shape)
    shape[axis] += grid.boundary[axis] != "periodic"
    return tuple(shape)


def _faces_of(grid: Grid, widths: Widths, a: Array, inside: Array | None, axis: int, mean: str) -> Array:
    n, periodic = grid.num_points[axis], grid.boundary[axis] == "periodic"
    share_low, share_high = (jnp.asarray(share, a.dtype) for share in side_weights(grid, widths, axis))

    def joined(v: Array) -> tuple[Array, Array]:
        """The values below and above every face between two points."""
        below, above, last = (lax.slice_in_dim(v, *cut, axis=axis) for cut in ((0, n - 1), (1, n), (n - 1, n)))
        return (lax.concatenate([last, below], axis), v) if periodic else (below, above)

    low, high = joined(a)
    faces = share_high * low + share_low * high  # linear interpolation between the two points
    if mean == "harmonic":  # two half cells in series; two zeros conduct nothing
        faces = in_series(low, high, faces)
    if inside is not None:
        low, high = joined(inside)
        faces = jnp.where(low & high, faces, 0)
        a = jnp.where(inside, a, 0)
    if not periodic:
        first, last = lax.slice_in_dim(a, 0, 1, axis=axis), lax.slice_in_dim(a, n - 1, n, axis=axis)
        faces = lax.concatenate([first, faces, last], axis)
    return faces * jnp.asarray(unit_faces(grid, widths, axis), a.dtype)
