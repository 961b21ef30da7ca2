"""A part of a schedule: where an end of it is out of reach."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import check_interval
from sdeflow.processes.schedule import Schedule

__all__ = ["Window"]


class Window(Schedule, by_value=True):
    """A schedule on a part of its interval, with its clock as it was.

    Arguments:
        original: The schedule.
        interval: (t0, t1) within that of the original.

    Raises:
        ArgumentError: It is not within it.
    """

    def __init__(self, original: Schedule, interval: tuple[float, float]) -> None:
        start, end = check_interval(interval)
        if start < original.interval[0] or end > original.interval[1]:
            raise ArgumentError(
                f"interval={interval!r} is not within {original.interval}, where the schedule is known."
            )
        self.original, self.interval = original, (start, end)

    def a(self, t: Tensor) -> Tensor:
        return self.original.a(t)

    def a_dot(self, t: Tensor) -> Tensor:
        return self.original.a_dot(t)

    def variance(self, t: Tensor) -> Tensor:
        return self.original.variance(t)

    def variance_dot(self, t: Tensor) -> Tensor:
        return self.original.variance_dot(t)

    def s(self, t: Tensor) -> Tensor:
        return self.original.s(t)

    def s_dot(self, t: Tensor) -> Tensor:
        return self.original.s_dot(t)

    def drift_rate(self, t: Tensor) -> Tensor:
        return self.original.drift_rate(t)

    def squared_diffusion(self, t: Tensor) -> Tensor:
        return self.original.squared_diffusion(t)

    def log_snr(self, t: Tensor) -> Tensor:
        return self.original.log_snr(t)

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.original.levels(t)

    def time_of_log_snr(self, value: Any) -> Tensor:
        return self.original.time_of_log_snr(value).clamp(*self.interval)
