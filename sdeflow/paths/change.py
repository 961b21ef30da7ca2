r"""Sampling on another schedule than the one trained on.

Two schedules see the same conditional laws at times of equal signal-to-noise ratio, up to a factor: with

.. math:: \frac{a(t)}{s(t)} = \frac{\bar a(r)}{\bar s(r)}, \qquad c = \frac{\bar a(r)}{a(t)} = \frac{\bar s(r)}{s(t)},

the state :math:`\bar x_r = c\,x_t` has the law that the new schedule gives it, and E[x_data | ·] is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.paths.scheduled import CUT
from sdeflow.paths.window import Window
from sdeflow.processes.boundary import as_time, numbers
from sdeflow.processes.conversions import convert
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.together import At, doubles_of, fields_at, together
from sdeflow.types import Field, Time, Times

__all__ = ["change_schedule", "start_scale"]


class RescheduledScore:
    """∇log p_t of a rescheduled flow, which knows the E[x_data | x_t] that it is made of."""

    def __init__(self, flow: Rescheduled) -> None:
        self.flow = flow

    @property
    def expected_data(self) -> Field:
        return self.flow.denoiser

    def __call__(self, t: Time, x: Tensor) -> Tensor:
        return convert(self.flow.schedule, t, x, self.flow.denoiser(t, x), given="data", wanted="score")


class Rescheduled(ODE, precise_time=True):
    """The flow of a semi-linear process on another schedule."""

    plain_name = "the rescheduled flow"
    confined = True

    def __init__(self, process: Process, schedule: Schedule) -> None:
        super().__init__(interval=schedule.interval)
        if process.schedule is None:
            raise ArgumentError(
                f"{process.title} has no schedule, so there is none to change; "
                f"give the flow of a model on a path a(t)·data + s(t)·noise."
            )
        self.process = process
        self.trained: Schedule = process.schedule
        self.schedule: Schedule = schedule
        self.score = RescheduledScore(self)
        start, end = self.trained.interval
        snr = sorted(float(self.trained.log_snr(t)) for t in (start, end))
        self.range = (snr[0], snr[1])

    def rows(self, keep: Tensor) -> Process:
        narrow = self.process.rows(keep)
        return self if narrow is self.process else Rescheduled(narrow, self.schedule)

    def _trained_at(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """t and c of times on the new schedule."""
        time = self.trained.time_of_log_snr(self.schedule.log_snr(r).clamp(*self.range))
        # c by both coefficients together: near the noise a is 0, near the data s is
        new = self.schedule.a(r).square() + self.schedule.variance(r)
        return time, (new / (self.trained.a(time).square() + self.trained.variance(time))).sqrt()

    def _denoisers(self, times: Times, like: Tensor) -> Sequence[At]:
        trained, scales = self._trained_at(doubles_of(times, like))
        known = numbers(trained)
        if known is None:  # a derivative goes through them
            fields: Sequence[At] = [partial(self.process.denoiser, t) for t in trained.unbind()]
        else:
            fields = fields_at(self.process.denoiser, np.asarray(known), like)
        return [partial(_scaled, field, c) for field, c in zip(fields, scales.to(like.dtype).unbind(), strict=True)]

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        time, scale = self._trained_at(as_time(t, x))
        return self.process.denoiser(time, x / scale.to(x.dtype))

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        return convert(self.schedule, t, x, self.denoiser(t, x), given="data", wanted="velocity")


def _scaled(field: At, c: Tensor, x: Tensor) -> Tensor:
    return field(x / c)


def change_schedule(process: Process, schedule: Schedule) -> ODE:
    """The flow of a model on another schedule than its own: the same data, other times and scales on the way.

    It begins with noise of the new schedule's deviation, by which ``model.sample(n, process=…)`` scales the draws of its base:
    80 times as far apart for :class:`~sdeflow.paths.EDMPath` as for the straight line.

    Arguments:
        process: A process with a schedule and a denoiser, such as ``model.ode()``.
        schedule: The new one, on either clock. Where its s is 0 the velocity cannot be had from the denoiser, so the
            interval stops a thousandth of its length before the data.

    Returns:
        An ODE on the interval of the new schedule, running from the base to the data.

    Raises:
        ArgumentError: The process has no schedule, or the new one is not one.

    References:
        Flow Matching Guide and Code (Lipman et al., 2024), https://arxiv.org/abs/2412.06264, section 4.6;
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364

    Example:
        >>> law = sf.laws.GaussianMixture([1.0], [[2.0]], [0.25])
        >>> base = sf.paths.LinearPath().base((1,))
        >>> model = sf.models.FlowMatching(law.along(sf.paths.LinearPath().schedule).velocity, base)
        >>> cosine = sf.paths.CosinePath().schedule
        >>> flow = sf.paths.change_schedule(model.ode(), cosine)
        >>> exact = law.along(cosine)
        >>> x = torch.tensor([[1.0]])
        >>> torch.allclose(flow.velocity(0.3, x), exact.velocity(0.3, x))
        True
    """
    if not isinstance(schedule, Schedule):
        raise ArgumentError(f"the schedule is {type(schedule).__name__}; give an sf.processes.Schedule.")
    start, end = schedule.interval
    rising = _rising(schedule)
    inward = CUT * (end - start)
    if rising and not schedule.s(end) > 0:
        schedule = Window(schedule, (start, end - inward))
    elif not rising and not schedule.s(start) > 0:
        schedule = Window(schedule, (start + inward, end))
    flow = Rescheduled(process, schedule)
    flow.direction = 1 if rising else -1
    return flow


def start_scale(process: Process, trained: Schedule | None) -> float:
    """What draws of a model's base are multiplied by, to be what a process on another schedule than the model's begins with.

    The noise of the one over that of the other; 1 for the model's own processes, and where there are not two schedules.
    """
    schedule = process.schedule
    if schedule is None or trained is None or schedule is trained or _rising(schedule) != (process.direction > 0):
        return 1.0
    return float(schedule.s(_noise_end(schedule)) / trained.s(_noise_end(trained)))


def _rising(schedule: Schedule) -> bool:
    """Whether it runs from noise to data."""
    start, end = schedule.interval
    return bool(schedule.log_snr((start + end) / 2) < schedule.log_snr(0.1 * start + 0.9 * end))


def _noise_end(schedule: Schedule) -> Tensor:
    return torch.tensor(schedule.interval[0 if _rising(schedule) else 1], dtype=torch.float64)
