"""Writes the Darcy data sets described in darcy.md.

python datasets/darcy.py --num-points 85 --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse

from splits import add_arguments, write

from neuralops.pde import Darcy

RTOL = 1e-10  # relative true residual of every label, in double precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coefficient", choices=("two_phase", "log_normal"), default="two_phase")
    parser.add_argument("--num-points", type=int, default=85, help="cells per side (default 85)")
    add_arguments(parser)
    args = parser.parse_args()

    problem = Darcy((args.num_points, args.num_points), coefficient=args.coefficient, rtol=RTOL)
    write(problem, f"darcy_{args.coefficient}_{args.num_points}", args)


if __name__ == "__main__":
    main()
