r"""A family of SDEs with the same marginals, from the flow (ε = 0) to as much noise as one likes.

With E = εI in place of Σ/2, drift v + E∇log p_t + ∇·E and noise √(2E) leave every marginal p_t as it was; ∇·E = 0 here
because ε depends on t only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import UserField, as_time, state_time
from sdeflow.processes.derived import take_over
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["MarginalPreserving"]


class MarginalPreserving(SDE, precise_time=True):
    """dx = (v + ε∇log p_t) dt + √(2ε) dW, with the sign of ε∇log p_t turned on a backward clock."""

    def __init__(self, process: Process, score: Field, epsilon: Time) -> None:
        super().__init__(noise="diagonal", additive=True, interval=process.interval)
        if isinstance(process, SDE):
            self.flow: ODE = process.probability_flow(score)
            take_over(self, self.flow)
        else:
            assert isinstance(process, ODE)
            self.flow = process
            take_over(self, process)
            self.score = UserField(score, "score", process.interval)
        if not callable(epsilon) and not bool(torch.as_tensor(epsilon) >= 0):
            raise ArgumentError(f"epsilon={epsilon!r} is not a number ≥ 0; give one, or a function of t.")
        self.epsilon = epsilon

    def _epsilon(self, t: Time, x: Tensor) -> Tensor:
        if not callable(self.epsilon):
            return torch.as_tensor(self.epsilon, dtype=x.dtype, device=x.device)
        value = as_time(self.epsilon(state_time(t, x, self.interval)), x)
        return value.to(x.dtype)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        assert self.score is not None
        return self.flow.velocity(t, x) + self.direction * self._epsilon(t, x) * self.score(t, x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return (2 * self._epsilon(t, x)).sqrt()
