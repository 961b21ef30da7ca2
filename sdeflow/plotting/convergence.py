"""Convergence: error against step size, the slope that was fitted, and what could not be seen."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, INK, QUIET, figure_with_axes, tidy

__all__ = ["convergence"]


def convergence(
    dts: Sequence[float],
    errors: Sequence[float],
    *,
    stderr: Sequence[float],
    floor: Sequence[float],
    used: tuple[int, int],
    slope: float,
    interval: tuple[float, float],
    title: str = "",
    y_label: str = "error",
) -> Figure:
    """Points with two standard errors, filled where they are part of the fit; the fitted slope; the floor, dashed.

    Arguments:
        dts: The step sizes.
        errors: Positive, one each.
        stderr: The standard error of each.
        floor: What each error cannot be seen below.
        used: (first, stop), the range of the fit.
        slope: The order.
        interval: Its lower and upper end.
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
    place.errorbar(
        dts, errors, yerr=[2 * s for s in stderr], fmt="none", ecolor=QUIET, elinewidth=0.9, capsize=2, zorder=1
    )
    for inside, fill in ((True, COLOURS[0]), (False, "white")):
        at = [k for k in range(len(dts)) if (first <= k < stop) is inside]
        place.plot([dts[k] for k in at], [errors[k] for k in at], "o", color=fill, mec=COLOURS[0], markersize=5)
    middle = (first + stop - 1) // 2
    place.plot(
        [dts[first], dts[stop - 1]],
        [errors[middle] * (dts[k] / dts[middle]) ** slope for k in (first, stop - 1)],
        color=COLOURS[1],
        linewidth=1.4,
        label=f"order {slope:.2f} ({interval[0]:.2f} to {interval[1]:.2f})",
    )
    if any(floor):
        place.plot(dts, floor, linestyle="dashed", color=INK, linewidth=0.9, label="floor")
    place.legend(fontsize=8, frameon=False)
    tidy(place, title=title, x="step size", y=y_label)
    return figure
