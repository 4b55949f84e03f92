"""Objectives without labels: equations as virtual observations, reconstruction of the input, values at given points.

The deep generative neural operator (Zang and Koutsourelakis 2025) declares the weak residuals of an equation observed
as zero. For it, and for every operator that takes `query=`, the objectives here ask for the output as a function of the
points; under `vmap` over a batch what depends on the points alone is computed once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neuralops.arguments import count
from neuralops.data.samples import Samples
from neuralops.grid import Grid, interpolate
from neuralops.operator import keywords_of
from neuralops.scale import norm
from neuralops.training.predict import predict, predict_one

REDUCTIONS = ("norm", "mean_square")


def field_functions(op: Any, sample: Samples, *, key: Any = None) -> dict[str, Callable[[Any], Any]]:
    """The output of an operator for one sample as functions of points `(ndim, *points)`, encoded once.

    `"u"` is the whole output; `"velocity"` and `"pressure"` are its first channels, one for each coordinate, and its
    last. An operator with `decode_flux` (`DGNO`) gives `"flux"`, also called `"stress"` and `"potential"`, one with
    `decode_input` `"a"`, one with `stream_function` `"psi"`, so that `WeakStokes` has no divergence to take.
    """
    if not callable(getattr(op, "decode", None)):
        return {"u": lambda x: predict_one(op, sample.replace(query=x, query_mask=None), key=key)}
    code = _encoded(op, sample, key)
    fields: dict[str, Callable[[Any], Any]] = {"u": lambda x: op.decode(code, x)}
    fields["velocity"] = lambda x: op.decode(code, x)[: x.shape[0]]
    fields["pressure"] = lambda x: op.decode(code, x)[-1:]
    halves = {"flux": "decode_flux", "stress": "decode_flux", "potential": "decode_flux", "a": "decode_input"}
    for name, half in halves.items():
        if callable(getattr(op, half, None)):
            fields[name] = lambda x, half=half: getattr(op, half)(code, x)  # type: ignore[misc]
    if getattr(op, "stream_function", False):
        fields["psi"] = lambda x: op.decode_stream(code, x)
    return fields


def _encoded(op: Any, sample: Samples, key: Any, method: str = "encode") -> Any:
    """The code of a sample, or its law, from what the operator names: points, mask, a key to draw with."""
    named = keywords_of(op)
    given: dict[str, Any] = {
        name: x for name in ("coords", "mask") if (x := getattr(sample, name)) is not None and name in named
    }
    if key is not None and getattr(op, "variational", False):
        given["key"] = key
    inputs = sample.inputs if sample.mask is None else jnp.where(sample.mask, sample.inputs, 0)
    return getattr(op, method)(inputs, **given)


def medium_function(a: Any, domain: Any, order: int) -> Callable[[Any], Any]:
    """Values on a closed grid of nodes over a box as a function of points; see `grid.interpolate` for `order`."""
    low = np.asarray([pair[0] for pair in domain])
    extent = tuple(high - low for low, high in domain)
    grid = Grid(a.shape[1:], extent, "neumann", "node")  # type: ignore[arg-type]

    def at(x: Any) -> Any:
        return interpolate(a, grid, x - jnp.asarray(low, x.dtype).reshape(-1, *(1,) * (x.ndim - 1)), order=order)

    return at


@dataclasses.dataclass(frozen=True)
class VirtualObservables:
    """The residuals of an equation on test functions drawn anew at every step."""

    equation: Any
    order: int
    reduction: str
    weights: tuple[tuple[str, float], ...]
    top: int

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> tuple[Any, dict[str, Any]]:
        draw, noise = jax.random.split(key)
        patches = self.equation.draw(draw, batch.inputs.dtype)
        domain = self.equation.domain
        squared = getattr(self.equation, "squared", ())

        def one(sample: Samples, key: Any) -> dict[str, Any]:
            on_grid = sample.inputs.ndim - 1 == len(domain) and min(sample.inputs.shape[1:]) > 1
            a = medium_function(sample.inputs, domain, self.order) if on_grid else None
            return self.equation.residuals(patches, a, field_functions(op, sample, key=key))

        keys = jax.random.split(noise, len(batch))
        residuals = jax.vmap(one, in_axes=(batch.axes, 0))(batch, keys)
        weight = getattr(patches, "weight", None)  # test functions of weight 0 leave 0, and do not count in a mean
        share = 1.0 if weight is None else weight.size / jnp.sum(weight)
        weights = dict(self.weights)
        unknown = sorted(set(weights) - set(residuals))
        if unknown:
            raise ValueError(f"weights: expected names among {list(residuals)}, got {unknown}; name the residuals.")
        total: Any = 0.0
        report = {}
        for name, r in residuals.items():
            if name in squared:
                value = share * jnp.mean(r)
            elif self.reduction == "mean_square":
                value = share * jnp.mean(r**2)
            else:
                value = jnp.mean(jax.vmap(norm)(r))
            total, report[name] = total + weights.get(name, 1.0) * value, value
            if self.top and name not in squared:
                worst = jnp.sum(jax.lax.top_k(jnp.ravel(r**2), min(self.top, r.size))[0])
                total, report[f"{name}.top"] = total + worst, worst
        return total, report


def virtual_observables(
    equation: Any,
    *,
    order: int = 3,
    reduction: str | None = None,
    weights: Mapping[str, float] | None = None,
    top: int = 0,
) -> VirtualObservables:
    """Trains on the residuals of an equation, observed as zero: no labels.

    ```python
    weak = no.pde.WeakDarcy(((0, 1), (0, 1)), forcing=10.0, form="primal")
    objective = no.losses.weighted_sum(
        {"pde": no.losses.virtual_observables(weak, top=1000), "data": no.losses.reconstruction()}, {"data": 0.25}
    )
    ```

    **Arguments:**

    - `equation`: with `draw(key, dtype)` and `residuals(patches, a, fields)`, such as `pde.WeakDarcy`,
      `pde.WeakBurgers`, `pde.WeakStokes`, `pde.BalancedDarcy` or a strong form.
    - `order`: how an input on a grid is read between its nodes: 3 cubic, 1 linear, 0 nearest (two phases).
    - `reduction`: of the residuals of a batch, by name: `"norm"`, the mean over samples of the 2-norm over test
      functions (the authors' loss for primal forms, not squared and not divided by their number), or `"mean_square"`.
      `None` is what the equation says (`equation.reduction`), or `"norm"`.
    - `weights`: of the residuals by name; 1 where none is given. The sheet's mixed form takes
      `{"balance": sqrt(num_centers)}`.
    - `top`: adds the sum of so many largest squared residuals of the batch, over samples and test functions.

    Residuals that an equation declares as squares already (`equation.squared`, the constitutive ones) are averaged.

    **Raises:** `ValueError` on what is no equation and on options that do not fit.
    """
    whole = all(callable(getattr(equation, name, None)) for name in ("draw", "residuals")) and hasattr(
        equation, "domain"
    )
    if isinstance(equation, type) or not whole:
        raise ValueError(
            f"equation: expected weak or strong residuals such as pde.WeakDarcy(...), got {equation!r}; build one."
        )
    reduction = getattr(equation, "reduction", "norm") if reduction is None else reduction
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}; use one of these words.")
    if order not in (0, 1, 3):
        raise ValueError(f"order: expected 0 (nearest), 1 (linear) or 3 (cubic), got {order!r}; use one of these.")
    pairs = tuple(sorted((str(name), float(x)) for name, x in dict(weights or {}).items()))
    return VirtualObservables(equation, order, reduction, pairs, count(top, "top", least=0))


@dataclasses.dataclass(frozen=True)
class GridResidual:
    """The residual of an equation, from the fields at the points where the input is given."""

    residual: Any
    reduction: str

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        r = jax.vmap(self.residual)(batch.inputs, predict(op, batch, key=key))
        return jnp.mean(r**2) if self.reduction == "mean_square" else jnp.mean(jax.vmap(norm)(r))


def grid_residual(residual: Callable[..., Any], *, reduction: str = "mean_square") -> GridResidual:
    """Trains on `residual(a, u)`, fields on the grid of the input: PINO, and PI-DeepONet with differences.

    ```python
    grid = no.Grid((29, 29), boundary="neumann")
    objective = no.losses.grid_residual(functools.partial(no.pde.darcy_differences, grid=grid, forcing=10.0))
    ```

    For the residual of a `pde.Problem`, relative to its right-hand side, see `physics`.

    **Raises:** `ValueError` when `residual` cannot be called and on an unknown `reduction`.
    """
    if not callable(residual):
        raise ValueError(f"residual: expected a function (a, u), got {residual!r}; give pde.darcy_differences.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}; use one of these words.")
    return GridResidual(residual, reduction)


def _check_decoder(op: Any, half: str, name: str) -> None:
    """Refuses operators that have no latent code."""
    if not callable(getattr(op, half, None)):
        raise ValueError(f"op: {name}() expects a DGNO, got {type(op).__name__} without {half}; leave this term out.")


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """How far the decoded input is from the input."""

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        _check_decoder(op, "decode_logits", "reconstruction")

        def one(sample: Samples, key: Any) -> Any:
            inside = True if sample.mask is None else sample.mask
            points = None if sample.coords is None else jnp.where(inside, sample.coords, 0)
            values = op.decode_logits(_encoded(op, sample, key), points)
            inputs = jnp.where(inside, sample.inputs, 0)
            if op.phases is None:
                return norm(jnp.where(inside, values - inputs, 0))
            low, high = op.phases
            entropy = jax.nn.softplus(values) - (inputs - low) / (high - low) * values  # of log-odds
            return jnp.mean(entropy, where=jnp.broadcast_to(inside, entropy.shape))

        return jnp.mean(jax.vmap(one, in_axes=(batch.axes, 0))(batch, jax.random.split(key, len(batch))))


def reconstruction() -> Reconstruction:
    """Trains a `DGNO` to give its input back from the code, at the points where it is given.

    A continuous input: the mean over the batch of the 2-norm over points, not squared, as published. Two phases: the
    mean binary cross-entropy.
    """
    return Reconstruction()


@dataclasses.dataclass(frozen=True)
class Divergence:
    """The Kullback-Leibler divergence of the code's law from the standard normal."""

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        _check_decoder(op, "law", "kl")

        def one(sample: Samples) -> Any:
            mean, log_variance = _encoded(op, sample, None, "law")
            return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance)

        return jnp.mean(jax.vmap(one, in_axes=(batch.axes,))(batch))


def kl() -> Divergence:
    """The divergence of a variational `DGNO`'s codes from N(0, I), summed over numbers, averaged over the batch."""
    return Divergence()


@dataclasses.dataclass(frozen=True, eq=False)
class Observed:
    """How far the output is from what is known at given points."""

    points: Any
    values: Any
    channels: tuple[int, ...] | None
    reduction: str
    _value: Any

    def __hash__(self) -> int:
        return hash(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observed) and self._value == other._value

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        named = [x for x in (self.points, self.values) if isinstance(x, str) and x != "input"]
        missing = [name for name in named if name not in batch.extras]
        if missing:
            raise ValueError(
                f"batch: expected the extras {named} for observed(...), got {sorted(batch.extras)}; give "
                f"Samples(..., extras={{{missing[0]!r}: ...}})."
            )

        def one(sample: Samples, key: Any) -> Any:
            points = self.points
            points = sample.extras[points] if isinstance(points, str) else jnp.asarray(points, sample.inputs.dtype)
            value = field_functions(op, sample, key=key)["u"](points)
            if self.channels is not None:
                if max(self.channels) >= len(value):  # an array would take the last one instead
                    raise ValueError(
                        f"channels: expected some of the {len(value)} of the output, got {self.channels}; count from 0."
                    )
                value = value[jnp.asarray(self.channels)]
            known = self.values
            if known == "input":
                known = sample.inputs.reshape(len(sample.inputs), -1)
            elif isinstance(known, str):
                known = sample.extras[known]
            error = value - jnp.broadcast_to(jnp.asarray(known, value.dtype), value.shape)
            return norm(error) if self.reduction == "norm" else jnp.mean(error**2)

        return jnp.mean(jax.vmap(one, in_axes=(batch.axes, 0))(batch, jax.random.split(key, len(batch))))


def observed(points: Any, values: Any = 0.0, *, channels: Any = None, reduction: str = "mean_square") -> Observed:
    """Trains on values that are known at points: walls, initial values, scattered measurements.

    **Arguments:**

    - `points`: `(ndim, n)`, the same for all samples, or the name of an entry of `batch.extras` with
      `(samples, ndim, n)`.
    - `values`: a number; `"input"` for the input's own values (an initial condition, an inflow), in order; or the name
      of an entry of `batch.extras` with `(samples, channels, n)`.
    - `channels`: which channels of the output, all by default.
    - `reduction`: `"mean_square"`, or `"norm"`, the mean over samples of the 2-norm over points.

    **Raises:** `ValueError` on options that do not fit.
    """
    if not isinstance(points, str):
        points = np.asarray(points)
        if points.ndim != 2:
            raise ValueError(f"points: expected points (ndim, n), got shape {points.shape}; coordinates come first.")
        if not np.isfinite(points).all():
            raise ValueError("points: expected finite points, got NaN or infinity; leave such points out.")
    if not isinstance(values, str):
        if np.ndim(values) != 0:
            raise ValueError(
                f"values: expected a number, 'input' or the name of an extra, got shape {np.shape(values)}; give "
                "Samples(..., extras={'y': values}) and values='y'."
            )
        values = float(values)
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}; use one of these words.")
    if channels is not None:
        chosen = tuple(channels) if isinstance(channels, Sequence) else ()
        if not chosen:
            raise ValueError(f"channels: expected numbers of channels, got {channels!r}; give a tuple such as (0, 1).")
        channels = tuple(count(c, "channels", least=0) for c in chosen)
    frozen = points if isinstance(points, str) else (points.shape, points.tobytes())
    return Observed(points, values, channels, reduction, (frozen, values, channels, reduction))
