"""Two libraries side by side: each in a process of its own, in turns, with the allocator tuned alike.

Without that tuning PyTorch and XLA both lose most of their time to page faults above 32 MB per array. A script calls
itself with `--worker NAME`, and its worker prints a dictionary of numbers as JSON on its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ALLOCATORS = {  # a peer's best setting is the best of these; ours is always the first
    "large pages": {
        "GLIBC_TUNABLES": (
            "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:"
            "glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1"
        )
    },
    "no trimming": {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"},
}

Numbers = dict[str, float]


def median_ms(function: Callable[[], object], repeats: int, inner: int = 1) -> float:
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start) / inner)
    return float(np.median(times))


def torch_turns(model: Any, u: Any, optimizer: Any, repeats: int) -> Numbers:
    """Times of a PyTorch model's forward pass, and of a training step towards the identity."""
    import torch

    def forward() -> None:
        with torch.no_grad():
            model(u)

    def step() -> None:
        optimizer.zero_grad()
        ((model(u) - u) ** 2).mean().backward()
        optimizer.step()

    return {"forward": median_ms(forward, repeats), "step": median_ms(step, repeats)}


def run(
    script: str, worker: str, arguments: Sequence[str], allocator: str = "large pages", checkout: str | None = None
) -> Numbers:
    """What `script --worker worker *arguments` prints, with the library of another checkout where one is named."""
    command = [sys.executable, script, "--worker", worker, *arguments]
    environment = {**os.environ, **ALLOCATORS[allocator]}
    if checkout is not None:
        environment["PYTHONPATH"] = checkout
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(script: str, arguments: Sequence[str], rounds: int) -> tuple[list[Numbers], Callable[[str], float]]:
    """Our rounds, and the peer's median of a number under its best allocator."""
    mine: list[Numbers] = []
    theirs: dict[str, list[Numbers]] = {name: [] for name in ALLOCATORS}
    for _ in range(rounds):
        mine.append(run(script, "ours", arguments))
        for name, rows in theirs.items():
            rows.append(run(script, "peer", arguments, name))
        print(arguments, mine[-1], {name: rows[-1] for name, rows in theirs.items()}, file=sys.stderr)
    return mine, lambda what: min(float(np.median([row[what] for row in rows])) for rows in theirs.values())
