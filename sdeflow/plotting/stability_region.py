"""Stability regions: where one step of a method damps, against where the equation does."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, INK, array, figure_with_axes, tidy

__all__ = ["stability_region"]


def stability_region(
    x: Any,
    y: Any,
    amplification: Any,
    growth: Any,
    *,
    title: str = "",
    labels: tuple[str, str] = ("", ""),
    complex_plane: bool = False,
) -> Figure:
    """The region where the amplification is below 1, filled; the edge of where the equation damps, dashed.

    Arguments:
        x: The columns of the grid, with shape ``(X,)``.
        y: Its rows, ``(Y,)``.
        amplification: At each point of it, ``(Y, X)``.
        growth: The rate at which the equation itself grows, negative where it damps, ``(Y, X)``.
        title: Of the picture.
        labels: Of the two axes.
        complex_plane: Whether both axes have one unit.

    Raises:
        ArgumentError: The shapes do not fit.

    Example:
        >>> from sdeflow import plotting
        >>> x, y = torch.linspace(-3, 1, 9), torch.linspace(-2, 2, 9)
        >>> square = (1 + x) ** 2 + y[:, None] ** 2  # Euler's method
        >>> figure = plotting.stability_region(x, y, square, x.expand(9, 9))
    """
    across, up, values, wanted = array(x), array(y), array(amplification), array(growth)
    if values.shape != (len(up), len(across)) or wanted.shape != values.shape:
        raise ArgumentError(
            f"the amplification has shape {values.shape} and the growth {wanted.shape}, but the grid is "
            f"{(len(up), len(across))}."
        )
    figure, axes = figure_with_axes(1, 1, (4.6, 3.8))
    place = axes[0, 0]
    place.contourf(across, up, values, levels=[-1.0, 1.0], colors=[COLOURS[0]], alpha=0.25)
    place.contour(across, up, values, levels=[1.0], colors=[COLOURS[0]], linewidths=1.4)
    place.contour(across, up, wanted, levels=[0.0], colors=[INK], linewidths=1.0, linestyles="dashed")
    if complex_plane:
        place.set_aspect("equal")
    shown = [
        Patch(facecolor=COLOURS[0], alpha=0.25, edgecolor=COLOURS[0], label="the method damps"),
        Line2D([], [], color=INK, linewidth=1.0, linestyle="dashed", label="the equation damps left of this"),
    ]
    figure.legend(handles=shown, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    tidy(place, title=title, x=labels[0], y=labels[1])
    return figure
