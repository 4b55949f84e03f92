"""The operator u -> -div(a grad u) on a uniform grid, by the conductances of the faces between points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from neuralops import transforms
from neuralops.grid import Grid
from neuralops.operator import AbstractOperator, Envelope

__all__ = ["Diffusion"]


class Diffusion(AbstractOperator):
    """The symmetric finite-volume operator A u = -div(a grad u), of second order, in any dimension.

    Row i is the outflow of the control volume of point i,
    A u_i = sum over faces of c_f (u_i - u_neighbour), divided by the full cell volume h_1 ... h_d. A face
    conductance c_f is the coefficient there, divided by h^2 of its axis. Beyond a Dirichlet wall the
    neighbour is zero; a Neumann wall conducts nothing. At a node-centred Neumann end the control volume
    is halved, and the row with it, which keeps A symmetric in the plain dot product. Hence A is the
    diagonal of relative control volumes times the strong form: right-hand sides are made from a source
    field by `load`.

    **Arguments:**

    - `grid`: where the field lives. Boundary words are homogeneous conditions.
    - `faces`: per axis the face conductances, already divided by h^2 and multiplied by the relative face
      area (1/2 along a node-centred Neumann wall). Along its own axis such an array has one entry more than the
      grid, from the low wall to the high wall; on a periodic axis as many, face i lying below point i.
      `None` means the unit coefficient. Commonly made by `Diffusion.from_coefficient`.

    Grid-locked: a field on another grid is refused.

    **Raises:** `ValueError` when the faces do not fit the grid.
    """

    grid: Grid = eqx.field(static=True)
    faces: tuple[Array, ...] | None

    def __init__(self, grid: Grid, faces: Sequence[Any] | None = None):
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        self.grid = grid
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
        cls, grid: Grid, a: Any, *, mask: Any = None, mean: Literal["harmonic", "arithmetic"] = "harmonic"
    ) -> Diffusion:
        """The operator of a coefficient sampled at the grid's points; differentiable in `a`.

        A face takes the mean of its two points; a Dirichlet wall takes the adjacent point's coefficient over
        the distance to it (h at nodes, h/2 in cells).

        **Arguments:**

        - `grid`: where coefficient and solution live.
        - `a`: the coefficient, `(*grid,)` or `(1, *grid)`, not negative.
        - `mask`: boolean `(*grid,)` or `(1, *grid)`, true inside. Faces touching a point outside conduct nothing: an
          insulated obstacle. `A` returns zero outside, whatever `a` holds there.
        - `mean`: `"harmonic"` is right across jumps of the coefficient; `"arithmetic"` suits smooth ones.

        **Raises:** `ValueError` on a wrong shape, dtype or mean.
        """
        if not isinstance(grid, Grid):
            raise ValueError(f"grid: expected a Grid, got {type(grid).__name__}; make one with Grid(num_points).")
        if mean not in ("harmonic", "arithmetic"):
            raise ValueError(f"mean: expected 'harmonic' or 'arithmetic', got {mean!r}; use one of these words.")
        a = _scalar_field("a", jnp.asarray(a), grid)
        _check_real("a", a)
        inside = None
        if mask is not None:
            inside = _scalar_field("mask", jnp.asarray(mask), grid)
            if inside.dtype != jnp.bool_:
                raise ValueError(f"mask: expected booleans, true inside, got {inside.dtype}; use mask.astype(bool).")
            a = jnp.where(inside, a, 1)
        return cls(grid, [_faces_of(grid, a, inside, axis, mean) for axis in range(grid.ndim)])

    @property
    def envelope(self) -> Envelope:
        words = tuple(sorted({end for axis in self.grid.axes for end in axis.ends}))
        return Envelope(ndim=(self.grid.ndim,), boundary=words, refinement="grid-locked")

    def __call__(self, u: Float[Array, "*lead *grid"], /, *, key: Array | None = None) -> Float[Array, "*lead *grid"]:
        """Applies the operator to the trailing axes; leading axes (channels) pass through."""
        self._check(u)
        u = jnp.asarray(u)
        out: Array | None = None
        for axis, c in enumerate(self._conductances(u.dtype)):
            dim, periodic = u.ndim - self.grid.ndim + axis, self.grid.boundary[axis] == "periodic"
            below, above = _sides(c, c.ndim - self.grid.ndim + axis, periodic)
            # Shifted copies by concatenation: of nine forms (pads, rolls, fluxes, flat shifts, barriers) the
            # fastest on two CPU cores in float64, 34 us at 256^2 and 0.94 ms at 1024^2 (padded fluxes: 58, 1.4).
            low, high = _neighbours(u, dim, periodic)
            term = below * (u - low) + above * (u - high)
            out = term if out is None else out + term
        assert out is not None
        return out

    def diagonal(self) -> Float[Array, "*grid"]:
        """The diagonal of A; zero exactly at points that no face reaches (outside a mask)."""
        total = jnp.zeros((), self._dtype)
        for axis, c in enumerate(self._conductances(self._dtype)):
            below, above = _sides(c, axis, self.grid.boundary[axis] == "periodic")
            total = total + (below + above)
            if self.grid.boundary[axis] == "periodic" and self.grid.num_points[axis] == 1:
                total = total - (below + above)  # the single point is its own neighbour
        return jnp.broadcast_to(total, self.grid.shape)

    def load(self, f: Float[Array, "*lead *grid"]) -> Float[Array, "*lead *grid"]:
        """The right-hand side of -div(a grad u) = f: the source times the relative control volumes.

        Zero at points that no face reaches. The strong residual of a solution is (load(f) - A u) there divided
        by these volumes, which differ from 1 at node-centred Neumann ends only.
        """
        self._check(f)
        f = jnp.asarray(f)
        return self._zero_outside(f * jnp.asarray(self._volumes(), f.dtype))

    def as_matrix(self) -> Float[Array, "points points"]:
        """The dense matrix in C order, for tests and small problems."""
        n = math.prod(self.grid.shape)
        basis = jnp.eye(n, dtype=self._dtype).reshape(n, *self.grid.shape)
        return self(basis).reshape(n, n).T

    def to_range(self, b: Float[Array, "*lead *grid"]) -> Float[Array, "*lead *grid"]:
        """Removes from a right-hand side what no field can produce; `solve` calls it.

        That is everything at points no face reaches and, without a Dirichlet end, the mean source.
        """
        b = self._zero_outside(b)
        if not self.singular:
            return b
        weights, axes = self._inside_volumes(b.dtype), tuple(range(-self.grid.ndim, 0))
        return b - weights * (jnp.sum(b, axes, keepdims=True) / jnp.sum(weights))

    def fix_gauge(self, u: Float[Array, "*lead *grid"]) -> Float[Array, "*lead *grid"]:
        """Picks one of the solutions that differ by the null space; `solve` calls it.

        Zero at points no face reaches and, without a Dirichlet end, of zero mean. It is the transpose of
        `to_range`, which keeps the inverse symmetric.
        """
        u = self._zero_outside(u)
        if not self.singular:
            return u
        weights, axes = self._inside_volumes(u.dtype), tuple(range(-self.grid.ndim, 0))
        mean = jnp.sum(u * weights, axes, keepdims=True) / jnp.sum(weights)
        return self._zero_outside(u - mean)

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
        return tuple(jnp.asarray(_unit_faces(self.grid, axis), dtype) for axis in range(self.grid.ndim))

    def _volumes(self) -> np.ndarray:
        return _outer([transforms.relative_weights(axis) for axis in self.grid.axes])

    def _inside_volumes(self, dtype: Any) -> Array:
        return self._zero_outside(jnp.broadcast_to(jnp.asarray(self._volumes(), dtype), self.grid.shape))

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


def _outer(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The outer product of one profile per axis; a profile of ones stays a broadcast axis of length 1."""
    total = np.ones((1,) * len(factors))
    for axis, profile in enumerate(factors):
        if np.any(profile != 1):
            total = total * profile.reshape([-1 if a == axis else 1 for a in range(len(factors))])
    return total


def _areas(grid: Grid, axis: int) -> np.ndarray:
    """Relative areas of the faces across `axis`, broadcastable against them."""
    weights = [transforms.relative_weights(other) for other in grid.axes]
    return _outer([np.ones(1) if a == axis else w for a, w in enumerate(weights)])


def _walls(grid: Grid, axis: int) -> list[float]:
    """Conductance of the low and the high wall of an axis for the unit coefficient, in units of 1/h^2."""
    dirichlet = 2.0 if grid.centering[axis] == "cell" else 1.0
    return [dirichlet if end == "dirichlet" else 0.0 for end in grid.axes[axis].ends]


def _unit_faces(grid: Grid, axis: int) -> np.ndarray:
    """Face conductances of the unit coefficient, broadcastable against the faces."""
    n, h = grid.num_points[axis], grid.spacing[axis]
    profile = np.ones(n + (grid.boundary[axis] != "periodic"))
    if grid.boundary[axis] != "periodic":
        profile[0], profile[-1] = _walls(grid, axis)
    shape = [-1 if a == axis else 1 for a in range(grid.ndim)]
    return profile.reshape(shape) / h**2 * _areas(grid, axis)


def _faces_of(grid: Grid, a: Array, inside: Array | None, axis: int, mean: str) -> Array:
    def between(low: Array, high: Array) -> Array:
        if mean == "arithmetic":
            return (low + high) / 2
        total = low + high
        return 2 * low * high / jnp.where(total == 0, 1, total)  # two zeros conduct nothing

    def ends(v: Array) -> tuple[Array, Array, Array, Array]:
        """Everything below and above the interior faces, and the first and the last layer."""
        n, cut = grid.num_points[axis], lambda i, j: lax.slice_in_dim(v, i, j, axis=axis)
        return cut(0, n - 1), cut(1, n), cut(0, 1), cut(n - 1, n)

    low, high, first, last = ends(a)
    if grid.boundary[axis] == "periodic":
        layers = [between(last, first), between(low, high)]
    else:
        at_low, at_high = _walls(grid, axis)
        layers = [at_low * first, between(low, high), at_high * last]
    if inside is not None:
        low, high, first, last = ends(inside)
        open_ = [last & first, low & high] if len(layers) == 2 else [first, low & high, last]
        layers = [jnp.where(o, c, 0) for o, c in zip(open_, layers, strict=True)]
    areas = jnp.asarray(_areas(grid, axis) / grid.spacing[axis] ** 2, a.dtype)
    return lax.concatenate(layers, axis) * areas


def _neighbours(u: Array, dim: int, periodic: bool) -> tuple[Array, Array]:
    """The fields of lower and of higher neighbours; zero beyond a wall."""
    n = u.shape[dim]
    first, last = lax.slice_in_dim(u, 0, 1, axis=dim), lax.slice_in_dim(u, n - 1, n, axis=dim)
    before, after = (last, first) if periodic else (jnp.zeros_like(last), jnp.zeros_like(first))
    low = lax.concatenate([before, lax.slice_in_dim(u, 0, n - 1, axis=dim)], dim)
    high = lax.concatenate([lax.slice_in_dim(u, 1, n, axis=dim), after], dim)
    return low, high


def _sides(c: Array, dim: int, periodic: bool) -> tuple[Array, Array]:
    """The conductances of the faces below and above each point."""
    n = c.shape[dim]
    if periodic:
        first, rest = lax.slice_in_dim(c, 0, 1, axis=dim), lax.slice_in_dim(c, 1, n, axis=dim)
        return c, lax.concatenate([rest, first], dim)
    return lax.slice_in_dim(c, 0, n - 1, axis=dim), lax.slice_in_dim(c, 1, n, axis=dim)
