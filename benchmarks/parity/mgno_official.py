"""The released MgNO (PyTorch) and ours with the same weights: how far apart are the outputs?

    git clone https://github.com/xlliu2017/MgNO && git -C MgNO checkout 3a68a90
    python benchmarks/parity/mgno_official.py --code MgNO                   # needs torch, torchinfo and neuralops
    python benchmarks/parity/mgno_official.py --code MgNO --fixture tests/fixtures/mgno_official.json

Every variant is built there, its parameters are set by a formula (`pattern`), copied into `MgNO.paper(...)`, and the
outputs for one field are compared in float32. `--fixture` writes some numbers of the released code's outputs, which
`tests/test_mgno.py` compares with ours: the formula stands in for the weights there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops import MgNO
from neuralops.operator import named_leaves, with_leaves

TOLERANCE = 1e-5
# Variant: the grid that is tried, the class there and its arguments.
STEPS = [[1, 0]] * 5 + [[2, 0]]
CASES: dict[str, tuple[tuple[int, int], str, dict[str, Any]]] = {
    "darcy_rough": ((64, 96), "MgNO_DC", {"num_layer": 4, "num_channel_f": 1, "num_iteration": STEPS}),
    "darcy_smooth": ((211, 211), "MgNO_DC_smooth", {"num_layer": 5, "num_channel_f": 1, "num_iteration": STEPS}),
    "pipe": (
        (128, 128), "MgNO_DC",
        {"num_layer": 5, "num_channel_f": 2, "num_iteration": [[1, 0]] * 4 + [[1, 1], [2, 0]]},
    ),
    "navier_stokes": (
        (64, 64), "MgNO_NS",
        {"num_layer": 5, "num_channel_f": 1, "num_iteration": [[1, 0]] * 3 + [[2, 0]] * 2, "bias": True},
    ),
    "helmholtz": ((101, 101), "MgNO_helm", {"num_layer": 4, "num_channel_f": 1, "num_iteration": [1, 1, 1, 1, 2]}),
}  # fmt: skip
CHANNELS = {"navier_stokes": 32, "helmholtz": 20}


def pattern(name: str, shape: tuple[int, ...], fan: int) -> np.ndarray:
    """Parameters from a formula: as spread as initial ones, and the same wherever they are computed."""
    start = zlib.crc32(name.encode()) % 1000
    wave = np.sin(12.9898 * (np.arange(np.prod(shape)) + 1) + start)
    return (wave / np.sqrt(fan)).reshape(shape).astype(np.float32)


def patterned(op: MgNO) -> MgNO:
    """`op` with all parameters by the formula, named and laid out as here."""
    leaves = {}
    for name, leaf in named_leaves(op).items():
        is_scale = "norm.weight" in name
        fan = 100 if "norm" in name else int(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else leaf.shape[0]
        leaves[name] = jnp.asarray(pattern(name, leaf.shape, fan) + is_scale)
    return with_leaves(op, leaves)


def source(shape: tuple[int, ...]) -> np.ndarray:
    """A field that is neither smooth nor symmetric, from a formula."""
    return np.sin(0.37 * np.arange(np.prod(shape)) ** 1.01).reshape(shape).astype(np.float32)


def their_name(name: str) -> str:
    """From the path of a leaf here to the name of the parameter there."""
    if match := re.fullmatch(r"layers\.(\d+)\.skip\.(weight|bias)", name):
        return f"linear_list.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"layers\.(\d+)\.norm\.(weight|bias)", name):
        return f"norm_layer_list.{match[1]}.{match[2]}"
    if name == "last.weight":
        return "last"
    match = re.fullmatch(r"(layers\.(\d+)\.cycle|last)\.levels\.(\d+)\.(.*)", name)
    assert match, name
    cycle, level, rest = "last_layer" if match[1] == "last" else f"conv_list.{match[2]}", int(match[3]), match[4]
    if rest.startswith("norm."):
        return f"{cycle}.norm_layer_list.{level}.{rest.removeprefix('norm.')}"
    if rest == "prolongation":
        return f"{cycle}.RTlayers.{level}.weight"
    if rest in ("restriction", "projection"):  # first in the next level's list there
        return f"{cycle}.layer{level + 1}.0.{'R' if rest == 'restriction' else 'Pi'}.weight"
    stage, index, array = rest.split(".")
    place = int(index) + (stage == "pre" and level > 0)
    kind, _, is_bias = array.partition("_")
    return f"{cycle}.{'layer' if stage == 'pre' else 'post_smooth_layer'}{level}.{place}.{kind}." + (
        "bias" if is_bias else "weight"
    )


def their_array(name: str, leaf: np.ndarray) -> np.ndarray:
    """A leaf in the layout of PyTorch: convolutions (out, in, *taps), transposed ones (in, out, *taps)."""
    if "norm" in name:
        return leaf.transpose(2, 0, 1)
    if leaf.ndim == 4:
        return leaf.transpose(2, 3, 0, 1) if "prolongation" in name else leaf.transpose(3, 2, 0, 1)
    return leaf[:, :, None, None] if leaf.ndim == 2 else leaf


def released(code: Path, variant: str, op: MgNO) -> Any:
    """The released model with the weights of `op`; every parameter there must have been given."""
    sys.path.insert(0, str(code))
    import models
    import torch

    _, kind, arguments = CASES[variant]
    channels = CHANNELS.get(variant, 24)
    peer = getattr(models, kind)(num_channel_u=channels, num_classes=1, **arguments)
    state = {their_name(name): their_array(name, np.asarray(leaf)) for name, leaf in named_leaves(op).items()}
    if "last" in state:
        state["linear.weight" if kind.startswith("MgNO_DC") else "last_layer.weight"] = state.pop("last")
    peer.load_state_dict({name: torch.tensor(array.copy()) for name, array in state.items()}, strict=True)
    return peer


def digest(v: np.ndarray) -> dict[str, Any]:
    """Some numbers that tell one output from another."""
    flat = v.reshape(-1).astype(np.float64)
    where = np.linspace(0, flat.size - 1, 12).astype(int)
    return {"rms": float(np.sqrt(np.mean(flat**2))), "mean": float(flat.mean()), "values": flat[where].tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, required=True, help="a checkout of the released code")
    parser.add_argument("--fixture", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    import torch

    print("| variant | grid | parameters here | there | largest difference over largest value |")
    print("| --- | --- | --- | --- | --- |")
    numbers, worst = {}, 0.0
    for variant, (grid, _, _) in CASES.items():
        op = patterned(MgNO.paper(variant, key=jax.random.key(0)))
        peer = released(arguments.code, variant, op)
        u = source((op.in_channels, *grid))
        with torch.no_grad():
            theirs = peer(torch.tensor(u)[None])[0].numpy()
        ours = np.asarray(op(jnp.asarray(u)))
        error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        counts = sum(x.size for x in jax.tree.leaves(op)), sum(p.numel() for p in peer.parameters())
        print(f"| {variant} | {grid[0]} x {grid[1]} | {counts[0]:,} | {counts[1]:,} | {error:.1e} |", flush=True)
        numbers[variant] = {"grid": grid, "parameters": counts[1], **digest(theirs)}
        worst = max(worst, error)
    if arguments.fixture:
        arguments.fixture.parent.mkdir(exist_ok=True)
        arguments.fixture.write_text(json.dumps(numbers, indent=1) + "\n")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
