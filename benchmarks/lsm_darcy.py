"""Latent spectral models beside FNO, MgNO and Transolver on two-phase Darcy: errors at equal epochs and equal seconds.

    python benchmarks/lsm_darcy.py --num-points 48 --num-epochs 20 --seeds 0 1 2

1000 samples of `pde.Darcy` for training, 200 for the errors. `fno` is as in the comparison of the LSM paper, periodic
with the grid as an input, its modes and channels chosen for the LSM's number of parameters; `fno_walls` works in the
sine basis of the pressure. All learn with the relative L2 loss, AdamW and a cosine schedule, inputs and outputs scaled
to mean 0 and deviation 1; the rate of each was chosen on its first epochs with another seed. `lsm` normalises each
image as published, `lsm_plain` not at all. `fno_seconds` and `fno_walls_seconds` get the epochs that fit into the time
of the LSM, as the epochs on record tell.

    python benchmarks/lsm_darcy.py --grids 24 36 48 64 96

judges the trained operators of the first seed on other grids, each with test samples of its own: the LSM as it is,
whose patches keep their size in space, and with patches of as many points as on the grid that it was trained on.

Seconds are processor time, so that several runs may share a machine: pin each process to one core. Runs that are on
record are not repeated. The table is printed at the end, with trivial baselines.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax
from timed import runs, table

import neuralops as no
from neuralops.data import Normalized, Normalizer, Samples
from neuralops.operator import named_leaves, with_leaves

RATES = {"lsm": 1e-3, "lsm_plain": 1e-3, "fno": 2e-3, "fno_walls": 3e-3, "mgno": 2e-3, "transolver": 1e-3}
METHODS = (*RATES, "fno_seconds", "fno_walls_seconds")


def network(method: str, args: argparse.Namespace, key: jax.Array):
    walls = {"boundary": "dirichlet", "centering": "cell", "key": key}
    if method in ("lsm", "lsm_plain"):
        return no.LSM(1, 1, args.width, norm="instance_norm" if method == "lsm" else None, key=key)
    if method == "fno":
        return no.FNO((16, 16), 1, 1, 32, domain_padding=0.125, key=key)
    if method == "fno_walls":
        return no.FNO((16, 16), 1, 1, 32, **walls)
    if method == "mgno":
        return no.MgNO(1, 1, 16, n_layers=3, sweeps=((1, 0),) * 4 + ((2, 0),), **walls)
    return no.Transolver(1, 1, 32, structured=True, n_layers=4, n_heads=4, n_slices=16, key=key)


def epochs_of(method: str, rows: list[dict], args: argparse.Namespace) -> int:
    """Those asked for, or as many as take the seconds of the LSM."""
    if not method.endswith("_seconds"):
        return args.num_epochs
    mean = lambda name: np.mean([row["seconds"] / row["epochs"] for row in rows if row["method"] == name])
    return round(args.num_epochs * mean("lsm") / mean(method.removesuffix("_seconds")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--num-points", type=int, default=48, help="cells per side")
    parser.add_argument("--num-epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=16, help="channels of the LSM on its finest scale")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("outputs/lsm_darcy"))
    parser.add_argument("--grids", nargs="+", type=int, help="judge what is trained on these instead")
    parser.add_argument("--progress", action="store_true")
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    if args.grids:
        other_grids(args)
        return
    problem = no.pde.Darcy((args.num_points,) * 2)
    train, test = (
        no.data.generate(
            problem, key=jax.random.key(1 + part), num_samples=number, progress=args.progress,
            path=args.output / f"{name}_{args.num_points}_{number}",
        ).load().map(lambda x: np.asarray(x, np.float32))
        for part, (name, number) in enumerate((("train", args.num_train), ("test", args.num_test)))
    )  # fmt: skip
    record = args.output / "runs.jsonl"

    def run(method: str, seed: int, epochs: int, **setting) -> dict:
        return trained(method, seed, epochs, train, test, args)

    rows: list[dict] = []
    for method in args.methods:
        setting = {"num_points": args.num_points, "width": args.width}
        epochs = epochs_of(method, rows or runs(record, [], run), args)
        wanted = [{"method": method, "seed": seed, "epochs": epochs, **setting} for seed in args.seeds]
        rows = runs(record, wanted, run)
    print(table(rows, baselines(train, test), {"l2": "relative L2, %", "train": "on training samples"}, METHODS))


def trained(method: str, seed: int, epochs: int, train: Samples, test: Samples, args: argparse.Namespace) -> dict:
    name = method.removesuffix("_seconds")
    op = network(name, args, jax.random.key(seed))
    size = sum(leaf.size for leaf in jax.tree.leaves(op))
    op = Normalized(op, Normalizer.fit(train.inputs), Normalizer.fit(train.outputs))
    steps = epochs * (len(train) // args.batch_size)
    rate = optax.warmup_cosine_decay_schedule(0.0, RATES[name], steps // 20, steps)
    began = time.process_time()
    op, history = no.fit(
        op, train, loss=no.losses.l2(), optimizer=optax.adamw(rate, weight_decay=1e-4), num_epochs=epochs,
        batch_size=args.batch_size, key=jax.random.key(100 + seed), drop_last=True, progress=args.progress,
    )  # fmt: skip
    seconds = time.process_time() - began
    error = lambda samples: float(no.evaluate(op, samples)["relative_l2"].mean())
    no.save(args.output / f"{method}_{seed}.safetensors", op)
    return {
        "parameters": size, "steps": steps, "seconds": round(seconds, 1), "wall": round(sum(history.seconds), 1),
        "l2": error(test), "train": error(train[:200]),
    }  # fmt: skip


def other_grids(args: argparse.Namespace) -> None:
    """Prints the errors of the operators on record on other grids than theirs."""
    lsm = no.load(args.output / f"lsm_{args.seeds[0]}.safetensors")
    patch = -(-args.num_points // 16)
    locked = no.LSM(1, 1, args.width, patch_size=patch, key=jax.random.key(0))
    ops = {"LSM": lsm, f"LSM, patches of {patch} points": eqx.tree_at(
        lambda op: op.op, lsm, with_leaves(locked, named_leaves(lsm.op))
    )}  # fmt: skip
    for method in ("fno", "fno_walls", "mgno"):
        path = args.output / f"{method}_{args.seeds[0]}.safetensors"
        ops |= {method: no.load(path)} if path.exists() else {}
    tests = {n: no.data.generate(
        no.pde.Darcy((n, n)), key=jax.random.key(2), num_samples=64, progress=False, path=args.output / f"grid_{n}"
    ).load().map(lambda x: np.asarray(x, np.float32)) for n in args.grids}  # fmt: skip
    print(f"| relative L2, % | {' | '.join(map(str, args.grids))} |\n| --- |{' --- |' * len(args.grids)}")
    for name, op in ops.items():
        found = [100 * float(no.evaluate(op, test, batch_size=4)["relative_l2"].mean()) for test in tests.values()]
        print(f"| {name} | {' | '.join(f'{error:.2f}' for error in found)} |", flush=True)


def baselines(train: Samples, test: Samples) -> list[dict]:
    answers = {
        "linear POD map": no.baselines.linear_pod(train),
        "nearest neighbour": no.baselines.nearest_neighbour(train),
        "training mean": no.baselines.training_mean(train),
    }
    error = lambda op, samples: float(no.evaluate(op, samples)["relative_l2"].mean())
    return [{"method": name, "l2": error(op, test), "train": error(op, train[:200])} for name, op in answers.items()]


if __name__ == "__main__":
    main()
