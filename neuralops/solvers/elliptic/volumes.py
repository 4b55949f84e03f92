"""Control volumes of a structured grid: their sizes, the faces between them, the distances across.

Everything is relative to the uniform cell, of volume h_1 ... h_d: a relative volume is 1 in the interior of a uniform
grid, and the unit coefficient gives a face the conductance 1/h^2 of its axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralops import transforms
from neuralops.grid import Grid

__all__ = ["Widths", "check_widths", "line_faces", "line_volumes", "relative_volumes", "side_weights", "unit_faces"]

Widths = tuple[tuple[float, ...] | None, ...] | None  # cell widths per axis; None: uniform


def check_widths(grid: Grid, widths: Any) -> Widths:
    """The canonical form of `widths`, nested tuples of floats; `None` when every axis is uniform.

    **Raises:** `ValueError` unless there is one entry per axis, `None` or as many positive widths as the axis has
    cells, with its extent as their sum, and these only where points are cell centres.
    """
    if widths is None:
        return None
    if not isinstance(widths, Sequence) or len(widths) != grid.ndim:
        raise ValueError(
            f"widths: expected one entry per axis ({grid.ndim}), None or cell widths, got "
            f"{len(widths) if isinstance(widths, Sequence) else type(widths).__name__}; "
            f"write widths=({', '.join(['w'] + ['None'] * (grid.ndim - 1))},) to stretch the first axis."
        )
    checked = tuple(None if w is None else _check_line(grid, a, w) for a, w in enumerate(widths))
    return None if all(w is None for w in checked) else checked


def _check_line(grid: Grid, axis: int, widths: Any) -> tuple[float, ...]:
    n, extent = grid.num_points[axis], grid.domain_extent[axis]
    if grid.centering[axis] != "cell":
        raise ValueError(
            f"widths: expected None on axis {axis}, whose points are nodes, got widths; "
            "use Grid(..., centering='cell') to give cells their own widths."
        )
    try:
        values = np.asarray(widths, np.float64)
    except Exception as error:
        raise ValueError(
            f"widths: expected {n} plain numbers on axis {axis}, got {type(widths).__name__}; widths are static, like "
            "the grid: make them with NumPy, outside jax.jit."
        ) from error
    if values.shape != (n,) or not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(
            f"widths: expected {n} positive finite widths on axis {axis}, got shape {values.shape} with smallest "
            f"{values.min() if values.size else None}; give one per cell."
        )
    if not math.isclose(values.sum(), extent, rel_tol=1e-6):
        raise ValueError(
            f"widths: expected a sum of {extent}, the domain_extent of axis {axis}, got {values.sum()}; "
            "multiply them by domain_extent / sum."
        )
    return tuple(values.tolist())


def line_volumes(grid: Grid, widths: Widths, axis: int) -> np.ndarray:
    """Relative extents of the control volumes along one axis."""
    line = None if widths is None else widths[axis]
    return transforms.relative_weights(grid.axes[axis]) if line is None else np.asarray(line) / grid.spacing[axis]


def relative_volumes(grid: Grid, widths: Widths = None) -> np.ndarray:
    """Control volumes over the uniform cell, broadcastable against fields."""
    return _outer([line_volumes(grid, widths, axis) for axis in range(grid.ndim)])


def side_weights(grid: Grid, widths: Widths, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """For every face between two points the shares of their distance below and above it, broadcastable; else halves."""
    if widths is None or widths[axis] is None:
        return np.asarray(0.5), np.asarray(0.5)
    high = np.asarray(widths[axis])
    low = np.roll(high, 1)
    first = 0 if grid.boundary[axis] == "periodic" else 1
    share = (low / (low + high))[first:].reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    return share, 1 - share


def line_faces(grid: Grid, widths: Widths, axis: int) -> np.ndarray:
    """Conductances along one axis, per face from the low wall to the high one: 1 over h and the distance it bridges.

    That distance ends at the wall beside a Dirichlet wall; a Neumann wall conducts nothing.
    """
    h, periodic = grid.spacing[axis], grid.boundary[axis] == "periodic"
    if grid.centering[axis] == "cell":
        extents = line_volumes(grid, widths, axis)
        between = (np.roll(extents, 1) + extents) / 2
        walls = extents[[0, -1]] / 2
    else:
        between, walls = np.ones(grid.num_points[axis]), np.ones(2)
    if periodic:
        return 1 / (h**2 * between)
    low, high = (1 / d if end == "dirichlet" else 0.0 for end, d in zip(grid.axes[axis].ends, walls, strict=True))
    return np.concatenate([[low], 1 / between[1:], [high]]) / h**2


def unit_faces(grid: Grid, widths: Widths, axis: int) -> np.ndarray:
    """Face conductances of the unit coefficient, with relative face areas, broadcastable against the faces."""
    profile = line_faces(grid, widths, axis).reshape([-1 if a == axis else 1 for a in range(grid.ndim)])
    return profile * _outer([np.ones(1) if a == axis else line_volumes(grid, widths, a) for a in range(grid.ndim)])


def _outer(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The outer product of one profile per axis; a profile of ones stays a broadcast axis of length 1."""
    total = np.ones((1,) * len(factors))
    for axis, profile in enumerate(factors):
        if np.any(profile != 1):
            total = total * profile.reshape([-1 if a == axis else 1 for a in range(len(factors))])
    return total
