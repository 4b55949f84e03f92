"""Time of compressed convolutions beside the ordinary one of the same channels and kernel, all in one process in turns.

    python benchmarks/separable_speed.py --out table.md

Forward pass and training step (gradient of all parameters and of the field, Adam's update) of `nn.SeparableConv`, and
of the ordinary convolution through the same code that MgNO and LSM run. `"cp"` and `"depthwise"` as chains of
one-way convolutions; the times in brackets are those of the same parameters with the kernel rebuilt. Fields are
channels-last, as inside the models; `op(u)` adds two transpositions to each. Times are the processor's, so that other
work on the machine counts little: run it on one core.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neuralops.nn import SeparableConv, conv_counts
from neuralops.nn.convolution import correlate

CASES = {  # grid, channels, kernel size, samples
    "1000, 32 channels, k = 3": ((1000,), 32, 3, 8),
    "64 x 64, 32 channels, k = 3": ((64, 64), 32, 3, 4),
    "64 x 64, 32 channels, k = 5": ((64, 64), 32, 5, 4),
    "32 x 32, 64 channels, k = 3": ((32, 32), 64, 3, 4),
    "24 x 24 x 24, 16 channels, k = 3": ((24, 24, 24), 16, 3, 2),
    "24 x 24 x 24, 16 channels, k = 5": ((24, 24, 24), 16, 5, 2),
}
COMPRESSED = (("kernel", 1), ("cp", None), ("depthwise", 1), ("depthwise", 2))  # variant and rank, None: the channels


def ordinary(kernel: Any, u: Any) -> Any:
    """Zeros outside, as many as keep the points; channels last, as all here."""
    ndim, ones = kernel.ndim - 2, (1,) * (kernel.ndim - 2)
    padding = tuple(((k - 1) // 2, k // 2) for k in kernel.shape[:ndim])
    return correlate(u, kernel, padding, ones, ones)


def programs(apply: Callable[[Any, Any], Any], parameters: Any, u: Any) -> dict[str, Callable[[], object]]:
    optimizer = optax.adam(1e-3)

    def one(parameters: Any, state: Any, u: Any) -> Any:  # the field as an argument: a constant would be folded
        loss = lambda p, u: jnp.mean((jax.vmap(apply, (None, 0))(p, u) - 1) ** 2)
        slope, slope_in_u = jax.grad(loss, (0, 1))(parameters, u)
        updates, state = optimizer.update(slope, state, parameters)
        return optax.apply_updates(parameters, updates), state, slope_in_u

    forward, step, state = jax.jit(jax.vmap(apply, (None, 0))), jax.jit(one), optimizer.init(parameters)
    ready = jax.block_until_ready
    return {"forward": lambda: ready(forward(parameters, u)), "step": lambda: ready(step(parameters, state, u))}


def median_ms(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return float(np.median(times))


def row(case: str, rounds: int, repeats: int) -> list[str]:
    grid, channels, k, samples = CASES[case]
    ndim, rng = len(grid), np.random.default_rng(0)
    u = jnp.asarray(rng.normal(size=(samples, *grid, channels)), jnp.float32)
    size = (k,) * ndim
    kernel = jnp.asarray(rng.normal(size=(*size, channels, channels)), jnp.float32)
    runs = {"ordinary": programs(ordinary, kernel, u)}
    parameters = {"ordinary": kernel.size}
    for variant, rank in COMPRESSED:
        terms = rank or channels
        op = SeparableConv(
            channels, channels, k, terms, variant=variant, ndim=ndim, use_bias=False,
            evaluation="rebuilt" if variant == "kernel" else "chain", key=jax.random.key(0),
        )  # fmt: skip
        name = f"`{variant}`, rank {terms}"
        runs[name] = programs(lambda op, u: op.channels_last(u), op, u)
        parameters[name] = conv_counts(channels, channels, size, terms, variant=variant, use_bias=False).parameters
        if variant != "kernel":
            runs[name + ", rebuilt"] = programs(lambda op, u: ordinary(op.to_dense_kernel(), u), op, u)
    for name in runs:
        for run in runs[name].values():
            run()  # compiles
    times: dict[tuple[str, str], list[float]] = {(name, what): [] for name in runs for what in runs[name]}
    for _ in range(rounds):
        for name, what in times:
            times[name, what].append(median_ms(runs[name][what], repeats))
    found = {of: float(np.median(values)) for of, values in times.items()}
    lines = []
    for name, count in parameters.items():
        cells = []
        for what in ("forward", "step"):
            rebuilt = found.get((name + ", rebuilt", what))
            cells.append(f"{found[name, what]:.1f}" + (f" ({rebuilt:.1f})" if rebuilt else ""))
        ratio = found["ordinary", "step"] / found[name, "step"]
        lines.append(f"| {case} | {name} | {count:,} | {' | '.join(cells)} | {ratio:.1f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"{jax.default_backend()}, {cores} core(s), float32, jax {version('jax')}; ms of processor time, median of "
        f"{args.rounds} rounds in turns, each the median of {args.repeats} calls; in brackets with the kernel rebuilt.",
        "",
        "| | convolution | parameters | forward | training step | times as fast a step |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case in args.cases:
        lines += row(case, args.rounds, args.repeats)
        print("\n".join(lines[-4:]), flush=True)
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
