"""The diffusions of generative modelling: linear SDEs that take data at t0 to noise at t1 along a Gaussian schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sdeflow.errors import ArgumentError
from sdeflow.processes.affine import Affine, Values
from sdeflow.processes.boundary import as_time, check_interval
from sdeflow.processes.parameters import finite_number, gaussian
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.schedules import CosineVPSchedule, SubVPSchedule, VESchedule, VPSchedule
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, doubles_of, together
from sdeflow.types import Time, Times

__all__ = [
    "CosineVariancePreserving",
    "ScheduledDiffusion",
    "SubVariancePreserving",
    "VarianceExploding",
    "VariancePreserving",
]


class ScheduledDiffusion(SDE, precise_time=True):
    r"""The diffusion of any Gaussian schedule: :math:`dx = \frac{\dot a}{a} x\,dt + g\,dW`.

    Its coefficients follow from the schedule, :math:`g^2 = (s^2)' - 2\frac{\dot a}{a}s^2`.

    Noise is diagonal and additive, for events of any shape.

    Arguments:
        schedule: a(t) and s(t) on the noising clock (data at t0), finite on its interval.
        prior_deviation: The standard deviation of the noise end; s(t1) by default.

    Raises:
        ArgumentError: g² is negative somewhere: the schedule is on the generative clock, or no diffusion has it.

    Example:
        >>> straight = sf.processes.CustomSchedule(lambda t: 1 - t, lambda t: t, interval=(0.0, 0.99))
        >>> sde = sf.processes.ScheduledDiffusion(straight)
        >>> sde.marginal(torch.ones(1, 2), 0.5).mean
        tensor([[0.5000, 0.5000]])
    """

    confined = True

    def __init__(self, schedule: Schedule, *, prior_deviation: float | None = None) -> None:
        if not isinstance(schedule, Schedule):
            raise ArgumentError(f"the schedule is {type(schedule).__name__}; give an sf.processes.Schedule.")
        super().__init__(noise="diagonal", additive=True, interval=schedule.interval)
        _refuse_shrinking_noise(schedule)
        self.schedule: Schedule = schedule
        self.prior_deviation = prior_deviation

    def _drifts(self, times: Times, like: Tensor) -> Sequence[At]:
        nothing: Sequence[Any] = [None] * len(times)
        return Affine(self.schedule.drift_rate(doubles_of(times, like)), None, nothing, like)

    @together(_drifts)
    def drift(self, t: Time, x: Tensor) -> Tensor:
        return self.schedule.drift_rate(t).to(x.dtype) * x

    def _diffusions(self, times: Times, like: Tensor) -> Sequence[At]:
        return Values(self.schedule.squared_diffusion(doubles_of(times, like)).clamp_min(0).sqrt(), like)

    @together(_diffusions)
    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.schedule.squared_diffusion(t).clamp_min(0).sqrt().to(x.dtype)

    def marginal(self, x0: Tensor, t: Time, s: Time | None = None) -> Distribution:
        """p(x_t | x_s = x0) = N(r x0, s²(t) − r² s²(s)) with r = a(t)/a(s); s = t0 by default."""
        start = as_time(self.interval[0] if s is None else s, x0)
        end = as_time(t, x0)
        ratio = self.schedule.a(end) / self.schedule.a(start)
        variance = self.schedule.variance(end) - ratio.square() * self.schedule.variance(start)
        return gaussian(ratio.to(x0.dtype) * x0, variance.clamp_min(0).sqrt())

    def prior(self, event_shape: tuple[int, ...] | torch.Size) -> Distribution:
        """N(0, s²): what the noise end is taken for. It is exact only where a(t1) = 0."""
        if self.prior_deviation is None:
            deviation = self.schedule.s(torch.tensor(self.interval[1], dtype=torch.float64, device="cpu")).item()
        else:
            deviation = self.prior_deviation
        mean = torch.zeros(event_shape)
        return Independent(Normal(mean, torch.full_like(mean, deviation)), len(event_shape))


def _refuse_shrinking_noise(schedule: Schedule) -> None:
    """g² < 0 has no square root: the noise shrinks faster than the drift alone would let it."""
    start, end = schedule.interval
    t = torch.linspace(start, end, 65, dtype=torch.float64, device="cpu")[1:-1]
    with torch.no_grad():
        squared = schedule.squared_diffusion(t).expand_as(t)
        scale = schedule.variance_dot(t).abs() + (schedule.drift_rate(t) * schedule.variance(t)).abs()
    negative = squared < -1e-9 * scale
    if bool(negative.any()):
        first = int(negative.int().argmax())
        raise ArgumentError(
            f"the schedule has a negative g² = d(s²)/dt − 2(ȧ/a)s², {squared[first].item():.3g} at t = {t[first].item():.3g}, "
            f"so no diffusion has these marginals. Give it on the noising clock, data at t0 and noise at t1; from the "
            f"generative clock, schedule.flip(schedule.interval) is that."
        )


def _betas(beta_min: float, beta_max: float) -> None:
    beta_min, beta_max = finite_number("beta_min", beta_min), finite_number("beta_max", beta_max)
    if not 0 <= beta_min <= beta_max or not beta_max > 0:
        raise ArgumentError(f"beta_min={beta_min!r}, beta_max={beta_max!r}: give 0 ≤ beta_min ≤ beta_max, not both 0.")


class VariancePreserving(ScheduledDiffusion, precise_time=True):
    r"""The variance-preserving SDE :math:`dx = -\tfrac12\beta x\,dt + \sqrt\beta\,dW`, β(t) = β₀ + t(β₁ − β₀).

    p(x_t | x_0) = N(a x_0, 1 − a²) with ln a = −¼t²(β₁ − β₀) − ½tβ₀.

    Arguments:
        beta_min: β₀, per unit of time.
        beta_max: β₁, per unit of time.
        interval: Data at t0, noise at t1; β and a are functions of t itself, so (1e-3, 1) cuts the usual interval short.

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        https://arxiv.org/abs/2011.13456

    Example:
        >>> sde = sf.processes.VariancePreserving()
        >>> sde.marginal(torch.ones(1, 2), 0.5).mean
        tensor([[0.2812, 0.2812]])
    """

    def __init__(
        self, beta_min: float = 0.1, beta_max: float = 20.0, *, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        _betas(beta_min, beta_max)
        super().__init__(VPSchedule(beta_min, beta_max, _after_zero(interval)), prior_deviation=1.0)


class SubVariancePreserving(ScheduledDiffusion, precise_time=True):
    r"""The sub-variance-preserving SDE :math:`dx = -\tfrac12\beta x\,dt + \sqrt{\beta(1 - a^4)}\,dW`.

    p(x_t | x_0) = N(a x_0, (1 − a²)²), a as in :class:`VariancePreserving`: the standard deviation is 1 − a².

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        https://arxiv.org/abs/2011.13456

    Example:
        >>> sf.processes.SubVariancePreserving().marginal(torch.ones(1, 1), 0.5).stddev
        tensor([[0.9209]])
    """

    def __init__(
        self, beta_min: float = 0.1, beta_max: float = 20.0, *, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        _betas(beta_min, beta_max)
        super().__init__(SubVPSchedule(beta_min, beta_max, _after_zero(interval)), prior_deviation=1.0)


class CosineVariancePreserving(ScheduledDiffusion, precise_time=True):
    r"""The variance-preserving SDE with a = cos(πt/2): :math:`\beta = \pi\tan(\pi t/2)`.

    β is infinite at t = 1, so the interval ends at .999, where a = .0016.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), https://arxiv.org/abs/2102.09672

    Example:
        >>> sf.processes.CosineVariancePreserving().marginal(torch.ones(1, 1), 0.5).mean
        tensor([[0.7071]])
    """

    def __init__(self, *, interval: tuple[float, float] = (0.0, 0.999)) -> None:
        start, end = _after_zero(interval)
        if end >= 1:
            raise ArgumentError(
                f"interval={interval!r}: the cosine schedule has an infinite β at t = 1; end before it."
            )
        super().__init__(CosineVPSchedule((start, end)), prior_deviation=1.0)


class VarianceExploding(ScheduledDiffusion, precise_time=True):
    r"""The variance-exploding SDE :math:`dx = g\,dW`, :math:`g = \sigma\sqrt{2\ln(\sigma_{max}/\sigma_{min})}`.

    Here σ(t) = σ_min(σ_max/σ_min)^t.

    p(x_t | x_0) = N(x_0, σ²(t) − σ²(0)): exactly that, where common code writes σ²(t).

    References:
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021),
        https://arxiv.org/abs/2011.13456

    Example:
        >>> sf.processes.VarianceExploding(0.01, 50.0).marginal(torch.ones(1, 1), 0.5).stddev
        tensor([[0.7070]])
    """

    def __init__(
        self, sigma_min: float = 0.01, sigma_max: float = 50.0, *, interval: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        sigma_min, sigma_max = finite_number("sigma_min", sigma_min), finite_number("sigma_max", sigma_max)
        if not 0 < sigma_min < sigma_max:
            raise ArgumentError(f"sigma_min={sigma_min!r}, sigma_max={sigma_max!r}: give 0 < sigma_min < sigma_max.")
        super().__init__(VESchedule(sigma_min, sigma_max, _after_zero(interval)))


def _after_zero(interval: tuple[float, float]) -> tuple[float, float]:
    """These schedules put the data at t = 0."""
    start, end = check_interval(interval)
    if start < 0:
        raise ArgumentError(f"interval={interval!r}: the schedule has its data at t = 0; start at 0 or after it.")
    return start, end
