"""`FastPoisson` beside the direct solver a SciPy user would write: dstn or dctn, division by eigenvalues, and back.

    python benchmarks/fast_poisson.py
    python benchmarks/fast_poisson.py --sizes 1024 128x128x128 --kinds dirichlet-cells stretched --dtypes float32

A size is the number of intervals per side: n cells, n - 1 nodes between Dirichlet ends, n + 1 nodes with Neumann ends.
SciPy has its eigenvalues inverted beforehand, multiplies in place and lets the inverse transform overwrite; with one
worker and with two. Ours is one compiled call, which may use all cores. Solvers take turns; medians and minima over at
least `--repeats` turns are printed in milliseconds, the ratio is ours over SciPy's (medians), "error" the largest
difference relative to SciPy's solution, and "compile" the seconds to compile ours. On stretched grids, for which SciPy
has nothing, its column is the uniform grid of the same size. Set GLIBC_TUNABLES=glibc.malloc.hugetlb=1 for arrays
above some megabytes, as the Makefile does.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft

from neuralops.grid import Grid
from neuralops.solvers import FastPoisson

KINDS: dict[str, tuple[Any, str]] = {
    "dirichlet-cells": ("dirichlet", "cell"),
    "dirichlet-nodes": ("dirichlet", "node"),
    "neumann-cells": ("neumann", "cell"),
    "neumann-nodes": ("neumann", "node"),
    "mixed-cells": (("dirichlet", "neumann"), "cell"),
    "mixed-nodes": (("neumann", "dirichlet"), "node"),
    "periodic": ("periodic", "node"),
    "stretched-one": ("dirichlet", "cell"),
    "stretched": ("dirichlet", "cell"),
}
SIZES = ["256x256", "512x512", "1024x1024", "2048x2048", "64x64x64", "128x128x128"]
AWKWARD = ["255x255", "421x421", "509x509", "1000x1000", "1023x1023"]


def make_grid(kind: str, intervals: tuple[int, ...]) -> Grid:
    boundary, centering = KINDS[kind]
    shift = {"dirichlet-nodes": -1, "neumann-nodes": 1}.get(kind, 0)
    return Grid(tuple(n + shift for n in intervals), 1.0, (boundary,) * len(intervals), centering)


def make_widths(kind: str, grid: Grid) -> list[np.ndarray | None] | None:
    """Cells that cluster at the low wall, on the first or on all axes."""
    if not kind.startswith("stretched"):
        return None
    lines = [np.diff((s**2 + s) / 2) for s in (np.linspace(0, 1, n + 1) for n in grid.shape)]
    return [w if kind == "stretched" or a == 0 else None for a, w in enumerate(lines)]


def scipy_solver(kind: str, grid: Grid, dtype: str, workers: int) -> Callable[[np.ndarray], np.ndarray]:
    """The direct solver by SciPy's transforms."""
    shape, h = grid.shape, grid.spacing
    half_waves: list[np.ndarray] = []  # per axis, in the order of the coefficients
    for a, n in enumerate(shape):
        m = np.arange(n)
        waves = {"dirichlet": m + 1.0, "neumann": m + 0.0, "periodic": 2.0 * np.minimum(m, n - m)}
        waves |= {"mixed": m + 0.5, "stretched": m + 1.0}
        own = waves[kind.split("-")[0]]
        half_waves.append(own[: n // 2 + 1] if kind == "periodic" and a == grid.ndim - 1 else own)
    lines = [4 * np.sin(np.pi * w * hi / 2) ** 2 / hi**2 for w, hi in zip(half_waves, h, strict=True)]
    total = functools.reduce(np.add.outer, lines)
    with np.errstate(divide="ignore"):
        inverse = np.where(total == 0, 0, 1 / total).astype(dtype)

    if kind == "periodic":

        def periodic(b: np.ndarray) -> np.ndarray:
            c = scipy.fft.rfftn(b, workers=workers)
            c *= inverse
            return scipy.fft.irfftn(c, s=shape, workers=workers, overwrite_x=True)

        return periodic

    sine = kind.split("-")[0] in ("dirichlet", "stretched") or kind == "mixed-cells"
    forward, back = (scipy.fft.dstn, scipy.fft.idstn) if sine else (scipy.fft.dctn, scipy.fft.idctn)
    number = {"dirichlet-nodes": 1, "neumann-nodes": 1, "mixed-cells": 4, "mixed-nodes": 3}.get(kind, 2)
    halved = {"neumann-nodes": (0, -1), "mixed-nodes": (0,)}.get(kind, ())  # control volumes at Neumann nodes

    def solve(b: np.ndarray) -> np.ndarray:
        if halved:
            b = b.copy()
            for axis in range(b.ndim):
                for end in halved:
                    np.moveaxis(b, axis, 0)[end] *= 2
        c = forward(b, type=number, workers=workers)
        c *= inverse
        return back(c, type=number, workers=workers, overwrite_x=True)

    return solve


def measure(solvers: dict[str, Callable[[], Any]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds per call, the solvers taking turns."""
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(2):
        for run in solvers.values():
            run()
    start = time.perf_counter()
    while len(times["ours"]) < repeats or time.perf_counter() - start < seconds:
        for name, run in solvers.items():
            begin = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def row(kind: str, intervals: tuple[int, ...], dtype: str, repeats: int, seconds: float) -> str:
    grid = make_grid(kind, intervals)
    b = np.random.default_rng(0).normal(size=grid.shape).astype(dtype)
    if kind.startswith(("neumann", "periodic")):
        b -= b.mean(dtype=np.float64).astype(dtype)
    on_device = jnp.asarray(b)
    widths = make_widths(kind, grid)
    P = FastPoisson(grid, widths)
    start = time.perf_counter()
    compiled = jax.jit(P).lower(on_device).compile()
    build = time.perf_counter() - start
    one, two = (scipy_solver(kind, grid, dtype, workers) for workers in (1, 2))
    expected, found = one(b), np.asarray(compiled(on_device))
    error = "" if widths else f"{np.abs(found - expected).max() / np.abs(expected).max():.0e}"
    times = measure(
        {"ours": lambda: jax.block_until_ready(compiled(on_device)), "one": lambda: one(b), "two": lambda: two(b)},
        repeats,
        seconds,
    )
    middle = {name: statistics.median(values) for name, values in times.items()}
    cells = [f"{middle[name]:.2f} ({min(times[name]):.2f})" for name in ("ours", "one", "two")]
    ratios = [f"{middle['ours'] / middle[name]:.2f}" for name in ("one", "two")]
    size = "x".join(map(str, grid.shape))
    return f"| {size} | {kind} | {dtype} | {' | '.join(cells + ratios)} | {build:.2f} | {error} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES + AWKWARD, help="intervals per side, such as 512x512")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="boundaries and points")
    parser.add_argument("--dtypes", nargs="+", choices=["float64", "float32"], default=["float64", "float32"])
    parser.add_argument("--repeats", type=int, default=7, help="turns at least")
    parser.add_argument("--seconds", type=float, default=0.5, help="seconds per row at least")
    arguments = parser.parse_args()
    print("| points | boundary | precision | ours ms (min) | SciPy, 1 worker | SciPy, 2 workers | ratio | ratio 2 |"
          " compile s | error |\n" + "| --- " * 10 + "|")  # fmt: skip
    with jax.enable_x64(True):
        for size in arguments.sizes:
            for kind in arguments.kinds:
                for dtype in arguments.dtypes:
                    intervals = tuple(int(n) for n in size.split("x"))
                    print(row(kind, intervals, dtype, arguments.repeats, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
