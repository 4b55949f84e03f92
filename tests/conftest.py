"""Shared by all tests: two simulated devices, a stream of keys, double precision where a test asks, a limit of time."""

import gc
import importlib.metadata
import os
import time

# Tests compile more than they compute, so XLA spends less on optimising them, and takes the older code generator, in
# half the time, in one piece, where there is one (it aborts on a flag it does not know). `.ci/run` sets the flags
# itself for the oldest and the newest JAX, which therefore run the code that users run.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    * importlib.metadata.version("jaxlib").startswith("0.10."),
)
os.environ.setdefault("MPLBACKEND", "Agg")
# Two processes share two cores: the threads of a BLAS would wait for each other, and spin, which took some comparisons
# with SciPy seven times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest

# Traces are many small objects that live long; looking for cycles among them took 7 % of a run.
gc.set_threshold(200_000, 100, 100)

# A quick test that takes longer than this is slow, or too large for what it proves. Counted is the processor time of
# the whole test (fixtures and all threads, with what it compiles), not that of the clock, so that a busy machine fails
# nobody; programs that a test starts are not counted. A slow machine, told by the time of a loop, has more. The run
# ends with a list of such tests, and where CI is set one that takes three times as long fails: less than that can be
# the doing of a machine whose caches and cores others share. Tests marked slow are exempt.
LIMIT = 5.0  # seconds, on a machine that runs the loop in
LOOP_SECONDS = 0.06
FAILS = 3
SPENT = pytest.StashKey()
over_limit = {}


def loop_seconds():
    start, total = time.process_time(), 0
    for i in range(10**6):
        total += i
    return time.process_time() - start


LIMIT *= max(1.0, min(loop_seconds() for _ in range(3)) / LOOP_SECONDS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    item.stash[SPENT] = time.process_time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown" and item.get_closest_marker("slow") is None:
        seconds = time.process_time() - item.stash[SPENT]
        if seconds > LIMIT:
            report.user_properties.append(("processor seconds", seconds))
            if seconds > FAILS * LIMIT and os.environ.get("CI") and report.passed:
                report.outcome = "failed"
                report.longrepr = (
                    f"{seconds:.1f} s of processor time, where a quick test may take {LIMIT:.1f} s here: make it "
                    "smaller, compile less, or mark it slow."
                )
    return report


def pytest_runtest_logreport(report):
    """In the process that reports, which with several workers is not the one that ran the test."""
    seconds = dict(report.user_properties).get("processor seconds")
    if report.when == "teardown" and seconds is not None:
        over_limit[report.nodeid] = seconds


def pytest_terminal_summary(terminalreporter):
    if over_limit:
        terminalreporter.section(f"quick tests over {LIMIT:.1f} s of processor time")
        for name, seconds in sorted(over_limit.items(), key=lambda pair: -pair[1]):
            terminalreporter.write_line(f"{seconds:6.1f} s  {name}")


@pytest.fixture
def getkey():
    """A function that returns a new random key at every call, the same sequence in every test."""
    count = iter(range(10**6))
    return lambda: jax.random.fold_in(jax.random.key(20), next(count))


@pytest.fixture
def counted():
    """A function that gives another with a list that grows whenever that is traced (`_cache_size` of a jitted function
    may miss a program, or count it later)."""

    def count(fn):
        traces = []

        def seen(*args):
            traces.append(args)
            return fn(*args)

        return seen, traces

    return count


@pytest.fixture
def x64():
    """Double precision inside one test only."""
    with jax.enable_x64(True):
        yield
