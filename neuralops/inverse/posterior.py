"""The posterior of the code, as a density over white noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from neuralops.inverse.measurements import PointMeasurement
from neuralops.operator import keywords_of

__all__ = ["Posterior"]

DRAWS_AT_ONCE = 32  # draws decoded together: a matter of memory only


class Posterior(eqx.Module):
    """p(w | y), w the white noise behind the code: code = prior(w), w ~ N(0, I) before anything is seen.

        log p(w | y) = -|w|^2 / 2 - sum_i ((y_i - H_i(code)) / deviation_i)^2 / 2 - physics_weight physics(model, code)

    up to a constant. The last term is that of virtual observables: with weak residuals r_j observed as zero to a
    precision lambda, `physics` is sum_j r_j^2 and `physics_weight` lambda / 2.

    **Arguments:**

    - `model`: what decodes codes: `decode(code, query)`, and `decode_input(code, query)` where the coefficient is asked
      for, each to `(channels, *points)`. Its parameters stay as they are.
    - `prior`: a callable with a `size`, such as `Gaussian.fit(codes)`.
    - `measurements`: a `PointMeasurement` with values, or several.
    - `physics`: a hashable function `(model, code) -> number`, the same at every call: a sampler cannot follow a
      density whose centres are drawn anew. `None` without.
    - `physics_weight`: see above.

    **Raises:** `ValueError` when these do not fit together.
    """

    model: Any
    prior: Any
    measurements: tuple[PointMeasurement, ...]
    physics: Callable[..., Any] | None = eqx.field(static=True)
    physics_weight: float = eqx.field(static=True)

    def __init__(
        self,
        model: Any,
        prior: Any,
        measurements: Any,
        *,
        physics: Callable[..., Any] | None = None,
        physics_weight: float = 0.0,
    ) -> None:
        self.model, self.prior = model, prior
        self.measurements = as_measurements(measurements)
        if not callable(prior) or not isinstance(getattr(prior, "size", None), int):
            raise ValueError(
                f"prior: expected a map of white noise with a size, got {type(prior).__name__}; give "
                "inverse.Gaussian.fit(codes)."
            )
        self.physics, self.physics_weight = physics, float(physics_weight)
        if not (math.isfinite(self.physics_weight) and self.physics_weight >= 0):
            raise ValueError(f"physics_weight: expected zero or more, got {physics_weight!r}; give lambda / 2.")
        if physics is None and self.physics_weight:
            raise ValueError("physics: expected a function for this physics_weight, got None; give (model, code) -> r.")
        if physics is not None:
            _check_physics(physics)
        check_model(model, self.measurements)
        density = jax.eval_shape(self.log_density, jax.ShapeDtypeStruct((self.size,), jnp.result_type(float)))
        if density.shape != ():
            raise ValueError(f"physics: expected one number, got {density.shape}; sum its residuals.")

    @property
    def size(self) -> int:
        """How many unknown numbers there are."""
        return self.prior.size

    @property
    def num_values(self) -> int:
        """How many observed values count."""
        return sum(m.num_values for m in self.measurements)

    def code(self, w: Float[Array, " size"]) -> Float[Array, " code"]:
        """The code of white noise."""
        return self.prior(w)

    def misfit(self, w: Float[Array, " size"]) -> Float[Array, " values"]:
        """(y - H(code)) / deviation of all measurements one after the other, zero where masked."""
        code = self.code(w)
        return jnp.concatenate([m.misfit(self.model, code) for m in self.measurements])

    def log_density(self, w: Float[Array, " size"]) -> Float[Array, ""]:
        """log p(w | y) up to a constant."""
        result = -jnp.sum(w**2) / 2 - jnp.sum(self.misfit(w) ** 2) / 2
        if self.physics is not None and self.physics_weight:
            result = result - self.physics_weight * self.physics(self.model, self.code(w))
        return result

    def fields(self, w: Float[Array, " draws size"], query: Any, *, of: str = "input") -> Float[Array, " draws c *n"]:
        """The coefficient (`of="input"`) or the solution (`"solution"`) of draws at points `(ndim, *points)`.

        **Raises:** `ValueError` on another word.
        """
        if of not in ("input", "solution"):
            raise ValueError(f"of: expected 'input' or 'solution', got {of!r}; use one of these words.")
        return _fields(self, jnp.asarray(w), jnp.asarray(query), of)


@eqx.filter_jit
def _fields(posterior: Posterior, w: Array, query: Array, of: str) -> Array:
    decode = posterior.model.decode_input if of == "input" else posterior.model.decode
    return jax.lax.map(lambda one: decode(posterior.code(one), query), w, batch_size=min(DRAWS_AT_ONCE, len(w)))


def as_measurements(measurements: Any) -> tuple[PointMeasurement, ...]:
    """One measurement or several as a tuple, each with its values."""
    listed = tuple(measurements) if isinstance(measurements, Sequence) else (measurements,)
    for i, one in enumerate(listed):
        if not isinstance(one, PointMeasurement):
            raise ValueError(
                f"measurements: expected PointMeasurement, got {type(one).__name__}; give PointMeasurement(points, "
                "values, noise=...)."
            )
        if one.values is None:
            raise ValueError(f"measurements: number {i} holds no values; give it values, or use its simulate(truth).")
    if not listed:
        raise ValueError("measurements: expected at least one, got none; sample the prior instead.")
    return listed


def check_model(model: Any, measurements: tuple[PointMeasurement, ...]) -> None:
    """Refuses a model without the decoders that are asked for."""
    for one in measurements:
        name = "decode" if one.of == "solution" else "decode_input"
        if not callable(getattr(model, name, None)):
            raise ValueError(
                f"model: expected a method {name}(code, query) for of={one.of!r}, got {type(model).__name__} without; "
                "give a latent model such as DGNO."
            )


def _check_physics(physics: Any) -> None:
    if not callable(physics):
        raise ValueError(
            f"physics: expected a function (model, code) -> number, got {type(physics).__name__}; give one, or None."
        )
    try:
        hash(physics)
    except TypeError as error:
        raise ValueError(
            f"physics: expected a hashable function, got {type(physics).__name__}; wrap it in a plain function."
        ) from error
    if "key" in keywords_of(physics):
        raise ValueError(
            "physics: expected the same number at every call, got a function that names key=; fix it with "
            "functools.partial(physics, key=key)."
        )
