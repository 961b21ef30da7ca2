"""The explicit Runge–Kutta stepper: every tableau on one set of stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdeflow.solvers.controller import Tolerance, first_step
from sdeflow.solvers.stages import Buffer, Stages, Sums
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.tableaus import Tableau
from sdeflow.solvers.velocity import Velocity

__all__ = ["ExplicitRungeKutta"]


class ExplicitRungeKutta:
    """The methods of :mod:`~sdeflow.solvers.tableaus`."""

    smallest = 0.0

    def __init__(self, tableau: Tableau, velocity: Velocity, x: Tensor, shared: bool) -> None:
        self.tableau, self.velocity, self.shared = tableau, velocity, shared
        self.error_order = float(tableau.error_order)
        self.dense = bool(tableau.dense)
        self.count = len(tableau.c)
        self.evaluations = self.count - 1
        self.lookups = len(tableau.extra_c)
        self.places = tableau.c[1:]
        self.stages: Stages = Buffer(tableau, x, shared)

    def start(self, low: float, high: float, t: float | Tensor, x: Tensor) -> int:
        self.velocity.within(low, high)
        self.begin_with(self.velocity.at(t, x))
        return 1

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return t1

    def begin_with(self, k: Tensor) -> None:
        if k.requires_grad and isinstance(self.stages, Buffer):
            self.stages = Sums(self.tableau)
        self.stages.put(0, k)

    def first_step(self, tolerance: Tolerance, t: float | Tensor, x: Tensor, longest: float) -> Tensor:
        return first_step(self.velocity.at, tolerance, t, x, self.stages.first, self.error_order, longest)

    def attempt(self, step: Step, x: Tensor) -> Attempt:
        times = self.times(step)
        if isinstance(self.stages, Buffer) and x.requires_grad and torch.is_grad_enabled():
            self.follow()
        stages, drift, graph = self.stages, self.velocity.function, torch.is_grad_enabled()
        stages.begin(x, step.width)
        move, put, watched = stages.move, stages.put, graph and isinstance(stages, Buffer)
        before = y = x
        last = len(times) - 1
        for i, time in enumerate(times):
            before, y = y, move(i, i + 1)
            k = drift(time, y) if i < last else self.arrive(time, y)
            if watched and k.requires_grad:  # the first that autograd has to do with
                self.velocity.counter.drift += i + 1
                self.follow()
                return self.attempt(step, x)
            put(i + 1, k)
        self.velocity.counter.drift += len(times)
        self.step, self.ends = step, (before, y)
        if not graph:
            return Attempt(y, stages.errors())
        with torch.no_grad():
            return Attempt(y, stages.errors())

    def times(self, step: Step) -> Sequence[Tensor]:
        """Those of the stages after the first."""
        return self.velocity.times(step.t, step.h, step.t1, self.places)

    def arrive(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at the end of the step, with which the next one begins."""
        return self.velocity.function(t, x)

    def follow(self) -> None:
        """From here on gradients are wanted."""
        first = self.stages.first.clone()
        self.stages = Sums(self.tableau)
        self.stages.put(0, first)

    def advance(self, accepted: Tensor | None) -> None:
        mask = None if accepted is None else accepted.reshape(-1, *self.velocity.axes)
        self.stages.carry(mask)

    def polynomial(self) -> Tensor:
        tableau, stages, step = self.tableau, self.stages, self.step
        if self.lookups:
            first = self.count
            times = self.velocity.times(step.t, step.h, step.t1, tableau.extra_c)
            for i, time in enumerate(times, start=first):
                stages.put(i, self.velocity.function(time, stages.move(i - 1, i)))
            self.velocity.counter.drift += self.lookups
        return stages.polynomial()

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor) -> bool:
        assert isinstance(t, Tensor)
        first = self.stages.first[keep]
        narrow = self.velocity.narrow(keep, t[keep], x[keep], first)
        if narrow is None:
            return False
        self.velocity = narrow
        if isinstance(self.stages, Buffer):
            self.stages.resize(x[keep])
        self.stages.put(0, first)
        return True

    def stiffness(self) -> Tensor | None:
        """h |f(y') − f(y)| / |y' − y| between the last two stages, which are at the end of the step (Hairer & Wanner)."""
        if self.places[-2:] != (1.0, 1.0):
            return None
        before, y = (state.detach().flatten(1) for state in self.ends)
        last, previous = (self.stages.rows[self.count - i].detach().flatten(1) for i in (1, 2))
        rate = (last - previous).norm(dim=1) / (y - before).norm(dim=1)
        width = self.step.width
        found: Tensor = rate * (width.flatten() if isinstance(width, Tensor) else width)
        return found
