"""What the scripts of this folder share: the arguments of every data set, and writing its two files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax

from neuralops import data

SPLITS = ("train", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/datasets"), help="folder of the files")
    parser.add_argument("--shard-size", type=int, default=64, help="samples a killed run may lose")
    parser.add_argument("--no-progress", action="store_true")


def write(problem: Any, name: str, args: argparse.Namespace, **options: Any) -> None:
    """Generates, checks and describes `NAME_train.h5` and `NAME_test.h5`; `options` are those of `data.generate`."""
    key = jax.random.key(args.seed)
    for split, num_samples in enumerate((args.num_train, args.num_test)):
        if num_samples == 0:
            continue
        path = args.out / f"{name}_{SPLITS[split]}.h5"
        source = data.generate(
            problem,
            key=jax.random.fold_in(key, split),
            num_samples=num_samples,
            path=path,
            shard_size=args.shard_size,
            progress=not args.no_progress,
            **options,
        )
        data.validate(path)
        residual = source.residual_norm
        print(f"{path}: {len(source)} samples, {path.stat().st_size / 1e6:.1f} MB, residual <= {residual.max():.1e}")
        print(f"sha256 of the arrays {source.sha256()}")
