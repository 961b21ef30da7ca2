"""Save times and steps: what the arguments t, dt and steps mean.

A save time is hit exactly: it is a node of the grid, never interpolated. Each gap between save times is split into
ceil(gap/dt) equal steps, and ``steps=n`` means dt = (to − from)/n. Where all save times lie on the grid that the whole span
would have without them, that grid is taken as it is, so that asking for more output changes no bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["Grid", "fixed_grid", "save_times"]

MOST_STEPS = 1e8  # the nodes are kept: 0.8 GB
ROUNDING = 1e-9  # of a step: how far a save time may be from a node and still be that node


@dataclass(frozen=True)
class Grid:
    """The nodes of a fixed-step solve, increasing, and which of them are save times.

    Attributes:
        nodes: float64 times, one more than there are steps.
        saves: For each save time the index of its node; 0 first.
        uniform: Whether the nodes are equidistant by construction.
    """

    nodes: np.ndarray[Any, np.dtype[np.float64]]
    saves: tuple[int, ...]
    uniform: bool

    @property
    def steps(self) -> int:
        return len(self.nodes) - 1


def save_times(t: Any, interval: tuple[float, float], direction: int) -> list[float]:
    """The save times as floats: the process's interval in its own direction, or what was given, strictly monotonic."""
    if t is None:
        return list(interval[::direction])
    try:
        times = [float(value) for value in (t.detach().flatten().tolist() if isinstance(t, Tensor) else t)]
    except (TypeError, ValueError):
        raise ArgumentError(
            f"t={t!r} is not a sequence of times; give (from, to), or the save times, increasing or decreasing."
        ) from None
    if len(times) < 2:
        raise ArgumentError(f"t={t!r} has {len(times)} times; give (from, to), or at least two save times.")
    if not all(math.isfinite(value) for value in times):
        raise ArgumentError(f"t={t!r} is not finite; give finite times.")
    steps = np.diff(times)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ArgumentError(
            f"t={_short(times)} is not monotonic; give strictly increasing or strictly decreasing times."
        )
    return times


def _short(times: Sequence[float]) -> str:
    return str(list(times)) if len(times) < 9 else f"[{', '.join(f'{v:g}' for v in times[:6])}, …]"


def _positive(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)) or not value > 0:
        raise ArgumentError(f"{name}={value!r} is not a positive number.")
    if math.isinf(value):
        raise ArgumentError(f"{name}={value!r} is infinite; give a finite one.")
    return float(value)


def _split(times: Sequence[float], dt: float) -> Grid:
    """The grid of the rule above, for increasing save times."""
    start, end = times[0], times[-1]
    span = end - start
    if dt < 4 * float(np.spacing(max(abs(start), abs(end)))):
        raise ArgumentError(f"dt={dt!r} is so small that the times from {start:g} to {end:g} collide in float64.")
    if span / dt > MOST_STEPS:
        raise ArgumentError(
            f"dt={dt!r} makes more than {MOST_STEPS:g} steps from {start:g} to {end:g}; give a larger one."
        )
    steps = max(1, math.ceil(span / dt - ROUNDING))
    whole = start + span * (np.arange(steps + 1) / steps)
    whole[-1] = end
    places = (np.asarray(times) - start) * (steps / span)
    saves = np.rint(places).astype(int)
    if np.abs(places - saves).max() < ROUNDING * max(1, steps) ** 0.5 and (np.diff(saves) > 0).all():
        return Grid(whole, tuple(saves.tolist()), True)
    nodes, indices = [np.asarray([start])], [0]
    for left, right in pairwise(times):
        count = max(1, math.ceil((right - left) / dt - ROUNDING))
        part = left + (right - left) * (np.arange(1, count + 1) / count)
        part[-1] = right
        nodes.append(part)
        indices.append(indices[-1] + count)
    return Grid(np.concatenate(nodes), tuple(indices), False)


def _given(times: Sequence[float], steps: Any) -> Grid:
    """An explicit grid, with the save times among its nodes."""
    nodes = np.asarray(steps, dtype=float)
    if not np.isfinite(nodes).all() or not (np.diff(nodes) > 0).all():
        raise ArgumentError("steps is not a strictly monotonic sequence of finite times in the direction of the solve.")
    tolerance = ROUNDING * np.diff(nodes).min()
    if abs(nodes[0] - times[0]) > tolerance or abs(nodes[-1] - times[-1]) > tolerance:
        raise ArgumentError(
            f"steps runs between {nodes[0]:g} and {nodes[-1]:g} but the solve between {times[0]:g} and {times[-1]:g}; "
            f"make t and steps begin and end together."
        )
    missing = [v for v in times if np.abs(nodes - v).min() > tolerance]
    nodes = np.sort(np.concatenate([nodes, missing]))
    return Grid(nodes, tuple(int(np.abs(nodes - v).argmin()) for v in times), False)


def fixed_grid(times: Sequence[float], dt: Any, steps: Any, breakpoints: Sequence[float] = ()) -> Grid:
    """The grid for increasing save times, from exactly one of dt and steps.

    Arguments:
        times: The save times, increasing.
        dt: The step, or None.
        steps: A number of steps, or the grid itself (increasing here), or None.
        breakpoints: Times that become nodes although they are not save times.
    """
    if steps is not None and not isinstance(steps, (int, np.integer, float, bool, str)):
        return _given(times, steps)
    if steps is not None:
        if isinstance(steps, (bool, float, str)) or steps < 1:
            raise ArgumentError(f"steps={steps!r} is neither a whole number ≥ 1 nor a grid of times.")
        dt = (times[-1] - times[0]) / int(steps)
    else:
        dt = _positive("dt", dt)
    inner = [float(b) for b in breakpoints if times[0] < b < times[-1]]
    grid = _split(sorted({*times, *inner}), dt)
    if not inner:
        return grid
    wanted = [int(np.abs(grid.nodes - v).argmin()) for v in times]
    return Grid(grid.nodes, tuple(wanted), grid.uniform)


def as_sequence(steps: Any) -> Any:
    """A grid given as a tensor, as a list of floats; anything else as it is."""
    if isinstance(steps, Tensor) and steps.numel() > 1:
        return steps.detach().flatten().to(torch.float64).tolist()
    if isinstance(steps, Tensor):
        return steps.item()
    return steps
