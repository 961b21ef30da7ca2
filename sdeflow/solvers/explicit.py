"""The explicit Runge–Kutta stepper: every tableau on one set of stages.

Without gradients the stages k_i are rows of one buffer, and each combination h Σ_j w_j k_j is one matrix–vector product: on
small batches, where every operation costs its overhead, that is what a step is made of. With gradients they are tensors of
their own, and the combinations are sums, which autograd can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sdeflow.solvers.controller import Tolerance, first_step
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.tableaus import Row, Tableau
from sdeflow.solvers.velocity import Velocity

__all__ = ["ExplicitRungeKutta", "Sums"]


class Stages(Protocol):
    """k_1 … k_s of a step, in rows, and x + h Σ_i w_i k_i with the weights of a row of the table."""

    rows: list[Tensor]

    def begin(self, x: Tensor, width: float | Tensor) -> None: ...

    def put(self, i: int, k: Tensor) -> None: ...

    def carry(self, last: int, accepted: Tensor | None) -> None:
        """Make the last stage the first one, on all samples or where a mask that broadcasts against them says so."""

    def move(self, row: int, count: int) -> Tensor:
        """x + h Σ_{i < count} w_i k_i."""

    def changes(self, first: int) -> Tensor:
        """h Σ_i w_i k_i for the rows of the table from there on, stacked."""

    def polynomial(self, dense: Sequence[Row]) -> Tensor: ...


class Buffer:
    """Stages without gradients: rows of one matrix, and a combination is one product with it."""

    def __init__(self, table: Sequence[Row], main: int, x: Tensor, shared: bool) -> None:
        self.table, self.main = x.new_tensor(table), main  # the stages after these are not there in every step
        self.count, self.shared, self.shape = len(table[0]), shared, x.shape
        scaled = torch.empty_like(self.table) if shared else self.table
        self.scaled = scaled
        self.weights = [[row[: i + 1] for i in range(self.count)] for row in scaled]
        self.resize(x)

    def resize(self, x: Tensor) -> None:
        self.shape = x.shape
        self.k = x.new_empty(self.count, x.numel())
        self.rows = [row.view(x.shape) for row in self.k]
        self.upto = [self.k[: i + 1].t() for i in range(self.count)]

    def begin(self, x: Tensor, width: float | Tensor) -> None:
        self.x, self.width = x, width
        if self.shared:
            self.flat = x.reshape(-1)
            torch.mul(self.table, width, out=self.scaled)

    def put(self, i: int, k: Tensor) -> None:
        self.rows[i].copy_(k)

    def carry(self, last: int, accepted: Tensor | None) -> None:
        k, first = self.rows[last], self.rows[0]
        first.copy_(k if accepted is None else torch.where(accepted, k, first))

    def move(self, row: int, count: int) -> Tensor:
        k, weights = self.upto[count - 1], self.weights[row][count - 1]
        if self.shared:
            return torch.addmv(self.flat, k, weights).view(self.shape)
        return torch.addcmul(self.x, torch.mv(k, weights).view(self.shape), self.width)  # type: ignore[arg-type]

    def changes(self, first: int) -> Tensor:
        # Not one product of matrices: those round a column by its place, and a sample must not depend on its batch-mates.
        last = self.main - 1
        totals = [torch.mv(self.upto[last], row[last]) for row in self.weights[first:]]
        every = (totals[0] if len(totals) == 1 else torch.stack(totals)).view(-1, *self.shape)
        return every if self.shared else every.mul_(self.width)

    def polynomial(self, dense: Sequence[Row]) -> Tensor:
        weights, k = self.k.new_tensor(dense).t().contiguous(), self.upto[len(dense) - 1]
        change = torch.stack([torch.mv(k, row) for row in weights]).view(-1, *self.shape).mul_(self.width)
        return torch.cat([self.x[None], change])


class Sums:
    """Stages with gradients: tensors of their own, summed."""

    def __init__(self, table: Sequence[Row]) -> None:
        self.table = table
        self.rows: list[Tensor] = [torch.empty(0)] * len(table[0])

    def begin(self, x: Tensor, width: float | Tensor) -> None:
        self.x, self.width = x, width

    def put(self, i: int, k: Tensor) -> None:
        self.rows[i] = k

    def carry(self, last: int, accepted: Tensor | None) -> None:
        k = self.rows[last]
        self.rows[0] = k if accepted is None else torch.where(accepted, k, self.rows[0])

    def total(self, weights: Sequence[float]) -> Tensor:
        scale = self.width if isinstance(self.width, float) else 1.0
        total: Tensor | None = None
        for weight, k in zip(weights, self.rows, strict=False):
            if weight != 0.0:
                total = k * (weight * scale) if total is None else torch.add(total, k, alpha=weight * scale)
        assert total is not None
        return total

    def move(self, row: int, count: int) -> Tensor:
        total = self.total(self.table[row][:count])
        return self.x + total if isinstance(self.width, float) else torch.addcmul(self.x, total, self.width)

    def changes(self, first: int) -> Tensor:
        totals = torch.stack([self.total(row) for row in self.table[first:]])
        return totals if isinstance(self.width, float) else totals * self.width

    def polynomial(self, dense: Sequence[Row]) -> Tensor:
        change = torch.stack([self.total(weights) for weights in zip(*dense, strict=True)])
        return torch.cat([self.x[None], change if isinstance(self.width, float) else change * self.width])


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
        self.stages: Stages = Buffer(tableau.table, self.count, x, shared)

    def start(self, low: float, high: float, t: float | Tensor, x: Tensor) -> int:
        self.velocity.within(low, high)
        self.begin_with(self.velocity.at(t, x))
        return 1

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return t1

    def begin_with(self, k: Tensor) -> None:
        if k.requires_grad and isinstance(self.stages, Buffer):
            self.stages = Sums(self.tableau.table)
        self.stages.put(0, k)

    def first_step(self, tolerance: Tolerance, t: float | Tensor, x: Tensor, longest: float) -> Tensor:
        return first_step(self.velocity.at, tolerance, t, x, self.stages.rows[0], self.error_order, longest)

    def attempt(self, step: Step, x: Tensor) -> Attempt:
        times = self.velocity.times(step.t, step.h, step.t1, self.places)
        if isinstance(self.stages, Buffer) and x.requires_grad and torch.is_grad_enabled():
            self.follow()
        stages, drift = self.stages, self.velocity.function
        stages.begin(x, step.width)
        move, put, watched = stages.move, stages.put, isinstance(stages, Buffer) and torch.is_grad_enabled()
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
        with torch.no_grad():
            return Attempt(y, stages.changes(self.tableau.first_error))

    def arrive(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at the end of the step, with which the next one begins."""
        return self.velocity.function(t, x)

    def follow(self) -> None:
        """From here on gradients are wanted."""
        first = self.stages.rows[0].clone()
        self.stages = Sums(self.tableau.table)
        self.stages.put(0, first)

    def advance(self, accepted: Tensor | None) -> None:
        mask = None if accepted is None else accepted.reshape(-1, *self.velocity.axes)
        self.stages.carry(self.count - 1, mask)

    def polynomial(self) -> Tensor:
        tableau, stages, step = self.tableau, self.stages, self.step
        if self.lookups:
            first = self.count
            times = self.velocity.times(step.t, step.h, step.t1, tableau.extra_c)
            for i, time in enumerate(times, start=first):
                stages.put(i, self.velocity.function(time, stages.move(i - 1, i)))
            self.velocity.counter.drift += self.lookups
        return stages.polynomial(tableau.dense)

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor) -> bool:
        assert isinstance(t, Tensor)
        first = self.stages.rows[0][keep]
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
