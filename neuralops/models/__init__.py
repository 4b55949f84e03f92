"""Operators that are fitted to data; one paper, one file."""

from neuralops.models.denoisers import ConvDenoiser as ConvDenoiser
from neuralops.models.denoisers import GradientStep as GradientStep
from neuralops.models.dgno import DGNO as DGNO
from neuralops.models.direction import DirectionNet as DirectionNet
from neuralops.models.fno import FNO as FNO
from neuralops.models.geo import GeoOperator as GeoOperator
from neuralops.models.lpn import LPN as LPN
from neuralops.models.lpn import Patched as Patched
from neuralops.models.lsm import LSM as LSM
from neuralops.models.lsm import LatentUNet as LatentUNet
from neuralops.models.mgno import MgNO as MgNO
from neuralops.models.multigrid_direction import MultigridDirection as MultigridDirection
from neuralops.models.multionet import DeepONet as DeepONet
from neuralops.models.multionet import MultiONet as MultiONet
from neuralops.models.transolver import Transolver as Transolver
from neuralops.models.wavenet import WaveNet as WaveNet

__all__ = [
    "DGNO",
    "FNO",
    "LPN",
    "LSM",
    "ConvDenoiser",
    "DeepONet",
    "DirectionNet",
    "GeoOperator",
    "GradientStep",
    "LatentUNet",
    "MgNO",
    "MultiONet",
    "MultigridDirection",
    "Patched",
    "Transolver",
    "WaveNet",
]
