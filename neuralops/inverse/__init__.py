"""Inverse problems over the latent of a generative operator: what was observed, priors, posteriors, reports."""

from neuralops.inverse.draws import Draws
from neuralops.inverse.flow import Flow, fit_flow
from neuralops.inverse.measurements import PointMeasurement, noise_of
from neuralops.inverse.posterior import Posterior
from neuralops.inverse.priors import AbstractPrior, Gaussian, Normal, Uniform
from neuralops.inverse.sampling import hmc
from neuralops.inverse.variational import variational

__all__ = [
    "AbstractPrior",
    "Draws",
    "Flow",
    "Gaussian",
    "Normal",
    "PointMeasurement",
    "Posterior",
    "Uniform",
    "fit_flow",
    "hmc",
    "noise_of",
    "variational",
]
