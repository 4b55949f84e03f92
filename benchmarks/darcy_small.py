"""neuraloperator's small Darcy example, run by neuraloperator and by us: error and seconds per epoch.

    python benchmarks/darcy_small.py --data FOLDER --peer-python /path/to/env/with/neuraloperator/bin/python

FOLDER holds `darcy_train_16.npz` (1000 samples) and `darcy_test_16.npz` (50), arrays `x` and `y` of 16 x 16 points,
the set that neuraloperator distributes. Both libraries follow its example: FNO with 8 x 8 modes and 24 channels,
targets scaled to mean 0 and deviation 1, relative H1 loss on the scaled fields by periodic differences, AdamW with
weight decay 1e-4, cosine schedule from 1e-2 with period 30 stepped once an epoch, batch 64 with the last batch of 40
kept, 15 epochs; errors on physical values. Each library initialises its own weights.

Runs alternate, one process for each seed and library. Seconds per epoch are the median over the epochs after the
first, of training alone. To be as quick as it can be, their loop indexes tensors in memory (a `DataLoader` would
cost more), and both run with a glibc allocator that keeps large blocks.

The optimiser is the same to rounding: from equal weights and with equal batches both give the same losses. Theirs is
neuraloperator's own AdamW, in which the second moment of a complex weight is that of its modulus, on a loss summed over
the batch; `--our-optimiser plain` takes `optax.adamw` instead. Their example reads the samples in one fixed order; here
both shuffle, unless `--peer-order fixed`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

LEARNING_RATE, WEIGHT_DECAY, EPS, PERIOD = 1e-2, 1e-4, 1e-6, 30
BATCH = 64
ERRORS = ("l2", "h1")


def read(folder: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs (samples, 1, 16, 16), float32."""
    with np.load(folder / f"darcy_{part}_16.npz") as file:
        return file["x"].astype(np.float32)[:, None], file["y"].astype(np.float32)[:, None]


def learning_rate(epoch: Any) -> Any:
    """The schedule of both: cosine to zero over PERIOD epochs, constant within an epoch."""
    import jax.numpy as jnp

    return LEARNING_RATE / 2 * (1 + jnp.cos(math.pi * epoch / PERIOD))


# ---- ours


def train_ours(folder: pathlib.Path, seed: int, epochs: int, optimiser: str) -> dict[str, Any]:
    import jax
    import optax

    import neuralops as no

    train, test = read(folder, "train"), read(folder, "test")
    grid = no.Grid((16, 16), boundary="periodic")
    outputs = no.data.Normalizer.fit(train[1])
    init_key, fit_key = jax.random.split(jax.random.key(seed))
    counts = [min(BATCH, len(train[0]) - start) for start in range(0, len(train[0]), BATCH)]
    if optimiser == "same":
        optimizer = peer_adamw(counts)
    else:
        optimizer = optax.adamw(lambda step: learning_rate(step // len(counts)), weight_decay=WEIGHT_DECAY)
    op, history = no.fit(
        no.FNO.paper("darcy_small", key=init_key),
        (train[0], np.asarray(outputs.encode(train[1]))),
        loss=no.losses.h1(grid),
        optimizer=optimizer,
        num_epochs=epochs,
        batch_size=BATCH,
        key=fit_key,
        progress=False,
    )
    judges = {"l2": no.losses.l2(), "h1": no.losses.h1(grid)}
    errors = no.evaluate(no.data.Normalized(op, outputs=outputs), test, metrics=judges)
    return {name: float(errors[name].mean()) for name in ERRORS} | {
        "seconds": list(history.seconds),
        "loss": list(history.loss),
    }


def peer_adamw(counts: list[int]) -> Any:
    """The update of neuraloperator's AdamW for a loss that is summed over batches of these sizes, cyclically.

    A spectral weight is a leading pair here; the pair counts as one complex number. Epsilon is added to the root of
    the second moment before its bias correction.
    """
    import jax
    import jax.numpy as jnp
    import optax

    def modulus_squared(path: Any, g: Any) -> Any:
        is_pair = ".spectral.weight." in jax.tree_util.keystr(path)
        return jnp.broadcast_to(jnp.sum(g**2, 0), g.shape) if is_pair else g**2

    def init(params: Any) -> tuple[Any, Any, Any]:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros, jnp.zeros((), jnp.int32)

    def update(grads: Any, state: tuple[Any, Any, Any], params: Any = None) -> tuple[Any, Any]:
        first, second, step = state
        total = jnp.asarray(counts)[step % len(counts)]  # from the mean over the batch to the sum
        grads = jax.tree.map(lambda g: g * total, grads)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        squares = jax.tree_util.tree_map_with_path(modulus_squared, grads)
        second = jax.tree.map(lambda v, s: 0.999 * v + 0.001 * s, second, squares)
        rate = learning_rate(step // len(counts))
        size = rate * jnp.sqrt(1 - 0.999 ** (step + 1.0)) / (1 - 0.9 ** (step + 1.0))
        updates = jax.tree.map(
            lambda m, v, p: -size * m / (jnp.sqrt(v) + EPS) - rate * WEIGHT_DECAY * p, first, second, params
        )
        return updates, (first, second, step + 1)

    return optax.GradientTransformation(init, update)


# ---- theirs


def train_theirs(folder: pathlib.Path, seed: int, epochs: int, order: str) -> dict[str, Any]:
    import torch
    from neuralop import H1Loss, LpLoss
    from neuralop.data.transforms.normalizers import UnitGaussianNormalizer
    from neuralop.models import FNO
    from neuralop.training import AdamW

    torch.manual_seed(seed)
    (x, y), (x_test, y_test) = ([torch.from_numpy(a) for a in read(folder, part)] for part in ("train", "test"))
    outputs = UnitGaussianNormalizer(dim=[0, 2, 3])
    outputs.fit(y)
    y = outputs.transform(y)
    model = FNO(n_modes=(8, 8), in_channels=1, out_channels=1, hidden_channels=24)
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=PERIOD)
    h1, l2 = H1Loss(d=2), LpLoss(d=2, p=2)
    seconds, losses = [], []
    for _ in range(epochs):
        began, total = time.perf_counter(), 0.0
        rows = torch.randperm(len(x)) if order == "shuffled" else torch.arange(len(x))
        for batch in rows.split(BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = h1(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item()
        schedule.step()
        seconds.append(time.perf_counter() - began)
        losses.append(total / len(x))
    with torch.no_grad():
        prediction = outputs.inverse_transform(model(x_test))
        errors = {"l2": l2(prediction, y_test), "h1": h1(prediction, y_test)}
    return {name: float(value) / len(x_test) for name, value in errors.items()} | {"seconds": seconds, "loss": losses}


# ---- trivial answers, running, printing


def trivial(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    import neuralops as no
    from neuralops import baselines

    train, test = read(folder, "train"), read(folder, "test")
    judges = {"l2": no.losses.l2(), "h1": no.losses.h1(no.Grid((16, 16)))}
    answers = {
        "training mean": baselines.training_mean(train),
        "nearest neighbour": baselines.nearest_neighbour(train),
        "linear POD map": baselines.linear_pod(train),
    }
    return {
        title: {name: float(e.mean()) for name, e in no.evaluate(op, test, metrics=judges).items()}
        for title, op in answers.items()
    }


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.4f} ± {deviation:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with the two .npz files")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has neuraloperator")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--peer-order", choices=("shuffled", "fixed"), default="shuffled")
    parser.add_argument("--peer-threads", type=int, help="threads of torch; its own choice by default")
    parser.add_argument("--our-optimiser", choices=("same", "plain"), default="same",
                        help="as theirs, or optax.adamw")  # fmt: skip
    parser.add_argument("--only", choices=("neuralops", "neuraloperator"))
    parser.add_argument("--out", type=pathlib.Path, help="file for the Markdown table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "neuralops":
        print(json.dumps(train_ours(arguments.data, arguments.seed, arguments.epochs, arguments.our_optimiser)))
        return
    if arguments.worker:
        print(json.dumps(train_theirs(arguments.data, arguments.seed, arguments.epochs, arguments.peer_order)))
        return

    root = str(pathlib.Path(__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "JAX_PLATFORMS": "cpu",
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
    }
    pythons = {"neuralops": sys.executable, "neuraloperator": arguments.peer_python}
    libraries = [arguments.only] if arguments.only else list(pythons)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in libraries}
    for seed in range(arguments.seeds):
        for name in libraries:
            threads = {"OMP_NUM_THREADS": str(arguments.peer_threads)} if arguments.peer_threads else {}
            command = [pythons[name], __file__, *sys.argv[1:], "--worker", name, "--seed", str(seed)]
            environment_here = environment | (threads if name == "neuraloperator" else {})
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment_here, check=True).stdout
            run = json.loads(output.splitlines()[-1])
            run["epoch"] = statistics.median(run["seconds"][1:] or run["seconds"])
            runs[name].append(run)
            print(f"{name} seed {seed}: L2 {run['l2']:.4f}, H1 {run['h1']:.4f}, training loss {run['loss'][-1]:.4f}, "
                  f"{run['epoch']:.3f} s per epoch (first {run['seconds'][0]:.2f} s)", flush=True)  # fmt: skip

    lines = ["| | test L2 | test H1 | seconds per epoch |", "| --- | --- | --- | --- |"]
    for name, results in runs.items():
        errors = " | ".join(spread([run[error] for run in results]) for error in ERRORS)
        lines.append(f"| {name} | {errors} | {spread([run['epoch'] for run in results])} |")
    for title, errors in trivial(arguments.data).items():
        lines.append(f"| {title} | {errors['l2']:.4f} | {errors['h1']:.4f} | |")
    text = "\n".join(lines) + "\n"
    if len(libraries) == 2:
        ratio = [theirs["epoch"] / our["epoch"] for our, theirs in zip(*runs.values(), strict=True)]
        text += f"\nTheir seconds per epoch over ours: {', '.join(f'{r:.1f}' for r in ratio)}.\n"
    print("\n" + text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
