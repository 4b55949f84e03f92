"""Data of other libraries under the names that this one uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralops.data.samples import FIELDS, Samples


class Selected:
    """A source whose items are `Samples`, made of those of another source by name."""

    def __init__(self, source: Any, names: dict[str, Any], extras: dict[str, Any]) -> None:
        self.source, self.names, self.extras = source, names, extras

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Any) -> Samples:
        return _named(self.source[index], self.names, self.extras, f"data[{index}]")


def select(
    data: Any, *, inputs: Any, outputs: Any = None, extras: Mapping[str, Any] | None = None, **fields: Any
) -> Samples | Selected:
    """Says which of the arrays of a mapping, or of the items of a source, are inputs and outputs.

    ```python
    samples = no.data.select(np.load("flow.npz"), inputs="coeff", outputs="sol")
    source = no.data.select(torch_dataset, inputs=0, outputs=1)
    ```

    **Arguments:**

    - `data`: a mapping from names to arrays with the samples first, or a tuple of such arrays; or a source with `len`
      and integer indexing whose items are mappings or tuples.
    - `inputs`, `outputs`: a name, or a number for tuples.
    - `extras`: names of further arrays, such as `{"viscosity": "nu"}`.
    - `fields`: names of other fields of `Samples`, such as `coords="points"`.

    **Returns:** `Samples`, or a source that reads lazily.

    **Raises:** `ValueError` on fields that `Samples` has not, and on names that are not there.
    """
    names = {"inputs": inputs, "outputs": outputs, **fields}
    if isinstance(data, str) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise ValueError(
            f"data: expected a mapping from names to arrays or a source of items, got {type(data).__name__}; give e.g. "
            "np.load(path)."
        )
    unknown = sorted(set(names) - set(FIELDS))
    if unknown:
        raise ValueError(f"fields: expected fields of Samples, {FIELDS}, got {unknown}; use these names.")
    names = {field: name for field, name in names.items() if name is not None}
    further = dict(extras or {})
    if isinstance(data, Mapping | tuple):
        return _named(data, names, further, "data")
    return Selected(data, names, further)


def _named(item: Any, names: dict[str, Any], extras: dict[str, Any], where: str) -> Samples:
    def get(field: str, name: Any) -> Any:
        try:
            return item[name]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            there = sorted(map(str, item)) if isinstance(item, Mapping) else type(item).__name__
            there = f"a tuple of {len(item)}" if isinstance(item, tuple) else there
            raise ValueError(f"{field}: expected {name!r} in {where}, which is {there}; name what is there.") from error

    values = {field: get(field, name) for field, name in names.items()}
    return Samples(**values, extras={field: get(f"extras[{field!r}]", name) for field, name in extras.items()})
