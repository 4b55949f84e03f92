"""Writes the data sets on random plates with holes described in perforated.md; needs scikit-fem.

python datasets/perforated.py --equation elasticity --num-train 1000 --num-test 200 --out outputs/datasets
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from splits import SPLITS, add_arguments
from tqdm.auto import tqdm

from neuralops import data
from neuralops.pde import Perforated


def describe(problem: Perforated, seed: tuple[int, ...]) -> dict[str, Any]:
    """The arguments of `data.write` that say what the samples are."""
    return {
        "name": "Perforated",
        "input_fields": list(problem.input_fields),
        "output_fields": list(problem.output_fields),
        "parameters": problem.parameters() | {"seed": list(seed)},
    }


def joined(parts: list[data.Samples]) -> data.Samples:
    """Clouds of several files as one, padded to the largest."""
    size = max(part.mask.shape[-1] for part in parts)

    def widened(x: np.ndarray, like: np.ndarray) -> np.ndarray:
        lacks = size - x.shape[-1] if x.shape[-1:] == like.shape[-1:] and x.ndim > 1 else 0
        return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, lacks)])

    wide = [part.map(lambda x, like=part.mask: widened(x, like)) for part in parts]
    return jax.tree.map(lambda *x: np.concatenate(x), *wide)


def make(
    problem: Perforated,
    num_samples: int,
    seed: tuple[int, ...],
    path: Path,
    *,
    shard_size: int = 64,
    progress: bool = True,
) -> data.HDF5Source:
    """Writes the samples to `path` in shards, which lie in `<path>.parts` until all are there; goes on where it ended.

    Sample i depends on the seed and i alone, never on the cut into shards.

    **Raises:** `ValueError` when `<path>.parts` holds shards of other data.
    """
    folder = path.with_name(path.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    said, parts = describe(problem, seed), []
    with tqdm(total=num_samples, unit="sample", disable=not progress) as bar:
        for first in range(0, num_samples, shard_size):
            size = min(shard_size, num_samples - first)
            shard = folder / f"{first}_{first + size}.h5"
            if not shard.exists():
                data.write(shard, data.pad(**problem.clouds(size, seed, first=first, progress=False)), **said)
            source = data.open(shard)
            if source.parameters != said["parameters"]:
                raise ValueError(
                    f"path: expected shards of {said['parameters']} in {str(folder)!r}, got {source.parameters}; "
                    "move the folder or give another path."
                )
            parts.append(source.load())
            bar.update(size)
    source = data.write(path, joined(parts), **said)
    shutil.rmtree(folder)
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--equation", choices=("poisson", "elasticity"), default="elasticity")
    parser.add_argument("--spacing", type=float, default=0.06, help="of points far from the holes")
    parser.add_argument("--refinements", type=int, default=0, help="of the triangles for the labels, see perforated.md")
    add_arguments(parser)
    args = parser.parse_args()
    problem = Perforated(args.equation, spacing=args.spacing, refinements=args.refinements)
    for split, num_samples in enumerate((args.num_train, args.num_test)):
        path = args.out / f"perforated_{args.equation}_{SPLITS[split]}.h5"
        if num_samples == 0:
            continue
        if path.exists():
            print(f"{path} is there already; move it to make it again")
            continue
        source = make(
            problem, num_samples, (args.seed, split), path, shard_size=args.shard_size, progress=not args.no_progress
        )
        data.validate(path)
        residual = source.residual_norm
        print(f"{path}: {len(source)} samples, {path.stat().st_size / 1e6:.1f} MB, residual <= {residual.max():.1e}")
        print(f"sha256 of the arrays {source.sha256()}")


if __name__ == "__main__":
    main()
