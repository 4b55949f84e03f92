"""`WaveEquation` beside the leapfrog that a NumPy user would write, and what its gradients cost.

    python benchmarks/waves.py
    python benchmarks/waves.py --sizes 512x512 --orders 8 --dtypes float32 --gradient-steps 0

Both step the same periodic box with a sound speed that varies from point to point and no density, by the central
formula of the same order, and the last field is compared. NumPy works on slices of an array with ghost points, which it
refills at each step, and reuses its arrays. They take turns; medians over `--repeats` turns. "copy" is what a step of
four arrays moved (two fields and the speed read, one field written) would take at the speed of a copy in NumPy.

The second table: forward and gradient of the last field's square with respect to the speed, at 256 x 256 points, order
2, in float32, with the memory that the compiled program asks for, in fields.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.pde.waves import WaveEquation
from neuralops.pde.waves.stencils import CENTRAL


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x256", "1024x1024", "96x96x96"])
    parser.add_argument("--orders", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--point-steps", type=float, default=3e7, help="of one timing")
    parser.add_argument("--gradient-steps", type=int, default=4000, help="0 leaves the second table out")
    return parser.parse_args()


def leapfrog(k: np.ndarray, start: np.ndarray, order: int, num_steps: int, h: float) -> np.ndarray:
    """NumPy: u+ = 2 u - u- + k Laplace u on a periodic box, from rest."""
    m, ndim = order // 2, k.ndim
    weights = [start.dtype.type(c / h**2) for c in CENTRAL[order]]
    inside = (slice(m, -m),) * ndim
    u, sum_, part = np.pad(start, m, mode="wrap"), np.empty_like(start), np.empty_like(start)

    def moved(axis: int, by: int) -> np.ndarray:
        n = k.shape[axis]
        return u[tuple(slice(m + by, m + by + n) if a == axis else slice(m, -m) for a in range(ndim))]

    previous = None
    for _ in range(num_steps):
        for axis in range(ndim):  # the ghosts
            ends = lambda s, axis=axis: tuple(s if a == axis else slice(None) for a in range(ndim))
            u[ends(slice(0, m))] = u[ends(slice(-2 * m, -m))]
            u[ends(slice(-m, None))] = u[ends(slice(m, 2 * m))]
        np.multiply(u[inside], -2 * ndim * sum(weights), out=sum_)
        for j, c in enumerate(weights, 1):
            for axis in range(ndim):
                np.add(moved(axis, j), moved(axis, -j), out=part)
                part *= c
                sum_ += part
        sum_ *= k
        if previous is None:
            previous = u.copy()
            previous[inside] += sum_ / 2  # from rest
        else:
            sum_ += u[inside]
            sum_ += u[inside]
            sum_ -= previous[inside]
            previous[inside] = sum_
        u, previous = previous, u
    return u[inside]


def seconds(functions: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Medians, in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, row in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            row.append(time.perf_counter() - start)
    return [statistics.median(row) for row in times]


def throughput(args: argparse.Namespace) -> None:
    print("| grid | dtype | order | ours, million points a second | NumPy | ratio | ours over copy | difference |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in args.sizes:
        shape = tuple(map(int, size.split("x")))
        for dtype in args.dtypes:
            rng = np.random.default_rng(0)
            c, start = ((0.5 + 0.5 * rng.random(shape)).astype(dtype) for _ in range(2))
            steps = max(round(args.point_steps / start.size), 4)
            for order in args.orders:
                equation = WaveEquation(shape, max_sound_speed=1.0, walls="periodic", order=order)
                k = ((equation.dt * c) ** 2).astype(dtype)
                u, speed = jnp.asarray(start), jnp.asarray(c)
                ours = lambda e=equation, u=u, c=speed, n=steps: np.asarray(
                    e.run(c, u, num_steps=n, gradient="stored").final
                )
                theirs = lambda k=k, u=start, o=order, n=steps, h=equation.grid.spacing[0]: leapfrog(k, u, o, n, h)
                a, b = ours(), theirs()
                other = np.empty_like(start)
                copy = lambda u=start, v=other, n=steps: [np.copyto(v, u) for _ in range(n)]
                mine, peer, moving = seconds([ours, theirs, copy], args.repeats)
                rate = lambda t, n=steps, p=start.size: f"{n * p / t / 1e6:.0f}"
                error = np.abs(a - b).max() / np.abs(b).max()
                print(
                    f"| {size} | {dtype} | {order} | {rate(mine)} | {rate(peer)} | {peer / mine:.1f} | "
                    f"{mine / (2 * moving):.1f} | {error:.0e} |",
                    flush=True,
                )


def gradients(args: argparse.Namespace) -> None:
    equation = WaveEquation((256, 256), max_sound_speed=1.0, walls="neumann", order=2)
    c = jnp.asarray(0.5 + 0.5 * np.random.default_rng(0).random((256, 256)), jnp.float32)
    print(f"\n| gradient, {args.gradient_steps} steps | seconds | over the forward run | memory, fields |")
    print("| --- | --- | --- | --- |")
    alone = 0.0
    for name in ("forward", "recomputed", "reversed"):
        kind = "recomputed" if name == "forward" else name
        f = lambda c, kind=kind: jnp.sum(equation.run(c, c, num_steps=args.gradient_steps, gradient=kind).final ** 2)
        program = jax.jit(f if name == "forward" else jax.grad(f)).lower(c).compile()
        (time_,) = seconds([lambda program=program: jax.block_until_ready(program(c))], max(args.repeats // 2, 1))
        alone = alone or time_
        fields = program.memory_analysis().temp_size_in_bytes / c.nbytes
        print(f"| {name} | {time_:.1f} | {time_ / alone:.1f} | {fields:.0f} |", flush=True)


def main() -> None:
    args = parse()
    with jax.enable_x64(True):
        throughput(args)
        if args.gradient_steps:
            gradients(args)


if __name__ == "__main__":
    main()
