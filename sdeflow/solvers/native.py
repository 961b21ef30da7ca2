"""Fixed steps: the one loop, for every native method, with noise or without."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdeflow.processes.boundary import rounding_unit, state_times
from sdeflow.solvers.fused import fused
from sdeflow.solvers.increments import Increments
from sdeflow.solvers.job import Counter, Job, Outcome
from sdeflow.solvers.native_methods import STEPPERS
from sdeflow.solvers.status import Status
from sdeflow.solvers.terms import Terms
from sdeflow.types import Times

__all__ = ["run"]

CHUNK = 1024  # steps whose times are prepared together
TOGETHER = 64  # steps at most between two moves of the progress bar
NOTHING = (None, None)  # the noise of a process that has none

Saved = list[Tensor]


def run(job: Job) -> Outcome:
    """Step through the grid: plainly, in spans that the backward pass takes again, or in compiled blocks."""
    steps = FixedSteps(job)
    extra: dict[str, Any] = {}
    if job.compile:
        saved = _compiled(job, steps, extra)
    elif job.gradient == "checkpoint" and torch.is_grad_enabled():
        saved = _checkpointed(steps)
    else:
        _, _, saved = steps.span(0, steps.count, job.x0, None)
    failures = steps.failures
    return Outcome(
        torch.stack([job.x0, *saved]),
        steps.counter,
        accepted=steps.count,
        status=failures.status,
        message=failures.message(job),
        extra=extra,
    )


class FixedSteps:
    """The steps of a grid, any of which can be taken, and taken again.

    Attributes:
        count: How many there are.
        stops: The nodes at which a block of steps has to end: save times, and times of jumps.
        counter: Evaluations.
        failures: The samples that could not go on.
    """

    def __init__(self, job: Job) -> None:
        assert job.grid is not None
        self.job = job
        self.stepper = STEPPERS[job.method.name]
        # What a method works out for all steps at once comes to it in place of its times; a graph works it out itself.
        self.plan = None if job.compile else getattr(self.stepper, "plan", None)
        self.edges = job.grid.nodes
        self.nodes, self.widths = job.grid.times, job.grid.widths
        self.count = job.grid.steps
        self.saves = set(job.grid.saves)
        self.jumps = set(job.grid.at(job.breakpoints))
        self.stops = sorted({*self.saves, *self.jumps, self.count})
        self.counter = Counter()
        self.failures = Failures()
        levy = "H" in job.method.needs
        self.noise = None if job.brownian is None else Increments(job.brownian, self.nodes, levy, job.grid.uniform)
        self._times: list[Tensor] = []
        self._ready: dict[int, Sequence[Any]] = {}  # of a chunk of steps
        self._prepare(0)

    def span(self, first: int, stop: int, x: Tensor, carried: Tensor | None) -> tuple[Tensor, Tensor | None, Saved]:
        """Steps ``first, …, stop − 1``: the loop. The state, what the last step hands to the next, and what is to be saved."""
        terms, saved = Terms(self.job.process, self.counter), []
        step, nodes, widths = self.stepper.step, self.nodes, self.widths
        k = first
        while k < stop:
            if k in self.jumps:
                carried = None
            end = min(self.stops[bisect_right(self.stops, k)], k + TOGETHER, stop)
            noise = repeat(NOTHING) if self.noise is None else self.noise.ready(k)
            # Up to the end, or as many as are ready of both; in between there is nothing to look at.
            for width, times, (terms.W, terms.H) in zip(widths[k:end], self.times(k), noise, strict=False):
                terms.h = width
                x, _, carried, failed = step(terms, times, x, carried)
                if failed is not None:
                    x = self.failures.note(x, failed, nodes[k])
                k += 1
            if k in self.saves:
                saved.append(x)
            self.job.progress(nodes[k])
        return x, carried, saved

    def times(self, k: int) -> Sequence[Any]:
        """The times of the places of a step, as the process wants them, or what was planned; and of steps that follow it."""
        chunk, place = divmod(k, CHUNK)
        if chunk not in self._ready:
            self._ready.clear()
            self._prepare(chunk)
        return self._ready[chunk][place:]

    def prepare_all(self) -> None:
        """Plan every chunk: what is taken again has to find the plan, and not make it once more as a part of itself."""
        for chunk in range(1, -(-self.count // CHUNK)):
            self._prepare(chunk)

    def times_of_block(self, first: int, count: int) -> list[Tensor]:
        """The same of some consecutive steps, ``(count,)`` for each place."""
        chunk, start = divmod(first, CHUNK)
        if start + count > CHUNK:
            return _as_asked(
                self.job, _stage_times(self.job, self.edges[first : first + count + 1], self.stepper.places)
            )
        if chunk not in self._ready:
            self._ready.clear()
            self._prepare(chunk)
        return [t[start : start + count] for t in self._times]

    def _prepare(self, chunk: int) -> None:
        first = chunk * CHUNK
        times = _stage_times(self.job, self.edges[first : first + CHUNK + 1], self.stepper.places)
        if self.plan and (planned := self.plan(self.job.process, times, self.job.x0)) is not None:
            self._ready[chunk] = planned
            return
        self.plan = None
        self._times = _as_asked(self.job, times)
        self._ready[chunk] = list(zip(*(t.unbind() for t in self._times), strict=True))


def _checkpointed(steps: FixedSteps) -> Saved:
    """Spans of √n steps: only their first states are kept, and the backward pass takes the steps of one span at a time again.

    The noise is a function of the step, so it is drawn again and not kept.
    """
    if steps.plan:
        steps.prepare_all()
    x, carried, saved = steps.job.x0, None, []
    length = math.isqrt(steps.count - 1) + 1
    for first in range(0, steps.count, length):
        stop = min(first + length, steps.count)
        x, carried, some = checkpoint(steps.span, first, stop, x, carried, use_reentrant=False)
        saved += some
    return saved


def _compiled(job: Job, steps: FixedSteps, extra: dict[str, Any]) -> Saved:
    """Blocks of steps in one graph each; the steps that no block fits between two stops are taken one by one."""
    stops, method = steps.stops, job.method
    block = fused(job, steps.stepper, max(b - a for a, b in pairwise([0, *stops])))
    count, seconds, blocks = block.together, 0.0, 0
    widths = torch.from_numpy(np.diff(steps.edges)).to(job.x0)
    x, carried, saved, k, possible = job.x0, None, list[Tensor](), 0, True
    while k < steps.count:
        stop = stops[bisect_right(stops, k)]
        # The first step, and one after a jump, has nothing handed to it and is another graph.
        if possible and 0 < k <= stop - count and k not in steps.jumps:
            W, H = (None, None) if steps.noise is None else steps.noise.block(k, count)
            answer = block(x, carried, widths[k : k + count], steps.times_of_block(k, count), W, H)
            if answer is not None:
                x, carried = answer
                k, blocks, seconds = k + count, blocks + 1, seconds + block.seconds
                steps.counter.drift += count * (method.drift_evaluations or 0)
                steps.counter.diffusion += count * (method.diffusion_evaluations or 0)
                if k in steps.saves:
                    saved.append(x)
                job.progress(steps.nodes[k])
                continue
            possible = False
        x, carried, some = steps.span(k, k + 1, x, carried)
        saved += some
        k += 1
    extra |= {"compiled_steps": blocks * count, "compile_seconds": seconds}
    return saved


class Failures:
    """The samples for which an implicit step had no solution: they are NaN from then on, and the others go on."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.since = 0.0

    def note(self, x: Tensor, failed: Tensor, t: float) -> Tensor:
        if self.rows is None:
            if not bool(failed.any()):
                return x
            self.since, self.rows = t, torch.zeros_like(failed)
        self.rows = self.rows | failed
        return x.masked_fill(failed.reshape(-1, *[1] * (x.ndim - 1)), float("nan"))

    @property
    def status(self) -> Status | Tensor:
        if self.rows is None:
            return Status.SUCCESS
        return torch.where(self.rows, int(Status.NOT_CONVERGED), int(Status.SUCCESS))

    def message(self, job: Job) -> str:
        if self.rows is None:
            return ""
        return (
            f"method={job.method.name!r} found no solution of its equation for the next state, at first from "
            f"t = {job.caller_time(self.since):g}, for {int(self.rows.sum())} of {len(self.rows)} samples. "
            f"Take smaller steps; far from a solution, or where the drift is not smooth, Newton's method may fail."
        )


def _stage_times(job: Job, nodes: Times, places: Sequence[float]) -> list[Times]:
    """The times of each place in all of some steps.

    No stage looks beyond the process's interval or a time of a jump, even where a method has places outside its step (that
    costs a few steps some of their order, and the solve none). At a jump they stay a rounding unit away from it: the stage
    at the end of a step would otherwise see the coefficient after the jump, which costs every order but one.
    """
    left, right = nodes[:-1], nodes[1:]
    width = right - left
    # A place at 1 is the next node itself, so that no time is rounded past the end.
    times = [right if c == 1 else left + c * width if c else left for c in places]
    if not job.breakpoints and min(places) >= 0 and max(places) <= 1:
        return times
    interval = job.process.interval
    unit = rounding_unit(job.x0, *interval, *job.times)
    first, last = min(interval[0], job.times[0]), max(interval[1], job.times[-1])
    low = np.asarray([first, *(t + unit for t in job.breakpoints)])
    high = np.asarray([*(t - unit for t in job.breakpoints), last])
    segment = np.searchsorted(low, left + 0.5 * width) - 1
    return [np.minimum(np.maximum(t, low[segment]), high[segment]) for t in times]


def _as_asked(job: Job, times: Sequence[Times]) -> list[Tensor]:
    """Times as the process wants them, so that none is converted in the loop."""
    process, device, dtype = job.process, job.x0.device, job.x0.dtype
    precise = [torch.tensor(t, device=device) for t in times]
    return precise if process.precise_time else [state_times(t, dtype, process.interval) for t in precise]
