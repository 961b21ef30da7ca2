"""The velocity of a flipped ODE: its times are reflected for all stages at once, and not in each evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdeflow.processes.ode import ODE
from sdeflow.solvers.velocity import Velocity
from sdeflow.types import Field

__all__ = ["Reflected"]


class Reflected(Velocity):
    """−f(t0 + t1 − s, x), which is the same as asking for the flipped ODE.

    Asked itself, a flipped ODE reflects float64 times and rounds them once more in every call: as much work, for small states,
    as a layer of a network.

    Arguments:
        ode: The ODE on its own clock.
        velocity: That of the flipped ODE.
        x: A state.
    """

    def __init__(self, ode: ODE, velocity: Velocity, x: Tensor) -> None:
        self.total = sum(ode.interval)
        first, last = velocity.span
        super().__init__(ode, x, (self.total - last, self.total - first), velocity.jumps, velocity.counter)
        self.function = _negative(self.function)

    def within(self, low: float, high: float) -> None:
        super().within(self.total - high, self.total - low)

    def time(self, t: float | Tensor, x: Tensor) -> Tensor:
        return super().time(self.total - t, x)

    def times(
        self, t: float | Tensor, h: float | Tensor, t1: float | Tensor, places: tuple[float, ...]
    ) -> Sequence[Tensor]:
        return super().times(self.total - t, -h, self.total - t1, places)

    def narrow(self, keep: Tensor, t: float | Tensor, x: Tensor, f: Tensor) -> Velocity | None:
        narrow = super().narrow(keep, t, x, -f)
        if narrow is not None:
            narrow.function = _negative(narrow.function)
        return narrow


def _negative(function: Field) -> Field:
    return lambda t, x: -function(t, x)
