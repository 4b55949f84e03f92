"""Priors of the code as maps of white noise: code = prior(w) with w ~ N(0, I).

Samplers and variational families then work on w, whose scales are all one and which has no walls.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfinv
from jaxtyping import Array, Float

from neuralops.arguments import count, flag

__all__ = ["AbstractPrior", "Gaussian", "Normal", "Uniform"]

EDGE = 1e-6  # how near to the walls of (-1, 1) a code is taken at its word: tanh rounds to them in float32


class AbstractPrior(eqx.Module):
    """A callable pytree from white noise `(size,)` to a code.

    Any other callable with a `size` will do where a prior is expected; `inverse` is needed only to start from a code.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """How many numbers of white noise it takes."""

    @abstractmethod
    def __call__(self, w: Float[Array, " size"]) -> Float[Array, " code"]:
        """The code of white noise."""

    @abstractmethod
    def inverse(self, code: Float[Array, " code"]) -> Float[Array, " size"]:
        """The white noise of a code; of a prior of lower rank, that of the nearest code it reaches."""

    def sample(self, key: Array) -> Float[Array, " code"]:
        """A draw of the code."""
        return self(jax.random.normal(key, (self.size,)))


class Normal(AbstractPrior):
    """N(0, I) in d numbers, the law a variational encoder is trained towards."""

    numbers: int = eqx.field(static=True)

    def __init__(self, numbers: int) -> None:
        self.numbers = count(numbers, "numbers")

    @property
    def size(self) -> int:
        return self.numbers

    def __call__(self, w: Array) -> Array:
        return w

    def inverse(self, code: Array) -> Array:
        return code


class Uniform(AbstractPrior):
    """Uniform on the box (-1, 1)^d of a tanh code, with code = erf(w / sqrt 2).

    It knows only the walls: most codes of the box are none that training has met, so that a posterior of few data under
    it wanders where the decoders were never fitted. A prior fitted to encoded inputs is the better one.
    """

    numbers: int = eqx.field(static=True)

    def __init__(self, numbers: int) -> None:
        self.numbers = count(numbers, "numbers")

    @property
    def size(self) -> int:
        return self.numbers

    def __call__(self, w: Array) -> Array:
        return erf(w / math.sqrt(2))

    def inverse(self, code: Array) -> Array:
        return math.sqrt(2) * erfinv(jnp.clip(code, EDGE - 1, 1 - EDGE))


class Gaussian(AbstractPrior):
    """mean + factor w, with tanh after it when the code is bounded.

    `Gaussian.fit(codes)` takes both from the codes of training inputs.

    **Arguments:**

    - `mean`: `(d,)`.
    - `factor`: `(d, rank)`; the covariance is factor factor^T.
    - `bounded`: whether the code is the tanh of this.
    - `share`: which part of the variance of the codes the factor holds, as `fit` found.
    """

    mean: Float[Array, " code"]
    factor: Float[Array, " code rank"]
    bounded: bool = eqx.field(static=True)
    share: float = eqx.field(static=True)

    def __init__(self, mean: Any, factor: Any, *, bounded: bool = True, share: float = 1.0) -> None:
        self.mean, self.factor = jnp.asarray(mean), jnp.asarray(factor)
        if self.mean.ndim != 1 or self.factor.ndim != 2 or len(self.factor) != len(self.mean):
            raise ValueError(
                f"mean, factor: expected (d,) and (d, rank), got {self.mean.shape} and {self.factor.shape}; use "
                "Gaussian.fit(codes)."
            )
        self.bounded, self.share = flag(bounded, "bounded"), float(share)

    @classmethod
    def fit(cls, codes: Any, *, rank: int | None = None, share: float | None = None, bounded: bool = True) -> Gaussian:
        """Mean and principal directions of codes `(samples, d)`, in arctanh of them when `bounded`.

        **Arguments:**

        - `codes`: of training inputs, `jax.vmap(op.encode)(inputs)`.
        - `rank`: how many directions to keep; or
        - `share`: keep as many as hold this part of the variance, such as 0.99. By default all that the samples span.
        - `bounded`: for codes in (-1, 1); `False` for a variational or plain encoder.

        **Raises:** `ValueError` on codes that are no finite matrix, lie outside (-1, 1), or do not vary.
        """
        rounding = np.finfo(np.asarray(codes).dtype).eps if np.asarray(codes).dtype.kind == "f" else 0.0
        codes = check_codes(codes, flag(bounded, "bounded"))
        mean = codes.mean(axis=0)
        _, singular, directions = np.linalg.svd((codes - mean) / math.sqrt(len(codes) - 1), full_matrices=False)
        variance = singular**2
        spanned = int(np.sum(singular > singular[0] * max(codes.shape) * rounding))
        if not variance[0] > 0:
            raise ValueError("codes: expected codes that differ, got one again and again; encode different inputs.")
        kept = spanned
        if rank is not None and share is not None:
            raise ValueError("rank, share: expected one of them, got both; leave one out.")
        if rank is not None:
            kept = count(rank, "rank", most=spanned, hint=f"the codes span {spanned} directions.")
        if share is not None:
            if isinstance(share, bool) or not 0 < share <= 1:
                raise ValueError(f"share: expected a part of the variance in (0, 1], got {share!r}; give 0.99.")
            kept = min(spanned, 1 + int(np.searchsorted(np.cumsum(variance) / variance.sum(), share * (1 - 1e-12))))
        held = float(variance[:kept].sum() / variance.sum())
        return cls(mean, (directions[:kept].T * singular[:kept]), bounded=bounded, share=held)

    @property
    def size(self) -> int:
        return self.factor.shape[1]

    def __call__(self, w: Array) -> Array:
        y = self.mean + self.factor @ w
        return jnp.tanh(y) if self.bounded else y

    def inverse(self, code: Array) -> Array:
        y = jnp.arctanh(jnp.clip(code, EDGE - 1, 1 - EDGE)) if self.bounded else code
        return jnp.linalg.lstsq(self.factor, y - self.mean)[0]


def check_codes(codes: Any, bounded: bool) -> np.ndarray:
    """Codes `(samples, d)` in double precision, arctanh taken when bounded."""
    codes = np.asarray(codes)
    if codes.ndim != 2 or len(codes) < 2 or codes.shape[1] == 0 or codes.dtype.kind != "f":
        raise ValueError(
            f"codes: expected (samples, d) real numbers, two samples or more, got {codes.dtype} of {codes.shape}; give "
            "jax.vmap(op.encode)(inputs)."
        )
    codes = codes.astype(float)
    if not np.isfinite(codes).all():
        raise ValueError("codes: expected finite numbers, got NaN or infinity; look at the encoder and its inputs.")
    if not bounded:
        return codes
    if np.abs(codes).max() > 1:
        raise ValueError(
            f"codes: expected numbers in (-1, 1), got {np.abs(codes).max():g}; give bounded=False for a code without "
            "tanh."
        )
    return np.arctanh(np.clip(codes, EDGE - 1, 1 - EDGE))
