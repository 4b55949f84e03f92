"""The published DeepONet, MultiONet and encoders of MultiONet's authors, in the operators of this library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralops.arguments import count
from neuralops.grid import Grid
from neuralops.interop.official.arrays import (
    Parts,
    as_arrays,
    as_is,
    filled,
    linear,
    numbered,
    require,
    sizes,
    skeleton_of,
)
from neuralops.models.multionet import DeepONet, MultiONet
from neuralops.nn.encoder import ConvEncoder, MLPEncoder

# The names of two generations of the authors' code for the same layers: first and further ones of trunk and of branch.
_GENERATIONS = (
    (("fc_trunk_in", "trunk_net"), ("fc_branch_in", "branch_net"), ("SiLU_Sin", "SiLU")),
    (("fc_x_in", "net_x"), ("fc_a_in", "net_a"), ("SiLU_Sin", "SiLU_Id")),
)
_SPELLINGS = {"sinc": "x_sin", "swish": "silu"}


def multionet(
    arrays: Mapping[str, Any],
    *,
    trunk_activation: str | None = None,
    branch_activation: str | None = None,
    sum_layers: int | None = None,
    encoder: Any = None,
    sensors: Any = None,
    in_channels: int | None = None,
    domain: Any = None,
    factor: Any = None,
    lift: Any = None,
    chunk_size: int | None = None,
    prefix: str = "",
) -> MultiONet:
    """The `MultiONet` of the authors (github.com/yaohua32/DGenNO, and the older Deep-Neural-Operators-for-PDEs).

    Their four classes, for a batch or a Cartesian product and with one output or several (`_X`), are one operator here.
    Sizes and variant come from the arrays. What is no array is told:

    **Arguments:**

    - `arrays`: by the names of the state dict: `fc_trunk_in.weight`, `trunk_net.0.weight`, `fc_branch_in.weight`,
      `branch_net.0.weight`, their biases, and either `w.0`, ... and `b` or `fc_out.weight` and `fc_out.bias`; the older
      code's `fc_x_in`, `net_x`, `fc_a_in`, `net_a` are taken alike.
    - `trunk_activation`, `branch_activation`: their words or ours; by default theirs, `"SiLU_Sin"` and `"SiLU"` (in the
      older code `"SiLU_Id"`).
    - `sum_layers`: how many of the last layers are averaged. There is one `w` for each; without them it is 4 by
      default as there, and all but the first in the older code.
    - `encoder`: what stands before the branch, such as the result of `encoder`.
    - `sensors`, `in_channels`: where the input is given, by default one vector as long as the branch takes; a `Grid` or
      a shape of as many points gives the operator fields `(in_channels, *sensors)`, channels first when flattened.
    - `domain`, `factor`, `lift`, `chunk_size`: as in `MultiONet`; their code multiplies outside of the network.
    - `prefix`: takes the names that begin with it alone, such as `"module."`.

    **Returns:** the operator in the precision of the arrays, as far as JAX's setting allows.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    arrays = as_arrays(arrays, prefix)
    old = "fc_x_in.weight" in arrays
    (trunk, branch, defaults) = _GENERATIONS[old]
    known = f"{trunk[0]}.weight", f"{branch[0]}.weight"
    require(arrays, known)
    layers = {"trunk": numbered(arrays, trunk[1]), "branch": numbered(arrays, branch[1])}
    n_layers = 1 + max(map(len, layers.values()))
    plain = not any(name.startswith("fc_out.") for name in arrays)
    if plain:
        weights = numbered(arrays, "w", "{}.{}")
        own = len(weights)
        if sum_layers is not None and sum_layers != own:
            raise ValueError(
                f"sum_layers: expected {own}, one for each w in the arrays, got {sum_layers!r}; leave it out."
            )
        sum_layers = own or 1  # without any the first is missed below
    else:
        sum_layers = (n_layers - 1 if old else 4) if sum_layers is None else sum_layers
        require(arrays, ("fc_out.weight",))
    alone = sizes(arrays, known[1])[1]  # numbers that go through the branch at once
    latent = alone if plain else sizes(arrays, "fc_out.weight")[1]
    if in_channels is None:
        in_channels = 1 if plain or encoder is not None else alone
    if sensors is None and encoder is None:
        sensors = latent // in_channels if plain else latent
    width, ndim = sizes(arrays, known[0])
    skeleton = skeleton_of(
        MultiONet,
        sensors,
        in_channels if encoder is None else encoder.in_channels,
        1 if plain else sizes(arrays, "fc_out.weight")[0],
        width,
        n_layers=n_layers,
        sum_layers=sum_layers,
        trunk_activation=_spelled(trunk_activation or defaults[0]),
        branch_activation=_spelled(branch_activation or defaults[1]),
        variant="sum" if plain else "x",
        encoder=encoder,
        domain=_box(domain, sensors, ndim),
        factor=factor,
        lift=lift,
        chunk_size=chunk_size,
    )
    parts = linear("trunk.0", trunk[0]) | linear("branch.0", branch[0])
    for ours, theirs in (("trunk", trunk[1]), ("branch", branch[1])):
        for i in range(n_layers - 1):
            parts |= linear(f"{ours}.{i + 1}", f"{theirs}.{i}")
    if plain:
        parts["weight"] = tuple(f"w.{i}" for i in range(sum_layers)), lambda *w: np.stack(w)[:, None]
        parts["bias"] = ("b",), lambda b: b[None]
    else:
        parts |= linear("head", "fc_out")
    return filled(skeleton, arrays, parts, prefix, encoder=encoder)


def deeponet(
    arrays: Mapping[str, Any],
    *,
    trunk_activation: str,
    branch_activation: str,
    encoder: Any = None,
    sensors: Any = None,
    in_channels: int = 1,
    domain: Any = None,
    factor: Any = None,
    lift: Any = None,
    chunk_size: int | None = None,
    prefix: str = "",
) -> DeepONet:
    """The `DeepONet` that the authors of MultiONet compare with, one output or several (`"split_both"`).

    Their branch is a perceptron, `branch.net.0.weight` and so on, or a network of one's own. Of those a `CNNet2d` is
    taken: give it as `encoder=encoder(arrays, prefix="branch.", sensors=(29, 29))`, and it is all of the branch. The
    trunk's layers are of one width; so is the branch's last.

    **Arguments:** those of `multionet`; the activations have no default there.

    **Raises:** `ValueError`, as `multionet`.
    """
    arrays = as_arrays(arrays, prefix)
    require(arrays, ("trunk.net.0.weight", "b.0") + (("branch.net.0.weight",) if encoder is None else ()))
    trunk, branch, biases = (
        numbered(arrays, "trunk.net"),
        numbered(arrays, "branch.net"),
        numbered(arrays, "b", "{}.{}"),
    )
    width, ndim = sizes(arrays, "trunk.net.0.weight")
    if encoder is not None:
        arrays = {name: x for name, x in arrays.items() if not name.startswith("branch.")}
        in_channels, branch = encoder.in_channels, []
    elif sensors is None:
        sensors = sizes(arrays, "branch.net.0.weight")[1] // in_channels
    skeleton = skeleton_of(
        DeepONet,
        sensors,
        in_channels,
        len(biases),
        width,
        n_layers=len(trunk),
        branch_layers=len(branch),
        trunk_activation=_spelled(trunk_activation),
        branch_activation=_spelled(branch_activation),
        encoder=encoder,
        domain=_box(domain, sensors, ndim),
        factor=factor,
        lift=lift,
        chunk_size=chunk_size,
    )
    parts: Parts = {"bias": (tuple(biases), lambda *b: np.stack(b))}
    for ours, names in (("trunk", trunk), ("branch", branch)):
        for i, _ in enumerate(names):
            parts |= linear(f"{ours}.{i}", f"{ours}.net.{i}")
    return filled(skeleton, arrays, parts, prefix, encoder=encoder)


def encoder(
    arrays: Mapping[str, Any],
    *,
    activation: str = "SiLU",
    last_activation: str = "Identity",
    sensors: Any = None,
    in_channels: int = 1,
    stride: int = 2,
    prefix: str = "",
) -> MLPEncoder | ConvEncoder:
    """The encoders of the authors of MultiONet and DGNO: `EncoderFCNet`, `EncoderCNNet1d` and `EncoderCNNet2d`.

    Their perceptron reads fields with the channels last; ours has them first, and its first layer is reordered.

    **Arguments:**

    - `arrays`: names that end in `net.0.weight`, or `conv_net.0.weight` and `fc_net.0.weight`, and so on, after
      whatever is common to all.
    - `activation`: between the layers; `last_activation`: after the last, `"Tanh"` in their DGNO.
    - `sensors`: points per axis, `(ny, nx)`; needed for convolutions, by default a vector for the perceptron.
    - `in_channels`: channels of the input of a perceptron.
    - `stride`: of the convolutions; 2 in their published runs.
    - `prefix`: takes the names that begin with it alone, such as `"branch."`.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    arrays = as_arrays(arrays, prefix)
    first = next((name for name in arrays if re.search(r"(^|\.)(conv_net|net)\.0\.weight$", name)), "net.0.weight")
    require(arrays, (first,))
    head = first.removesuffix(".0.weight")
    common = {"activation": _spelled(activation), "last_activation": _spelled(last_activation)}
    parts: Parts = {}
    if head.endswith("conv_net"):
        dense = head.removesuffix("conv_net") + "fc_net"
        require(arrays, (f"{dense}.0.weight",))
        kernels, widths = numbered(arrays, head), numbered(arrays, dense)
        shape = arrays[first].shape
        if sensors is None or len(shape) < 3 or len(set(shape[2:])) != 1:
            raise ValueError(
                f"sensors: expected the points of the input, whose kernels {shape} are as long along every axis, got "
                f"{sensors!r}; give sensors=(29, 29), and leave other kernels out."
            )
        skeleton: Any = skeleton_of(
            ConvEncoder,
            sensors,
            shape[1],
            sizes(arrays, widths[-1])[0],
            [sizes(arrays, name)[0] for name in widths[:-1]],
            conv_channels=[(arrays[name].shape or (1,))[0] for name in kernels],
            kernel_size=shape[2],
            stride=stride,
            **common,
        )
        for i, _ in enumerate(kernels):
            parts |= {f"kernels.{i}": ((f"{head}.{i}.weight",), as_is), f"biases.{i}": ((f"{head}.{i}.bias",), as_is)}
    else:
        dense, widths = head, numbered(arrays, head)
        sensors = sizes(arrays, first)[1] // count(in_channels, "in_channels") if sensors is None else sensors
        skeleton = skeleton_of(
            MLPEncoder,
            sensors,
            in_channels,
            sizes(arrays, widths[-1])[0],
            [sizes(arrays, name)[0] for name in widths[:-1]],
            **common,
        )
    for i, _ in enumerate(widths):
        parts |= linear(f"layers.{i}", f"{dense}.{i}")
    if not head.endswith("conv_net") and in_channels > 1:
        parts["layers.0.weight"] = (first,), lambda w: _channels_first(w, in_channels)
    return filled(skeleton, arrays, parts, prefix)


def _box(domain: Any, sensors: Any, ndim: int) -> Any:
    """As given, the grid's, or the unit box, whose dimension the trunk tells."""
    on_grid = isinstance(sensors, Grid) and sensors.ndim == ndim
    return ((0.0, 1.0),) * ndim if domain is None and not on_grid else domain


def _spelled(activation: str) -> str:
    """An activation by our name: theirs differ in capitals, and two altogether."""
    word = activation.lower() if isinstance(activation, str) else activation
    return _SPELLINGS.get(word, word)


def _channels_first(weight: np.ndarray, channels: int) -> np.ndarray:
    """The columns of a first layer in the order of a field that was flattened with the channels first."""
    if weight.shape[1] % channels:
        return weight  # told from its shape
    return weight.reshape(len(weight), -1, channels).transpose(0, 2, 1).reshape(weight.shape)
