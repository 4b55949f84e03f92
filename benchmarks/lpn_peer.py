"""The half of `lpn_speed.py` with PyTorch: training steps of the authors' network. Also what both halves share."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from lpn_official import published, weights
from published import loaded, on_cpu, shapes_of

LEARNING_RATE = 1e-3


def case_of(args: argparse.Namespace) -> dict[str, Any]:
    given = {"in_dim": args.channels, "hidden": args.width, "beta": 100, "alpha": 1e-6}
    return {"kind": "128", "given": given}


def fields(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Noisy and clean images."""
    rng = np.random.default_rng(0)
    x = rng.random((args.batch, args.channels, 128, 128))
    return (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32), x.astype(np.float32)


def clock(step: Callable[[], object], repeats: int) -> dict[str, float]:
    """Medians of the time of a step on the wall and on the processor, in ms; the first step is thrown away."""
    step()
    wall, processor = [], []
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        step()
        wall.append(1e3 * (time.perf_counter() - began[0]))
        processor.append(1e3 * (time.process_time() - began[1]))
    return {"ms": float(np.median(wall)), "processor ms": float(np.median(processor))}


def peer(args: argparse.Namespace) -> dict[str, Any]:
    """A step of theirs: absolute error, its gradient, Adam, clipping."""
    import torch

    torch.set_num_threads(args.threads)
    case = case_of(args)
    with on_cpu():
        net = published(case, args.code)
        case["shapes"] = shapes_of(net)
        loaded(net, weights(case, 0))
    net.train()
    u, x = map(torch.from_numpy, fields(args))
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=True)
    losses: list[float] = []

    def step() -> None:
        optimizer.zero_grad()
        loss = (net(u) - x).abs().mean()
        loss.backward()
        optimizer.step()
        net.wclip()
        losses.append(float(loss))

    row = clock(step, args.repeats) | {"losses": losses[:3]}
    return {"side": "theirs", "versions": f"torch {torch.__version__}", "row": row, "shapes": case["shapes"]}
