"""Two-phase Darcy labels in float64: samples per second of our solver beside SciPy's direct solver and PyAMG.

-div(a grad u) = 1 on the unit square, u = 0 on its boundary, a = 12 or 3 by the sign of a smooth random field, on
cell-centred grids, every method to the same true relative residual on the same samples.

    python benchmarks/darcy_generation.py --points 85 211 421 --samples 5

Ours is compiled once per grid size; compilation is a column of its own, face assembly is inside the time. Theirs get
the assembled sparse matrix for free; factorisation or multigrid set-up, which each new coefficient needs, is inside the
time. Methods take turns sample by sample; medians are reported. Needs pyamg for its rows (pip install pyamg).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg as spl

from neuralops.grid import Grid
from neuralops.solvers import CG, Diffusion, FastPoisson, solve

ALPHA, TAU = 2.0, 3.0  # the random field's covariance: (-Laplacian + TAU^2)^(-ALPHA), Neumann


def coefficient(n: int, rng: np.random.Generator) -> np.ndarray:
    """A two-phase coefficient: the sign of a smooth Gaussian field made with a cosine transform."""
    k2 = np.pi**2 * np.arange(n) ** 2
    spectrum = rng.normal(size=(n, n)) * (k2[:, None] + k2[None, :] + TAU**2) ** (-ALPHA / 2)
    spectrum[0, 0] = 0
    return np.where(scipy.fft.idctn(spectrum, norm="ortho") > 0, 12.0, 3.0)


def sparse_matrix(a: np.ndarray) -> sp.csr_matrix:
    """The same five-point matrix, assembled with SciPy alone."""
    n, h2 = len(a), 1 / len(a) ** 2
    number, diagonal = np.arange(n * n).reshape(n, n), np.zeros((n, n))
    rows, columns, values = [], [], []
    for low, high in (((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
                      ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))):  # fmt: skip
        c = 2 * a[low] * a[high] / (a[low] + a[high]) / h2
        diagonal[low] += c
        diagonal[high] += c
        rows += [number[low].ravel(), number[high].ravel()]
        columns += [number[high].ravel(), number[low].ravel()]
        values += [-c.ravel()] * 2
    for wall in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        diagonal[wall] += 2 * a[wall] / h2
    rows, columns, values = [*rows, number.ravel()], [*columns, number.ravel()], [*values, diagonal.ravel()]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_matrix(entries, shape=(n * n, n * n))


def ours(n: int, rtol: float, kind: str, batch: int = 0) -> tuple[Callable[[Any], Any], float]:
    """Our compiled solve from a coefficient (or a batch of them) to a Solution, and the seconds to compile."""
    grid = Grid((n, n), boundary="dirichlet", centering="cell")
    inverse = FastPoisson(grid, dtype="float32" if kind == "float32" else None)

    def label(a: jax.Array) -> Any:
        A, preconditioner = Diffusion.from_coefficient(grid, a), inverse
        if kind == "scaled":  # a^(-1/2) L^-1 a^(-1/2): exact for a constant, good for smooth coefficients
            preconditioner = lambda r: inverse(r / jnp.sqrt(a)) / jnp.sqrt(a)
        return solve(A, A.load(jnp.ones_like(a)), CG(rtol, preconditioner=preconditioner))

    shape = (batch, n, n) if batch else (n, n)
    start = time.perf_counter()
    function = jax.jit(jax.vmap(label) if batch else label)
    compiled = function.lower(jax.ShapeDtypeStruct(shape, jnp.float64)).compile()
    seconds = time.perf_counter() - start
    return lambda a: jax.block_until_ready(compiled(jnp.asarray(a))), seconds


def peers(rtol: float) -> dict[str, Callable[[sp.csr_matrix, np.ndarray], tuple[np.ndarray, int | None]]]:
    def direct(matrix: sp.csr_matrix, b: np.ndarray) -> tuple[np.ndarray, int | None]:
        return spl.spsolve(matrix, b), None

    table = {"scipy spsolve": direct}
    if importlib.util.find_spec("pyamg") is None:
        print("pyamg is not installed: its rows are left out (pip install pyamg).\n")
        return table
    import pyamg

    def multigrid(build: Callable[..., Any]) -> Callable[[sp.csr_matrix, np.ndarray], tuple[np.ndarray, int | None]]:
        def run(matrix: sp.csr_matrix, b: np.ndarray) -> tuple[np.ndarray, int | None]:
            residuals: list[float] = []
            x = build(matrix).solve(b, tol=rtol, accel="cg", residuals=residuals)
            return x, len(residuals) - 1

        return run

    table["pyamg ruge_stuben + CG"] = multigrid(pyamg.ruge_stuben_solver)
    table["pyamg smoothed_aggregation + CG"] = multigrid(pyamg.smoothed_aggregation_solver)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[85, 211, 421], help="points per side")
    parser.add_argument("--samples", type=int, default=5, help="coefficient samples per size")
    parser.add_argument("--rtol", type=float, default=1e-10, help="true relative residual to reach")
    parser.add_argument("--batch", type=int, default=0, help="also solve batches of this many by jax.vmap")
    parser.add_argument("--scaled", action="store_true", help="also precondition with a^(-1/2) L^-1 a^(-1/2)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with jax.enable_x64(True):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    others = peers(arguments.rtol)
    print("| points | method | samples/s | times spsolve | seconds | steps | worst residual | compile s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for n in arguments.points:
        rng = np.random.default_rng(arguments.seed)
        samples = [coefficient(n, rng) for _ in range(arguments.samples)]
        matrices, b = [sparse_matrix(a) for a in samples], np.ones(n * n)
        compiled = {
            "ours, CG + FastPoisson": ours(n, arguments.rtol, "plain"),
            "ours, float32 FastPoisson": ours(n, arguments.rtol, "float32"),
        }
        if arguments.scaled:
            compiled["ours, scaled by a^(-1/2)"] = ours(n, arguments.rtol, "scaled")
        seconds: dict[str, list[float]] = {}
        steps: dict[str, list[int]] = {}
        residuals: dict[str, list[float]] = {}

        def record(name: str, matrix: Any, x: Any, taken: float, count: int | None, b: Any = b, r: Any = residuals,
                   t: Any = seconds, s: Any = steps) -> None:  # fmt: skip
            t.setdefault(name, []).append(taken)
            r.setdefault(name, []).append(float(np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)))
            if count is not None:
                s.setdefault(name, []).append(count)

        for solver, _ in compiled.values():
            solver(samples[0])  # first calls allocate
        for a, matrix in zip(samples, matrices, strict=True):
            for name, (solver, _) in compiled.items():
                start = time.perf_counter()
                solution = solver(a)
                taken = time.perf_counter() - start
                record(name, matrix, np.ravel(solution.value), taken, int(solution.num_steps))
            for name, peer in others.items():
                start = time.perf_counter()
                x, count = peer(matrix, b)
                record(name, matrix, x, time.perf_counter() - start, count)
        if arguments.batch:
            name = f"ours, batches of {arguments.batch}"
            compiled[name] = ours(n, arguments.rtol, "plain", arguments.batch)
            many = np.stack([coefficient(n, rng) for _ in range(arguments.batch)])
            first = sparse_matrix(many[0])
            for _ in range(arguments.samples + 1):
                start = time.perf_counter()
                solution = compiled[name][0](many)
                taken = (time.perf_counter() - start) / arguments.batch
                record(name, first, np.ravel(solution.value[0]), taken, int(np.max(solution.num_steps)))
            seconds[name] = seconds[name][1:]
        reference = statistics.median(seconds["scipy spsolve"])
        for name, times in seconds.items():
            middle = statistics.median(times)
            count = f"{statistics.median(steps[name]):.0f}" if name in steps else "-"
            compilation = f"{compiled[name][1]:.2f}" if name in compiled else "-"
            print(
                f"| {n} | {name} | {1 / middle:.3g} | {reference / middle:.2f} | {middle:.4f} | {count} "
                f"| {max(residuals[name]):.1e} | {compilation} |",
                flush=True,
            )
    load = " ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    print(f"\n{os.cpu_count()} cores; load average at the end {load} (above the core count, the times are not fair).")


if __name__ == "__main__":
    main()
