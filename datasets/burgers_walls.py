"""Writes the data sets of Burgers' equation between walls, described in burgers_walls.md.

python datasets/burgers_walls.py --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse

from splits import add_arguments, write

from neuralops.pde import BurgersWalls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-points", type=int, default=128, help="nodes, walls included (default 128)")
    parser.add_argument("--num-times", type=int, default=101, help="times from 0 to 1 (default 101)")
    add_arguments(parser)
    args = parser.parse_args()

    problem = BurgersWalls(args.num_points, num_times=args.num_times)
    write(problem, f"burgers_walls_{args.num_points}x{args.num_times}", args)


if __name__ == "__main__":
    main()
