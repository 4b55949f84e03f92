"""Libraries that come with an extra, imported when they are first used, so that `import neuralops` needs none."""

from __future__ import annotations

import importlib
from typing import Any

DISTRIBUTIONS = {"pywt": "PyWavelets", "skfem": "scikit-fem", "skimage": "scikit-image", "sklearn": "scikit-learn"}


def require(name: str, purpose: str, extra: str = "inverse") -> Any:
    """A module of an extra.

    **Raises:** `ImportError` naming the extra when it is missing.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise ImportError(
            f"{purpose} needs {DISTRIBUTIONS.get(library, library)}; install it with "
            f"`pip install neuralops-jax[{extra}]`."
        ) from error
