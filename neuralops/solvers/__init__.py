"""Inverting operators: elliptic operators on grids, direct and iterative solvers, honest reports."""

from neuralops.solvers.algebra.null_space import NullSpace
from neuralops.solvers.direct.fast_poisson import FastPoisson
from neuralops.solvers.elliptic.diffusion import Diffusion
from neuralops.solvers.inverse import Inverse
from neuralops.solvers.krylov.cg import CG
from neuralops.solvers.krylov.deep_conjugate_direction import DeepConjugateDirection
from neuralops.solvers.krylov.flexible import FlexibleCG
from neuralops.solvers.krylov.lanczos import LanczosBasis, lanczos, ritz_pairs
from neuralops.solvers.krylov.preconditioners import Chebyshev, Jacobi, Scaled
from neuralops.solvers.krylov.refinement import Refinement
from neuralops.solvers.learning.direction_losses import angle_loss, energy_loss, one_step_loss
from neuralops.solvers.learning.energy_decay import energy_decay
from neuralops.solvers.learning.visited import visited_residual
from neuralops.solvers.linear_solve import solve
from neuralops.solvers.multigrid.cycle import Multigrid
from neuralops.solvers.solution import DerivativeWarning, Result, Solution

__all__ = [
    "CG",
    "Chebyshev",
    "DeepConjugateDirection",
    "DerivativeWarning",
    "Diffusion",
    "FastPoisson",
    "FlexibleCG",
    "Inverse",
    "Jacobi",
    "LanczosBasis",
    "Multigrid",
    "NullSpace",
    "Refinement",
    "Result",
    "Scaled",
    "Solution",
    "angle_loss",
    "energy_decay",
    "energy_loss",
    "lanczos",
    "one_step_loss",
    "ritz_pairs",
    "solve",
    "visited_residual",
]
