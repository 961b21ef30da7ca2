r"""The steps of exponential integrators as numbers, worked out for many steps at once.

A step from t to n that holds x̂₁ is :math:`x_n = p\,x + q\,\hat x_1 + r\,z` (see :mod:`~sdeflow.solvers.exponential`), with

.. math:: p = \frac{s_n}{s_t}e^{-K}, \qquad q = a_n - p\,a_t, \qquad r = s_n\sqrt{1 - e^{-2K}} .

Schedules are functions of time, so the numbers of a whole grid cost hardly more operations than those of one step: step by
step they were three quarters of the operations of a solve with a small network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdeflow.processes.churn import Churn
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.diffusions import ScheduledDiffusion
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.marginal_preserving import MarginalPreserving
from sdeflow.processes.process import Process
from sdeflow.processes.schedules import Schedule
from sdeflow.processes.sde import SDE
from sdeflow.solvers.terms import Terms

__all__ = [
    "Leap",
    "Level",
    "between",
    "denoised",
    "each_of",
    "known_noise",
    "leap_of",
    "leaps",
    "noise_of",
    "noise_ratio",
    "taken",
    "weight",
]

TIMES_ALONE = (ScheduledDiffusion.diffusion, MarginalPreserving.diffusion, Churn.diffusion)


class Level(NamedTuple):
    """Where on the path a time is: a, s and λ = ln(a/s), in float64."""

    a: Tensor
    s: Tensor
    half_log_snr: Tensor

    @classmethod
    def at(cls, schedule: Schedule, t: Tensor) -> Level:
        t = t.to(torch.float64)
        return cls(schedule.a(t), schedule.s(t), schedule.log_snr(t) / 2)


class Leap(NamedTuple):
    """A step with x̂₁ held: 0-d float64 tensors, or one number a step.

    Attributes:
        start: The level at its beginning.
        end: The level at its end.
        h: λ_n − λ_t; infinite where s or a is 0 at an end.
        replaced: K, how much of the noise is replaced by fresh noise; None where that takes the process's diffusion to say.
        of_x: p.
        of_data: q.
        of_noise: r.
        decay: h + K, what x̂₁ is forgotten by.
        weight: a_n (1 − e^{−(h+K)}), what x_n takes of a change of x̂₁.
        noisy: Whether s > 0 at its beginning: a bool, or a tensor inside a compiled step; so are the other two.
        noisy_end: Whether s > 0 at its end.
        finite: Whether h is finite.
    """

    start: Level
    end: Level
    h: Tensor
    replaced: Tensor | None
    of_x: Tensor
    of_data: Tensor
    of_noise: Tensor
    decay: Tensor
    weight: Tensor
    noisy: bool | Tensor
    noisy_end: bool | Tensor
    finite: bool | Tensor

    def flowing(self) -> Leap:
        """The step of the flow, K = 0."""
        return self.replacing(torch.zeros_like(self.h))

    def replacing(self, K: Tensor) -> Leap:
        """The same step with another amount of fresh noise."""
        start, end = self.start, self.end
        # Nothing divides by 0: what is not taken would still be in the gradient.
        p = torch.where(start.s > 0, end.s * (-K).exp() / torch.where(start.s > 0, start.s, 1.0), 0.0)
        decay = torch.where(self.h.isfinite(), self.h + K, self.h)
        return self._replace(
            replaced=K,
            of_x=p,
            of_data=end.a - p * start.a,
            of_noise=end.s * (-torch.expm1(-2 * K)).sqrt(),
            decay=decay,
            weight=-end.a * torch.expm1(-decay),
        )


def between(schedule: Schedule, t: Tensor, n: Tensor) -> Leap:
    """A step from t to n, or all steps of vectors of those, before it is said how much noise is replaced."""
    start, end = Level.at(schedule, t), Level.at(schedule, n)
    h = end.half_log_snr - start.half_log_snr
    return Leap(start, end, h, None, h, h, h, h, h, start.s > 0, end.s > 0, h.isfinite())


def leap_of(process: Process, times: Sequence[Tensor]) -> Leap:
    """The step at (its beginning, its middle, its end), or all steps of vectors of those."""
    schedule = process.schedule
    assert schedule is not None  # the registry says that it is needed
    made = between(schedule, times[0], times[2])
    if process.noise == "none":
        return made.flowing()
    noise = known_noise(process, times[1])
    return made if noise is None else made.replacing(noise_ratio(schedule, times[1], noise, made.h))


def leaps(process: Process, times: Sequence[Tensor]) -> list[Leap] | None:
    """The steps one by one; None where a gradient is to go through them."""
    return each_of(leap_of(process, times))


def each_of(many: Leap) -> list[Leap] | None:
    """Steps one by one, from one transfer from the device; None where a gradient is to go through them.

    A gradient wants each made in its own step: what is taken again in the backward pass has to be made again there.
    """
    if many.of_x.requires_grad:
        return None
    flags = torch.stack([_all(flag, many.h) for flag in many[-3:]]).tolist()
    starts, ends = (
        map(Level._make, zip(*(_all(v, many.h).unbind() for v in level), strict=True)) for level in many[:2]
    )
    K = [None] * len(many.h) if many.replaced is None else _all(many.replaced, many.h).unbind()
    rest = (_all(v, many.h).unbind() for v in many[4:-3])
    return [Leap(*parts) for parts in zip(starts, ends, many.h.unbind(), K, *rest, *flags, strict=True)]


def _all(v: Any, like: Tensor) -> Tensor:
    """One for each step, where a schedule has one for all."""
    wide: Tensor = v.expand_as(like)
    return wide


def known_noise(process: Process, t: Tensor) -> Tensor | None:
    """The diffusion at many times, where it is the library's own: a function of time alone; else None."""
    source = process
    while isinstance(source, (DerivedSDE, FlippedSDE)):
        source = source.original
    if getattr(type(source), "diffusion", None) not in TIMES_ALONE:
        return None
    assert isinstance(process, SDE)
    rows = t.to(torch.float64).reshape(-1, 1)
    return process.diffusion(rows, torch.zeros_like(rows)).expand_as(rows).reshape(t.shape)


def noise_ratio(schedule: Schedule, middle: Tensor, noise: Tensor, h: Tensor) -> Tensor:
    """K = |h| · 2ε/g², in the middle of the step: |h| for a reversal."""
    squared = noise.to(torch.float64).square()
    g2 = schedule.squared_diffusion(middle.to(torch.float64)).abs()
    return torch.where(squared > 0, h.abs() * squared / g2, 0.0)


def denoised(terms: Terms, t: Tensor, level: Level, noisy: bool | Tensor, x: Tensor) -> Tensor:
    """x̂₁ from one evaluation of the denoiser, and x/a where there is no noise."""
    if noisy is True:
        return terms.denoiser(t, x)
    if noisy is False:
        return x / level.a
    # No branch divides by 0: what is not taken would still be in the gradient.
    return torch.where(level.s > 0, terms.denoiser(t, x), x / weight(torch.where(level.s > 0, 1.0, level.a), x))


def noise_of(level: Level, x: Tensor, data: Tensor) -> Tensor:
    """x̂₀ = (x − a x̂₁)/s, where s > 0."""
    s = torch.where(level.s > 0, level.s, 1.0)
    return (x - weight(level.a, x) * data) / weight(s, x)


def weight(v: Tensor, x: Tensor) -> Tensor:
    """A number for products with x: as it is if it is one for all, and in the dtype of x if there is one a row."""
    return v if v.ndim == 0 else v.to(x.dtype)


def taken(leap: Leap, x: Tensor, data: Tensor) -> Tensor:
    """p x + q x̂₁: the step without its noise."""
    return x * weight(leap.of_x, x) + data * weight(leap.of_data, x)
