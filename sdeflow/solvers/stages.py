"""The stages k_i of a Runge–Kutta step, and their combinations.

Without gradients the stages are rows of one buffer, and each combination x + h Σ_j w_j k_j is one matrix–vector product: on
small batches, where every operation costs its overhead, that is what a step is made of. With gradients they are tensors of
their own, and the combinations are sums, which autograd can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sdeflow.solvers.tableaus import Tableau

__all__ = ["Buffer", "Stages", "Sums"]


class Stages(Protocol):
    """k_1 … k_s of a step, and x + h Σ_i w_i k_i with the weights of a row of the method's table.

    Attributes:
        rows: The stages.
        first: k_1, the velocity at the beginning of the step.
        last: The velocity at its end.
    """

    rows: list[Tensor]

    @property
    def first(self) -> Tensor: ...

    @property
    def last(self) -> Tensor: ...

    def begin(self, x: Tensor, width: float | Tensor) -> None: ...

    def put(self, i: int, k: Tensor) -> None: ...

    def carry(self, accepted: Tensor | None) -> None:
        """Make the last stage the first one, on all samples or where a mask that broadcasts against them says so."""

    def move(self, row: int, count: int) -> Tensor:
        """x + h Σ_{i < count} w_i k_i."""

    def errors(self) -> Tensor:
        """The error estimates h Σ_i e_i k_i, stacked; they hold until the next step's."""

    def polynomial(self) -> Tensor:
        """The dense output, a polynomial in the place θ in the step."""


class Buffer:
    """Stages without gradients: rows of one matrix, and a combination is one product with it.

    Arguments:
        tableau: The method.
        x: A state.
        shared: Whether the batch shares its steps: then the weights are multiplied by h once a step, and not the products.
    """

    def __init__(self, tableau: Tableau, x: Tensor, shared: bool) -> None:
        self.table, self.main, self.dense = x.new_tensor(tableau.table), len(tableau.c), tableau.dense
        self.weights = torch.empty_like(self.table) if shared else self.table
        self.ladder = [row[: i + 1] for i, row in enumerate(self.weights[: self.main - 1].unbind())]
        self.of_errors = self.weights[tableau.first_error :, : self.main].unbind()
        self.parts: dict[tuple[int, int], Tensor] = {}
        self.resize(x)

    def resize(self, x: Tensor) -> None:
        """Make room for states of another batch."""
        count = self.table.shape[1]
        self.k = x.new_empty(count, x.numel())
        self.rows = list(self.k.view(count, *x.shape).unbind())
        self.upto = [self.k[: i + 1].t() for i in range(count)]
        self.estimates = x.new_empty(len(self.of_errors), *x.shape)
        self.flat_estimates = self.estimates.view(len(self.of_errors), -1).unbind()
        self.reached: tuple[Tensor, Tensor] = (x, x.reshape(-1))

    @property
    def first(self) -> Tensor:
        return self.rows[0]

    @property
    def last(self) -> Tensor:
        return self.rows[self.main - 1]

    def begin(self, x: Tensor, width: float | Tensor) -> None:
        self.x, self.width, self.wide = x, width, None
        if isinstance(width, Tensor):
            self.wide = width
        else:
            self.flat = self.reached[1] if x is self.reached[0] else x.reshape(-1)
            torch.mul(self.table, width, out=self.weights)

    def put(self, i: int, k: Tensor) -> None:
        self.rows[i].copy_(k)

    def carry(self, accepted: Tensor | None) -> None:
        first = self.rows[0]
        first.copy_(self.last if accepted is None else torch.where(accepted, self.last, first))

    def part(self, row: int, count: int) -> Tensor:
        """The beginning of a row of the weights."""
        part = self.parts.get((row, count))
        if part is None:
            part = self.parts[row, count] = self.weights[row, :count]
        return part

    def move(self, row: int, count: int) -> Tensor:
        weights = self.ladder[row] if count == row + 1 < self.main else self.part(row, count)
        if self.wide is not None:
            return torch.addcmul(self.x, torch.mv(self.upto[count - 1], weights).view_as(self.x), self.wide)
        flat = torch.addmv(self.flat, self.upto[count - 1], weights)
        x = flat.view_as(self.x)  # by far the cheapest way to give it its shape
        self.reached = (x, flat)
        return x

    def errors(self) -> Tensor:
        # Not one product of matrices: those round a column by its place, and a sample must not depend on its batch-mates.
        stages = self.upto[self.main - 1]
        for weights, estimate in zip(self.of_errors, self.flat_estimates, strict=True):
            torch.mv(stages, weights, out=estimate)
        return self.estimates if self.wide is None else self.estimates.mul_(self.wide)

    def polynomial(self) -> Tensor:
        dense = self.dense
        weights, stages = self.k.new_tensor(dense).t().contiguous(), self.upto[len(dense) - 1]
        change = torch.stack([torch.mv(stages, row) for row in weights]).view(-1, *self.x.shape).mul_(self.width)
        return torch.cat([self.x[None], change])


class Sums:
    """Stages with gradients: tensors of their own, summed.

    Arguments:
        tableau: The method.
    """

    def __init__(self, tableau: Tableau) -> None:
        self.tableau, self.table, self.main = tableau, tableau.table, len(tableau.c)
        self.rows: list[Tensor] = [torch.empty(0)] * len(self.table[0])

    @property
    def first(self) -> Tensor:
        return self.rows[0]

    @property
    def last(self) -> Tensor:
        return self.rows[self.main - 1]

    def begin(self, x: Tensor, width: float | Tensor) -> None:
        self.x, self.width = x, width

    def put(self, i: int, k: Tensor) -> None:
        self.rows[i] = k

    def carry(self, accepted: Tensor | None) -> None:
        k = self.last
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

    def errors(self) -> Tensor:
        totals = torch.stack([self.total(row) for row in self.table[self.tableau.first_error :]])
        return totals if isinstance(self.width, float) else totals * self.width

    def polynomial(self) -> Tensor:
        change = torch.stack([self.total(weights) for weights in zip(*self.tableau.dense, strict=True)])
        return torch.cat([self.x[None], change if isinstance(self.width, float) else change * self.width])
