"""Random plates with holes: domains, triangles, and two problems on them whose labels finite elements compute."""

from neuralops.pde.perforated.domain import PerforatedDomain, random_domain
from neuralops.pde.perforated.equations import elasticity, poisson, von_mises
from neuralops.pde.perforated.mesh import TriangleMesh, triangulate
from neuralops.pde.perforated.problem import Cloud, Perforated

__all__ = [
    "Cloud",
    "Perforated",
    "PerforatedDomain",
    "TriangleMesh",
    "elasticity",
    "poisson",
    "random_domain",
    "triangulate",
    "von_mises",
]
