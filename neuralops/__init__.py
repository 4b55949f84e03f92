"""Neural operators, learned priors and linear solvers for PDEs in JAX.

Names are fetched when they are first used, so that `import neuralops.solvers` in a simulation loads neither
networks nor file formats.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralops import data as data
    from neuralops import interop as interop
    from neuralops import inverse as inverse
    from neuralops import models as models
    from neuralops import nn as nn
    from neuralops import operator as operator
    from neuralops import pde as pde
    from neuralops import plotting as plotting
    from neuralops import sharding as sharding
    from neuralops import solvers as solvers
    from neuralops.checkpoint import load as load
    from neuralops.checkpoint import save as save
    from neuralops.grid import Grid as Grid
    from neuralops.grid import resample as resample
    from neuralops.models import DGNO as DGNO
    from neuralops.models import FNO as FNO
    from neuralops.models import LPN as LPN
    from neuralops.models import LSM as LSM
    from neuralops.models import ConvDenoiser as ConvDenoiser
    from neuralops.models import DeepONet as DeepONet
    from neuralops.models import DirectionNet as DirectionNet
    from neuralops.models import GeoOperator as GeoOperator
    from neuralops.models import GradientStep as GradientStep
    from neuralops.models import LatentUNet as LatentUNet
    from neuralops.models import MgNO as MgNO
    from neuralops.models import MultigridDirection as MultigridDirection
    from neuralops.models import MultiONet as MultiONet
    from neuralops.models import Patched as Patched
    from neuralops.models import Transolver as Transolver
    from neuralops.models import WaveNet as WaveNet
    from neuralops.operator import AbstractOperator as AbstractOperator
    from neuralops.operator import Operator as Operator
    from neuralops.operator import as_operator as as_operator
    from neuralops.operator import as_pair as as_pair
    from neuralops.solvers import CG as CG
    from neuralops.solvers import DeepConjugateDirection as DeepConjugateDirection
    from neuralops.solvers import Diffusion as Diffusion
    from neuralops.solvers import FastPoisson as FastPoisson
    from neuralops.solvers import FlexibleCG as FlexibleCG
    from neuralops.solvers import Inverse as Inverse
    from neuralops.solvers import Multigrid as Multigrid
    from neuralops.solvers import Refinement as Refinement
    from neuralops.solvers import Solution as Solution
    from neuralops.solvers import solve as solve
    from neuralops.training import DivergedError as DivergedError
    from neuralops.training import History as History
    from neuralops.training import baselines as baselines
    from neuralops.training import evaluate as evaluate
    from neuralops.training import fit as fit
    from neuralops.training import losses as losses
    from neuralops.training import metrics as metrics
    from neuralops.training import schedules as schedules
    from neuralops.wrappers import Residual as Residual
    from neuralops.wrappers import Rollout as Rollout
    from neuralops.wrappers import Truncated as Truncated
    from neuralops.wrappers import at as at
    from neuralops.wrappers import rollout as rollout

_TOP = ["data", "interop", "inverse", "models", "nn", "operator", "pde", "plotting", "sharding", "solvers", "training"]
_TRAINING = ["baselines", "losses", "metrics", "schedules"]
_ROOMS = {**{name: name for name in _TOP}, **{name: f"training.{name}" for name in _TRAINING}}
_NAMES = {
    "checkpoint": "load save",
    "grid": "Grid resample",
    "models": "ConvDenoiser DGNO DeepONet DirectionNet FNO GeoOperator GradientStep LPN LSM LatentUNet MgNO MultiONet "
    "MultigridDirection Patched Transolver WaveNet",
    "operator": "AbstractOperator Operator as_operator as_pair",
    "solvers": "CG DeepConjugateDirection Diffusion FastPoisson FlexibleCG Inverse Multigrid Refinement Solution solve",
    "wrappers": "Residual Rollout Truncated at rollout",
    "training": "DivergedError History evaluate fit",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_ROOMS, *_HOMES])


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"neuralops.{_ROOMS[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"neuralops.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'neuralops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
