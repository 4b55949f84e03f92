"""What was observed: values of the solution or of the coefficient at points, with Gaussian noise."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_native, check_plain, count

__all__ = ["PointMeasurement", "noise_of"]

SEEN = ("solution", "input")


def noise_of(u: Any, snr_db: float) -> Float[Array, ""]:
    """The standard deviation of the noise at a signal-to-noise ratio: sqrt(mean(u^2) / 10^(snr_db / 10)), units of u.

    At 25 dB it is 5.6 % of the root mean square of u.

    **Raises:** `ValueError` when the ratio is no finite number or u is no array of finite numbers.
    """
    if isinstance(snr_db, bool) or not isinstance(snr_db, int | float | np.number) or not math.isfinite(snr_db):
        raise ValueError(f"snr_db: expected a ratio in decibels, got {snr_db!r}; give a number such as 25.0.")
    u = _array(u, "u")
    return jnp.sqrt(jnp.mean(u**2)) * 10 ** (-float(snr_db) / 20)


class PointMeasurement(eqx.Module):
    """Values y = H(z) + e of the solution or the coefficient at points, e Gaussian and independent from point to point.

    ```python
    blank = PointMeasurement(points, noise=noise_of(u, 25.0))         # where and how well
    seen = blank.simulate(u_at_points, key=key)                       # an experiment
    seen = PointMeasurement(points, values, noise=0.01)               # or one's own values
    ```

    **Arguments:**

    - `points`: `(ndim, n)`, physical coordinates.
    - `values`: `(n,)`, what was observed; `None` until `simulate` or `with_values`.
    - `of`: `"solution"` (seen through `model.decode`) or `"input"` (`model.decode_input`).
    - `noise`: its standard deviation in units of the values, a number or `(n,)`.
    - `model_error`: the decoder's own error in the same units. A number or `(n,)` is a standard deviation, independent
      from point to point, added in quadrature. An array `(solves, n)` holds errors that were found at these points, one
      row for each of some solved examples: their second moment is added to the covariance (the approximation error of
      Kaipio and Somersalo 2007), which takes into account that a surrogate errs alike at neighbouring points. Taken as
      independent, such an error averages out over many points as noise does, and bands are far too narrow.
    - `channel`: which output channel is seen.
    - `mask`: `(n,)`, true where a point counts; the others may hold NaN and change nothing.

    **Raises:** `ValueError` on shapes that do not fit, numbers that are not finite, noise that is not positive.
    """

    points: Float[Array, " ndim n"]
    values: Float[Array, " n"] | None
    noise: Float[Array, " n"]
    model_error: Float[Array, " n"]
    factor: Float[Array, "n n"] | None
    mask: Array | None
    of: str = eqx.field(static=True)
    channel: int = eqx.field(static=True)

    def __init__(
        self,
        points: Any,
        values: Any = None,
        *,
        of: str = "solution",
        noise: Any,
        model_error: Any = 0.0,
        channel: int = 0,
        mask: Any = None,
    ) -> None:
        if of not in SEEN:
            raise ValueError(f"of: expected one of {SEEN}, got {of!r}; use one of these words.")
        self.of, self.channel = of, count(channel, "channel", 0)
        shape = np.shape(points)
        if len(shape) != 2 or shape[0] > 3 or 0 in shape:
            raise ValueError(
                f"points: expected (ndim, n) with 1 to 3 dimensions, got {shape}; give one column per point, e.g. "
                "points.T of a list of points."
            )
        n = shape[1]
        self.mask = _mask(mask, n)
        at = 0 if self.mask is None else int(np.argmax(np.asarray(self.mask)))
        where = lambda x, filling: x if self.mask is None else jnp.where(self.mask, x, filling)
        raw = jnp.asarray(_plain(points, "points"))
        # A masked point moves onto one that counts, so that no NaN reaches a decoder or a gradient.
        self.points = _finite(raw if self.mask is None else jnp.where(self.mask, raw, raw[:, at : at + 1]), "points")
        self.noise = _finite(where(_per_point(noise, "noise", n), 1.0), "noise")
        errors = None
        if np.ndim(model_error) == 2:  # rows of errors that were found
            errors = jnp.asarray(_plain(model_error, "model_error"))
            if errors.shape[1] != n:
                raise ValueError(
                    f"model_error: expected (solves, {n}), a column for a point, got {errors.shape}; give u - op(a)."
                )
            errors = _finite(where(errors, 0.0), "model_error")
            model_error = jnp.sqrt(jnp.mean(errors**2, axis=0))
        self.model_error = _finite(where(_per_point(model_error, "model_error", n), 0.0), "model_error")
        _positive(self.noise, "noise", strictly=True)
        _positive(self.model_error, "model_error", strictly=False)
        self.factor = None
        if errors is not None:
            self.factor = jnp.linalg.cholesky(jnp.diag(self.noise**2) + errors.T @ errors / len(errors))
        self.values = None
        if values is not None:
            self.values = self.with_values(values).values

    @property
    def num_values(self) -> int:
        """How many values count."""
        return self.points.shape[1] if self.mask is None else int(np.sum(np.asarray(self.mask)))

    @property
    def observed(self) -> Float[Array, " n"]:
        """The values.

        **Raises:** `ValueError` when there are none yet.
        """
        if self.values is None:
            raise ValueError("values: expected values, got none yet; give them, or use simulate(truth, key=key).")
        return self.values

    @property
    def deviation(self) -> Float[Array, " n"]:
        """Of what is observed about what is predicted: noise and model error in quadrature."""
        return jnp.sqrt(self.noise**2 + self.model_error**2)

    def __call__(self, model: Any, code: Float[Array, " code"]) -> Float[Array, " n"]:
        """The values that a model predicts for a code, without noise.

        **Raises:** `ValueError` when what the model decodes is not `(channels, n)`.
        """
        decode = model.decode if self.of == "solution" else model.decode_input
        field = decode(code, self.points)
        if field.ndim != 2 or field.shape[1] != self.points.shape[1] or self.channel >= field.shape[0]:
            raise ValueError(
                f"model: expected values (channels, {self.points.shape[1]}) with channel {self.channel} from "
                f"{decode.__name__}, got {field.shape}; give another channel= or model."
            )
        return field[self.channel]

    def misfit(self, model: Any, code: Float[Array, " code"]) -> Float[Array, " n"]:
        """(y - H(z)) / deviation at each point, zero where masked; whitened where errors of points belong together."""
        difference = self.observed - self(model, code)
        if self.mask is not None:
            difference = jnp.where(self.mask, difference, 0)
        if self.factor is None:
            return difference / self.deviation
        return jax.scipy.linalg.solve_triangular(self.factor, difference, lower=True)

    def with_values(self, values: Any) -> PointMeasurement:
        """The same measurement with other values `(n,)`.

        **Raises:** `ValueError` on another shape or numbers that are not finite.
        """
        n = self.points.shape[1]
        values = _plain(values, "values")
        if np.shape(values) != (n,):
            raise ValueError(
                f"values: expected ({n},), one per point, got {np.shape(values)}; take one channel and flatten."
            )
        values = jnp.asarray(values)
        values = _finite(values if self.mask is None else jnp.where(self.mask, values, 0), "values")
        return eqx.tree_at(lambda m: m.values, self, values, is_leaf=lambda x: x is None)

    def simulate(self, truth: Any, *, key: Array) -> PointMeasurement:
        """An experiment: the true values `(n,)` and a draw of the noise (no model error, for `truth` is no model's)."""
        exact = self.with_values(truth).observed
        return self.with_values(exact + self.noise * jax.random.normal(key, exact.shape, exact.dtype))


def _plain(x: Any, name: str) -> Any:
    check_plain(x, name)
    check_native(x, name)
    try:
        return x if isinstance(x, jax.Array) else np.asarray(x, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected real numbers, got {type(x).__name__}; give an array of them.") from error


def _array(x: Any, name: str) -> Array:
    return _finite(jnp.asarray(_plain(x, name)), name)


def _finite(x: Array, name: str) -> Array:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: expected real floating numbers, got {x.dtype}; use {name}.astype(float).")
    if not isinstance(x, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(x))):
        bad = int(jnp.sum(~jnp.isfinite(x)))
        raise ValueError(
            f"{name}: expected finite numbers, got {bad} that are NaN or infinite; leave these out, or give mask=."
        )
    return x


def _per_point(x: Any, name: str, n: int) -> Array:
    x = jnp.asarray(_plain(x, name))
    if x.shape not in ((), (n,)):
        raise ValueError(f"{name}: expected a number or ({n},), one per point, got {x.shape}; give one of these.")
    return jnp.broadcast_to(x, (n,)) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.full((n,), x, float)


def _positive(x: Array, name: str, strictly: bool) -> None:
    if isinstance(x, jax.core.Tracer):
        return
    least = float(jnp.min(x))
    if least < 0 or (strictly and least == 0):
        kind = "positive" if strictly else "zero or positive"
        raise ValueError(f"{name}: expected {kind} standard deviations, got {least:g}; give noise_of(u, snr_db).")


def _mask(mask: Any, n: int) -> Array | None:
    if mask is None:
        return None
    if np.shape(mask) != (n,) or np.asarray(mask).dtype != bool or not np.any(np.asarray(mask)):
        raise ValueError(
            f"mask: expected ({n},) truth values, one of them true, got {np.asarray(mask).dtype} of {np.shape(mask)}; "
            "give True where a point counts."
        )
    return jnp.asarray(mask)
