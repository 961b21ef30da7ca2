r"""Heun's method in the noise level, and its stochastic form: Algorithm 2 of Karras et al.

A step first raises the noise level from σ to σ̂ = (1 + γ)σ with fresh noise,

.. math:: \hat y = y + \sqrt{\hat\sigma^2 - \sigma^2}\,z \quad\text{for}\quad y = x/a,

and then follows the flow from σ̂ to the end of the step. γ = ∫ε/s² dt is what the noise √(2ε) of the process adds over the
step. The kick carries p_σ to p_σ̂ exactly, so the marginals are kept up to the error of Heun's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdeflow.processes.churn import Churn
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.process import Process
from sdeflow.solvers.leaps import Leap, between, denoised, each_of, known_noise, leaps, noise_of, taken, weight
from sdeflow.solvers.terms import Advance, Terms, root

__all__ = ["SigmaHeun"]

MOST = math.sqrt(2) - 1  # γ, so that no more noise is added than there is


class Kick(NamedTuple):
    """What raises the noise at the beginning of a step, x̂ = p x + r z, and the step of the flow that is left.

    Attributes:
        of_x: p = â/a.
        of_noise: r.
        time: t̂, when the noise level is σ̂, as the process wants times.
        leap: From there to the end of the step.
    """

    of_x: Tensor
    of_noise: Tensor
    time: Tensor
    leap: Leap


class SigmaHeun:
    """Heun's method for y = x/a in σ = s/a, where dy/dσ = x̂₀; its first stage is DDIM. Noise is a kick before the step."""

    places = (0.0, 0.5, 1.0)
    error_order = None

    def plan(self, process: Process, times: Sequence[Tensor]) -> Sequence[Any] | None:
        if process.noise == "none":
            return leaps(process, times)
        noise = known_noise(process, times[0])
        if noise is None:
            return None
        kick = kicked(process, times, noise)
        steps = each_of(kick.leap)
        if steps is None:
            return None
        return [Kick(*parts) for parts in zip(*(v.unbind() for v in kick[:3]), steps, strict=True)]

    def step(self, terms: Terms, times: Sequence[Any], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        planned = times[3] if len(times) > 3 else None
        if terms.W is None:
            return Advance(heun(terms, times[0], times[2], planned or still(terms.process, times), x))
        if planned is None:
            planned = kicked(terms.process, times, terms.diffusion(times[0], x))
        else:
            terms.counter.diffusion += 1  # the process was asked for it, with the other steps
        z = terms.W / root(terms.h)
        raised = weight(planned.of_x, x) * x + weight(planned.of_noise, x) * z
        return Advance(heun(terms, planned.time, times[2], planned.leap, raised))


def heun(terms: Terms, t: Tensor, n: Tensor, leap: Leap, x: Tensor) -> Tensor:
    """The step of the flow from t to n."""
    data = denoised(terms, t, leap.start, leap.noisy, x)
    y = taken(leap, x, data)
    if leap.finite is False:
        return y
    there = denoised(terms, n, leap.end, leap.noisy_end, y)
    half = 0.5 * (leap.end.s - leap.end.a * leap.start.s / leap.start.a)
    if leap.finite is not True:
        half = torch.where(leap.h.isfinite(), half, 0.0)
    return y + weight(half, x) * (noise_of(leap.end, y, there) - noise_of(leap.start, x, data))


def still(process: Process, times: Sequence[Tensor]) -> Leap:
    assert process.schedule is not None
    return between(process.schedule, times[0], times[2]).flowing()


def kicked(process: Process, times: Sequence[Tensor], noise: Tensor) -> Kick:
    """The kick of a process whose diffusion at the beginning is given, for one step or for many."""
    schedule, (t0, t1) = process.schedule, process.interval
    assert schedule is not None
    t, n = times[0].to(torch.float64), times[2].to(torch.float64)
    a, s, inflation = schedule.a(t), schedule.s(t), _inflation(process)
    added = (n - t) * (noise.to(torch.float64) / inflation).square() / 2
    gamma = torch.where(s > 0, added / torch.where(s > 0, s, 1.0).square(), 0.0).clamp(max=MOST)
    # No noise level beyond those of the process: its network knows no others.
    later = schedule.time_of_log_snr(schedule.log_snr(t) - 2 * torch.log1p(gamma)).clamp(t0, t1)
    time = torch.where(gamma > 0, later, t)
    leap = between(schedule, time, n).flowing()
    ratio = torch.where(gamma > 0, leap.start.a / a, 1.0)
    fresh = (leap.start.s.square() - (ratio * s).square()).clamp_min(0).sqrt()
    return Kick(ratio, inflation * torch.where(gamma > 0, fresh, 0.0), time.to(times[0].dtype), leap)


def _inflation(process: Process) -> float:
    """S_noise."""
    while isinstance(process, (DerivedSDE, FlippedSDE)):
        process = process.original
    return process.inflation if isinstance(process, Churn) else 1.0
