"""One clock for the batch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import Tensor

from sdeflow.solvers.clocks import Saves, Verdict, smallest_step
from sdeflow.solvers.controller import UNKNOWN, Controller, shared_size
from sdeflow.solvers.status import Status
from sdeflow.solvers.stepper import Step, Stepper

__all__ = ["SharedClock"]


class SharedClock:
    """One clock for the batch.

    Arguments:
        times: The save times.
        controller: What sets the steps.
        like: A state.
        shortest: The shortest step, unless it is cut short to land somewhere.
    """

    shared = True

    def __init__(self, times: Sequence[float], controller: Controller, like: Tensor, shortest: float = 0.0) -> None:
        self.times, self.controller = list(times), controller
        self.t, self.h = times[0], 0.0
        self.end = times[0]
        self.due = 1
        self.accepted = self.attempts = 0
        self.batch = len(like)
        self.like = like
        self.smallest = max(smallest_step(times), shortest)
        self.hardness = UNKNOWN  # log φ of the last step that was accepted
        self.outcome, self.stopped = Status.SUCCESS, times[-1]
        self.live: Tensor | None = None  # those whom no event has ended
        self.ended_at: Tensor | None = None
        self.all_ended = False

    @property
    def status(self) -> Tensor:
        """How each sample ended, ``(B,)``."""
        status = torch.full((self.batch,), int(self.outcome), device=self.like.device)
        return status if self.live is None else torch.where(self.live, status, int(Status.EVENT))

    @property
    def reached(self) -> Tensor:
        """How far each sample has come, float64 ``(B,)``."""
        reached = torch.full((self.batch,), self.stopped, dtype=torch.float64, device=self.like.device)
        return reached if self.ended_at is None else torch.minimum(reached, self.ended_at)

    def aim(self, high: float) -> None:
        """Go on to the end of the next segment."""
        if self.outcome is Status.SUCCESS:
            self.end = high

    def begin(self, h: float | Tensor) -> None:
        """Set the first step."""
        self.h = float(h)

    @property
    def going(self) -> int:
        """How many samples are under way."""
        return self.batch if self.t < self.end and not self.all_ended else 0

    @property
    def earliest(self) -> float:
        return self.t

    @property
    def tried(self) -> int:
        """How many steps it has tried."""
        return self.attempts

    @property
    def now(self) -> float:
        return self.t

    def propose(self, stepper: Stepper) -> Step:
        """The step to try."""
        bound = self.end if stepper.dense else min(self.end, self.times[self.due])
        left = bound - self.t
        self.lands = self.h >= left * (1 - 1e-10)
        h, t1 = left, bound
        if not self.lands:
            t1 = float(stepper.end(self.t, self.t + self.h))
            h = self.h if t1 == self.t + self.h else t1 - self.t
        self.step = Step(self.t, h, t1, h)
        return self.step

    def judge(self, error: Tensor) -> Verdict:
        """Accept or reject it, and set the next step; the one wait for the device."""
        size = self.size = shared_size(error if self.live is None else torch.where(self.live, error, 0.0))
        h, t1 = float(self.step.h), float(self.step.t1)
        self.attempts += 1
        factor, hardness = self.controller.number(size, h, self.hardness)
        proposed = h * factor
        if not size <= 1:  # also where it is NaN
            self.h = proposed
            return Verdict(None, False, not proposed >= self.smallest, False)
        # A step cut short to land somewhere says nothing against the length that was intended.
        self.h, self.hardness = max(proposed, self.h if self.lands else self.smallest), hardness
        self.accepted += 1
        return Verdict(None, True, False, self.due < len(self.times) and t1 >= self.times[self.due])

    def passed(self) -> list[Saves]:
        """The save times that the step has passed."""
        t, h, t1 = (float(v) for v in self.step[:3])
        first, self.due = self.due, bisect_right(self.times, t1)
        return [
            Saves(i, None, None if self.times[i] == t1 else (self.times[i] - t) / h) for i in range(first, self.due)
        ]

    def advance(self, verdict: Verdict) -> None:
        """Move to the end of a step that was accepted."""
        self.t = self.step.t1  # type: ignore[assignment]

    def charge(self, evaluations: int, rows: Tensor | None = None) -> None:
        """Count evaluations besides those of attempts; of a batch they are counted as they happen."""

    def give_up(self, status: Status) -> None:
        """End the solve where it is."""
        self.outcome, self.stopped, self.end = status, self.t, self.t

    def give_up_stuck(self) -> None:
        """End the solve: its steps have become too short."""
        self.give_up(Status.STEP_TOO_SMALL if math.isfinite(self.size) else Status.NON_FINITE)

    def finish(self, rows: Tensor, t: Tensor) -> None:
        """End some samples at an event inside the step."""
        if self.live is None or self.ended_at is None:
            self.live = torch.ones_like(rows)
            self.ended_at = torch.full_like(t, math.inf)
        self.live = self.live & ~rows
        self.ended_at = torch.where(rows, t, self.ended_at)
        self.all_ended = not bool(self.live.any())

    def vectors(self, verdict: Verdict) -> tuple[Tensor, Tensor, Tensor]:
        """The beginning and the length of the step, and where it was accepted, ``(B,)``."""
        t, h = (
            torch.full((self.batch,), float(v), dtype=torch.float64, device=self.like.device) for v in self.step[:2]
        )
        accepted = torch.full((self.batch,), verdict.some, device=self.like.device)
        return t, h, accepted if self.live is None else accepted & self.live

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Float64 ``(6, 1)`` and ``(1,)``: t, h, log φ, no error, steps taken and tried; and where it is to arrive."""
        numbers = [self.t, self.h, self.hardness, 0.0, self.accepted, self.attempts], [self.end]
        clock, end = (torch.tensor(values, dtype=torch.float64, device=self.like.device) for values in numbers)
        return clock[:, None], end

    def overtake(self, clocks: Tensor, lookups: int) -> None:
        """Be where steps that were taken elsewhere have led, with that many evaluations besides in each."""
        self.t, self.h, self.hardness, self.size, accepted, attempts = clocks.flatten().tolist()
        self.accepted, self.attempts = int(accepted), int(attempts)

    def come(self) -> Tensor:
        """How far each sample has come now."""
        t = torch.full((self.batch,), self.t, dtype=torch.float64, device=self.like.device)
        return t if self.ended_at is None else torch.minimum(t, self.ended_at)
