r"""Explicit Runge–Kutta steps of x, and integrals along x by quadrature.

The integrals ℓ of r(t, x) have no influence on x. So x takes its steps alone, and r is evaluated where a Gauss–Lobatto rule
asks for it, on the method's own polynomial through the step, and not at every stage. A step of ``tsit5`` has six stages, at
states of low order, whose errors cancel in x by design and in ℓ less well: three of Lobatto's values on the polynomial (the
fourth is the last of the step before) leave an error several times smaller. Rates are what is dear: of a log-density, each
is a divergence.

The velocity comes with the rates, and so x too ends its step where the rule takes it, nearer to the solution than the method's
own end. How far the two ends are apart tells of steps in which the
velocity turns so sharply that the method's own estimate is small by accident.

Where states are small most of that is the cost of calling anything at all. Samples on clocks of their own are asked with one
time per row in any case, and a row is a row: there the rates at all nodes of a step are those of one larger batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from sdeflow.processes.flipped import FlippedODE
from sdeflow.processes.integrals import WithIntegrals
from sdeflow.solvers.controller import Tolerance, first_step
from sdeflow.solvers.explicit import ExplicitRungeKutta
from sdeflow.solvers.lobatto import LOBATTO, Lobatto
from sdeflow.solvers.reflected import Reflected
from sdeflow.solvers.stepper import Attempt, Step
from sdeflow.solvers.tableaus import Row, Tableau
from sdeflow.solvers.velocity import Velocity

__all__ = ["Quadrature", "rule_for"]

NODES = {3: 3, 5: 4, 8: 5}  # for methods of these orders: the rules are of order 4, 6 and 8
# Of what the parts say. With it the worst error of log p is near the tolerance (networks fitted to mixtures, 2-D and 8-D);
# with all of it samples on their own clocks take a sixth more evaluations for the same error, and with a tenth the rule has
# little say.
SHARE = 0.3

# How many times what the end by the rule differs from that of the method is taken for an error of x. With it the worst error of
# log p is far less, for a few more steps (networks fitted to mixtures, 2-D and 8-D). So many units of rounding of the
# difference are none.
DIFFER, ROUNDING = 6.0, 4.0

# Up to so many elements of the states at all nodes they are asked together. The end of the step is then asked twice, for its
# velocity and for its rates: for perceptrons of three layers with 64 units that pays up to several times as many.
TOGETHER = 2**13


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


def combined(weights: Tensor, rates: Sequence[Tensor]) -> Tensor:
    """Σ_j w_j r_j for several sets of weights at once, element by element: a product of matrices would round a sample by its
    place in the batch."""
    total = rates[0] * weights[0]
    for weight, rate in zip(weights[1:], rates[1:], strict=True):
        total = torch.addcmul(total, rate, weight)
    return total


class Integrated(ExplicitRungeKutta):
    """The steps of x; what is wanted at their ends is for the quadrature to say.

    Attributes:
        quadrature: It.
        inside: The times of the further stages in the step that is being tried.
    """

    quadrature: Quadrature
    inside: Sequence[Tensor]

    def times(self, step: Step) -> Sequence[Tensor]:
        times = self.velocity.times(step.t, step.h, step.t1, self.places + self.tableau.extra_c)
        self.inside = times[len(self.places) :]
        return times[: len(self.places)]

    def arrive(self, t: Tensor, x: Tensor) -> Tensor:
        return self.quadrature.arrive(t, x)


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
        self.controlled = process.error_mask is None
        x = process.part(state)[0]
        self.sign = 1
        if isinstance(process.ode, FlippedODE) and isinstance(original := process.flip(), WithIntegrals):
            process, self.sign = original, -1
            velocity = Reflected(original.ode, velocity, x)
        self.process, self.tableau, self.rule = process, tableau, rule_for(tableau)
        # For each node a column that broadcasts against its rates, (n, rules, 1, 1).
        self.null = (SHARE * state.new_tensor(self.rule.null)).t()[..., None, None].contiguous()
        self.x = Integrated(with_nodes(tableau), velocity, x, shared)
        self.x.quadrature = self
        self.error_order, self.dense, self.lookups = self.x.error_order, self.x.dense, 0
        self.evaluations = self.x.evaluations + self.x.lookups
        self.first = state  # the velocity and the rates at the beginning of the step, set by start()
        self.nodes = len(self.rule.nodes) - 1
        self.wide: WithIntegrals | None = None  # the process for the rows of all nodes together
        self.tried = False
        if not shared and self.nodes * x.numel() <= TOGETHER:
            self.widen(len(x))

    def widen(self, batch: int) -> None:
        """Ask all nodes of a step together from now on."""
        every = torch.arange(batch, device=self.first.device).repeat(self.nodes)
        wide = self.process.rows(every)
        assert isinstance(wide, WithIntegrals)
        if self.wide is None:
            self.evaluations += 1
        self.wide = wide

    def rates(self, process: WithIntegrals, t: Tensor, x: Tensor) -> Tensor:
        """The velocity and the rates on the clock of the solve, as one state."""
        rates = process.join(*process.rates(t, x))
        return rates if self.sign > 0 else -rates

    def arrive(self, t: Tensor, x: Tensor) -> Tensor:
        """The velocity at the end of the step; alone, where the rates are asked for together with those at the nodes."""
        self.time = t
        if self.wide is not None:
            return self.x.velocity.function(t, x)
        self.last = self.rates(self.process, t, x)
        return self.process.part(self.last)[0]

    def start(self, low: float, high: float, t: float | Tensor, state: Tensor) -> int:
        velocity = self.x.velocity
        velocity.within(low, high)
        x = self.process.part(state)[0]
        velocity.counter.drift += 1
        self.first, self.asked = self.rates(self.process, velocity.time(t, x), x), x  # and where that velocity is
        self.x.begin_with(self.process.part(self.first)[0])
        return 1

    def first_step(self, tolerance: Tolerance, t: float | Tensor, state: Tensor, longest: float) -> Tensor:
        def velocity(t: float | Tensor, state: Tensor) -> Tensor:
            return self.process.join(self.x.velocity.at(t, self.process.part(state)[0]))

        now = self.process.join(self.x.stages.first)
        return first_step(velocity, tolerance, t, state, now, self.error_order, longest)

    def end(self, t: float | Tensor, t1: float | Tensor) -> float | Tensor:
        return t1

    def attempt(self, step: Step, state: Tensor) -> Attempt:
        x, width = self.process.part(state)[0], step.width
        if isinstance(width, Tensor) and x.ndim > 2:
            step = step._replace(width=width.reshape(-1, *self.x.velocity.axes))
        x1, estimates = self.x.attempt(step, x)
        self.values = [self.first, *self.after(x1)]
        self.start_of, self.width = state, width
        change = self.values[0] * self.rule.weights[0]
        for weight, value in zip(self.rule.weights[1:], self.values[1:], strict=True):
            change = torch.add(change, value, alpha=weight)
        end = torch.addcmul(state, change, width) if isinstance(width, Tensor) else state + change * width
        with torch.no_grad():
            return Attempt(end, self.errors(estimates.flatten(2), end, x1.flatten(1)))

    def errors(self, estimates: Tensor, end: Tensor, x1: Tensor) -> Tensor:
        """Estimates of the errors at the end of the step, from those of the method, whose own end is x1."""
        dims = x1.shape[1]
        # Less what may be rounding: it does not become smaller with the step.
        rounding = ROUNDING * torch.finfo(x1.dtype).eps
        differ = torch.sub((end[:, :dims] - x1).abs_(), x1.abs(), alpha=rounding).clamp_min_(0)
        if self.controlled:
            errors = _error(combined(self.null, [value[:, dims:] for value in self.values]) * self.width)
        else:
            errors = torch.zeros_like(end[:, dims:])
        first = torch.cat([torch.hypot(estimates[0], differ.mul_(DIFFER)), errors], 1)
        if len(estimates) == 1:
            return first[None]
        # The second estimate damps the first, which what is not of the method does not need.
        return torch.stack([first, torch.cat([estimates[1], torch.zeros_like(errors)], 1)])

    def after(self, x1: Tensor) -> Sequence[Tensor]:
        """The rates at the nodes after the first."""
        method, velocity, own = self.x, self.x.velocity, len(self.tableau.extra_c)
        stages, first, times = method.stages, method.count, method.inside
        for i, time in enumerate(times[:own], start=first):
            stages.put(i, velocity.function(time, stages.move(i - 1, i)))
        count = first + own
        states = [stages.move(row, count) for row in range(count - 1, count + self.nodes - 2)]
        velocity.counter.drift += own
        if self.wide is not None:
            found = self.together([*times[own:], self.time], [*states, x1])
            if found is not None:
                return found
            self.last = self.rates(self.process, self.time, x1)
            velocity.counter.drift += 1
        velocity.counter.drift += len(states)
        return [*(self.rates(self.process, t, y) for t, y in zip(times[own:], states, strict=True)), self.last]

    def together(self, times: list[Tensor], states: list[Tensor]) -> Sequence[Tensor] | None:
        """The rates at all nodes; None, now and from then on, where more rows are not just more rows."""
        assert self.wide is not None
        t, x = torch.cat(times), torch.cat(states)
        self.x.velocity.counter.drift += 1
        if not self.tried:
            self.tried = True
            try:
                rates = self.rates(self.wide, t, x)
                known = self.x.stages.last.detach()
                found = self.process.part(rates[-len(known) :])[0]
                alike = torch.allclose(found, known, rtol=1e-3, atol=1e-4 * float(known.abs().max()))
            except Exception:  # a velocity with data of its own for each row cannot be asked about more of them
                alike = False
            if not alike:
                self.wide = None
                self.evaluations -= 1
                return None
        else:
            rates = self.rates(self.wide, t, x)
        return rates.unflatten(0, (self.nodes, -1)).unbind()  # type: ignore[no-any-return]

    def advance(self, accepted: Tensor | None) -> None:
        self.x.advance(accepted)
        now, x1 = self.values[-1], self.x.ends[1]
        if accepted is None:
            self.first, self.asked = now, x1
        else:
            self.first = torch.where(accepted[:, None], now, self.first)
            self.asked = torch.where(accepted.reshape(-1, *self.x.velocity.axes), x1, self.asked)

    def polynomial(self) -> Tensor:
        x = self.x.stages.polynomial().flatten(2)
        start = self.process.part(self.start_of)[1]
        basis = start.new_tensor(integrated_basis(self.rule.nodes)).t()[..., None, None]
        rates = [self.process.part(value)[1] for value in self.values]
        changes = (combined(basis, rates) * self.width).unbind()
        rest = [torch.zeros_like(start)] * (len(x) - 1 - len(changes))
        return torch.cat([x, torch.stack([start, *changes, *rest])], 2)

    def narrow(self, keep: Tensor, t: float | Tensor, state: Tensor) -> bool:
        process = self.process.rows(keep)
        assert isinstance(process, WithIntegrals)
        if not self.x.narrow(keep, t, self.asked):
            return False
        self.process, self.first, self.asked = process, self.first[keep], self.asked[keep]
        if self.wide is not None:
            self.widen(len(keep))
        return True

    def stiffness(self) -> Tensor | None:
        return self.x.stiffness()


def _error(parts: Tensor) -> Tensor:
    """An estimate of the error of the rule from what its null rules find, stacked."""
    size = torch.linalg.vector_norm(parts, dim=0).clamp_min_(torch.finfo(parts.dtype).tiny)
    return parts[0].square().div_(size)
