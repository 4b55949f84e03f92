"""What a splitting algorithm is to `reconstruct`: a state, a step, and what can be said of it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from neuralops.arguments import count
from neuralops.inverse.splitting.data_term import DataTerm
from neuralops.inverse.splitting.regularizers import AbstractRegularizer, positive

__all__ = ["AbstractSplitting", "Moved", "check_stopping"]

Field = Float[Array, "channels *grid"]

# Lanczos gives |A| from below: default steps keep this distance from the bound.
MARGIN = 1.05


class Moved(NamedTuple):
    """One step: the state after it, the field it stands for, and both residuals, relative."""

    state: Any
    value: Field
    primal: Array
    dual: Array


class AbstractSplitting(eqx.Module):
    """A way to minimise h(x) + R(x); numbers in it are leaves, so new values do not recompile."""

    descends: ClassVar[bool] = False  # whether its theorem promises that the merit does not rise
    max_steps: eqx.AbstractVar[int]
    rtol: eqx.AbstractVar[Any]

    @abstractmethod
    def ready(self, data: DataTerm) -> Any:
        """The same with the step sizes that were left open."""

    @abstractmethod
    def within_theorem(self, data: DataTerm, regularizer: AbstractRegularizer) -> Array:
        """Whether step sizes and regulariser meet the condition of a convergence theorem."""

    @abstractmethod
    def start(self, data: DataTerm, x0: Field) -> Any:
        """The state before the first step."""

    @abstractmethod
    def step(self, data: DataTerm, regularizer: AbstractRegularizer, state: Any) -> Moved:
        """One step."""

    @abstractmethod
    def measure(self, data: DataTerm, regularizer: AbstractRegularizer, state: Any) -> tuple[Array, Array]:
        """The objective h + factor R of a state after a step, and the merit that should not rise."""


def check_stopping(max_steps: Any, rtol: Any) -> tuple[int, Any]:
    return count(max_steps, "max_steps"), positive(rtol, "rtol", zero=True)
