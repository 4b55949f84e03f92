"""Batches of arrays held in memory, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from neuralops.arguments import count
from neuralops.data.samples import sample_leaves, take


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
        leaves = sample_leaves(arrays)
        shapes = [tuple(getattr(x, "shape", ())) for x in leaves]
        if not leaves or any(len(shape) < 1 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
            raise ValueError(
                f"arrays: expected arrays with one common number of samples on the first axis, got shapes {shapes}; "
                "pair each input with its output."
            )
        batch_size = count(batch_size, "batch_size", hint="give a count such as 16.")
        if drop_last and batch_size > shapes[0][0]:
            raise ValueError(
                f"batch_size: expected at most the {shapes[0][0]} samples there are, got {batch_size}; "
                "take a smaller batch or drop_last=False."
            )
        self.arrays, self.batch_size, self.key, self.drop_last = arrays, batch_size, key, drop_last
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
            yield take(self.arrays, index)
