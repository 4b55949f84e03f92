"""Burgers' equation in time: an FNO that makes one step, applied to its own output.

    python examples/rollout.py                      # under a minute on two cores
    python examples/rollout.py --seeds 3 --num-epochs 60

The trajectories come from the library's solver, repeated with a fixed step. The same FNO is trained three ways: one
step at a time, one step at a time with noise on its input, and through several steps of its own output. All three
see equally many gradient evaluations of the network (an unrolled window of K steps counts K), or make equally many
updates (`--budget updates`). Unseen trajectories judge them by rollout, beside persistence and the training mean.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import jax
import matplotlib
import numpy as np
import optax

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/rollout"))
    parser.add_argument("--num-points", type=int, default=64)
    parser.add_argument("--viscosity", type=float, default=0.01)
    parser.add_argument("--dt", type=float, default=0.05, help="time between two frames")
    parser.add_argument("--num-steps", type=int, default=20, help="steps of a trajectory")
    parser.add_argument("--num-train", type=int, default=64)
    parser.add_argument("--num-test", type=int, default=32)
    parser.add_argument("--num-epochs", type=int, default=20, help="of one-step training; an unrolled loss gets fewer")
    parser.add_argument("--unroll", type=int, default=4, help="steps of the unrolled loss")
    parser.add_argument("--budget", choices=("evaluations", "updates"), default="evaluations", help="what is equal")
    parser.add_argument("--noise", type=float, default=0.01, help="as a fraction of the root mean square")
    parser.add_argument("--threshold", type=float, default=0.1, help="relative L2 error up to which a step is valid")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    args = parser.parse_args()
    if not 1 <= args.unroll <= min(args.num_steps, args.num_epochs):
        parser.error(f"--unroll must be at least 1 and at most --num-steps and --num-epochs, got {args.unroll}")
    return args


def trajectories(problem: no.pde.Burgers, key: jax.Array, count: int, num_steps: int) -> np.ndarray:
    """`(count, 1 + num_steps, 1, n)`: the solver, whose final time is the step, applied to its own output."""
    with jax.enable_x64(True):
        start = jax.vmap(problem.sample)(jax.random.split(key, count)).astype("float64")
        frames = jax.jit(jax.vmap(lambda u: no.rollout(problem.solve, u, num_steps)))(start)
        return np.concatenate([start[:, None], frames], axis=1).astype("float32")


def train(frames: np.ndarray, num_steps: int, noise: float, seed: int, args: argparse.Namespace) -> Normalized:
    """An FNO from one frame to the next, within the budget whatever `num_steps`."""
    pairs = no.data.windows(frames, horizon=num_steps).load()
    budget = args.num_epochs * len(frames) * (frames.shape[1] - 1)  # one-step windows seen
    cost = num_steps if args.budget == "evaluations" else 1
    epochs = max(round(budget / (cost * len(pairs))), 1)
    updates = epochs * -(-len(pairs) // args.batch_size)
    network = no.FNO((24,), 1, 1, 24, n_layers=3, boundary="periodic", key=jax.random.key(seed))
    scale = Normalizer.fit(frames.reshape(-1, *frames.shape[2:]))
    op, _ = no.fit(
        Normalized(network, scale, scale),
        pairs,
        objective=no.losses.rollout(num_steps, no.losses.l2(), noise=noise),
        optimizer=optax.adam(optax.cosine_onecycle_schedule(updates, args.learning_rate)),
        num_epochs=epochs,
        batch_size=args.batch_size,
        key=jax.random.key(seed + 1),
        progress=not args.quiet,
    )
    return op


def judge(predictions: np.ndarray, truth: np.ndarray, args: argparse.Namespace) -> tuple[np.ndarray, float]:
    """Relative L2 of each step and the valid time, means over the trajectories."""
    n = truth.shape[1]
    flat = [np.reshape(u, (len(u), -1, u.shape[-1])) for u in (predictions, truth)]
    errors = jax.vmap(no.metrics.per_step(no.metrics.relative_l2, n))(*flat)
    valid = jax.vmap(no.metrics.valid_time(n, args.threshold, args.dt))(*flat)
    return np.asarray(errors).mean(axis=0), float(np.mean(valid))


def table(results: dict[str, list[tuple[np.ndarray, float]]], args: argparse.Namespace) -> str:
    n = args.num_steps
    steps = sorted({1, max(n // 4, 1), max(n // 2, 1), n})
    titles = [f"step {s}" for s in steps]
    lines = [f"| relative L2 in % | {' | '.join(titles)} | valid time |", "| --- |" + " --- |" * (len(steps) + 1)]
    for name, runs in results.items():
        rows = np.array([[*(100 * errors[s - 1] for s in steps), valid] for errors, valid in runs])
        spread = rows.std(axis=0, ddof=1) if len(runs) > 1 else None
        cells = [f"{m:.2f}" + ("" if spread is None else f" ± {spread[i]:.2f}") for i, m in enumerate(rows.mean(0))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(path: Path, truth: np.ndarray, prediction: np.ndarray, name: str, results: dict, dt: float) -> None:
    """Space and time of one trajectory; below, the error of all methods over the steps."""
    fig, axes = plt.subplot_mosaic("abc;ddd", figsize=(10, 7), height_ratios=(1, 1.1), layout="constrained")
    size = np.abs(truth).max()
    error = prediction - truth
    for ax, field, title, bound in (
        ("a", truth, "solver", size),
        ("b", prediction, f"FNO, {name}", size),
        ("c", error, "error", np.abs(error).max()),
    ):
        extent = (0, 1, -dt / 2, dt * (len(truth) - 0.5))  # frames at their times, the start included
        image = axes[ax].imshow(
            field[:, 0], origin="lower", aspect="auto", extent=extent, cmap="RdBu_r", vmin=-bound, vmax=bound
        )
        axes[ax].set(title=title, xlabel="x", ylabel="time" if ax == "a" else "")
        fig.colorbar(image, ax=axes[ax])
    for label, runs in results.items():
        errors = np.mean([e for e, _ in runs], axis=0)
        dashed = label in ("persistence", "training mean")
        axes["d"].semilogy(dt * np.arange(1, len(errors) + 1), errors, "--" if dashed else "-", label=label)
    axes["d"].set(xlabel="time", ylabel="relative L2 error")
    axes["d"].grid(alpha=0.3)
    axes["d"].legend(ncols=3, fontsize=9)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    args = parse()
    args.output.mkdir(parents=True, exist_ok=True)
    problem = no.pde.Burgers(args.num_points, viscosity=args.viscosity, final_time=args.dt)
    methods = {
        "one step": (1, 0.0),
        "one step, noise": (1, args.noise),
        f"unrolled, {args.unroll} steps": (args.unroll, 0.0),
    }
    results: dict[str, list] = {name: [] for name in (*methods, "persistence", "training mean")}
    for seed in range(args.seed, args.seed + args.seeds):
        keys = jax.random.split(jax.random.key(seed), 2)
        frames = trajectories(problem, keys[0], args.num_train, args.num_steps)
        test = trajectories(problem, keys[1], args.num_test, args.num_steps)
        if not (np.isfinite(frames).all() and np.isfinite(test).all()):
            raise SystemExit("the solver gave up on a trajectory; raise --viscosity or --num-points")
        start, truth = test[:, 0], test[:, 1:]
        shown = {}
        for name, (num_steps, noise) in methods.items():
            begin = time.perf_counter()
            op = train(frames, num_steps, noise, seed, args)
            seconds = time.perf_counter() - begin
            shown[name] = np.asarray(jax.jit(jax.vmap(no.Rollout(op, args.num_steps)))(start)).reshape(truth.shape)
            results[name].append(judge(shown[name], truth, args))
            print(f"seed {seed}, {name}: trained in {seconds:.0f} s, valid time {results[name][-1][1]:.2f}")
        results["persistence"].append(judge(np.repeat(start[:, None], args.num_steps, 1), truth, args))
        mean = no.baselines.training_mean(Samples(frames[:, 0], frames[:, 1:, 0]))
        results["training mean"].append(judge(np.stack([mean(u) for u in start])[:, :, None], truth, args))
    text = table(results, args)
    print("\n" + text)
    (args.output / "report.md").write_text(text + "\n")
    best = max(methods, key=lambda name: results[name][-1][1])
    fields = (np.concatenate([start[:1], frames[0]]) for frames in (truth, shown[best]))
    picture(args.output / "rollout.png", *fields, best, results, args.dt)
    print(f"\nsaved: {args.output}/rollout.png, report.md")


if __name__ == "__main__":
    main()
