r"""Itô and Stratonovich forms of one process.

On a clock that runs forward, f_strat = f_ito − ½ Σ_k (∂σ_k)σ_k. A process on the backward clock is, by definition, its
flipped self with the sign of the drift turned, so there the correction is +½: with the wrong sign every round trip still
closes, but the reversed geometric Brownian motion ends with the wrong mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution

from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["InCalculus"]


class InCalculus(DerivedSDE, precise_time=True):
    """The same paths, with the drift of the other calculus."""

    plain_name = "the converted process"

    def __init__(self, original: SDE, calculus: str) -> None:
        super().__init__(original, calculus)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        f = self.original.drift(t, x)
        if self.additive or self.calculus == self.original.calculus:
            return f
        sign = self.direction * (1 if self.calculus == "ito" else -1)
        return f + 0.5 * sign * self.original.ito_correction(t, x)

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        return self.original.marginal(x0, t, s)

    def prior(self, event_shape: tuple[int, ...] | torch.Size) -> Distribution:
        return self.original.prior(event_shape)
