"""Two-dimensional flow in time: an FNO that makes one step, trained for one step or through several of its own.

    python examples/navier_stokes.py                      # under a minute on two cores
    python examples/navier_stokes.py --seconds 60 --num-train 200 --num-points 64

The vorticity of a forced flow comes from the library's solver, in frames at equal distances. The same FNO is trained on
pairs of neighbouring frames, and on windows through which it runs on its own output. Both are trained for the same time
(compilation not counted). Unseen trajectories judge them by rollout, beside persistence.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
import optax

import neuralops as no
from neuralops.data import Normalized, Normalizer

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/navier_stokes"))
    parser.add_argument("--num-points", type=int, default=32, help="points per side")
    parser.add_argument("--viscosity", type=float, default=1e-3)
    parser.add_argument("--scale", type=float, default=7**1.5, help="of the vorticity at time 0")
    parser.add_argument("--dt", type=float, default=1.0, help="time between two frames")
    parser.add_argument("--skip", type=int, default=5, help="frames left out at the beginning")
    parser.add_argument("--num-steps", type=int, default=20, help="steps of a trajectory")
    parser.add_argument("--num-train", type=int, default=24)
    parser.add_argument("--num-test", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0, help="training time of each of the two")
    parser.add_argument("--unroll", type=int, default=2, help="steps of a longer window")
    parser.add_argument("--threshold", type=float, default=0.1, help="relative L2 error up to which a step is valid")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not 2 <= args.unroll <= args.num_steps:
        parser.error(f"--unroll must be at least 2 and at most --num-steps, got {args.unroll}")
    return args


def trajectories(key: jax.Array, count: int, args: argparse.Namespace) -> np.ndarray:
    """`(count, 1 + num_steps, 1, x, y)`."""
    frames = args.skip + args.num_steps
    problem = no.pde.NavierStokes(
        (args.num_points, args.num_points),
        viscosity=args.viscosity,
        final_time=args.dt * frames,
        num_times=frames + 1,
        scale=args.scale,
    )
    solve = jax.jit(lambda key: problem.solve(problem.sample(key)))  # a batch would wait for its slowest at each step
    return np.stack([solve(key) for key in jax.random.split(key, count)])[:, args.skip :, None]


def train(frames: np.ndarray, num_steps: int, args: argparse.Namespace) -> tuple[Normalized, int, float]:
    """An FNO from one frame to the next, its updates and the seconds they took.

    The time is not known in updates beforehand, so the rate stays as it is and the parameters are averaged instead.
    """
    pairs = no.data.windows(frames, horizon=num_steps, stride=num_steps).load()  # each pair of frames once an epoch
    network = no.FNO((12, 12), 1, 1, 16, n_layers=3, boundary="periodic", key=jax.random.key(args.seed))
    scale = Normalizer.fit(frames.reshape(-1, *frames.shape[2:]))
    ends: list[float] = []

    def late(epoch: int, report: dict[str, Any]) -> bool:
        ends.append(time.perf_counter())
        return ends[-1] - ends[0] >= args.seconds  # the first epoch holds the compilation

    op, _ = no.fit(
        Normalized(network, scale, scale),
        pairs,
        objective=no.losses.rollout(num_steps, no.losses.l2()),
        optimizer=optax.adam(args.learning_rate),
        average=0.95,
        num_epochs=10_000,
        batch_size=args.batch_size,
        key=jax.random.key(args.seed + 1),
        drop_last=True,
        progress=False,
        callback=late,
    )
    return op, len(ends) * (len(pairs) // args.batch_size), ends[-1] - ends[0]


def judge(predictions: np.ndarray, truth: np.ndarray, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Relative L2 of each step and the valid time, means over the trajectories."""
    n = truth.shape[1]
    flat = [np.reshape(u, (len(u), n, *u.shape[-2:])) for u in (predictions, truth)]
    errors = jax.vmap(no.metrics.per_step(no.metrics.relative_l2, n))(*flat)
    valid = jax.vmap(no.metrics.valid_time(n, args.threshold, args.dt))(*flat)
    return np.asarray(errors).mean(axis=0), float(np.mean(valid))


def table(results: dict[str, tuple[np.ndarray, float]], args: argparse.Namespace) -> str:
    n = args.num_steps
    steps = sorted({1, max(n // 4, 1), max(n // 2, 1), n})
    lines = [
        f"| relative L2 in % | {' | '.join(f'step {s}' for s in steps)} | valid time |",
        "| --- |" + " --- |" * (len(steps) + 1),
    ]
    for name, (errors, valid) in results.items():
        lines.append(f"| {name} | {' | '.join(f'{100 * errors[s - 1]:.2f}' for s in steps)} | {valid:.2f} |")
    return "\n".join(lines)


def picture(
    path: Path, truth: np.ndarray, rolled: dict[str, np.ndarray], results: dict, args: argparse.Namespace
) -> None:
    """The last frame of a trajectory, its predictions and their errors; below, the errors over time."""
    names = list(rolled)
    fields = [truth, *(rolled[name] for name in names), *(rolled[name] - truth for name in names)]
    titles = ["solver", *names, *(f"error, {name}" for name in names)]
    fig, axes = plt.subplot_mosaic("abcde;fffff", figsize=(12, 6.2), height_ratios=(1, 1.35), layout="constrained")
    size, worst = np.abs(truth).max(), max(np.abs(field).max() for field in fields[3:])
    for i, (ax, field, title) in enumerate(zip("abcde", fields, titles, strict=True)):
        bound = size if i < 3 else worst
        image = axes[ax].imshow(
            field.T,
            origin="lower",
            extent=(0, 1, 0, 1),
            cmap="RdBu_r",
            vmin=-bound,
            vmax=bound,
            interpolation="bicubic",
        )
        axes[ax].set(title=title, xticks=[], yticks=[])
        if i in (2, 4):  # a scale serves the panels to its left
            fig.colorbar(image, ax=axes[ax], shrink=0.8)
    time_after = args.dt * np.arange(1, args.num_steps + 1)
    for label, (errors, _) in results.items():
        axes["f"].semilogy(
            time_after, 100 * errors, "--" if label == "persistence" else "-o", markersize=3, label=label
        )
    axes["f"].axhline(100 * args.threshold, color="grey", linewidth=0.8, linestyle=":", label="valid up to here")
    axes["f"].set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes["f"].minorticks_off()
    axes["f"].set(xlabel="time since the start", ylabel="relative L2 error in %", xlim=(0, time_after[-1] * 1.01))
    axes["f"].grid(alpha=0.3, which="both")
    axes["f"].legend(fontsize=9, ncols=2)
    fig.suptitle(f"vorticity at the last step, {time_after[-1]:g} units of time after the start", fontsize=12)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    keys = jax.random.split(jax.random.key(args.seed), 2)
    frames = trajectories(keys[0], args.num_train, args)
    test = trajectories(keys[1], args.num_test, args)
    if not (np.isfinite(frames).all() and np.isfinite(test).all()):
        raise SystemExit("the solver gave up on a trajectory; raise --viscosity or --num-points")
    print(f"{len(frames) + len(test)} trajectories in {time.perf_counter() - begin:.0f} s")
    start, truth = test[:, 0], test[:, 1:]
    results, rolled = {}, {}
    for name, num_steps in (("one step", 1), (f"{args.unroll} steps", args.unroll)):
        op, updates, seconds = train(frames, num_steps, args)
        rolled[name] = np.asarray(jax.jit(jax.vmap(no.Rollout(op, args.num_steps)))(start)).reshape(truth.shape)
        results[name] = judge(rolled[name], truth, args)
        print(f"{name}: {updates} updates in {seconds:.0f} s, valid time {results[name][1]:.2f}")
    results["persistence"] = judge(np.repeat(start[:, None], args.num_steps, 1), truth, args)
    text = table(results, args)
    print("\n" + text)
    (args.output / "report.md").write_text(text + "\n")
    last = {name: fields[0, -1, 0] for name, fields in rolled.items()}
    picture(args.output / "navier_stokes.png", truth[0, -1, 0], last, results, args)
    print(f"\nsaved: {args.output}/navier_stokes.png, report.md")


if __name__ == "__main__":
    main()
