"""What the scripts of this folder for latent spectral models and Transolvers share.

Their networks are made for a GPU and for single precision; `on_cpu` builds and runs them as they are on a CPU and in
either precision. Weights are not stored: both halves draw them from the names and shapes of the state dict.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

Shapes = dict[str, list[int]]


@contextlib.contextmanager
def on_cpu(dtype: str = "float32") -> Iterator[None]:
    """Within it their words for a GPU mean nothing, and their words for single precision mean `dtype`."""
    import torch

    real, pair = getattr(torch, dtype), {"float32": torch.complex64, "float64": torch.complex128}[dtype]
    anywhere = lambda make: lambda *given, device=None, **more: make(*given, **more)
    here = lambda x, *given, **more: x
    cast, to = lambda x: x.to(real), torch.Tensor.to

    def elsewhere(x: Any, *given: Any, **more: Any) -> Any:
        given = tuple(word for word in given if word != "cuda")
        return to(x, *given, **more) if given or more else x

    places: list[tuple[Any, str, Any]] = [
        (torch.Tensor, "cuda", here),
        (torch.nn.Module, "cuda", here),
        (torch.Tensor, "to", elsewhere),
        (torch.Tensor, "float", cast),
        (torch, "tensor", anywhere(torch.tensor)),
        (torch, "arange", anywhere(torch.arange)),
        *((torch, name, real) for name in ("float", "float32")),
        *((torch, name, pair) for name in ("cfloat", "complex64")),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    default = torch.get_default_dtype()
    torch.set_default_dtype(real)
    for place, name, other in places:
        setattr(place, name, other)
    try:
        yield
    finally:
        for place, name, other in before:
            setattr(place, name, other)
        torch.set_default_dtype(default)


def module(code: Path, name: str) -> Any:
    """A module of a checkout, with the start of weights where they take it from timm."""
    import torch

    layers = types.ModuleType("timm.models.layers")
    layers.trunc_normal_ = torch.nn.init.trunc_normal_  # type: ignore[attr-defined]
    for stub in ("timm", "timm.models"):
        sys.modules.setdefault(stub, types.ModuleType(stub))
    sys.modules.setdefault("timm.models.layers", layers)
    for old in [old for old in sys.modules if old.split(".")[0] in ("model", "models", "layers")]:
        del sys.modules[old]
    sys.path.insert(0, str(code))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(code))


def shapes_of(network: Any) -> Shapes:
    return {name: list(x.shape) for name, x in network.state_dict().items()}


def drawn(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """A state dict of those names and shapes in float32: everything that starts at zero or one is random too."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        end = name.split(".")[-1]
        x = 2 * rng.random(shape) - 1
        if end == "num_batches_tracked":
            found[name] = np.array(7)
            continue
        if end in ("weights1", "weights2"):
            x = (x + 1j * (2 * rng.random(shape) - 1)) / shape[0] * (1e-3 if "project_out" in name else 1)
        elif end == "temperature":  # on grids some lie outside of where it is held
            on_grid = len(shapes[f"{name.removesuffix(end)}in_project_x.weight"]) > 2
            x = np.geomspace(*((0.05, 8) if on_grid else (0.2, 3)), shape[1]).reshape(shape)
        elif end == "running_var" or (end == "weight" and len(shape) == 1):
            x = 1 + x / 2
        elif end == "weight":
            gain = 3 if len(shape) == 2 else 6 if shape[-1] > 1 else 1  # linear maps, kernels, kernels of one point
            x = x * np.sqrt(gain / np.prod(shape[1:]))
        else:  # biases, running means, tokens, the weights of a neural spectral block
            x = x * 0.3
        found[name] = x.astype(np.complex64 if np.iscomplexobj(x) else np.float32)
    return found


def loaded(network: Any, weights: dict[str, np.ndarray]) -> Any:
    """`network` with these weights, in evaluation mode."""
    import torch

    network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()}, strict=True)
    return network.eval()


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.linalg.norm(x - y) / np.linalg.norm(y))
