"""Data of other libraries under the names that this one uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralops.data.samples import FIELDS, Samples


class Selected:
    """A source whose items are `Samples`, made of those of another source by name."""

    def __init__(self, source: Any, names: dict[str, Any]) -> None:
        self.source, self.names = source, names

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Samples:
        return _named(self.source[index], self.names, f"data[{index}]")


def select(data: Any, *, inputs: Any, outputs: Any = None, **fields: Any) -> Samples | Selected:
    """Says which of the arrays of a mapping, or of the items of a source, are inputs and outputs.

    ```python
    samples = no.data.select(np.load("flow.npz"), inputs="coeff", outputs="sol")
    source = no.data.select(torch_dataset, inputs=0, outputs=1)
    ```

    **Arguments:**

    - `data`: a mapping from names to arrays with the samples first, or a source with `len` and integer indexing whose
      items are mappings or tuples.
    - `inputs`, `outputs`: a name, or a number for tuples.
    - `fields`: names of other fields of `Samples`, such as `coords="points"`.

    **Returns:** `Samples`, or a source that reads lazily.

    **Raises:** `ValueError` on fields that `Samples` has not, and on names that are not there.
    """
    names = {"inputs": inputs, "outputs": outputs, **fields}
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise ValueError(f"fields: expected fields of Samples, {FIELDS}, got {unknown}; use these names.")
    names = {field: name for field, name in names.items() if name is not None}
    return _named(data, names, "data") if isinstance(data, Mapping) else Selected(data, names)


def _named(item: Any, names: dict[str, Any], where: str) -> Samples:
    values = {}
    for field, name in names.items():
        try:
            values[field] = item[name]
        except (KeyError, IndexError, TypeError) as error:
            there = sorted(map(str, item)) if isinstance(item, Mapping) else type(item).__name__
            raise ValueError(f"{field}: expected {name!r} in {where}, which is {there}; name what is there.") from error
    return Samples(**values)
