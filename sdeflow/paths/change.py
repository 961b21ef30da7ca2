r"""Sampling on another schedule than the one trained on.

Two schedules see the same conditional laws at times of equal signal-to-noise ratio, up to a factor: with

.. math:: \frac{a(t)}{s(t)} = \frac{\bar a(r)}{\bar s(r)}, \qquad c = \frac{\bar a(r)}{a(t)} = \frac{\bar s(r)}{s(t)},

the state :math:`\bar x_r = c\,x_t` has the law that the new schedule gives it, and E[x_data | ·] is the same for both.
"""

from __future__ import annotations

from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.paths.scheduled import CUT
from sdeflow.paths.window import Window
from sdeflow.processes.boundary import as_time
from sdeflow.processes.conversions import convert
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.schedules import Schedule
from sdeflow.types import Time

__all__ = ["change_schedule"]


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
        self.score = self._score
        start, end = self.trained.interval
        snr = sorted(float(self.trained.log_snr(t)) for t in (start, end))
        self.range = (snr[0], snr[1])

    def rows(self, keep: Tensor) -> Process:
        narrow = self.process.rows(keep)
        return self if narrow is self.process else Rescheduled(narrow, self.schedule)

    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        r = as_time(t, x)
        time = self.trained.time_of_log_snr(self.schedule.log_snr(r).clamp(*self.range))
        # c by both coefficients together: near the noise a is 0, near the data s is
        new = self.schedule.a(r).square() + self.schedule.variance(r)
        scale = (new / (self.trained.a(time).square() + self.trained.variance(time))).sqrt()
        return self.process.denoiser(time, x / scale.to(x.dtype))

    def _score(self, t: Time, x: Tensor) -> Tensor:
        return convert(self.schedule, t, x, self.denoiser(t, x), given="data", wanted="score")

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        return convert(self.schedule, t, x, self.denoiser(t, x), given="data", wanted="velocity")


def change_schedule(process: Process, schedule: Schedule) -> ODE:
    """The flow of a model on another schedule than its own: the same data and base, other times and scales between.

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
    rising = bool(schedule.log_snr((start + end) / 2) < schedule.log_snr(0.1 * start + 0.9 * end))
    inward = CUT * (end - start)
    if rising and not schedule.s(end) > 0:
        schedule = Window(schedule, (start, end - inward))
    elif not rising and not schedule.s(start) > 0:
        schedule = Window(schedule, (start + inward, end))
    flow = Rescheduled(process, schedule)
    flow.direction = 1 if rising else -1
    return flow
