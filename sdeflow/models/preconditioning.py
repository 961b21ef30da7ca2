"""A network made into a denoiser whose inputs and targets have unit variance at every noise level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError
from sdeflow.processes.affine import combined
from sdeflow.processes.boundary import as_time
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.together import At, fields_at, together
from sdeflow.types import Time

__all__ = ["Preconditioned"]


class Preconditioned(nn.Module):
    r"""The denoiser :math:`D(x; \sigma) = c_{skip}\,x + c_{out}\,F(c_{noise}, c_{in}\,x)`, as a network of (t, x).

    .. math:: c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
              c_{out} = \frac{\sigma\sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
              c_{in} = \frac1{\sqrt{\sigma^2 + \sigma_d^2}}, \quad c_{noise} = \tfrac14\ln\sigma

    On a schedule with a ≠ 1 it sees x/a, whose noise level is σ = s/a. It predicts the data.

    Arguments:
        net: F(c_noise, x) and the conditions, in the order (t, x).
        schedule: a(t) and s(t), on the clock of t.
        data_deviation: σ_d > 0, the standard deviation of the data.

    Raises:
        ArgumentError: σ_d is not positive.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364

    Example:
        >>> schedule = sf.paths.EDMSchedule()
        >>> net = sf.models.Preconditioned(sf.networks.MLP(2), schedule)
        >>> edm = {"predicts": "data", "weighting": net.weighting, "time": "lognormal"}
        >>> process = sf.processes.ScheduledDiffusion(schedule)
        >>> model = sf.models.DenoisingScoreMatching(net, process, (2,), **edm)
        >>> model.loss(sf.data.moons(64, seed=0), seed=0).backward()
    """

    def __init__(self, net: Any, schedule: Schedule, data_deviation: float = 0.5) -> None:
        super().__init__()
        self.net, self.schedule = net, schedule
        self.data_deviation = finite_number("data_deviation", data_deviation)
        if self.data_deviation <= 0:
            raise ArgumentError(f"data_deviation={data_deviation!r}: give a standard deviation > 0.")

    def weighting(self, t: Tensor) -> Tensor:
        """λ(t) for the error of the score that weighs the error of the raw network by 1: s²(1 + σ²/σ_d²)."""
        ratio = self.schedule.s(t) / self.schedule.a(t) / self.data_deviation
        return self.schedule.variance(t) * (1 + ratio.square())

    def _coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise at float64 times."""
        a, deviation = self.schedule.a(t), self.data_deviation
        sigma = self.schedule.s(t) / a
        total = sigma.square() + deviation**2
        return deviation**2 / total / a, sigma * deviation / total.sqrt(), 1 / total.sqrt() / a, 0.25 * sigma.log()

    def _at_times(self, times: Tensor, like: Tensor, **condition: Any) -> Sequence[At]:
        c_skip, c_out, c_in, c_noise = (c.to(like.dtype) for c in self._coefficients(times.to(torch.float64)))
        raw = fields_at(self.net, c_noise, like, **condition)
        seen = [partial(_scaled, field, c) for field, c in zip(raw, c_in.unbind(), strict=True)]
        return combined(c_skip, c_out, seen, like)

    @together(_at_times)
    def forward(self, t: Time, x: Tensor, **condition: Any) -> Tensor:
        c_skip, c_out, c_in, c_noise = (c.to(x.dtype) for c in self._coefficients(as_time(t, x)))
        denoised: Tensor = c_skip * x + c_out * self.net(c_noise, c_in * x, **condition)
        return denoised


def _scaled(field: At, c: Tensor, x: Tensor) -> Tensor:
    return field(c * x)
