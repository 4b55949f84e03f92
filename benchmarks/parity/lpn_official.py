"""The published learned proximal networks (PyTorch) and ours with the same weights: how far apart are they?

    git clone https://github.com/ZhenghanFang/learned-proximal-networks && \\
        git -C learned-proximal-networks checkout cbc3cfa
    python benchmarks/parity/lpn_official.py write outputs.npz --code learned-proximal-networks     # needs torch
    python benchmarks/parity/lpn_official.py compare outputs.npz                                    # needs neuralops

The two halves may run in different environments. `write` builds the authors' networks with random weights, clips them
as they do, and keeps the potential and its gradient in float32 and float64. `compare` draws the same weights and
inputs, reads them by `no.interop.official.lpn` and prints the relative differences in the 2-norm. `write --fixture`
keeps small networks in float64 alone, for `tests/test_official_proximal.py`.

PyTorch's softplus is the identity above 20 / beta, which is off by 2e-9. In float64 `write` moves that to 100 / beta.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from published import distance, drawn, loaded, on_cpu, shapes_of

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
FILES = {"toy": "exps/laplacian/network.py", "mnist": "lpn/networks/lpn_mnist.py", "128": "lpn/networks/lpn_128.py"}
CASES: dict[str, dict[str, Any]] = {
    "toy, 1-D": {"kind": "toy", "given": {"in_dim": 1, "hidden": 50, "layers": 4, "beta": 10}, "shape": [1], "n": 50},
    "toy, 20-D": {"kind": "toy", "given": {"in_dim": 20, "hidden": 31, "layers": 2, "beta": 5}, "shape": [20], "n": 9},
    "lpn_mnist": {
        "kind": "mnist",
        "given": {"in_dim": 1, "hidden": 64, "beta": 10, "alpha": 0.01},
        "shape": [1, 28, 28],
        "n": 3,
    },
    "lpn_mnist, 2 channels": {
        "kind": "mnist",
        "given": {"in_dim": 2, "hidden": 24, "beta": 3, "alpha": 0.2},
        "shape": [2, 28, 28],
        "n": 3,
    },
    "lpn_128, CelebA": {
        "kind": "128",
        "given": {"in_dim": 3, "hidden": 256, "beta": 100, "alpha": 1e-6},
        "shape": [3, 128, 128],
        "n": 1,
    },
    "lpn_128, Mayo-CT": {
        "kind": "128",
        "given": {"in_dim": 1, "hidden": 256, "beta": 100, "alpha": 1e-6},
        "shape": [1, 128, 128],
        "n": 1,
    },
}
SMALL: dict[str, dict[str, Any]] = {
    "toy": {"kind": "toy", "given": {"in_dim": 1, "hidden": 6, "layers": 4, "beta": 10}, "shape": [1], "n": 9},
    "toy, 3-D": {"kind": "toy", "given": {"in_dim": 3, "hidden": 5, "layers": 2, "beta": 2}, "shape": [3], "n": 4},
    "mnist": {
        "kind": "mnist",
        "given": {"in_dim": 2, "hidden": 3, "beta": 10, "alpha": 0.01},
        "shape": [2, 28, 28],
        "n": 1,
    },
    "128": {
        "kind": "128",
        "given": {"in_dim": 1, "hidden": 2, "beta": 100, "alpha": 1e-6},
        "shape": [1, 128, 128],
        "n": 1,
    },
}


def inputs(case: dict[str, Any], seed: int, samples: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, 1])
    x = rng.random((samples or case["n"], *case["shape"]))
    return (x if len(case["shape"]) > 1 else 8 * x - 4).astype(np.float32)


def weights(case: dict[str, Any], seed: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    """A state dict as after a step of theirs: what they constrain is at least zero, and no layer runs away."""
    found = drawn(case["shapes"], seed)
    for name, x in found.items():
        if name.startswith("lin.") and name != "lin.0.weight" and name.endswith("weight"):
            found[name] = np.maximum(x, 0) / np.sqrt(np.prod(x.shape[1:])) * np.float32(2)
    return {name: x.astype(np.float32).astype(dtype) for name, x in found.items()}


# The half with PyTorch.


def published(case: dict[str, Any], code: Path) -> Any:
    path = code / FILES[case["kind"]]
    spec = importlib.util.spec_from_file_location(f"published_{case['kind']}", path)
    assert spec is not None
    assert spec.loader is not None
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    return theirs.LPN(**case["given"])


def write(path: Path, cases: dict[str, dict[str, Any]], small: bool, code: Path) -> None:
    import torch

    kept: dict[str, np.ndarray] = {}
    for number, (title, case) in enumerate(cases.items()):
        for dtype in ("float64",) if small else ("float32", "float64"):
            with on_cpu(dtype):
                network = published(case, code)
                case["shapes"] = shapes_of(network)
                loaded(network, weights(case, number))
                network.wclip()
                if dtype == "float64":
                    network.act.threshold = 100
                x = torch.from_numpy(inputs(case, number)).to(getattr(torch, dtype))
                kept[f"{title}|potential|{dtype}"] = network.scalar(x).detach().numpy()[:, 0]
                kept[f"{title}|output|{dtype}"] = network(x).detach().numpy()
    kept["cases"] = np.array(json.dumps(cases))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)
    print(f"{len(kept)} arrays in {path}, {path.stat().st_size / 1e3:.0f} kB")


# The half with JAX.


def ours(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """The operator that the published weights make here."""
    from neuralops.interop import official

    given = case["given"]
    return official.lpn(arrays, beta=float(given["beta"]), alpha=float(given.get("alpha", 0)))


def evaluate(case: dict[str, Any], op: Any, x: np.ndarray, options: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Potentials and outputs in the layout of theirs."""
    import jax
    import jax.numpy as jnp

    u = jnp.asarray(x, jax.tree.leaves(op)[0].dtype)
    u = u[:, None] if u.ndim == 2 else u
    run = jax.jit(lambda op, u: jax.lax.map(lambda y: (op.potential(y), op(y)), u), compiler_options=options)
    potentials, outputs = run(op, u)
    return np.asarray(potentials), np.asarray(outputs).reshape(x.shape)


def compare(path: Path, match: str = "") -> bool:
    import jax

    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    print("| network | parameters | potential, float32 | float64 | output, float32 | float64 |")
    print("| --- | --- | --- | --- | --- | --- |")
    passed = True
    for number, (title, case) in enumerate(json.loads(str(kept["cases"])).items()):
        if match not in title:
            continue
        cells: dict[tuple[str, str], float] = {}
        for dtype in ("float32", "float64"):
            with jax.enable_x64(True):
                op = ours(case, weights(case, number, dtype))
                found = evaluate(case, op, inputs(case, number))
            for what, x in zip(("potential", "output"), found, strict=True):
                assert x.dtype == dtype
                cells[what, dtype] = distance(x, kept[f"{title}|{what}|{dtype}"])
                passed &= cells[what, dtype] <= TOLERANCE[dtype]
        size = sum(x.size for x in jax.tree.leaves(op))
        row = [cells[what, dtype] for what in ("potential", "output") for dtype in ("float32", "float64")]
        print(f"| {title} | {size:,} | {' | '.join(f'{x:.1e}' for x in row)} |", flush=True)
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("write", "compare"))
    parser.add_argument("path", type=Path, help=".npz file between the halves")
    parser.add_argument("--code", type=Path, help="a checkout of the authors' repository")
    parser.add_argument("--fixture", action="store_true", help="small networks, float64 alone")
    parser.add_argument("--match", default="", help="compares the networks whose names hold this alone")
    args = parser.parse_args()
    if args.half == "compare":
        return 0 if compare(args.path, args.match) else 1
    if args.code is None:
        parser.error("write needs --code")
    write(args.path, SMALL if args.fixture else CASES, args.fixture, args.code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
