"""Figures are read back: every pixel and line stands where its physical coordinates say."""

import dataclasses
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from neuralops import plotting
from neuralops.grid import Grid
from neuralops.training.state import History

rng = np.random.default_rng(0)


def pixel(figure, axis, x, y):
    """The colour that the rendered figure shows at a point of the axis's data coordinates."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())
    column, row = axis.transData.transform((x, y))
    return image[image.shape[0] - 1 - int(row), int(column)] / 255


@pytest.mark.parametrize(
    "grid",
    [
        Grid((7, 4), (2.0, 1.0), "neumann"),
        pytest.param(Grid((5, 8), (1.0, 3.0), "dirichlet"), marks=pytest.mark.slow),
        pytest.param(Grid((6, 6), 1.0, "periodic", "cell"), marks=pytest.mark.slow),
    ],
)
def test_every_pixel_stands_at_its_coordinates(grid):
    t = rng.normal(size=(1, 1, *grid.shape))
    p = t + 0.1 * rng.normal(size=t.shape)
    figure = plotting.panel(t, t, p, grid=grid, num_rows=1)
    axes = figure.axes[:4]
    low, high = min(t.min(), p.min()), max(t.max(), p.max())
    bound = np.abs(p - t).max()
    colours = matplotlib.colormaps[plotting.FIELD_COLOURS], matplotlib.colormaps[plotting.ERROR_COLOURS]
    xs, ys = grid.coordinates()
    for i, j in ((0, 0), (grid.shape[0] - 1, 0), (0, grid.shape[1] - 1), (2, 1)):
        x, y = xs[i, j], ys[i, j]
        for axis, field in zip(axes[1:3], (t, p), strict=True):
            expected = colours[0]((field[0, 0, i, j] - low) / (high - low))
            np.testing.assert_allclose(pixel(figure, axis, x, y), expected, atol=0.02)
        expected = colours[1](((p - t)[0, 0, i, j] / bound + 1) / 2)
        np.testing.assert_allclose(pixel(figure, axes[3], x, y), expected, atol=0.02)


def test_titles_state_error_and_scale(tmp_path):
    t = np.ones((3, 1, 8, 8), np.float32)
    p = t * np.array([1.25, 0.5, 1.0], np.float32)[:, None, None, None]
    figure = plotting.panel(t > 0, t, p, tmp_path / "deep" / "panel.png")  # truth values are drawn as 0 and 1
    titles = [axis.get_title() for axis in figure.axes[:12]]
    assert titles[:3] == ["input", "truth", "prediction"]
    assert [title.split("\n")[-1] for title in titles[3::4]] == [
        "relative L2 0.25, scale ±0.25",
        "relative L2 0.5, scale ±0.5",
        "relative L2 0, scale ±1",
    ]
    limits = [axis.images[0].get_clim() for axis in figure.axes[:12]]
    assert limits[1] == limits[2] == (1.0, 1.25)
    assert limits[3] == (-0.25, 0.25)
    assert (tmp_path / "deep" / "panel.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_lines_in_one_dimension_and_inputs_on_other_points():
    grid = Grid((16,), 3.0, "dirichlet")
    u, t = rng.normal(size=(2, 1, 8)), rng.normal(size=(2, 2, 16))
    figure = plotting.panel(u, t, t + 1, grid=grid, channel=1)
    assert len(figure.axes) == 8
    first = figure.axes[:4]
    np.testing.assert_allclose(first[0].lines[0].get_xdata(), grid.with_points(8).points(0))
    np.testing.assert_allclose(first[0].lines[0].get_ydata(), u[0, 0])  # one input channel: that one
    np.testing.assert_allclose(first[1].lines[0].get_xydata(), np.stack([grid.points(0), t[0, 1]], 1))
    np.testing.assert_allclose(first[2].lines[0].get_ydata(), t[0, 1] + 1)
    np.testing.assert_allclose(first[3].lines[1].get_ydata(), 1)
    assert first[1].get_ylim() == first[2].get_ylim()
    assert first[3].get_ylim()[0] == -first[3].get_ylim()[1]


def test_three_dimensions_show_the_middle_slice():
    t = rng.normal(size=(1, 1, 4, 5, 7))
    figure = plotting.panel(t, t, t)
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), t[0, 0, :, :, 3].T)


def error_of(p, t):
    return np.linalg.norm(p - t) / np.linalg.norm(t)


def test_masked_points_are_blank_and_in_no_scale_or_error():
    t = rng.normal(size=(2, 1, 6, 5))
    p = t + 0.1 * rng.normal(size=t.shape)
    mask = rng.uniform(size=(2, 6, 5)) < 0.7
    bad = np.where(mask[:, None], p, 1e9)
    figure = plotting.panel(t, np.where(mask[:, None], t, np.nan), bad, mask=mask)
    for row in range(2):
        axes = figure.axes[4 * row : 4 * row + 4]
        for axis in axes:
            shown = np.ma.getmaskarray(axis.images[0].get_array())
            np.testing.assert_array_equal(shown, ~mask[row].T)
        bound = np.abs(p - t)[row, 0][mask[row]].max()
        assert axes[3].images[0].get_clim() == pytest.approx((-bound, bound))
        relative = error_of(p[row, 0][mask[row]], t[row, 0][mask[row]])
        assert f"relative L2 {relative:.2g}" in axes[3].get_title()


def test_point_clouds_show_each_value_at_its_point():
    counted = np.arange(30) < np.array([30, 21])[:, None]
    for ndim, common in ((1, False), (2, False), (2, True), (3, False)):
        coords = rng.uniform(size=(2, ndim, 30))
        t = rng.normal(size=(2, 1, 30))
        p = np.where(counted[:, None], t + 0.1 * rng.normal(size=t.shape), np.nan)
        figure = plotting.panel(t, t, p, coords=coords[0] if common else coords, mask=counted)
        for row in range(2):
            axes, at = figure.axes[4 * row : 4 * row + 4], coords[0 if common else row][:, counted[row]]
            values = t[row, 0, counted[row]]
            if ndim == 1:
                order = np.argsort(at[0])
                np.testing.assert_allclose(axes[1].lines[0].get_xydata(), np.stack([at[0], values], 1)[order])
            else:
                cloud = axes[1].collections[0]
                np.testing.assert_allclose(cloud.get_offsets(), at[:2].T)
                np.testing.assert_allclose(cloud.get_array(), values)
                assert cloud.get_clim() == axes[2].collections[0].get_clim()
            assert f"relative L2 {error_of(p[row, 0, counted[row]], values):.2g}" in axes[3].get_title()


def test_a_large_cloud_in_three_dimensions_shows_a_slab():
    coords, t = rng.uniform(size=(3, 2000)), rng.normal(size=(1, 1, 2000))
    drawn = plotting.panel(t, t, t, coords=coords).axes[1].collections[0]
    middle = np.abs(coords[2] - (coords[2].min() + coords[2].max()) / 2) <= np.ptp(coords[2]) / 10
    np.testing.assert_array_equal(drawn.get_array(), t[0, 0, middle])


def test_a_training_curve_shows_the_numbers(tmp_path):
    history = History(np.array([3.0, 2.0, 1.0]), np.array([4.0, 2.5, 2.8]), {}, np.ones(3), 1, None)
    axis = plotting.training_curve(history, tmp_path / "curve.pdf").axes[0]
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), [[1, 3], [2, 2], [3, 1]])
    np.testing.assert_array_equal(axis.lines[1].get_xydata(), [[1, 4], [2, 2.5], [3, 2.8]])
    np.testing.assert_array_equal(axis.lines[2].get_xydata(), [[2, 2.5]])
    assert (tmp_path / "curve.pdf").read_bytes()[:4] == b"%PDF"
    alone = plotting.training_curve(dataclasses.replace(history, validation=None, best_epoch=2)).axes[0]
    np.testing.assert_array_equal(alone.lines[1].get_xydata(), [[3, 1]])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"neuralops-jax\[plot\]"):
        plotting.panel(np.ones((1, 1, 4)), np.ones((1, 1, 4)), np.ones((1, 1, 4)))


def test_importing_the_module_does_not_import_matplotlib():
    code = "import sys, neuralops.plotting; raise SystemExit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


A = np.ones((2, 1, 4, 4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plotting.panel(A, A, A[:, :, :3]), "predictions: expected the shape"),
        (lambda: plotting.panel(A[:1], A, A), "inputs: expected"),
        (lambda: plotting.panel(A[0], A[0], A[0], grid=Grid((4, 4))), "grid: expected the 1 space axes"),
        (lambda: plotting.panel(A[0, 0], A[0, 0], A[0, 0]), "inputs: expected .samples, channels"),
        (lambda: plotting.panel(A, A, A, grid=Grid((5, 5))), "targets: expected a field on the grid"),
        (lambda: plotting.panel(A, A, A, grid=Grid((4,))), "grid: expected the 2 space axes"),
        (lambda: plotting.panel(A, A, A, mask=np.ones((4, 4))), "mask: expected truth values"),
        (lambda: plotting.panel(A, A, A, coords=np.ones((4, 4, 2))), "coords: expected"),
        (lambda: plotting.panel(A, A, A, coords=np.ones((2, 4, 4)), grid=Grid((4, 4))), "grid: expected None"),
        (lambda: plotting.panel(A[..., :2], A, A, coords=np.ones((2, 4, 4))), "inputs: expected the points"),
        (lambda: plotting.panel(A, A, A, channel=-1), "channel: expected an integer"),
        (lambda: plotting.panel(A, A, A, num_rows=0), "num_rows: expected an integer"),
        (lambda: plotting.panel(A, A, A, names=("a", "b")), "names: expected four"),
        (lambda: plotting.training_curve(History(np.array([]), None, {}, np.array([]), -1, None)), "history: expected"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
