"""The schedules of elucidated diffusion: the noise level itself as the clock, and Karras's curve to it."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.parameters import doubles, finite_number
from sdeflow.processes.schedule import Schedule

__all__ = ["EDMSchedule", "KarrasSchedule"]


class EDMSchedule(Schedule, by_value=True):
    r"""a = 1, s = t: the standard deviation of the noise is the time itself, on the noising clock.

    Arguments:
        sigma_min: The smallest deviation, where the data is.
        sigma_max: The largest.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364

    Example:
        >>> sf.processes.ScheduledDiffusion(sf.paths.EDMSchedule()).diffusion(8.0, torch.zeros(1, 1))  # √(2t)
        tensor(4.)
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        self.interval = _deviations(sigma_min, sigma_max)

    def a(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def a_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def s(self, t: Tensor) -> Tensor:
        return t

    def s_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def variance(self, t: Tensor) -> Tensor:
        return t.square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return 2 * t

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        return (-0.5 * doubles(value)).exp()


class KarrasSchedule(Schedule, by_value=True):
    r"""a = 1, :math:`s = (\sigma_{max}^{1/\rho} + t(\sigma_{min}^{1/\rho} - \sigma_{max}^{1/\rho}))^\rho`.

    It is on the generative clock, base at 0 and data at 1, and equal steps in t are Karras's grid.

    Arguments:
        sigma_min: The deviation at t = 1.
        sigma_max: The deviation at t = 0.
        rho: ρ ≥ 1: the greater, the more of the time near the data.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        low, high = _deviations(sigma_min, sigma_max)
        self.rho = finite_number("rho", rho)
        if self.rho < 1:
            raise ArgumentError(f"rho={rho!r}: give ρ ≥ 1.")
        self.low, self.high = low ** (1 / self.rho), high ** (1 / self.rho)
        self.interval = (0.0, 1.0)

    def _root(self, t: Tensor) -> Tensor:
        root: Tensor = self.high + t * (self.low - self.high)
        return root

    def a(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def a_dot(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def s(self, t: Tensor) -> Tensor:
        return self._root(t).pow(self.rho)

    def s_dot(self, t: Tensor) -> Tensor:
        return self._root(t).pow(self.rho - 1).mul(self.rho * (self.low - self.high))

    def variance(self, t: Tensor) -> Tensor:
        return self.s(t).square()

    def variance_dot(self, t: Tensor) -> Tensor:
        return 2 * self.s(t) * self.s_dot(t)

    def time_of_log_snr(self, value: Tensor) -> Tensor:
        deviation = (-0.5 * doubles(value)).exp()
        return deviation.pow(1 / self.rho).sub(self.high).div(self.low - self.high)


def _deviations(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    low, high = finite_number("sigma_min", sigma_min), finite_number("sigma_max", sigma_max)
    if not 0 < low < high:
        raise ArgumentError(f"sigma_min={sigma_min!r}, sigma_max={sigma_max!r}: give 0 < sigma_min < sigma_max.")
    return low, high
