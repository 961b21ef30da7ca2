"""Work against precision: what a given error costs, method by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, MARKERS, figure_with_axes, tidy

__all__ = ["WorkPoint", "work_precision"]


@dataclass(frozen=True)
class WorkPoint:
    """One run of one method.

    Attributes:
        evaluations: Of the coefficients.
        seconds: Wall-clock; None where it was not taken.
        error: Positive, in the units of the state.
        low: The lower end of the error's spread over samples, if it is to be shown.
        high: The upper end.
    """

    evaluations: int
    seconds: float | None
    error: float
    low: float | None = None
    high: float | None = None


def work_precision(
    panels: Mapping[str, Mapping[str, Sequence[WorkPoint]]],
    *,
    x_label: str = "evaluations of the drift",
    y_label: str = "error",
) -> Figure:
    """Error against evaluations and, where times were taken, against time, on logarithmic axes: lower left is better.

    Arguments:
        panels: A title for each set of curves, which has a name for each sequence of points. Every set becomes a row
            with a legend.
        x_label: What was evaluated.
        y_label: What the error is.

    Raises:
        ArgumentError: There is nothing to draw.

    Example:
        >>> from sdeflow import plotting
        >>> points = [plotting.WorkPoint(n, n * 1e-3, 1 / n) for n in (8, 16, 32)]
        >>> figure = plotting.work_precision({"reversed SDE": {"euler-maruyama": points}})
    """
    if not any(curve for curves in panels.values() for curve in curves.values()):
        raise ArgumentError("there are no points; give {title: {method: [WorkPoint(…), …]}}.")
    timed = any(point.seconds for curves in panels.values() for curve in curves.values() for point in curve)
    works = {"evaluations": x_label, **({"seconds": "seconds"} if timed else {})}
    size = (3.0 + 3.75 * len(works), 3.3 * len(panels))
    figure, axes = figure_with_axes(len(panels), len(works), size, sharey="row")
    for row, (title, curves) in zip(axes, panels.items(), strict=True):
        for k, (name, curve) in enumerate(curves.items()):
            if not curve:
                continue
            again = k // len(COLOURS)  # colours and markers begin anew together: from there on, the next marker of each
            style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[(k + again) % len(MARKERS)]}
            for place, work in zip(row, works, strict=True):
                drawn = [point for point in curve if getattr(point, work)]
                at = [getattr(point, work) for point in drawn]
                if all(point.low is not None and point.high is not None for point in drawn):
                    low, high = [point.low or 0.0 for point in drawn], [point.high or 0.0 for point in drawn]
                    place.fill_between(at, low, high, color=style["color"], alpha=0.10, linewidth=0)
                errors = [point.error for point in drawn]
                place.plot(at, errors, label=name, linewidth=1.4, markersize=4.5, **style)
        for place, label in zip(row, works.values(), strict=True):
            place.set_xscale("log")
            place.set_yscale("log")
            place.grid(True, which="major", color="#e3e3e3", linewidth=0.6)
            place.xaxis.set_minor_formatter(NullFormatter())
            place.yaxis.set_major_locator(LogLocator(numticks=10))
            place.set_axisbelow(True)
            tidy(place, x=label)
        tidy(row[0], title=title, y=y_label)
        row[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5, frameon=False)
    return figure
