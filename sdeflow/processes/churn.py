"""Churn: the noise that the stochastic sampler of Karras et al. adds to a flow, as a process."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time
from sdeflow.processes.marginal_preserving import MarginalPreserving
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.process import Process
from sdeflow.types import Time

__all__ = ["Churn"]


class Churn(MarginalPreserving, precise_time=True):
    r"""A flow with its noise stirred: the SDE with equal marginals and :math:`\varepsilon = \frac{S_\text{churn}}{T}\,s(t)^2`.

    T is the length of the interval, so over a step of length h the noise level grows by a factor 1 + S_churn h/T and is
    denoised again: with N equal steps of time by S_churn/N, as in Algorithm 2 of Karras et al. Solved with
    ``method="edm-heun"`` it is that algorithm (equal steps in the time of ``sf.paths.EDMPath`` are its grid); with any other
    method of SDEs it is the same process, stepped otherwise.

    Arguments:
        process: What runs to the data, ``model.ode()`` or a reversal: it has a schedule and a score.
        amount: S_churn ≥ 0; 0 leaves the flow.
        low: S_tmin, the noise level s/a below which nothing is stirred.
        high: S_tmax, the one above which nothing is.
        inflation: S_noise > 0, what the fresh noise is multiplied by and the drift is not. Above 1 it makes up for a network
            that removes too much noise; other than 1 it does not keep the marginals.

    Raises:
        ArgumentError: The process has no schedule or no score, or a number is out of range.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364

    Example:
        >>> process = sf.paths.EDMPath(0.02, 10.0).process()
        >>> law = sf.laws.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [0.04, 0.04])
        >>> back = process.reverse(law.along(process).score, clock="backward")
        >>> stirred = sf.processes.Churn(back, 10.0, low=0.05, high=5.0)
        >>> x = 10 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> x = sf.solve(stirred, x, steps=18, method="edm-heun", seed=0).final
        >>> bool((x.abs().mean() - 1).abs() < 0.05)
        True
    """

    plain_name = "the churned flow"

    def __init__(
        self,
        process: Process,
        amount: float,
        *,
        low: float = 0.0,
        high: float = math.inf,
        inflation: float = 1.0,
    ) -> None:
        if not isinstance(process, Process) or process.schedule is None or process.score is None:
            raise ArgumentError(
                f"{getattr(process, 'title', type(process).__name__)} has no schedule and score, so its noise level is not "
                f"known; give the flow of a diffusion or of a model with a schedule."
            )
        amount, inflation = finite_number("amount", amount), finite_number("inflation", inflation)
        low, high = float(low), float(high)
        if amount < 0 or inflation <= 0 or not 0 <= low <= high:
            raise ArgumentError(
                f"amount={amount:g}, low={low:g}, high={high:g}, inflation={inflation:g}: give an amount ≥ 0, "
                f"0 ≤ low ≤ high, and an inflation > 0."
            )
        super().__init__(process, process.score, 0.0)
        self.amount, self.low, self.high, self.inflation = amount, low, high, inflation

    def _epsilon(self, t: Time, x: Tensor) -> Tensor:
        assert self.schedule is not None
        time = as_time(t, x)
        s, a = self.schedule.s(time), self.schedule.a(time)
        stirred = (s >= self.low * a) & (s <= self.high * a)
        length = self.interval[1] - self.interval[0]
        return torch.where(stirred, self.amount / length * s.square(), 0.0).to(x.dtype)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.inflation * (2 * self._epsilon(t, x)).sqrt()
