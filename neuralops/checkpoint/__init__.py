"""Operators on disk: one safetensors file, arrays named by their path, the constructor's arguments as JSON.

Reading a file runs no code from it and imports nothing it names: a class is looked up among the public classes
of this library by its bare name, and the structure is rebuilt by calling that class's constructor on plain
values, without allocating weights. What is left to a hostile file is to be refused.

What the constructor does not give again is written beside its arguments: the axes that `jax.vmap` over keys put in
front of every leaf (`ensemble`), and parts that were replaced by others of the library (`parts`).

An operator whose constructor took something that is no plain value (a Flax module, a function of the user) is
saved with its arrays only and read with `load(path, like=op)`; `save` warns.
"""

from neuralops.checkpoint.description import describe as describe
from neuralops.checkpoint.files import leaves_of as leaves_of
from neuralops.checkpoint.files import load as load
from neuralops.checkpoint.files import read_arrays as read_arrays
from neuralops.checkpoint.files import save as save
from neuralops.checkpoint.files import to_device as to_device
from neuralops.checkpoint.files import write_arrays as write_arrays

__all__ = ["load", "save"]
