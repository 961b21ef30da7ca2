"""The probability-flow ODE of an SDE: the same marginals, without noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from sdeflow.processes.boundary import UserField
from sdeflow.processes.derived import drifts_with_score, take_over
from sdeflow.processes.ode import ODE
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, doubles_of, together
from sdeflow.types import Field, Time, Times

__all__ = ["ProbabilityFlow"]


class ProbabilityFlow(ODE, precise_time=True):
    """v = f − ½∇·Σ − ½Σ∇log p_t on a forward clock, with the two signs turned on a backward one; on the SDE's time axis."""

    plain_name = "the probability flow"

    def __init__(self, sde: SDE, score: Field) -> None:
        super().__init__(interval=sde.interval)
        self.sde = sde.to_ito()
        take_over(self, sde)
        self.score = UserField(score, "score", sde.interval)

    def _velocities(self, times: Times, like: Tensor) -> Sequence[At]:
        planned = drifts_with_score(self.sde, self.score, -0.5 * self.direction, times, like)
        return [partial(self.velocity, t) for t in doubles_of(times, like).unbind()] if planned is None else planned

    @together(_velocities)
    def velocity(self, t: Time, x: Tensor) -> Tensor:
        assert self.score is not None
        sigma_score = self.sde.covariance_times(t, x, self.score(t, x))
        if not self.sde.additive:
            sigma_score = sigma_score + self.sde.diffusion_divergence(t, x)
        return self.sde.drift(t, x) - 0.5 * self.direction * sigma_score
