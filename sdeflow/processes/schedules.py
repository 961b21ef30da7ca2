r"""Gaussian schedules: x_t = a(t) x_data + s(t) x_noise, with x_noise ~ N(0, I) independent of the data.

A schedule is a(t) and s²(t) and their derivatives; everything else follows. Times are float64 tensors, and the forms keep
their digits at both ends (1 − a² is an ``expm1``, not a difference). The linear diffusion that has these marginals is

.. math:: dx = \frac{\dot a}{a}\,x\,dt + g\,dW, \qquad g^2 = \frac{d s^2}{dt} - 2\,\frac{\dot a}{a}\,s^2 .
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdeflow.calculus import outside_inference_mode
from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import check_interval
from sdeflow.processes.parameters import doubles, finite_number

__all__ = [
    "CosineVPSchedule",
    "CustomSchedule",
    "LinearSchedule",
    "OUSchedule",
    "Schedule",
    "SubVPSchedule",
    "VESchedule",
    "VPSchedule",
]


def _takes_numbers(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A method of time that takes a number as well as a tensor."""

    @wraps(method)
    def call(self: Schedule, t: Any) -> Tensor:
        return method(self, t if isinstance(t, Tensor) else torch.tensor(finite_number("t", t), dtype=torch.float64))

    return call


class Schedule(ABC):
    """The coefficients a(t) and s(t) of a Gaussian path on the interval (t0, t1).

    All methods map a float64 time tensor to a tensor of its shape, and a number to a 0-d tensor.
    """

    interval: tuple[float, float] = (0.0, 1.0)

    of_time: ClassVar[frozenset[str]] = frozenset(
        {"a", "a_dot", "variance", "variance_dot", "s", "s_dot", "drift_rate", "squared_diffusion", "log_snr"}
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in cls.of_time & cls.__dict__.keys():
            setattr(cls, name, _takes_numbers(cls.__dict__[name]))

    @abstractmethod
    def a(self, t: Tensor) -> Tensor:
        """How much of the data is left."""

    @abstractmethod
    def a_dot(self, t: Tensor) -> Tensor:
        """da/dt."""

    @abstractmethod
    def variance(self, t: Tensor) -> Tensor:
        """s²(t)."""

    @abstractmethod
    def variance_dot(self, t: Tensor) -> Tensor:
        """d(s²)/dt."""

    @_takes_numbers
    def s(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise."""
        return self.variance(t).clamp_min(0).sqrt()

    @_takes_numbers
    def s_dot(self, t: Tensor) -> Tensor:
        """ds/dt; infinite where s is 0 and s² has a slope."""
        return self.variance_dot(t) / (2 * self.s(t))

    @_takes_numbers
    def drift_rate(self, t: Tensor) -> Tensor:
        """ȧ/a, the rate of the linear drift."""
        return self.a_dot(t) / self.a(t)

    @_takes_numbers
    def squared_diffusion(self, t: Tensor) -> Tensor:
        """g² = d(s²)/dt − 2(ȧ/a)s². It is negative on a generative clock, where the noise shrinks."""
        return self.variance_dot(t) - 2 * self.drift_rate(t) * self.variance(t)

    @_takes_numbers
    def log_snr(self, t: Tensor) -> Tensor:
        """ln(a²/s²), the logarithm of the signal-to-noise ratio."""
        return 2 * self.a(t).log() - self.variance(t).clamp_min(0).log()

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a, s and log_snr, which a schedule may work out together."""
        return self.a(t), self.s(t), self.log_snr(t)

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        """The time at which log_snr is the given value: the inverse of :meth:`log_snr`, by bisection to the last bit."""
        value = doubles(value)
        low, high = (torch.full_like(value, end) for end in self.interval)
        falling = self.log_snr(low) > self.log_snr(high)
        for _ in range(80):
            middle = (low + high) / 2
            above = (self.log_snr(middle) > value) == falling
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        return (low + high) / 2

    def flip(self, interval: tuple[float, float]) -> Schedule:
        """The same path on the clock t0 + t1 − t of the given interval."""
        return FlippedSchedule(self, interval)


class FlippedSchedule(Schedule):
    """A schedule on the clock s = t0 + t1 − t."""

    def __init__(self, original: Schedule, interval: tuple[float, float]) -> None:
        self.original = original
        self.interval = interval

    def _back(self, t: Tensor) -> Tensor:
        return (self.interval[0] + self.interval[1]) - t

    def a(self, t: Tensor) -> Tensor:
        return self.original.a(self._back(t))

    def a_dot(self, t: Tensor) -> Tensor:
        return -self.original.a_dot(self._back(t))

    def variance(self, t: Tensor) -> Tensor:
        return self.original.variance(self._back(t))

    def variance_dot(self, t: Tensor) -> Tensor:
        return -self.original.variance_dot(self._back(t))

    def s(self, t: Tensor) -> Tensor:
        return self.original.s(self._back(t))

    def s_dot(self, t: Tensor) -> Tensor:
        return -self.original.s_dot(self._back(t))

    def drift_rate(self, t: Tensor) -> Tensor:
        return -self.original.drift_rate(self._back(t))

    def squared_diffusion(self, t: Tensor) -> Tensor:
        return -self.original.squared_diffusion(self._back(t))

    def log_snr(self, t: Tensor) -> Tensor:
        return self.original.log_snr(self._back(t))

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.original.levels(self._back(t))

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        return self._back(self.original.time_of_log_snr(value))

    def flip(self, interval: tuple[float, float]) -> Schedule:
        return self.original if interval == self.interval else FlippedSchedule(self, interval)


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


class VPSchedule(_VariancePreservingSchedule, _LinearBeta):
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


class SubVPSchedule(_LinearBeta):
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


class CosineVPSchedule(_VariancePreservingSchedule):
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


class VESchedule(Schedule):
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


class OUSchedule(_LogSignalSchedule):
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


class LinearSchedule(Schedule):
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
