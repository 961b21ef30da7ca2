r"""Paths with one a(t) and one s(t): x_t = a x1 + s x0, whatever the data, from a base that is normal.

Every such path is a noising process run the other way, and the reverse: a diffusion with a schedule on (t0, t1), data at t0, is
the path on the clock t0 + t1 − t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sdeflow.errors import ArgumentError
from sdeflow.paths.elucidated import KarrasSchedule
from sdeflow.paths.gaussian import GaussianPath
from sdeflow.paths.window import Window
from sdeflow.processes.boundary import as_time
from sdeflow.processes.diffusions import ScheduledDiffusion
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.schedules import (
    CosineVPSchedule,
    LinearSchedule,
    SubVPSchedule,
    VESchedule,
    VPSchedule,
)
from sdeflow.types import Time

__all__ = [
    "CosinePath",
    "EDMPath",
    "LinearPath",
    "SchedulePath",
    "SubVariancePreservingPath",
    "VarianceExplodingPath",
    "VariancePreservingPath",
]

CUT = 1e-3  # the part of an interval that is left out at an end where a coefficient is infinite


class SchedulePath(GaussianPath):
    r"""The conical path :math:`p_t(x \mid x_1) = \mathcal N(a(t)\,x_1, s(t)^2)`, z = x1.

    Where s has an infinite slope (at the data end of VP, say) the velocity given x1 is infinite, and :attr:`regular` stops a
    thousandth of the interval short of it. The velocity that a model learns, its mean, is finite there.

    Arguments:
        schedule: a(t) and s(t) on the generative clock: base at t0, data at t1.
        base_deviation: The standard deviation of the base; s(t0) by default.

    Raises:
        ArgumentError: It is not a schedule, or runs from data to noise.

    Example:
        >>> path = sf.paths.SchedulePath.of(sf.processes.VariancePreserving())
        >>> x, u = path.at(0.5, torch.zeros(1, 1), torch.ones(1, 1))
        >>> x, u  # a and ȧ
        (tensor([[0.2812]]), tensor([[1.4130]]))
    """

    schedule: Schedule

    def __init__(self, schedule: Schedule, *, base_deviation: float | None = None) -> None:
        if not isinstance(schedule, Schedule):
            raise ArgumentError(
                f"the schedule is {type(schedule).__name__}; give an sf.processes.Schedule, or use SchedulePath.of(process)."
            )
        start, end = schedule.interval
        inside = 0.01 * (end - start)
        if not _at(schedule.log_snr, start + inside) < _at(schedule.log_snr, end - inside):
            raise ArgumentError(
                "the schedule runs from data to noise; a path runs from the base to the data: "
                "give schedule.flip(schedule.interval), or use SchedulePath.of(process)."
            )
        super().__init__(given="data", regular=_regular(schedule))
        self.schedule = schedule
        self.interval = schedule.interval
        self.base_deviation = float(_at(schedule.s, start)) if base_deviation is None else float(base_deviation)

    @staticmethod
    def of(process: Process) -> SchedulePath:
        """The path of a noising process (data at t0, noise at t1), on the clock t0 + t1 − t.

        Raises:
            ArgumentError: The process has no schedule.
        """
        if not isinstance(process, Process) or process.schedule is None:
            raise ArgumentError(
                f"{getattr(process, 'title', type(process).__name__)} has no schedule: its state is not a(t)·data + "
                f"s(t)·noise with one a and one s for all coordinates, so it is not a path. Give VariancePreserving, …"
            )
        deviation = getattr(process, "prior_deviation", None)
        return SchedulePath(process.schedule.flip(process.interval), base_deviation=deviation)

    def process(self, cut: float = CUT) -> ScheduledDiffusion:
        r"""The diffusion with these marginals, on the noising clock τ = t0 + t1 − t: data at t0, noise at t1.

        Its drift is infinite where a is 0, as at the base of the linear and the cosine path; there the interval ends a
        part ``cut`` of its length before.

        Raises:
            ArgumentError: No diffusion has these marginals.

        Example:
            >>> sf.paths.LinearPath().process().interval
            (0.0, 0.999)
        """
        start, end = self.interval
        noising = self.schedule.flip(self.interval)
        if not float(_at(self.schedule.a, start)) > 1e-12:
            noising = Window(noising, (start, end - cut * (end - start)))
        return ScheduledDiffusion(noising, prior_deviation=self.base_deviation)

    def base(self, event_shape: tuple[int, ...] | torch.Size) -> Distribution:
        """The law that the path begins with: N(0, base_deviation²)."""
        mean = torch.zeros(event_shape)
        return Independent(Normal(mean, torch.full_like(mean, self.base_deviation)), len(event_shape))

    def mean(self, t: Tensor, z: Any) -> Tensor:
        mean: Tensor = self.schedule.a(t).to(z.dtype) * z
        return mean

    def std(self, t: Tensor, z: Any) -> Tensor:
        return self.schedule.s(t).to(z.dtype)

    def rates(self, t: Time, z: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        time = as_time(t, z)
        a, s, a_dot, s_dot = (
            rate(time).to(z.dtype)
            for rate in (self.schedule.a, self.schedule.s, self.schedule.a_dot, self.schedule.s_dot)
        )
        return a * z, s, a_dot * z, s_dot


def _at(coefficient: Callable[[Tensor], Tensor], t: float) -> Tensor:
    return coefficient(torch.tensor(t, dtype=torch.float64))


def _regular(schedule: Schedule) -> tuple[float, float]:
    """The interval, shortened at an end where the slope of a or s is infinite."""
    start, end = schedule.interval
    inward = CUT * (end - start)

    def finite(t: float) -> bool:
        return all(bool(_at(slope, t).isfinite()) for slope in (schedule.a_dot, schedule.s_dot))

    return (start if finite(start) else start + inward, end if finite(end) else end - inward)


class LinearPath(SchedulePath):
    r"""The straight line of flow matching: a = t, s = 1 − t, and :math:`u = (x_1 - x)/(1 - t)`, or x1 − x0.

    References:
        Flow Matching for Generative Modeling (Lipman et al., 2023), https://arxiv.org/abs/2210.02747

    Example:
        >>> sf.paths.LinearPath().at(0.25, torch.zeros(1, 1), torch.ones(1, 1))
        (tensor([[0.2500]]), tensor([[1.]]))
    """

    def __init__(self) -> None:
        super().__init__(LinearSchedule())

    def at(self, t: Time, noise: Tensor, z: Any) -> tuple[Tensor, Tensor]:
        # What the four rates come to, in half the operations: training asks for it in each step.
        time = as_time(t, z)
        return torch.addcmul(time.to(z.dtype) * z, (1 - time).to(z.dtype), noise), z - noise


class CosinePath(SchedulePath):
    r"""The trigonometric path a = sin(πt/2), s = cos(πt/2), on which a² + s² = 1.

    References:
        Building Normalizing Flows with Stochastic Interpolants (Albergo & Vanden-Eijnden, 2023),
        https://arxiv.org/abs/2209.15571

    Example:
        >>> sf.paths.CosinePath().at(0.5, torch.ones(1, 1), torch.ones(1, 1))  # √2, and 0 on the top of the circle
        (tensor([[1.4142]]), tensor([[0.]]))
    """

    def __init__(self) -> None:
        super().__init__(CosineVPSchedule((0.0, 1.0)).flip((0.0, 1.0)))


class VariancePreservingPath(SchedulePath):
    """The path of :class:`~sdeflow.processes.VariancePreserving`, from the base N(0, 1) at 0 to the data at 1."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__(VPSchedule(beta_min, beta_max).flip((0.0, 1.0)), base_deviation=1.0)


class SubVariancePreservingPath(SchedulePath):
    """The path of :class:`~sdeflow.processes.SubVariancePreserving`, from the base N(0, 1) at 0 to the data at 1."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        super().__init__(SubVPSchedule(beta_min, beta_max).flip((0.0, 1.0)), base_deviation=1.0)


class VarianceExplodingPath(SchedulePath):
    """The path of :class:`~sdeflow.processes.VarianceExploding`, from N(0, s(0)²) at 0 to the data at 1."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        super().__init__(VESchedule(sigma_min, sigma_max).flip((0.0, 1.0)))


class EDMPath(SchedulePath):
    """a = 1 and Karras's curve from σ_max at 0 to σ_min at 1, whose equal steps are his grid; see ``KarrasSchedule``.

    Example:
        >>> sf.paths.EDMPath().schedule.s(torch.linspace(0, 1, 5, dtype=torch.float64))
        tensor([8.0000e+01, 1.7528e+01, 2.5152e+00, 1.6975e-01, 2.0000e-03], dtype=torch.float64)
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        super().__init__(KarrasSchedule(sigma_min, sigma_max, rho))
