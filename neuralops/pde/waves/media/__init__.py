"""Laws for drawing acoustic media: sound speed and density as functions of position."""

from neuralops.pde.waves.media.layers import Fault, Layered
from neuralops.pde.waves.media.mazes import Maze
from neuralops.pde.waves.media.medium import Medium
from neuralops.pde.waves.media.shapes import Checkerboard, Inclusions, Lens
from neuralops.pde.waves.media.smooth import Homogeneous, LogNormal

__all__ = ["Checkerboard", "Fault", "Homogeneous", "Inclusions", "Layered", "Lens", "LogNormal", "Maze", "Medium"]
