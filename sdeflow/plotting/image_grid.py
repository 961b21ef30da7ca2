"""Images in rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import INK, array, figure_with_axes

__all__ = ["image_grid"]

GAP = 0.06  # between images, in widths of one


def image_grid(
    images: Any,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    limits: tuple[float, float] = (-1.0, 1.0),
    title: str = "",
    cell: float = 0.75,
) -> Figure:
    """Grey-scale images in a grid, dark for large values, as ink on paper.

    Arguments:
        images: ``(rows, columns, height, width)``, or a sequence of rows of unequal lengths.
        row_labels: One for each row, on its left.
        column_labels: One for each column, on top.
        limits: The values that are white and black; values beyond them are clipped.
        title: Above it all.
        cell: The height of an image in inches.

    Raises:
        ArgumentError: The images are not in rows and columns, or the labels are not as many.

    Example:
        >>> from sdeflow import plotting
        >>> figure = plotting.image_grid(torch.randn(2, 3, 8, 8), row_labels=["first", "second"])
    """
    rows = [array(row) for row in images]
    if not rows or any(row.ndim != 3 for row in rows):
        raise ArgumentError("images are not (rows, columns, height, width); a single row is images[None].")
    columns = max(len(row) for row in rows)
    for name, labels, count in (("row_labels", row_labels, len(rows)), ("column_labels", column_labels, columns)):
        if labels is not None and len(labels) != count:
            raise ArgumentError(f"{name} has {len(labels)} entries; give {count}, or None.")
    height, width = rows[0].shape[1:]
    pitch, tall = 1 + GAP, len(rows) * (1 + GAP)
    margin = 0.2 + 0.074 * max(map(len, row_labels or [""]))  # inches that a letter takes
    head = 0.1 + 0.3 * bool(title) + 0.2 * bool(column_labels)
    size = (columns * pitch * cell * width / height + margin, tall * cell + head)
    figure, axes = figure_with_axes(1, 1, size)
    place = axes[0, 0]  # one axes for all: sixty of them take seconds to lay out
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            corner = (j * pitch, tall - (i + 1) * pitch)
            where = (corner[0], corner[0] + 1, corner[1], corner[1] + 1)
            place.imshow(np.clip(image, *limits), cmap="gray_r", vmin=limits[0], vmax=limits[1], extent=where)
            place.add_patch(Rectangle(corner, 1, 1, fill=False, linewidth=0.5, edgecolor="#c8c8c8"))
    place.set_xlim(-GAP, columns * pitch)
    place.set_ylim(-GAP, tall)
    place.set_aspect(height / width, anchor="E")  # what room is left is for the row labels
    place.set_frame_on(False)
    place.tick_params(length=0, labelsize=8.5, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    place.set_xticks([0.5 + j * pitch for j in range(columns)], column_labels or [""] * columns)
    place.set_yticks([tall - pitch * (i + 1) + 0.5 for i in range(len(rows))], row_labels or [""] * len(rows))
    if title:
        figure.suptitle(title, fontsize=10, color=INK)
    return figure
