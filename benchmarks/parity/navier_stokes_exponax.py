"""Two-dimensional flow by `pde.NavierStokes` and by exponax: error against time, the same field, one run.

    pip install exponax            # in an environment that has neuralops
    python benchmarks/parity/navier_stokes_exponax.py

Both start from the same draws of the initial law, in float64, and return the vorticity at the last time. Ours adapts
its step to `rtol`; exponax has the exponential Runge-Kutta method of order 4 at a fixed step, and for a force its
`ForcedStepper`, which splits the force off and is of order 1. The reference is our solver on twice the points at
rtol 1e-12, at points that both grids share; exponax at its smallest step is held against it as well, so that the
reference is not ours alone to trust. Seconds are medians of one field on one device, without compilation.
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

import neuralops as no


def timed(function, start: jax.Array, repeats: int) -> tuple[np.ndarray, float]:
    """Value and median seconds."""
    value, seconds = jax.block_until_ready(function(start)), []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function(start))
        seconds.append(time.perf_counter() - began)
    return np.asarray(value), float(np.median(seconds))


def theirs(start: jax.Array, dt: float, args: argparse.Namespace, force: jax.Array | None):
    import exponax as ex

    stepper = ex.stepper.NavierStokesVorticity(
        2, 1.0, args.num_points, dt, diffusivity=args.viscosity, order=4, dealiasing_fraction=2 / 3,
        vorticity_convection_scale=-1.0,  # their velocity has the other sign
    )  # fmt: skip
    number = round(args.final_time / dt)
    if force is None:
        step = stepper
    else:
        forced = ex.ForcedStepper(stepper)
        step = lambda w: forced(w, force)
    return jax.jit(lambda w: jax.lax.fori_loop(0, number, lambda _, w: step(w), w))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-points", type=int, default=64)
    parser.add_argument("--viscosity", type=float, default=1e-3)
    parser.add_argument("--final-time", type=float, default=5.0)
    parser.add_argument("--scale", type=float, default=7**1.5, help="of the initial vorticity")
    parser.add_argument("--rtol", type=float, nargs="+", default=[1e-3, 1e-5, 1e-7, 1e-9])
    parser.add_argument("--dt", type=float, nargs="+", default=[0.1, 0.05, 0.025, 0.0125, 0.00625])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # of this process alone

    for forcing in (0.0, 0.1):
        setting = {
            "viscosity": args.viscosity, "forcing": forcing, "final_time": args.final_time, "num_times": 2,
            "scale": args.scale, "num_modes": args.num_points // 4,
        }  # fmt: skip
        problem = lambda n, rtol, setting=setting: no.pde.NavierStokes((n, n), rtol=rtol, **setting)
        coarse, fine = problem(args.num_points, 1e-9), problem(2 * args.num_points, 1e-12)
        start = coarse.sample(jax.random.key(0))
        exact = jax.jit(fine.solve)(no.grid.resample(start, coarse.grid, fine.grid))
        exact = np.asarray(exact)[-1:, ::2, ::2]
        error = lambda w, exact=exact: float(np.linalg.norm(w - exact) / np.linalg.norm(exact))
        print(f"\n| forcing {forcing:g} | relative L2 error | ms |\n| --- | --- | --- |")
        for rtol in args.rtol:
            solve = problem(args.num_points, rtol).solve
            w, seconds = timed(jax.jit(lambda a, solve=solve: solve(a)[-1:]), start, args.repeats)
            print(f"| neuralops, rtol {rtol:g} | {error(w):.1e} | {1e3 * seconds:.0f} |", flush=True)
        force = None if forcing == 0 else jax.numpy.asarray(coarse.force())
        for dt in args.dt:
            w, seconds = timed(theirs(start, dt, args, force), start, args.repeats)
            print(f"| exponax, ETDRK4, dt {dt:g} | {error(w):.1e} | {1e3 * seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
