"""The authors' answer to an inverse problem: one code, by gradient descent through a small network.

Zang and Koutsourelakis 2025 (arXiv 2502.06250): z = tanh(MLP(1)), all decoders fixed, only this perceptron trained.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from tqdm import tqdm

from neuralops.arguments import count, flag
from neuralops.inverse.measurements import PointMeasurement
from neuralops.inverse.posterior import as_measurements, check_model
from neuralops.operator import ByIdentity, keywords_of
from neuralops.scale import norm

__all__ = ["PointEstimate", "point_estimate"]

CHUNK = 100  # steps between two looks at the keyboard

# The schedules of the two published cases: activation, steps, steps between two cuts of the rate, their factor.
CASES: dict[str, dict[str, Any]] = {
    "darcy_smooth": {"activation": "relu", "num_steps": 1000, "decay_every": 250, "decay": 0.6},
    "darcy_two_phase": {"activation": "silu", "num_steps": 500, "decay_every": 50, "decay": 0.5},
}


class PointEstimate(eqx.Module):
    """One code and how it was found.

    - `code`: `(d,)`.
    - `losses`: `(steps,)`, what was minimised.
    - `misfit`: |H(code) - y| / |y| over all values that count. Noise of 25 dB leaves 0.056; much less means that noise
      was fitted, much more that the model does not reach the data.
    """

    code: Float[Array, " code"]
    losses: Float[Array, " steps"]
    misfit: Float[Array, ""]


def point_estimate(
    model: Any,
    measurements: Any,
    *,
    key: Array,
    num_codes: int | None = None,
    physics: Callable[..., Any] | None = None,
    data_weight: float = 25.0,
    physics_weight: float = 1.0,
    bounded: bool = True,
    case: str = "darcy_smooth",
    hidden: tuple[int, ...] = (64, 64),
    learning_rate: float = 1e-2,
    weight_decay: float = 1e-4,
    activation: str | None = None,
    num_steps: int | None = None,
    decay_every: int | None = None,
    decay: float | None = None,
    progress: bool = True,
) -> PointEstimate:
    """The code that minimises data_weight |H(z) - y|_2 / |y|_2 + physics_weight physics(model, z), as published.

    z = tanh(MLP(1)) with layers 1, 64, 64, d and a prior of none but the walls; Adam with weight decay added to the
    gradient, and a rate that is cut in steps. It gives no uncertainty: use `hmc` or `variational` for that, from
    `start=prior.inverse(estimate.code)` if wanted.

    **Arguments:**

    - `model`, `measurements`: as in `Posterior`; deviations and model errors are not looked at, masks are.
    - `num_codes`: d; by default `model.num_codes`.
    - `physics`: `(model, code) -> number`, or `(model, code, *, key)` where centres are drawn anew at every step, as
      published; with gradient through the decoded coefficient. `None` without.
    - `bounded`: whether the tanh is there; `False` for a code without one.
    - `case`: the schedule, `"darcy_smooth"` (ReLU, 1000 steps, rate x 0.6 every 250) or `"darcy_two_phase"` (SiLU, 500
      steps, x 0.5 every 50); `activation` (`"relu"`, `"silu"`), `num_steps`, `decay_every`, `decay` change parts of it.
    - `hidden`, `learning_rate`, `weight_decay`: of the perceptron and of Adam.
    - `progress`: a bar on standard error. Ctrl-C keeps where it was.

    **Raises:** `ValueError` on bad arguments; `FloatingPointError` when the loss is not finite.
    """
    measurements = as_measurements(measurements)
    check_model(model, measurements)
    if case not in CASES:
        raise ValueError(f"case: expected one of {sorted(CASES)}, got {case!r}; use one of these words.")
    given = {"activation": activation, "num_steps": num_steps, "decay_every": decay_every, "decay": decay}
    plan = CASES[case] | {name: value for name, value in given.items() if value is not None}
    if plan["activation"] not in ("relu", "silu"):
        raise ValueError(f"activation: expected 'relu' or 'silu', got {plan['activation']!r}; use one of these words.")
    steps, every = count(plan["num_steps"], "num_steps"), count(plan["decay_every"], "decay_every")
    weights = {"data_weight": data_weight, "physics_weight": physics_weight, "weight_decay": weight_decay}
    for name, value in weights.items():
        if isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: expected zero or more, got {value!r}; give a number.")
    for name, value in {"learning_rate": learning_rate, "decay": plan["decay"]}.items():
        if isinstance(value, bool) or not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: expected a positive number, got {value!r}; give one.")
    numbers = getattr(model, "num_codes", None) if num_codes is None else num_codes
    if numbers is None:
        raise ValueError(f"num_codes: {type(model).__name__} does not say how long its code is; give num_codes=.")
    numbers, bounded = count(numbers, "num_codes"), flag(bounded, "bounded")
    if physics is not None and not callable(physics):
        raise ValueError(f"physics: expected a function (model, code) -> number, got {physics!r}; give one, or None.")

    init, draws = jax.random.split(key)
    widths = (1, *(count(width, "hidden") for width in hidden), numbers)
    layers = [
        eqx.nn.Linear(m, n, key=k)
        for m, n, k in zip(widths[:-1], widths[1:], jax.random.split(init, len(widths) - 1), strict=True)
    ]
    settings = _Settings(
        plan["activation"], bounded, float(data_weight), float(physics_weight), ByIdentity.of(physics),
        float(learning_rate), float(weight_decay), every, float(plan["decay"]),
    )  # fmt: skip
    state: Any = (layers, settings.optimizer.init(eqx.filter(layers, eqx.is_array)))
    pieces = math.ceil(steps / CHUNK)
    length = math.ceil(steps / pieces)
    keys = jax.random.split(draws, pieces * length)
    losses: list[Array] = []
    with tqdm(total=steps, unit="step", disable=not flag(progress, "progress")) as bar:
        try:
            for first in range(0, steps, length):
                state, loss = _advance(model, measurements, state, keys[first : min(first + length, steps)], settings)
                losses.append(jax.block_until_ready(loss))
                bar.update(len(loss))
                if not bool(jnp.all(jnp.isfinite(loss))):
                    raise FloatingPointError(
                        f"point_estimate: the loss is not finite within {first + len(loss)} steps; lower the learning "
                        "rate, or look at the model and the physics."
                    )
        except KeyboardInterrupt:
            if not losses:
                raise
            tqdm.write(f"interrupted after {sum(map(len, losses))} of {steps} steps", file=sys.stderr)
    code = settings.code(state[0])
    return PointEstimate(code, jnp.concatenate(losses), _relative(model, measurements, code))


class _Settings(eqx.Module):
    """What stays fixed while the perceptron is trained, hashable."""

    activation: str = eqx.field(static=True)
    bounded: bool = eqx.field(static=True)
    data_weight: float = eqx.field(static=True)
    physics_weight: float = eqx.field(static=True)
    physics: Any = eqx.field(static=True)
    learning_rate: float = eqx.field(static=True)
    weight_decay: float = eqx.field(static=True)
    every: int = eqx.field(static=True)
    decay: float = eqx.field(static=True)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        rate = optax.exponential_decay(self.learning_rate, self.every, self.decay, staircase=True)
        return optax.chain(optax.add_decayed_weights(self.weight_decay), optax.adam(rate))

    def code(self, layers: Any) -> Array:
        x = jnp.ones(1)
        for layer in layers[:-1]:
            x = getattr(jax.nn, self.activation)(layer(x))
        x = layers[-1](x)
        return jnp.tanh(x) if self.bounded else x


def _relative(model: Any, measurements: tuple[PointMeasurement, ...], code: Array) -> Array:
    """|H(z) - y| / |y| over all values that count."""
    counted = lambda m, x: x if m.mask is None else jnp.where(m.mask, x, 0)
    differences = jnp.concatenate([counted(m, m(model, code) - m.observed) for m in measurements])
    return norm(differences) / norm(jnp.concatenate([counted(m, m.observed) for m in measurements]))


@eqx.filter_jit
def _advance(model: Any, measurements: Any, state: Any, keys: Array, settings: _Settings) -> Any:
    physics = ByIdentity.value_of(settings.physics)
    random = physics is not None and "key" in keywords_of(physics)

    def loss(layers: Any, key: Array) -> Array:
        code = settings.code(layers)
        result = settings.data_weight * _relative(model, measurements, code)
        if physics is None or not settings.physics_weight:
            return result
        return result + settings.physics_weight * (physics(model, code, key=key) if random else physics(model, code))

    def body(state: Any, key: Array) -> Any:
        layers, memory = state
        value, gradient = jax.value_and_grad(loss)(layers, key)
        updates, memory = settings.optimizer.update(gradient, memory, layers)
        return (eqx.apply_updates(layers, updates), memory), value

    return jax.lax.scan(body, state, keys)
