"""The velocity of a process as steppers call it: times prepared for all stages at once, evaluations counted.

The interval is never left and its ends are never rounded onto: in float32 the stages near an end are moved inward by one
rounding unit, and where a coefficient jumps at an end of the segment that is being crossed, it is not asked there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor

from sdeflow.processes.boundary import check_field, innermost, rounding_unit, state_time
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.solvers.job import Counter

__all__ = ["Velocity"]


class Velocity:
    """f(t, x) for a solve over a span of time.

    Arguments:
        process: The process.
        x: A state, for its dtype, device and number of axes.
        span: The first time of the solve and the last.
        jumps: Whether coefficients jump at the ends of segments.
        counter: What counts the evaluations.
    """

    def __init__(self, process: Process, x: Tensor, span: tuple[float, float], jumps: bool, counter: Counter) -> None:
        self.process, self.function = process, _function(process)
        self.counter = counter
        self.jumps = jumps
        self.span = span
        self.axes = [1] * (x.ndim - 1)
        self.dtype = torch.float64 if process.precise_time else x.dtype
        self.device = x.device
        self.unit = rounding_unit(x, *process.interval, *span)
        self.columns: dict[tuple[float, ...], Tensor] = {}
        self.within(*span)

    def within(self, low: float, high: float) -> None:
        """Set the segment that is being crossed."""
        start, end = self.process.interval
        self.lowest, self.highest = self.span
        if self.dtype is not torch.float64:
            # In x's dtype a time near an end may round onto it, where a score is infinite: the stages stay inside.
            inward = innermost((start, end), self.dtype)
            self.lowest = max(inward[0], self.lowest) if self.lowest >= start else self.lowest
            self.highest = min(inward[1], self.highest) if self.highest <= end else self.highest
        if self.jumps:
            self.lowest, self.highest = max(low + self.unit, self.lowest), min(high - self.unit, self.highest)

    def at(self, t: float | Tensor, x: Tensor) -> Tensor:
        """f at one time for each clock: a number, or a float64 vector ``(n,)``."""
        self.counter.drift += 1
        return self.function(self.time(t, x), x)

    def time(self, t: float | Tensor, x: Tensor) -> Tensor:
        """A time as the process wants it."""
        time = torch.as_tensor(t, dtype=torch.float64, device=self.device)
        if self.jumps:
            time = time.clamp(self.lowest, self.highest)
        if time.ndim:
            time = time.reshape(-1, *self.axes)
        return time if self.process.precise_time else state_time(time, x, self.process.interval)

    def times(
        self, t: float | Tensor, h: float | Tensor, t1: float | Tensor, places: tuple[float, ...]
    ) -> Sequence[Tensor]:
        """The times t + c h of the stages of a step to t1, each as the process wants it; c = 1 is t1 itself."""
        low, high = self.lowest, self.highest
        if isinstance(t, Tensor):
            assert isinstance(h, Tensor)
            if places not in self.columns:
                self.columns[places] = t.new_tensor(places)[:, None]
            rows = torch.addcmul(t, self.columns[places], h).clamp_(low, high)
            return rows.to(self.dtype).view(len(places), -1, *self.axes).unbind()
        assert isinstance(h, float) and isinstance(t1, float)
        values = np.array([min(max(t1 if c == 1 else t + c * h, low), high) for c in places])
        return torch.from_numpy(values).to(self.device, self.dtype).unbind()  # a list takes three times as long

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor, f: Tensor) -> Velocity | None:
        """This for some rows only, if it has there the velocity f that it had among all: else it has data for each row."""
        narrow = copy(self)
        narrow.process = self.process.rows(keep)
        narrow.function = _function(narrow.process)
        try:
            with torch.no_grad():
                return narrow if torch.allclose(narrow.at(t, x), f, rtol=1e-3, atol=1e-6) else None
        except Exception:  # a velocity with data of its own for each row cannot be asked about some of them
            return None


def _function(process: Process) -> Callable[[Tensor, Tensor], Tensor]:
    """The drift of a process, for times that are prepared: a plain ODE's without the layers that would prepare them."""
    if type(process) is ODE and process.velocity_function is not None:
        function = process.velocity_function

        def checked(t: Tensor, x: Tensor) -> Tensor:
            value = function(t, x)
            if type(value) is Tensor and value.dtype is x.dtype and value.shape == x.shape:
                return value  # without another call
            return check_field("velocity", value, x)

        return checked
    return process.drift
