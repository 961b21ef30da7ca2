"""Training: the loss, step by step, and how held-out data fared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sdeflow.errors import ArgumentError
from sdeflow.plotting.style import COLOURS, QUIET, array, figure_with_axes, tidy

__all__ = ["training_curve"]


def training_curve(
    losses: Any, *, held_out: Sequence[tuple[int, float, float]] = (), criterion: str = "held-out log p"
) -> Figure:
    """The loss of each step, thin, and its running mean; beside it the held-out criterion with two standard errors.

    Arguments:
        losses: ``(steps,)``.
        held_out: (step, value, standard error) of each look.
        criterion: What the values are.

    Raises:
        ArgumentError: There are no losses.

    Example:
        >>> from sdeflow import plotting
        >>> figure = plotting.training_curve(
        ...     1 / torch.arange(1.0, 200.0), held_out=[(100, -2.0, 0.1), (199, -1.9, 0.1)]
        ... )
    """
    values = array(losses)
    if values.ndim != 1 or not len(values):
        raise ArgumentError(f"the losses have shape {values.shape}; give one for each step, (steps,).")
    columns = 2 if held_out else 1
    figure, axes = figure_with_axes(1, columns, (4.6 * columns, 3.2))
    place, steps = axes[0, 0], np.arange(1, len(values) + 1)
    window = max(1, len(values) // 50)
    mean = np.convolve(values, np.ones(window) / window, mode="valid")
    place.plot(steps, values, color=QUIET, linewidth=0.5, alpha=0.5)
    place.plot(steps[window - 1 :], mean, color=COLOURS[0], linewidth=1.5, label=f"mean of {window} steps")
    place.set_ylim(
        *np.quantile(values, [0.0, 0.995]) + np.array([-0.03, 0.03]) * np.ptp(np.quantile(values, [0, 0.995]))
    )
    place.legend(fontsize=8, frameon=False)
    tidy(place, title="training", x="step", y="loss")
    if held_out:
        at, value, stderr = (np.asarray(column, dtype=float) for column in zip(*held_out, strict=True))
        axes[0, 1].errorbar(
            at, value, 2 * stderr, color=COLOURS[1], fmt="o-", markersize=3, linewidth=1.2, elinewidth=0.7
        )
        tidy(axes[0, 1], title="held-out data", x="step", y=criterion)
    return figure
