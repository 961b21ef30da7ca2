"""Geometric Brownian motion: the simplest process whose noise depends on the state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, LogNormal

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import like, parameter
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["GeometricBrownianMotion"]


class GeometricBrownianMotion(SDE, precise_time=True):
    r"""Geometric Brownian motion :math:`dx = \mu x\,dt + \sigma x\,dW` (Itô), coordinate by coordinate.

    ln x_t given x_s is N(ln x_s + (μ − σ²/2)τ, σ²τ) with τ = t − s, for x_s > 0.

    Arguments:
        mu: μ per unit of time, a number or a tensor that broadcasts against the state.
        sigma: σ > 0, likewise.
        interval: (t0, t1).

    References:
        Numerical Solution of Stochastic Differential Equations, 4.4 (Kloeden & Platen, 1992)

    Example:
        >>> gbm = sf.processes.GeometricBrownianMotion(0.3, 0.6)
        >>> gbm.diffusion_divergence(0.0, torch.tensor([[1.0, 2.0]]))  # ∇·Σ = 2σ²x
        tensor([[0.7200, 1.4400]])
    """

    mu: Any
    sigma: Any

    def __init__(
        self, mu: float | Tensor = 0.0, sigma: float | Tensor = 1.0, *, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__(noise="diagonal", interval=interval)
        parameter(self, "mu", mu)
        parameter(self, "sigma", sigma, positive=True)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return like(self.mu, x) * x

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return like(self.sigma, x) * x

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        return 2 * like(self.sigma, x) ** 2 * x

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        tau = (as_time(t, x0) - as_time(self.interval[0] if s is None else s, x0)).to(x0.dtype)
        if not bool((tau > 0).all()):
            raise ArgumentError("p(x_t | x_s) is a point mass, since t is not after s; ask for a later t.")
        if not bool((x0 > 0).all()):
            raise ArgumentError("the log-normal law needs x0 > 0 in every coordinate.")
        mu, sigma = (torch.as_tensor(like(v, x0), dtype=x0.dtype, device=x0.device) for v in (self.mu, self.sigma))
        location = x0.log() + (mu - 0.5 * sigma**2) * tau
        return Independent(LogNormal(location, (sigma * tau.sqrt()).expand_as(location)), x0.ndim - 1)
