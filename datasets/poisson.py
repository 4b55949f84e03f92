"""Writes the Poisson data sets described in poisson.md.

python datasets/poisson.py --num-points 64 --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse

from splits import add_arguments, write

from neuralops.pde import Poisson

MAX_RESIDUAL = 1e-9  # relative residual at which a label would be refused; rounding alone leaves far less


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boundary", choices=("dirichlet", "neumann", "periodic"), default="dirichlet")
    parser.add_argument("--ndim", type=int, choices=(1, 2, 3), default=2)
    parser.add_argument("--num-points", type=int, default=64, help="cells per side (default 64)")
    add_arguments(parser)
    args = parser.parse_args()

    problem = Poisson((args.num_points,) * args.ndim, boundary=args.boundary)
    write(problem, f"poisson_{args.boundary}_{args.ndim}d_{args.num_points}", args, max_residual=MAX_RESIDUAL)


if __name__ == "__main__":
    main()
