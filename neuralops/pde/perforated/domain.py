"""The unit square with random smooth star-shaped holes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from neuralops.arguments import count

LOWEST_MODE = 2  # mode 1 would mostly move the hole
_SAMPLES = 1024  # points on a hole among which the nearest one is looked for first
_ATTEMPTS = 3000  # to place the holes
_NEWTON = 12  # steps from there


@dataclasses.dataclass(frozen=True, eq=False)
class PerforatedDomain:
    """The unit square without holes. A hole's boundary lies at

        r(theta) = radius (1 + sum_k a_k cos(k theta) + b_k sin(k theta)),  k = 2, 3, ...,

    around its centre. Lengths are in sides of the square.

    **Fields:** `centres` `(holes, 2)`, `radii` `(holes,)`, `cosines` and `sines` `(holes, modes)`: the `a_k` and `b_k`.

    **Raises:** `ValueError` when shapes do not fit, a radius reaches zero, or circles around the holes meet each other
    or a wall.
    """

    centres: Float[np.ndarray, "holes 2"]
    radii: Float[np.ndarray, " holes"]
    cosines: Float[np.ndarray, "holes modes"]
    sines: Float[np.ndarray, "holes modes"]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, np.asarray(getattr(self, field.name), np.float64))
        holes, modes = len(np.atleast_1d(self.radii)), np.shape(self.cosines)[-1:] or (0,)
        wanted = {"centres": (holes, 2), "radii": (holes,), "cosines": (holes, *modes), "sines": (holes, *modes)}
        for name, shape in wanted.items():
            x = getattr(self, name)
            if x.shape != shape or not np.isfinite(x).all():
                raise ValueError(
                    f"{name}: expected finite numbers of shape {shape}, got shape {x.shape}; give a row per hole."
                )
        if holes == 0 or self.radii.min() <= 0 or self._wobble().max() >= 1:
            raise ValueError(
                f"radii: expected holes whose boundary stays away from their centre, got radii {self.radii} and modes "
                f"that reach {self._wobble()} of them; take smaller modes."
            )
        if self.gaps().min() <= 0:
            raise ValueError(
                "centres: expected holes that touch neither each other nor a wall, got circles around them that do; "
                "move them apart."
            )

    def _wobble(self) -> np.ndarray:
        """The most by which the radius of each hole can change, in parts of it."""
        return np.hypot(self.cosines, self.sines).sum(-1)

    def gaps(self) -> Float[np.ndarray, " pairs"]:
        """Distances of the circles around the holes from each other and from the walls."""
        return _gaps(self.centres, self.radii * (1 + self._wobble()))

    def boundary(self, hole: int, theta: Any, order: int = 0) -> Float[np.ndarray, "2 angles"]:
        """Points of a hole's boundary at the angles `theta`, or the derivative of that order with respect to them."""
        theta = np.asarray(theta, np.float64)
        k = np.arange(LOWEST_MODE, LOWEST_MODE + self.cosines.shape[1])
        phase = k[:, None] * theta
        cosine, sine = self.cosines[hole] @ np.cos(phase), self.sines[hole] @ np.sin(phase)
        r = 1 + cosine + sine
        unit, normal = np.stack([np.cos(theta), np.sin(theta)]), np.stack([-np.sin(theta), np.cos(theta)])
        if order == 0:
            return self.centres[hole][:, None] + self.radii[hole] * r * unit
        slope = (k * self.sines[hole]) @ np.cos(phase) - (k * self.cosines[hole]) @ np.sin(phase)
        if order == 1:
            return self.radii[hole] * (slope * unit + r * normal)
        bend = -(k**2 * self.cosines[hole]) @ np.cos(phase) - (k**2 * self.sines[hole]) @ np.sin(phase)
        return self.radii[hole] * ((bend - r) * unit + 2 * slope * normal)

    def radial(self, points: Float[np.ndarray, "2 n"]) -> tuple[np.ndarray, np.ndarray]:
        """How far points lie outside of each hole along its radius, `(holes, n)`, and their angles there."""
        away = points[None] - self.centres[:, :, None]
        theta = np.arctan2(away[:, 1], away[:, 0])
        r = [np.linalg.norm(self.boundary(h, t) - self.centres[h][:, None], axis=0) for h, t in enumerate(theta)]
        return np.linalg.norm(away, axis=1) - np.stack(r), theta

    def contains(self, points: Float[np.ndarray, "2 n"]) -> np.ndarray:
        """Which points lie in the open domain."""
        outside = np.all(self.radial(points)[0] > 0, axis=0)
        return np.logical_and(outside, np.all((points > 0) & (points < 1), axis=0))

    def onto_holes(self, points: Float[np.ndarray, "2 n"]) -> Float[np.ndarray, "2 n"]:
        """Points moved along the radius onto the boundary of the hole that is nearest in this sense."""
        outside, theta = self.radial(points)
        nearest = np.abs(outside).argmin(0)
        moved = np.empty_like(points)
        for hole in range(len(self.radii)):
            there = nearest == hole
            moved[:, there] = self.boundary(hole, theta[hole, there])
        return moved

    def hole_distance(self, points: Float[np.ndarray, "2 n"]) -> Float[np.ndarray, " n"]:
        """Distance of points to the nearest boundary of a hole, to rounding."""
        points = np.asarray(points, np.float64)
        theta = 2 * np.pi * np.arange(_SAMPLES) / _SAMPLES
        nearest = np.full(points.shape[1], np.inf)
        for hole in range(len(self.radii)):
            distance, index = cKDTree(self.boundary(hole, theta).T).query(points.T)
            t = theta[index]
            for _ in range(_NEWTON):  # of (gamma - x) . gamma' = 0; a step is no longer than that between samples
                away, slope, bend = (self.boundary(hole, t, order) for order in range(3))
                away = away - points
                curvature = np.sum(slope**2 + away * bend, 0)
                step = np.sum(away * slope, 0) / np.where(curvature > 0, curvature, np.inf)
                t = t - np.clip(step, -theta[1], theta[1])
            better = np.linalg.norm(self.boundary(hole, t) - points, axis=0)
            nearest = np.minimum(nearest, np.minimum(distance, better))
        return nearest

    def area(self) -> float:
        """Area of the domain: a hole has pi radius^2 (1 + sum_k (a_k^2 + b_k^2) / 2)."""
        modes = 1 + (self.cosines**2 + self.sines**2).sum(-1) / 2
        return float(1 - (np.pi * self.radii**2 * modes).sum())


def _gaps(centres: np.ndarray, reach: np.ndarray) -> np.ndarray:
    walls = np.minimum(centres, 1 - centres).min(-1) - reach
    i, j = np.triu_indices(len(reach), 1)
    return np.concatenate([walls, np.linalg.norm(centres[i] - centres[j], axis=-1) - reach[i] - reach[j]])


def random_domain(
    rng: np.random.Generator,
    *,
    num_holes: tuple[int, int] = (1, 3),
    radii: tuple[float, float] = (0.06, 0.14),
    roughness: float = 0.12,
    num_modes: int = 3,
    gap: float = 0.08,
) -> PerforatedDomain:
    """Draws the number of holes, uniform in `num_holes` with both ends, their sizes, shapes and places.

    Holes that come too near to each other are all drawn again, so those of a crowded plate are smaller on average.

    **Arguments:**

    - `rng`: NumPy's generator, as `np.random.default_rng(seed)`.
    - `num_holes`: the fewest and the most.
    - `radii`: mean radius of a hole, uniform between these.
    - `roughness`: the coefficients of mode k = 2, 3, ... are normal with standard deviation `roughness 2 / k^1.5`,
      scaled down where a hole would leave the band of 0.5 to 1.5 times its radius. Zero makes circles.
    - `num_modes`: modes of a boundary.
    - `gap`: least distance of the circles around the holes from each other and from the walls.

    **Raises:** `ValueError` on arguments out of range, and when no place is found in 3000 attempts.
    """
    least = count(num_holes[0], "num_holes")
    most = count(num_holes[1], "num_holes", least)
    modes = count(num_modes, "num_modes")
    if not (0 < radii[0] <= radii[1] < 0.5 and roughness >= 0 and gap > 0):
        raise ValueError(
            f"radii, roughness, gap: expected 0 < least radius <= most < 0.5, roughness >= 0 and gap > 0, got "
            f"{radii}, {roughness} and {gap}; holes lie in the unit square."
        )
    holes = int(rng.integers(least, most + 1))
    k = np.arange(LOWEST_MODE, LOWEST_MODE + modes)
    for _ in range(_ATTEMPTS):
        radius = rng.uniform(*radii, size=holes)
        a, b = roughness * 2 / k**1.5 * rng.standard_normal((2, holes, modes))
        wobble = np.hypot(a, b).sum(-1)
        scale = np.minimum(1, 0.5 / np.maximum(wobble, 0.5))
        reach = radius * (1 + scale * wobble)
        free = 1 - 2 * (gap + reach)  # of each side, for the centre of a hole
        centres = rng.uniform(size=(holes, 2)) * free[:, None] + (gap + reach)[:, None]
        if free.min() > 0 and _gaps(centres, reach).min() >= gap * (1 - 1e-12):
            return PerforatedDomain(centres, radius, scale[:, None] * a, scale[:, None] * b)
    raise ValueError(
        f"num_holes: expected room for {holes} holes of radius {radii} with gaps of {gap}, found none in {_ATTEMPTS} "
        "attempts; take fewer or smaller ones."
    )
