"""Poisson's equation and linear elasticity on triangles with curved sides at the holes, by scikit-fem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jaxtyping import Float

from neuralops.extras import require
from neuralops.pde.perforated.mesh import TriangleMesh, at_wall

Function = Callable[[np.ndarray], Any]  # from points `(2, ...)` to numbers `(...)`
_ORDER = 7  # of the quadrature


class Solution(NamedTuple):
    """Values at the points of a mesh and the relative residual of the linear system.

    `value`: `(n,)` the solution of Poisson's equation, `(3, n)` the stresses xx, yy, xy of elasticity.
    """

    value: Float[np.ndarray, "*channels n"]
    residual: float


def _curved(skfem: Any, mesh: TriangleMesh) -> Any:
    """Quadratic triangles whose sides at the holes pass through the holes' boundary in the middle."""
    corners = np.sort(mesh.triangles, 0)  # cubic elements need a direction of each edge
    straight = skfem.MeshTri(np.ascontiguousarray(mesh.points), np.ascontiguousarray(corners))
    curved = skfem.MeshTri2.from_mesh(straight)
    facets = straight.boundary_facets()
    facets = facets[~at_wall(straight.p[:, straight.facets[:, facets]].mean(1))]
    places = curved.doflocs.copy()
    middles = straight.nvertices + facets
    places[:, middles] = mesh.domain.onto_holes(places[:, middles])
    return skfem.MeshTri2(places, curved.t)


def poisson(
    mesh: TriangleMesh, source: Function, *, coefficient: Function | None = None, wall: Function | None = None
) -> Solution:
    """Solves -div(a grad u) = f with u given on the walls and no flux through the holes.

    Quadratic elements. Functions take points `(2, ...)` and return `(...)`, NumPy float64.

    **Arguments:** `source` is f; `coefficient` is a, positive, 1 when left out; `wall` the values of u on the sides of
    the square, 0 when left out.

    **Raises:** `ImportError` without scikit-fem; `ValueError` on values of another shape, NaN, or a <= 0.
    """
    skfem = require("skfem", "Poisson's equation on a perforated domain", "fem")
    basis = skfem.Basis(_curved(skfem, mesh), skfem.ElementTriP2(), intorder=_ORDER)
    points = basis.global_coordinates().value
    a = np.ones(points.shape[1:]) if coefficient is None else _values(coefficient, points, "coefficient")
    if a.min() <= 0:
        raise ValueError(f"coefficient: expected positive numbers, got {a.min()}; add a constant.")
    stiffness = skfem.BilinearForm(lambda u, v, w: w.a * (u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]))
    load = skfem.LinearForm(lambda v, w: w.f * v)
    matrix = stiffness.assemble(basis, a=a).tocsr()
    right = load.assemble(basis, f=_values(source, points, "source"))
    given = np.flatnonzero(at_wall(basis.doflocs))
    u = np.zeros(basis.N)
    if wall is not None:
        u[given] = _values(wall, basis.doflocs[:, given], "wall")
    u, residual = _solve(matrix, right, u, given)
    return Solution(u[basis.nodal_dofs[0]], residual)


def elasticity(mesh: TriangleMesh, stress: Any = ((1.0, 0.0), (0.0, 0.0)), *, poisson_ratio: float = 0.3) -> Solution:
    """The plane stress of a plate that is pulled at its four sides, with nothing acting on the holes.

    Linear elasticity; the plate is held against rigid motions alone. Its stresses depend on the pull and the holes, on
    neither Young's modulus nor, as no force acts on a hole, Poisson's ratio. Cubic elements for the displacement; the
    stress at a point is the mean of those in its triangles.

    **Arguments:**

    - `stress`: the stress tensor `(2, 2)` whose tractions act on the sides (the default pulls along x), or a function
      from points `(2, ...)` to tensors `(2, 2, ...)`; symmetric, and in equilibrium over the four sides.
    - `poisson_ratio`: between -1 and 0.5.

    **Returns:** stresses `(3, n)` at the points: xx, yy, xy, in units of `stress`. See `von_mises`.

    **Raises:** `ImportError` without scikit-fem; `ValueError` on arguments out of range, and on forces on the sides
    that are not in equilibrium.
    """
    if not -1 < poisson_ratio <= 0.5:
        raise ValueError(f"poisson_ratio: expected a number above -1 and at most 0.5, got {poisson_ratio!r}; try 0.3.")
    skfem = require("skfem", "Elasticity on a perforated domain", "fem")
    pull = stress if callable(stress) else _constant(stress)
    curved = _curved(skfem, mesh)
    basis = skfem.Basis(curved, skfem.ElementTriP3(), intorder=_ORDER)  # of each component
    facets = curved.boundary_facets()
    facets = facets[at_wall(curved.p[:, curved.facets[:, facets]].mean(1))]
    sides = skfem.FacetBasis(curved, basis.elem, facets=facets, intorder=_ORDER)
    tensor = _values(pull, sides.global_coordinates().value, "stress", (2, 2))
    load = skfem.LinearForm(lambda v, w: w.t * v)
    forces = [load.assemble(sides, t=t) for t in np.einsum("ij...,j...->i...", tensor, sides.normals.value)]
    _check_equilibrium(basis.doflocs, *forces)

    # In units of Young's modulus: sigma_xx = c (e_xx + nu e_yy), sigma_xy = 2 g e_xy.
    c, nu = 1 / (1 - poisson_ratio**2), poisson_ratio
    g = c * (1 - nu) / 2
    xx, yy, xy = (
        skfem.BilinearForm(lambda u, v, w, i=i, j=j: u.grad[i] * v.grad[j]).assemble(basis)
        for i, j in ((0, 0), (1, 1), (0, 1))
    )
    mixed = c * nu * xy.T + g * xy
    matrix = scipy.sparse.bmat([[c * xx + g * yy, mixed], [mixed.T, c * yy + g * xx]], "csr")
    corner, beside = (np.abs(mesh.points - [[x], [0]]).sum(0).argmin() for x in (0, 1))
    held = [basis.nodal_dofs[0, corner], *(basis.N + basis.nodal_dofs[0, [corner, beside]])]
    u, residual = _solve(matrix, np.concatenate(forces), np.zeros(2 * basis.N), np.array(held))

    corners = skfem.Basis(curved, basis.elem, quadrature=(np.array([[0.0, 1, 0], [0, 0, 1]]), np.full(3, 1 / 6)))
    (ux, uy), (vx, vy) = (corners.interpolate(part).grad for part in np.split(u, 2))
    numbers, n = curved.t[:3].ravel(), mesh.points.shape[1]
    sums = [np.bincount(numbers, s.T.ravel(), n) for s in (c * (ux + nu * vy), c * (vy + nu * ux), g * (uy + vx))]
    return Solution(np.stack(sums) / np.bincount(numbers, minlength=n), residual)


def von_mises(stresses: Float[np.ndarray, " 3 *points"]) -> Float[np.ndarray, " *points"]:
    """The von Mises stress of plane stresses xx, yy, xy: sqrt(xx^2 - xx yy + yy^2 + 3 xy^2)."""
    xx, yy, xy = stresses
    return np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2)


_SYMMETRIC = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}


def _solve(matrix: Any, right: np.ndarray, u: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, float]:
    """Fills in the unknowns that are not given; the relative residual of their equations."""
    free = np.setdiff1d(np.arange(len(u)), given)
    rows = matrix[free]
    b = right[free] - rows[:, given] @ u[given]
    u[free] = scipy.sparse.linalg.splu(rows[:, free].tocsc(), **_SYMMETRIC).solve(b)
    size = np.linalg.norm(b)
    return u, float(np.linalg.norm(rows[:, free] @ u[free] - b) / size) if size > 0 else 0.0


def _values(function: Function, points: np.ndarray, name: str, lead: tuple[int, ...] = ()) -> np.ndarray:
    values = np.asarray(function(points), np.float64)
    wanted = (*lead, *points.shape[1:])
    if values.shape != wanted or not np.isfinite(values).all():
        raise ValueError(
            f"{name}: expected finite numbers {wanted} for points {points.shape}, got shape {values.shape}; return one "
            f"{'tensor' if lead else 'number'} per point."
        )
    return values


def _constant(stress: Any) -> Function:
    tensor = np.asarray(stress, np.float64)
    if tensor.shape != (2, 2) or not np.isfinite(tensor).all():
        raise ValueError(
            f"stress: expected a tensor (2, 2) or a function, got shape {tensor.shape}; give ((xx, xy), (xy, yy))."
        )
    return lambda x: np.broadcast_to(tensor.reshape(2, 2, *[1] * (x.ndim - 1)), (2, 2, *x.shape[1:]))


def _check_equilibrium(points: np.ndarray, along: np.ndarray, across: np.ndarray) -> None:
    """Refuses forces on the sides that would move or turn the plate."""
    left = [along.sum(), across.sum(), (points[0] * across - points[1] * along).sum()]
    if np.abs(left).max() > 1e-6 * (np.abs(along).sum() + np.abs(across).sum()):
        raise ValueError(
            f"stress: expected forces on the sides in equilibrium, got a sum and a moment of {np.round(left, 6)}; "
            "give a symmetric tensor."
        )
