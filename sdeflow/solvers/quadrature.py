r"""Explicit Runge–Kutta steps of x, and integrals along x by quadrature.

The integrals ℓ of r(t, x) have no influence on x. So x takes its steps alone, and r is evaluated where a Gauss–Lobatto rule
asks for it, on the method's own polynomial through the step, and not at every stage. A step of ``tsit5`` has six stages, at
states of low order, whose errors cancel in x by design and in ℓ less well: three of Lobatto's values on the polynomial (the
fourth is the last of the step before) leave an error several times smaller. Rates are what is dear: of a log-density, each
is a divergence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from sdeflow.processes.integrals import WithIntegrals
from sdeflow.solvers.controller import Tolerance, first_step
from sdeflow.solvers.explicit import ExplicitRungeKutta
from sdeflow.solvers.lobatto import LOBATTO, Lobatto
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.tableaus import Row, Tableau
from sdeflow.solvers.velocity import Velocity

__all__ = ["Quadrature", "rule_for"]

NODES = {3: 3, 5: 4, 8: 5}  # for methods of these orders: the rules are of order 4, 6 and 8
# Of what the parts say. With it the worst error of log p is near the tolerance (networks fitted to mixtures, 2-D and 8-D);
# with all of it samples on their own clocks take a sixth more evaluations for the same error, and with a tenth the rule has
# little say.
SHARE = 0.3


def rule_for(tableau: Tableau) -> Lobatto:
    """The rule for the steps of a method."""
    return LOBATTO[NODES[tableau.order]]


@cache
def with_nodes(tableau: Tableau) -> Tableau:
    """The method with the inner nodes of its rule as further stages, which are on its polynomial."""
    places = rule_for(tableau).nodes[1:-1]
    rows = tuple(
        tuple(sum(c * place ** (m + 1) for m, c in enumerate(row)) for row in tableau.dense) for place in places
    )
    return replace(tableau, extra_c=(*tableau.extra_c, *places), extra_a=(*tableau.extra_a, *rows))


@cache
def integrated_basis(nodes: Row) -> tuple[Row, ...]:
    """The integral from 0 to θ of the polynomial through values at the nodes: rows for θ, θ², …, a column for each value."""
    vandermonde = torch.linalg.vander(torch.tensor(nodes, dtype=torch.float64))
    powers = torch.arange(1, len(nodes) + 1, dtype=torch.float64)
    return tuple(map(tuple, (torch.linalg.inv(vandermonde) / powers[:, None]).tolist()))


def weighted(weights: Sequence[float], rates: Sequence[Tensor]) -> Tensor:
    """Σ w_j r_j, element by element: a product of matrices would round a sample by its place in the batch."""
    total = rates[0] * weights[0]
    for weight, rate in zip(weights[1:], rates[1:], strict=True):
        total = torch.add(total, rate, alpha=weight)
    return total


class Integrated(ExplicitRungeKutta):
    """The steps of x; at their ends, where the next one begins, the rates are evaluated together with the velocity."""

    process: WithIntegrals
    rates: Tensor

    def arrive(self, t: Tensor, x: Tensor) -> Tensor:
        velocity, self.rates = self.process.rates(t, x)
        return velocity


class Quadrature:
    """The methods of :mod:`~sdeflow.solvers.tableaus` on an ODE with integrals.

    Arguments:
        tableau: The method.
        process: The ODE with its integrals.
        velocity: That of x.
        state: A state of the process.
        shared: Whether the batch shares its steps.
    """

    smallest = 0.0

    def __init__(
        self, tableau: Tableau, process: WithIntegrals, velocity: Velocity, state: Tensor, shared: bool
    ) -> None:
        self.process, self.tableau, self.rule = process, tableau, rule_for(tableau)
        self.x = Integrated(with_nodes(tableau), velocity, process.part(state)[0], shared)
        self.x.process = process
        self.error_order, self.dense, self.lookups = self.x.error_order, self.x.dense, 0
        self.evaluations = self.x.evaluations + self.x.lookups
        self.controlled = process.error_mask is None
        self.first = state  # the rates at the beginning of the step, set by start()

    def start(self, low: float, high: float, t: float | Tensor, state: Tensor) -> int:
        velocity = self.x.velocity
        velocity.within(low, high)
        x = self.process.part(state)[0]
        velocity.counter.drift += 1
        k, self.first = self.process.rates(velocity.time(t, x), x)
        self.x.begin_with(k)
        return 1

    def first_step(self, tolerance: Tolerance, t: float | Tensor, state: Tensor, longest: float) -> Tensor:
        def velocity(t: float | Tensor, state: Tensor) -> Tensor:
            return self.process.join(self.x.velocity.at(t, self.process.part(state)[0]))

        now = self.process.join(self.x.stages.rows[0])
        return first_step(velocity, tolerance, t, state, now, self.error_order, longest)

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return t1

    def attempt(self, step: Step, state: Tensor) -> Attempt:
        x, integrals = self.process.part(state)
        width = step.width
        wide = width.reshape(-1, *self.x.velocity.axes) if isinstance(width, Tensor) else width
        x1, estimates = self.x.attempt(step._replace(width=wide), x)
        self.values = [self.first, *self.inside(step), self.x.rates]
        change = weighted(self.rule.weights, self.values) * width
        self.step, self.start_of = step, integrals
        with torch.no_grad():
            errors = estimates.new_zeros(*estimates.shape[:2], self.process.count)
            if self.controlled:
                errors[0] = self.error() * width
            estimates = torch.cat([estimates.flatten(2), errors], 2)
        return Attempt(self.process.join(x1, integrals + change), estimates)

    def inside(self, step: Step) -> list[Tensor]:
        """The rates at the inner nodes."""
        method, own = self.x, len(self.tableau.extra_c)
        stages, velocity = method.stages, method.velocity
        times = velocity.times(step.t, step.h, step.t1, method.tableau.extra_c)
        found = []
        for i, time in enumerate(times):
            row = method.count + i
            y = stages.move(row - 1, row)
            if i < own:
                stages.put(row, velocity.function(time, y))
            else:
                k, rates = self.process.rates(time, y)
                stages.put(row, k)
                found.append(rates)
        velocity.counter.drift += len(times)
        return found

    def error(self) -> Tensor:
        """An estimate of the error of the rule, per unit of time."""
        values = [value.detach() for value in self.values]
        parts = torch.stack([weighted(null, values) for null in self.rule.null])
        size = torch.linalg.vector_norm(parts, dim=0).clamp_min(torch.finfo(parts.dtype).tiny)
        error: Tensor = SHARE * parts[0].square() / size
        return error

    def advance(self, accepted: Tensor | None) -> None:
        self.x.advance(accepted)
        now = self.x.rates
        self.first = now if accepted is None else torch.where(accepted[:, None], now, self.first)

    def polynomial(self) -> Tensor:
        x = self.x.stages.polynomial(self.tableau.dense).flatten(2)
        changes = [weighted(row, self.values) * self.step.width for row in integrated_basis(self.rule.nodes)]
        changes += [torch.zeros_like(self.start_of)] * (len(x) - 1 - len(changes))
        return torch.cat([x, torch.stack([self.start_of, *changes])], 2)

    def narrow(self, keep: Tensor, t: float | Tensor, state: Tensor) -> bool:
        process = self.process.rows(keep)
        assert isinstance(process, WithIntegrals)
        if not self.x.narrow(keep, t, self.process.part(state)[0]):
            return False
        self.process = self.x.process = process
        self.first = self.first[keep]
        return True

    def stiffness(self) -> Tensor | None:
        return self.x.stiffness()
