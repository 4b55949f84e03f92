"""Denoising: an objective that draws the noise, and the loss by which a denoiser becomes a proximal operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import flag
from neuralops.data.samples import Samples
from neuralops.training.norms import prepare
from neuralops.training.predict import judged, predict_one

__all__ = ["denoising", "gamma_schedule", "proximal_matching"]


@jax.tree_util.register_pytree_node_class
class ProximalMatching:
    """1 - exp(-(r / gamma)^2) with r the size of the error of a sample."""

    def __init__(self, gamma: Any, mean: bool) -> None:
        self.gamma, self.mean = gamma, mean

    def __call__(self, prediction: Array, target: Array, *, mask: Any = None) -> Float[Array, ""]:
        error, _, weight = prepare(prediction, target, None, mask)
        scaled = jnp.square(error / jnp.asarray(self.gamma, error.dtype))
        kept = scaled if weight is None else jnp.where(weight > 0, scaled, 0)
        total = jnp.sum(kept)
        if self.mean:
            counted = error.size if weight is None else jnp.sum(jnp.broadcast_to(weight > 0, error.shape))
            total = total / counted
        return -jnp.expm1(-total)

    def tree_flatten(self) -> tuple[tuple[Any], bool]:
        number = isinstance(self.gamma, float)
        return (np.asarray(self.gamma) if number else self.gamma,), self.mean

    @classmethod
    def tree_unflatten(cls, mean: bool, leaves: tuple[Any]) -> ProximalMatching:
        return cls(leaves[0], mean)

    def __hash__(self) -> int:
        return hash((type(self), float(self.gamma), self.mean))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProximalMatching) and (float(self.gamma), self.mean) == (
            float(other.gamma),
            other.mean,
        )

    def __repr__(self) -> str:
        return f"proximal_matching({self.gamma!r}, mean={self.mean!r})"


def proximal_matching(gamma: float, *, mean: bool = False) -> ProximalMatching:
    """The loss 1 - exp(-(r / gamma)^2) of Fang, Buchanan and Sulam (2024), r = |prediction - target|.

    As gamma tends to 0 the best denoiser by this loss is the mode of the clean field given the noisy one: the proximal
    operator of -sigma^2 log p. Their loss has a factor of gamma beside it, which changes no minimiser. Where r is much
    larger than gamma its gradient vanishes, so train with `losses.mae` first and then with a gamma that shrinks, see
    `gamma_schedule`. `fit` compiles one program for all gamma.

    **Arguments:**

    - `gamma`: in the unit of the field.
    - `mean`: r is the root of the mean square over points and channels instead of the Euclidean norm over all, so that
      gamma does not depend on their number.

    **Raises:** `ValueError` unless gamma is positive and finite.
    """
    return ProximalMatching(_positive(gamma, "gamma"), flag(mean, "mean"))


def gamma_schedule(gamma: float, factors: Sequence[float] = (8, 4, 2, 1)) -> tuple[float, ...]:
    """The published stages, gamma times 8, 4, 2 and 1, each for as many steps.

    There gamma is 0.08 sqrt(channels * points) for images in [0, 1].

    **Raises:** `ValueError` unless all are positive and finite.
    """
    return tuple(_positive(gamma, "gamma") * _positive(factor, "factors") for factor in factors)


def _positive(number: Any, name: str) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float | np.number | jax.Array) or np.ndim(number):
        raise ValueError(f"{name}: expected a positive number, got {number!r}; give e.g. 0.1.")
    if not 0 < float(number) < math.inf:
        raise ValueError(f"{name}: expected a positive number, got {number!r}; give e.g. 0.1.")
    return float(number)


@jax.tree_util.register_pytree_node_class
class Denoising:
    """The mean over the batch of a loss between the operator's output for noisy fields and the clean ones."""

    def __init__(self, loss: Any, noise: Any) -> None:
        self.loss, self.noise = loss, noise

    def __call__(self, op: Any, batch: Any, *, key: Any) -> Any:
        if not isinstance(batch, Samples):
            batch = Samples(batch)
        clean = batch.inputs if batch.outputs is None else batch.outputs
        batch = batch.replace(inputs=clean, outputs=clean)

        def one(sample: Samples, key: Any) -> Any:
            level_key, noise_key, own = jax.random.split(key, 3)
            x, level = sample.inputs, self.noise
            if isinstance(level, tuple):
                level = jax.random.uniform(level_key, (1,), x.dtype, *level)
                sample = sample.replace(extras={**sample.extras, "code": level})
                level = level[0]
            noisy = x + jnp.asarray(level, x.dtype) * jax.random.normal(noise_key, x.shape, x.dtype)
            return judged(self.loss, predict_one(op, sample.replace(inputs=noisy), key=own), sample)

        axes = batch.axes
        return jnp.mean(jax.vmap(one, in_axes=(axes, 0))(batch, jax.random.split(key, len(batch))))

    def tree_flatten(self) -> tuple[tuple[Any], Any]:
        return (self.loss,), self.noise

    @classmethod
    def tree_unflatten(cls, noise: Any, leaves: tuple[Any]) -> Denoising:
        return cls(leaves[0], noise)

    def __hash__(self) -> int:
        return hash((type(self), self.loss, self.noise))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Denoising) and (self.loss, self.noise) == (other.loss, other.noise)

    def __repr__(self) -> str:
        return f"denoising({self.loss!r}, noise={self.noise!r})"


def denoising(loss: Callable[..., Any], *, noise: float | tuple[float, float]) -> Denoising:
    """Trains a denoiser on clean fields: normal noise is drawn anew in every step.

    The clean fields are the outputs of the samples, or the inputs where there are none, or an array
    `(samples, channels, *grid)`.

    ```python
    op, _ = no.fit(op, fields, objective=losses.denoising(losses.mae, noise=0.1), ...)
    for gamma in losses.gamma_schedule(0.08 * fields[0].size**0.5):
        op, _ = no.fit(op, fields, objective=losses.denoising(losses.proximal_matching(gamma), noise=0.1), ...)
    ```

    **Arguments:**

    - `loss`: `loss(prediction, target)` of one field: `losses.mse`, `losses.mae`, `losses.proximal_matching(gamma)`.
    - `noise`: its standard deviation; or a pair, the lowest and highest of a level that is drawn for each sample and
      given to the operator as `code=`.

    **Raises:** `ValueError` on a loss that cannot be called, and on levels that are no such numbers.
    """
    if not callable(loss):
        raise ValueError(f"loss: expected a function (prediction, target), got {loss!r}; use losses.mae.")
    if isinstance(noise, tuple | list):
        levels = tuple(noise)
        if len(levels) != 2 or not all(_level(level) for level in levels) or not levels[0] < levels[1]:
            raise ValueError(f"noise: expected a number or a pair (lowest, highest), got {noise!r}; give (0.01, 0.2).")
        return Denoising(loss, (float(levels[0]), float(levels[1])))
    if not _level(noise):
        raise ValueError(f"noise: expected zero or a positive number, or a pair of them, got {noise!r}; give e.g. 0.1.")
    return Denoising(loss, float(noise))


def _level(number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float | np.number | jax.Array) or np.ndim(number):
        return False
    return 0 <= float(number) < math.inf
