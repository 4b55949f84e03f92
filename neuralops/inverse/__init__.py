"""Inverse problems: linear measurements of fields, and posteriors over the latent of a generative operator."""

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
from neuralops.inverse.variational import variational

__all__ = [
    "AbstractLinearMap",
    "AbstractPrior",
    "Calibration",
    "Draws",
    "Ellipses",
    "Flow",
    "Gaussian",
    "Normal",
    "PointEstimate",
    "PointMeasurement",
    "Posterior",
    "Summary",
    "Uniform",
    "convergence",
    "coverage_study",
    "fit_flow",
    "hmc",
    "maps",
    "noise_of",
    "point_estimate",
    "random_ellipses",
    "shepp_logan",
    "summary",
    "variational",
]
