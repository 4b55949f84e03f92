"""Inverting operators: elliptic operators on grids, direct and iterative solvers, honest reports."""

from neuralops.solvers.diffusion import Diffusion
from neuralops.solvers.fast_poisson import FastPoisson
from neuralops.solvers.krylov import CG, solve
from neuralops.solvers.solution import Solution

__all__ = ["CG", "Diffusion", "FastPoisson", "Solution", "solve"]
