"""One clock for every library: set-up, compilation and solve apart, to a confirmed true residual."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rivals.problems import Problem

__all__ = ["TOLERANCE", "Refused", "Steps", "load", "measure"]

TOLERANCE = 1e-8  # the true relative residual that every row must reach
SLOW = 4.0  # a first run longer than this many seconds is the measurement; else it only warms up
BUDGET = 8.0  # seconds after which a row is not repeated any more


class Refused(Exception):
    """The library cannot do this system; the text says why."""


@dataclasses.dataclass
class Steps:
    """How a method is driven. A `run` returns anything, once the work is done.

    - `build()`: all that new coefficient values ask for (hierarchy, factors); its result goes to `compile`.
    - `compile(state, rtol)`: a run with everything built. Without compilation: just the closure.
    - `read(result)`: (solution, iterations or None, what the method itself said of it) of a run, outside the clock.
    - `whole(rtol)`: build and solve in one compiled program, where the library can.
    - `count(state, rtol)`: iterations, where a run cannot tell; outside the clock.
    - `compiled`: whether there is compilation, so that a second build is faster than the first.
    """

    build: Callable[[], Any]
    compile: Callable[[Any, float], Callable[[], Any]]
    read: Callable[[Any], tuple[Any, int | None, str]] = lambda x: (x, None, "")
    whole: Callable[[float], Callable[[], Any]] | None = None
    count: Callable[[Any, float], int] | None = None
    compiled: bool = True
    rtol: float = TOLERANCE


def load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def repeated(run: Callable[[], Any], first: float, repeats: int) -> float:
    """The median of a few runs, `first` being the seconds of one already made."""
    if first > SLOW:
        return first
    seconds: list[float] = []
    while len(seconds) < repeats and (not seconds or sum(seconds) < BUDGET):
        seconds.append(timed(run)[1])
    return statistics.median(seconds)


def measure(p: Problem, steps: Steps, repeats: int) -> dict[str, Any]:
    """One row: the columns of the table as numbers."""
    row: dict[str, Any] = {"load": load()}
    state, seconds = timed(steps.build)
    if steps.compiled and seconds > 1e-4:
        row["first_build"] = seconds
        row["setup"] = statistics.median(timed(steps.build)[1] for _ in range(3))
    else:
        row["setup"] = seconds
    rtol, reached = steps.rtol, False
    for _ in range(5):
        run, seconds = timed(steps.compile, state, rtol)
        row.setdefault("compile", seconds) if steps.compiled else None
        result, first = timed(run)
        x, iterations, said = steps.read(result)
        row["residual"], row["iterations"] = p.residual(x), iterations
        reached = row["residual"] <= TOLERANCE * (1 + 1e-6)
        if reached or not np.isfinite(row["residual"]) or row["residual"] > 1e3 * TOLERANCE:
            break
        rtol *= max(0.1, 0.8 * TOLERANCE / row["residual"])  # its own test was too kind
    row["rtol"] = rtol
    row["solve"] = repeated(run, first, repeats)
    if steps.count is not None and row["iterations"] is None:
        row["iterations"] = steps.count(state, rtol)
    row["total"] = row["setup"] + row["solve"]
    if steps.whole is not None:
        run, row["compile_whole"] = timed(steps.whole, rtol)
        result, first = timed(run)
        row["residual_whole"] = p.residual(steps.read(result)[0])
        reached &= row["residual_whole"] <= TOLERANCE * (1 + 1e-6)
        row["total"] = min(row["total"], repeated(run, first, repeats))
    notes = [] if reached else ["NOT REACHED"]
    if said and (not reached or p.incompatible):
        notes.append(f"it said: {said}")
    row["note"] = "; ".join(notes)
    return row
