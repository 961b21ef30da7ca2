"""What all pictures have in common: colours that colour-blind readers can tell apart, quiet axes, sizes."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError

__all__ = ["COLOURS", "INK", "MARKERS", "QUIET", "array", "figure_with_axes", "panels_in_rows", "tidy"]

# Okabe & Ito, "Color Universal Design" (2008), without the yellow, which is too light for lines on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, QUIET = "#222222", "#8a8a8a"
DPI = 150

Array = np.ndarray[Any, np.dtype[Any]]


class Picture(Figure):
    """A figure that a notebook shows as it is: pyplot, which tells notebooks how to draw figures, is not imported here."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def array(values: Any) -> Array:
    """Tensors, arrays and lists as an array of floats."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=float)


def figure_with_axes(
    rows: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, np.ndarray[Any, np.dtype[np.object_]]]:
    """A figure of its own, and its axes with shape ``(rows, columns)``; size in inches."""
    figure = Picture(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def panels_in_rows(
    count: int, columns: int | None, cell: tuple[float, float], *, x: str, y: str, margin: float = 0.3
) -> tuple[Figure, list[Axes]]:
    """A figure with panels on common axes, row by row, which are labelled once for each row and column.

    Arguments:
        count: How many panels.
        columns: How many in a row; None for one row.
        cell: Width and height of each, in inches.
        x: The label below the lowest panel of each column.
        y: The label left of each row.
        margin: What labels take on the left, in inches.

    Raises:
        ArgumentError: There are fewer columns than 1.
    """
    if columns is not None and columns < 1:
        raise ArgumentError(f"columns={columns}; give at least 1, or None for one row.")
    wide = count if columns is None else min(columns, count)
    rows = math.ceil(count / wide)
    figure, axes = figure_with_axes(rows, wide, (wide * cell[0] + margin, rows * cell[1]), sharex=True, sharey=True)
    places: list[Axes] = axes.flatten().tolist()
    for empty in places[count:]:
        empty.remove()
    for place in places[:count:wide]:
        tidy(place, y=y)
    for place in places[count - wide : count]:
        tidy(place, x=x)
        place.tick_params(labelbottom=True)
    return figure, places[:count]


def tidy(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Labels, thin spines, no box."""
    if title:
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    if x:
        axes.set_xlabel(x, fontsize=9, color=INK)
    if y:
        axes.set_ylabel(y, fontsize=9, color=INK)
    axes.tick_params(labelsize=8, colors=INK, width=0.6, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_linewidth(0.6)
        spine.set_color(QUIET)
