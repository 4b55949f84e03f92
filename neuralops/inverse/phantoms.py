"""Phantoms for tomography: sums of ellipses, as images and as exact line integrals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.grid import Grid, per_axis
from neuralops.inverse.maps.radon import Radon

__all__ = ["Ellipses", "random_ellipses", "shepp_logan"]

# Value, semi-axes, centre, angle in degrees, on [-1, 1]^2 (Shepp and Logan 1974; values of Toft 1996, table B.1)
TOFT = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)


class Ellipses(eqx.Module):
    """The function sum_i value_i on {c_i + L_i u : |u| <= 1}: exact as an image's means and as line integrals.

    ```python
    phantom = random_ellipses(key, grid.domain_extent)
    x, y = phantom.image(grid), phantom.sinogram(radon)
    ```

    **Fields:**

    - `centers`: c, `(ellipses, 2)`, in units of the box.
    - `shapes`: L, `(ellipses, 2, 2)`.
    - `values`: `(ellipses,)`; where ellipses overlap values add.
    """

    centers: Float[Array, "ellipses 2"]
    shapes: Float[Array, "ellipses 2 2"]
    values: Float[Array, " ellipses"]

    def at(self, points: Float[Array, " 2 *points"]) -> Float[Array, "*points"]:
        """The function at points, in units of the box."""
        ones = (1,) * (points.ndim - 1)
        total = jnp.zeros(points.shape[1:], points.dtype)
        inverse = jnp.linalg.inv(self.shapes)
        for i in range(len(self.values)):  # fused into one pass
            away = points - self.centers[i].reshape(2, *ones)
            u, v = (inverse[i, k, 0] * away[0] + inverse[i, k, 1] * away[1] for k in (0, 1))
            total = total + jnp.where(u * u + v * v <= 1, self.values[i], 0)
        return total

    def image(self, grid: Grid, supersampling: int = 4) -> Float[Array, " 1 *grid"]:
        """The means over the cells of a grid, each by `supersampling`^2 points: anti-aliased pixels.

        **Raises:** `ValueError` on a grid that is not two-dimensional, or no points.
        """
        grid, k = _plane(grid), count(supersampling, "supersampling")
        inside = (np.arange(k) + 0.5) / k - 0.5
        lines = [
            (grid.points(a)[:, None] + h * inside).reshape(-1).astype(self.values.dtype)
            for a, h in enumerate(grid.spacing)
        ]
        fine = self.at(jnp.stack(jnp.meshgrid(*lines, indexing="ij")))
        n, m = grid.shape
        return jnp.mean(fine.reshape(n, k, m, k), axis=(1, 3))[None]

    def sinogram(self, radon: Radon) -> Float[Array, " 1 angles detectors"]:
        """The exact line integrals at the rays of a transform."""
        dtype = self.values.dtype
        theta = np.asarray(radon.angles)
        normal = jnp.asarray(np.stack([np.cos(theta), np.sin(theta)]), dtype)
        middle = jnp.asarray(radon.grid.domain_extent, dtype) / 2
        place = (self.centers - middle) @ normal  # (ellipses, angles)
        half = jnp.linalg.norm(jnp.einsum("eji,ja->eia", self.shapes, normal), axis=1)  # of the shadow
        area = jnp.abs(jnp.linalg.det(self.shapes))
        s = (jnp.asarray(radon.positions, dtype) - place[..., None]) / half[..., None]
        chords = 2 * jnp.sqrt(jnp.maximum(1 - s * s, 0)) * (area[:, None] / half)[..., None]
        return jnp.einsum("e,eas->as", self.values, chords)[None]


def random_ellipses(
    key: Array, domain_extent: float | Sequence[float] = 1.0, *, num_ellipses: int = 10, supersampled: int = 128
) -> Ellipses:
    """A phantom of the Shepp-Logan kind: ellipses inside a large one, with values in [0, 1].

    The large ellipse has semi-axes of 0.3 to 0.45 of the box and a value b in [0.2, 0.6]; inside it lie others of
    0.05 to 0.5 of its size at any place and angle, with values of both signs. These are multiplied by the largest
    number up to 1 that keeps the sum between 0 and 1, which is checked on `supersampled`^2 points; so values add
    exactly, as line integrals need it. Works under `jax.jit` and `jax.vmap`.

    **Arguments:**

    - `key`: a random key.
    - `domain_extent`: sides of the box.
    - `num_ellipses`: with the large one.
    - `supersampled`: points per side on which the range is checked.

    **Raises:** `ValueError` on counts or extents that are none.
    """
    num, points = count(num_ellipses, "num_ellipses"), count(supersampled, "supersampled")
    extent = np.asarray(Grid((1, 1), per_axis(domain_extent, 2, "domain_extent")).domain_extent)
    keys = jax.random.split(key, 8)
    uniform = lambda i, low, high, shape=(): jax.random.uniform(keys[i], shape, float, low, high)
    semi, turn, base = uniform(0, 0.3, 0.45, (2,)), uniform(1, 0, np.pi), uniform(2, 0.2, 0.6)
    large = jnp.asarray(extent)[:, None] * _rotation(turn) @ jnp.diag(semi)
    # in the unit disc that the large ellipse is the image of
    inner = num - 1
    axes = jnp.exp(uniform(3, math.log(0.05), math.log(0.5), (inner, 2)))
    radius = jnp.sqrt(uniform(4, 0, 1, (inner,))) * (1 - jnp.max(axes, axis=1, initial=0))
    angle, tilt = uniform(5, 0, 2 * np.pi, (inner,)), uniform(6, 0, np.pi, (inner,))
    centers = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    shapes = jax.vmap(_rotation)(tilt) * axes[:, None, :]
    values = uniform(7, -0.5, 0.5, (inner,))
    seen = Ellipses(centers, shapes, values).at(_disc(points, values.dtype))
    low, high = jnp.min(seen, initial=0), jnp.max(seen, initial=0)
    limit = lambda room, size: jnp.where(size > room, room / jnp.where(size > 0, size, 1), 1)
    values = values * jnp.minimum(limit(base, -low), limit(1 - base, high))
    middle = jnp.asarray(extent / 2)
    return Ellipses(
        jnp.concatenate([middle[None], middle + centers @ large.T]),
        jnp.concatenate([large[None], jnp.einsum("ij,ejk->eik", large, shapes)]),
        jnp.concatenate([base[None], values]),
    )


def shepp_logan(domain_extent: float | Sequence[float] = 1.0) -> Ellipses:
    """The head phantom of Shepp and Logan (1974) with the stronger contrasts of Toft (1996), values in [0, 1].

    As usually shown: the first axis of the grid points down, the second to the right.

    **Raises:** `ValueError` on extents that are none.
    """
    extent = np.asarray(Grid((1, 1), per_axis(domain_extent, 2, "domain_extent")).domain_extent)
    table = np.asarray(TOFT)
    scale = extent[:, None] / 2
    centers = extent / 2 * (1 + np.stack([-table[:, 4], table[:, 3]], axis=1))
    shapes = []
    for _, a, b, _, _, degrees in TOFT:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        upright = np.array([[c * a, -s * b], [s * a, c * b]])  # of x to the right and y up
        shapes.append(scale * np.stack([-upright[1], upright[0]]))
    return Ellipses(jnp.asarray(centers, float), jnp.asarray(np.stack(shapes), float), jnp.asarray(table[:, 0], float))


def _rotation(angle: Array) -> Array:
    c, s = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])])


def _disc(points: int, dtype: Any) -> Array:
    line = (np.arange(points) + 0.5) / points * 2 - 1
    return jnp.asarray(np.stack(np.meshgrid(line, line, indexing="ij")), dtype)


def _plane(grid: Any) -> Grid:
    if not isinstance(grid, Grid) or grid.ndim != 2:
        came = grid.shape if isinstance(grid, Grid) else type(grid).__name__
        raise ValueError(
            f"grid: expected a two-dimensional Grid, got {came}; make one with Grid((64, 64), centering='cell')."
        )
    return grid
