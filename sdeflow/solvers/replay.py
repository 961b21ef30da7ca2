"""gradient="checkpoint" with adaptive steps: find the steps without a graph, then take them again, in spans that can be redone.

The step sizes are constants to a gradient in any mode, so the steps that were accepted are all there is to differentiate. A
span of √n of them keeps its first state only, and the backward pass takes its steps once more: three times each in all, of
which one with a graph. ``torch.utils.checkpoint`` would do for a plain velocity. One that differentiates inside, as that of a
log-density does for its divergence, asks for saved tensors all along, and each time the whole span would be taken again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdeflow.calculus import leaves
from sdeflow.errors import ArgumentError
from sdeflow.solvers.clocks import Saves
from sdeflow.solvers.stepper import Step, Stepper, horner

__all__ = ["Taken", "again", "still_where_rejected", "value_at"]


class Taken(NamedTuple):
    """A step that was accepted.

    Attributes:
        low: The first time of its segment.
        high: The last.
        step: The step.
        accepted: On which samples, as a mask that broadcasts against their states; None for all.
        saves: The save times that it passed.
    """

    low: float
    high: float
    step: Step
    accepted: Tensor | None
    saves: list[Saves]


def again(taken: Sequence[Taken], stepper: Callable[[], Stepper], x0: Tensor) -> list[Tensor]:
    """The states at the save times, in the order in which they were passed, with a graph of √n spans.

    Arguments:
        taken: All steps.
        stepper: What makes a stepper that has taken none.
        x0: The first state.
    """
    x, values = x0, []
    length = math.isqrt(max(len(taken) - 1, 0)) + 1
    captured = _captured(taken, stepper, x0)
    for first in range(0, len(taken), length):
        span = partial(_span, taken[first : first + length], stepper)
        x, *some = _Span.apply(span, x, *captured)  # type: ignore[no-untyped-call]
        values += some
    return values


class _Span(torch.autograd.Function):
    """A span without a graph, which is taken again with one when its gradient is wanted."""

    @staticmethod
    def forward(ctx: Any, span: Callable[[Tensor], list[Tensor]], x: Tensor, *captured: Tensor) -> tuple[Tensor, ...]:
        device = x.device.type
        ctx.span, ctx.captured = span, captured
        ctx.autocast = {"dtype": torch.get_autocast_dtype(device), "enabled": torch.is_autocast_enabled(device)}
        ctx.save_for_backward(x, *captured)
        first, *others = span(x)
        return first, *(value.clone() for value in others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(x.device.type, **ctx.autocast):
            values = ctx.span(x)
        pairs = [pair for pair in zip(values, gradients, strict=True) if pair[0].requires_grad]
        if not pairs:
            return (None,) * (2 + len(ctx.captured))
        known = {id(tensor) for tensor in (x, *ctx.captured)}
        strange = {id(leaf): leaf for value, _ in pairs for leaf in leaves(value) if id(leaf) not in known}
        if strange:  # those that a method makes for itself are others each time
            with torch.enable_grad(), torch.autocast(x.device.type, **ctx.autocast):
                values = ctx.span(x)
            if any(id(leaf) in strange for value in values for leaf in leaves(value)):
                raise ArgumentError(
                    "gradient='checkpoint': the velocity depends on a tensor that it did not depend on at the first step, and "
                    "whose gradient would be lost. Say where it changes with breakpoints=, or take gradient='backprop'."
                )
        # What is captured may have a history of its own, through which every span has to go.
        outputs, into = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, (x, *ctx.captured), into, retain_graph=True, allow_unused=True)
        return None, *found


def _captured(taken: Sequence[Taken], stepper: Callable[[], Stepper], x: Tensor) -> list[Tensor]:
    """The leaves besides x that the first step of each segment depends on."""
    found: dict[int, Tensor] = {}
    segment = None
    for step in taken:
        if segment != (step.low, step.high):
            segment = (step.low, step.high)
            start = x.detach().requires_grad_()
            with torch.enable_grad():
                value = _span([step], stepper, start)[0]
            found |= {id(leaf): leaf for leaf in leaves(value) if leaf is not start}
    return list(found.values())


def still_where_rejected(step: Step, accepted: Tensor, wide: Tensor) -> Step:
    """The step, of length 0 on the samples on which it was rejected.

    Arguments:
        step: A step of clocks of their own.
        accepted: Where it was accepted, ``(n,)``.
        wide: The same, broadcasting against the states.
    """
    t, h, t1, width = (torch.as_tensor(value, device=accepted.device) for value in step)
    return Step(t, torch.where(accepted, h, 0.0), torch.where(accepted, t1, t), torch.where(wide, width, 0.0))


def value_at(saves: Saves, x1: Tensor, polynomial: Callable[[], Tensor]) -> Tensor:
    """The states of those rows that have passed a save time, there."""
    rows, place, at_end = saves.rows, saves.place, saves.at_end
    value = x1 if rows is None else x1[rows]
    if place is None:
        return value
    coefficients = polynomial()
    inside = horner(coefficients if rows is None else coefficients[:, rows], place)
    return inside if at_end is None else torch.where(at_end, value, inside)


def _span(taken: Sequence[Taken], make: Callable[[], Stepper], x: Tensor) -> list[Tensor]:
    """The state after the steps, and those at the save times."""
    stepper, values, segment = make(), [], None
    for low, high, step, accepted, passed in taken:
        if segment != (low, high):  # also at the start of a span: one evaluation, where the last step's could be kept
            segment = (low, high)
            stepper.start(low, high, step.t, x)
        x1 = stepper.attempt(step, x).x
        found: list[Tensor] = []

        def polynomial(found: list[Tensor] = found) -> Tensor:
            if not found:
                found.append(stepper.polynomial())
            return found[0]

        values += [value_at(saves, x1, polynomial) for saves in passed]
        x = x1 if accepted is None else torch.where(accepted, x1, x)
        stepper.advance(None if accepted is None else accepted.flatten())
    return [x, *values]
