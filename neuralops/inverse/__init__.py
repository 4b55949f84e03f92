"""Inverse problems: linear measurements, reconstruction by splitting, posteriors over the latent of an operator."""

from neuralops.inverse import maps
from neuralops.inverse.calibration import Calibration, coverage_study
from neuralops.inverse.draws import Draws
from neuralops.inverse.flow import Flow, fit_flow
from neuralops.inverse.maps import AbstractLinearMap
from neuralops.inverse.measurements import PointMeasurement, noise_of
from neuralops.inverse.phantoms import Ellipses, random_ellipses, shepp_logan
from neuralops.inverse.point_estimate import PointEstimate, point_estimate
from neuralops.inverse.posterior import Posterior
from neuralops.inverse.priors import AbstractPrior, Gaussian, Normal, Uniform
from neuralops.inverse.report import Summary, convergence, summary
from neuralops.inverse.sampling import hmc
from neuralops.inverse.splitting import (
    ADMM,
    FISTA,
    L1,
    L2,
    PDHG,
    PGD,
    AbstractRegularizer,
    AbstractSplitting,
    Box,
    Ending,
    Learned,
    NonlinearReconstruction,
    Reconstruction,
    TotalVariation,
    Trace,
    Wavelets,
    reconstruct,
    reconstruct_nonlinear,
)
from neuralops.inverse.variational import variational

__all__ = [
    "ADMM",
    "FISTA",
    "L1",
    "L2",
    "PDHG",
    "PGD",
    "AbstractLinearMap",
    "AbstractPrior",
    "AbstractRegularizer",
    "AbstractSplitting",
    "Box",
    "Calibration",
    "Draws",
    "Ellipses",
    "Ending",
    "Flow",
    "Gaussian",
    "Learned",
    "NonlinearReconstruction",
    "Normal",
    "PointEstimate",
    "PointMeasurement",
    "Posterior",
    "Reconstruction",
    "Summary",
    "TotalVariation",
    "Trace",
    "Uniform",
    "Wavelets",
    "convergence",
    "coverage_study",
    "fit_flow",
    "hmc",
    "maps",
    "noise_of",
    "point_estimate",
    "random_ellipses",
    "reconstruct",
    "reconstruct_nonlinear",
    "shepp_logan",
    "summary",
    "variational",
]
