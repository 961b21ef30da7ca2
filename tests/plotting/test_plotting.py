"""The pictures show the data they were given; matplotlib's global state is neither needed nor changed."""

import importlib
import subprocess
import sys
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest
import torch

from sdeflow import plotting
from sdeflow.errors import ArgumentError
from sdeflow.extras import MissingExtraError


def pixels(figure):
    file = BytesIO()
    figure.savefig(file, format="png")
    file.seek(0)
    return matplotlib.image.imread(file)


def lines(axes):
    return [np.asarray(line.get_xydata()) for line in axes.lines]


def test_image_grid_shows_each_image_in_its_place_with_ink_dark():
    images = torch.full((2, 3, 4, 4), -1.0)
    images[1, 2] = 1.0
    figure = plotting.image_grid(images, row_labels=["a", "b"], column_labels=["x", "y", "z"], title="all")
    axes = figure.axes[0]
    assert [float(np.mean(image.get_array())) for image in axes.images] == [-1.0] * 5 + [1.0]
    ink = axes.images[5]
    assert ink.to_rgba(ink.get_array())[..., :3].max() == 0.0
    left, right, bottom, top = ink.get_extent()
    x, y = (dict(zip(labels, ticks, strict=True)) for labels, ticks in (
        ([text.get_text() for text in axes.get_xticklabels()], axes.get_xticks()),
        ([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks()),
    ))  # fmt: skip
    assert left < x["z"] < right and bottom < y["b"] < top < y["a"] and list(x) == ["x", "y", "z"]


def test_image_grid_takes_rows_of_unequal_lengths_and_clips():
    figure = plotting.image_grid([torch.full((2, 4, 4), 9.0), torch.zeros(1, 4, 4)])
    assert [float(np.max(image.get_array())) for image in figure.axes[0].images] == [1.0, 1.0, 0.0]


def test_trajectories_draw_every_path_and_the_arrow_points_where_time_runs():
    t = torch.linspace(0, 1, 5)
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    figure = plotting.trajectories({"up": (t, x), "down": (t.flip(0), x.flip(0))}, highlighted=1)
    for axes, step in zip(figure.axes, (1, -1), strict=True):
        drawn = {tuple(map(tuple, line)) for line in lines(axes)}
        assert drawn == {tuple(zip(t.tolist()[::step], x[:, k].tolist()[::step], strict=True)) for k in range(4)}
        arrow = axes.texts[0]
        assert (arrow.xy[0] > arrow.get_position()[0]) == (step == 1)
        assert axes.get_xlim() == (0.0, 1.0)


def test_heat_map_has_one_colour_scale_for_all_panels():
    t, x = torch.linspace(0, 1, 3), torch.linspace(-1, 1, 4)
    low, high = torch.full((3, 4), 0.5), torch.full((3, 4), 2.0)
    paths = torch.zeros(3, 2)
    figure = plotting.heat_map(
        {"low": plotting.DensityPanel(t, x, low, t, paths), "high": plotting.DensityPanel(t, x, high, t, paths)}
    )
    meshes = [axes.collections[0] for axes in figure.axes[:2]]
    assert [mesh.norm.vmax for mesh in meshes] == [2.0, 2.0]
    np.testing.assert_array_equal(meshes[0].get_array(), low.T)
    assert np.abs(pixels(figure)).std() > 0.1


def panels_of(kind, count, **options):
    t, x = torch.linspace(0, 1, 3), torch.linspace(-1, 1, 4)
    if kind == "points":
        return plotting.points(
            {f"{k}": torch.eye(2) * (k + 1) for k in range(count)}, labels=("across", "up"), **options
        )
    options |= {"x_label": "across", "y_label": "up"}
    if kind == "trajectories":
        return plotting.trajectories({f"{k}": (t, torch.eye(3)) for k in range(count)}, **options)
    panel = plotting.DensityPanel(t, x, torch.ones(3, 4), t, torch.zeros(3, 2))
    return plotting.heat_map({f"{k}": panel for k in range(count)}, **options)


@pytest.mark.parametrize("kind", ["points", "trajectories", "heat_map"])
@pytest.mark.parametrize(("count", "columns", "rows"), [(5, 3, 2), (4, 2, 2), (3, None, 1), (2, 5, 1), (3, 1, 3)])
def test_panels_stand_in_rows_and_are_labelled_once_for_each(kind, count, columns, rows):
    """Row by row in the order they are given; where a row is not full, what is above the gap has the labels too."""
    figure = panels_of(kind, count, columns=columns)
    figure.draw_without_rendering()
    places, wide = figure.axes[:count], min(columns or count, count)
    assert len(figure.axes) == count + (kind == "heat_map")
    grid = places[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, wide)
    for k, place in enumerate(places):
        spec = place.get_subplotspec()
        assert place.get_title("left") == f"{k}"
        assert (spec.rowspan.start, spec.colspan.start) == divmod(k, wide)
        assert place.get_ylabel() == ("up" if k % wide == 0 else "")
        lowest = k + wide >= count
        assert place.get_xlabel() == ("across" if lowest else "")
        assert place.xaxis.get_tick_params()["labelbottom"] is lowest
        assert place.get_xlim() == places[0].get_xlim() and place.get_ylim() == places[0].get_ylim()


def test_work_precision_draws_points_against_both_kinds_of_work():
    points = [plotting.WorkPoint(8, 0.1, 1.0), plotting.WorkPoint(16, 0.3, 0.25)]
    figure = plotting.work_precision({"flow": {"heun": points, "failed": []}})
    left, right = figure.axes
    np.testing.assert_allclose(lines(left), [[[8, 1.0], [16, 0.25]]])
    np.testing.assert_allclose(lines(right), [[[0.1, 1.0], [0.3, 0.25]]])
    assert left.get_xscale() == left.get_yscale() == right.get_xscale() == "log"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["heun"]


def test_without_times_there_is_no_panel_for_them(recwarn):
    timed, untimed = plotting.WorkPoint(8, 0.1, 1.0), plotting.WorkPoint(16, None, 0.25)
    (only,) = plotting.work_precision({"flow": {"heun": [untimed]}}).axes
    assert only.get_xlabel() == "evaluations of the drift" and only.get_legend() is not None
    left, right = plotting.work_precision({"flow": {"heun": [timed, untimed]}}).axes
    assert len(lines(left)[0]) == 2 and lines(right)[0].tolist() == [[0.1, 1.0]]
    assert not recwarn.list


def test_many_curves_can_be_told_apart():
    curves = {f"{k}": [plotting.WorkPoint(8, 0.1, 1.0 + k)] for k in range(20)}
    drawn = plotting.work_precision({"flow": curves}).axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 20


def order_picture(errors, floor, claim=2.0):
    dts = [2.0**-k for k in range(len(errors))]
    return plotting.convergence(
        dts,
        errors,
        stderr=[0.0] * len(dts),
        floor=[floor] * len(dts),
        used=(1, 5),
        slope=2.0,
        interval=(1.9, 2.1),
        claim=claim,
    ).axes[0]


def test_convergence_draws_slope_and_claim_and_leaves_out_a_floor_that_is_far():
    errors = [4.0**-k for k in range(5)]
    near, far = order_picture(errors, 1e-4), order_picture(errors, 1e-14)
    labels = ["order 2.00 (1.90 to 2.10)", "claim 2", "floor"]
    assert [text.get_text() for text in near.get_legend().get_texts()] == labels
    assert [text.get_text() for text in far.get_legend().get_texts()] == labels[:2]
    for axes in (near, far):
        assert axes.get_ylim()[0] > 1e-6
        slopes = {
            line.get_label(): np.diff(np.log(line.get_xydata()), axis=0)[0]
            for line in axes.lines
            if len(line.get_xdata()) == 2
        }
        assert all(rise / run == pytest.approx(2.0) for run, rise in slopes.values()) and len(slopes) == 2


def test_convergence_shows_what_blew_up_at_the_edge():
    axes = order_picture([1e30, *(4.0**-k for k in range(1, 5))], 0.0)
    (blown,) = [line for line in axes.lines if line.get_marker() == "^"]
    assert list(blown.get_xdata()) == [1.0] and blown.get_ydata()[0] == axes.get_ylim()[1] < 1e3


def test_the_edge_of_stability_is_a_straight_line():
    x, y = torch.linspace(-3, 1, 41, dtype=torch.float64), torch.linspace(0, 4, 41, dtype=torch.float64)
    growth = 2 * x + y[:, None]
    axes = plotting.stability_region(x, y, (1 + x) ** 2 + y[:, None], growth, complex_plane=True).axes[0]
    edge = np.concatenate([path.vertices for path in axes.collections[-1].get_paths()])
    assert np.abs(2 * edge[:, 0] + edge[:, 1]).max() < 1e-9 and len(edge) > 20
    assert axes.get_aspect() == 1.0


def test_calibration_tells_covered_from_missed():
    truth, bars = torch.zeros(4), torch.ones(4)
    figure = plotting.calibration(torch.tensor([0.5, -0.5, 2.0, 0.9]), truth, bars)
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["covers the truth (3)", "misses it (1)"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plotting.image_grid(torch.zeros(3, 8, 8)),
        lambda: plotting.image_grid(torch.zeros(1, 3, 8, 8), row_labels=["a", "b"]),
        lambda: plotting.trajectories({}),
        lambda: plotting.trajectories({"a": (torch.zeros(3), torch.zeros(4, 2))}),
        lambda: panels_of("points", 2, columns=0),
        lambda: plotting.heat_map({}),
        lambda: plotting.heat_map(
            {
                "a": plotting.DensityPanel(
                    *map(torch.zeros, (3, 4)), torch.zeros(4, 3), torch.zeros(3), torch.zeros(3, 1)
                )
            }
        ),
        lambda: plotting.work_precision({"a": {"b": []}}),
        lambda: plotting.calibration(torch.zeros(3), torch.zeros(3), torch.zeros(2)),
        lambda: plotting.stability_region(torch.zeros(3), torch.zeros(2), torch.zeros(3, 2), torch.zeros(2, 3)),
        lambda: order_picture([1.0, 0.5], 0.0),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(draw):
    with pytest.raises(ArgumentError):
        draw()


def test_a_notebook_shows_a_picture_that_a_cell_returns():
    figure = plotting.points({"data": [[0.0, 1.0], [1.0, 0.0]]})
    shown = matplotlib.image.imread(BytesIO(figure._repr_png_()))
    assert shown.shape == pixels(figure).shape and shown[..., :3].min() < 0.2 and shown[..., :3].max() == 1.0


def test_pictures_need_neither_pyplot_nor_a_display_and_change_no_setting():
    program = """
import io, os, sys
os.environ.pop("DISPLAY", None)
import matplotlib
settings = lambda: {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}  # not: it asks pyplot
before = settings()
import torch, sdeflow
assert "sdeflow.plotting" not in sys.modules
from sdeflow import plotting
figure = plotting.trajectories({"a": (torch.arange(3.0), torch.randn(3, 2))})
figure.savefig(io.BytesIO())
assert "matplotlib.pyplot" not in sys.modules
assert settings() == before
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_matplotlib_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("sdeflow.plotting")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match=r'sdeflow.plotting needs matplotlib.*"sdeflow\[plot\]"'):
        importlib.import_module("sdeflow.plotting")
