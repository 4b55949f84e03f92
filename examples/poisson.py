"""The ways to solve -div(a grad u) = f side by side: iterations, seconds, and the residual that proves the answer.

    python examples/poisson.py                        # 256 x 256, constant and log-normal coefficient; about a minute
    python examples/poisson.py --num-points 128 --contrast 5000

Every method is one compiled function of the coefficient and the source, so its seconds include making its
preconditioner anew, as a simulation does whose coefficient moves. Table and convergence plot lie under --output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import neuralops as no

HISTORY = 10000  # residuals kept for the plot


def methods(grid: no.Grid, rtol: float) -> dict[str, tuple[str, Callable]]:
    """By name a colour and a function that makes the method from the operator, the coefficient and a limit on steps."""
    cg = lambda M, limit: no.CG(rtol, preconditioner=M, max_steps=limit, history=HISTORY)
    flexible = lambda M, limit: no.FlexibleCG(rtol, preconditioner=M, max_steps=limit, history=HISTORY)
    refinement = lambda M, limit: no.Refinement(M, rtol, max_steps=limit, history=HISTORY)
    multigrid = no.Multigrid
    return {
        "CG": ("#999999", lambda A, a, limit: cg(None, limit)),
        "CG + Jacobi": ("#555555", lambda A, a, limit: cg(no.solvers.Jacobi(A), limit)),
        "CG + Chebyshev(4)": ("#8c6d31", lambda A, a, limit: cg(no.solvers.Chebyshev(A, 4), limit)),
        "CG + FastPoisson": ("#e7969c", lambda A, a, limit: cg(no.FastPoisson(grid), limit)),
        "CG + FastPoisson, scaled": (
            "#d1495b", lambda A, a, limit: cg(no.solvers.Scaled(no.FastPoisson(grid), a**-0.5), limit)
        ),
        "CG + Multigrid V(1,1)": ("#1f77b4", lambda A, a, limit: cg(multigrid(A), limit)),
        "CG + Multigrid V(2,2)": ("#9ecae1", lambda A, a, limit: cg(multigrid(A, pre=2, post=2), limit)),
        "CG + Multigrid, nodes": ("#08306b", lambda A, a, limit: cg(multigrid(A, coarsening="nodes"), limit)),
        "CG + Multigrid, nodes, float32": (
            "#6baed6", lambda A, a, limit: cg(multigrid(A, coarsening="nodes", dtype="float32"), limit)
        ),
        "Multigrid alone, nodes": (
            "#2ca02c", lambda A, a, limit: refinement(multigrid(A, coarsening="nodes", symmetric=False), limit)
        ),
        "FlexibleCG + unsymmetric Multigrid, nodes": (
            "#98df8a", lambda A, a, limit: flexible(multigrid(A, coarsening="nodes", symmetric=False), limit)
        ),
        "Refinement of CG + Multigrid in float32": (
            "#9467bd",
            lambda A, a, limit: refinement(
                no.Inverse(A, no.CG(1e-4, preconditioner=multigrid(A, coarsening="nodes")), dtype="float32"), limit
            ),
        ),
    }  # fmt: skip


def coefficient(grid: no.Grid, contrast: float, seed: int) -> jax.Array:
    """exp of a Gaussian random field, stretched so that largest over smallest is the contrast."""
    g = no.pde.GaussianRandomField(2.0, 3.0, boundary="neumann").sample(jax.random.key(seed), grid)
    g = g.reshape(grid.shape)
    return jnp.exp(np.log(contrast) * (g - g.min()) / (g.max() - g.min()))


class Run(NamedTuple):
    """What one method did on one problem; `setup` is the part of `seconds` spent before the first step."""

    solution: Any
    seconds: float
    setup: float


def measure(compiled: dict[str, Callable], a: jax.Array, f: jax.Array, args: argparse.Namespace) -> dict[str, Run]:
    """Every method on one problem, in turns, so that a busy moment of the machine falls on all alike."""
    limits = jnp.asarray(args.max_steps), jnp.asarray(0)
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in compiled}
    for _ in range(args.repeats):
        for name, solve in compiled.items():
            for limit, times in zip(limits, seconds[name], strict=True):
                begin = time.perf_counter()
                jax.block_until_ready(solve(a, f, limit))
                times.append(time.perf_counter() - begin)
    median = {name: [float(np.median(times)) for times in pair] for name, pair in seconds.items()}
    return {name: Run(solve(a, f, limits[0]), *median[name]) for name, solve in compiled.items()}


def compare(args: argparse.Namespace) -> None:
    n = args.num_points
    grid = no.Grid((n, n), boundary="dirichlet", centering="cell")
    f = jnp.ones(grid.shape)
    problems = {
        "constant coefficient": jnp.ones(grid.shape),
        f"log-normal, contrast {args.contrast:g}": coefficient(grid, args.contrast, args.seed),
    }
    compiled, compile_seconds = {}, {}
    for name, (_, make) in methods(grid, args.rtol).items():

        @jax.jit
        def solve(a: jax.Array, f: jax.Array, limit: jax.Array, make: Callable = make) -> no.Solution:
            A = no.Diffusion.from_coefficient(grid, a)
            return no.solve(A, A.load(f), make(A, a, limit))

        begin = time.perf_counter()
        compiled[name] = solve.lower(f, f, jnp.asarray(0)).compile()
        compile_seconds[name] = time.perf_counter() - begin
        if not args.quiet:
            print(f"compiled in {compile_seconds[name]:4.1f} s: {name}", flush=True)
    runs = {problem: measure(compiled, a, f, args) for problem, a in problems.items()}

    lines = []
    for problem, rows in runs.items():
        lines += [
            f"\n{n} x {n}, {problem}, float64, relative residual {args.rtol:g}\n",
            "| method | iterations | seconds | of which setup | true residual | result | compile seconds |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for name, run in rows.items():
            solution = run.solution
            lines.append(
                f"| {name} | {int(solution.num_steps)} | {run.seconds:.4f} | {min(run.setup, run.seconds):.4f} "
                f"| {float(solution.residual_norm):.1e} | {no.solvers.Result(int(solution.result)).name} "
                f"| {compile_seconds[name]:.1f} |"
            )
    text = "\n".join(lines)
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    colours = {name: colour for name, (colour, _) in methods(grid, args.rtol).items()}
    plot(runs, colours, args.output / "poisson.png")
    print(f"\nsaved: {args.output}/poisson.png, report.md")


def plot(runs: dict[str, dict[str, Run]], colours: dict[str, str], path: Path) -> None:
    """Residuals against iterations and against seconds, a row per problem."""
    figure = Figure(figsize=(11, 3.1 * len(runs) + 0.9), layout="constrained")
    for row, (problem, results) in zip(figure.subplots(len(runs), 2, sharey=True), runs.items(), strict=True):
        for name, run in results.items():
            steps = int(run.solution.num_steps)
            residuals = np.asarray(run.solution.history)[: steps + 1]
            k = np.arange(len(residuals))
            setup = min(run.setup, run.seconds)
            seconds = setup + (run.seconds - setup) * k / max(steps, 1)
            marker = "o" if steps < 40 else None
            for axes, x in zip(row, (k, 1e3 * seconds), strict=True):
                axes.plot(x, residuals, color=colours[name], label=name, marker=marker, markersize=2.5, linewidth=1.2)
        row[0].set(title=problem, yscale="log", xlabel="iterations", ylabel="relative residual")
        row[0].set_xscale("symlog", linthresh=1, linscale=0.3)
        row[0].set_xlim(left=-0.2)
        row[1].set(title=problem, xscale="log", xlabel="milliseconds, with setup")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=80)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/poisson"))
    parser.add_argument("--num-points", type=int, default=256, help="cells per side")
    parser.add_argument("--contrast", type=float, default=500.0, help="largest over smallest coefficient")
    parser.add_argument("--rtol", type=float, default=1e-8)
    parser.add_argument("--max-steps", type=int, default=HISTORY - 1)
    parser.add_argument("--repeats", type=int, default=9, help="timed calls; the median counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no line per method while running")
    return parser.parse_args()


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    with jax.enable_x64(True):
        compare(args)


if __name__ == "__main__":
    main()
