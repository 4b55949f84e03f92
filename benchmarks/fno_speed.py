"""Time of an FNO's forward pass and training step beside neuraloperator, with equal weights, on the same cores.

    python benchmarks/fno_speed.py --out table.md       # needs neuraloperator and neuralops in one environment

Each library runs in a process of its own (`turns.py`). Our training step is timed as users run it, in the compiled
loop of `fit`, and also one call at a time.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
from turns import in_turns, median_ms, torch_turns

BATCH, CHANNELS, MODES = 16, 32, 16


def peer(n: int, repeats: int) -> dict[str, float]:
    import torch
    from neuralop.models import FNO

    torch.manual_seed(0)
    model = FNO(n_modes=(MODES, MODES), in_channels=1, out_channels=1, hidden_channels=CHANNELS)
    u = torch.from_numpy(fields(n))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return torch_turns(model, u, optimizer, repeats)


def ours(n: int, repeats: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import optax
    import torch
    from neuralop.models import FNO as PeerFNO
    from parity.fno_neuraloperator import copied_weights

    import neuralops as no

    torch.manual_seed(0)
    model = PeerFNO(n_modes=(MODES, MODES), in_channels=1, out_channels=1, hidden_channels=CHANNELS)
    op = no.FNO((MODES, MODES), 1, 1, CHANNELS, key=jax.random.key(0))
    state = {name: x.numpy() for name, x in model.state_dict().items() if name != "_metadata"}
    op = copied_weights(state, op)
    u = jnp.asarray(fields(n))
    with torch.no_grad():
        wanted = model(torch.from_numpy(fields(n))[:2]).numpy()
    del model
    forward = jax.jit(lambda op, u: jax.vmap(op)(u))
    difference = np.linalg.norm(forward(op, u[:2]) - wanted) / np.linalg.norm(wanted)
    optimizer = optax.adam(1e-3)

    def one(carry, _):
        op, state = carry
        grads = jax.grad(lambda op: jnp.mean((jax.vmap(op)(u) - u) ** 2))(op)
        updates, state = optimizer.update(grads, state, op)
        return (optax.apply_updates(op, updates), state), None

    step = jax.jit(lambda carry: one(carry, None)[0])
    inner = 5
    loop = jax.jit(lambda carry: jax.lax.scan(one, carry, None, length=inner)[0])
    start = (op, optimizer.init(op))
    ready = jax.block_until_ready
    return {
        "forward": median_ms(lambda: ready(forward(op, u)), repeats),
        "step": median_ms(lambda: ready(loop(start)), -(-repeats // 2), inner),
        "step, one call each": median_ms(lambda: ready(step(start)), repeats),
        "difference": float(difference),
    }


def fields(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, 1, n, n)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps({"ours": ours, "peer": peer}[args.worker](args.sizes[0], args.repeats)))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "torch", "neuraloperator"))
    lines = [
        f"{BATCH} samples, {CHANNELS} channels, {MODES} modes per axis, float32, {os.cpu_count()} cores; {versions}; "
        f"median of {args.rounds} rounds in turns, each the median of {args.repeats} calls, ms.",
        "",
        "| | ours | neuraloperator | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for n in args.sizes:
        mine, theirs = in_turns(__file__, ["--sizes", str(n), "--repeats", str(args.repeats)], args.rounds)
        for what in ("forward", "step", "step, one call each"):
            us = np.median([row[what] for row in mine])
            them = theirs(what.split(",")[0])
            lines.append(f"| {what}, {n} x {n} | {us:.0f} | {them:.0f} | {us / them:.2f} |")
        lines.append(
            f"| relative difference of outputs, {n} x {n} | {max(row['difference'] for row in mine):.1e} | | |"
        )
    text = "\n".join(lines)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
