"""Whether error bars mean what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, QUIET, array, figure_with_axes, tidy

__all__ = ["calibration"]


def calibration(
    estimate: Any, truth: Any, half_width: Any, *, quantity: str = "log p", unit: str = "nats", label: str = "bar"
) -> Figure:
    """Estimates against the truth, and their errors with error bars, sorted by truth; those that miss 0 stand out.

    Arguments:
        estimate: ``(N,)``.
        truth: ``(N,)``.
        half_width: Of the error bars, ``(N,)``.
        quantity: What is estimated.
        unit: Its unit.
        label: What the bars are.

    Raises:
        ArgumentError: The three are not vectors of one length.

    Example:
        >>> from sdeflow import plotting
        >>> truth = torch.randn(50)
        >>> figure = plotting.calibration(truth + 0.1 * torch.randn(50), truth, torch.full((50,), 0.196))
    """
    values, exact, bars = array(estimate), array(truth), array(half_width)
    if values.ndim != 1 or not values.shape == exact.shape == bars.shape:
        raise ArgumentError(
            f"estimate, truth and half_width have shapes {values.shape}, {exact.shape}, {bars.shape}; give three of "
            "one (N,)."
        )
    errors = values - exact
    covered = np.abs(errors) <= bars
    order = np.argsort(exact)
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    figure, axes = figure_with_axes(1, 2, (10.5, 3.8), width_ratios=[1, 1.7])
    left, right = axes[0]
    groups = (
        (covered, COLOURS[0], f"covers the truth ({int(covered.sum())})"),
        (~covered, COLOURS[1], f"misses it ({int((~covered).sum())})"),
    )
    ends = [min(exact.min(), values.min()), max(exact.max(), values.max())]
    left.plot(ends, ends, color=QUIET, linewidth=0.8, zorder=1)
    right.axhline(0.0, color=QUIET, linewidth=0.8, zorder=1)
    for chosen, colour, name in groups:
        left.plot(exact[chosen], values[chosen], "o", color=colour, markersize=2.5, alpha=0.8)
        right.errorbar(
            rank[chosen],
            errors[chosen],
            bars[chosen],
            fmt="o",
            color=colour,
            markersize=2.2,
            elinewidth=0.6,
            alpha=0.8,
            label=name,
        )
    tidy(left, title="estimate against truth", x=f"exact {quantity} [{unit}]", y=f"estimated {quantity} [{unit}]")
    tidy(right, title="errors", x=f"sample, sorted by exact {quantity}", y=f"error ± {label} [{unit}]")
    right.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, borderaxespad=0.1, fontsize=8.5, frameon=False)
    right.set_xlim(0, len(order) + 1)
    return figure
