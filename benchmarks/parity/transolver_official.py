"""The published Transolvers (PyTorch) and ours with the same weights: how far apart are they?

    git clone https://github.com/thuml/Transolver && git -C Transolver checkout 75e0f67
    git clone https://github.com/thuml/Neural-Solver-Library && git -C Neural-Solver-Library checkout db942b7
    python benchmarks/parity/transolver_official.py write outputs.npz \\
        --code Transolver/PDE-Solving-StandardBenchmark --library Neural-Solver-Library          # needs torch, einops
    python benchmarks/parity/transolver_official.py compare outputs.npz                          # needs neuralops

As `lsm_official.py`, for the networks on points and on grids in two and three dimensions, with places, reference
distances or neither, with and without the time, by `no.interop.official.transolver`. Rows named `library` are those of
the Neural-Solver-Library, with the same names of arrays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from lsm_official import main, weights
from published import drawn, loaded, module, on_cpu, shapes_of

__all__ = ["CASES", "SMALL", "evaluate", "inputs", "ours", "weights", "write"]

# Name: the grid, or the number of points; values in (none: the places alone) and out; layers, channels, heads, slices.
CASES: dict[str, dict[str, Any]] = {
    "elasticity, 972 points": {"points": 972, "values": [0, 1], "sizes": [8, 128, 8, 64]},
    "Darcy, 85 x 85": {"grid": [85, 85], "values": [1, 1], "sizes": [8, 128, 8, 64], "ref": 8},
    "airfoil, 221 x 51": {"grid": [221, 51], "values": [0, 1], "sizes": [8, 128, 8, 64]},
    "pipe, 65 x 65": {"grid": [65, 65], "values": [0, 1], "sizes": [8, 128, 8, 64], "mlp_ratio": 2},
    "Navier-Stokes, 64 x 64": {"grid": [64, 64], "values": [10, 1], "sizes": [8, 256, 8, 32], "ref": 8},
    "plasticity, 101 x 31, time": {"grid": [101, 31], "values": [1, 4], "sizes": [8, 128, 8, 64], "time": True},
    "1001 points, three values": {"points": 1001, "values": [3, 2], "sizes": [3, 32, 4, 8], "mlp_ratio": 4},
    "500 points, 5 x 5 distances, time": {
        "points": 500,
        "values": [2, 1],
        "sizes": [3, 32, 4, 8],
        "ref": 5,
        "time": True,
    },
    "333 points in 3-D": {"points": 333, "ndim": 3, "values": [1, 3], "sizes": [2, 48, 6, 10]},
    "100 points in 1-D, silu": {"points": 100, "ndim": 1, "values": [1, 1], "sizes": [2, 32, 4, 8], "act": "silu"},
    "13 x 11, three heads, time": {"grid": [13, 11], "values": [2, 1], "sizes": [2, 18, 3, 8], "time": True},
    "3-D, 16 x 9 x 13": {"grid": [16, 9, 13], "values": [1, 2], "sizes": [3, 32, 4, 8]},
    "3-D, 8 x 9 x 10, distances": {"grid": [8, 9, 10], "values": [2, 1], "sizes": [2, 32, 4, 8], "ref": 4},
    "3-D, 12 x 12 x 7, places alone": {"grid": [12, 12, 7], "values": [0, 1], "sizes": [2, 32, 4, 8]},
    "library, 300 points": {"points": 300, "values": [1, 1], "sizes": [3, 32, 4, 8], "library": True},
    "library, 100 in 1-D": {"grid": [100], "values": [1, 1], "sizes": [3, 32, 4, 8], "library": True},
    "library, 31 x 40, distances, time": {
        "grid": [31, 40],
        "values": [1, 1],
        "sizes": [3, 32, 4, 8],
        "ref": 8,
        "time": True,
        "library": True,
    },
    "library, 7 x 12 x 9": {"grid": [7, 12, 9], "values": [1, 1], "sizes": [2, 32, 4, 8], "library": True},
}
SMALL: dict[str, dict[str, Any]] = {
    "points": {"points": 30, "values": [1, 2], "sizes": [2, 12, 3, 5], "mlp_ratio": 2},
    "places alone": {"points": 20, "values": [0, 1], "sizes": [1, 8, 2, 4]},
    "distances, time": {"points": 20, "values": [1, 1], "sizes": [1, 12, 3, 4], "ref": 3, "time": True},
    "2-D": {"grid": [5, 7], "values": [2, 1], "sizes": [2, 12, 4, 5]},
    "2-D, places alone": {"grid": [5, 4], "values": [0, 1], "sizes": [1, 8, 2, 4]},
    "2-D, distances": {"grid": [6, 4], "values": [1, 1], "sizes": [1, 8, 2, 4], "ref": 3},
    "3-D, time": {"grid": [4, 3, 5], "values": [1, 2], "sizes": [1, 8, 2, 4], "time": True},
    "library, 1-D": {"grid": [11], "values": [1, 1], "sizes": [1, 8, 2, 4], "library": True},
}


def ndim_of(case: dict[str, Any]) -> int:
    return len(case["grid"]) if "grid" in case else case.get("ndim", 2)


def inputs(case: dict[str, Any], seed: int, samples: int) -> dict[str, np.ndarray]:
    """Places and values with one axis of points, channels last as theirs, and times."""
    rng = np.random.default_rng([seed, 1])
    points = int(np.prod(case["grid"])) if "grid" in case else case["points"]
    given = {"x": rng.random((samples, points, ndim_of(case)))}
    if case["values"][0]:
        given["u"] = 2 * rng.random((samples, points, case["values"][0])) - 1
    if case.get("time"):
        given["time"] = 10 * rng.random((samples, 1))
    return {name: x.astype(np.float32) for name, x in given.items()}


# The half with PyTorch.


def published(case: dict[str, Any], code: Path) -> Any:
    layers, width, heads, slices = case["sizes"]
    common = {
        "space_dim": ndim_of(case),
        "n_layers": layers,
        "n_hidden": width,
        "mlp_ratio": case.get("mlp_ratio", 1),
        "fun_dim": case["values"][0],
        "out_dim": case["values"][1],
        "slice_num": slices,
        "ref": case.get("ref", 8),
        "unified_pos": "ref" in case,
        "act": case.get("act", "gelu"),
        "dropout": 0.0,
    }
    if case.get("library"):
        kind = f"structured_{ndim_of(case)}D" if "grid" in case else "unstructured"
        told = SimpleNamespace(
            **common, n_heads=heads, time_input=case.get("time", False), geotype=kind, shapelist=case.get("grid")
        )
        return module(code, "models.Transolver").Model(told)
    name = f"Structured_Mesh_{ndim_of(case)}D" if "grid" in case else "Irregular_Mesh"
    grid = dict(zip("HWD", case.get("grid", ()), strict=False))
    theirs = module(code, f"model.Transolver_{name}")
    return theirs.Model(**common, **grid, n_head=heads, Time_Input=case.get("time", False))


def write(path: Path, cases: dict[str, dict[str, Any]], small: bool, code: Path, library: Path) -> None:
    import torch

    kept: dict[str, np.ndarray] = {}
    for number, (title, case) in enumerate(cases.items()):
        for dtype in ("float64",) if small else ("float32", "float64"):
            with on_cpu(dtype), torch.no_grad():
                network = published(case, library if case.get("library") else code)
                case["shapes"] = {"model": shapes_of(network)}
                loaded(network, drawn(case["shapes"]["model"], number))
                given = {
                    name: torch.from_numpy(x).to(getattr(torch, dtype))
                    for name, x in inputs(case, number, 1 if small else 2).items()
                }
                out = network(given["x"], given.get("u"), given.get("time"))
            kept[f"{title}|{dtype}"] = out.numpy()
    kept["cases"] = np.array(json.dumps(cases))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)
    print(f"{len(kept)} arrays in {path}, {path.stat().st_size / 1e3:.0f} kB")


# The half with JAX.


def ours(case: dict[str, Any], arrays: dict[str, dict[str, np.ndarray]]) -> Any:
    """The operator that the published weights make here."""
    from neuralops.interop import official

    told = {"unified_pos": "ref" in case, "ref": case.get("ref", 8), "activation": case.get("act", "gelu")}
    told |= {"placeholder": True} if case.get("library") else {}
    return official.transolver(arrays["model"], space_dim=ndim_of(case), **told)


def evaluate(case: dict[str, Any], op: Any, given: dict[str, np.ndarray], options: Any = None) -> Any:
    """Our output in the layout of theirs; `options` of the compiler."""
    import jax
    import jax.numpy as jnp

    dtype = jax.tree.leaves(op)[0].dtype
    field = lambda x: jnp.moveaxis(jnp.asarray(x, dtype), -1, 1).reshape(len(x), x.shape[-1], *case.get("grid", (-1,)))
    u, more = field(given["u" if "u" in given else "x"]), {}
    if op.positional_embedding == "coordinates" or not op.structured:
        more["coords"] = field(given["x"])
    if "time" in given:
        more["time"] = jnp.asarray(given["time"][:, 0], dtype)
    out = jax.jit(jax.vmap(lambda u, more: op(u, **more)), compiler_options=options)(u, more)
    return jnp.moveaxis(out.reshape(*out.shape[:2], -1), 1, -1)


if __name__ == "__main__":
    sys.exit(main(sys.modules[__name__], "library"))
