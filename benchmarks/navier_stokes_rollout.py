"""Two-dimensional flow by an FNO: trained for one step or through several of its own, in equal processor time.

    python benchmarks/navier_stokes_rollout.py                  # about ten minutes on one core
    python benchmarks/navier_stokes_rollout.py --num-points 64 --num-train 400 --seconds 1200 --hidden-channels 32

Each seed draws its own trajectories and its own network. A run is recorded as it ends, and a killed study goes on from
there. Time is that of the processor, so that other work on the machine favours nobody; it holds what a run compiles.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import timed

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples

TRIVIAL = ("persistence", "training mean")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("outputs/benchmarks/navier_stokes_rollout.jsonl"))
    parser.add_argument("--num-points", type=int, default=24)
    parser.add_argument("--viscosity", type=float, default=1e-3)
    parser.add_argument(
        "--scale", type=float, default=7**1.5, help="of the initial vorticity: the published generator's"
    )
    parser.add_argument("--dt", type=float, default=1.0, help="time between two frames")
    parser.add_argument("--skip", type=int, default=5, help="frames before the first that is used")
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--num-train", type=int, default=64)
    parser.add_argument("--num-test", type=int, default=32)
    parser.add_argument("--unroll", type=int, nargs="+", default=[1, 4], help="steps of a training window")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training, for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hidden-channels", type=int, default=16)
    parser.add_argument("--n-modes", type=int, default=12)
    parser.add_argument("--n-layers", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--threshold", type=float, default=0.1, help="relative L2 error up to which a step is valid")
    return parser.parse_args()


def trajectories(key: jax.Array, count: int, args: argparse.Namespace) -> np.ndarray:
    """`(count, 1 + num_steps, 1, x, y)`."""
    frames = args.skip + args.num_steps
    problem = no.pde.NavierStokes(
        (args.num_points, args.num_points),
        viscosity=args.viscosity,
        final_time=args.dt * frames,
        num_times=frames + 1,
        scale=args.scale,
        rtol=1e-7,
    )
    with jax.enable_x64(True):
        solve = jax.jit(lambda key: problem.solve(problem.sample(key)))
        w = np.stack([np.asarray(solve(key), "float32") for key in jax.random.split(key, count)])
    if not np.isfinite(w).all():
        raise SystemExit("the solver gave up on a trajectory; raise --viscosity or --num-points")
    return w[:, args.skip :, None]


def judge(predictions: np.ndarray, truth: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """The mean relative L2 of each step, and the mean of the times until it exceeds the threshold."""
    n = truth.shape[1]
    flat = [u.reshape(len(truth), n, *truth.shape[3:]) for u in (predictions, truth)]
    curve = jax.vmap(no.metrics.per_step(no.metrics.relative_l2, n))(*flat)
    valid = jax.vmap(no.metrics.valid_time(n, args.threshold, args.dt))(*flat)
    return {"curve": np.round(np.mean(curve, axis=0), 5).tolist(), "valid": round(float(np.mean(valid)), 3)}


def main() -> None:
    args = parse()

    @functools.cache
    def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
        keys = jax.random.split(jax.random.key(seed), 2)
        return trajectories(keys[0], args.num_train, args), trajectories(keys[1], args.num_test, args)

    def run(method: str, seed: int) -> dict[str, Any]:
        train, test = data(seed)
        start, truth = test[:, 0], test[:, 1:]
        if method == "persistence":
            return judge(np.repeat(start[:, None], args.num_steps, 1), truth, args)
        if method == "training mean":
            mean = no.baselines.training_mean(Samples(train[:, 0], train[:, 1:, 0]))
            return judge(np.stack([mean(u) for u in start]), truth, args)
        unroll = int(method.split()[0])
        network = no.FNO(
            (args.n_modes,) * 2, 1, 1, args.hidden_channels, n_layers=args.n_layers, boundary="periodic",
            key=jax.random.key(seed),
        )  # fmt: skip
        scale = Normalizer.fit(train.reshape(-1, *train.shape[2:]))
        op, numbers = timed.train_for(
            Normalized(network, scale, scale),
            no.data.windows(train, horizon=unroll).load(),
            no.losses.rollout(unroll, no.losses.l2()),
            seconds=args.seconds,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            seed=seed,
            clock=time.process_time,
        )
        rolled = np.asarray(jax.jit(jax.vmap(no.Rollout(op, args.num_steps)))(start))
        return {**numbers, **judge(rolled, truth, args)}

    args.record.parent.mkdir(parents=True, exist_ok=True)
    methods = [f"{n} step{'s' if n > 1 else ''}" for n in args.unroll]
    wanted = [{"method": m, "seed": s} for s in range(args.seeds) for m in (*methods, *TRIVIAL)]
    rows = timed.runs(args.record, wanted, run)
    n = args.num_steps
    steps = sorted({1, max(n // 4, 1), max(n // 2, 1), n})
    titles = " | ".join(f"step {s}" for s in steps)
    print(f"| relative L2 in % | updates | seconds | {titles} | valid time |\n|{' --- |' * (4 + len(steps))}")
    for method in (*methods, *TRIVIAL):
        own = [row for row in rows if row["method"] == method]
        cells = [f"{np.mean([row[k] for row in own]):,.0f}" if k in own[0] else "" for k in ("steps", "seconds")]
        for numbers in zip(*([*(100 * row["curve"][s - 1] for s in steps), row["valid"]] for row in own), strict=True):
            cells.append(f"{np.mean(numbers):.2f}" + (f" ± {np.std(numbers, ddof=1):.2f}" if len(own) > 1 else ""))
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
