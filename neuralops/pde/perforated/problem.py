"""Two problems on random plates with holes, as clouds of points with quadrature weights."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from neuralops.arguments import count
from neuralops.pde.perforated.domain import random_domain
from neuralops.pde.perforated.equations import elasticity, poisson, von_mises
from neuralops.pde.perforated.mesh import TriangleMesh, triangulate

EQUATIONS = {"poisson": (("source",), ("solution",)), "elasticity": (("position_x", "position_y"), ("von_mises",))}
_WAVES = 100  # of a random source


class Cloud(NamedTuple):
    """One sample at the points of its mesh, float64.

    **Fields:** the `mesh` (`points` `(2, n)`, `triangles` `(3, m)`), `inputs` `(channels, n)`, `outputs` `(1, n)`,
    `weights` `(n,)` of the quadrature, `hole_distance` `(n,)`, and the `residual` of the linear system.
    """

    mesh: TriangleMesh
    inputs: Float[np.ndarray, "channels n"]
    outputs: Float[np.ndarray, "1 n"]
    weights: Float[np.ndarray, " n"]
    hole_distance: Float[np.ndarray, " n"]
    residual: float


class Perforated:
    """Random plates with holes: the unit square without one to three smooth star-shaped holes, another in each sample.

    - `equation="poisson"`: -Laplacian u = f, u = 0 on the sides of the square and no flux through the holes. Input: f,
      a random field of unit variance with correlation exp(-distance^2 / (2 length_scale^2)); output: u.
    - `equation="elasticity"`: the plate is pulled along x by a stress of 1. Input: the coordinates of the points, two
      channels; output: the von Mises stress. The holes are all that makes it: without them it is 1.

    ```python
    problem = no.pde.Perforated("elasticity")
    train = no.data.pad(**problem.clouds(500, seed=0))
    cloud = problem.draw((0, 3))  # sample 3 of these, with its triangles
    plt.tripcolor(*cloud.mesh.points, cloud.mesh.triangles.T, cloud.outputs[0])
    ```

    **Arguments:**

    - `spacing`, `hole_spacing`: of the points, see `triangulate`; the defaults give 550 to 700 points.
    - `refinements`: how often each triangle is divided into four for the labels. The points stay, so the difference
      to other labels of the same draw measures the error.
    - `length_scale`: of the source.
    - `num_holes`, `radii`, `roughness`, `num_modes`, `gap`: the holes, see `random_domain`.

    Needs scikit-fem, the extra `fem`.

    **Raises:** `ValueError` on another word, or arguments out of range.
    """

    def __init__(
        self,
        equation: str = "poisson",
        *,
        spacing: float = 0.06,
        hole_spacing: float | None = None,
        refinements: int = 0,
        length_scale: float = 0.2,
        num_holes: tuple[int, int] = (1, 3),
        radii: tuple[float, float] = (0.06, 0.14),
        roughness: float = 0.12,
        num_modes: int = 3,
        gap: float = 0.08,
    ) -> None:
        if equation not in EQUATIONS:
            raise ValueError(f"equation: expected one of {tuple(EQUATIONS)}, got {equation!r}; use one of these words.")
        if not length_scale > 0:
            raise ValueError(f"length_scale: expected a positive number, got {length_scale!r}; try 0.2.")
        self.equation, self.length_scale = equation, float(length_scale)
        self.spacing, self.hole_spacing = spacing, hole_spacing
        self.refinements = count(refinements, "refinements", 0)
        self.num_holes, self.radii, self.roughness = tuple(num_holes), tuple(radii), roughness
        self.num_modes, self.gap = num_modes, gap
        self.input_fields, self.output_fields = EQUATIONS[equation]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Perforated) and self.parameters() == other.parameters()

    def __hash__(self) -> int:
        return hash(repr(sorted(self.parameters().items())))

    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments as JSON can hold them: `Perforated(**parameters)` is the same problem."""
        values = {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}
        return {name: list(x) if isinstance(x, tuple) else x for name, x in values.items()}

    def draw(self, seed: int | Sequence[int]) -> Cloud:
        """One sample, drawn with `np.random.default_rng(seed)`.

        **Raises:** `ImportError` without scikit-fem; `ValueError` when the holes do not fit or the mesh fails.
        """
        rng = np.random.default_rng(seed)
        holes = {name: getattr(self, name) for name in ("num_holes", "radii", "roughness", "num_modes", "gap")}
        domain = random_domain(rng, **holes)
        source = _Source(rng, self.length_scale)
        mesh = triangulate(domain, self.spacing, hole_spacing=self.hole_spacing, seed=rng)
        fine = mesh
        for _ in range(self.refinements):
            fine = fine.refined()
        if self.equation == "poisson":
            inputs, solution = source(mesh.points)[None], poisson(fine, source)
            outputs = solution.value
        else:
            inputs, solution = mesh.points, elasticity(fine)
            outputs = von_mises(solution.value)
        outputs = outputs[None, : mesh.points.shape[1]]  # the points of the coarser mesh come first
        return Cloud(mesh, inputs, outputs, mesh.weights(), domain.hole_distance(mesh.points), solution.residual)

    def clouds(
        self,
        num_samples: int,
        seed: int | Sequence[int],
        *,
        first: int = 0,
        dtype: str = "float32",
        progress: bool = True,
    ) -> dict[str, Any]:
        """Samples `first`, `first + 1`, ... as the keyword arguments of `no.data.pad`.

        Sample i is `draw((*seed, i))` and depends on nothing else: more samples extend a set and never change it.

        **Returns:** lists `inputs`, `outputs` and `coords`; `residual_norm` `(samples,)`; `extras` with `weights`
        and `hole_distance`, `(samples, points)`, zero where a cloud has no more points.
        """
        seeds = (seed,) if isinstance(seed, int | np.integer) else tuple(seed)
        numbers = range(count(first, "first", 0), first + count(num_samples, "num_samples"))
        drawn = [self.draw((*seeds, i)) for i in tqdm(numbers, unit="sample", disable=not progress)]
        size = max(len(cloud.weights) for cloud in drawn)
        extras = {
            name: np.stack([np.pad(x, (0, size - len(x))) for x in (getattr(cloud, name) for cloud in drawn)]).astype(
                dtype
            )
            for name in ("weights", "hole_distance")
        }
        return {
            "inputs": [cloud.inputs.astype(dtype) for cloud in drawn],
            "outputs": [cloud.outputs.astype(dtype) for cloud in drawn],
            "coords": [cloud.mesh.points.astype(dtype) for cloud in drawn],
            "residual_norm": np.array([cloud.residual for cloud in drawn]),
            "extras": extras,
        }


class _Source:
    """A sum of plane waves with random directions and phases: nearly Gaussian, of unit variance, known everywhere."""

    def __init__(self, rng: np.random.Generator, length_scale: float) -> None:
        self.waves = rng.standard_normal((_WAVES, 2)) / length_scale
        self.phases = rng.uniform(0, 2 * np.pi, size=_WAVES)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        flat = self.waves @ points.reshape(2, -1) + self.phases[:, None]
        return np.sqrt(2 / _WAVES) * np.cos(flat).sum(0).reshape(points.shape[1:])
