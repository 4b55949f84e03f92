"""The solution of an elliptic equation as a linear map of its source."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array

from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.pde import Poisson
from neuralops.solvers import CG, Diffusion, FastPoisson, Inverse

__all__ = ["SourceToSolution"]


class SourceToSolution(AbstractLinearMap):
    """f -> u with -div(a grad u) = f and the conditions of the grid at its walls: `(1, *grid)` to `(1, *grid)`.

    ```python
    A = PointValues(grid, points) @ SourceToSolution(Poisson((64, 64)))      # what sensors see of a source
    ```

    The discrete operator K is symmetric, u = K^-1 V f with the control volumes V, so the adjoint is V K^-1: the same
    solve. It is exact to rounding when the solve is direct, and to the tolerance of `method` when it is iterative.
    Where no wall holds u, constants are removed from source and solution, as `Poisson` does. Differentiable in the
    coefficient by the implicit rule of `solve`.

    **Arguments:**

    - `A`: a `Diffusion`, or a `pde.Poisson`.
    - `method`: as in `solve`; by default `FastPoisson` for the unit coefficient, and else `CG` with it as
      preconditioner, to half of the digits.

    **Raises:** `ValueError` when `A` is neither, or `method` is no method.
    """

    inverse: Inverse

    def __init__(self, A: Any, method: Any = None):
        A = A.operator if isinstance(A, Poisson) else A
        if not isinstance(A, Diffusion):
            raise ValueError(
                f"A: expected a Diffusion or a Poisson problem, got {type(A).__name__}; use "
                "Diffusion.from_coefficient(grid, a), or Linearized for an equation of another kind."
            )
        if method is None:
            direct = FastPoisson(A.grid, A.widths)
            method = direct if A.faces is None else CG(preconditioner=direct)
        self.inverse = Inverse(A, method)

    @property
    def A(self) -> Diffusion:
        return self.inverse.A

    @property
    def method(self) -> Any:
        return self.inverse.method

    @property
    def in_shape(self) -> tuple[int, ...]:
        return (1, *self.A.grid.shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.in_shape

    def apply(self, x: Array) -> Array:
        return self.inverse(self.A.load(x))

    def apply_adjoint(self, y: Array) -> Array:
        return self.A.load(self.inverse(y))  # where K is singular `solve` projects both ends, symmetrically
