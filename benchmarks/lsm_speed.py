"""Time and memory of a training step of LSM and Transolver, beside the authors' code in PyTorch.

    git clone https://github.com/thuml/Latent-Spectral-Models && git -C Latent-Spectral-Models checkout d5a0b40
    git clone https://github.com/thuml/Transolver && git -C Transolver checkout 75e0f67
    python benchmarks/lsm_speed.py turns --lsm Latent-Spectral-Models --transolver Transolver \\
        --torch-python TORCH/bin/python --out outputs/lsm_speed

A step is the forward pass, the relative L2 error, its gradient and Adam's update, all with the same weights and
batches: LSM on 48 x 48, batch 20, 32 and 64 channels; a Transolver of the elasticity benchmark on 1,000 points, batch
4. Theirs is in training mode with PyTorch's fused Adam, under each allocator of `turns.py`; ours is `instance_norm`
with Adam of Optax. Every number is of a process of its own, ours and theirs in turns, and memory is the largest
resident set of that process with all its libraries; `before` is it when the steps begin.

The losses of the first batch, at evaluation, are compared too. The halves may live in two environments: `torch` needs
torch and einops, `jax` needs neuralops; `table` prints the table of their files.
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
from dgno_peer import clock
from lsm_peer import LEARNING_RATE, PROBLEMS, drawn, fields, memory, peer
from turns import ALLOCATORS

BAR = 1.0  # our step at most this share of theirs


def loaded(problem: str, shapes: dict[str, list[int]], norm: str) -> Any:
    """Our operator with their weights; `affine` is theirs at evaluation."""
    import jax

    import neuralops as no
    from neuralops.operator import named_leaves, with_leaves

    weights = drawn(shapes, 0)
    if problem == "transolver":
        return no.interop.official.transolver(weights)
    op = no.interop.official.lsm(weights)
    if norm == "affine":
        return op
    return with_leaves(no.LSM(1, 1, PROBLEMS[problem]["width"], norm=norm, key=jax.random.key(0)), named_leaves(op))


def ours(args: argparse.Namespace) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    import neuralops as no

    optimizer, rows = optax.adam(LEARNING_RATE), {}
    shapes = json.loads(args.theirs.read_text())["shapes"]
    loss = lambda op, u, y: jax.vmap(no.losses.relative_l2)(jax.vmap(op)(u), y).mean()
    for problem in args.problems:
        u, y = (jnp.moveaxis(jnp.asarray(x), -1, 1) for x in fields(problem, args.batch))
        op = loaded(problem, shapes[problem], args.norm)
        state = jax.tree.map(jnp.copy, (op, optimizer.init(op)))

        def one(state: Any, u: Any, y: Any) -> Any:
            op, moments = state
            value, grad = jax.value_and_grad(loss)(op, u, y)
            updates, moments = optimizer.update(grad, moments, op)
            return (optax.apply_updates(op, updates), moments), value

        run = jax.jit(one, donate_argnums=0)
        before = memory()

        def step(run: Any = run, u: Any = u, y: Any = y) -> None:
            nonlocal state
            state, _ = jax.block_until_ready(run(state, u, y))

        ms = clock(step, args.repeats, args.seconds)
        rows[problem] = {"ms": ms, "MB": memory(), "MB before": before}
        rows[problem]["loss"] = float(jax.jit(loss)(loaded(problem, shapes[problem], "affine"), u, y))
        print(problem, rows[problem], file=sys.stderr, flush=True)
    return {"side": "ours", "versions": f"jax {jax.__version__}", "rows": rows}


def table(paths: list[Path]) -> str:
    """Medians over files; of theirs the better allocator, for time and for memory."""
    files = [json.loads(path.read_text()) for path in paths]
    lines = ["| network | ours, ms | theirs, ms | of theirs | ours, MB | theirs, MB | of theirs | losses apart |"]
    lines.append("|" + " --- |" * 8)

    def best(side: str, problem: str, what: str) -> float:
        rounds: dict[str, list[float]] = {}
        for file in files:
            if file["side"] == side and problem in file["rows"]:
                rounds.setdefault(file["allocator"], []).append(file["rows"][problem][what])
        return min(float(np.median(x)) for x in rounds.values())

    verdicts = []
    for problem in dict.fromkeys(problem for file in files for problem in file["rows"]):
        cells = [problem]
        for what, form in (("ms", "{:.0f}"), ("MB", "{:.0f}")):
            mine, theirs = best("ours", problem, what), best("theirs", problem, what)
            cells += [form.format(mine), form.format(theirs), f"{mine / theirs:.2f}"]
            if what == "ms":
                verdicts.append(f"- {problem}: {'met' if mine <= BAR * theirs else 'missed'}.")
        losses = [best(side, problem, "loss") for side in ("ours", "theirs")]
        lines.append(f"| {' | '.join(cells)} | {abs(losses[0] - losses[1]) / losses[1]:.1e} |")
    versions = ", ".join(dict.fromkeys(file["versions"] for file in files))
    lines += ["", f"Bar: a step in at most {BAR} of their time.", *verdicts]
    return "\n".join([*lines, "", f"{versions}; {os.cpu_count()} cores; float32."])


def turns(args: argparse.Namespace) -> None:
    """Rounds, one process a network and side: PyTorch under every allocator, then ours."""
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--repeats", args.repeats, "--seconds", args.seconds, "--threads", args.threads, "--norm", args.norm]
    common += ["--batch", args.batch] if args.batch else []
    made: list[Path] = []

    def call(python: str, half: str, allocator: str, name: str, *given: Any) -> None:
        path = args.out / name
        command = [python, __file__, half, *common, "--allocator", allocator, "--out", path, *given]
        subprocess.run(list(map(str, command)), env={**os.environ, **ALLOCATORS[allocator]}, check=True)
        made.append(path)

    for number in range(args.rounds):
        for k, problem in enumerate(args.problems):
            for i, allocator in enumerate(ALLOCATORS):
                given = ("--problems", problem, "--lsm", args.lsm, "--transolver", args.transolver)
                call(args.torch_python, "torch", allocator, f"theirs_{number}_{k}_{i}.json", *given)
            given = ("--problems", problem, "--theirs", made[-1])
            call(sys.executable, "jax", next(iter(ALLOCATORS)), f"ours_{number}_{k}.json", *given)
    print(table(made))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("torch", "jax", "table", "turns"))
    parser.add_argument("files", type=Path, nargs="*", help="of table: .json files of both halves")
    parser.add_argument("--lsm", type=Path, help="a checkout of Latent-Spectral-Models")
    parser.add_argument("--transolver", type=Path, help="a checkout of Transolver")
    parser.add_argument("--torch-python", default=sys.executable, help="the interpreter of the half with PyTorch")
    parser.add_argument("--theirs", type=Path, help="the .json file of the half with PyTorch, for names and shapes")
    parser.add_argument("--out", type=Path, default=Path("outputs/lsm_speed"), help=".json file; of turns a folder")
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=list(PROBLEMS))
    parser.add_argument("--norm", default="instance_norm", help="of our LSM in training")
    parser.add_argument("--batch", type=int, help="instead of the published one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15, help="of a step, in a round")
    parser.add_argument("--seconds", type=float, default=20, help="of a row and round, after which three repeats do")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allocator", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.half == "table":
        print(table(args.files))
        return
    if args.half in ("torch", "turns") and (args.lsm is None or args.transolver is None):
        parser.error("the half with PyTorch needs --lsm and --transolver")
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
