"""Writes right-hand sides for learned search directions (`neuralops.pde.PoissonDirections`) with their solutions.

python datasets/poisson_directions.py --ndim 3 --num-points 64 --num-train 20000 --out outputs/datasets

By default the exact modes of a box with Neumann walls; `--modes ritz` runs Lanczos first, which holds twice
`--num-modes` fields of float64 in memory. A killed run goes on where it stopped when called again.
"""

import argparse

from splits import add_arguments, write

from neuralops.pde import PoissonDirections

MAX_RESIDUAL = 1e-9  # relative residual at which a label would be refused; rounding alone leaves far less


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boundary", choices=("dirichlet", "neumann", "periodic"), default="neumann")
    parser.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--num-points", type=int, default=64, help="cells per side (default 64)")
    parser.add_argument("--modes", choices=("exact", "ritz"), default="exact")
    parser.add_argument("--num-modes", type=int, help="modes or Lanczos steps (default, exact only: up to 10000)")
    parser.add_argument("--theta", type=int, help="amplified modes beyond half (default a twentieth of the modes)")
    parser.add_argument("--amplitude", type=float, default=9.0, help="of the amplified modes (default 9)")
    add_arguments(parser)
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
    write(
        problem,
        f"directions_{args.modes}_{args.boundary}_{args.ndim}d_{args.num_points}",
        args,
        max_residual=MAX_RESIDUAL,
    )


if __name__ == "__main__":
    main()
