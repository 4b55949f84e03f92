"""Inverse problems: posteriors over the latent of a generative operator, and reconstruction by splitting."""

from neuralops.inverse.calibration import Calibration, coverage_study
from neuralops.inverse.draws import Draws
from neuralops.inverse.flow import Flow, fit_flow
from neuralops.inverse.measurements import PointMeasurement, noise_of
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
    Reconstruction,
    TotalVariation,
    Trace,
    Wavelets,
    reconstruct,
)
from neuralops.inverse.variational import variational

__all__ = [
    "ADMM",
    "FISTA",
    "L1",
    "L2",
    "PDHG",
    "PGD",
    "AbstractPrior",
    "AbstractRegularizer",
    "AbstractSplitting",
    "Box",
    "Calibration",
    "Draws",
    "Ending",
    "Flow",
    "Gaussian",
    "Learned",
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
    "noise_of",
    "point_estimate",
    "reconstruct",
    "summary",
    "variational",
]
