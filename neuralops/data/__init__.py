"""Samples on disk and in memory: generate, open, read, normalise, batch."""

from neuralops.data.formats import read_mat as read_mat
from neuralops.data.formats import read_npz as read_npz
from neuralops.data.layout import SCHEMA_VERSION as SCHEMA_VERSION
from neuralops.data.normalize import Normalized as Normalized
from neuralops.data.normalize import Normalizer as Normalizer
from neuralops.data.samples import ArrayLoader as ArrayLoader
from neuralops.data.samples import Samples as Samples
from neuralops.data.samples import check_samples as check_samples
from neuralops.data.source import HDF5Source as HDF5Source
from neuralops.data.source import open as open
from neuralops.data.source import validate as validate
from neuralops.data.source import write as write
from neuralops.data.store import generate as generate

__all__ = [
    "SCHEMA_VERSION",
    "ArrayLoader",
    "HDF5Source",
    "Normalized",
    "Normalizer",
    "Samples",
    "check_samples",
    "generate",
    "open",
    "read_mat",
    "read_npz",
    "validate",
    "write",
]
