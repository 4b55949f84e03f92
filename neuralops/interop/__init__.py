"""Meeting the ecosystem: operators of this library in other libraries, and theirs here.

Each room imports its library when it is first used, so that `import neuralops` stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["flax", "lineax", "official", "scipy"]


def grid_of(operator: Any) -> Any:
    """The grid an operator lives on, its own or that of the operator it was made from; `None` if it names none."""
    while operator is not None and getattr(operator, "grid", None) is None:
        operator = getattr(operator, "A", None)
    return None if operator is None else operator.grid


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
