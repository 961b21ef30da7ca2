"""Stability regions: where one step of a method damps, against where the equation does."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, INK, array, figure_with_axes, tidy

__all__ = ["stability_region"]


def stability_region(
    x: Any, y: Any, amplification: Any, expected: Any, *, title: str = "", labels: tuple[str, str] = ("", "")
) -> Figure:
    """The region where the amplification is below 1, filled; the edge of where it should be, dashed.

    Arguments:
        x: The columns of the grid, with shape ``(X,)``.
        y: Its rows, ``(Y,)``.
        amplification: At each point of it, ``(Y, X)``.
        expected: Whether the equation itself damps, ``(Y, X)``.
        title: Of the picture.
        labels: Of the two axes.

    Raises:
        ArgumentError: The shapes do not fit.

    Example:
        >>> from sdeflow import plotting
        >>> x, y = torch.linspace(-3, 1, 9), torch.linspace(-2, 2, 9)
        >>> square = (1 + x) ** 2 + y[:, None] ** 2  # Euler's method
        >>> figure = plotting.stability_region(x, y, square, (x < 0).expand(9, 9))
    """
    across, up, values, wanted = array(x), array(y), array(amplification), array(expected)
    if values.shape != (len(up), len(across)) or wanted.shape != values.shape:
        raise ArgumentError(
            f"the amplification has shape {values.shape} and what is expected {wanted.shape}, but the grid is "
            f"{(len(up), len(across))}."
        )
    figure, axes = figure_with_axes(1, 1, (4.6, 3.8))
    place = axes[0, 0]
    place.contourf(across, up, values, levels=[-1.0, 1.0], colors=[COLOURS[0]], alpha=0.25)
    place.contour(across, up, values, levels=[1.0], colors=[COLOURS[0]], linewidths=1.4)
    place.contour(across, up, wanted, levels=[0.5], colors=[INK], linewidths=1.0, linestyles="dashed")
    tidy(place, title=title, x=labels[0], y=labels[1])
    return figure
