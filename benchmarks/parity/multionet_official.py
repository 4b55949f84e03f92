"""The published MultiONet, DeepONet and encoders (PyTorch) and ours with the same weights: how far apart are they?

    git clone https://github.com/yaohua32/DGenNO && git -C DGenNO checkout f6e939e
    git clone https://github.com/yaohua32/Deep-Neural-Operators-for-PDEs Older && git -C Older checkout c32cec3
    python benchmarks/parity/multionet_official.py write outputs.npz --code DGenNO --older Older   # needs torch
    python benchmarks/parity/multionet_official.py compare outputs.npz                             # needs neuralops

The two halves may run in different environments. `write` builds every form (a batch of points for every sample or a
Cartesian product, one output or several) with every activation and with the sizes of the published runs, gives it
random weights (those that start at zero too) and keeps weights, inputs and outputs in float32 and float64. `compare`
reads the weights by `no.interop.official` and prints, of all forms and activations of a network, the largest relative
difference in the 2-norm, and how far either side is in float32 from the published code in float64.
`write --fixture` keeps small networks in float64 alone, for `tests/test_official.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
ACTIVATIONS = ("Tanh_Sin", "SiLU_Sin", "SiLU_Id", "SiLU", "ReLU", "Tanh")
FORMS = {
    "MultiONetCartesianProd": "cartesian",
    "MultiONetBatch": "batch",
    "DeepONetCartesianProd": "cartesian",
    "DeepONetBatch": "batch",
}
# Name: kind, sizes. `a`: what the branch takes at once; `latent`: how often it does in the variant for several outputs.
CASES: dict[str, dict[str, Any]] = {
    "[100]*6, L=5": {"kind": "multionet", "x": 2, "a": 128, "widths": [100] * 6, "sum_layers": 5},
    "[100]*5, L=4": {"kind": "multionet", "x": 2, "a": 128, "widths": [100] * 5, "sum_layers": 4},
    "[128]*5, L=4": {"kind": "multionet", "x": 2, "a": 128, "widths": [128] * 5, "sum_layers": 4},
    "[100]*6, L=5, X": {"kind": "x", "x": 2, "a": 1, "latent": 128, "out": 3, "widths": [100] * 6, "sum_layers": 5},
    "[100]*5, L=4, X, two channels": {
        "kind": "x",
        "x": 3,
        "a": 2,
        "latent": 40,
        "out": 2,
        "widths": [100] * 5,
        "sum_layers": 4,
    },
    "older, [80]*6": {"kind": "older", "x": 2, "a": 64, "widths": [80] * 6},
    "older, [80]*6, X": {"kind": "older_x", "x": 2, "a": 1, "latent": 64, "out": 3, "widths": [80] * 6},
    "DeepONet, [128]*4": {"kind": "deeponet", "x": 1, "a": 128, "widths": [128] * 4, "out": 1},
    "DeepONet, [120]*4, three outputs": {"kind": "deeponet", "x": 2, "a": 128, "widths": [120] * 4, "out": 3},
    "DeepONet, CNN": {
        "kind": "deeponet_cnn",
        "x": 2,
        "widths": [128] * 4,
        "conv": [1, 64, 128],
        "fc": [3200, 128, 128],
        "kernel": 5,
        "points": [29, 29],
    },
    "encoder 841-512-256-128": {"kind": "fc", "channels": 1, "layers": [841, 512, 256, 128]},
    "encoder 128-256-128-64-128": {"kind": "fc", "channels": 1, "layers": [128, 256, 128, 64, 128]},
    "encoder 256-256-128-128, two channels": {"kind": "fc", "channels": 2, "layers": [256, 256, 128, 128]},
    "encoder conv 1-64-64-64": {
        "kind": "cnn",
        "conv": [1, 64, 64, 64],
        "fc": [256, 128, 128, 128],
        "kernel": 3,
        "points": [29, 29],
    },
    "encoder conv 1-32-64-128": {
        "kind": "cnn",
        "conv": [1, 32, 64, 128],
        "fc": [128, 128],
        "kernel": 5,
        "points": [29, 29],
    },
}
SMALL: dict[str, dict[str, Any]] = {
    "sum": {"kind": "multionet", "x": 2, "a": 5, "widths": [6] * 4, "sum_layers": 2},
    "x": {"kind": "x", "x": 2, "a": 1, "latent": 4, "out": 3, "widths": [5] * 4, "sum_layers": 2},
    "older": {"kind": "older", "x": 1, "a": 4, "widths": [5] * 2},
    "older x": {"kind": "older_x", "x": 3, "a": 2, "latent": 3, "out": 2, "widths": [4] * 2},
    "deeponet": {"kind": "deeponet", "x": 2, "a": 4, "widths": [6] * 3, "out": 2},
    "deeponet cnn": {
        "kind": "deeponet_cnn",
        "x": 2,
        "widths": [4] * 2,
        "conv": [1, 2],
        "fc": [12, 4],
        "kernel": 3,
        "points": [5, 7],
    },
    "fc": {"kind": "fc", "channels": 2, "layers": [10, 6, 4]},
    "cnn": {"kind": "cnn", "conv": [2, 3, 4], "fc": [8, 5, 4], "kernel": 3, "points": [9, 11]},
}


# The half with PyTorch.


def classes(code: Path, module: str) -> Any:
    """A module of a checkout; the two checkouts have modules of the same names."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("Networks", "FunActivation", "FCNet", "CNNet")]:
        del sys.modules[name]
    sys.path.insert(0, str(code))
    try:
        return importlib.import_module(f"Networks.{module}")
    finally:
        sys.path.remove(str(code))


def published(case: dict[str, Any], activation: str, code: Path, older: Path) -> Iterator[tuple[str, Any]]:
    """The published networks of a case, by the form in which they take points."""
    kind, widths = case["kind"], case.get("widths")
    if kind in ("fc", "cnn"):
        encoders = classes(code, "EncoderNet")
        if kind == "fc":
            yield "batch", encoders.EncoderFCNet(case["layers"], activation)
        else:
            ny, nx = case["points"]
            yield (
                "batch",
                encoders.EncoderCNNet2d(
                    case["conv"],
                    case["fc"],
                    activation,
                    activation,
                    nx,
                    ny,
                    kernel_size=(case["kernel"],) * 2,
                    stride=2,
                ),
            )
    elif kind.startswith("deeponet"):
        for name in ("DeepONetCartesianProd", "DeepONetBatch"):
            branch = [case["a"], *widths] if kind == "deeponet" else [convolutional(case, activation, code), widths[-1]]
            out = case.get("out", 1)
            if out > 1 and name == "DeepONetBatch":
                continue  # as published it splits the points instead of the units, and does not run
            strategy = None if out == 1 else "split_both"
            net = getattr(classes(code, "DeepONets"), name)
            yield FORMS[name], net(out, branch, [case["x"], *widths], activation, activation, strategy)
    else:
        module = classes(older if kind.startswith("older") else code, "MultiONets")
        for name in ("MultiONetCartesianProd", "MultiONetBatch"):
            several = (case["latent"], case["out"]) if kind.endswith("x") else ()
            net = getattr(module, name + ("_X" if several else ""))
            layers = (widths,) if kind.startswith("older") else (widths, widths)
            told = {"sum_layers": case["sum_layers"]} if "sum_layers" in case else {}
            yield FORMS[name], net(case["x"], case["a"], *several, *layers, activation, activation, **told)


def convolutional(case: dict[str, Any], activation: str, code: Path) -> Any:
    """A branch of one's own, as in the notebooks."""
    import torch

    network = classes(code, "CNNet").CNNet2d(
        case["conv"], case["fc"], activation, activation, kernel_size=(case["kernel"],) * 2, stride=2
    )

    class Branch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = network

        def forward(self, x: Any) -> Any:
            return self.conv(x.reshape(-1, 1, *case["points"]))

    return Branch()


def inputs(case: dict[str, Any], rng: np.random.Generator, samples: int, points: int) -> dict[str, np.ndarray]:
    """What a network is given: values, and points of each form."""
    if case["kind"] == "fc":
        return {"a": rng.normal(size=(samples, case["layers"][0] // case["channels"], case["channels"]))}
    if case["kind"] == "cnn":
        return {"a": rng.normal(size=(samples, int(np.prod(case["points"])), case["conv"][0]))}
    if "points" in case:
        shape: tuple[int, ...] = (int(np.prod(case["points"])),)
    else:
        shape = (case["latent"], case["a"]) if "latent" in case else (case["a"],)
    return {
        "a": rng.normal(size=(samples, *shape)),
        "cartesian": rng.uniform(size=(points, case["x"])),
        "batch": rng.uniform(size=(samples, points, case["x"])),
    }


def write(path: Path, cases: dict[str, dict[str, Any]], code: Path, older: Path, small: bool) -> None:
    import torch

    kept: dict[str, np.ndarray] = {"cases": np.array(json.dumps(cases))}
    for number, (title, case) in enumerate(cases.items()):
        rng = np.random.default_rng(number)
        given = {name: x.astype(np.float32) for name, x in inputs(case, rng, 2, 3 if small else 50).items()}
        kept |= {f"{title}|input|{name}": x for name, x in given.items()}
        weights: dict[str, Any] = {}
        outputs: dict[str, list[np.ndarray]] = {}
        for activation in ACTIVATIONS:
            for form, network in published(case, activation, code, older):
                if not weights:  # the same in all forms; those that start at zero are drawn too
                    torch.manual_seed(number)
                    weights = {
                        name: x.clone() if x.numel() > 1 else torch.randn(x.shape)
                        for name, x in network.state_dict().items()
                    }
                    kept |= {f"{title}|weight|{name}": x.numpy() for name, x in weights.items()}
                network.load_state_dict(weights, strict=True)
                for dtype in (torch.float64,) if small else (torch.float32, torch.float64):
                    a, x = (None if x is None else torch.tensor(x, dtype=dtype) for x in (given["a"], given.get(form)))
                    with torch.no_grad():
                        out = network.to(dtype)(a) if x is None else network.to(dtype)(x, a)
                    word = str(dtype).removeprefix("torch.")
                    shape = (len(a), 1, -1) if x is None else (len(a), x.shape[-2], -1)
                    outputs.setdefault(f"{title}|output|{form}|{word}", []).append(out.reshape(shape).numpy())
        kept |= {name: np.stack(x) for name, x in outputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **kept)
    print(f"{len(kept)} arrays in {path}, {path.stat().st_size / 1e3:.0f} kB")


# The half with JAX.


def ours(case: dict[str, Any], weights: dict[str, np.ndarray], activation: str) -> Any:
    """The operator that the published weights make here."""
    from neuralops.interop import official

    kind = case["kind"]
    if kind == "fc":
        return official.encoder(weights, activation=activation, in_channels=case["channels"])
    if kind == "cnn":
        return official.encoder(weights, activation=activation, sensors=case["points"])
    names = {"trunk_activation": activation, "branch_activation": activation}
    if kind == "deeponet_cnn":
        branch = official.encoder(weights, activation=activation, sensors=case["points"], prefix="branch.")
        return official.deeponet(weights, **names, encoder=branch)
    if kind == "deeponet":
        return official.deeponet(weights, **names)
    return official.multionet(weights, **names, **({"sum_layers": case["sum_layers"]} if kind == "x" else {}))


def evaluate(case: dict[str, Any], op: Any, a: np.ndarray, points: np.ndarray | None) -> Any:
    """Our outputs in the layout of theirs, (samples, points, outputs)."""
    import jax
    import jax.numpy as jnp

    dtype = jax.tree.leaves(op)[0].dtype
    if "points" in case:
        u = np.moveaxis(a.reshape(len(a), *case["points"], -1), -1, 1)
    else:
        u = a[:, None] if a.ndim == 2 else a.transpose(0, 2, 1)
    u = jnp.asarray(u, dtype)
    if points is None:
        return jax.jit(jax.vmap(op))(u)
    x = jnp.asarray(np.moveaxis(points, -1, -2), dtype)
    run = jax.vmap(lambda u, x: op(u, query=x), in_axes=(0, 0 if x.ndim == 3 else None))
    return jax.jit(run)(u, x).transpose(0, 2, 1)


def compare(path: Path) -> bool:
    """Whether all outputs agree."""
    import jax

    with np.load(path, allow_pickle=False) as file:
        kept = dict(file)
    print("| network | parameters | outputs | float32 | theirs rounded | ours rounded | float64 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    passed = True
    for title, case in json.loads(str(kept["cases"])).items():
        weights = {name.split("|")[2]: x for name, x in kept.items() if name.startswith(f"{title}|weight|")}
        outputs = {
            (form, word, activation): x
            for name, stacked in kept.items()
            if name.startswith(f"{title}|output|")
            for form, word in [name.split("|")[2:]]
            for activation, x in zip(ACTIVATIONS, stacked, strict=True)
        }
        worst = dict.fromkeys(("float32", "theirs", "ours", "float64"), 0.0)
        for (form, dtype, activation), theirs in outputs.items():
            with jax.enable_x64(True):
                op = ours(case, {name: x.astype(dtype) for name, x in weights.items()}, activation)
                mine = np.asarray(evaluate(case, op, kept[f"{title}|input|a"], kept.get(f"{title}|input|{form}")))
            assert mine.dtype == theirs.dtype == dtype
            found = {dtype: distance(mine, theirs)}
            if dtype == "float32":
                exact = outputs[form, "float64", activation]
                found |= {"theirs": distance(theirs, exact), "ours": distance(mine, exact)}
            worst = {key: max(value, found.get(key, 0)) for key, value in worst.items()}
        size = sum(x.size for x in weights.values())
        print(f"| {title} | {size:,} | {len(outputs)} | {' | '.join(f'{x:.1e}' for x in worst.values())} |", flush=True)
        passed &= all(worst[dtype] <= limit for dtype, limit in TOLERANCE.items())
    return passed


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("half", choices=("write", "compare"))
    parser.add_argument("path", type=Path, help=".npz file between the halves")
    parser.add_argument("--code", type=Path, help="a checkout of DGenNO")
    parser.add_argument("--older", type=Path, help="a checkout of Deep-Neural-Operators-for-PDEs")
    parser.add_argument("--fixture", action="store_true", help="small networks, float64 alone")
    args = parser.parse_args()
    if args.half == "compare":
        return 0 if compare(args.path) else 1
    if args.code is None or args.older is None:
        parser.error("write needs --code and --older")
    write(args.path, SMALL if args.fixture else CASES, args.code, args.older, args.fixture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
