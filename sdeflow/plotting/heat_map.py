"""A density on the line as it changes in time, with paths on top."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import array, panels_in_rows, tidy

__all__ = ["DensityPanel", "heat_map"]


@dataclass(frozen=True, eq=False)
class DensityPanel:
    """What one panel of :func:`heat_map` shows.

    Attributes:
        t: The times of the density, increasing, ``(T,)``.
        x: The places of the density, increasing, ``(X,)``.
        density: p_t(x), ``(T, X)``.
        path_times: The times of the paths, ``(S,)``, in the order in which they run.
        paths: ``(S, B)``.
    """

    t: Any
    x: Any
    density: Any
    path_times: Any
    paths: Any


def heat_map(
    panels: Mapping[str, DensityPanel],
    *,
    x_label: str = "time t",
    y_label: str = "x",
    width: float = 3.4,
    columns: int | None = None,
) -> Figure:
    """Densities p_t(x) as heat maps over time with sample paths on top, on common axes and one colour scale.

    Arguments:
        panels: A title for each :class:`DensityPanel`.
        x_label: Below every panel.
        y_label: Left of the first.
        width: Of a panel, in inches.
        columns: How many panels to a row; None for one row.

    Raises:
        ArgumentError: There is no panel, or a density does not have the shape (times, places).

    Example:
        >>> from sdeflow import plotting
        >>> t, x = torch.linspace(0, 1, 5), torch.linspace(-3, 3, 7)
        >>> density = torch.exp(-(x**2) / 2).expand(5, 7)
        >>> figure = plotting.heat_map({"still": plotting.DensityPanel(t, x, density, t, torch.zeros(5, 3))})
    """
    if not panels:
        raise ArgumentError("there are no panels; give {title: DensityPanel(…)}.")
    for title, panel in panels.items():
        shape = (len(array(panel.t)), len(array(panel.x)))
        if array(panel.density).shape != shape:
            raise ArgumentError(f"{title}: the density has shape {array(panel.density).shape}; give {shape}.")
    # Paths start together or are concentrated at one end: a power of the density shows the rest too.
    norm = PowerNorm(0.5, vmin=0.0, vmax=max(float(array(panel.density).max()) for panel in panels.values()))
    cell = (width, min(width, 3.4))
    figure, places = panels_in_rows(len(panels), columns, cell, x=x_label, y=y_label, margin=1.0)
    mesh = None
    for place, (title, panel) in zip(places, panels.items(), strict=True):
        t, x = array(panel.t), array(panel.x)
        mesh = place.pcolormesh(
            t, x, array(panel.density).T, cmap="magma", norm=norm, shading="gouraud", rasterized=True
        )
        times, paths = array(panel.path_times), array(panel.paths)
        place.plot(times, paths, color="white", linewidth=1.6, alpha=0.35)
        place.plot(times, paths, color="#56B4E9", linewidth=0.7)
        place.plot([times[0]] * paths.shape[1], paths[0], "o", color="white", markersize=3, clip_on=False, zorder=5,
                   markeredgecolor="#222222", markeredgewidth=0.5)  # fmt: skip
        tidy(place, title=title)
        place.set_xlim(t[0], t[-1])
        place.locator_params(axis="x", nbins=4)  # more, and the last label of a panel runs into the first of the next
        place.set_ylim(x[0], x[-1])
    assert mesh is not None
    bar = figure.colorbar(mesh, ax=places, pad=0.01, aspect=30)
    bar.set_label("density", fontsize=9)
    bar.ax.tick_params(labelsize=8, width=0.6, length=3)
    bar.outline.set_visible(False)
    return figure
