"""What `fit` and `evaluate` read: arrays that stay on the device, or a source that is read ahead in a thread."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from neuralops.data.samples import Samples, as_samples, check_samples, sample_leaves

READ_AHEAD = 2  # feeds of a source held ready
GROUP = 8  # batches of a source in one feed: several steps per call are much cheaper than one (see steps.py)


class Feed(NamedTuple):
    """Samples on the device, and in which batches to take them: step `i < steps` takes `rows[i]`.

    `rows` may have more rows than steps, so that feeds have one shape; all in one are batches of the same size.
    """

    data: Any
    rows: np.ndarray  # (steps or more, batch)
    steps: int


class Loaded:
    """How arrays reach the device: precision, and where they lie.

    **Arguments:** `dtype`, that of the operator, `None` to keep what comes; `mesh`, over whose first axis batches are
    divided. Arrays are kept whole on every device of it, so that drawing a batch needs no communication.
    """

    def __init__(self, dtype: Any, mesh: Any = None) -> None:
        self.dtype, self.mesh = dtype, mesh
        self.place = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    def dtype_of(self, name: str, x: Any) -> Any:
        """The precision of the targets is never less than single, or a half-precision operator would blur the truth."""
        if self.dtype is None or not jnp.issubdtype(x.dtype, jnp.floating):
            return jax.dtypes.canonicalize_dtype(x.dtype)
        wanted = self.dtype if name in ("inputs", "coords", "query") else jnp.promote_types(self.dtype, jnp.float32)
        return jax.dtypes.canonicalize_dtype(wanted)

    def cast(self, data: Any) -> Any:
        """Arrays of the host in the precision that they have on the device."""
        return _with_names(
            lambda name, x: x if x.dtype == self.dtype_of(name, x) else x.astype(self.dtype_of(name, x)), data
        )

    def put(self, data: Any) -> Any:
        """Arrays on the device."""
        if self.place is not None:
            return jax.device_put(self.cast(data), self.place)
        return _with_names(lambda name, x: jnp.asarray(x, self.dtype_of(name, x)), data)


def _with_names(function: Any, data: Any) -> Any:
    """Each array through `function(field, array)`; the field is empty where there are no `Samples`."""

    def one(path: Any, x: Any) -> Any:
        name = getattr(path[0], "name", "") if path and isinstance(data, Samples) else ""
        return function(name, x)

    return jax.tree_util.tree_map_with_path(one, data)


def _rows(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """The order cut into batches: the whole ones `(steps, batch)`, then the smaller rest `(1, rest)`."""
    whole = len(order) - len(order) % batch_size
    for part, size in ((order[:whole], batch_size), (order[whole:], len(order) - whole)):
        if len(part):
            yield part.reshape(-1, size).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ArrayData:
    """Samples in memory, moved to the device once."""

    data: Any
    num_samples: int
    loaded: Loaded

    @classmethod
    def of(cls, data: Any, loaded: Loaded) -> ArrayData:
        return cls(loaded.put(data), len(sample_leaves(data)[0]), loaded)

    def like(self, size: int) -> Any:
        """Shapes and dtypes of a batch."""
        return _like(self.data, size)

    def feeds(self, order: np.ndarray, batch_size: int) -> Iterator[Feed]:
        """The samples in this order, all whole batches at once, then the rest."""
        for rows in _rows(order, batch_size):
            yield Feed(self.data, rows, len(rows))


class SourceData:
    """A source with `len` and integer indexing; its items are `Samples`, pairs or mappings of one sample."""

    def __init__(self, source: Any, loaded: Loaded, name: str, labels: bool = True, counted: Any = None) -> None:
        self.source, self.loaded, self.name, self.labels, self.counted = source, loaded, name, labels, counted
        self.num_samples = len(source)
        if self.num_samples < 1:
            raise ValueError(f"{name}: expected at least one sample, got an empty source; generate some.")
        first = self._item(0)
        structure: Any = jax.tree.structure(first)
        self._first, self._structure = _like(first, None), structure
        self._batch(np.zeros(1, int), [first])

    def _item(self, index: int) -> Any:
        item = self.source[index]
        ours = isinstance(item, Samples | tuple | list) or (isinstance(item, Mapping) and {"inputs", "x"} & set(item))
        if self.labels or ours:
            item = as_samples(item, f"{self.name}[{index}]")
        return jax.tree.map(np.asarray, item)

    def _batch(self, rows: np.ndarray, items: list[Any]) -> Any:
        """The items as one batch, checked."""
        for row, item in zip(rows, items, strict=True):
            if jax.tree.structure(item) != self._structure:
                raise ValueError(
                    f"{self.name}: expected the fields of sample 0 in all, got others in {row}; keep one form."
                )
            for (path, x), like in zip(
                jax.tree_util.tree_leaves_with_path(item), jax.tree.leaves(self._first), strict=True
            ):
                if x.shape != like.shape:
                    raise ValueError(
                        f"{self.name}: expected {jax.tree_util.keystr(path).strip('.')} of shape {like.shape} as in "
                        f"sample 0, got {x.shape} in {row}; keep one grid in one source."
                    )
        if not isinstance(items[0], Samples):
            return jax.tree.map(lambda *x: np.stack(x), *items)
        batch = _stacked(items)
        try:
            return check_samples(batch, self.name, labels=self.labels, counted=self.counted)
        except ValueError:
            for row, item in zip(rows, items, strict=True):  # which one it was
                check_samples(_stacked([item]), f"{self.name}[{row}]", labels=self.labels, counted=self.counted)
            raise

    def _read(self, rows: np.ndarray) -> Any:
        return self.loaded.cast(self._batch(rows, [self._item(int(row)) for row in rows]))

    def like(self, size: int) -> Any:
        """Shapes and dtypes of a batch."""
        batch = self._batch(np.zeros(1, int), [self._item(0)])
        return _like(self.loaded.cast(batch), size)

    def feeds(self, order: np.ndarray, batch_size: int) -> Iterator[Feed]:
        """The samples in this order, some batches at a time; a thread reads ahead while the device computes."""
        parts = []
        for rows in _rows(order, batch_size):
            group = min(GROUP, len(rows))
            parts += [(rows[start : start + group], group) for start in range(0, len(rows), group)]
        for (part, group), data in zip(parts, read_ahead(self._read(rows.ravel()) for rows, _ in parts), strict=True):
            # A last, shorter group is filled up in rows that no step takes, so that the program has one shape.
            steps, rows = len(part), np.arange(part.size, dtype=np.int32).reshape(part.shape)
            if steps < group:
                filled = np.resize(np.arange(part.size), group * part.shape[1])
                data = _fill(data, filled)
                rows = np.resize(rows, (group, part.shape[1]))
            yield Feed(self.loaded.put(data), rows, steps)


def _stacked(items: list[Samples]) -> Samples:
    """Single samples as a batch; what they share is taken from the first."""
    batch = jax.tree.map(lambda *x: np.stack(x), *(item.map(lambda x: x, lambda x: None) for item in items))
    return batch.replace(**{name: getattr(items[0], name) for name in batch.shared}, shared=batch.shared)


def _fill(data: Any, rows: np.ndarray) -> Any:
    return data[rows] if isinstance(data, Samples) else jax.tree.map(lambda x: x[rows], data)


def _like(data: Any, size: int | None) -> Any:
    """Shapes and dtypes, with `size` samples; of one sample as it is when `None`."""

    def part(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape if size is None else (size, *x.shape[1:]), x.dtype)

    def whole(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    return data.map(part, whole) if isinstance(data, Samples) else jax.tree.map(part, data)


def as_data(
    data: Any, loaded: Loaded, name: str, *, labels: bool = True, counted: Any = None
) -> ArrayData | SourceData:
    """Arrays or a source, checked.

    **Arguments:** `labels`, whether there must be outputs; without, any pytree of arrays with the samples first will
    do. `counted`, where outputs must be finite, as in `check_samples`.

    **Raises:** `ValueError` on anything else, and on what `check_samples` refuses.
    """
    for leaf in jax.tree.leaves(data):
        if loaded.mesh is None and isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
            raise ValueError(
                f"{name}: expected arrays on one device, got one that is spread over {len(leaf.sharding.device_set)}; "
                "give mesh=, over which batches are divided, or gather it with np.asarray."
            )
    listed = isinstance(data, list) and bool(data) and isinstance(data[0], Samples | tuple | Mapping)  # a source
    if (isinstance(data, Samples | tuple | list) and not listed) or (
        isinstance(data, Mapping) and (labels or {"inputs", "x"} & set(data))
    ):
        return ArrayData.of(check_samples(data, name, labels=labels, counted=counted), loaded)
    is_source = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, Mapping | str)
    if is_source and not hasattr(data, "dtype"):
        return SourceData(data, loaded, name, labels, counted)
    leaves = jax.tree.leaves(data)
    if labels or not leaves or not all(getattr(x, "ndim", 0) for x in leaves) or len({len(x) for x in leaves}) > 1:
        kind = "Samples or a pair (inputs, outputs)" if labels else "arrays with one common number of samples first"
        raise ValueError(
            f"{name}: expected {kind}, got {type(data).__name__} with shapes "
            f"{[tuple(getattr(x, 'shape', ())) for x in leaves][:4]}; use data.Samples(inputs, outputs)."
        )
    return ArrayData.of(data, loaded)


def read_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, drawn by a thread that stays `READ_AHEAD` items in front.

    An error in the thread is raised here; leaving the loop early stops the thread.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(READ_AHEAD)
    stop = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stop.is_set():
            try:
                ready.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # handed over, whatever it is, so that the reader does not wait for ever
            put((False, error))

    thread = threading.Thread(target=work, daemon=True, name="neuralops-read-ahead")
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stop.set()
        thread.join()
