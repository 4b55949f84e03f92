"""Inverting operators: elliptic operators on grids, direct and iterative solvers, honest reports."""

from neuralops.solvers.diffusion import Diffusion
from neuralops.solvers.fast_poisson import FastPoisson
from neuralops.solvers.flexible import FlexibleCG
from neuralops.solvers.inverse import Inverse
from neuralops.solvers.krylov import CG
from neuralops.solvers.linear_solve import solve
from neuralops.solvers.multigrid import Multigrid
from neuralops.solvers.null_space import NullSpace
from neuralops.solvers.preconditioners import Chebyshev, Jacobi, Scaled
from neuralops.solvers.refinement import Refinement
from neuralops.solvers.solution import DerivativeWarning, Result, Solution

__all__ = [
    "CG",
    "Chebyshev",
    "DerivativeWarning",
    "Diffusion",
    "FastPoisson",
    "FlexibleCG",
    "Inverse",
    "Jacobi",
    "Multigrid",
    "NullSpace",
    "Refinement",
    "Result",
    "Scaled",
    "Solution",
    "solve",
]
