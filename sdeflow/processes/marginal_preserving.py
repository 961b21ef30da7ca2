r"""A family of SDEs with the same marginals, from the flow (ε = 0) to as much noise as one likes.

With E = εI in place of Σ/2, drift v + E∇log p_t + ∇·E and noise √(2E) leave every marginal p_t as it was; ∇·E = 0 here
because ε depends on t only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.affine import Values, added, scaled
from sdeflow.processes.boundary import UserField, as_time, state_time
from sdeflow.processes.derived import take_over
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, doubles_of, fields_at, together
from sdeflow.types import Field, Time, Times

__all__ = ["MarginalPreserving"]

ROUNDING = 1e-6  # sin(πt) at t = 1 in float32 is −9e-8


class MarginalPreserving(SDE, precise_time=True):
    """dx = (v + ε∇log p_t) dt + √(2ε) dW, with the sign of ε∇log p_t turned on a backward clock."""

    plain_name = "the marginal-preserving SDE"

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
        if not callable(epsilon) and not _is_amount(epsilon):
            raise ArgumentError(f"epsilon={epsilon!r} is not a number ≥ 0; give one, or a function of t.")
        self.epsilon = epsilon

    def _epsilon(self, t: Time, x: Tensor) -> Tensor:
        if not callable(self.epsilon):
            return torch.as_tensor(self.epsilon, dtype=x.dtype, device=x.device).reshape(())
        given = self.epsilon(state_time(t, x, self.interval))
        try:
            value = as_time(given, x).to(x.dtype)
        except ArgumentError:
            shape = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
            raise ArgumentError(f"epsilon(t) returned {shape}; return one number ≥ 0 for each time.") from None
        # Looking at the values would stall a GPU; there a negative ε becomes NaN, and the solve says so.
        if value.device.type == "cpu" and bool((value < -ROUNDING).any()):
            raise ArgumentError(
                f"epsilon(t) is negative, down to {value.min().item():g}; it must be ≥ 0 at every time."
            )
        return torch.where((value < 0) & (value >= -ROUNDING), 0, value)

    def _epsilons(self, times: Times, like: Tensor) -> Tensor:
        column = doubles_of(times, like)[:, None]
        return self._epsilon(column, column).to(torch.float64).expand_as(column)[:, 0]

    def _drifts(self, times: Times, like: Tensor) -> Sequence[At]:
        velocity, score = (fields_at(field, times, like) for field in (self.flow.velocity, self.score))
        return added(velocity, scaled(self.direction * self._epsilons(times, like), score, like))

    @together(_drifts)
    def drift(self, t: Time, x: Tensor) -> Tensor:
        assert self.score is not None
        return self.flow.velocity(t, x) + self.direction * self._epsilon(t, x) * self.score(t, x)

    def _diffusions(self, times: Times, like: Tensor) -> Sequence[At]:
        return Values((2 * self._epsilons(times, like)).sqrt(), like)

    @together(_diffusions)
    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return (2 * self._epsilon(t, x)).sqrt()


def _is_amount(epsilon: Any) -> bool:
    """Whether it is one finite number ≥ 0."""
    try:
        value = float(epsilon.detach() if isinstance(epsilon, Tensor) else epsilon)
    except (TypeError, ValueError, RuntimeError):
        return False
    return 0 <= value < float("inf")
