"""Writes right-hand sides for learned search directions (`neuralops.pde.PoissonDirections`) with their solutions.

python datasets/poisson_directions.py --ndim 3 --num-points 64 --num-train 20000 --out outputs/datasets

By default the exact modes of a box with Neumann walls; `--modes ritz` runs Lanczos first, which holds twice
`--num-modes` fields of float64 in memory. A killed run goes on where it stopped when called again.
"""

import argparse
from pathlib import Path

import jax

from neuralops import data
from neuralops.pde import PoissonDirections

MAX_RESIDUAL = 1e-9  # relative residual at which a label would be refused; rounding alone leaves far less
SPLITS = ("train", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boundary", choices=("dirichlet", "neumann", "periodic"), default="neumann")
    parser.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--num-points", type=int, default=64, help="cells per side (default 64)")
    parser.add_argument("--modes", choices=("exact", "ritz"), default="exact")
    parser.add_argument("--num-modes", type=int, help="modes or Lanczos steps (default, exact only: up to 10000)")
    parser.add_argument("--theta", type=int, help="amplified modes beyond half (default a twentieth of the modes)")
    parser.add_argument("--amplitude", type=float, default=9.0, help="of the amplified modes (default 9)")
    parser.add_argument("--num-train", type=int, default=1000)
    parser.add_argument("--num-test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/datasets"), help="folder of the files")
    parser.add_argument("--shard-size", type=int, default=64, help="samples a killed run may lose")
    parser.add_argument("--no-progress", action="store_true")
    args = parser.parse_args()

    problem = PoissonDirections(
        (args.num_points,) * args.ndim,
        boundary=args.boundary,
        modes=args.modes,
        num_modes=args.num_modes,
        theta=args.theta,
        amplitude=args.amplitude,
    )
    print(f"{len(problem.eigenvalues)} modes, {problem.num_amplified} of them amplified")
    key = jax.random.key(args.seed)
    name = f"directions_{args.modes}_{args.boundary}_{args.ndim}d_{args.num_points}"
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
            max_residual=MAX_RESIDUAL,
            progress=not args.no_progress,
        )
        data.validate(path)
        residual = source.residual_norm
        print(f"{path}: {len(source)} samples, {path.stat().st_size / 1e6:.1f} MB, residual <= {residual.max():.1e}")
        print(f"sha256 of the arrays {source.sha256()}")


if __name__ == "__main__":
    main()
