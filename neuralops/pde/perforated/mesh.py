"""Triangles for the unit square with holes, finer at the holes.

Interior points move by forces along the edges of their Delaunay triangulation until each edge has the length that a
size function wants there, the idea of Persson and Strang (2004, "A simple mesh generator in MATLAB", SIAM Review 46,
329). Other than there the points of the boundary stay where they are, equally far apart by arc length.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import Delaunay, cKDTree

from neuralops.pde.perforated.domain import PerforatedDomain

RESOLVED = 0.2  # spacing at a hole over its radius of curvature
GRADING = 0.3  # growth of the spacing per distance from a hole
STEPS = 30  # of relaxation
SMOOTHINGS = 5  # each point to the mean of its neighbours, after the forces
MIN_ANGLE = 15.0  # degrees; flatter triangles are refused
_STRETCH = 1.2  # edges push as if they should be this much longer, so that points fill the domain
_MOVE = 0.2  # part of the force that a step follows
_RETRIANGULATE = 3  # steps between two triangulations, which cost most
_CLEAR = 0.55  # an interior point keeps this many spacings from the boundary


@dataclasses.dataclass(frozen=True, eq=False)
class TriangleMesh:
    """Triangles with straight edges in a domain.

    **Fields:** the `domain`; `points` `(2, n)`; `triangles` `(3, m)`, the numbers of their corners, counter-clockwise.
    For a picture: `matplotlib.pyplot.tripcolor(*mesh.points, mesh.triangles.T, values)`.
    """

    domain: PerforatedDomain
    points: Float[np.ndarray, "2 n"]
    triangles: Int[np.ndarray, "3 m"]

    def areas(self) -> Float[np.ndarray, " m"]:
        """Area of each triangle."""
        a, b, c = (self.points[:, corner] for corner in self.triangles)
        return ((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2

    def weights(self) -> Float[np.ndarray, " n"]:
        """Quadrature weights of the points: the integrals of their hat functions. They sum to the area."""
        return np.bincount(self.triangles.ravel(), np.tile(self.areas() / 3, 3), self.points.shape[1])

    def angles(self) -> Float[np.ndarray, "3 m"]:
        """The angles of the triangles in degrees."""
        corners = self.points[:, self.triangles]
        there, back = np.roll(corners, -1, 1) - corners, np.roll(corners, 1, 1) - corners
        cross = there[0] * back[1] - there[1] * back[0]
        return np.degrees(np.arctan2(np.abs(cross), np.sum(there * back, 0)))

    def edges(self) -> tuple[Int[np.ndarray, "2 e"], Int[np.ndarray, " e"]]:
        """The edges by their points, the smaller number first, and to how many triangles each belongs."""
        pairs = np.concatenate([self.triangles[[i, (i + 1) % 3]] for i in range(3)], 1)
        edges, times = np.unique(np.sort(pairs, 0), axis=1, return_counts=True)
        return edges, times

    def refined(self) -> TriangleMesh:
        """Four triangles for each, the new points of the holes on their boundary; the old points come first."""
        edges, times = self.edges()
        middles = self.points[:, edges].mean(1)
        at_hole = (times == 1) & ~at_wall(middles)
        middles[:, at_hole] = self.domain.onto_holes(middles[:, at_hole])
        n = self.points.shape[1]
        keys = edges[0].astype(np.int64) * n + edges[1]
        new = []
        for i in range(3):
            pair = np.sort(self.triangles[[i, (i + 1) % 3]], 0)
            new.append(n + np.searchsorted(keys, pair[0].astype(np.int64) * n + pair[1]))
        (a, b, c), (ab, bc, ca) = self.triangles, new
        parts = [np.stack(part) for part in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        return TriangleMesh(self.domain, np.concatenate([self.points, middles], 1), np.concatenate(parts, 1))


def at_wall(points: Float[np.ndarray, "2 n"], tiny: float = 1e-9) -> np.ndarray:
    """Which points lie on the sides of the square."""
    return np.any((points < tiny) | (points > 1 - tiny), axis=0)


def triangulate(
    domain: PerforatedDomain, spacing: float = 0.06, *, hole_spacing: float | None = None, seed: Any = 0
) -> TriangleMesh:
    """Triangles of the domain.

    **Arguments:**

    - `spacing`: of points far from the holes, in sides of the square.
    - `hole_spacing`: of points at the holes; by default a quarter of `spacing`. Down to half of it where they bend.
    - `seed`: of the first places of the points, as `np.random.default_rng` takes it. Equal ones give equal meshes.

    **Raises:** `ValueError` on spacings out of range, and when triangles with an angle of at least 15 degrees that
    fill the domain are not found: the spacing is too large for the holes then.
    """
    near = spacing / 4 if hole_spacing is None else hole_spacing
    if not 0 < near <= spacing <= 0.25:
        raise ValueError(
            f"spacing: expected 0 < hole_spacing <= spacing <= 0.25, got {hole_spacing} and {spacing}; "
            "sides are 1 long."
        )
    size = _Size(domain, near, spacing)
    holes = [_around(domain, hole, near) for hole in range(len(domain.radii))]
    boundary = np.concatenate([_walls(size), *holes], 1)
    rng = np.random.default_rng(seed)
    for attempt in range(4):  # another start where one ends in a flat triangle
        points = _relaxed(domain, size, boundary, _start(domain, size, rng), STEPS * (1 + attempt))
        triangles = _delaunay(points, domain)
        mesh = TriangleMesh(domain, points, triangles)
        if _fills(mesh, holes) and mesh.angles().min() >= MIN_ANGLE:
            return mesh
    raise ValueError(
        f"spacing: expected triangles with angles of at least {MIN_ANGLE:.0f} degrees that fill the domain, found none "
        f"with spacings of {near:g} to {spacing:g}; take smaller ones."
    )


class _Size:
    """The edge length wanted at points: `near` at the holes, less where they bend, growing to `far`."""

    def __init__(self, domain: PerforatedDomain, near: float, far: float) -> None:
        self.far = far
        theta = np.linspace(0, 2 * np.pi, 400, endpoint=False)
        holes = range(len(domain.radii))
        self.rims = np.concatenate([domain.boundary(hole, theta) for hole in holes], 1)
        self.near = np.concatenate([_near(domain, hole, theta, near) for hole in holes])
        self._tree = cKDTree(self.rims.T)

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the holes, good to a small part of a spacing, and the number of the nearest rim point."""
        return self._tree.query(points.T)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return self.at(*self.nearest(points))

    def at(self, distance: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The same from what `nearest` says."""
        return np.minimum(self.far, self.near[index] + GRADING * distance)


def _near(domain: PerforatedDomain, hole: int, theta: np.ndarray, spacing: float) -> np.ndarray:
    """The spacing along a hole: a part of its radius of curvature, from `spacing` down to half of it."""
    slope, bend = (domain.boundary(hole, theta, order) for order in (1, 2))
    curvature = np.abs(slope[0] * bend[1] - slope[1] * bend[0]) / np.linalg.norm(slope, axis=0) ** 3
    return np.clip(RESOLVED / np.maximum(curvature, 1e-9), spacing / 2, spacing)


def _around(domain: PerforatedDomain, hole: int, spacing: float) -> np.ndarray:
    """Points on a hole, as far apart along it as is wanted there."""
    theta = np.linspace(0, 2 * np.pi, 2001)
    middles = (theta[1:] + theta[:-1]) / 2
    wanted = np.linalg.norm(domain.boundary(hole, middles, 1), axis=0) / _near(domain, hole, middles, spacing)
    passed = np.concatenate([[0], np.cumsum(wanted)])
    number = max(12, round(passed[-1] * theta[1]))
    return domain.boundary(hole, np.interp(np.arange(number) / number, passed / passed[-1], theta))


def _walls(size: _Size) -> np.ndarray:
    """Points on the four sides, each corner once, as far apart as the size function wants."""
    t = np.linspace(0, 1, 1001)
    sides = []
    for corner, along in (((0, 0), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (-1, 0)), ((0, 1), (0, -1))):
        line = np.array(corner, float)[:, None] + np.array(along, float)[:, None] * t
        density = 1 / size(line)
        passed = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        number = max(2, round(passed[-1] * t[1]))
        s = np.interp(np.arange(number) / number, passed / passed[-1], t)
        sides.append(np.array(corner, float)[:, None] + np.array(along, float)[:, None] * s)
    return np.concatenate(sides, 1)


def _start(domain: PerforatedDomain, size: _Size, rng: np.random.Generator) -> np.ndarray:
    """A lattice of equilateral triangles, thinned out at random to the wanted density."""
    step = size.near.min()
    rows = int(1 / (step * np.sqrt(3) / 2)) + 1
    x, y = np.meshgrid(np.arange(0, 1, step), np.arange(rows) * step * np.sqrt(3) / 2)
    x[1::2] += step / 2
    points = np.stack([x.ravel(), y.ravel()])
    points = points[:, domain.contains(points)]
    wanted = size(points)
    points = points[:, rng.uniform(size=points.shape[1]) < (step / wanted) ** 2]
    distance, index = size.nearest(points)
    clear = np.minimum(distance, np.minimum(points, 1 - points).min(0))
    return points[:, clear > _CLEAR * size.at(distance, index)]


def _relaxed(domain: PerforatedDomain, size: _Size, boundary: np.ndarray, inner: np.ndarray, steps: int) -> np.ndarray:
    """The points of the boundary and then the inner ones, moved by forces and then smoothed."""
    fixed, n = boundary.shape[1], boundary.shape[1] + inner.shape[1]
    points = np.concatenate([boundary, inner], 1)
    wanted = size(points)
    for step in range(steps + SMOOTHINGS):
        if step % _RETRIANGULATE == 0 or step >= steps:
            ends = _edges(Delaunay(points.T).simplices.T)
            ends = ends[:, ends[1] >= fixed]  # those across a hole join points that stay, like all that are left out
        if step < steps:
            along = points[:, ends[1]] - points[:, ends[0]]
            length, target = np.linalg.norm(along, axis=0), wanted[ends].mean(0)
            target *= _STRETCH * np.sqrt((length**2).sum() / (target**2).sum())
            force = np.maximum(target - length, 0) / length * along
            move = [np.bincount(ends[1], f, n) - np.bincount(ends[0], f, n) for f in force]
            moved = (points + _MOVE * np.stack(move))[:, fixed:]
        else:
            sums = [np.bincount(ends[0], x[ends[1]], n) + np.bincount(ends[1], x[ends[0]], n) for x in points]
            moved = (np.stack(sums)[:, fixed:]) / np.bincount(ends.ravel(), minlength=n)[fixed:]
        points[:, fixed:], wanted[fixed:] = _kept_clear(domain, size, moved)
    return points


def _kept_clear(domain: PerforatedDomain, size: _Size, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner points, those too near to the holes and the walls moved off them, and the spacing wanted there."""
    distance, index = size.nearest(inner)
    margin = _CLEAR * size.near[index]
    near = np.flatnonzero(distance < 4 * size.near.max())  # further in than this no step leads
    inside = np.any(domain.radial(inner[:, near])[0] < 0, axis=0)
    moved = inside | (distance < margin)[near]
    close, inside = near[moved], inside[moved]
    rim = size.rims[:, index[close]]
    outwards = np.where(inside, -1, 1) * (inner[:, close] - rim)
    inner[:, close] = rim + margin[close] * outwards / np.maximum(np.linalg.norm(outwards, axis=0), 1e-12)
    wanted = size.at(distance, index)
    return np.clip(inner, _CLEAR * wanted, 1 - _CLEAR * wanted), wanted


def _edges(triangles: np.ndarray) -> np.ndarray:
    pairs = np.sort(np.concatenate([triangles[[i, (i + 1) % 3]] for i in range(3)], 1), 0).astype(np.int64)
    keys = np.unique(pairs[0] << 32 | pairs[1])
    return np.stack([keys >> 32, keys & 0xFFFFFFFF])


def _delaunay(points: np.ndarray, domain: PerforatedDomain) -> np.ndarray:
    """Delaunay triangles in the domain, counter-clockwise, without the flat ones that points along a wall may make."""
    triangles = Delaunay(points.T).simplices.T
    a, b, c = (points[:, corner] for corner in triangles)
    area = ((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2
    triangles = np.where(area < 0, triangles[::-1], triangles)
    middle = (a + b + c) / 3
    return triangles[:, (np.abs(area) > 1e-12) & (domain.radial(middle)[0] > 0).all(0)]


def _fills(mesh: TriangleMesh, holes: list[np.ndarray]) -> bool:
    """Whether the triangles cover the square without the polygons of the holes, and use every point."""
    polygons = sum((x[0] * np.roll(x[1], -1) - np.roll(x[0], -1) * x[1]).sum() / 2 for x in holes)
    used = len(np.unique(mesh.triangles)) == mesh.points.shape[1]
    return bool(used and abs(mesh.areas().sum() - (1 - polygons)) < 1e-9)
