"""Paths as lines over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, array, panels_in_rows, tidy

__all__ = ["trajectories"]


def trajectories(
    panels: Mapping[str, tuple[Any, Any]],
    *,
    x_label: str = "time t",
    y_label: str = "x",
    highlighted: int = 3,
    width: float = 2.9,
    columns: int | None = None,
) -> Figure:
    """One coordinate of many paths over time, a panel for each set of paths, on common axes.

    Arguments:
        panels: A title for each (t, x): t with shape ``(T,)``, increasing or decreasing, x with shape ``(T, B)``.
        x_label: Below every panel.
        y_label: Left of the first.
        highlighted: How many paths, from the first on, stand out in colour; the same ones in all panels.
        width: Of a panel, in inches.
        columns: How many panels to a row; None for one row.

    Raises:
        ArgumentError: There is no panel, or x does not have a row for each time.

    Example:
        >>> from sdeflow import plotting
        >>> sol = sf.solve(
        ...     sf.processes.BrownianMotion(), torch.zeros(20, 1), t=torch.linspace(0, 1, 11), dt=0.1, seed=0
        ... )
        >>> figure = plotting.trajectories({"Brownian motion": (sol.t, sol.x[..., 0])})
    """
    if not panels:
        raise ArgumentError("there are no panels; give {title: (t, x)}.")
    figure, places = panels_in_rows(len(panels), columns, (width, min(width, 2.9)), x=x_label, y=y_label)
    for place, (title, (t, x)) in zip(places, panels.items(), strict=True):
        times, paths = array(t), array(x)
        if paths.ndim != 2 or len(paths) != len(times):
            raise ArgumentError(f"{title}: x has shape {paths.shape} for {len(times)} times; give (T, B).")
        place.plot(times, paths[:, highlighted:], color="#9aa4ad", linewidth=0.6, alpha=0.55)
        for k in range(min(highlighted, paths.shape[1])):
            place.plot(times, paths[:, k], color=COLOURS[k % len(COLOURS)], linewidth=1.5)
        tidy(place, title=title)
        ends = np.asarray([times.min(), times.max()])
        place.set_xlim(*ends)
        decreasing = times[-1] < times[0]
        place.annotate(
            "",
            xy=(0.06 if decreasing else 0.28, 0.04),
            xytext=(0.28 if decreasing else 0.06, 0.04),
            xycoords="axes fraction",
            arrowprops={"arrowstyle": "->", "color": "#444444", "linewidth": 1.0},
        )
    return figure
