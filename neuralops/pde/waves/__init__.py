"""Acoustic waves: the equation on a box, walls that absorb, sources and receivers, media."""

from neuralops.pde.waves.absorbing import AbsorbingLayer
from neuralops.pde.waves.driving import ExtendedSources, Sources
from neuralops.pde.waves.equation import WaveEquation
from neuralops.pde.waves.initial import Rings
from neuralops.pde.waves.media import (
    Checkerboard,
    Fault,
    Homogeneous,
    Inclusions,
    Layered,
    Lens,
    LogNormal,
    Maze,
    Medium,
)
from neuralops.pde.waves.running import WaveRun
from neuralops.pde.waves.scheme import WaveState
from neuralops.pde.waves.wavelets import gaussian_pulse, plane_wave, ricker, rings

__all__ = [
    "AbsorbingLayer",
    "Checkerboard",
    "ExtendedSources",
    "Fault",
    "Homogeneous",
    "Inclusions",
    "Layered",
    "Lens",
    "LogNormal",
    "Maze",
    "Medium",
    "Rings",
    "Sources",
    "WaveEquation",
    "WaveRun",
    "WaveState",
    "gaussian_pulse",
    "plane_wave",
    "ricker",
    "rings",
]
