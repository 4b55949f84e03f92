"""Writes the data sets of Stokes flow around a cylinder described in stokes_cylinder.md; needs scikit-fem.

python datasets/stokes_cylinder.py --num-train 1000 --num-test 200 --out outputs/datasets

Taylor-Hood elements on triangles whose edges follow the disc. The flow is linear in the inflow, so the matrix is
factorised once and solved once for every unknown of the inflow; a sample is a product with these responses.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy.spatial import Delaunay
from splits import SPLITS, add_arguments
from tqdm.auto import tqdm

from neuralops import data

try:
    import skfem
    from skfem.helpers import ddot, div, grad
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "scikit-fem: expected it for the flow around the cylinder, got none; pip install 'neuralops-jax[fem]'."
    ) from error

LENGTH, HEIGHT = 2.0, 1.0
CENTRE, RADIUS = np.array([[0.5], [0.6]]), 0.1
VISCOSITY = 0.01
FREQUENCIES = (math.pi, 2 * math.pi)  # of the inflow, uniform
INFLOW_POINTS = 256
SPACING = 0.0394  # between points away from the disc: about 1700 in all
SMOOTHINGS = 40


def triangulate(spacing: float = SPACING, *, disc: bool = True) -> skfem.MeshTri1:
    """Triangles of the channel with straight edges: rings of points around the disc in a lattice, smoothed."""
    columns, rows = math.ceil(LENGTH / spacing), math.ceil(HEIGHT / (spacing * math.sqrt(3) / 2))
    lattice = []
    for j in range(rows + 1):
        x = np.linspace(0, LENGTH, columns + 1)
        if j % 2 and j < rows:  # every other row is shifted by half a spacing
            x = np.concatenate([[0.0], (x[:-1] + x[1:]) / 2, [LENGTH]])
        lattice.append(np.stack([x, np.full_like(x, HEIGHT * (j / rows))]))
    points = np.concatenate(lattice, 1)
    fixed = (points[0] == 0) | (points[0] == LENGTH) | (points[1] == 0) | (points[1] == HEIGHT)
    if disc:
        around = math.ceil(2 * math.pi * RADIUS / (0.45 * spacing))  # points on each ring; the first is the disc
        growth, radii = 1 + math.sqrt(3) * math.pi / around, [RADIUS]
        while 2 * math.pi * radii[-1] / around < spacing:
            radii.append(radii[-1] * growth)
        turns = 2 * math.pi * (np.arange(around) + np.arange(len(radii))[:, None] % 2 / 2) / around
        rings = np.array(radii)[:, None] * np.stack([np.cos(turns), np.sin(turns)]) + CENTRE[:, :, None]
        away = np.linalg.norm(points - CENTRE, axis=0) > radii[-1] + 0.6 * spacing
        points = np.concatenate([rings.reshape(2, -1), points[:, away]], 1)
        fixed = np.concatenate([np.arange(turns.size) < around, fixed[away]])
    for _ in range(SMOOTHINGS):
        edges, n = _delaunay(points, disc).facets, points.shape[1]
        neighbours = scipy.sparse.coo_array((np.ones(edges.shape[1]), tuple(edges)), (n, n))
        neighbours = (neighbours + neighbours.T).tocsr()
        points = np.where(fixed, points, (neighbours @ points.T / neighbours.sum(1)[:, None]).T)
    return _delaunay(points, disc)


def _delaunay(points: np.ndarray, disc: bool) -> skfem.MeshTri1:
    triangles = Delaunay(points.T).simplices.T
    a, b, c = (points[:, corner] for corner in triangles)
    area = np.abs((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / 2
    kept = area > 1e-10  # points along a wall may make flat ones
    if disc:
        kept &= np.linalg.norm((a + b + c) / 3 - CENTRE, axis=0) > RADIUS
    return skfem.MeshTri(np.ascontiguousarray(points), np.ascontiguousarray(triangles[:, kept]))


def refine(mesh: skfem.MeshTri1) -> skfem.MeshTri1:
    """Four triangles for each, with the new points at the disc on its edge; the old points come first."""
    finer = mesh.refined()
    points = finer.p.copy()
    at_disc = np.unique(finer.facets[:, _sides(finer)["disc"]])
    away = points[:, at_disc] - CENTRE
    points[:, at_disc] = CENTRE + RADIUS * away / np.linalg.norm(away, axis=0)
    return skfem.MeshTri(points, finer.t)


def _sides(mesh: skfem.MeshTri1) -> dict[str, np.ndarray]:
    """The edges of each side of the domain."""
    edges = mesh.boundary_facets()
    x, y = mesh.p[:, mesh.facets[:, edges]].mean(1)
    tiny = 1e-9
    sides = {"inlet": x < tiny, "outlet": x > LENGTH - tiny, "walls": (y < tiny) | (y > HEIGHT - tiny)}
    sides["disc"] = ~(sides["inlet"] | sides["outlet"] | sides["walls"])
    return {name: edges[there] for name, there in sides.items()}


class Stokes:
    """-viscosity Laplacian u + grad p = f, div u = 0 on a mesh of the channel, factorised.

    The velocity is given at the inlet, the walls and the disc; at the outlet nothing is done, which means
    viscosity du/dx = p (1, 0). The velocity is quadratic and the pressure linear on triangles with curved sides at the
    disc. A vector of unknowns holds the velocity, as `velocity` numbers it, and then the pressure.
    """

    def __init__(self, mesh: skfem.MeshTri1, viscosity: float = VISCOSITY) -> None:
        sides = _sides(mesh)
        curved = skfem.MeshTri2.from_mesh(mesh)
        places = curved.doflocs.copy()
        middles = mesh.nvertices + sides["disc"]
        away = places[:, middles] - CENTRE
        places[:, middles] = CENTRE + RADIUS * away / np.linalg.norm(away, axis=0)
        curved = skfem.MeshTri2(places, curved.t)
        self.points = mesh.p
        self.velocity = skfem.Basis(curved, skfem.ElementVector(skfem.ElementTriP2()), intorder=6)
        self.pressure = self.velocity.with_element(skfem.ElementTriP1())
        self.sides = sides

        stiffness = skfem.BilinearForm(lambda u, v, w: viscosity * ddot(grad(u), grad(v)))
        divergence = skfem.BilinearForm(lambda u, q, w: -div(u) * q)
        lower = divergence.assemble(self.velocity, self.pressure)
        self.matrix = scipy.sparse.bmat([[stiffness.assemble(self.velocity), lower.T], [lower, None]], "csr")
        held = np.concatenate([sides["inlet"], sides["walls"], sides["disc"]])
        self.given = self.velocity.get_dofs(facets=held).flatten()
        self.free = np.setdiff1d(np.arange(self.matrix.shape[0]), self.given)
        rows = self.matrix[self.free]
        self._coupling = rows[:, self.given]
        self._factors = scipy.sparse.linalg.splu(rows[:, self.free].tocsc())

    def solve(self, boundary: np.ndarray, load: np.ndarray | float = 0.0) -> np.ndarray:
        """Unknowns `(unknowns, ...)` from the velocities at `given`, `(given, ...)`, and the integrals of f."""
        unknowns = np.zeros((self.matrix.shape[0], *boundary.shape[1:]))
        right = np.broadcast_to(load, unknowns.shape)[self.free] - self._coupling @ boundary
        unknowns[self.given], unknowns[self.free] = boundary, self._factors.solve(right)
        return unknowns

    def residual(self, unknowns: np.ndarray) -> np.ndarray:
        """What is left of the equations with f = 0, over the size of what the boundary puts in, per column."""
        left = np.linalg.norm((self.matrix @ unknowns)[self.free], axis=0)
        return left / np.linalg.norm(self._coupling @ unknowns[self.given], axis=0)

    def responses(self) -> tuple[np.ndarray, np.ndarray]:
        """Heights `(k,)` of the unknowns of the inflow, and the unknowns `(unknowns, k)` that belong to 1 at each."""
        horizontal = np.concatenate([self.velocity.nodal_dofs[0], self.velocity.facet_dofs[0]])
        x, y = self.velocity.doflocs[:, self.given]
        inlet = np.flatnonzero(np.isin(self.given, horizontal) & (x == 0) & (y > 0) & (y < HEIGHT))
        unit = np.zeros((len(self.given), len(inlet)))
        unit[inlet, np.arange(len(inlet))] = 1.0
        return y[inlet], self.solve(unit)

    def at_points(self, unknowns: np.ndarray) -> np.ndarray:
        """u, v and p at the points of the mesh, `(3, points, ...)`."""
        rows = [*self.velocity.nodal_dofs, self.velocity.N + self.pressure.nodal_dofs[0]]
        return np.stack([unknowns[row] for row in rows])


def inflow(y: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a(y) = 2 sin(pi y) (1 + sin(b_1 y) + cos(b_2 y)), `(samples, points)`, for `b` of `(samples, 2)`."""
    return 2 * np.sin(np.pi * y) * (1 + np.sin(b[:, :1] * y) + np.cos(b[:, 1:] * y))


def make(stokes: Stokes, num_samples: int, seed: Any, *, progress: bool = True) -> data.Samples:
    """Inflows at `INFLOW_POINTS` points of the inlet, both ends included, and u, v, p at the points of the mesh."""
    heights, responses = stokes.responses()
    b = np.random.default_rng(seed).uniform(*FREQUENCIES, size=(num_samples, 2))
    y = np.linspace(0, HEIGHT, INFLOW_POINTS)
    outputs, residuals = [], []
    with tqdm(total=num_samples, unit="sample", disable=not progress) as bar:
        for part in np.array_split(b, -(-num_samples // 64)):
            unknowns = responses @ inflow(heights, part).T
            outputs.append(np.moveaxis(stokes.at_points(unknowns), -1, 0))
            residuals.append(stokes.residual(unknowns))
            bar.update(len(part))
    return data.Samples(
        inflow(y, b)[:, None].astype(np.float32),
        np.concatenate(outputs).astype(np.float32),
        np.concatenate(residuals),
        coords=np.stack([np.zeros_like(y), y]),
        query=stokes.points,
        extras={"b": b},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacing", type=float, default=SPACING, help="of the points away from the disc")
    add_arguments(parser)
    args = parser.parse_args()
    stokes = Stokes(triangulate(args.spacing))
    for split, num_samples in enumerate((args.num_train, args.num_test)):
        path = args.out / f"stokes_cylinder_{SPLITS[split]}.h5"
        if num_samples == 0:
            continue
        if path.exists():
            print(f"{path} is there already; move it to make it again")
            continue
        samples = make(stokes, num_samples, [args.seed, split], progress=not args.no_progress)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = data.write(
            path,
            samples,
            name="StokesCylinder",
            input_fields=["inflow"],
            output_fields=["horizontal_velocity", "vertical_velocity", "pressure"],
            parameters={"viscosity": VISCOSITY, "spacing": args.spacing, "frequencies": FREQUENCIES, "seed": args.seed},
        )
        data.validate(path)
        residual = source.residual_norm
        print(f"{path}: {len(source)} samples at {stokes.points.shape[1]} points, residual <= {residual.max():.1e}")
        print(f"sha256 of the arrays {source.sha256()}")


if __name__ == "__main__":
    main()
