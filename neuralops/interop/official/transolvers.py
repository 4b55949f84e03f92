"""Transolvers of the authors, github.com/thuml/Transolver and github.com/thuml/Neural-Solver-Library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuralops.arguments import count, flag
from neuralops.interop.official.arrays import (
    Parts,
    as_arrays,
    as_is,
    filled,
    linear,
    numbered,
    require,
    shape_of,
    sizes,
    skeleton_of,
)
from neuralops.interop.official.latent_spectral import taps_first
from neuralops.models.transolver import Transolver


def transolver(
    arrays: Mapping[str, Any],
    *,
    space_dim: int | None = None,
    unified_pos: bool = False,
    ref: int = 8,
    activation: str = "gelu",
    placeholder: bool | None = None,
    prefix: str = "",
) -> Transolver:
    """The `Transolver` of the authors: `Transolver_Irregular_Mesh`, `Transolver_Structured_Mesh_2D` and `_3D`.

    Sizes come from the arrays: layers, channels, heads, slices, and whether there are kernels, which makes it one on
    grids (`structured`), or a network of the time (`time_input`). A network that takes places and no values
    (`fun_dim=0`) becomes one with `positional_embedding=None`, whose input channels are the coordinates. What is no
    array is told:

    **Arguments:**

    - `arrays`: by the names of the state dict, `preprocess.linear_pre.0.weight`, ..., `blocks.0.Attn.temperature`.
    - `space_dim`: coordinates of a point; by default 2 on points and those of the kernel on grids. Where it is another
      number on a grid, the coordinates are the first channels of the input.
    - `unified_pos`, `ref`: whether distances to `ref`^ndim points take the place of the coordinates.
    - `activation`: their word or ours.
    - `placeholder`: whether the learned vector is added to the points. As published it is not on grids with values, and
      is in all else, which is the default; the Neural-Solver-Library, whose arrays have the same names, always adds it.
    - `prefix`: takes the names that begin with it alone, such as `"module."`.

    **Returns:** the operator in the precision of the arrays, as far as JAX's setting allows.

    **Raises:** `ValueError` that lists unknown and missing names, and shapes that do not fit.
    """
    taken = as_arrays(arrays, prefix)
    first, attention = "preprocess.linear_pre.0.weight", "blocks.0.Attn"
    names = "temperature", "in_project_x.weight", "in_project_slice.weight"
    blocks = numbered(taken, "blocks", "{}.{}.ln_1.weight")
    n_layers = max(1, len(blocks))
    end = f"blocks.{n_layers - 1}.mlp2"
    require(taken, (first, "placeholder", *(f"{attention}.{name}" for name in names), f"{end}.weight"))
    require(taken, ("blocks.0.mlp.linear_pre.0.weight",))
    (width,), numbers = shape_of(taken, "placeholder", 1), sizes(taken, first)[1]
    taps = len(shape_of(taken, f"{attention}.in_project_x.weight", 2, 3, 4, 5)) - 2
    structured = taps > 0
    space_dim = count((taps or 2) if space_dim is None else space_dim, "space_dim")
    ndim = taps if structured else space_dim
    places = count(ref, "ref") ** ndim if flag(unified_pos, "unified_pos") else space_dim
    values = numbers - places
    if values < 0 or (values == 0 and unified_pos):
        what = f"{places} distances and at least one value" if unified_pos else f"{places} coordinates"
        raise ValueError(
            f"arrays: {first} should take {what}, got {numbers} numbers; check unified_pos=, ref= and space_dim=."
        )
    embedding: str | None = "reference" if unified_pos else "coordinates"
    if not unified_pos and (values == 0 or space_dim != ndim):
        embedding, places = None, 0
    mlp_width = sizes(taken, "blocks.0.mlp.linear_pre.0.weight")[0]
    skeleton = skeleton_of(
        Transolver,
        numbers - places,
        sizes(taken, f"{end}.weight")[0],
        width,
        ndim=ndim,
        structured=structured,
        n_layers=n_layers,
        n_heads=shape_of(taken, f"{attention}.temperature", 4)[1],
        n_slices=sizes(taken, f"{attention}.in_project_slice.weight")[0],
        mlp_ratio=mlp_width // width if mlp_width % width == 0 else mlp_width / width,
        positional_embedding=embedding,
        reference_points=ref,
        time_input=any(name.startswith("time_fc.") for name in taken),
        activation=activation.lower() if isinstance(activation, str) else activation,
    )
    added = not (structured and values) if placeholder is None else flag(placeholder, "placeholder")
    parts = linear("lifting.0", "preprocess.linear_pre.0") | linear("lifting.1", "preprocess.linear_post")
    parts |= {"placeholder": (("placeholder",), as_is if added else np.zeros_like)}
    if skeleton.time_input:
        parts |= linear("time_mlp.0", "time_fc.0") | linear("time_mlp.1", "time_fc.2")
    for i in range(n_layers):
        parts |= _block(f"blocks.{i}", f"blocks.{i}")
    parts |= linear("norm", f"blocks.{n_layers - 1}.ln_3") | linear("projection", end)
    return filled(skeleton, taken, parts, prefix)


def _block(ours: str, theirs: str) -> Parts:
    parts = linear(f"{ours}.norms.0", f"{theirs}.ln_1") | linear(f"{ours}.norms.1", f"{theirs}.ln_2")
    parts |= linear(f"{ours}.mlp.0", f"{theirs}.mlp.linear_pre.0") | linear(
        f"{ours}.mlp.1", f"{theirs}.mlp.linear_post"
    )
    ours, theirs = f"{ours}.attention", f"{theirs}.Attn"
    parts |= linear(f"{ours}.slices", f"{theirs}.in_project_slice") | linear(f"{ours}.joined", f"{theirs}.to_out.0")
    both = [f"{theirs}.in_project_fx", f"{theirs}.in_project_x"]  # what is averaged, and what tells the slices
    parts[f"{ours}.kernel"] = (
        tuple(f"{name}.weight" for name in both),
        lambda f, s: np.concatenate([taps_first(f), taps_first(s)], -1),
    )
    parts[f"{ours}.bias"] = tuple(f"{name}.bias" for name in both), lambda f, s: np.concatenate([f, s])
    parts[f"{ours}.temperature"] = (f"{theirs}.temperature",), lambda t: t.squeeze((0, 2, 3))
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v")):
        parts[f"{ours}.{name}"] = (f"{theirs}.to_{letter}.weight",), np.transpose
    return parts
