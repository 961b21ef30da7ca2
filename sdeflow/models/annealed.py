"""Annealed Langevin dynamics: the equilibrium at one noise level after another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.boundary import UserField
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.sde import SDE
from sdeflow.types import Field, Time

__all__ = ["AnnealedLangevin"]

ROUNDING = 1e-9


class AnnealedLangevin(SDE, precise_time=True):
    r"""Langevin dynamics at a sequence of noise levels, one unit of its own time r each: a process for ``solve``.

    .. math:: dx = \kappa_i\,\nabla\log p_{t_i}(x)\,dr + \sqrt{2\kappa_i}\,dW, \qquad i \le r < i + 1, \qquad
              \kappa_i = \kappa\,s(t_i)^2

    With N Euler steps a level, each is NCSN's :math:`x + \tfrac{\alpha_i}2\nabla\log p + \sqrt{\alpha_i}\,z` with
    α_i = 2κs²/N, its α_i = ε σ_i²/σ_L² with ε = 2κσ_L²/N.

    Arguments:
        score: ∇log p_t(x), a function of (t, x), such as ``model.score``.
        schedule: s(t) on the clock of the score, such as ``model.schedule``.
        levels: t_0, t_1, …, from the most noise to the least.
        rate: κ > 0, how far each level goes towards its equilibrium, in units of the squared noise.

    Raises:
        ArgumentError: There is no level, or the noise does not fall along them.

    References:
        Generative Modeling by Estimating Gradients of the Data Distribution (Song & Ermon, 2019),
        https://arxiv.org/abs/1907.05600

    Example:
        >>> schedule = sf.paths.EDMSchedule(0.05, 5.0)
        >>> law = sf.laws.GaussianMixture([1.0], [[2.0]], [0.01])
        >>> levels = [5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05]
        >>> process = sf.models.AnnealedLangevin(law.along(schedule).score, schedule, levels, rate=2.0)
        >>> x = sf.solve(process, 5 * torch.ones(100, 1), steps=7 * 20, seed=0).final
        >>> bool((x.mean() - 2).abs() < 0.1)
        True
    """

    plain_name = "annealed Langevin dynamics"
    confined = True

    def __init__(
        self, score: Field, schedule: Schedule, levels: Sequence[float] | Tensor, *, rate: float = 1.0
    ) -> None:
        times = torch.as_tensor(levels, dtype=torch.float64).flatten()
        if not len(times):
            raise ArgumentError("there are no levels; give times from the most noise to the least.")
        super().__init__(noise="diagonal", additive=True, interval=(0.0, float(len(times))))
        rate = finite_number("rate", rate)
        noise = schedule.s(times)
        if rate <= 0 or not bool((noise > 0).all()) or bool((noise.diff() > 0).any()):
            raise ArgumentError(
                f"the levels have noise {[round(value, 4) for value in noise.tolist()]} and the rate is {rate:g}; "
                f"give levels of falling noise > 0 and a rate > 0."
            )
        self.times: Tensor
        self.sizes: Tensor
        self.register_buffer("times", times)
        self.register_buffer("sizes", rate * noise.square())
        self.field = UserField(score, "score", schedule.interval)

    def _level(self, r: Tensor) -> Tensor:
        """Which level it is; the end of the interval belongs to the last."""
        # The nodes of a grid are the beginnings of the levels up to rounding: 49·(1/49) is below 1.
        level: Tensor = (r + ROUNDING).floor().long().clamp(0, len(self.times) - 1)
        return level

    def drift(self, t: Time, x: Tensor) -> Tensor:
        level = self._level(t)
        score: Tensor = self.field(self.times[level], x)
        return score.mul(self.sizes[level].to(x.dtype))

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return (2 * self.sizes[self._level(t)]).sqrt().to(x.dtype)
