"""Time of a MgNO's forward pass and training step beside the released PyTorch code, equal weights, same cores.

    git clone https://github.com/xlliu2017/MgNO && git -C MgNO checkout 3a68a90
    python benchmarks/mgno_speed.py --code MgNO --out table.md    # needs torch, torchinfo and neuralops

`MgNO.paper("darcy_rough")`, 16 samples, each library in a process of its own (`turns.py`). With `--points` our step
alone, on more and more points: the cost should grow in proportion.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from pathlib import Path

import numpy as np
from turns import in_turns, median_ms, run, torch_turns

BATCH = 16


def fields(n: int, batch: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, 1, n, n)).astype(np.float32)


def patterned_op():
    import jax
    from parity.mgno_official import patterned

    import neuralops as no

    return patterned(no.MgNO.paper("darcy_rough", key=jax.random.key(0)))


def peer(n: int, batch: int, repeats: int, code: Path) -> dict[str, float]:
    import torch
    from parity.mgno_official import released

    torch.set_num_threads(os.cpu_count() or 1)
    model = released(code, "darcy_rough", patterned_op())
    u = torch.from_numpy(fields(n, batch))
    optimizer = torch.optim.Adam(model.parameters(), 5e-4, weight_decay=1e-4)
    return torch_turns(model, u, optimizer, repeats)


def ours(n: int, batch: int, repeats: int, code: Path | None) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import optax

    op, u = patterned_op(), jnp.asarray(fields(n, batch))
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(5e-4))
    forward = jax.jit(lambda op, u: jax.vmap(op)(u))

    def one(op, state):
        grads = jax.grad(lambda op: jnp.mean((jax.vmap(op)(u) - u) ** 2))(op)
        updates, state = optimizer.update(grads, state, op)
        return optax.apply_updates(op, updates), state

    step, state, ready = jax.jit(one), optimizer.init(op), jax.block_until_ready
    return {
        "forward": median_ms(lambda: ready(forward(op, u)), repeats),
        "step": median_ms(lambda: ready(step(op, state)), repeats),
    }


def arguments(n: int, batch: int, args: argparse.Namespace) -> list[str]:
    code = ["--code", str(args.code)] if args.code else []
    return ["--sizes", str(n), "--batch", str(batch), "--repeats", str(args.repeats), *code]


def beside(args: argparse.Namespace) -> list[str]:
    lines = ["| | ours, ms | released code, ms | ratio |", "| --- | --- | --- | --- |"]
    for n in args.sizes:
        mine, theirs = in_turns(__file__, arguments(n, args.batch, args), args.rounds)
        for what in mine[0]:
            us = np.median([row[what] for row in mine])
            them = theirs(what)
            lines.append(f"| {what}, {n} x {n} | {us:.0f} | {them:.0f} | {us / them:.2f} |")
    return lines


def growth(args: argparse.Namespace) -> list[str]:
    lines = ["| points | forward, ns per point and sample | step |", "| --- | --- | --- |"]
    for n in args.points:
        batch = max(1, 2 * 256**2 // n**2)  # alike in size, so that caches and threads play the same part
        rows = [run(__file__, "ours", arguments(n, batch, args)) for _ in range(args.rounds)]
        cost = {what: 1e6 * np.median([row[what] for row in rows]) / (batch * n**2) for what in ("forward", "step")}
        lines.append(f"| {n} x {n}, batch {batch} | {cost['forward']:.0f} | {cost['step']:.0f} |")
        print(lines[-1], file=sys.stderr)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, help="a checkout of the released code")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--points", type=int, nargs="*", default=[], help="e.g. 64 128 256 512")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        result = {"ours": ours, "peer": peer}[args.worker](args.sizes[0], args.batch, args.repeats, args.code)
        print(json.dumps(result))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch"))
    lines = [
        f'`MgNO.paper("darcy_rough")`, batch {args.batch}, float32, {os.cpu_count()} cores; {versions}; median of '
        f"{args.rounds} rounds in turns, each the median of {args.repeats} calls.",
        "",
    ]
    if args.code:
        lines += beside(args)
    if args.points:
        lines += ["", *growth(args)]
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
