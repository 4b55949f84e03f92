"""A network that proposes search directions for Poisson's equation, trained without solutions, and what it is worth.

    python examples/deep_conjugate_direction.py             # trained on 32 x 32 cells; about a minute on two cores
    python examples/deep_conjugate_direction.py --study     # trained for some minutes: the table in docs

Right-hand sides of unit norm are drawn by the paper's law (low modes amplified), a `DirectionNet` is fitted to leave as
small a residual as it can after one step, and `DeepConjugateDirection` uses it on held-out right-hand sides on the
trained grid, on one of twice and on one of four times the points per side. Beside it stand CG, which it must beat, and
the two classical methods that it would have to beat to be worth its seconds. Data, checkpoint, network, report and
figure lie under --output; a training that was interrupted goes on when it is started again with the same arguments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import neuralops as no

COLOURS = {"CG": "#999999", "DCDM": "#d1495b", "CG + Multigrid V(1,1)": "#1f77b4", "FastPoisson": "#2ca02c"}
HISTORY = 2000
STUDY = {"num_train": 4000, "num_epochs": 5, "num_test": 10, "repeats": 5}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/deep_conjugate_direction"))
    parser.add_argument("--num-points", type=int, default=32, help="cells per side to train on")
    parser.add_argument("--num-train", type=int, default=500)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of Adam at the start")
    parser.add_argument("--model", choices=("from_64", "from_128"), default="from_64", help="the topology")
    parser.add_argument("--memory", type=int, default=2)
    parser.add_argument("--rtol", type=float, default=1e-4)
    parser.add_argument("--num-test", type=int, default=5, help="held-out right-hand sides per size")
    parser.add_argument("--repeats", type=int, default=3, help="timings, of which the median counts")
    parser.add_argument("--study", action="store_true", help=", ".join(f"{k}={v}" for k, v in STUDY.items()))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    if args.study:
        vars(args).update(STUDY)
    return args


def trained(args: argparse.Namespace) -> tuple[Any, Any]:
    """The network, fitted by the squared residual after one step: no solution is asked for."""
    n, problem = args.num_points, no.pde.PoissonDirections((args.num_points,) * 2)
    train = no.data.generate(
        problem,
        key=args.seed,
        num_samples=args.num_train,
        path=args.output / f"directions_{n}_{args.num_train}.h5",
        progress=not args.quiet,
    ).load()
    net = no.DirectionNet.paper(
        args.model,
        ndim=2,
        boundary="neumann",  # what the convolutions read beyond the walls; the paper has zeros
        centering="cell",
        scaling="rms",  # unit residuals of all grids enter alike
        key=jax.random.key(args.seed),
    )
    steps = args.num_epochs * -(-args.num_train // args.batch_size)
    return no.fit(
        net,
        (train.inputs, train.inputs),
        loss=no.losses.one_step(problem.operator),
        optimizer=optax.adam(optax.cosine_decay_schedule(args.rate, steps, 0.01)),
        num_epochs=args.num_epochs,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 1),
        checkpoint=args.output / f"training_{n}_{args.num_train}_{args.num_epochs}",
        resume=True,
        progress=not args.quiet,
    )


def methods(net: Any, A: no.Diffusion, args: argparse.Namespace) -> dict[str, Callable]:
    options = {"rtol": args.rtol, "history": HISTORY, "max_steps": HISTORY}
    return {
        "CG": lambda: no.CG(**options),
        "DCDM": lambda: no.DeepConjugateDirection(net, memory=args.memory, **options),
        "CG + Multigrid V(1,1)": lambda: no.CG(preconditioner=no.Multigrid(A), **options),
        "FastPoisson": lambda: no.Refinement(no.FastPoisson(A.grid), **options),
    }


def judge(net: Any, args: argparse.Namespace) -> tuple[str, dict[int, dict[str, Any]]]:
    """Steps and seconds of a solve in float64, the network in float32 inside; seconds include building the method."""
    lines = [
        "| cells | method | steps, mean (most) | against CG | seconds per solve | rejected | not converged |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    curves: dict[int, dict[str, Any]] = {}
    for size in (args.num_points, 2 * args.num_points, 4 * args.num_points):
        problem = no.pde.PoissonDirections((size, size))
        A = problem.operator
        b = [problem.sample(jax.random.key(10_000 + args.seed + k)) for k in range(args.num_test)]
        steps: dict[str, np.ndarray] = {}
        for name, make in methods(net, A, args).items():
            solve = jax.jit(lambda b, make=make, A=A: no.solve(A, b, make()))
            runs = [jax.block_until_ready(solve(rhs)) for rhs in b]
            seconds = []
            for _ in range(args.repeats):
                begin = time.perf_counter()
                jax.block_until_ready(solve(b[0]))
                seconds.append(time.perf_counter() - begin)
            missed = sum(not bool(run.converged) for run in runs)
            steps[name] = np.array([int(run.num_steps) for run in runs])
            curves.setdefault(size, {})[name] = np.asarray(runs[0].history)[: int(runs[0].num_steps) + 1]
            rejected = int(sum(run.num_rejected for run in runs))
            ratio = np.mean(steps[name]) / np.mean(steps["CG"])
            lines.append(
                f"| {size}^2 | {name} | {steps[name].mean():.1f} ({steps[name].max()}) | {ratio:.2f} "
                f"| {np.median(seconds):.4f} | {rejected} | {missed} |"
            )
    return "\n".join(lines), curves


def plot(net: Any, history: Any, curves: dict[int, dict[str, Any]], args: argparse.Namespace) -> None:
    """Above: a residual, the direction proposed for it, and the exact answer. Below: convergence, and the training."""
    figure = Figure(figsize=(12.5, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    problem = no.pde.PoissonDirections((args.num_points,) * 2)
    b = problem.sample(jax.random.key(10_000 + args.seed))
    exact = problem.solve(b)
    direction = net(b.astype(jnp.float32))
    direction = direction - direction.mean()
    image = problem.operator(direction)
    direction = direction * jnp.vdot(direction, b) / jnp.vdot(direction, image)
    limit = float(jnp.abs(exact).max())
    shown = (("right-hand side", b, None), ("step along the direction", direction, limit), ("solution", exact, limit))
    for ax, (title, field, most) in zip(axes[0], shown, strict=True):
        most = float(jnp.abs(field).max()) if most is None else most
        image = ax.imshow(np.asarray(field)[0].T, origin="lower", cmap="RdBu_r", vmin=-most, vmax=most)
        ax.set(title=title, xticks=[], yticks=[])
        figure.colorbar(image, ax=ax, shrink=0.8)
    sizes = (args.num_points, 4 * args.num_points)
    for ax, size in zip(axes[1], sizes, strict=False):
        for name, curve in curves[size].items():
            ax.semilogy(curve, color=COLOURS[name], label=name)
        ax.axhline(args.rtol, color="#cccccc", linewidth=0.8)
        ax.set(title=f"{size} x {size} cells", xlabel="step", ylabel="relative residual")
        ax.set(ylim=(args.rtol / 10, 10), xlim=(0, None))
        ax.set_xscale("symlog", linthresh=10)
    axes[1, 0].legend(fontsize=8, loc="upper right")
    axes[1, 2].plot(1 + np.arange(len(history.loss)), history.loss, color="#d1495b", marker=".")
    axes[1, 2].set(title="training", xlabel="epoch", ylabel="squared residual after one step", yscale="log")
    figure.savefig(args.output / "deep_conjugate_direction.png", dpi=80)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    net, history = trained(args)
    no.save(args.output / "direction.safetensors", net)
    with jax.enable_x64(True):
        table, curves = judge(net, args)
        plot(net, history, curves, args)
    text = (
        f"trained on {args.num_points}^2 cells, {args.num_train} right-hand sides, {args.num_epochs} epochs: "
        f"{sum(history.seconds):.0f} s, loss {history.loss[-1]:.3f}; solves to {args.rtol:g}\n\n{table}"
    )
    print(text)
    (args.output / "report.md").write_text(text + "\n")
    print(f"\nsaved: {args.output}/deep_conjugate_direction.png, report.md, direction.safetensors, the data (*.h5)")


if __name__ == "__main__":
    main()
