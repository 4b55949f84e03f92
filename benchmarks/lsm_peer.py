"""The half of `lsm_speed.py` with PyTorch: training steps of the authors' networks. Also what both halves share."""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from dgno_peer import clock

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from published import Shapes, drawn, loaded, module, on_cpu, shapes_of

# Points per axis or in the cloud, channels of the input, and channels on the finest scale or of every layer.
PROBLEMS: dict[str, dict[str, Any]] = {
    "lsm, width 32": {"grid": [48, 48], "batch": 20, "channels": 1, "width": 32},
    "lsm, width 64": {"grid": [48, 48], "batch": 20, "channels": 1, "width": 64},
    "transolver": {"grid": [1000], "batch": 4, "channels": 2, "width": 128},  # elasticity
}
LEARNING_RATE = 1e-3


def fields(problem: str, batch: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs `(batch, *grid, channels)` and smooth targets `(batch, *grid, 1)`."""
    sizes = PROBLEMS[problem]
    rng = np.random.default_rng(seed)
    u = rng.random((batch or sizes["batch"], *sizes["grid"], sizes["channels"]))
    return u.astype(np.float32), (1.5 + np.sin(3 * u[..., :1])).astype(np.float32)


def network(problem: str, args: argparse.Namespace) -> Any:
    sizes = PROBLEMS[problem]
    with on_cpu():
        if problem == "transolver":
            theirs = module(args.transolver / "PDE-Solving-StandardBenchmark", "model.Transolver_Irregular_Mesh")
            return theirs.Model(
                space_dim=2, n_layers=8, n_hidden=sizes["width"], n_head=8, fun_dim=0, out_dim=1, slice_num=64
            )
        patch = ",".join(str(n // 16) for n in sizes["grid"])
        told = SimpleNamespace(
            in_dim=1, out_dim=1, d_model=sizes["width"], num_token=4, num_basis=12, patch_size=patch, padding="0,0"
        )
        return module(args.lsm, "models.LSM_2D").Model(told)


def memory() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def peer(args: argparse.Namespace) -> dict[str, Any]:
    """Step in ms, peak memory in MB, and the loss of the first batch in evaluation mode."""
    import torch

    torch.set_num_threads(args.threads)
    rows: dict[str, dict[str, float]] = {}
    shapes: dict[str, Shapes] = {}
    for problem in args.problems:
        net = network(problem, args)
        shapes[problem] = shapes_of(net)
        loaded(net, drawn(shapes[problem], 0))
        u, y = map(torch.from_numpy, fields(problem, args.batch))
        call = (lambda u, net=net: net(u, None)) if problem == "transolver" else net

        def loss(call: Any = call, u: Any = u, y: Any = y) -> Any:
            norm = lambda x: torch.linalg.vector_norm(x.reshape(len(x), -1), dim=1)
            return (norm(call(u) - y) / norm(y)).mean()

        with torch.no_grad():
            first = float(loss())
        net.train()
        optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE, fused=True)

        def step(optimizer: Any = optimizer, loss: Any = loss) -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        before = memory()
        ms = clock(step, args.repeats, args.seconds)
        rows[problem] = {"ms": ms, "MB": memory(), "MB before": before, "loss": first}
        print(problem, rows[problem], file=sys.stderr, flush=True)
    return {"side": "theirs", "versions": f"torch {torch.__version__}", "rows": rows, "shapes": shapes}
