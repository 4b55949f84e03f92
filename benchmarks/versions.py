"""Two versions of this library side by side: did a change cost anything?

    git worktree add ../before COMMIT
    python benchmarks/versions.py --before ../before --after .

Each version in processes of its own, in turns (`turns.py`); medians, and the median ratio within a turn. Training
steps are timed through `fit`, an epoch after the one that compiles; solves through `solve` inside `jax.jit`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from turns import Numbers, median_ms, run

CASES = ("fno_64", "fno_16", "mgno_32", "cg_256", "multigrid_256")


def training_ms(kind: str, n: int, batch: int, samples: int, repeats: int) -> float:
    """Milliseconds of one step, the fastest epoch but the first; noise only ever adds."""
    import jax
    import optax

    import neuralops as no

    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 1, n, n)).astype(np.float32)
    shared = {"in_channels": 1, "out_channels": 1, "hidden_channels": 32, "key": jax.random.key(0)}
    if kind == "fno":
        op = no.FNO((min(n, 32) // 2,) * 2, boundary="neumann", centering="cell", **shared)
    else:
        op = no.MgNO.paper("darcy_rough", key=jax.random.key(0))
    _, history = no.fit(op, (x, x[::-1].copy()), loss=no.losses.l2(), optimizer=optax.adam(1e-3), progress=False,
                        num_epochs=repeats + 1, batch_size=batch, key=jax.random.key(1))  # fmt: skip
    return 1e3 * float(np.median(history.seconds[1:])) / (samples // batch)


def solving_ms(multigrid: bool, n: int, repeats: int) -> float:
    import jax

    import neuralops as no

    grid = no.Grid((n, n), 1.0, "dirichlet", "cell")
    rng = np.random.default_rng(0)
    a = np.exp(rng.normal(size=(n, n))).astype(np.float32)
    f = rng.normal(size=(n, n)).astype(np.float32)
    A = no.Diffusion.from_coefficient(grid, a)
    method = no.CG(rtol=1e-5, preconditioner=no.Multigrid(A) if multigrid else None)
    solve = jax.jit(lambda b: no.solve(A, b, method).value)
    b = A.load(f)
    return median_ms(lambda: solve(b).block_until_ready(), repeats)


def measure(repeats: int) -> Numbers:
    return {
        "fno_64": training_ms("fno", 64, 16, 64, repeats),
        "fno_16": training_ms("fno", 16, 64, 512, repeats),
        "mgno_32": training_ms("mgno", 32, 8, 32, repeats),
        "cg_256": solving_ms(False, 256, 5 * repeats),
        "multigrid_256": solving_ms(True, 256, 20 * repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(arguments.repeats)))
        return
    rows: dict[str, list[Numbers]] = {"before": [], "after": []}
    for turn in range(arguments.rounds):
        for version in ("before", "after") if turn % 2 == 0 else ("after", "before"):
            checkout = str(getattr(arguments, version).resolve())
            rows[version].append(run(__file__, version, ["--repeats", str(arguments.repeats)], checkout=checkout))
            print(version, rows[version][-1], file=sys.stderr)
    print("| case | before, ms | after, ms | ratio |\n| --- | --- | --- | --- |")
    for case in CASES:
        before, after = (np.array([row[case] for row in rows[version]]) for version in ("before", "after"))
        print(f"| {case} | {np.median(before):.2f} | {np.median(after):.2f} | {np.median(after / before):.3f} |")


if __name__ == "__main__":
    main()
