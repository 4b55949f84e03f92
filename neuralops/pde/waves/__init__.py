"""Acoustic waves: the media that they run through."""

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

__all__ = ["Checkerboard", "Fault", "Homogeneous", "Inclusions", "Layered", "Lens", "LogNormal", "Maze", "Medium"]
