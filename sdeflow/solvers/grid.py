"""Save times and steps: what the arguments t, dt and steps mean.

A save time is hit exactly: it is a node of the grid, never interpolated. Each gap between save times is split into
ceil(gap/dt) equal steps, and ``steps=n`` means dt = (to − from)/n. Where all save times lie on the grid that the whole span
would have without them, that grid is taken as it is, so that asking for more output changes no bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["Grid", "fixed_grid", "save_times"]

MOST_STEPS = 1e8  # the nodes are kept: 0.8 GB
KEPT = 4096  # steps at most of a grid that is kept for the next solve
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

    @cached_property
    def times(self) -> list[float]:
        """The nodes as numbers."""
        numbers: list[float] = self.nodes.tolist()
        return numbers

    @cached_property
    def widths(self) -> list[float]:
        """The length of each step."""
        numbers: list[float] = np.diff(self.nodes).tolist()
        return numbers

    def at(self, times: Sequence[float]) -> tuple[int, ...]:
        """The nodes next to some times."""
        return tuple(int(np.abs(self.nodes - value).argmin()) for value in times)

    def only(self, times: Sequence[float]) -> Grid:
        """The same grid with these save times."""
        return Grid(self.nodes, self.at(times), self.uniform)


def save_times(t: Any, interval: tuple[float, float], direction: int) -> list[float]:
    """The save times as floats: the process's interval in its own direction, or what was given, strictly monotonic."""
    if t is None:
        return list(interval[::direction])
    try:
        given = t.detach().flatten().tolist() if isinstance(t, Tensor) else t
        times = [float(value.detach() if isinstance(value, Tensor) else value) for value in given]
    except (TypeError, ValueError):
        raise ArgumentError(
            f"t={t!r} is not a sequence of times; give (from, to), or the save times, increasing or decreasing."
        ) from None
    if len(times) < 2:
        raise ArgumentError(f"t={t!r} has {len(times)} times; give (from, to), or at least two save times.")
    if not all(math.isfinite(value) for value in times):
        raise ArgumentError(f"t={t!r} is not finite; give finite times.")
    # The ends of the interval, as float32 has them, are meant to be the ends.
    slack = time_rounding(t)
    times = [next((end for end in interval if abs(value - end) <= slack), value) for value in times]
    steps = np.diff(times)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ArgumentError(
            f"t={_short(times)} is not monotonic; give strictly increasing or strictly decreasing times."
        )
    return times


def time_rounding(t: Any) -> float:
    """How far the given times may be from the ones that were meant: 0 but for float32 tensors and arrays.

    ``torch.linspace(0, 1, 101)`` is float32 by default, and none of its inner times is a node of a float64 grid.
    """
    if isinstance(t, Tensor) and t.numel() and t.is_floating_point() and t.dtype is not torch.float64:
        return 8 * torch.finfo(t.dtype).eps * float(t.detach().abs().max())
    if isinstance(t, np.ndarray) and t.size and t.dtype == np.float32:
        return 8 * float(np.finfo(t.dtype).eps) * float(np.abs(t).max())
    return 0.0


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


def _split(times: Sequence[float], dt: float, rounding: float) -> Grid:
    """The grid of the rule above, for increasing save times that are known up to rounding."""
    start, end = times[0], times[-1]
    span = end - start
    if dt < 4 * math.ulp(max(abs(start), abs(end))):
        raise ArgumentError(f"dt={dt!r} is so small that the times from {start:g} to {end:g} collide in float64.")
    if span / dt > MOST_STEPS:
        raise ArgumentError(
            f"dt={dt!r} makes more than {MOST_STEPS:g} steps from {start:g} to {end:g}; give a larger one."
        )
    steps = max(1, math.ceil(span / dt - ROUNDING))
    whole = start + span * (np.arange(steps + 1) / steps)
    whole[-1] = end
    places = [(time - start) * (steps / span) for time in times[1:-1]]
    saves = (0, *map(round, places), steps)
    close = ROUNDING * max(1, steps) ** 0.5 + min(0.25, rounding * steps / span)
    on_it = all(abs(v - k) < close for v, k in zip(places, saves[1:-1], strict=True))
    if on_it and all(a < b for a, b in pairwise(saves)):
        return Grid(whole, saves, True)
    nodes, indices = [np.asarray([start])], [0]
    for left, right in pairwise(times):
        count = max(1, math.ceil((right - left) / dt - ROUNDING - min(0.25, 2 * rounding / dt)))
        part = left + (right - left) * (np.arange(1, count + 1) / count)
        part[-1] = right
        nodes.append(part)
        indices.append(indices[-1] + count)
    return Grid(np.concatenate(nodes), tuple(indices), False)


_kept = lru_cache(maxsize=16)(_split)  # the grid of the last solve is most often that of the next


def _given(times: Sequence[float], steps: Any, rounding: float, said: Callable[[float], float]) -> Grid:
    """An explicit grid, with the save times among its nodes."""
    try:
        nodes = np.asarray(list(steps), dtype=float)
    except (TypeError, ValueError):
        raise ArgumentError(f"steps={steps!r} is neither a whole number ≥ 1 nor a grid of times.") from None
    if nodes.ndim != 1 or len(nodes) < 2:
        raise ArgumentError(
            f"steps has {nodes.size} times; a grid has at least two, the first and the last of the solve."
        )
    if not np.isfinite(nodes).all() or not (np.diff(nodes) > 0).all():
        raise ArgumentError("steps is not a strictly monotonic sequence of finite times in the direction of the solve.")
    tolerance = max(ROUNDING * np.diff(nodes).min(), rounding)
    if abs(nodes[0] - times[0]) > tolerance or abs(nodes[-1] - times[-1]) > tolerance:
        raise ArgumentError(
            f"steps runs from {said(nodes[0]):.9g} to {said(nodes[-1]):.9g} but the solve from {said(times[0]):.9g} to "
            f"{said(times[-1]):.9g}; "
            f"make t and steps begin and end together."
        )
    nodes[0], nodes[-1] = times[0], times[-1]
    missing = [v for v in times if np.abs(nodes - v).min() > tolerance]
    nodes = np.sort(np.concatenate([nodes, missing]))
    return Grid(nodes, (), False)


def fixed_grid(
    times: Sequence[float],
    dt: Any,
    steps: Any,
    breakpoints: Sequence[float] = (),
    rounding: float = 0.0,
    said: Callable[[float], float] = float,
) -> Grid:
    """The grid for increasing save times, from exactly one of dt and steps.

    Arguments:
        times: The save times, increasing.
        dt: The step, or None.
        steps: A number of steps, or the grid itself (increasing here), or None.
        breakpoints: Times that become nodes although they are not save times.
        rounding: How far the times may be from the ones that were meant.
        said: A time as the caller said it, for messages.
    """
    if steps is not None and not isinstance(steps, (int, np.integer, float, bool, str)):
        return _given(sorted({*times, *breakpoints}), steps, rounding, said).only(times)
    if steps is not None:
        if isinstance(steps, (bool, float, str)) or steps < 1:
            raise ArgumentError(f"steps={steps!r} is neither a whole number ≥ 1 nor a grid of times.")
        dt = (times[-1] - times[0]) / int(steps)
    else:
        dt = _positive("dt", dt)
    kept = _split if times[-1] - times[0] > KEPT * dt else _kept  # long grids are not held in memory
    grid = kept(tuple(sorted({*times, *breakpoints})), dt, rounding)
    return grid.only(times) if breakpoints else grid


def as_sequence(steps: Any) -> Any:
    """A grid given as a tensor or an array, as a list of floats; anything else as it is."""
    if isinstance(steps, Tensor):
        return steps.item() if steps.ndim == 0 else steps.detach().flatten().to(torch.float64).tolist()
    return steps.tolist() if isinstance(steps, np.ndarray) else steps
