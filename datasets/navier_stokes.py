"""Writes the trajectories of two-dimensional flow described in navier_stokes.md.

python datasets/navier_stokes.py --num-points 64 --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse

from splits import add_arguments, write

from neuralops.pde import NavierStokes

RTOL = 1e-7  # error of a step relative to the size of the vorticity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-points", type=int, default=64, help="points per side (default 64)")
    parser.add_argument("--viscosity", type=float, default=1e-3)
    parser.add_argument("--final-time", type=float, default=50.0)
    parser.add_argument("--num-times", type=int, default=51, help="frames, the first and the last included")
    parser.add_argument("--scale", type=float, help="of the initial vorticity (default: that of the paper)")
    parser.add_argument("--refine", type=int, default=1, help="spacings of the solver in one of the grid")
    parser.add_argument("--max-residual", type=float, help="refuses a trajectory that misses it (default 1e-6)")
    parser.add_argument("--name", help="of the files (default: navier_stokes_POINTS)")
    add_arguments(parser)
    args = parser.parse_args()

    problem = NavierStokes(
        (args.num_points, args.num_points),
        viscosity=args.viscosity,
        final_time=args.final_time,
        num_times=args.num_times,
        scale=args.scale,
        refine=args.refine,
        rtol=RTOL,
    )
    name = args.name or f"navier_stokes_{args.num_points}"
    write(problem, name, args, trajectories="vorticity", max_residual=args.max_residual)


if __name__ == "__main__":
    main()
