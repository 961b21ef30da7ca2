"""A clock for each sample: float64 vectors on the host.

A dozen short vectors are added and compared in a step, and on the host that costs a third of what it costs as tensors. Errors
come from the device once in a step, and times and masks go there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdeflow.solvers.clocks import Saves, Verdict, smallest_step
from sdeflow.solvers.controller import UNKNOWN, Controller
from sdeflow.solvers.status import Status
from sdeflow.solvers.stepper import Step, Stepper

__all__ = ["OwnClocks"]

Array = NDArray[Any]

COUNTS = ("accepted", "attempts", "base")


class OwnClocks:
    """A clock for each sample. What has been handed out as a tensor is never written on.

    Arguments:
        times: The save times.
        controller: What sets the steps.
        like: A state.
        shortest: The shortest step, unless it is cut short to land somewhere.
    """

    shared = False

    def __init__(self, times: Sequence[float], controller: Controller, like: Tensor, shortest: float = 0.0) -> None:
        self.controller = controller
        batch = len(like)
        self.times = np.array([*times, math.inf])
        self.t, self.h = np.full(batch, times[0]), np.zeros(batch)
        self.end, self.high = self.t, times[0]
        self.due = np.ones(batch, dtype=np.int64)
        self.next_save = self.times[self.due]
        self.hardness = np.full(batch, UNKNOWN)  # log φ of the last step that was accepted
        self.alive = np.ones(batch, dtype=bool)  # not given up
        self.rows = np.arange(batch)
        self.smallest = max(smallest_step(times), shortest)
        self.on_host = like.device.type == "cpu"
        self.device, self.dtype, self.axes = like.device, like.dtype, [1] * (like.ndim - 1)
        self.going, self.count = 0, batch
        self.accepted, self.attempts, self.base = (np.zeros(batch, dtype=np.int64) for _ in COUNTS)
        # Of all samples, those that have left the batch included.
        self.ended = np.full(batch, int(Status.SUCCESS))
        self.came = np.full(batch, times[-1])
        self.totals: dict[str, Array] = {name: getattr(self, name).copy() for name in COUNTS}

    def tensor(self, array: Array) -> Tensor:
        """On the device; on the host the same memory."""
        tensor = torch.from_numpy(array)
        return tensor if self.on_host else tensor.to(self.device)

    @property
    def status(self) -> Tensor:
        """How each sample ended, ``(B,)``."""
        return self.tensor(self.ended)

    @property
    def reached(self) -> Tensor:
        """How far each sample has come, float64 ``(B,)``."""
        return self.tensor(self.came)

    @property
    def now(self) -> Tensor:
        return self.tensor(self.t)

    def aim(self, high: float) -> None:
        self.high = high
        self.end = np.where(self.alive, high, self.t)
        self.going = int(np.count_nonzero(self.alive))

    def begin(self, h: float | Tensor) -> None:
        self.h = h.numpy(force=True).copy() if isinstance(h, Tensor) else np.full_like(self.t, h)

    @property
    def earliest(self) -> float:
        return float(np.where(self.t < self.end, self.t, self.high).min())

    def propose(self, stepper: Stepper) -> Step:
        t, h = self.t, self.h
        bound = self.bound = self.end if stepper.dense else np.minimum(self.end, self.next_save)
        left = bound - t
        self.moving = left > 0
        lands = self.lands = h >= left * (1 - 1e-10)
        length = np.minimum(h, left)
        there = t + length
        start, end = self.tensor(t), self.tensor(there)
        moved = stepper.end(start, end)
        if moved is end:
            self.length = length
            np.copyto(there, bound, where=lands)
        else:
            assert isinstance(moved, Tensor)
            there = moved.numpy(force=True)
            self.length = np.where(lands, left, there - t)
            there = np.where(lands, bound, there)
            end = self.tensor(there)
        self.there = there
        width = self.tensor(self.length)
        self.step = Step(start, width, end, width.to(self.dtype).view(-1, *self.axes))
        return self.step

    def judge(self, error: Tensor) -> Verdict:
        self.error = size = error.numpy(force=True).astype(np.float64)
        moving, lands, there = self.moving, self.lands, self.there
        ok = size <= 1  # not so where it is NaN
        accepted = self.took = ok & moving
        factor, hardness = self.controller.vector(size, self.length, self.hardness)
        proposed = self.length * factor
        landed = np.count_nonzero(lands) > 0
        if landed:
            proposed = np.where(ok & lands, np.maximum(proposed, self.h), proposed)
        short, stuck = proposed < self.smallest, False
        if np.count_nonzero(short):
            stuck = bool(np.count_nonzero(moving & short & ~ok))
            proposed = np.where(short & ok, self.smallest, proposed)
        self.h = proposed
        self.hardness = np.where(accepted, hardness, self.hardness)
        self.accepted += accepted
        self.attempts += moving
        self.saved = accepted & (there >= self.next_save)
        here = int(np.count_nonzero(accepted))
        if landed:
            self.going -= int(np.count_nonzero(accepted & (there >= self.end)))
        return Verdict(
            None if here == self.count else self.tensor(accepted),
            here > 0,
            stuck,
            bool(np.count_nonzero(self.saved)),
        )

    def passed(self) -> list[Saves]:
        found: list[Saves] = []
        there, passes = self.there, self.saved
        while True:
            rows = passes.nonzero()[0]
            if not len(rows):
                return found
            index = self.due[rows]
            target = self.times[index]
            at_end = target == there[rows]
            place = None if at_end.all() else self.wide((target - self.t[rows]) / self.length[rows])
            found.append(Saves(self.tensor(index), self.tensor(rows), place, self.wide(at_end)))
            self.due = self.due + passes
            self.next_save = self.times[self.due]
            passes = passes & (there >= self.next_save)

    def wide(self, v: Array) -> Tensor:
        tensor = self.tensor(v)
        return (tensor if tensor.dtype is torch.bool else tensor.to(self.dtype)).view(-1, *self.axes)

    def advance(self, verdict: Verdict) -> None:
        self.t = self.there if verdict.accepted is None else np.where(self.took, self.there, self.t)

    def charge(self, evaluations: int, rows: Tensor | None = None) -> None:
        if rows is None:
            self.base += evaluations
        else:
            self.base[rows.numpy(force=True)] += evaluations

    def give_up(self, status: Status, on: Array | None = None) -> None:
        """End the solve where it is, on those that are under way and in the mask."""
        on = self.t < self.end if on is None else on
        count = int(np.count_nonzero(on))
        if count:
            self.ended[self.rows[on]] = int(status)
            self.came[self.rows[on]] = self.t[on]
            self.alive = self.alive & ~on
            self.end = np.where(on, self.t, self.end)
            self.going -= count

    def give_up_stuck(self) -> None:
        stuck = (self.t < self.end) & ~(self.error <= 1) & ~(self.h >= self.smallest)
        finite = np.isfinite(self.error)
        self.give_up(Status.NON_FINITE, stuck & ~finite)
        self.give_up(Status.STEP_TOO_SMALL, stuck & finite)

    def finish(self, rows: Tensor, t: Tensor) -> None:
        """End some samples at an event inside the step."""
        on, when = rows.numpy(force=True), t.numpy(force=True)
        self.going -= int(np.count_nonzero(on & (self.there < self.end)))
        self.there = np.where(on, when, self.there)
        self.step = self.step._replace(t1=self.tensor(self.there))
        self.end = np.where(on, when, self.end)
        self.saved = self.saved & (self.there >= self.next_save)
        self.alive = self.alive & ~on
        self.ended[self.rows[on]] = int(Status.EVENT)
        self.came[self.rows[on]] = when[on]

    def vectors(self, verdict: Verdict) -> tuple[Tensor, Tensor, Tensor]:
        """The beginning and the length of the step, and where it was accepted, ``(B,)``."""
        t, h = self.step[:2]
        assert isinstance(t, Tensor) and isinstance(h, Tensor)
        return t, h, self.tensor(self.took) if verdict.accepted is None else verdict.accepted

    def tensors(self) -> tuple[Tensor, Tensor]:
        """As that of a shared clock, ``(6, n)`` and ``(n,)``."""
        zeros = np.zeros_like(self.t)
        clocks = np.stack([self.t, self.h, self.hardness, zeros, self.accepted, self.attempts])
        return self.tensor(clocks), self.tensor(self.end)

    def overtake(self, clocks: Tensor, lookups: int) -> None:
        """Be where steps that were taken elsewhere have led, with that many evaluations besides in each."""
        self.t, self.h, self.hardness, self.error, accepted, attempts = clocks.numpy(force=True)
        counts = attempts.astype(np.int64)
        self.base += lookups * (counts - self.attempts)
        self.accepted, self.attempts = accepted.astype(np.int64), counts
        self.going = int(np.count_nonzero(self.t < self.end))

    def come(self) -> Tensor:
        """How far each sample has come now."""
        return self.tensor(self.t)

    @property
    def tried(self) -> int:
        """How many steps the busiest sample has tried."""
        return int(self.attempts.max())

    def samples(self, rows: Tensor) -> Tensor:
        """Which samples are in those rows."""
        return self.tensor(self.rows[rows.numpy(force=True)])

    def under_way(self) -> Tensor:
        """Which rows are."""
        return self.tensor((self.t < self.end).nonzero()[0])

    def narrow(self, keep: Tensor) -> None:
        """Go on with some rows only."""
        self.put_away()
        self.count, rows = len(keep), keep.numpy(force=True)
        for name in ("t", "h", "end", "due", "next_save", "hardness", "alive", "rows", *COUNTS):
            setattr(self, name, getattr(self, name)[rows])

    def put_away(self) -> None:
        """Take the counts of the samples in the batch to the totals."""
        for name in COUNTS:
            self.totals[name][self.rows] = getattr(self, name)
