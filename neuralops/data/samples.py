"""Samples in memory: the pair of arrays that every tool takes, and batches of them in a random order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

_SHOWN = 3  # sample numbers named in a message


class Samples(NamedTuple):
    """Input functions and what the true solution operator makes of them, sample by sample.

    **Fields:**

    - `inputs`: `(samples, channels, *grid)`.
    - `outputs`: `(samples, channels_out, *grid_out)`.
    - `residual_norm`: `(samples,)`, the relative residual of each label in double precision, or `None` where
      nobody measured it.

    A `NamedTuple`, hence a pytree: `jax.tree.map(lambda x: x[:100], samples)` takes the first hundred.
    """

    inputs: Any
    outputs: Any
    residual_norm: Any = None


def check_finite(x: Any, name: str, offset: int = 0) -> None:
    """Refuses an array `(samples, ...)` that holds NaN or infinity.

    **Raises:** `ValueError` naming the first such samples, counted from `offset`.
    """
    x = np.asarray(x)
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
    if bad.size:
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {bad.size} of {len(x)} samples "
            f"(first: {', '.join(str(offset + i) for i in bad[:_SHOWN])}); leave these samples out or make them again."
        )


def check_samples(samples: Any, name: str = "samples") -> Samples:
    """Refuses anything but a pair of finite, floating arrays with the same number of samples.

    **Arguments:**

    - `samples`: `Samples`, or a pair `(inputs, outputs)` of arrays `(samples, channels, *grid)`.
    - `name`: the argument that a message names.

    **Returns:** `Samples`.

    **Raises:** `ValueError` on a wrong rank, dtype or count, on no samples, on NaN and infinity.
    """
    if not isinstance(samples, tuple | list) or len(samples) not in (2, 3):
        raise ValueError(
            f"{name}: expected Samples or a pair (inputs, outputs), got {type(samples).__name__}; "
            "use Samples(inputs, outputs)."
        )
    samples = Samples(*samples)
    for field, x in zip(("inputs", "outputs"), samples[:2], strict=True):
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is None or dtype is None or len(shape) < 3:
            got = type(x).__name__ if shape is None else f"shape {tuple(shape)}"
            raise ValueError(
                f"{name}.{field}: expected an array (samples, channels, *grid), got {got}; "
                "add the channel axis with x[:, None]."
            )
        if min(shape) < 1:
            raise ValueError(
                f"{name}.{field}: expected at least one sample, channel and point, got shape {tuple(shape)}; give data."
            )
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(f"{name}.{field}: expected a real floating dtype, got {dtype}; use x.astype('float32').")
        check_finite(x, f"{name}.{field}")
    counts = [len(x) for x in samples if x is not None]
    if len(set(counts)) != 1:
        raise ValueError(
            f"{name}: expected as many inputs as outputs, got {counts[:2]}; pair each input with its output."
        )
    return samples


class ArrayLoader:
    """Batches of arrays held in memory, in a random order fixed by a key.

    **Arguments:**

    - `arrays`: a pytree of arrays with the samples on the first axis: `Samples`, a pair, a dictionary.
    - `batch_size`: samples per batch.
    - `key`: the order; `None` keeps the order of the arrays.
    - `drop_last`: leaves out a last batch that would be smaller, so that `jax.jit` sees one shape.

    Iterating yields pytrees of the same structure. One pass is one epoch and every pass is the same; a new
    order comes from a new key:

    ```python
    for epoch in range(num_epochs):
        for batch in ArrayLoader(samples, 16, key=jax.random.fold_in(key, epoch)):
            ...
    ```

    **Raises:** `ValueError` when there are no arrays, their sample counts differ, or `batch_size` does not fit.
    """

    def __init__(self, arrays: Any, batch_size: int, key: jax.Array | None = None, drop_last: bool = True) -> None:
        leaves = jax.tree.leaves(arrays)
        shapes = [tuple(getattr(x, "shape", ())) for x in leaves]
        if not leaves or any(len(shape) < 1 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
            raise ValueError(
                f"arrays: expected arrays with one common number of samples on the first axis, got shapes {shapes}; "
                "pair each input with its output."
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"batch_size: expected a positive integer, got {batch_size!r}; give a count such as 16.")
        if drop_last and batch_size > shapes[0][0]:
            raise ValueError(
                f"batch_size: expected at most the {shapes[0][0]} samples there are, got {batch_size}; "
                "take a smaller batch or drop_last=False."
            )
        self.arrays, self.batch_size, self.key, self.drop_last = arrays, int(batch_size), key, drop_last
        self.num_samples = shapes[0][0]

    def __len__(self) -> int:
        """Batches in one pass."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(self.num_samples)
        if self.key is not None:
            order = np.asarray(jax.random.permutation(self.key, self.num_samples))
        for batch in range(len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield jax.tree.map(lambda x, index=index: x[index], self.arrays)
