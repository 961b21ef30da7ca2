"""Doob's h-transform: a process given what happens at its end."""

from __future__ import annotations

from torch import Tensor

from sdeflow.processes.boundary import UserField
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["Conditioned"]


class Conditioned(DerivedSDE, precise_time=True):
    """Drift f + Σ∇log h on a forward clock, f − Σ∇log h on a backward one; the added term is the same in both calculi."""

    plain_name = "the conditioned process"

    def __init__(self, original: SDE, grad_log_h: Field) -> None:
        super().__init__(original)
        self.grad_log_h = UserField(grad_log_h, "grad_log_h", original.interval)
        # The marginals are no longer those of the schedule and the score of the original.
        self.schedule = None
        self.score = None

    def drift(self, t: Time, x: Tensor) -> Tensor:
        pull = self.original.covariance_times(t, x, self.grad_log_h(t, x))
        return self.original.drift(t, x) + self.direction * pull
