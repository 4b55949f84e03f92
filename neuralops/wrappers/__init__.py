"""Operators made of other operators: with extra inputs fixed, in other forms of a step, or applied again and again."""

from neuralops.wrappers.fixed import At as At
from neuralops.wrappers.fixed import Constant as Constant
from neuralops.wrappers.fixed import at as at
from neuralops.wrappers.steps import Residual as Residual
from neuralops.wrappers.steps import Truncated as Truncated
from neuralops.wrappers.trajectory import Rollout as Rollout
from neuralops.wrappers.trajectory import advance as advance
from neuralops.wrappers.trajectory import rollout as rollout

__all__ = ["At", "Constant", "Residual", "Rollout", "Truncated", "advance", "at", "rollout"]
