"""Time of a training step of the 128 x 128 learned proximal network, beside the authors' code in PyTorch.

    git clone https://github.com/ZhenghanFang/learned-proximal-networks && \\
        git -C learned-proximal-networks checkout cbc3cfa
    python benchmarks/lpn_speed.py turns --code learned-proximal-networks --torch-python TORCH/bin/python \\
        --width 64 --batch 2 --out outputs/lpn_speed

A step is the output (a gradient), its absolute error, the gradient of that in the weights, Adam's update and the
clipping, with the same weights and images; both sides' losses of the first three steps are compared. Every number is of
a process of its own, ours and theirs in turns. The processor's time is given beside the clock's: on one thread of a
machine that others use too, it is the one to compare. The published width is 256.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lpn_peer import LEARNING_RATE, case_of, clock, fields, peer, weights
from turns import ALLOCATORS

BAR = 1.0  # our step at most this share of theirs


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    import neuralops as no

    case = case_of(args) | {"shapes": json.loads(args.theirs.read_text())["shapes"]}
    op = no.interop.official.lpn(weights(case, 0))
    optimizer = optax.adam(LEARNING_RATE)
    u, x = map(jnp.asarray, fields(args))

    def one(state: Any, u: Any, x: Any) -> Any:
        op, moments = state
        loss, grad = jax.value_and_grad(lambda op: jnp.mean(jnp.abs(jax.vmap(op)(u) - x)))(op)
        updates, moments = optimizer.update(grad, moments, op)
        return (optax.apply_updates(op, updates).project(), moments), loss

    run = jax.jit(one, donate_argnums=0)
    state = jax.tree.map(jnp.copy, (op, optimizer.init(op)))
    losses: list[float] = []

    def step() -> None:
        nonlocal state
        state, loss = run(state, u, x)
        losses.append(float(loss))

    row = clock(step, args.repeats) | {"losses": losses[:3]}
    return {"side": "ours", "versions": f"jax {jax.__version__}", "row": row}


def table(paths: list[Path]) -> str:
    """Medians over rounds; of theirs the better allocator."""
    files = [json.loads(path.read_text()) for path in paths]
    sides: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for file in files:
        sides.setdefault(file["side"], {}).setdefault(file["allocator"], []).append(file["row"])
    best = lambda side, what: min(float(np.median([row[what] for row in rows])) for rows in sides[side].values())
    losses = [np.array(next(iter(sides[side].values()))[0]["losses"]) for side in ("ours", "theirs")]
    lines = ["| | ours | theirs | of theirs |", "| --- | --- | --- | --- |"]
    for what in ("ms", "processor ms"):
        mine, theirs = best("ours", what), best("theirs", what)
        lines.append(f"| {what} | {mine:.0f} | {theirs:.0f} | {mine / theirs:.2f} |")
    share = best("ours", "ms") / best("theirs", "ms")
    apart = np.max(np.abs(losses[0] - losses[1]) / losses[1])
    lines += ["", f"Bar: a step in at most {BAR} of their time: {'met' if share <= BAR else 'missed'}."]
    lines.append(f"Losses of the first steps apart by {apart:.1e}.")
    versions = ", ".join(dict.fromkeys(file["versions"] for file in files))
    return "\n".join([*lines, f"{versions}; {os.cpu_count()} cores; float32."])


def turns(args: argparse.Namespace) -> None:
    """Rounds, one process a side: PyTorch under every allocator, then ours."""
    args.out.mkdir(parents=True, exist_ok=True)
    common = [f"--{name}={getattr(args, name)}" for name in ("width", "channels", "batch", "repeats", "threads")]
    made: list[Path] = []

    def call(python: str, half: str, allocator: str, name: str, *given: str) -> None:
        path = args.out / name
        command = [python, __file__, half, *common, "--allocator", allocator, "--out", str(path), *given]
        subprocess.run(command, env={**os.environ, **ALLOCATORS[allocator]}, check=True)
        made.append(path)

    for number in range(args.rounds):
        for i, allocator in enumerate(ALLOCATORS):
            call(args.torch_python, "torch", allocator, f"theirs_{number}_{i}.json", "--code", str(args.code))
        call(sys.executable, "jax", next(iter(ALLOCATORS)), f"ours_{number}.json", "--theirs", str(made[-1]))
    print(table(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("torch", "jax", "table", "turns"))
    parser.add_argument("files", type=Path, nargs="*", help="of table: .json files of both halves")
    parser.add_argument("--code", type=Path, help="a checkout of learned-proximal-networks")
    parser.add_argument("--torch-python", default=sys.executable, help="the interpreter of the half with PyTorch")
    parser.add_argument("--theirs", type=Path, help="the .json file of the half with PyTorch, for names and shapes")
    parser.add_argument("--out", type=Path, default=Path("outputs/lpn_speed"), help=".json file; of turns a folder")
    parser.add_argument("--width", type=int, default=256, help="hidden channels")
    parser.add_argument("--channels", type=int, default=3, help="of the images: 3 for CelebA, 1 for Mayo-CT")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5, help="of a step, in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.half == "table":
        print(table(args.files))
        return
    if args.half in ("torch", "turns") and args.code is None:
        parser.error("the half with PyTorch needs --code")
    if args.half == "turns":
        turns(args)
        return
    if args.half == "jax" and args.theirs is None:
        parser.error("the half with JAX needs --theirs")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
    result = {"torch": peer, "jax": ours}[args.half](args) | {"allocator": args.allocator}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
