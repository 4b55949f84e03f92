"""The FNO of neuraloperator and ours with the same weights: how far apart are the outputs?

    python benchmarks/parity/fno_neuraloperator.py        # needs neuraloperator and neuralops in one environment

Each row builds neuraloperator's FNO with random parameters, copies them into ours and compares the outputs for
two fields of white noise in float32.

The release 2.0.0 brings the spectrum back with `fftshift` where `ifftshift` is meant. On an odd number of
points along any axis but the last that moves every mode by one, so there the comparison is made twice: with the
release as it is, and with that one call put right. Later versions of neuraloperator have it right.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import sys
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from neuralop.models import FNO as PeerFNO

from neuralops import FNO
from neuralops.operator import with_leaves

TOLERANCE = 1e-5
# Title: grid, arguments common to both libraries.
CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1-D": ((64,), {"n_modes": (16,)}),
    "1-D, odd grid": ((63,), {"n_modes": (16,)}),
    "2-D": ((32, 32), {"n_modes": (12, 12)}),
    "2-D, odd modes": ((32, 32), {"n_modes": (11, 9)}),
    "2-D, odd last axis": ((24, 33), {"n_modes": (12, 12)}),
    "2-D, odd first axis": ((33, 24), {"n_modes": (12, 12)}),
    "2-D, odd grid": ((33, 33), {"n_modes": (12, 12)}),
    "2-D, grid coarser than the modes": ((10, 12), {"n_modes": (16, 16)}),
    "2-D, two channels in, three out": ((20, 24), {"n_modes": (8, 8), "in_channels": 2, "out_channels": 3}),
    "2-D, ratios 4 and 1": ((16, 16), {"n_modes": (8, 8), "lifting_channel_ratio": 4, "projection_channel_ratio": 1}),
    "2-D, no positional embedding": ((16, 16), {"n_modes": (8, 8), "positional_embedding": None}),
    "2-D, domain_padding 0.25": ((16, 24), {"n_modes": (12, 12), "domain_padding": 0.25}),
    "2-D, group_norm": ((16, 16), {"n_modes": (8, 8), "norm": "group_norm"}),
    "2-D, instance_norm": ((16, 16), {"n_modes": (8, 8), "norm": "instance_norm"}),
    "2-D, pre-activation, group_norm": ((16, 16), {"n_modes": (8, 8), "preactivation": True, "norm": "group_norm"}),
    "2-D, separable": ((16, 16), {"n_modes": (8, 8), "separable": True}),
    "2-D, Tucker": ((16, 16), {"n_modes": (8, 8), "factorization": "tucker", "rank": 0.3}),
    "2-D, CP": ((16, 16), {"n_modes": (8, 8), "factorization": "cp", "rank": 0.3}),
    "2-D, TT": ((16, 16), {"n_modes": (8, 8), "factorization": "tt", "rank": 0.3}),
    "3-D": ((16, 16, 16), {"n_modes": (8, 8, 8)}),
    "3-D, odd grid": ((15, 17, 13), {"n_modes": (8, 8, 8)}),
    "3-D, Tucker, domain_padding 0.125": (
        (16, 16, 16),
        {"n_modes": (8, 8, 8), "factorization": "tucker", "rank": 0.2, "domain_padding": 0.125},
    ),
}


def copied_weights(state: dict[str, np.ndarray], op: FNO) -> FNO:
    """`op` with the parameters of neuraloperator's FNO (2.x), given by the names of its state dict."""
    return with_leaves(op, {our_name(name, x.ndim): jnp.asarray(our_array(name, x)) for name, x in state.items()})


def our_name(name: str, ndim: int) -> str:
    """From the name of a parameter there to the path of the leaf here."""
    part, *rest = name.removeprefix("fno_blocks.").split(".")
    nth = {"0": "first", "1": "second"}
    if part in ("lifting", "projection"):  # fcs, 0 or 1, weight or bias
        return f"{part}.{nth[rest[1]]}.{rest[2]}"
    if part == "norm":  # two per block
        return f"blocks.{int(rest[0]) // 2}.norms.{int(rest[0]) % 2}.{rest[1]}"
    block, rest = f"blocks.{rest[0]}", rest[1:]
    if part == "channel_mlp":
        return f"{block}.mlp.{nth[rest[1]]}.{rest[2]}"
    if part == "fno_skips":
        return f"{block}.skip.weight"
    if part == "channel_mlp_skips":
        return f"{block}.gate.weight"
    if part == "convs" and rest[0] == "bias":
        return f"{block}.spectral.bias"
    if part == "convs" and rest[1] in ("tensor", "core", "weights"):
        return f"{block}.spectral.weight.core"
    if part == "convs" and rest[1] == "factors":
        index = int(rest[2].removeprefix("factor_"))
        if ndim == 3:  # a tensor train: ours calls its first factor the core
            return f"{block}.spectral.weight." + (f"factors.{index - 1}" if index else "core")
        return f"{block}.spectral.weight.factors.{index}"
    raise ValueError(f"state: no parameter of ours for {name!r}; this script does not cover that option.")


def our_array(name: str, x: np.ndarray) -> np.ndarray:
    """Complex as a leading pair; without the axes of length one that torch broadcasts over or convolves with."""
    if np.iscomplexobj(x):
        return np.stack([x.real, x.imag])
    if ".convs." in name or "channel_mlp_skips" in name:  # a bias (out, 1, ...), a gate (1, channels, 1, ...)
        return x.reshape(-1)
    return x[..., 0] if x.ndim == 3 else x  # a 1 x 1 convolution (out, in, 1)


def built(arguments: dict[str, Any]) -> tuple[Any, FNO]:
    """Both models with the same weights."""
    common = {"in_channels": 1, "out_channels": 1, "hidden_channels": 16, "n_layers": 2, **arguments}
    peer = PeerFNO(**common)
    with torch.no_grad():
        for parameter in peer.parameters():  # gates and norms start at ones and zeros, which would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    state = {name: x.numpy() for name, x in peer.state_dict().items() if name != "_metadata"}
    weight = "fno_blocks.convs.0.weight."
    if common.get("factorization") == "tucker":
        common["rank"] = state[weight + "core"].shape
    elif common.get("factorization") == "cp":
        common["rank"] = state[weight + "weights"].shape
    elif common.get("factorization") == "tt":
        inner = range(len(common["n_modes"]) + 1)
        common["rank"] = tuple(state[f"{weight}factors.factor_{i}"].shape[-1] for i in inner)
    return peer, copied_weights(state, FNO(**common, key=jax.random.key(0)))


@contextlib.contextmanager
def corrected_shift() -> Iterator[None]:
    """Every second `fftshift`, the one on the way back, becomes `ifftshift`."""
    forward, calls = torch.fft.fftshift, itertools.count()

    def shift(x: torch.Tensor, dim: Any = None) -> torch.Tensor:
        return torch.fft.ifftshift(x, dim=dim) if next(calls) % 2 else forward(x, dim=dim)

    with mock.patch.object(torch.fft, "fftshift", shift):
        yield


def difference(peer: Any, ours: FNO, u: np.ndarray) -> float:
    """|ours - theirs| / |theirs| for a batch of fields."""
    with torch.no_grad():
        theirs = peer(torch.from_numpy(u)).numpy()
    return float(np.linalg.norm(np.asarray(jax.jit(jax.vmap(ours))(u)) - theirs) / np.linalg.norm(theirs))


def main() -> int:
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("neuraloperator", "torch", "jax")]
    print(f"Relative 2-norm difference of the outputs, float32; {', '.join(versions)}.\n")
    print("| model | grid | as released | shift put right |\n| --- | --- | --- | --- |")
    failed = []
    for title, (grid, arguments) in CASES.items():
        torch.manual_seed(0)
        peer, ours = built(arguments)
        u = np.random.default_rng(0).normal(size=(2, arguments.get("in_channels", 1), *grid)).astype(np.float32)
        released = difference(peer, ours, u)
        with corrected_shift() if len(grid) > 1 else contextlib.nullcontext():
            right = difference(peer, ours, u)
        print(f"| {title} | {' x '.join(map(str, grid))} | {released:.1e} | {right:.1e} |", flush=True)
        if not right < TOLERANCE:
            failed.append(title)
    print(f"\nAbove {TOLERANCE:g}: {', '.join(failed) or 'none'}.")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
