"""Reconstruction by splitting: a data term, a regulariser known by its proximal map, and an algorithm for the two."""

from neuralops.inverse.splitting.admm import ADMM
from neuralops.inverse.splitting.gauss_newton import NonlinearReconstruction, reconstruct_nonlinear
from neuralops.inverse.splitting.gradient import FISTA, PGD
from neuralops.inverse.splitting.method import AbstractSplitting
from neuralops.inverse.splitting.pdhg import PDHG
from neuralops.inverse.splitting.reconstruct import reconstruct
from neuralops.inverse.splitting.reconstruction import Ending, Reconstruction, Trace
from neuralops.inverse.splitting.regularizers import L1, L2, AbstractRegularizer, Box, Learned
from neuralops.inverse.splitting.total_variation import TotalVariation
from neuralops.inverse.splitting.wavelets import Wavelets

__all__ = [
    "ADMM",
    "FISTA",
    "L1",
    "L2",
    "PDHG",
    "PGD",
    "AbstractRegularizer",
    "AbstractSplitting",
    "Box",
    "Ending",
    "Learned",
    "NonlinearReconstruction",
    "Reconstruction",
    "TotalVariation",
    "Trace",
    "Wavelets",
    "reconstruct",
    "reconstruct_nonlinear",
]
