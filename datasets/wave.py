"""Writes the trajectories of acoustic waves described in wave.md.

python datasets/wave.py inclusions --num-points 128 --num-train 1000 --num-test 200 --out outputs/datasets
"""

import argparse
import math

from splits import add_arguments, write

from neuralops.pde import Wave, waves

RIGID = 500.0  # density from which on walls are rigid: those of the maze
MEDIA = {
    "homogeneous": waves.Homogeneous(),
    "layered": waves.Layered((1.0, 2.0), density=(0.5, 2.0)),
    "inclusions": waves.Inclusions((1.5, 2.5), density=(1.0, 3.0)),
    "maze": waves.Maze(),
}


def circle(number: int, side: float) -> list[tuple[float, float]]:
    """Receivers around the middle of a square."""
    angles = [2 * math.pi * i / number for i in range(number)]
    return [(side * (0.5 + 0.45 * math.cos(a)), side * (0.5 + 0.45 * math.sin(a))) for a in angles]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=tuple(MEDIA))
    parser.add_argument("--num-points", type=int, default=128, help="cells per side (default 128)")
    parser.add_argument("--final-time", type=float, default=2.0)
    parser.add_argument("--num-times", type=int, default=101, help="frames, the first and the last included")
    parser.add_argument("--num-receivers", type=int, default=64)
    parser.add_argument("--records-per-frame", type=int, default=2)
    parser.add_argument("--refine", type=int, default=1, help="cells of the solver along a side of one of the grid")
    parser.add_argument("--no-velocities", action="store_true", help="keeps the pressure alone")
    parser.add_argument("--max-residual", type=float, help="refuses a trajectory that misses it (default 10 %%)")
    add_arguments(parser)
    args = parser.parse_args()

    problem = Wave(
        (args.num_points, args.num_points),
        domain_extent=2.0,
        walls=("neumann", "absorbing"),
        medium=MEDIA[args.name],
        final_time=args.final_time,
        num_times=args.num_times,
        velocities=not args.no_velocities,
        receivers=circle(args.num_receivers, 2.0),
        records_per_frame=args.records_per_frame,
        refine=args.refine,
        rigid_above=RIGID if args.name == "maze" else None,
        rtol=0.01,
    )
    write(
        problem,
        f"wave_{args.name}_{args.num_points}",
        args,
        trajectories=problem.frame_fields,
        max_residual=args.max_residual,
    )


if __name__ == "__main__":
    main()
