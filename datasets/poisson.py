"""Writes the Poisson data sets described in poisson.md.

python datasets/poisson.py --num-points 64 --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse
from pathlib import Path

import jax

from neuralops import data
from neuralops.pde import Poisson

MAX_RESIDUAL = 1e-9  # relative residual at which a label would be refused; rounding alone leaves far less
SPLITS = ("train", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boundary", choices=("dirichlet", "neumann", "periodic"), default="dirichlet")
    parser.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--num-points", type=int, default=64, help="cells per side (default 64)")
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/datasets"), help="folder of the files")
    parser.add_argument("--shard-size", type=int, default=64, help="samples a killed run may lose")
    parser.add_argument("--no-progress", action="store_true")
    args = parser.parse_args()

    problem = Poisson((args.num_points,) * args.ndim, boundary=args.boundary)
    key = jax.random.key(args.seed)
    for split, num_samples in enumerate((args.num_train, args.num_test)):
        if num_samples == 0:
            continue
        path = args.out / f"poisson_{args.boundary}_{args.ndim}d_{args.num_points}_{SPLITS[split]}.h5"
        source = data.generate(
            problem,
            key=jax.random.fold_in(key, split),
            num_samples=num_samples,
            path=path,
            shard_size=args.shard_size,
            max_residual=MAX_RESIDUAL,
            progress=not args.no_progress,
        )
        data.validate(path)
        residual = source.residual_norm
        print(f"{path}: {len(source)} samples, {path.stat().st_size / 1e6:.1f} MB, residual <= {residual.max():.1e}")
        print(f"sha256 of the arrays {source.sha256()}")


if __name__ == "__main__":
    main()
