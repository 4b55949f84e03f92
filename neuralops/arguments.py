"""Plain values from whatever a caller has: counts, numbers, truth values and paths, checked once and in the same words.

NumPy and JAX hand out scalars of their own (`loss < best`, `x.shape[0] // n`), which are as good as Python's here.
"""

from __future__ import annotations

import math
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


def check_number(
    value: Any,
    name: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    hint: str = "give a number in range.",
) -> float:
    """A finite number inside its bounds, from a number of Python or a real scalar of NumPy or JAX.

    **Raises:** `ValueError` on anything else, truth values and traced values included.
    """
    number = _scalar(value)
    real = isinstance(number, int | float | np.integer | np.floating) and not isinstance(number, bool)
    if not (real and math.isfinite(number) and number > above and number >= at_least):
        bound = f" > {above:g}" if above > -math.inf else f" >= {at_least:g}" if at_least > -math.inf else ""
        raise ValueError(f"{name}: expected a finite number{bound}, got {value!r}; {hint}")
    return float(number)


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

    **Raises:** `ValueError` when it is none, empty, holds a NUL character, or `~` names nobody's home.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else value
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected a path, got {type(value).__name__}; give the file's name.")
    if not text or "\0" in text:
        raise ValueError(f"{name}: expected a path, got {text!r}; give a name, without NUL characters.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: expected a home folder for {text!r}, got none; write the path out.") from error


def existing_file(value: Any, name: str = "path", mend: str = "check the name") -> Path:
    """The path of a file that is there and may be read.

    **Raises:** `ValueError` when it is no path or a folder; `FileNotFoundError`; `PermissionError`; `OSError` when the
    system cannot look it up.
    """
    path = as_path(value, name)
    if _is_folder(path, name):
        raise ValueError(f"{name}: expected a file, got the folder {str(value)!r}; name a file in it.")
    if not path.is_file():
        raise FileNotFoundError(f"{name}: expected a file, got {str(value)!r}, which is not there; {mend}.")
    if not os.access(path, os.R_OK):
        raise PermissionError(
            f"{name}: expected a file that may be read, got {str(value)!r}; change its permissions, or copy it."
        )
    return path


def file_to_write(value: Any, name: str = "path") -> Path:
    """The path of a file that can be written, there already or not; makes nothing.

    **Raises:** `ValueError` when it is no path, a folder, or lies in what is a file; `PermissionError` when its folder
    does not let anything be written; `OSError` when the system cannot look it up.
    """
    path = as_path(value, name)
    if _is_folder(path, name) or os.fspath(value).endswith(("/", os.sep)):
        raise ValueError(f"{name}: expected the name of a file, got the folder {str(value)!r}; add a file name.")
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir():
        raise ValueError(
            f"{name}: expected a path in a folder, got {str(value)!r}, but {str(folder)!r} is a file; name another."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{name}: expected a folder that may be written, got {str(value)!r} in {str(folder)!r}; change its "
            "permissions, or give another path."
        )
    return path


def _is_folder(path: Path, name: str) -> bool:
    try:
        path.lstat()
        return path.is_dir()
    except (FileNotFoundError, NotADirectoryError):  # the latter: something above it is a file
        return False
    except OSError as error:  # too long a name, a folder on the way that may not be entered, links in a circle
        raise OSError(
            error.errno, f"{name}: expected a path, got {str(path)!r} ({error.strerror}); give another one"
        ) from error


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
