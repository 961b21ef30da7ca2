"""The schedule of a discrete diffusion, on the clock of its timesteps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.schedule import Schedule

__all__ = ["DiscreteSchedule"]


class DiscreteSchedule(Schedule):
    r"""The chain :math:`x_i = \sqrt{1 - \beta_i}\,x_{i-1} + \sqrt{\beta_i}\,\varepsilon_i`, i < N.

    It is on the noising clock, which counts the timesteps: at t = i it has :math:`a^2 = \prod_{j \le i}(1 - \beta_j)`
    exactly. Between timesteps it is the variance-preserving SDE of constant β = −ln(1 − β_i), of which the chain is a part.

    Arguments:
        betas: β_0 … β_{N−1}, between 0 and 1.

    Raises:
        ArgumentError: There are fewer than two, or one is not between 0 and 1.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239

    Example:
        >>> schedule = sf.paths.DiscreteSchedule(torch.linspace(1e-4, 0.02, 1000))
        >>> schedule.interval, schedule.a(999.0)
        ((0.0, 999.0), tensor(0.0064, dtype=torch.float64))
    """

    def __init__(self, betas: Sequence[float] | Tensor) -> None:
        values = torch.as_tensor(betas, dtype=torch.float64).flatten()
        if len(values) < 2 or not bool(((values > 0) & (values < 1)).all()):
            raise ArgumentError("betas are at least two numbers between 0 and 1.")
        self.rates = 0.5 * torch.log1p(-values)  # of ln a, per timestep
        self.knots = self.rates.cumsum(0)
        self.interval = (0.0, float(len(values) - 1))

    def _cell(self, t: Tensor) -> Tensor:
        """The timestep at which the cell of t ends."""
        return t.ceil().clamp(0, len(self.knots) - 1).long()

    def log_a(self, t: Tensor) -> Tensor:
        end = self._cell(t)
        return self.knots.to(t.device)[end] + self.rates.to(t.device)[end] * (t - end)

    def a(self, t: Tensor) -> Tensor:
        return self.log_a(t).exp()

    def a_dot(self, t: Tensor) -> Tensor:
        return self.drift_rate(t) * self.a(t)

    def drift_rate(self, t: Tensor) -> Tensor:
        return self.rates.to(t.device)[self._cell(t)]

    def variance(self, t: Tensor) -> Tensor:
        return -torch.expm1(2 * self.log_a(t))

    def variance_dot(self, t: Tensor) -> Tensor:
        return -2 * self.drift_rate(t) * (2 * self.log_a(t)).exp()

    def squared_diffusion(self, t: Tensor) -> Tensor:
        return -2 * self.drift_rate(t)
