r"""What a Gaussian schedule is: x_t = a(t) x_data + s(t) x_noise, with x_noise ~ N(0, I) independent of the data.

A schedule is a(t) and s²(t) and their derivatives; everything else follows. Times are float64 tensors. The linear diffusion
that has these marginals is

.. math:: dx = \frac{\dot a}{a}\,x\,dt + g\,dW, \qquad g^2 = \frac{d s^2}{dt} - 2\,\frac{\dot a}{a}\,s^2 .
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdeflow.processes.parameters import doubles, finite_number

__all__ = ["FlippedSchedule", "Schedule"]


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

    by_value: ClassVar[bool] = False
    """Whether it is a function of the numbers that are its attributes, and of nothing else: each class says it for itself."""

    def __init_subclass__(cls, by_value: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.by_value = by_value
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

    @property
    def value(self) -> tuple[Any, ...] | None:
        """What it is a function of: equal for schedules that are equal at every time, or None where it cannot be said.

        Example:
            >>> sf.processes.VariancePreserving().schedule.value == sf.processes.VariancePreserving(
            ...     0.1, 20
            ... ).schedule.value
            True
        """
        parts = [v.value if isinstance(v, Schedule) else v for v in vars(self).values()]
        known = self.by_value and all(isinstance(v, (float, int, tuple)) for v in parts)
        return (type(self), *parts) if known else None

    def flip(self, interval: tuple[float, float]) -> Schedule:
        """The same path on the clock t0 + t1 − t of the given interval."""
        return FlippedSchedule(self, interval)


class FlippedSchedule(Schedule, by_value=True):
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
