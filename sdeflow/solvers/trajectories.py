"""The adaptive loop: it exists once, for every stepper and for both kinds of clocks.

An attempt is judged, its save times are looked up, the samples move on where it was accepted, and those that have arrived
leave the batch when that pays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from sdeflow.solvers.ahead import Ahead
from sdeflow.solvers.clocks import Saves, Verdict
from sdeflow.solvers.controller import Controller, Tolerance
from sdeflow.solvers.dense import Dense
from sdeflow.solvers.events import Watch
from sdeflow.solvers.explicit import ExplicitRungeKutta
from sdeflow.solvers.job import Job
from sdeflow.solvers.own_clocks import OwnClocks
from sdeflow.solvers.replay import Taken, again, still_where_rejected, value_at
from sdeflow.solvers.shared_clock import SharedClock
from sdeflow.solvers.status import Status
from sdeflow.solvers.stepper import Stepper

__all__ = ["Trajectories"]

CHECKS = 16  # of stiffness, that are remembered
PAYS = 0.6  # the batch is narrowed when at most this part of it is still under way; that costs an evaluation


class Trajectories:
    """The samples of a solve, where they are, and what has been saved of them.

    Arguments:
        job: The solve.
        stepper: What takes its steps.
        remember: Whether the steps are to be taken :meth:`again`.
    """

    def __init__(self, job: Job, stepper: Stepper, remember: bool = False) -> None:
        self.job, self.stepper, self.x = job, stepper, job.x0
        self.tolerance = Tolerance.of(job.rtol, job.atol, getattr(job.process, "error_mask", None), job.x0)
        shared = job.stepping == "shared"
        controller = Controller(stepper.error_order, shared, noisy=job.brownian is not None)
        self.clocks = (SharedClock if shared else OwnClocks)(
            job.times, controller, job.x0, max(stepper.smallest, job.min_step)
        )
        self.saved: list[tuple[int | Tensor, Tensor | None, Tensor]] = []
        self.watch = Watch(job.events) if job.events else None
        self.ended_x = job.x0
        self.dense = Dense(job.times[0], job.times[-1]) if job.dense else None
        self.taken: list[Taken] | None = [] if remember else None
        self.can_narrow = not (shared or job.events or job.dense or remember)
        self.graph = torch.is_grad_enabled() and not remember
        self.rates: deque[Tensor] = deque(maxlen=CHECKS)
        self.ahead: Ahead | None = None
        if job.compile:
            assert isinstance(stepper, ExplicitRungeKutta)
            self.ahead = Ahead(job, stepper, self.clocks, self.tolerance)

    def run(self) -> None:
        """From the first save time to the last, segment by segment between the times at which a coefficient jumps."""
        job = self.job
        for low, high in pairwise((job.times[0], *job.breakpoints, job.times[-1])):
            self.clocks.aim(high)
            if self.clocks.going:
                self.cross(low, high)
        if self.ahead is not None and self.ahead.possible:
            self.saved += self.ahead.saves(self.clocks, self.x)

    def cross(self, low: float, high: float) -> None:
        """Take all samples from one time to another."""
        clocks, job, stepper = self.clocks, self.job, self.stepper
        self.segment = (low, high)
        clocks.charge(stepper.start(low, high, clocks.now, self.x))
        if low == job.times[0]:
            if job.first_step is None:
                clocks.begin(stepper.first_step(self.tolerance, clocks.now, self.x, high - low))
                clocks.charge(1)
            else:
                clocks.begin(min(job.first_step, high - low))
            if self.watch is not None:
                self.watch.start(clocks.come(), self.x)
        if self.ahead is not None:
            self.x = self.ahead.run(clocks, self.x)
            if clocks.going and self.ahead.steps:  # max_steps: an attempt, to see whether the problem is stiff
                self.stepper.attempt(clocks.propose(stepper), self.x)
        last = high == job.times[-1]
        attempts = clocks.tried
        while clocks.going:
            if attempts == job.max_steps:
                self.check_stiffness()
                clocks.give_up(Status.MAX_STEPS)
                return
            attempts += 1
            self.step()
            if not attempts % 16:
                job.progress(clocks.earliest)
            if not attempts % 64:
                self.check_stiffness()
            if self.can_narrow and last and 0 < clocks.going <= PAYS * self.x.shape[0]:
                self.narrow()
        job.progress(high)

    def step(self) -> None:
        """Try one step."""
        clocks, stepper = self.clocks, self.stepper
        step = clocks.propose(stepper)
        x1, estimates = stepper.attempt(step, self.x)
        if self.graph:
            with torch.no_grad():
                verdict = clocks.judge(self.tolerance.error(estimates, self.x, x1))
        else:
            verdict = clocks.judge(self.tolerance.error(estimates, self.x, x1))
        self.polynomial: Tensor | None = None
        if verdict.some and verdict.accepted is not None:
            # A row that was rejected has a gradient of 0, but 0·∞ is NaN, and parameters are shared with the other rows. The
            # product of the derivatives of all stages overflows before the state itself does.
            wild = x1.requires_grad and not bool(x1.detach().abs().amax() < torch.finfo(x1.dtype).max ** (1 / 16))
            if wild or self.taken is not None:
                step = still_where_rejected(step, verdict.accepted, self.wide(verdict.accepted))
            if wild:
                x1 = stepper.attempt(step, self.x).x
        if self.watch is not None and verdict.some:
            x1 = self.look_out(self.watch, x1, verdict)
        passed = clocks.passed() if verdict.saves else []
        self.save(x1, passed)
        if verdict.some:
            polynomial = None if self.dense is None else self.look_up()
            mask = None if verdict.accepted is None else self.wide(verdict.accepted)
            if self.taken is not None:
                self.taken.append(Taken(*self.segment, step, mask, passed))
            self.x = x1 if mask is None else torch.where(mask, x1, self.x)
            stepper.advance(verdict.accepted)
            clocks.advance(verdict)
            if self.dense is not None and polynomial is not None:
                t, h, _ = clocks.vectors(verdict)
                self.dense.record(t, h, clocks.come(), polynomial)
        if verdict.stuck:
            clocks.give_up_stuck()

    def look_up(self, rows: Tensor | None = None) -> Tensor:
        """The polynomial through the step, made when it is first asked for, on account of those rows."""
        if self.polynomial is None:
            self.polynomial = self.stepper.polynomial()
            self.clocks.charge(self.stepper.lookups, rows)
        return self.polynomial

    def look_out(self, watch: Watch, x1: Tensor, verdict: Verdict) -> Tensor:
        """The states at the end of the step, where events end some samples at those."""
        clocks = self.clocks
        if isinstance(clocks, SharedClock) and clocks.live is not None:  # those who have ended stay where they are
            x1 = torch.where(self.wide(clocks.live), x1, self.x)
        t, h, accepted = clocks.vectors(verdict)
        ended = watch.look(t, h, x1, accepted, self.look_up)
        if ended is None:
            return x1
        mask = self.wide(ended.rows)
        self.ended_x = torch.where(mask, ended.x, self.ended_x)
        clocks.finish(ended.rows, ended.t.detach())
        return torch.where(mask, ended.x, x1)

    def wide(self, mask: Tensor) -> Tensor:
        """A mask over the samples, broadcasting against their states."""
        return mask.reshape(-1, *[1] * (self.x.ndim - 1))

    def check_stiffness(self) -> None:
        """Note h ρ, so that a failure can be told from stiffness; nothing is transferred from the device."""
        rate = self.stepper.stiffness()
        if rate is not None:
            self.rates.append(rate)

    def save(self, x1: Tensor, passed: list[Saves]) -> None:
        """Look up the states at the save times that the step has passed."""
        for saves in passed:
            value = value_at(saves, x1, lambda saves=saves: self.look_up(saves.looking()))  # type: ignore[misc]
            rows = saves.rows
            samples = self.clocks.samples(rows) if isinstance(self.clocks, OwnClocks) and rows is not None else None
            self.saved.append((saves.save, samples, value))

    def again(self, stepper: Callable[[], Stepper]) -> None:
        """Take the steps again, now with a graph."""
        assert self.taken is not None
        values = again(self.taken, stepper, self.job.x0)
        self.saved = [(save, samples, value) for (save, samples, _), value in zip(self.saved, values, strict=True)]

    def narrow(self) -> None:
        """Go on with those that are still under way."""
        clocks = self.clocks
        assert isinstance(clocks, OwnClocks)
        keep = clocks.under_way()
        if self.stepper.narrow(keep, clocks.now, self.x):
            self.x = self.x[keep]
            clocks.narrow(keep)
            self.rates.clear()
        else:
            self.can_narrow = False

    def states(self) -> Tensor:
        """The states at the save times, ``(T, B, *event)``; NaN where a sample has not come so far."""
        x0, count = self.job.x0, len(self.job.times)
        if isinstance(self.clocks, SharedClock):
            states = torch.stack([x0, *(value for _, _, value in self.saved)])
            if len(states) < count and self.clocks.live is not None:
                states = torch.cat([states, x0.new_full((count - len(states), *x0.shape), float("nan"))])
        else:
            every = torch.arange(len(x0), device=x0.device)
            saves = torch.cat([torch.zeros_like(every), *(s for s, _, _ in self.saved if isinstance(s, Tensor))])
            rows = torch.cat([every, *(r for _, r, _ in self.saved if r is not None)])
            empty = x0.new_full((count, *x0.shape), float("nan"))
            states = empty.index_put((saves, rows), torch.cat([x0, *(value for _, _, value in self.saved)]))
        if self.watch is None:
            return states
        times = torch.tensor(self.job.times, dtype=torch.float64, device=x0.device)[: len(states), None]
        after = (self.clocks.status == Status.EVENT) & (times > self.clocks.reached)
        return torch.where(after.reshape(*after.shape, *[1] * (x0.ndim - 1)), self.ended_x, states)
