"""Measurements that are linear: maps with exact adjoints, which compose, add and stack."""

from neuralops.inverse.maps.algebra import (
    Added,
    Composed,
    Identity,
    Matrix,
    Multiple,
    Normal,
    Stack,
    Transposed,
    stack,
)
from neuralops.inverse.maps.backprojection import FilteredBackProjection
from neuralops.inverse.maps.blur import Blur, gaussian
from neuralops.inverse.maps.differences import Gradient
from neuralops.inverse.maps.elliptic import SourceToSolution
from neuralops.inverse.maps.fourier import SubsampledFourier
from neuralops.inverse.maps.linear_map import AbstractLinearMap
from neuralops.inverse.maps.linearized import Linearized
from neuralops.inverse.maps.pixels import BlockMean, Inpainting
from neuralops.inverse.maps.points import PointValues
from neuralops.inverse.maps.radon import Radon, half_turn
from neuralops.inverse.maps.sensing import CompressedSensing
from neuralops.transposition import transposed_by

__all__ = [
    "AbstractLinearMap",
    "Added",
    "BlockMean",
    "Blur",
    "Composed",
    "CompressedSensing",
    "FilteredBackProjection",
    "Gradient",
    "Identity",
    "Inpainting",
    "Linearized",
    "Matrix",
    "Multiple",
    "Normal",
    "PointValues",
    "Radon",
    "SourceToSolution",
    "Stack",
    "SubsampledFourier",
    "Transposed",
    "gaussian",
    "half_turn",
    "stack",
    "transposed_by",
]
