"""Convergence: error against step size, the slope that was fitted, the one that was claimed, and what could not be seen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, INK, QUIET, figure_with_axes, tidy

__all__ = ["convergence"]

MARGIN = (
    100.0  # what is so many times above the largest error of the fit, or below the smallest, would squeeze the rest
)


def convergence(
    dts: Sequence[float],
    errors: Sequence[float],
    *,
    stderr: Sequence[float],
    floor: Sequence[float],
    used: tuple[int, int],
    slope: float,
    interval: tuple[float, float],
    claim: float | None = None,
    title: str = "",
    y_label: str = "error",
) -> Figure:
    """Points with two standard errors, filled where they are part of the fit; the fitted slope; claim and floor, dashed.

    What is far above the fit, because a solve blew up there, is an arrow at the upper edge; a floor far below is left out.

    Arguments:
        dts: The step sizes.
        errors: Positive, one each.
        stderr: The standard error of each.
        floor: What each error cannot be seen below.
        used: (first, stop), the range of the fit.
        slope: The order.
        interval: Its lower and upper end.
        claim: The order that was expected, if any; drawn a little below the points.
        title: Of the picture.
        y_label: What the error is.

    Raises:
        ArgumentError: The sequences differ in length, or the range is empty.

    Example:
        >>> from sdeflow import plotting
        >>> dts = [0.5, 0.25, 0.125, 0.0625]
        >>> figure = plotting.convergence(
        ...     dts, dts, stderr=[0.0] * 4, floor=[1e-6] * 4, used=(0, 4), slope=1.0, interval=(0.9, 1.1)
        ... )
    """
    first, stop = used
    if not len(dts) == len(errors) == len(stderr) == len(floor) or not 0 <= first < stop <= len(dts):
        raise ArgumentError(
            f"there are {len(dts)} dts, {len(errors)} errors, {len(stderr)} standard errors and {len(floor)} floors, and the "
            f"range is {used}; give as many of each, and a range among them."
        )
    figure, axes = figure_with_axes(1, 1, (4.8, 3.6))
    place = axes[0, 0]
    place.set_xscale("log", base=2)
    place.set_yscale("log")
    bottom, top = errors[stop - 1] / MARGIN, MARGIN * max(errors[first:stop])
    place.errorbar(
        dts, errors, yerr=[2 * s for s in stderr], fmt="none", ecolor=QUIET, elinewidth=0.9, capsize=2, zorder=1
    )
    for inside, fill in ((True, COLOURS[0]), (False, "white")):
        at = [k for k in range(len(dts)) if (first <= k < stop) is inside and errors[k] <= top]
        place.plot([dts[k] for k in at], [errors[k] for k in at], "o", color=fill, mec=COLOURS[0], markersize=5)
    middle = (first + stop - 1) // 2
    place.plot(
        [dts[first], dts[stop - 1]],
        [errors[middle] * (dts[k] / dts[middle]) ** slope for k in (first, stop - 1)],
        color=COLOURS[1],
        linewidth=1.4,
        label=f"order {slope:.2f} ({interval[0]:.2f} to {interval[1]:.2f})",
    )
    if claim is not None:
        place.plot(
            [dts[first], dts[stop - 1]],
            [errors[middle] / 2 * (dts[k] / dts[middle]) ** claim for k in (first, stop - 1)],
            linestyle="dotted",
            color=INK,
            linewidth=1.1,
            label=f"claim {claim:g}",
        )
    blown = [k for k in range(len(dts)) if errors[k] > top]
    place.plot(
        [dts[k] for k in blown], [top] * len(blown), "^", color="white", mec=COLOURS[0], markersize=6, clip_on=False
    )
    if blown:
        place.set_ylim(top=top)
    if any(value > bottom for value in floor):
        place.plot(dts, floor, linestyle="dashed", color=INK, linewidth=0.9, label="floor")
    place.legend(fontsize=8, frameon=False)
    tidy(place, title=title, x="step size", y=y_label)
    return figure
