"""A normalising flow as the prior of the code, fitted to the codes of training inputs."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from neuralops.arguments import count, flag
from neuralops.extras import require
from neuralops.inverse.priors import AbstractPrior, Gaussian, check_codes

__all__ = ["Flow", "fit_flow"]


class Flow(AbstractPrior):
    """code = gaussian(bijection(w)): a learned bijection of white noise before the principal directions of the codes.

    Made by `fit_flow`. `losses` are the negative log-likelihoods per sample of each epoch, `{"train", "val"}`, in the
    whitened space, where the Gaussian without a flow has rank * log(2 pi e) / 2.

    It can be copied but not pickled, because flowjax holds functions without a name: a worker process fits its own.
    """

    bijection: Any
    gaussian: Gaussian
    losses: Any = eqx.field(static=True)

    @property
    def size(self) -> int:
        return self.gaussian.size

    def __call__(self, w: Array) -> Array:
        return self.gaussian(self.bijection.transform(w))

    def inverse(self, code: Array) -> Array:
        return self.bijection.inverse(self.gaussian.inverse(code))

    def log_density(self, code: Float[Array, " code"]) -> Float[Array, ""]:
        """Of a code, all directions kept.

        **Raises:** `ValueError` when the prior has lower rank, and so no density.
        """
        factor = self.gaussian.factor
        if factor.shape[0] != factor.shape[1]:
            raise ValueError(
                f"log_density: expected all {factor.shape[0]} directions, got {factor.shape[1]}; fit without rank= and "
                "share=, or use samples."
            )
        y = self.gaussian.inverse(code)
        w, log_slope = self.bijection.inverse_and_log_det(y)
        result = -jnp.sum(w**2) / 2 - len(w) * math.log(2 * math.pi) / 2 + log_slope
        result = result - jnp.linalg.slogdet(factor)[1]
        return result - jnp.sum(jnp.log1p(-(code**2))) if self.gaussian.bounded else result


def fit_flow(
    codes: Any,
    *,
    key: Array,
    rank: int | None = None,
    share: float | None = None,
    bounded: bool = True,
    layers: int = 6,
    width: int = 64,
    knots: int = 8,
    max_epochs: int = 200,
    max_patience: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    progress: bool = True,
) -> Flow:
    """Fits a coupling flow of rational quadratic splines by maximum likelihood, with flowjax.

    Codes are first whitened along their principal directions, as in `Gaussian.fit`; the flow learns what is not
    Gaussian in them. A tenth of the codes is held back, and training ends when these no longer gain.

    **Arguments:**

    - `codes`, `rank`, `share`, `bounded`: as in `Gaussian.fit`; two directions or more must be kept.
    - `layers`, `width`, `knots`: couplings, hidden numbers of each, bins of each spline.
    - `max_epochs`, `max_patience`: epochs, and epochs without gain after which training ends.
    - `batch_size`, `learning_rate`: of Adam.
    - `progress`: a bar on standard error.

    **Raises:** `ValueError` as `Gaussian.fit`, and on fewer than 20 codes; `ImportError` naming the extra when flowjax
    is missing.
    """
    layers, width, knots = count(layers, "layers"), count(width, "width"), count(knots, "knots")
    max_epochs, max_patience = count(max_epochs, "max_epochs"), count(max_patience, "max_patience")
    batch_size, progress = count(batch_size, "batch_size"), flag(progress, "progress")
    flows = require("flowjax.flows", "a flow as prior")
    gaussian = Gaussian.fit(codes, rank=rank, share=share, bounded=bounded)
    if gaussian.size < 2:
        raise ValueError("rank: expected two directions or more for a flow, got 1; use Gaussian.fit.")
    if len(codes) < 20:
        raise ValueError(f"codes: expected 20 samples or more for a flow, got {len(codes)}; use Gaussian.fit.")
    centred = check_codes(codes, bounded) - np.asarray(gaussian.mean)
    white = jnp.asarray(np.linalg.lstsq(np.asarray(gaussian.factor), centred.T)[0].T, gaussian.mean.dtype)
    init, train = jax.random.split(key)
    base = require("flowjax.distributions", "a flow as prior").StandardNormal((gaussian.size,))
    spline = require("flowjax.bijections", "a flow as prior").RationalQuadraticSpline(knots=knots, interval=5)
    flow = flows.coupling_flow(
        init, base_dist=base, transformer=spline, flow_layers=layers, nn_width=width, invert=False
    )
    held_back = max(1, round(0.1 * len(codes)))
    flow, losses = require("flowjax.train", "a flow as prior").fit_to_data(
        train,
        flow,
        white,
        learning_rate=learning_rate,
        max_epochs=max_epochs,
        max_patience=max_patience,
        batch_size=min(batch_size, len(codes) - held_back),
        show_progress=progress,
    )
    flow = require("paramax", "a flow as prior").unwrap(flow)
    return Flow(flow.bijection, gaussian, tuple((name, tuple(values)) for name, values in losses.items()))
