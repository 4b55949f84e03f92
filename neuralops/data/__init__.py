"""Samples on disk and in memory: generate, open, read, normalise, batch."""

from neuralops.data import pictures as pictures
from neuralops.data.files.layout import SCHEMA_VERSION as SCHEMA_VERSION
from neuralops.data.files.source import HDF5Source as HDF5Source
from neuralops.data.files.source import open as open
from neuralops.data.files.source import validate as validate
from neuralops.data.files.store import generate as generate
from neuralops.data.files.writing import write as write
from neuralops.data.formats import read_hdf5 as read_hdf5
from neuralops.data.formats import read_mat as read_mat
from neuralops.data.formats import read_npz as read_npz
from neuralops.data.loader import ArrayLoader as ArrayLoader
from neuralops.data.normalize import Normalized as Normalized
from neuralops.data.normalize import Normalizer as Normalizer
from neuralops.data.pairs import pairs as pairs
from neuralops.data.published import read_published as read_published
from neuralops.data.samples import Samples as Samples
from neuralops.data.samples import check_samples as check_samples
from neuralops.data.samples import pad as pad
from neuralops.data.select import select as select
from neuralops.data.windows import windows as windows

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
    "pad",
    "pairs",
    "pictures",
    "read_hdf5",
    "read_mat",
    "read_npz",
    "read_published",
    "select",
    "validate",
    "windows",
    "write",
]
