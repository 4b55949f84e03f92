"""Samples in memory: input functions, what is known of their outputs, and where the points of both are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import check_plain, native

_SHOWN = 3  # sample numbers named in a message
FIELDS = ("inputs", "outputs", "residual_norm", "coords", "query", "mask", "query_mask")
POINTS = ("coords", "query", "mask", "query_mask")
NAMES = (("inputs", "outputs"), ("x", "y"))  # what mappings and items call the two, ours first


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Input functions and what the true solution operator makes of them, sample by sample.

    **Fields** (all but `inputs` may be `None`):

    - `inputs`: `(samples, channels, *points)`; several input functions are several channels. `*points` are the axes
      of a grid, or one axis of points. A trajectory is `(samples, time, channels, *grid)`, see `data.windows`.
    - `outputs`: `(samples, channels_out, *points_out)`.
    - `residual_norm`: `(samples,)`, the relative residual of each label in double precision.
    - `coords`: where the inputs are given, `(samples, ndim, *points)`, or `(ndim, *points)` for all samples.
    - `query`: where the outputs are given, `(samples, ndim, *points_out)` or `(ndim, *points_out)`; without it they
      lie on the points of the inputs.
    - `mask`: `(samples, *points)` or `(*points)`, true where a point of the inputs counts, and of the outputs on the
      same points. Ragged point clouds are padded (`data.pad`). What lies on other points is never looked at; it may
      be NaN.
    - `query_mask`: the same for the points of `query`.
    - `extras`: further arrays by name, samples first.
    - `shared`: the names of the fields that hold one array for all samples; found from ranks and shapes unless given.

    `len`, indexing, slicing and iteration are over samples, as for an array: `samples[:100]`, `samples[mask]`,
    `samples[[3, 1]]` are `Samples`; `samples[3]` is one sample, whose arrays have no sample axis. A pytree, so
    `jax.tree.map` and `jax.jit` take it; `jax.vmap` with `in_axes=(samples.axes,)`.
    """

    inputs: Any
    outputs: Any = None
    residual_norm: Any = None
    coords: Any = None
    query: Any = None
    mask: Any = None
    query_mask: Any = None
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shared: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "extras", dict(self.extras))
        shared = shared_fields(self) if self.shared is None else tuple(self.shared)
        object.__setattr__(self, "shared", shared)

    def tree_flatten_with_keys(self) -> Any:
        children = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in (*FIELDS, "extras")]
        return children, self.shared

    @classmethod
    def tree_unflatten(cls, shared: tuple[str, ...], children: Sequence[Any]) -> Samples:
        new = object.__new__(cls)
        for name, child in zip((*FIELDS, "extras", "shared"), (*children, shared), strict=True):
            object.__setattr__(new, name, child)
        return new

    def map(self, function: Any, shared: Any = None) -> Samples:
        """Each array through `function`; those that are one for all samples through `shared`, or left alone."""
        other = (lambda x: x) if shared is None else shared
        new = {name: getattr(self, name) for name in FIELDS}
        for name, x in new.items():
            if x is not None:
                new[name] = (other if name in self.shared else function)(x)
        return Samples(**new, extras={name: function(x) for name, x in self.extras.items()}, shared=self.shared)

    def replace(self, **changes: Any) -> Samples:
        """A copy with other fields."""
        kept = {} if {"coords", "query", "mask", "query_mask", "inputs", "outputs"} & set(changes) else {
            "shared": self.shared}  # fmt: skip
        new = {name: getattr(self, name) for name in (*FIELDS, "extras")}
        return Samples(**{**new, **kept, **changes})

    @property
    def axes(self) -> Samples:
        """Where the samples are in each array, for `in_axes` of `jax.vmap`."""
        return self.map(lambda x: 0, lambda x: None)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Samples:
        index = checked_index(index, len(self))
        return self.map(lambda x: x[index])

    def __iter__(self) -> Iterator[Samples]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in FIELDS} | dict(self.extras)
        shown = [f"{name}={getattr(x, 'dtype', '')}{list(np.shape(x))}" for name, x in given.items() if x is not None]
        return f"Samples({', '.join(shown)})"


def shared_fields(samples: Samples, lead: int | None = None) -> tuple[str, ...]:
    """The fields that hold one array for all samples, by their ranks.

    `lead` is the number of axes before the points of the inputs: 2, or 3 in trajectories. When it is not told, the
    shapes tell a trajectory whose points fit no plain sample.
    """
    inputs, shared = samples.inputs, []
    for name in POINTS:
        x, like = getattr(samples, name), inputs if name in ("coords", "mask") or lead == 3 else samples.outputs
        like = inputs if like is None else like
        if x is None:
            continue
        shape, whole = tuple(getattr(x, "shape", ())), tuple(getattr(like, "shape", ()))
        skip = 0 if name.endswith("mask") else 1
        plain = len(shape) - skip == len(whole) - (lead or 2)
        if plain and like is not samples.outputs and name.startswith("query") and lead is None and len(shape) > 1:
            plain = shape[0] != whole[0] or shape[0] == len(shape) - 1  # without outputs only the counts can tell
        if lead is None and len(whole) > 3 and len(shape) > skip:
            if plain and shape[skip:] != whole[2:] and (shape[0], *shape[1 + skip :]) == (whole[0], *whole[3:]):
                plain = False
            elif len(shape) - skip == len(whole) - 3 and shape[skip:] == whole[3:]:
                plain = True
        if plain:
            shared.append(name)
    return tuple(shared)


def checked_index(index: Any, size: int) -> Any:
    """An integer, a slice, or an array of sample numbers or truth values; a traced one as it is.

    **Raises:** `IndexError` outside of the samples, `ValueError` on anything else: JAX would clamp the first.
    """
    if isinstance(index, slice | jax.core.Tracer):
        return index
    wrong = isinstance(index, str | tuple) or index is None or index is Ellipsis
    if not wrong:
        given = np.asarray(index)
        given = given.astype(np.int64) if given.size == 0 and isinstance(index, Sequence) else given
        truth = given.dtype == np.bool_
        wrong = given.ndim > 1 or not (truth or np.issubdtype(given.dtype, np.integer)) or (truth and given.ndim == 0)
    if wrong:
        raise ValueError(
            f"index: expected sample numbers, a slice or truth values, got {index!r}; samples are indexed along "
            "their first axis only, other axes by their arrays (samples.inputs)."
        )
    if truth and len(given) != size:
        raise IndexError(f"index: expected {size} truth values, one a sample, got {len(given)}.")
    if not truth and given.size and not (-size <= given.min() and given.max() < size):
        raise IndexError(f"index: expected numbers of {size} samples, got {index}.")
    return int(given) if given.ndim == 0 else given


def target_mask(samples: Samples, batched: bool) -> Any:
    """Which points of the outputs count: those of the query, or of the inputs where outputs lie on the same."""
    if samples.query is not None or samples.query_mask is not None or samples.mask is None:
        return samples.query_mask
    first = 2 if batched else 1
    same = samples.outputs is not None and samples.outputs.shape[first:] == samples.inputs.shape[first:]
    return samples.mask if same else None


def pad(
    inputs: Sequence[Any], outputs: Sequence[Any] | None = None, *, coords: Sequence[Any] | None = None, **fields: Any
) -> Samples:
    """Point clouds of different sizes as `Samples`, padded with zeros and marked by `mask`.

    **Arguments:**

    - `inputs`: for each sample `(channels, points_i)`.
    - `outputs`: for each sample `(channels_out, points_i)`; or `(channels_out, queries_i)` with `query`.
    - `coords`: for each sample `(ndim, points_i)`.
    - `fields`: `query`, for each sample `(ndim, queries_i)`, which gives a `query_mask`; other fields of `Samples`.

    **Raises:** `ValueError` when counts do not agree.
    """
    taken = sorted({"mask", "query_mask", "shared"} & set(fields))
    if taken:
        raise ValueError(f"{taken[0]}: expected to be made here, from the sizes of the clouds, got one; leave it out.")
    query = fields.pop("query", None)
    parts = {"inputs": inputs, "outputs": outputs, "coords": coords, "query": query}
    for name, part in parts.items():
        for x in () if part is None else part:
            check_plain(x, name)
    arrays = {name: [np.asarray(x) for x in part] for name, part in parts.items() if part is not None}
    for name, part in arrays.items():
        beside = arrays["query"] if name == "outputs" and query is not None else part if name == "query" else None
        beside = arrays["inputs"] if beside is None else beside
        if len(part) != len(arrays["inputs"]) or not part:
            raise ValueError(
                f"{name}: expected one array for each of {len(arrays['inputs'])} samples, got {len(part)}; pair them."
            )
        for i, (x, like) in enumerate(zip(part, beside, strict=True)):
            first, points = (part[0].shape or (0,))[0], (like.shape or (0,))[-1]
            if x.ndim != 2 or x.shape[1] != points or x.shape[0] != first:
                lead = "channels" if i == 0 or part[0].ndim != 2 else first
                raise ValueError(
                    f"{name}: expected ({lead}, {points}) for sample {i}, got shape {x.shape}; points come last, as "
                    "many as the sample has, and all samples have the same channels."
                )
    padded: dict[str, Any] = {name: _padded(part) for name, part in arrays.items()}
    masks = {"mask": arrays["inputs"]} | ({} if query is None else {"query_mask": arrays["query"]})
    for name, part in masks.items():
        size = max(x.shape[1] for x in part)
        padded[name] = np.stack([np.arange(size) < x.shape[1] for x in part])
    return Samples(**padded, **fields)


def _padded(arrays: list[np.ndarray]) -> np.ndarray:
    size = max(x.shape[1] for x in arrays)
    return np.stack([np.pad(x, ((0, 0), (0, size - x.shape[1]))) for x in arrays])


def check_finite(x: Any, name: str, offset: int = 0, mask: Any = None) -> None:
    """Refuses an array `(samples, channels, ...)` that holds NaN or infinity where the mask `(samples, ...)` counts.

    **Raises:** `ValueError` naming the first such samples, counted from `offset`.
    """
    x = np.asarray(x)
    wrong = ~np.isfinite(x)
    if mask is not None and wrong.any():
        wrong &= np.asarray(mask)[:, None]
    bad = np.flatnonzero(wrong.reshape(len(x), -1).any(axis=1))
    if bad.size:
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {bad.size} of {len(x)} samples "
            f"(first: {', '.join(str(offset + i) for i in bad[:_SHOWN])}); leave these samples out or make them again."
        )


def as_samples(data: Any, name: str = "samples") -> Samples:
    """`Samples` of a pair, or of a mapping that calls its arrays `inputs`, `outputs` or `x`, `y`.

    Of a mapping the other fields of `Samples` are taken by their names, arrays under further names are left out.

    **Raises:** `ValueError` on anything else.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        return Samples(*data)
    if isinstance(data, Mapping):
        for first, second in NAMES:
            if first in data:
                known = {key: data[key] for key in (*FIELDS, "extras") if key in data and key not in (first, second)}
                return Samples(data[first], data.get(second), **known)
        raise ValueError(
            f"{name}: expected a mapping with 'inputs' and 'outputs' (or 'x' and 'y'), got {sorted(map(str, data))}; "
            "say which is which with data.select(mapping, inputs='...', outputs='...')."
        )
    raise ValueError(
        f"{name}: expected Samples or a pair (inputs, outputs), got {type(data).__name__}; "
        "use Samples(inputs, outputs)."
    )


def check_samples(samples: Any, name: str = "samples", *, counted: Any = None, labels: bool = True) -> Samples:
    """Refuses samples whose arrays do not fit each other.

    **Arguments:**

    - `samples`: `Samples`, a pair `(inputs, outputs)` of arrays `(samples, channels, *points)`, or a mapping.
    - `name`: the argument that a message names.
    - `counted`: truth values `(*points_out)` or `(channels, *points_out)`; outputs may hold NaN elsewhere.
    - `labels`: whether there must be outputs.

    **Returns:** `Samples`.

    **Raises:** `ValueError` on a wrong rank, dtype or count, on no samples, on NaN and infinity in points that count.
    """
    samples = as_samples(samples, name)
    for field in FIELDS:
        check_plain(getattr(samples, field), f"{name}.{field}")
    for field, x in samples.extras.items():
        check_plain(x, f"{name}.extras[{field!r}]")
    samples = samples.map(native, native)
    if samples.outputs is None and labels:
        raise ValueError(
            f"{name}.outputs: expected what the operator should make of the inputs, got None; give both, or train "
            "without labels by objective=losses.physics(problem)."
        )
    for field in ("inputs", "outputs"):
        x = getattr(samples, field)
        if x is None and field == "outputs":
            continue
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is None or dtype is None or len(shape) < 3:
            got = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
            mend = "stack the arrays with np.stack." if isinstance(x, list | tuple) else (
                "add the channel axis with x[:, None].")  # fmt: skip
            raise ValueError(f"{name}.{field}: expected an array (samples, channels, *grid), got {got}; {mend}")
        if min(shape) < 1:
            raise ValueError(
                f"{name}.{field}: expected at least one sample, channel and point, got shape {tuple(shape)}; give data."
            )
        if not jnp.issubdtype(dtype, np.floating):
            raise ValueError(f"{name}.{field}: expected a real floating dtype, got {dtype}; use x.astype('float32').")
    batched = {
        field: x for field in FIELDS if (x := getattr(samples, field)) is not None and field not in samples.shared
    }
    counts = {}
    for field, x in {**batched, **{f"extras[{key!r}]": x for key, x in samples.extras.items()}}.items():
        shape = getattr(x, "shape", None)
        if not shape or (field == "residual_norm" and len(shape) != 1):
            got = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
            raise ValueError(f"{name}.{field}: expected an array with the samples first, got {got}; give one a sample.")
        counts[field] = shape[0]
    if len(set(counts.values())) != 1:
        raise ValueError(
            f"{name}: expected as many inputs as outputs, got {list(counts.values())} of {list(counts)}; "
            "pair each input with its output."
        )
    _check_points(samples, name)
    check_finite(samples.inputs, f"{name}.inputs", mask=_each(samples, "mask"))
    if samples.outputs is not None:
        inside = _each(samples, "mask" if target_mask(samples, True) is samples.mask else "query_mask")
        outputs = samples.outputs if counted is None else np.where(counted, samples.outputs, 0)
        check_finite(outputs, f"{name}.outputs", mask=inside)
    return samples


def _each(samples: Samples, name: str) -> Any:
    """A mask with the sample axis in front, one for all samples too."""
    mask = getattr(samples, name)
    return mask if mask is None or name not in samples.shared else np.asarray(mask)[None]


def _check_points(samples: Samples, name: str) -> None:
    beside = {"coords": "inputs", "mask": "inputs", "query": "outputs", "query_mask": "outputs"}
    for field, of in beside.items():
        x, like = getattr(samples, field), getattr(samples, of)
        if x is None:
            continue
        shape = tuple(getattr(x, "shape", ()))
        is_mask = field.endswith("mask")
        if like is None:  # a query without outputs fits itself
            like = samples.inputs
            points = shape[(field not in samples.shared) + (not is_mask) :]
        else:
            points = like.shape[2:]
        lead = (() if field in samples.shared else (len(like),)) + (() if is_mask else (None,))
        wanted = (*lead, *points)
        if len(shape) != len(wanted) or any(w is not None and n != w for n, w in zip(shape, wanted, strict=True)):
            said = ", ".join("ndim" if w is None else str(w) for w in wanted)
            mend = "points come last, samples first unless it is one set for all."
            if field == "mask" and samples.query is not None:
                mend = "mask marks the points of the inputs, query_mask= those of the query."
            raise ValueError(f"{name}.{field}: expected shape ({said}) beside {of} {like.shape}, got {shape}; {mend}")
        dtype = getattr(x, "dtype", None)
        if is_mask and dtype != np.bool_:
            raise ValueError(f"{name}.{field}: expected truth values, got {dtype}; use mask.astype(bool).")
        if not is_mask:
            if dtype is None or not jnp.issubdtype(dtype, np.floating):
                raise ValueError(f"{name}.{field}: expected a real floating dtype, got {dtype}; use astype('float32').")
            mask = _each(samples, "mask" if field == "coords" else "query_mask")
            check_finite(x if field not in samples.shared else np.asarray(x)[None], f"{name}.{field}", mask=mask)
        else:
            empty = np.flatnonzero(~np.asarray(x).reshape(len(x) if field not in samples.shared else 1, -1).any(1))
            if empty.size:
                raise ValueError(
                    f"{name}.{field}: expected a point that counts in every sample, got none in sample {empty[0]}; "
                    "leave such samples out."
                )


def sample_leaves(tree: Any) -> list[Any]:
    """The arrays of a pytree that have a sample axis."""
    parts = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, Samples))
    return [x for part in parts for x in (
        jax.tree.leaves(part.map(lambda x: x, lambda x: None)) if isinstance(part, Samples) else [part])]  # fmt: skip


def take(tree: Any, rows: Any) -> Any:
    """The samples `rows` of a pytree of arrays, samples first; what `Samples` share is left alone."""

    def part(x: Any) -> Any:
        return x.at[rows].get(mode="promise_in_bounds") if isinstance(x, jax.Array) else x[rows]

    return jax.tree.map(
        lambda node: node.map(part) if isinstance(node, Samples) else part(node),
        tree,
        is_leaf=lambda node: isinstance(node, Samples),
    )
