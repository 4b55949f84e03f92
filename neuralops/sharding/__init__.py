"""Solvers and waves on many devices: a grid divided into blocks over a mesh, which exchange the layers between them."""

from neuralops.sharding.solving import BlockDiffusion, solve
from neuralops.sharding.waves import run

__all__ = ["BlockDiffusion", "run", "solve"]
