r"""Gradients with respect to the times of a solve.

Where a solution is saved a little later it is a little farther along its velocity, and where it begins a little later it
begins where it would have come to be: :math:`\partial x(t_i)/\partial t_i = v(t_i, x(t_i))`, and
:math:`\partial x(t_i)/\partial t_0 = -(\partial x(t_i)/\partial x_0)\, v(t_0, x_0)`. The steps themselves are constants to a
gradient. So with a time that has a derivative goes δ = t − t without one, which is 0 and has the derivative of t, and the
state is moved by δ along the solution, by a step of the midpoint rule: its first two derivatives are those of the solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sdeflow.errors import ArgumentError
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process

__all__ = ["arrived", "begun", "shifts"]


def shifts(t: Any, process: Process, events: bool) -> list[Tensor | None] | None:
    """Of each time, δ where it has a derivative; None where none has.

    Raises:
        ArgumentError: The paths of an SDE, or the ends at events, have no derivative with respect to the times.
    """
    times = list(t.unbind()) if isinstance(t, Tensor) and t.ndim == 1 else t
    if not isinstance(times, (list, tuple)):
        return None
    found = [_shift(time) if isinstance(time, Tensor) else None for time in times]
    if all(shift is None for shift in found):
        return None
    if not isinstance(process, ODE):
        raise ArgumentError(
            "t has a derivative, and the paths of an SDE have none with respect to time. Give t.detach(); "
            "the law of an SDE moves with its probability flow, process.probability_flow(score)."
        )
    if events:
        raise ArgumentError(
            "t has a derivative, and event= ends samples at times of its own. Give t.detach(), or solve without events."
        )
    return found


def _shift(time: Tensor) -> Tensor | None:
    primal, tangent = forward_ad.unpack_dual(time)
    if tangent is None and not (time.requires_grad and torch.is_grad_enabled()):
        return None
    shift: Tensor = time.double() - primal.detach().double()
    return shift


def begun(process: Process, t: float, x: Tensor, by: Tensor | None) -> Tensor:
    """Where a solution was at time t that comes to x at t + δ."""
    return x if by is None else _moved(process, t + by, x, -by)


def arrived(process: Process, times: Sequence[float], states: Tensor, by: Sequence[Tensor | None]) -> Tensor:
    """The states at the save times ``(T, B, *event)``, each moved on by its δ."""
    every = zip(times, states.unbind(), by, strict=False)  # of a solve that has failed there are fewer states
    return torch.stack(
        [x if shift is None else _moved(process, shift.new_tensor(t), x, shift) for t, x, shift in every]
    )


def _moved(process: Process, t: Tensor, x: Tensor, by: Tensor) -> Tensor:
    """A step of the midpoint rule from t to t + δ."""
    width = by.to(x.device, x.dtype)
    halfway = x + 0.5 * width * process.drift(t, x)
    return x + width * process.drift(t + 0.5 * by, halfway)
