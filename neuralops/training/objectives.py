"""What `fit` makes small: a function of the operator and a whole batch.

An objective is `objective(op, batch, *, key) -> scalar`, or `-> (scalar, report)` with a dictionary of scalars that
end in the history. `batch` is what the data holds, samples first, in the dtype of the operator; the last batch of an
epoch is smaller when the numbers do not divide, and it never holds filled-up rows. `key` is new at every step and the
same again after a resume: collocation points, noise and dropout are drawn from it.

The ready-made ones are compared by value, so passing a new one to `fit` does not compile again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from neuralops.arguments import count, flag
from neuralops.data.samples import Samples
from neuralops.training.norms import mean_square, scaled
from neuralops.training.predict import judged, predict, predict_one
from neuralops.wrappers.trajectory import advance, check_constants

__all__ = ["physics", "predict", "rollout", "split_report", "supervised", "weighted_sum"]

Objective = Callable[..., Any]


def split_report(value: Any) -> tuple[Any, dict[str, Any]]:
    """Scalar and report of what an objective returned."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Mapping):
        return value[0], dict(value[1])
    return value, {}


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=["where"])
@dataclasses.dataclass(frozen=True)
class Supervised:
    """The mean over the batch, or over those of its samples that have labels, of a loss of prediction and target."""

    loss: Any
    where: str | None = None

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        def one(sample: Samples, key: Any) -> Any:
            return judged(self.loss, predict_one(op, sample, key=key), sample)

        values = jax.vmap(one, in_axes=(batch.axes, 0))(batch, jax.random.split(key, len(batch)))
        if self.where is None:
            return jnp.mean(values)
        labelled = batch.extras[self.where].astype(bool)
        return jnp.sum(jnp.where(labelled, values, 0)) / jnp.maximum(jnp.sum(labelled), 1).astype(values.dtype)


def supervised(loss: Callable[..., Any], *, where: str | None = None) -> Supervised:
    """The objective that `fit(loss=loss)` stands for: the mean of `loss(prediction, target)` over the batch.

    `where` names an entry of `batch.extras`, `(samples,)`, that is not zero where a sample has a label: the mean is
    over those, 0 in a batch without any. What stands in `outputs` for the others does not count (zeros, say).

    **Raises:** `ValueError` when `loss` cannot be called or `where` is no name.
    """
    if not callable(loss):
        raise ValueError(f"loss: expected a function (prediction, target), got {loss!r}; use losses.l2().")
    if where is not None and not isinstance(where, str):
        raise ValueError(f"where: expected the name of an entry of extras, got {type(where).__name__}; give a name.")
    return Supervised(loss, where)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["terms"], meta_fields=["names", "weights"])
@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """Several objectives, each with a weight."""

    names: tuple[str, ...]
    terms: tuple[Any, ...]
    weights: tuple[float, ...]

    def __call__(self, op: Any, batch: Any, *, key: Any) -> tuple[Any, dict[str, Any]]:
        total: Any = 0.0
        report: dict[str, Any] = {}
        for i, (name, term, weight) in enumerate(zip(self.names, self.terms, self.weights, strict=True)):
            value, inner = split_report(term(op, batch, key=jax.random.fold_in(key, i)))
            total = total + weight * value
            report |= {name: value, **{f"{name}.{key}": x for key, x in inner.items()}}
        return total, report


def weighted_sum(terms: Mapping[str, Objective], weights: Mapping[str, float] | None = None) -> WeightedSum:
    """The sum of objectives; each is reported under its name, before its weight.

    ```python
    objective = losses.weighted_sum(
        {"labels": losses.supervised(losses.l2()), "physics": losses.physics(problem)}, weights={"physics": 0.1}
    )
    ```

    **Arguments:** `terms`, objectives by name; `weights`, numbers by name, 1 where none is given.

    **Raises:** `ValueError` on what is no objective, and on weights of no term or that are no finite numbers.
    """
    if not isinstance(terms, Mapping) or not terms or not all(callable(term) for term in terms.values()):
        raise ValueError(
            f"terms: expected objectives by name, got {terms!r}; give {{'labels': losses.supervised(losses.l2())}}."
        )
    weights = dict(weights or {})
    unknown = sorted(set(weights) - set(terms))
    if unknown:
        raise ValueError(f"weights: expected names among {list(terms)}, got {unknown}; name the terms.")
    try:
        numbers = tuple(float(weights.get(name, 1.0)) for name in terms)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights: expected one number for each term, got {weights!r}; give e.g. 0.1.") from error
    if not all(abs(number) < float("inf") for number in numbers):
        raise ValueError(f"weights: expected finite numbers, got {weights!r}; give e.g. 0.1.")
    return WeightedSum(tuple(terms), tuple(terms.values()), numbers)


@dataclasses.dataclass(frozen=True)
class Physics:
    """The mean squared relative residual of a problem."""

    problem: Any

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        predictions = predict(op, batch, key=key)
        return jnp.mean(jax.vmap(self.problem.relative_residual)(batch.inputs, predictions) ** 2)


def physics(problem: Any) -> Physics:
    """Trains without labels: the mean over the batch of the squared relative residual of a `pde.Problem`.

    **Raises:** `ValueError` when `problem` has no `relative_residual`.
    """
    if isinstance(problem, type) or not callable(getattr(problem, "relative_residual", None)):
        raise ValueError(f"problem: expected a Problem such as no.pde.Darcy(...), got {problem!r}; build one.")
    return Physics(problem)


@dataclasses.dataclass(frozen=True)
class RolloutLoss:
    """The mean over steps and batch of a loss, the operator being fed with its own output."""

    num_steps: int
    loss: Any
    noise: float
    window: int | None
    recompute: bool
    constants: int = 0

    def __call__(self, op: Any, batch: Samples, *, key: Any) -> Any:
        channels, rest = divmod(batch.outputs.shape[1], self.num_steps)
        if rest or not channels:
            raise ValueError(
                f"data: expected outputs with the frames of {self.num_steps} steps in their channels, got "
                f"{batch.outputs.shape[1]} channels; cut them with data.windows(..., horizon={self.num_steps})."
            )
        check_constants(self.constants, batch.inputs.shape[1])

        def one(sample: Samples, key: Any) -> Any:
            frames = sample.outputs.reshape(self.num_steps, channels, *sample.outputs.shape[1:])
            mask = sample.mask
            inside = lambda u: u if mask is None else jnp.where(mask, u, 0)

            def step(state: Any, x: Any) -> Any:
                i, target, key = x
                given = state
                if self.noise:
                    weight = None if mask is None else jnp.broadcast_to(mask, state.shape).astype(state.dtype)
                    flat, scale = scaled(jax.lax.stop_gradient(state), True)
                    size = (scale * jnp.sqrt(mean_square(flat, weight))).reshape(-1, *(1,) * (state.ndim - 1))
                    draw = jax.random.normal(jax.random.fold_in(key, 1), state.shape, state.dtype)
                    moves = jnp.arange(len(state)).reshape(size.shape) >= self.constants
                    given = state + jnp.where(moves, self.noise * size * draw, 0)
                new = predict_one(op, sample.replace(inputs=given), key=key)
                value = judged(self.loss, new, sample.replace(outputs=target))
                state = advance(state, inside(new), self.constants)
                if self.window is not None:
                    state = jnp.where((i + 1) % self.window == 0, jax.lax.stop_gradient(state), state)
                return state, value

            start = inside(sample.inputs)
            steps = (jnp.arange(self.num_steps), frames, jax.random.split(key, self.num_steps))
            body = jax.checkpoint(step, prevent_cse=False) if self.recompute else step
            return jnp.mean(jax.lax.scan(body, start, steps)[1])

        return jnp.mean(jax.vmap(one, in_axes=(batch.axes, 0))(batch, jax.random.split(key, len(batch))))


def rollout(
    num_steps: int,
    loss: Callable[..., Any],
    *,
    constants: int = 0,
    noise: float = 0.0,
    window: int | None = None,
    recompute: bool = False,
) -> RolloutLoss:
    """Trains an operator on what it makes of its own output: `loss` on each of `num_steps` steps, averaged.

    The data are those of `data.windows(trajectories, history=..., horizon=num_steps)`.

    **Arguments:**

    - `num_steps`: steps, one frame each.
    - `loss`: `loss(prediction, target)` of one frame.
    - `constants`: channels in front of the frames that stay at every step, as in `rollout`; `windows(...).constants`.
    - `noise`: normal noise on the frames that each step gets, as a fraction of the root mean square of each channel.
    - `window`: stops gradients after every `window` steps (1 is the pushforward trick); `None` never.
    - `recompute`: as in `rollout`: less memory for more time.

    **Raises:** `ValueError` on options that do not fit.
    """
    num_steps, recompute = count(num_steps, "num_steps"), flag(recompute, "recompute")
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise: expected zero or a positive number, got {noise!r}; give e.g. 0.01.")
    window, constants = None if window is None else count(window, "window"), count(constants, "constants", least=0)
    return RolloutLoss(num_steps, supervised(loss).loss, float(noise), window, recompute, constants)
