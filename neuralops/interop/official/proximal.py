"""Learned proximal networks of the authors, github.com/ZhenghanFang/learned-proximal-networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralops.interop.official.arrays import (
    Parts,
    as_arrays,
    as_is,
    filled,
    numbered,
    require,
    shape_of,
    sizes,
    skeleton_of,
)
from neuralops.interop.official.latent_spectral import taps_first
from neuralops.models.lpn import LPN
from neuralops.nn.convex import ConvexDense
from neuralops.nn.convex_conv import ConvexConv


def lpn(arrays: Mapping[str, Any], *, beta: float | None = None, alpha: float | None = None, prefix: str = "") -> LPN:
    """The `LPN` of the authors: the toy network (`exps/laplacian`), `lpn_mnist` and `lpn_128`.

    Which one it is and its sizes come from the arrays. What is no array is told:

    **Arguments:**

    - `arrays`: by the names of the state dict, `lin.0.weight`, `res.0.weight`, `res.0.bias` and so on.
    - `beta`, `alpha`: sharpness of the softplus and strong convexity; by default theirs, 10 and 0 for the toy network,
      10 and 0.01 for `lpn_mnist`, 100 and 1e-6 for `lpn_128`.
    - `prefix`: takes the names that begin with it alone, such as `"module."`.

    Constrained weights that are negative (before their first `wclip`) are kept; `op.project()` clips them.

    **Returns:** the operator in the precision of the arrays, as far as JAX's setting allows.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    taken = as_arrays(arrays, prefix)
    require(taken, ("lin.0.weight", "lin.1.weight", "res.0.weight"))
    if len(shape_of(taken, "lin.0.weight", 2, 4)) == 2:
        return _toy(taken, 10.0 if beta is None else beta, 0.0 if alpha is None else alpha, prefix)
    dense = "lin.0.bias" not in taken
    beta = (10.0 if dense else 100.0) if beta is None else beta
    return _images(taken, dense, beta, (0.01 if dense else 1e-6) if alpha is None else alpha, prefix)


def _toy(taken: Mapping[str, np.ndarray], beta: float, alpha: float, prefix: str) -> LPN:
    width, size = sizes(taken, "lin.0.weight")
    last = len(numbered(taken, "lin")) - 1
    skeleton = skeleton_of(
        ConvexDense, max(size, 1), 1, max(width, 1), n_layers=max(last - 1, 1), beta=beta, alpha=alpha
    )
    parts: Parts = {"layers.0.skip": (("lin.0.weight",), np.transpose)}
    for k in range(1, last):
        parts[f"layers.{k}.main"] = (f"lin.{k}.weight",), np.transpose
        parts |= _skip(k, np.transpose)
    parts["readout"] = (f"lin.{last}.weight",), lambda w: w[0]
    parts["slope"] = (f"res.{last - 1}.weight",), lambda w: w[0]
    parts["constant"] = (f"res.{last - 1}.bias",), as_is
    return LPN(filled(skeleton, taken, parts, prefix))


def _images(taken: Mapping[str, np.ndarray], dense: bool, beta: float, alpha: float, prefix: str) -> LPN:
    """`lpn_mnist`, whose last but one layer is dense, and `lpn_128`, where that is a convolution without padding."""
    width, inputs = shape_of(taken, "lin.0.weight", 4)[:2]
    last = len(numbered(taken, "lin")) - 1
    wide, skip, end = f"lin.{last - 1}.weight", f"res.{last - 2}.weight", f"lin.{last}.weight"
    require(taken, (wide, skip, end))
    if dense:
        outputs, numbers = sizes(taken, wide)
        window = max(round((numbers / max(width, 1)) ** 0.5), 1)
        taps: Any = lambda w: _dense_taps(w, window)
    else:
        outputs, _, window, _ = shape_of(taken, wide, 4)
        taps = taps_first
    # Every second convolution keeps the grid, the first of them does not.
    strides = [2 if k % 2 == 0 else 1 for k in range(max(last - 2, 0))]
    skeleton = skeleton_of(
        ConvexConv,
        inputs,
        width,
        boundary="dirichlet",
        strides=strides,
        window=window,
        readout_channels=outputs,
        use_bias=not dense,
        beta=beta,
        alpha=alpha,
    )
    parts: Parts = {"layers.0.skip": (("lin.0.weight",), taps_first)}
    for k in range(1, last - 1):
        parts[f"layers.{k}.main"] = (f"lin.{k}.weight",), taps_first
        parts |= _skip(k, taps_first)
    parts[f"layers.{last - 1}.main"] = (wide,), taps
    parts |= _skip(last - 1, taps)
    parts["readout"] = (end,), lambda w: w[0]
    if not dense:
        parts["layers.0.bias"] = ("lin.0.bias",), as_is
        parts["constant"] = (f"lin.{last}.bias",), as_is
    return LPN(filled(skeleton, taken, parts, prefix))


def _skip(k: int, form: Any) -> Parts:
    return {
        f"layers.{k}.skip": ((f"res.{k - 1}.weight",), form),
        f"layers.{k}.bias": ((f"res.{k - 1}.bias",), as_is),
    }


def _dense_taps(weight: np.ndarray, window: int) -> np.ndarray:
    """Columns for a flattened image, channels first, as the taps of a kernel."""
    return taps_first(weight.reshape(len(weight), -1, window, window))
