"""Samples: points in the plane, or histograms on the line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, array, panels_in_rows, tidy

__all__ = ["points"]

COVERED = 0.001  # of the values, on either side, that may lie outside the picture


def points(
    panels: Mapping[str, Any],
    *,
    labels: tuple[str, str] = ("x₁", "x₂"),
    width: float = 3.2,
    columns: int | None = None,
) -> Figure:
    """Samples side by side on common axes: their first two coordinates, or a histogram of the only one.

    The axes show what all but a thousandth of the values on either side need, so that one wild sample does not hide the rest.

    Arguments:
        panels: A title for each set of samples, ``(n, D)`` with one D.
        labels: Of the two axes.
        width: Of a panel, in inches.
        columns: How many panels to a row; None for one row.

    Raises:
        ArgumentError: There is no panel, or the shapes do not fit.

    Example:
        >>> from sdeflow import plotting
        >>> figure = plotting.points({"data": torch.randn(100, 2), "model": torch.randn(100, 2)})
        >>> len(figure.axes)
        2
    """
    sets = {title: array(x) for title, x in panels.items()}
    shapes = {x.shape[1:] for x in sets.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ArgumentError(
            f"the samples have shapes {[x.shape for x in sets.values()]}; give at least one set (n, D), with one D."
        )
    flat = next(iter(shapes))[0] == 1
    every = np.concatenate([x[np.isfinite(x).all(axis=1)] for x in sets.values()])
    low, high = np.quantile(every, [COVERED, 1 - COVERED], axis=0)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    ratio = 0.8 if flat else float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.3, 2.0))
    cell = (width, (width - 0.4) * ratio + 0.7)
    figure, places = panels_in_rows(len(sets), columns, cell, x=labels[0], y="density" if flat else labels[1])
    for k, (place, (title, x)) in enumerate(zip(places, sets.items(), strict=True)):
        colour = COLOURS[k % len(COLOURS)]
        if flat:
            bins = int(np.clip(2 * len(x) ** (1 / 3), 10, 60))  # Rice's rule
            place.hist(x[:, 0], bins=bins, range=(low[0], high[0]), density=True, color=colour, alpha=0.75)
        else:
            area = min(8.0, max(0.6, 3000 / len(x)))
            place.scatter(x[:, 0], x[:, 1], s=area, color=colour, alpha=0.6, linewidths=0, rasterized=True)
            place.set_aspect("equal", adjustable="box")
            place.set_ylim(low[1], high[1])
        place.set_xlim(low[0], high[0])
        tidy(place, title=title)
    return figure
