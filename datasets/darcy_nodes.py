"""Writes the data sets of Darcy flow on closed grids of nodes, described in darcy_nodes.md.

python datasets/darcy_nodes.py --medium two_phase --num-train 10000 --num-test 200 --out outputs/datasets
"""

import argparse
import math

from splits import add_arguments, write

from neuralops.pde import NodalDarcy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medium", choices=("smooth", "two_phase"), default="smooth")
    parser.add_argument("--num-points", type=int, default=29, help="nodes per side, walls included (default 29)")
    parser.add_argument("--shifted", action="store_true", help="smooth: frequencies from [2 pi, 3 pi], not [pi, 2 pi]")
    add_arguments(parser)
    args = parser.parse_args()
    if args.shifted and args.medium != "smooth":
        parser.error("--shifted: expected the smooth medium, got two_phase; leave one of them out.")

    frequencies = (2 * math.pi, 3 * math.pi) if args.shifted else (math.pi, 2 * math.pi)
    problem = NodalDarcy((args.num_points,) * 2, medium=args.medium, frequencies=frequencies)
    write(problem, f"darcy_nodes_{args.medium}{'_shifted' * args.shifted}_{args.num_points}", args)


if __name__ == "__main__":
    main()
