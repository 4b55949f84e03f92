"""Plain values from whatever a caller has: counts, truth values and paths, checked once and in the same words.

NumPy and JAX hand out scalars of their own (`loss < best`, `x.shape[0] // n`), which are as good as Python's here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np


def count(value: Any, name: str, least: int = 1, most: int | None = None, hint: str = "") -> int:
    """An integer of at least `least`, from an `int` or an integer scalar of NumPy or JAX.

    **Raises:** `ValueError` on anything else, truth values and traced values included.
    """
    number = _scalar(value)
    wrong = isinstance(number, bool | np.bool_) or not isinstance(number, int | np.integer)
    if wrong or number < least or (most is not None and number > most):
        kind = {0: "zero or a positive integer", 1: "a positive integer"}.get(least, f"an integer of at least {least}")
        wanted = kind if most is None else f"an integer from {least} to {most}"
        raise ValueError(f"{name}: expected {wanted}, got {value!r}; {hint or f'give {least} or more.'}")
    return int(number)


def flag(value: Any, name: str) -> bool:
    """A truth value, from a `bool` or a truth scalar of NumPy or JAX.

    **Raises:** `ValueError` on anything else: `0`, `"no"` and `[]` are more often mistakes than answers.
    """
    truth = _scalar(value)
    if not isinstance(truth, bool | np.bool_):
        raise ValueError(f"{name}: expected True or False, got {value!r}; give one of them.")
    return bool(truth)


def _scalar(value: Any) -> Any:
    if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer) and value.shape == ():
        return np.asarray(value)[()]
    return value[()] if isinstance(value, np.ndarray) and value.shape == () else value


def as_path(value: Any, name: str = "path") -> Path:
    """A path with `~` resolved; environment variables are the shell's business.

    **Raises:** `ValueError` when it is none, or `~` names nobody's home.
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name}: expected a path, got {type(value).__name__}; give the file's name.")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: expected a home folder for {str(value)!r}, got none; write the path out.") from error


def check_plain(x: Any, name: str) -> None:
    """Refuses arrays that mean more than their numbers: masked, lazy, labelled, structured, dates, objects.

    Arrays of JAX pass at once, traced ones too; so does a masked array that masks nothing.

    **Raises:** `ValueError` naming what is lost and how to give it.
    """
    if isinstance(x, jax.Array):
        return
    if isinstance(x, np.ma.MaskedArray) and np.ma.getmaskarray(x).any():
        raise ValueError(
            f"{name}: expected a plain array, got a NumPy masked array, whose mask would be lost; give "
            f"{name}.filled(0) and mask=~{name}.mask."
        )
    library = type(x).__module__.partition(".")[0]
    if library in _MENDS:
        raise ValueError(f"{name}: expected a plain array, got {type(x).__name__} of {library}; {_MENDS[library]}.")
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind not in "fiubc" and "float" not in x.dtype.name:
        raise ValueError(
            f"{name}: expected real numbers, got dtype {x.dtype}; pick the field or convert it with astype."
        )


_MENDS = {
    "dask": "load it with x.compute()",
    "xarray": "take its numbers with x.values, channels and axes in our order",
    "pandas": "take its numbers with x.to_numpy()",
    "torch": "take its numbers with x.numpy()",
}


def native(x: Any) -> Any:
    """An array of NumPy in the byte order of this machine, whatever the file it came from; others as they are."""
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        return x.astype(x.dtype.newbyteorder("="))
    return x


def check_native(x: Any, name: str) -> None:
    """Refuses an array of NumPy in foreign byte order, which JAX cannot take.

    **Raises:** `ValueError` with the mend.
    """
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        raise ValueError(
            f"{name}: expected the byte order of this machine, got {x.dtype.str}; use "
            f"{name}.astype({name}.dtype.newbyteorder('='))."
        )
