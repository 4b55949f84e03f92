"""Inverting operators: elliptic operators on grids, direct and iterative solvers, honest reports."""

from neuralops.solvers.deep_conjugate_direction import DeepConjugateDirection
from neuralops.solvers.diffusion import Diffusion
from neuralops.solvers.direction_losses import angle_loss, energy_loss, one_step_loss
from neuralops.solvers.energy_decay import energy_decay
from neuralops.solvers.fast_poisson import FastPoisson
from neuralops.solvers.flexible import FlexibleCG
from neuralops.solvers.inverse import Inverse
from neuralops.solvers.krylov import CG
from neuralops.solvers.lanczos import LanczosBasis, lanczos, ritz_pairs
from neuralops.solvers.linear_solve import solve
from neuralops.solvers.multigrid import Multigrid
from neuralops.solvers.null_space import NullSpace
from neuralops.solvers.preconditioners import Chebyshev, Jacobi, Scaled
from neuralops.solvers.refinement import Refinement
from neuralops.solvers.solution import DerivativeWarning, Result, Solution
from neuralops.solvers.visited import visited_residual

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
