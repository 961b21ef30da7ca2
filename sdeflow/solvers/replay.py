"""gradient="checkpoint" with adaptive steps: find the steps without a graph, then take them again, in spans that can be redone.

The step sizes are constants to a gradient in any mode, so the steps that were accepted are all there is to differentiate. A
span of √n of them keeps its first state only, and the backward pass takes its steps once more: three times each in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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
    for first in range(0, len(taken), length):
        x, some = checkpoint(_span, taken[first : first + length], stepper, x, use_reentrant=False)
        values += some
    return values


def still_where_rejected(step: Step, accepted: Tensor, wide: Tensor) -> Step:
    """The step, of length 0 on the samples on which it was rejected.

    Arguments:
        step: A step of clocks of their own.
        accepted: Where it was accepted, ``(n,)``.
        wide: The same, broadcasting against the states.
    """
    t, h, t1, width = (torch.as_tensor(value) for value in step)
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


def _span(taken: Sequence[Taken], make: Callable[[], Stepper], x: Tensor) -> tuple[Tensor, list[Tensor]]:
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
    return x, values
