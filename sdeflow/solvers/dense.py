"""Dense output: the polynomials of all accepted steps, to be asked for the solution at any time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.solvers.stepper import horner

__all__ = ["Dense"]


class Dense:
    """The solution between the save times.

    Arguments:
        low: The first time of the solve, on its own clock.
        high: The last.
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.total: float | None = None  # t0 + t1 where the caller's clock runs the other way
        self.failed: Tensor | None = None  # which samples did not come to the end, ``(B,)``
        self.starts: list[Tensor] = []
        self.lengths: list[Tensor] = []
        self.ends: list[Tensor] = []
        self.coefficients: list[Tensor] = []

    def record(self, t: Tensor, h: Tensor, end: Tensor, coefficients: Tensor) -> None:
        """Keep a step; ``end`` is how far each clock has come after it, which is no further where it was rejected."""
        self.starts.append(t)
        self.lengths.append(h)
        self.ends.append(end)
        self.coefficients.append(coefficients)

    def __call__(self, t: Any) -> Tensor:
        """The states at a time, ``(B, *event)``, or at times ``(K,)``, ``(K, B, *event)``; NaN where a sample did not come."""
        time = torch.as_tensor(t, dtype=torch.float64, device=self.ends[0].device)
        vector = time.ndim == 1
        if time.ndim > 1:
            raise ArgumentError(f"the times have shape {tuple(time.shape)}; give a number or a vector of them.")
        time = time.reshape(-1)
        at = time if self.total is None else self.total - time
        slack = 1e-12 * (self.high - self.low)
        outside = ~((at >= self.low - slack) & (at <= self.high + slack))  # NaN as well
        if bool(outside.any()):
            raise ArgumentError(
                f"the solution is asked for at t = {time[outside][0]:g}, outside the span that was solved."
            )
        at = at.clamp(self.low, self.high)
        ends = torch.stack(self.ends)  # (steps, clocks), increasing
        beyond = at[:, None] > ends[-1]
        at = torch.minimum(at[:, None], ends[-1])  # a sample that an event has ended stays where it is
        step = (ends[:, None] < at).sum(0)  # (K, clocks)
        clock = torch.arange(ends.shape[1], device=step.device).expand_as(step)
        start, length = torch.stack(self.starts)[step, clock], torch.stack(self.lengths)[step, clock]
        place = torch.where(length > 0, (at - start) / length, 0.0)
        c = torch.stack(self.coefficients, 1)  # (degree + 1, steps, B, *event)
        rows = torch.arange(c.shape[2], device=c.device)
        chosen = c[:, step.expand(len(step), len(rows)), rows]
        value = horner(chosen, place.to(c.dtype).reshape(len(place), -1, *[1] * (c.ndim - 3)))
        if self.failed is not None:
            never = beyond.expand(len(step), len(rows)) & self.failed
            value = value.masked_fill(never.reshape(*never.shape, *[1] * (value.ndim - 2)), float("nan"))
        return value if vector else value[0]
