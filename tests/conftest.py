"""Shared by all tests: two simulated devices, a stream of keys, and double precision where a test asks for it."""

import importlib.metadata
import os

# Tests compile more than they compute, so XLA spends less on optimising them, and takes the older code generator, in
# half the time, where there is one (it aborts on a flag it does not know). `.ci/run` sets the flags itself for the
# oldest and the newest JAX, which therefore run the code that users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest


@pytest.fixture
def getkey():
    """A function that returns a new random key at every call, the same sequence in every test."""
    count = iter(range(10**6))
    return lambda: jax.random.fold_in(jax.random.key(20), next(count))


@pytest.fixture
def x64():
    """Double precision inside one test only."""
    with jax.enable_x64(True):
        yield
