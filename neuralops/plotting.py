"""Pictures of fields that can be read as measurements: shared scales, physical axes, stated errors.

Needs matplotlib, which `pip install neuralops-jax[plot]` brings. Figures are built without pyplot, so nothing is
opened, kept or configured globally; in a notebook a returned figure shows itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralops.arguments import file_to_write
from neuralops.extras import require
from neuralops.grid import Grid
from neuralops.training.losses import relative_l2
from neuralops.training.state import History

FIELD_COLOURS, ERROR_COLOURS = "viridis", "RdBu_r"  # perceptually even; diverging with white at zero
SLAB_LEAST = 100  # points that a slab of a cloud in 3-D must hold to be drawn alone
TRUTH, GUESS, INK = "#222222", "#d1495b", "#555555"


def panel(
    inputs: Any,
    targets: Any,
    predictions: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    grid: Grid | None = None,
    coords: Any = None,
    mask: Any = None,
    channel: int = 0,
    num_rows: int = 3,
    names: Sequence[str] = ("input", "truth", "prediction", "error"),
) -> Any:
    """Input, truth, prediction and error of the first samples, one row each.

    Truth and prediction of a row share one colour scale. The error has a scale of its own, symmetric about zero,
    whose bound stands in its title beside the sample's relative L2 error (all channels).

    **Arguments:**

    - `inputs`, `targets`, `predictions`: `(samples, channels, *grid)` in 1-D (drawn as lines), 2-D (images, first
      axis to the right, second upwards) or 3-D (the slice through the middle of the last axis).
    - `path`: where to save the figure, the format by its ending; missing folders are made.
    - `grid`: the grid of targets and predictions, for physical coordinates; `None` takes the unit box. Inputs may
      lie on other points of the same box.
    - `coords`: where the points of a cloud are, `(samples, ndim, *points)` or `(ndim, *points)` for all samples, for
      fields `(samples, channels, *points)` that share them. Drawn as a line through the sorted points in 1-D, as
      coloured points in 2-D, and in 3-D as those of the middle fifth of the last axis (all, when it holds few).
    - `mask`: truth values `(samples, *points)` or `(*points,)`, `True` where a point of targets and predictions
      counts (of inputs too, where they are on as many points). Others are left blank, and in no scale or error.
    - `channel`: the channel drawn (the last one of a field that has fewer).
    - `num_rows`: samples drawn at most.
    - `names`: the column titles.

    **Returns:** the `matplotlib.figure.Figure`.

    **Raises:** `ValueError` when shapes do not fit; `ImportError` naming the extra when matplotlib is missing.
    """
    fields = [np.asarray(x) for x in (inputs, targets, predictions)]
    ndim = fields[1].ndim - 2
    for name, x in zip(("inputs", "targets", "predictions"), fields, strict=True):
        if x.ndim - 2 not in (1, 2, 3) or x.ndim != fields[1].ndim or len(x) != len(fields[1]) or min(x.shape) < 1:
            raise ValueError(
                f"{name}: expected (samples, channels, *grid) in 1-D to 3-D for {len(fields[1])} samples, got shape "
                f"{x.shape}; use u[None] for one sample."
            )
    if fields[1].shape != fields[2].shape:
        raise ValueError(
            f"predictions: expected the shape {fields[1].shape} of targets, got {fields[2].shape}; "
            "use jax.vmap(op)(inputs)."
        )
    if grid is not None:
        if grid.ndim != ndim:
            raise ValueError(
                f"grid: expected the {ndim} space axes of the targets {fields[1].shape}, got {grid.ndim}; "
                "give their grid, or the sample axis with u[None]."
            )
        grid.check(fields[1], "targets")
    for name, value, least in (("channel", channel, 0), ("num_rows", num_rows, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}; give {least} or more.")
    if len(names) != 4:
        raise ValueError(f"names: expected four column titles, got {names!r}; give input, truth, prediction, error.")
    rows = min(num_rows, len(fields[0]))
    inside = _inside(mask, fields[1].shape)
    places = None if coords is None else _places(coords, grid, fields)
    errors = [
        float(relative_l2(p, t, mask=m))
        for p, t, m in zip(_real(fields[2][:rows]), _real(fields[1][:rows]), inside, strict=False)
    ]
    drawn = []
    for row in range(rows):
        chosen = [_real(x[row, min(channel, x.shape[1] - 1)]) for x in fields]
        drawn.append([np.where(inside[row], x, np.nan) if x.shape == inside[row].shape else x for x in chosen])
    if places is not None:
        ndim = places.shape[1]
        ends = [_limits(places[:rows, axis][inside[:rows]]) for axis in range(ndim)]
        sides = [high - low for low, high in ends]
        boxes: Any = None
    else:
        drawn = [[_slice(x) for x in row] for row in drawn]
        boxes = [_Box(x.shape[2:], grid) for x in fields]
        sides = boxes[1].sides
    height = 2.0 if ndim == 1 else 2.35 * float(np.clip(sides[1] / (sides[0] or 1.0), 0.4, 2.0))
    height += 0.0 if places is None or ndim == 1 else 0.3
    figure = _figure((10.4, height * rows + 0.4))
    axes = figure.subplots(rows, 4, squeeze=False)
    for row, (values, error) in enumerate(zip(drawn, errors, strict=True)):
        titles = names if row == 0 else None
        if places is not None:
            at, values = _visible(places[row], values, inside[row])
            draw: Any = _draw_lines if ndim == 1 else _draw_points
            draw(figure, axes[row], values, [at, at if ndim == 1 else np.array(ends)], error, titles)
        elif ndim == 1:
            _draw_lines(figure, axes[row], values, [box.points()[None] for box in boxes], error, titles)
        else:
            _draw_images(figure, axes[row], values, boxes, error, titles)
    for axis in axes.flat:
        axis.tick_params(labelsize=7, length=2, color=INK, labelcolor=INK)
        if ndim > 1:
            axis.label_outer(remove_inner_ticks=True)
    if path is not None:
        _write(figure, path)
    return figure


def training_curve(history: History, path: str | os.PathLike[str] | None = None) -> Any:
    """Training and validation loss over the epochs, logarithmic, the best epoch marked.

    **Returns:** the `matplotlib.figure.Figure`.

    **Raises:** `ValueError` when no epoch was finished; `ImportError` naming the extra when matplotlib is missing.
    """
    if len(history.loss) == 0:
        raise ValueError("history: expected at least one finished epoch, got none; train for longer.")
    figure = _figure((5.6, 3.2))
    axis = figure.subplots()
    epochs = np.arange(1, len(history.loss) + 1)
    curves = [("training", history.loss, INK)]
    if history.validation is not None:
        curves.append(("validation", history.validation, GUESS))
    for name, values, colour in curves:
        axis.plot(epochs, values, color=colour, lw=1.6, label=name)
    name, values, colour = curves[-1]
    best = history.best_epoch
    axis.plot(
        epochs[best], values[best], "o", color=colour, ms=5, label=f"best: {values[best]:.3g} in epoch {best + 1}"
    )
    axis.set(xlabel="epoch", ylabel="loss", yscale="log")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    if path is not None:
        _write(figure, path)
    return figure


def _figure(size: tuple[float, float]) -> Any:
    Figure = require("matplotlib.figure", "plotting", "plot").Figure
    return Figure(figsize=size, dpi=150, layout="constrained")


def _write(figure: Any, path: str | os.PathLike[str]) -> None:
    path = file_to_write(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _real(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.kind != "f" else x


def _slice(field: np.ndarray) -> np.ndarray:
    """What is drawn of one channel, as ordinary numbers."""
    return _real(field[..., field.shape[-1] // 2] if field.ndim == 3 else field)


def _inside(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The points that count, `(samples, *points)`."""
    full = (shape[0], *shape[2:])
    if mask is None:
        return np.ones(full, bool)
    inside = np.asarray(mask)
    if inside.shape not in (full, full[1:]) or inside.dtype != np.bool_:
        raise ValueError(
            f"mask: expected truth values of shape {full} or {full[1:]}, got {inside.dtype} of shape {inside.shape}; "
            "True marks the points that count, use mask.astype(bool)."
        )
    return np.broadcast_to(inside, full)


def _places(coords: Any, grid: Grid | None, fields: list[np.ndarray]) -> np.ndarray:
    """The points of every sample, `(samples, ndim, *points)`."""
    if grid is not None:
        raise ValueError("grid: expected None beside coords, got a grid as well; give one of them.")
    places, shape = np.asarray(coords), fields[1].shape
    if places.ndim == len(shape) - 1:
        places = np.broadcast_to(places, (shape[0], *places.shape))
    fits = places.ndim == len(shape) and len(places) == shape[0] and places.shape[2:] == shape[2:]
    if not fits or places.shape[1] not in (1, 2, 3):
        raise ValueError(
            f"coords: expected ({shape[0]}, ndim, *points) or (ndim, *points) in 1-D to 3-D at points {shape[2:]} "
            f"of targets, got shape {np.shape(coords)}; put the axes first with coords.T."
        )
    if fields[0].shape[2:] != shape[2:]:
        raise ValueError(
            f"inputs: expected the points {shape[2:]} of targets beside coords, got {fields[0].shape[2:]}; give the "
            "inputs at these points."
        )
    return places


def _visible(places: np.ndarray, fields: list[np.ndarray], inside: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The points drawn, `(ndim, count)`, and their values: those that count, sorted in 1-D, a slab in 3-D."""
    order = np.flatnonzero(inside)
    at = places.reshape(len(places), -1)
    if len(places) == 1:
        order = order[np.argsort(at[0, order], kind="stable")]
    elif len(places) == 3:
        low, high = _limits(at[2, order])
        slab = order[np.abs(at[2, order] - (low + high) / 2) <= (high - low) / 10]
        order = slab if len(slab) >= SLAB_LEAST else order
    return at[:, order], [x.reshape(-1)[order] for x in fields]


class _Box:
    """Physical positions of the points of a field: of the grid itself, or of cells of the same box."""

    def __init__(self, shape: tuple[int, ...], grid: Grid | None) -> None:
        if grid is None:
            grid = Grid(shape, centering=("cell",) * len(shape))
        elif grid.shape != shape:
            grid = grid.with_points(shape)
        self.grid, self.sides = grid, grid.domain_extent

    def points(self) -> np.ndarray:
        return self.grid.points(0)

    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top edge of the pixels around the points."""
        edges = []
        for axis in (0, 1):
            points, h = self.grid.points(axis), self.grid.spacing[axis]
            edges += [points[0] - h / 2, points[-1] + h / 2]
        return edges[0], edges[1], edges[2], edges[3]


def _limits(*fields: np.ndarray) -> tuple[float, float]:
    finite = np.concatenate([x[np.isfinite(x)] for x in fields] or [np.zeros(1)])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def _bound(error: np.ndarray) -> float:
    low, high = _limits(error)
    return max(-low, high) or 1.0


def _error_title(names: Sequence[str] | None, relative: float, bound: float) -> str:
    return (f"{names[3]}\n" if names else "") + f"relative L2 {relative:.2g}, scale ±{bound:.2g}"


def _draw_images(
    figure: Any, axes: Any, fields: Any, boxes: list[_Box], relative: float, names: Sequence[str] | None
) -> None:
    u, t, p = fields
    bound = _bound(p - t)
    scales = [_limits(u), _limits(t, p), _limits(t, p), (-bound, bound)]
    images = []
    for axis, field, box, (low, high), colours in zip(
        axes, (u, t, p, p - t), [*boxes, boxes[1]], scales, [FIELD_COLOURS] * 3 + [ERROR_COLOURS], strict=True
    ):
        # imshow puts the first index upwards; the first axis of a field is x and goes to the right.
        images.append(
            axis.imshow(field.T, origin="lower", extent=box.extent(), vmin=low, vmax=high, cmap=colours,
                        interpolation="nearest", aspect="equal")
        )  # fmt: skip
        axis.set_xticks([0.0, box.sides[0]])
        axis.set_yticks([0.0, box.sides[1]])
        axis.spines[:].set_visible(False)
    _bars(figure, axes, images)
    _titles(axes, names, _error_title(names, relative, bound))


def _draw_points(
    figure: Any, axes: Any, fields: Any, at: list[np.ndarray], relative: float, names: Sequence[str] | None
) -> None:
    u, t, p = fields
    bound = _bound(p - t)
    scales = [_limits(u), _limits(t, p), _limits(t, p), (-bound, bound)]
    (x, y), ends = at[0][:2], at[1]  # all rows in the same box
    sides = ends[:, 1] - ends[:, 0]
    panel_area = 15000 * float(np.clip(sides[1] / (sides[0] or 1.0), 0.4, 2.0))  # about, in square points
    size = float(np.clip(0.5 * panel_area / max(len(x), 1), 0.8, 30))
    images = []
    for axis, field, (low, high), colours in zip(
        axes, (u, t, p, p - t), scales, [FIELD_COLOURS] * 3 + [ERROR_COLOURS], strict=True
    ):
        edge = {"linewidths": 0.2, "edgecolors": INK} if axis is axes[3] else {"linewidths": 0}  # white is no error
        images.append(axis.scatter(x, y, c=field, s=size, vmin=low, vmax=high, cmap=colours, **edge))
        axis.set_aspect("equal")
        for (low, high), side, place, line in zip(
            ends, sides, (axis.set_xlim, axis.set_ylim), (axis.xaxis, axis.yaxis), strict=False
        ):
            margin = 0.03 * (side or 1.0)
            place(low - margin, high + margin)
            axis.locator_params(axis=line.axis_name, nbins=3)
        axis.spines[:].set_visible(False)
    _bars(figure, axes, images)
    _titles(axes, names, _error_title(names, relative, bound))


def _bars(figure: Any, axes: Any, images: Any) -> None:
    for image, where in ((images[0], axes[0]), (images[2], list(axes[1:3])), (images[3], axes[3])):
        bar = figure.colorbar(image, ax=where, shrink=0.92, aspect=22, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, length=2, color=INK, labelcolor=INK)


def _draw_lines(
    figure: Any, axes: Any, fields: Any, at: list[np.ndarray], relative: float, names: Sequence[str] | None
) -> None:
    u, t, p = fields
    bound = _bound(p - t)
    low, high = _limits(t, p)
    margin = 0.05 * ((high - low) or 1.0)
    axes[0].plot(at[0][0], u, color=INK, lw=1.2)
    for axis, field, colour in ((axes[1], t, TRUTH), (axes[2], p, GUESS)):
        axis.plot(at[1][0], field, color=colour, lw=1.4)
        axis.set_ylim(low - margin, high + margin)
    axes[2].plot(at[1][0], t, color=TRUTH, lw=0.8, ls=":")
    axes[3].axhline(0, color=INK, lw=0.6)
    axes[3].plot(at[1][0], p - t, color=GUESS, lw=1.2)
    axes[3].set_ylim(-1.05 * bound, 1.05 * bound)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    _titles(axes, names, _error_title(names, relative, bound))


def _titles(axes: Any, names: Sequence[str] | None, last: str) -> None:
    for axis, name in zip(axes[:3], names or ("", "", ""), strict=False):
        axis.set_title(name, fontsize=9)
    axes[3].set_title(last, fontsize=9)
