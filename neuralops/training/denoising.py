"""Denoising: an objective that draws the noise, and the loss by which a denoiser becomes a proximal operator."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import check_number, flag
from neuralops.data.samples import Samples
from neuralops.training.norms import prepare
from neuralops.training.predict import judged, predict_one

__all__ = ["denoising", "gamma_schedule", "proximal_matching"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["gamma"], meta_fields=["mean"])
@dataclasses.dataclass(frozen=True)
class ProximalMatching:
    """1 - exp(-(r / gamma)^2) with r the size of the error of a sample."""

    gamma: Any  # a scalar of NumPy, not a number of Python, which would be compiled in
    mean: bool

    def __call__(self, prediction: Array, target: Array, *, mask: Any = None) -> Float[Array, ""]:
        error, _, weight = prepare(prediction, target, None, mask)
        scaled = jnp.square(error / jnp.asarray(self.gamma, error.dtype))
        kept = scaled if weight is None else jnp.where(weight > 0, scaled, 0)
        total = jnp.sum(kept)
        if self.mean:
            counted = error.size if weight is None else jnp.sum(jnp.broadcast_to(weight > 0, error.shape))
            total = total / counted
        return -jnp.expm1(-total)


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
    return ProximalMatching(np.float64(check_number(gamma, "gamma", above=0)), flag(mean, "mean"))


def gamma_schedule(gamma: float, factors: Sequence[float] = (8, 4, 2, 1)) -> tuple[float, ...]:
    """The published stages, gamma times 8, 4, 2 and 1, each for as many steps.

    There gamma is 0.08 sqrt(channels * points) for images in [0, 1].

    **Raises:** `ValueError` unless all are positive and finite.
    """
    gamma = check_number(gamma, "gamma", above=0)
    return tuple(gamma * check_number(factor, "factors", above=0) for factor in factors)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["loss"], meta_fields=["noise"])
@dataclasses.dataclass(frozen=True)
class Denoising:
    """The mean over the batch of a loss between the operator's output for noisy fields and the clean ones."""

    loss: Any
    noise: float | tuple[float, float]

    def __call__(self, op: Any, batch: Any, *, key: Any) -> Any:
        if not isinstance(batch, Samples):
            batch = Samples(batch)
        clean = batch.inputs if batch.outputs is None else batch.outputs
        batch = batch.replace(inputs=clean, outputs=clean)

        def one(sample: Samples, key: Any) -> Any:
            level_key, noise_key, own = jax.random.split(key, 3)
            x, level = sample.inputs, cast(Any, self.noise)
            if isinstance(level, tuple):
                level = jax.random.uniform(level_key, (1,), x.dtype, *level)
                sample = sample.replace(extras={**sample.extras, "code": level})
                level = level[0]
            noisy = x + jnp.asarray(level, x.dtype) * jax.random.normal(noise_key, x.shape, x.dtype)
            return judged(self.loss, predict_one(op, sample.replace(inputs=noisy), key=own), sample)

        axes = batch.axes
        return jnp.mean(jax.vmap(one, in_axes=(axes, 0))(batch, jax.random.split(key, len(batch))))


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
    if not isinstance(noise, tuple | list):
        return Denoising(loss, check_number(noise, "noise", at_least=0, hint="give e.g. 0.1, or a pair of levels."))
    levels = tuple(check_number(level, "noise", at_least=0) for level in noise)
    if len(levels) != 2 or not levels[0] < levels[1]:
        raise ValueError(f"noise: expected a number or a pair (lowest, highest), got {noise!r}; give (0.01, 0.2).")
    return Denoising(loss, (levels[0], levels[1]))
