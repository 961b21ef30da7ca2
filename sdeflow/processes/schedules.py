"""The schedules with names. Their forms keep their digits at both ends: 1 − a² is an ``expm1``, not a difference."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.calculus import outside_inference_mode
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import check_interval
from sdeflow.processes.parameters import doubles
from sdeflow.processes.schedule import Schedule

__all__ = [
    "CosineVPSchedule",
    "CustomSchedule",
    "LinearSchedule",
    "OUSchedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
]


class _LogSignalSchedule(Schedule):
    """a = exp(l(t)): a subclass gives l and its derivative."""

    @abstractmethod
    def log_a(self, t: Tensor) -> Tensor:
        """ln a(t)."""

    def a(self, t: Tensor) -> Tensor:
        return self.log_a(t).exp()

    def a_dot(self, t: Tensor) -> Tensor:
        return self.drift_rate(t) * self.a(t)


class _VariancePreservingSchedule(_LogSignalSchedule):
    """a² + s² = 1."""

    def variance(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_a(t))

    def variance_dot(self, t: Tensor) -> Tensor:
        return -2 * self.drift_rate(t) * (2 * self.log_a(t)).exp()

    def squared_diffusion(self, t: Tensor) -> Tensor:
        return -2 * self.drift_rate(t)

    def log_snr(self, t: Tensor) -> Tensor:
        l = 2 * self.log_a(t)
        return l - (-torch.expm1(l)).log()


class _LinearBeta(_LogSignalSchedule):
    """ln a = −½∫β with β = β₀ + t(β₁ − β₀)."""

    def __init__(self, beta_min: float, beta_max: float, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)
        self.interval = interval

    def log_a(self, t: Tensor) -> Tensor:
        return t * (-0.25 * (self.beta_max - self.beta_min) * t - 0.5 * self.beta_min)

    def drift_rate(self, t: Tensor) -> Tensor:
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))


class VPSchedule(_VariancePreservingSchedule, _LinearBeta, by_value=True):
    """Variance preserving with linear β: a = exp(−¼t²(β₁ − β₀) − ½tβ₀), s² = 1 − a²."""

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        l = self.log_a(t)
        variance = -torch.expm1(2 * l)
        return l.exp(), variance.clamp_min(0).sqrt(), 2 * l - variance.log()

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        # a² = sigmoid(value); then ¼Δt² + ½β₀t = −ln a, solved without cancellation
        l = -0.5 * torch.nn.functional.logsigmoid(doubles(value))
        delta = self.beta_max - self.beta_min
        return 4 * l / (self.beta_min + (self.beta_min**2 + 4 * delta * l).sqrt())


class SubVPSchedule(_LinearBeta, by_value=True):
    """Sub-variance-preserving: a as in VP, and the standard deviation, not the variance, is 1 − a²."""

    def s(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_a(t))

    def s_dot(self, t: Tensor) -> Tensor:
        return -2 * self.drift_rate(t) * (2 * self.log_a(t)).exp()

    def variance(self, t: Tensor) -> Tensor:
        return self.s(t).square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return 2 * self.s(t) * self.s_dot(t)

    def squared_diffusion(self, t: Tensor) -> Tensor:
        return 2 * self.drift_rate(t) * torch.expm1(4 * self.log_a(t))  # β(1 − a⁴)


class CosineVPSchedule(_VariancePreservingSchedule, by_value=True):
    """a = cos(πt/2), s = sin(πt/2); β = π tan(πt/2) is infinite at t = 1."""

    def __init__(self, interval: tuple[float, float]) -> None:
        self.interval = interval

    def log_a(self, t: Tensor) -> Tensor:
        return self.a(t).log()

    def a(self, t: Tensor) -> Tensor:
        return (0.5 * math.pi * t).cos()

    def s(self, t: Tensor) -> Tensor:
        return (0.5 * math.pi * t).sin()

    def s_dot(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * self.a(t)

    def variance(self, t: Tensor) -> Tensor:
        return self.s(t).square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return 0.5 * math.pi * (math.pi * t).sin()

    def drift_rate(self, t: Tensor) -> Tensor:
        return -0.5 * math.pi * (0.5 * math.pi * t).tan()

    def log_snr(self, t: Tensor) -> Tensor:
        return -2 * (0.5 * math.pi * t).tan().log()


class VESchedule(Schedule, by_value=True):
    """Variance exploding: a = 1, s² = σ²(t) − σ²(0) with σ(t) = σ_min (σ_max/σ_min)^t. Common code forgets the − σ²(0)."""

    def __init__(self, sigma_min: float, sigma_max: float, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.log_ratio = math.log(self.sigma_max / self.sigma_min)
        self.interval = interval

    def a(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def a_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def variance(self, t: Tensor) -> Tensor:
        return self.sigma_min**2 * torch.expm1(2 * self.log_ratio * t)

    def variance_dot(self, t: Tensor) -> Tensor:
        return 2 * self.log_ratio * self.sigma_min**2 * (2 * self.log_ratio * t).exp()


class OUSchedule(_LogSignalSchedule, by_value=True):
    """Ornstein–Uhlenbeck about 0, and Brownian motion at θ = 0: a = e^{−θτ}, s² = σ²(1 − e^{−2θτ})/2θ, τ = t − t0."""

    def __init__(self, theta: float, sigma: float, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        self.theta, self.sigma = float(theta), float(sigma)
        self.interval = interval

    def log_a(self, t: Tensor) -> Tensor:
        return -self.theta * (t - self.interval[0])

    def drift_rate(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -self.theta)

    def variance(self, t: Tensor) -> Tensor:
        if self.theta == 0:
            return self.sigma**2 * (t - self.interval[0])
        return -(self.sigma**2) * torch.expm1(2 * self.log_a(t)) / (2 * self.theta)

    def variance_dot(self, t: Tensor) -> Tensor:
        return self.sigma**2 * (2 * self.log_a(t)).exp()


class LinearSchedule(Schedule, by_value=True):
    """The straight line of flow matching on the generative clock: a = t, s = 1 − t, noise at 0 and data at 1."""

    def __init__(self, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        self.interval = interval

    def a(self, t: Tensor) -> Tensor:
        return t

    def a_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def s(self, t: Tensor) -> Tensor:
        return 1 - t

    def s_dot(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def variance(self, t: Tensor) -> Tensor:
        return (1 - t).square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return -2 * (1 - t)

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        return torch.sigmoid(doubles(value) / 2)


class CustomSchedule(Schedule):
    """A schedule from two functions of a float64 time tensor; the derivatives are taken by automatic differentiation.

    Example:
        >>> schedule = CustomSchedule(lambda t: 1 - t, lambda t: t, interval=(0.0, 0.99))
        >>> schedule.squared_diffusion(torch.tensor(0.5, dtype=torch.float64))  # 2t + 2t²/(1 − t)
        tensor(2., dtype=torch.float64)
    """

    def __init__(
        self,
        a: Callable[[Tensor], Tensor],
        s: Callable[[Tensor], Tensor],
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        if not callable(a) or not callable(s):
            raise ArgumentError("a schedule is made of two functions of time, a(t) and s(t).")
        self._a, self._s = a, s
        self.interval = check_interval(interval)

    @staticmethod
    @outside_inference_mode
    def _slope(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            value = function(t)
            if not isinstance(value, Tensor) or not value.requires_grad:  # a constant
                return torch.zeros_like(t)
            (slope,) = torch.autograd.grad(value.sum(), t, allow_unused=True)
        return torch.zeros_like(t) if slope is None else slope

    @staticmethod
    def _value(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
        value = torch.as_tensor(function(t), dtype=torch.float64, device=t.device)
        if value.shape not in (t.shape, ()):
            raise ArgumentError(
                f"a function of the schedule returned shape {tuple(value.shape)} for times of shape {tuple(t.shape)}; "
                f"return the shape of t."
            )
        return value.expand_as(t)

    def a(self, t: Tensor) -> Tensor:
        return self._value(self._a, t)

    def s(self, t: Tensor) -> Tensor:
        return self._value(self._s, t)

    def a_dot(self, t: Tensor) -> Tensor:
        return self._slope(self._a, t)

    def s_dot(self, t: Tensor) -> Tensor:
        return self._slope(self._s, t)

    def variance(self, t: Tensor) -> Tensor:
        return self.s(t).square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return 2 * self.s(t) * self.s_dot(t)
