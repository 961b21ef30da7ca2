"""Linear SDEs with constant coefficients, and the bridge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import finite_number, gaussian, like, parameter, plain_number
from sdeflow.processes.schedules import OUSchedule
from sdeflow.processes.sde import SDE
from sdeflow.types import Time

__all__ = ["BrownianBridge", "BrownianMotion", "OrnsteinUhlenbeck"]


class OrnsteinUhlenbeck(SDE, precise_time=True):
    r"""The Ornstein–Uhlenbeck process :math:`dx = -\theta(x - \mu)\,dt + \sigma\,dW`.

    p(x_t | x_s) = N(μ + e^{−θτ}(x_s − μ), σ²(1 − e^{−2θτ})/2θ) with τ = t − s. It has a schedule where θ and σ are numbers
    and μ is 0.

    Arguments:
        theta: θ > 0, per unit of time: a number, or a tensor that broadcasts against the state.
        mean: μ, likewise.
        sigma: σ > 0, likewise.
        interval: (t0, t1).

    References:
        On the Theory of the Brownian Motion (Uhlenbeck & Ornstein, 1930), https://doi.org/10.1103/PhysRev.36.823

    Example:
        >>> ou = sf.processes.OrnsteinUhlenbeck(theta=1.0, mean=0.0, sigma=1.0)
        >>> ou.marginal(torch.ones(1, 1), 1.0).mean
        tensor([[0.3679]])
    """

    theta: Any
    mean: Any
    sigma: Any

    def __init__(
        self,
        theta: float | Tensor = 1.0,
        mean: float | Tensor = 0.0,
        sigma: float | Tensor = 1.0,
        *,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__(noise="diagonal", additive=True, interval=interval)
        parameter(self, "theta", theta, positive=True)
        parameter(self, "mean", mean)
        parameter(self, "sigma", sigma, positive=True)
        if plain_number(self.theta, self.mean, self.sigma) and self.mean == 0:
            self.schedule = OUSchedule(self.theta, self.sigma, self.interval)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return like(self.theta, x) * (like(self.mean, x) - x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return torch.as_tensor(like(self.sigma, x), dtype=x.dtype, device=x.device)

    def drift_resolvent(self, t: Time, h: float | Tensor, v: Tensor) -> Tensor:
        """(I − hA)⁻¹ v for the linear drift Ax + b: what an implicit step solves, see ``implicit-euler-maruyama``."""
        return v / (1 + h * like(self.theta, v))

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        tau = (as_time(t, x0) - as_time(self.interval[0] if s is None else s, x0)).clamp_min(0)
        theta, mean, sigma = (
            torch.as_tensor(v, dtype=torch.float64, device=x0.device) for v in (self.theta, self.mean, self.sigma)
        )
        variance = -(sigma**2) * torch.expm1(-2 * theta * tau) / (2 * theta)
        return gaussian((mean + (-theta * tau).exp() * (x0 - mean)).to(x0.dtype), variance.sqrt())

    def prior(self, event_shape: tuple[int, ...] | torch.Size) -> Distribution:
        """The stationary law N(μ, σ²/2θ)."""
        mean, theta, sigma = (
            torch.as_tensor(v, dtype=torch.get_default_dtype()) for v in (self.mean, self.theta, self.sigma)
        )
        deviation = sigma / (2 * theta).sqrt()
        return Independent(Normal(mean.expand(event_shape), deviation.expand(event_shape)), len(event_shape))


class BrownianMotion(SDE, precise_time=True):
    r"""Brownian motion :math:`dx = \sigma\,dW`: p(x_t | x_s) = N(x_s, σ²(t − s)).

    Arguments:
        sigma: σ > 0, a number or a tensor that broadcasts against the state.
        interval: (t0, t1).

    Example:
        >>> sf.processes.BrownianMotion(2.0).marginal(torch.zeros(1, 1), 0.25).stddev
        tensor([[1.]])
    """

    sigma: Any

    def __init__(self, sigma: float | Tensor = 1.0, *, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(noise="diagonal", additive=True, interval=interval)
        parameter(self, "sigma", sigma, positive=True)
        if plain_number(self.sigma):
            self.schedule = OUSchedule(0.0, self.sigma, self.interval)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return torch.as_tensor(like(self.sigma, x), dtype=x.dtype, device=x.device)

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        tau = (as_time(t, x0) - as_time(self.interval[0] if s is None else s, x0)).clamp_min(0)
        return gaussian(x0, torch.as_tensor(self.sigma, dtype=tau.dtype, device=tau.device) * tau.sqrt())


class BrownianBridge(SDE, precise_time=True):
    r"""Brownian motion given its end point: :math:`dx = \frac{y - x}{T - t}\,dt + \sigma\,dW`, x_T = y.

    p(x_t | x_s) is Gaussian with mean x_s + (y − x_s)(t − s)/(T − s) and variance σ²(t − s)(T − t)/(T − s). The drift is
    infinite at T, so the interval ends before it, by default at T − (T − t0)/1000.

    Arguments:
        end: y, a number or a tensor that broadcasts against the state.
        sigma: σ > 0.
        time: T, when it gets there.
        interval: (t0, t1) with t1 < T.

    Example:
        >>> bridge = sf.processes.BrownianBridge(end=2.0)
        >>> bridge.marginal(torch.zeros(1, 1), 0.5).mean
        tensor([[1.]])
    """

    confined = True
    end: Any
    sigma: Any

    def __init__(
        self,
        end: float | Tensor,
        sigma: float | Tensor = 1.0,
        *,
        time: float = 1.0,
        interval: tuple[float, float] | None = None,
    ) -> None:
        time = finite_number("time", time)
        if interval is None:
            interval = (0.0, 0.999 * time)
        super().__init__(noise="diagonal", additive=True, interval=interval)
        if self.interval[1] >= time:
            raise ArgumentError(
                f"interval={interval!r}: the bridge's drift is infinite at T = {time:g}; end before it."
            )
        parameter(self, "end", end)
        parameter(self, "sigma", sigma, positive=True)
        self.time = time

    def drift(self, t: Time, x: Tensor) -> Tensor:
        remaining: Tensor = (self.time - t).to(x.dtype)
        return (like(self.end, x) - x) / remaining

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return torch.as_tensor(like(self.sigma, x), dtype=x.dtype, device=x.device)

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        start, now = as_time(self.interval[0] if s is None else s, x0), as_time(t, x0)
        part = ((now - start) / (self.time - start)).clamp_min(0)
        mean = x0 + part.to(x0.dtype) * (like(self.end, x0) - x0)
        sigma = torch.as_tensor(self.sigma, dtype=part.dtype, device=part.device)
        return gaussian(mean, sigma * (part * (self.time - now)).sqrt())
