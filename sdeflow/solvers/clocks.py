"""The clocks of a batch: one that all samples share, numbers on the host, or one for each sample, vectors on the device.

A clock knows where it is, where its segment ends, how long a step to try next, and which save time it has passed last. The
two kinds answer the same questions; that of a batch costs no operation on tensors at all.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sdeflow.solvers.controller import Controller, shared_error
from sdeflow.solvers.status import Status
from sdeflow.solvers.stepper import Step, Stepper

__all__ = ["OwnClocks", "Saves", "SharedClock", "Verdict", "most"]


class Verdict(NamedTuple):
    """What became of an attempt.

    Attributes:
        accepted: Where it was accepted, ``(n,)``; None where that is everywhere.
        some: Whether it was accepted anywhere.
        stuck: Whether a step that was rejected may have been as short as can be.
        saves: Whether an accepted step has passed a save time.
    """

    accepted: Tensor | None
    some: bool
    stuck: bool
    saves: bool


class Saves(NamedTuple):
    """Save times that a step has passed.

    Attributes:
        save: Which save time it is: a number, or one for each of the rows.
        rows: Which rows of the samples under way have passed it; None for all.
        place: θ, where in the step, broadcasting against their states; None for the end of the step on all of them.
        at_end: Where θ is 1, of the shape of place.
    """

    save: int | Tensor
    rows: Tensor | None
    place: float | Tensor | None
    at_end: Tensor | None = None


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
        self.smallest = max(_smallest(times), shortest)
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
        """Accept or reject it, and set the next step; the one transfer from the device."""
        size = float(shared_error(error if self.live is None else torch.where(self.live, error, 0.0)))
        self.attempts += 1
        proposed = float(self.step.h) * self.controller.number(size)
        ok = size <= 1
        # A step cut short to land somewhere says nothing against the length that was intended.
        self.h = max(proposed, self.h if self.lands else self.smallest) if ok else proposed
        self.accepted += ok
        self.size = size
        stuck = not ok and not self.h >= self.smallest
        saves = ok and self.due < len(self.times) and bool(self.step.t1 >= self.times[self.due])
        return Verdict(None, ok, stuck, saves)

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
        """Float64 ``(5, 1)`` and ``(1,)``: t, h, no error, the steps taken and tried; and where the clock is to arrive."""
        numbers = [self.t, self.h, 0.0, self.accepted, self.attempts], [self.end]
        clock, end = (torch.tensor(values, dtype=torch.float64, device=self.like.device) for values in numbers)
        return clock[:, None], end

    def overtake(self, clocks: Tensor, lookups: int) -> None:
        """Be where steps that were taken elsewhere have led, with that many evaluations besides in each."""
        self.t, self.h, self.size, accepted, attempts = clocks.flatten().tolist()
        self.accepted, self.attempts = int(accepted), int(attempts)

    def come(self) -> Tensor:
        """How far each sample has come now."""
        t = torch.full((self.batch,), self.t, dtype=torch.float64, device=self.like.device)
        return t if self.ended_at is None else torch.minimum(t, self.ended_at)


class OwnClocks:
    """A clock for each sample."""

    shared = False

    def __init__(self, times: Sequence[float], controller: Controller, like: Tensor, shortest: float = 0.0) -> None:
        self.controller = controller
        batch, device = len(like), like.device
        self.times = torch.tensor([*times, math.inf], dtype=torch.float64, device=device)
        self.t = torch.full((batch,), times[0], dtype=torch.float64, device=device)
        self.h = torch.zeros_like(self.t)
        self.end, self.high = self.t, times[0]
        self.due = torch.ones(batch, dtype=torch.int64, device=device)
        self.next_save = self.times[self.due]
        self.alive = torch.ones(batch, dtype=torch.bool, device=device)  # not given up
        self.rows = torch.arange(batch, device=device)
        self.shortest, self.smallest = shortest, max(_smallest(times), shortest)
        self.width = (like.dtype, [1] * (like.ndim - 1))
        self.going, self.count = 0, batch
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        self.accepted, self.attempts, self.base = zeros, zeros.clone(), zeros.clone()
        # Of all samples, those that have left the batch included.
        self.status = torch.full((batch,), int(Status.SUCCESS), device=device)
        self.reached = torch.full_like(self.t, times[-1])
        self.totals = {name: getattr(self, name) for name in COUNTS}

    def aim(self, high: float) -> None:
        self.high = high
        self.end = torch.where(self.alive, high, self.t)
        self.going = int(self.alive.sum())

    def begin(self, h: float | Tensor) -> None:
        self.h = h if isinstance(h, Tensor) else torch.full_like(self.t, h)

    @property
    def earliest(self) -> float:
        return float(torch.where(self.t < self.end, self.t, self.high).min())

    def propose(self, stepper: Stepper) -> Step:
        bound = self.end if stepper.dense else torch.minimum(self.end, self.next_save)
        left = bound - self.t
        self.lands = self.h >= left * (1 - 1e-10)
        self.moving = left > 0
        t1 = self.t + torch.minimum(self.h, left)
        end = stepper.end(self.t, t1)
        h = torch.minimum(self.h, left) if end is t1 else torch.where(self.lands, left, end - self.t)
        t1 = torch.where(self.lands, bound, end)
        dtype, axes = self.width
        self.step = Step(self.t, h, t1, h.to(dtype).reshape(-1, *axes))
        return self.step

    def judge(self, error: Tensor) -> Verdict:
        h, t1 = self.step.h, self.step.t1
        assert isinstance(h, Tensor) and isinstance(t1, Tensor)
        ok = error <= 1  # not so where it is NaN
        accepted = ok & self.moving
        proposed = h * self.controller.vector(error)
        self.h = torch.where(ok & self.lands, torch.maximum(proposed, self.h), proposed)
        if self.shortest:
            self.h = torch.where(ok, self.h.clamp_min(self.shortest), self.h)
        self.accepted += accepted
        self.attempts += self.moving
        self.saved = accepted & (t1 >= self.next_save)
        self.error = error
        # All that the loop has to know, in one transfer from the device.
        short = self.moving & (self.h < self.smallest)
        flags = torch.stack([accepted, self.saved, accepted & (t1 >= self.end), short]).sum(1)
        here, saves, arrived, stuck = flags.tolist()
        self.going -= arrived
        return Verdict(None if here == self.count else accepted, here > 0, stuck > 0, saves > 0)

    def passed(self) -> list[Saves]:
        t, h, t1 = self.step.t, self.step.h, self.step.t1
        assert isinstance(t, Tensor) and isinstance(h, Tensor) and isinstance(t1, Tensor)
        found: list[Saves] = []
        passes = self.saved
        while True:
            rows = passes.nonzero().flatten()
            if not len(rows):
                return found
            index = self.due[rows]
            target = self.times[index]
            at_end = target == t1[rows]
            place = None if bool(at_end.all()) else (target - t[rows]) / h[rows]
            found.append(Saves(index, rows, None if place is None else self.wide(place), self.wide(at_end)))
            self.due = self.due + passes
            self.next_save = self.times[self.due]
            passes = passes & (t1 >= self.next_save)

    def wide(self, v: Tensor) -> Tensor:
        dtype, axes = self.width
        return (v if v.dtype is torch.bool else v.to(dtype)).reshape(-1, *axes)

    def advance(self, verdict: Verdict) -> None:
        t1 = self.step.t1
        assert isinstance(t1, Tensor)
        self.t = t1 if verdict.accepted is None else torch.where(verdict.accepted, t1, self.t)

    def charge(self, evaluations: int, rows: Tensor | None = None) -> None:
        if rows is None:
            self.base += evaluations
        else:
            self.base[rows] += evaluations

    def give_up(self, status: Status, on: Tensor | None = None) -> None:
        """End the solve where it is, on those that are under way and in the mask."""
        on = self.t < self.end if on is None else on
        count = int(on.sum())
        if count:
            self.status[self.rows[on]] = int(status)
            self.reached[self.rows[on]] = self.t[on]
            self.alive = self.alive & ~on
            self.end = torch.where(on, self.t, self.end)
            self.going -= count

    def give_up_stuck(self) -> None:
        stuck = (self.t < self.end) & ~(self.error <= 1) & ~(self.h >= self.smallest)
        finite = self.error.isfinite()
        self.give_up(Status.NON_FINITE, stuck & ~finite)
        self.give_up(Status.STEP_TOO_SMALL, stuck & finite)

    def finish(self, rows: Tensor, t: Tensor) -> None:
        t1 = self.step.t1
        assert isinstance(t1, Tensor)
        self.going -= int((rows & (t1 < self.end)).sum())
        t1 = torch.where(rows, t, t1)
        self.step = self.step._replace(t1=t1)
        self.end = torch.where(rows, t, self.end)
        self.saved = self.saved & (t1 >= self.next_save)
        self.alive = self.alive & ~rows
        self.status[self.rows[rows]] = int(Status.EVENT)
        self.reached[self.rows[rows]] = t[rows]

    def vectors(self, verdict: Verdict) -> tuple[Tensor, Tensor, Tensor]:
        t, h = self.step[:2]
        assert isinstance(t, Tensor) and isinstance(h, Tensor)
        return t, h, torch.ones_like(self.alive) if verdict.accepted is None else verdict.accepted

    def tensors(self) -> tuple[Tensor, Tensor]:
        counts = (self.accepted.double(), self.attempts.double())
        return torch.stack([self.t, self.h, torch.zeros_like(self.t), *counts]), self.end

    def overtake(self, clocks: Tensor, lookups: int) -> None:
        self.t, self.h, self.error, accepted, attempts = clocks.unbind()
        self.base = self.base + lookups * (attempts.long() - self.attempts)
        self.accepted, self.attempts = accepted.long(), attempts.long()
        self.going = int((self.t < self.end).sum())

    def come(self) -> Tensor:
        return self.t

    def narrow(self, keep: Tensor) -> None:
        """Go on with some rows only."""
        self.put_away()
        self.count = len(keep)
        for name in ("t", "h", "end", "due", "next_save", "alive", "rows", *COUNTS):
            setattr(self, name, getattr(self, name)[keep])

    def put_away(self) -> None:
        """Take the counts of the samples in the batch to the totals."""
        for name in COUNTS:
            self.totals[name] = self.totals[name].index_put((self.rows,), getattr(self, name))


COUNTS = ("accepted", "attempts", "base")


def most(count: int | Tensor) -> int:
    """A count, and of those of all samples the greatest."""
    return int(count.max()) if isinstance(count, Tensor) else count


def _smallest(times: Sequence[float]) -> float:
    """A step that changes no digit of t is no step."""
    return 4 * torch.finfo(torch.float64).eps * max(abs(times[0]), abs(times[-1]))
