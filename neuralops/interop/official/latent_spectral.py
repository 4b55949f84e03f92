"""Latent spectral models of the authors, github.com/thuml/Latent-Spectral-Models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from neuralops.interop.official.arrays import (
    Parts,
    as_arrays,
    as_is,
    filled,
    linear,
    require,
    shape_of,
    sizes,
    skeleton_of,
)
from neuralops.models.geo import GeoOperator
from neuralops.models.lsm import LSM, LatentUNet
from neuralops.nn.deformation import Deformation

LEVELS = 5
EPS = 1e-5  # of PyTorch's batch normalisation


def lsm(
    arrays: Mapping[str, Any],
    *,
    deformation: Mapping[str, Any] | None = None,
    latent_points: int | Sequence[int] = 96,
    patch_size: int | Sequence[int] | None = None,
    chunk_size: int | None = None,
    prefix: str = "",
    deformation_prefix: str = "",
) -> LSM | GeoOperator:
    """The latent spectral model of the authors: `LSM_2D` and `LSM_3D`, or `LSM_Irregular_Geo` with its `IPHI`.

    On grids it is an `LSM(norm="affine")`, on points a `GeoOperator(LatentUNet(norm="affine"), ...)` with
    `transform="published"`, called as `op(u, coords=x)` or `op(u, coords=x, code=rr)`. Batch normalisation becomes what
    it is at evaluation, a scale weight / sqrt(running_var + 1e-5) and a shift bias - running_mean scale. Sizes come
    from the arrays: channels, heads, tokens, basis functions, modes and numbers of the code. What is no array is told:

    **Arguments:**

    - `arrays`: by the names of the state dict, `fc0.weight`, `inc.double_conv.0.weight`, ..., `process5.latent`. The
      weights of the spectral convolutions may be complex or real pairs `(..., 2)`.
    - `deformation`: the state dict of the second network of a run on points; `None` leaves points where they are, as
      the published network does without `iphi=`.
    - `latent_points`: per axis of the latent grid of a network on points, their `s1` and `s2`; multiples of 16.
    - `patch_size`: points per axis of a patch where it is not their rule, one sixteenth of the padded grid. Zeros are
      added up to the next grid that fits, as in all of their configurations. They cut them off with a slice that is
      empty where some axes need none; here such a grid is taken as any other.
    - `chunk_size`: as in `GeoOperator`.
    - `prefix`: takes the names that begin with it alone, such as `"module."`; `deformation_prefix` those of the other.

    **Returns:** the operator in the precision of the arrays, as far as JAX's setting allows.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    taken = as_arrays(arrays, prefix, ignored=("num_batches_tracked",), complex_ends=("weights1", "weights2"))
    on_points = "fftproject_in.weights1" in taken
    first = "inc.double_conv.0.weight"
    require(taken, ("fc0.weight", "fc1.weight", "fc2.weight", first, "process1.latent", "process1.weights"))
    (width, numbers), out_channels = sizes(taken, "fc0.weight"), sizes(taken, "fc2.weight")[0]
    ndim = len(shape_of(taken, first, 4, 5)) - 2
    n_heads, n_tokens, _ = shape_of(taken, "process1.latent", 3)
    common: dict[str, Any] = {
        "ndim": ndim,
        "n_levels": LEVELS,
        "patch_size": patch_size,
        "n_heads": n_heads,
        "n_tokens": n_tokens,
        "n_basis": sizes(taken, "process1.weights")[1] // 2,
        "norm": "affine",
    }
    last: dict[str, Any] = {"projection_channels": sizes(taken, "fc1.weight")[0]}
    parts = linear("lifting", "fc0") | linear("projection.first", "fc1") | linear("projection.second", "fc2")
    if not on_points:
        if deformation is not None:
            raise ValueError(
                "deformation: expected None for a network on a grid, got one; leave it out, or give the arrays of an "
                "LSM_Irregular_Geo."
            )
        if numbers <= ndim:
            raise ValueError(
                f"arrays: fc0.weight should take values and {ndim} coordinates, got {numbers} numbers; give the state "
                "dict of an LSM_2D or LSM_3D."
            )
        skeleton = skeleton_of(LSM, numbers - ndim, out_channels, width, **common, **last)
        return filled(skeleton, taken, parts | _network("network"), prefix)

    modes = shape_of(taken, "fftproject_in.weights1", 5)[2:4]
    moving = None if deformation is None else _deformation(deformation, deformation_prefix)

    def build(deformation: Any, key: Array) -> GeoOperator:
        return GeoOperator(
            LatentUNet(width, **common, key=key),
            numbers,
            out_channels,
            n_modes=(2 * modes[0], 2 * modes[1] - 1),
            latent_points=latent_points,
            deformation=deformation,
            transform="published",
            chunk_size=chunk_size,
            **last,
            key=key,
        )

    parts |= _network("body") | _pointwise("grid_skip", "convproject_in") | _pointwise("point_skip", "convproject_out")
    for ours, theirs in (("encoder", "fftproject_in"), ("decoder", "fftproject_out")):
        parts[f"{ours}.weight.core"] = (f"{theirs}.weights1", f"{theirs}.weights2"), _signed
    given: dict[str, Any] = {} if moving is None else {"deformation": moving}
    return filled(skeleton_of(build, moving), taken, parts, prefix, **given)


def _deformation(arrays: Mapping[str, Any], prefix: str) -> Deformation:
    """Their `IPHI`: features of a point, and of a code where it has the layer for one."""
    argument = "deformation"
    taken = as_arrays(arrays, prefix, argument=argument)
    require(taken, ("fc0.weight", "fc4.weight"), argument)
    rows = {name: shape_of(taken, f"{name}.weight", 2, argument=argument)[0] for name in ("fc0", "fc4")}
    coded = any(name.startswith("fc_code.") for name in taken)
    numbers = None
    if coded:
        require(taken, ("fc_code.weight",), argument)
        numbers = shape_of(taken, "fc_code.weight", 2, argument=argument)[1]
    skeleton = skeleton_of(Deformation, rows["fc4"], width=rows["fc0"], code_channels=numbers)
    parts = linear("features", "fc0") | linear("without_code", "fc_no_code")
    if coded:
        parts |= linear("with_code", "fc_code")
    for i in range(len(skeleton.layers)):
        parts |= linear(f"layers.{i}", f"fc{i + 1}")
    return filled(skeleton, taken, parts, prefix, argument=argument)


def _network(ours: str) -> Parts:
    """A `LatentUNet`: theirs counts scales from one, and ways up from the coarsest."""
    parts = _pointwise(f"{ours}.last", "outc.conv")
    for k in range(LEVELS):
        parts |= _double_conv(f"{ours}.down.{k}", f"down{k}.maxpool_conv.1" if k else "inc")
        parts |= _block(f"{ours}.blocks.{k}", f"process{k + 1}")
    for k in range(LEVELS - 1):
        parts |= _double_conv(f"{ours}.up.{k}", f"up{LEVELS - 1 - k}.conv")
    return parts


def _double_conv(ours: str, theirs: str) -> Parts:
    """Convolutions with the axes of the grid first, normalisation folded."""
    parts: Parts = {}
    for i, (conv, norm) in enumerate(((0, 1), (3, 4))):
        stem = f"{theirs}.double_conv.{norm}"
        parts[f"{ours}.kernels.{i}"] = (f"{theirs}.double_conv.{conv}.weight",), taps_first
        scale = f"{stem}.weight", f"{stem}.running_var"
        parts[f"{ours}.norms.{i}.weight"] = scale, _scale
        parts[f"{ours}.norms.{i}.bias"] = (*scale, f"{stem}.running_mean", f"{stem}.bias"), _shift
    return parts


def _block(ours: str, theirs: str) -> Parts:
    """A neural spectral block. Keys and values take turns in the channels of one convolution."""
    parts = _pointwise(f"{ours}.queries", f"{theirs}.decoder_attn")
    for name, start in (("keys", 0), ("values", 1)):
        parts |= _pointwise(f"{ours}.{name}", f"{theirs}.encoder_attn", slice(start, None, 2))
    parts[f"{ours}.tokens"] = (f"{theirs}.latent",), as_is
    parts[f"{ours}.sine"] = (f"{theirs}.weights",), lambda w: np.split(w, 2, axis=1)[0]
    parts[f"{ours}.cosine"] = (f"{theirs}.weights",), lambda w: np.split(w, 2, axis=1)[1]
    return parts


def _pointwise(ours: str, theirs: str, rows: slice = slice(None)) -> Parts:
    """A convolution of one point, and of its outputs those rows."""
    return {
        f"{ours}.weight": ((f"{theirs}.weight",), lambda w: w[rows].squeeze(tuple(range(2, w.ndim)))),
        f"{ours}.bias": ((f"{theirs}.bias",), lambda b: b[rows]),
    }


def taps_first(w: np.ndarray) -> np.ndarray:
    """(out, in, *taps) as (*taps, in, out)."""
    return np.moveaxis(w, (1, 0), (-2, -1))


def _scale(weight: np.ndarray, variance: np.ndarray) -> np.ndarray:
    return (weight / np.sqrt(variance.astype(np.float64) + EPS)).astype(weight.dtype)


def _shift(weight: np.ndarray, variance: np.ndarray, mean: np.ndarray, bias: np.ndarray) -> np.ndarray:
    scale = weight / np.sqrt(variance.astype(np.float64) + EPS)
    return (bias - mean * scale).astype(bias.dtype)


def _signed(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Frequencies of the first axis in increasing order, the two parts of a number first."""
    return np.moveaxis(np.concatenate([negative, positive], axis=2), -1, 0)
