"""Fitting operators and judging them: objectives, losses, metrics, baselines, schedules, and the loop itself."""

from neuralops.training.evaluation import evaluate as evaluate
from neuralops.training.fitting import fit as fit
from neuralops.training.state import DivergedError as DivergedError
from neuralops.training.state import History as History

__all__ = ["DivergedError", "History", "evaluate", "fit"]
