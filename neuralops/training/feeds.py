"""What `fit` and `evaluate` read: arrays that stay on the device, or a source that is read ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.data.samples import Samples, check_finite, check_samples

READ_AHEAD = 2  # feeds of a source held ready
GROUP = 8  # batches of a source in one feed: several steps per call are much cheaper than one (see steps.py)


class Feed(NamedTuple):
    """Samples on the device, and what to do with them.

    Step `i < steps` trains on the samples `rows[i]`, of which the first `counts[i]` count: a last, smaller batch
    and a last, smaller feed are filled up, so that all have one shape.
    """

    inputs: jax.Array
    outputs: jax.Array
    rows: np.ndarray  # (steps or more, batch)
    counts: np.ndarray  # (steps or more,)
    steps: int


def _batches(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    steps = -(-len(order) // batch_size)
    counts = np.full(steps, batch_size, np.int32)
    counts[-1] = len(order) - (steps - 1) * batch_size
    return np.resize(order, (steps, batch_size)).astype(np.int32), counts  # filled up from the front


def _truth(dtype: Any) -> Any:
    """The precision of the targets: never less than single, or a half-precision operator would blur the truth."""
    return None if dtype is None else jnp.promote_types(dtype, jnp.float32)


class ArrayData:
    """Samples in memory, moved to the device once."""

    def __init__(self, samples: Samples, dtype: Any) -> None:
        self.inputs = jnp.asarray(samples.inputs, dtype)
        self.outputs = jnp.asarray(samples.outputs, _truth(dtype))
        self.num_samples, self.dtypes = len(self.inputs), (self.inputs.dtype, self.outputs.dtype)
        self.shapes = self.inputs.shape[1:], self.outputs.shape[1:]

    def feeds(self, order: np.ndarray, batch_size: int) -> Iterator[Feed]:
        """The samples in this order, all steps at once."""
        rows, counts = _batches(order, batch_size)
        yield Feed(self.inputs, self.outputs, rows, counts, len(rows))


class SourceData:
    """A source with `len` and integer indexing, each item `{"inputs": (channels, *grid), "outputs": ...}`."""

    def __init__(self, source: Any, dtype: Any, name: str) -> None:
        self.source, self.name = source, name
        self.num_samples = len(source)
        if self.num_samples < 1:
            raise ValueError(f"{name}: expected at least one sample, got an empty source; generate some.")
        item = self._item(0)
        check_samples(tuple(x[None] for x in item), name)
        self.shapes = item[0].shape, item[1].shape
        wanted = (x.dtype if word is None else word for x, word in zip(item, (dtype, _truth(dtype)), strict=True))
        self.dtypes = tuple(jax.dtypes.canonicalize_dtype(word) for word in wanted)

    def _item(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        item = self.source[index]
        try:
            return np.asarray(item["inputs"]), np.asarray(item["outputs"])
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{self.name}: expected items with 'inputs' and 'outputs', got {type(item).__name__} at {index}; "
                "give a source such as data.open(path), or arrays."
            ) from error

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items = [self._item(int(row)) for row in rows]
        for row, item in zip(rows, items, strict=True):
            for field, x, shape in zip(("inputs", "outputs"), item, self.shapes, strict=True):
                if x.shape != shape:
                    raise ValueError(
                        f"{self.name}: expected {field} of shape {shape} as in sample 0, got {x.shape} in {row}; "
                        "keep one grid in one source."
                    )
                check_finite(x[None], f"{self.name}[{row}].{field}")
        inputs, outputs = zip(*items, strict=True)
        return np.stack(inputs).astype(self.dtypes[0]), np.stack(outputs).astype(self.dtypes[1])

    def feeds(self, order: np.ndarray, batch_size: int) -> Iterator[Feed]:
        """The samples in this order, some batches at a time; a thread reads ahead while the device computes."""
        size = min(GROUP, -(-len(order) // batch_size)) * batch_size
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        for part, (inputs, outputs) in zip(parts, read_ahead(self._read(part) for part in parts), strict=True):
            rows, counts = _batches(np.arange(len(part)), batch_size)
            steps, filled = len(rows), np.resize(np.arange(len(part)), size)
            rows, counts = np.resize(rows, (size // batch_size, batch_size)), np.resize(counts, size // batch_size)
            yield Feed(jnp.asarray(inputs[filled]), jnp.asarray(outputs[filled]), rows, counts, steps)


def as_data(data: Any, dtype: Any, name: str) -> ArrayData | SourceData:
    """Arrays or a source, checked.

    **Raises:** `ValueError` on anything else, and on shapes, dtypes, counts or values that `check_samples` refuses.
    """
    if isinstance(data, dict) and {"inputs", "outputs"} <= set(data):
        data = Samples(data["inputs"], data["outputs"])
    is_source = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    if is_source and not isinstance(data, tuple | list | dict | str) and not hasattr(data, "dtype"):
        return SourceData(data, dtype, name)
    return ArrayData(check_samples(data, name), dtype)


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
