"""An ODE with integrals along its solution: d/dt (x, ℓ) = (v(t, x), r(t, x))."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from sdeflow.processes.derived import take_over
from sdeflow.processes.ode import ODE
from sdeflow.types import Time

__all__ = ["WithIntegrals"]


class WithIntegrals(ODE, precise_time=True):
    """The ODE of x and of K integrals ℓ along it, with states ``(B, D + K)``; no ℓ has any influence on x or on another.

    A solver that knows of the split need not evaluate the rates where only the velocity is wanted.

    Arguments:
        ode: That of x.
        event_shape: The shape of x; D is its number of elements.
        count: K.
    """

    def __init__(self, ode: ODE, event_shape: torch.Size, count: int) -> None:
        super().__init__(interval=ode.interval)
        take_over(self, ode)
        self.schedule = self.score = None
        self.ode = ode
        self.event_shape = event_shape
        self.count = count

    @abstractmethod
    def rates(self, t: Time, x: Tensor) -> tuple[Tensor, Tensor]:
        """v(t, x), with the shape of x, and r(t, x), ``(B, K)``."""

    def join(self, x: Tensor, integrals: Tensor | None = None) -> Tensor:
        """(x, ℓ) as one state, ℓ = 0 where none is given."""
        if integrals is None:
            integrals = x.new_zeros(len(x), self.count)
        return torch.cat([x.flatten(1), integrals], dim=1)

    def part(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """x with its event shape, and ℓ with shape ``(B, K)``."""
        dims = state.shape[1] - self.count
        x, integrals = state.narrow(1, 0, dims), state.narrow(1, dims, self.count)
        return x if len(self.event_shape) == 1 else x.reshape(-1, *self.event_shape), integrals

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        return self.join(*self.rates(t, self.part(x)[0]))
