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

import numpy as np
import torch
from torch import Tensor

from sdeflow.processes.boundary import numbers
from sdeflow.processes.churn import Churn
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.process import Process
from sdeflow.solvers.leaps import (
    Number,
    Planned,
    alone,
    denoised,
    known_noise,
    leap_at,
    leaps,
    mixed,
    of_first_order,
    planned,
    quotient,
)
from sdeflow.solvers.terms import Advance, Terms, root
from sdeflow.types import Times

__all__ = ["SigmaHeun"]

MOST = math.sqrt(2) - 1  # γ, so that no more noise is added than there is


class Kick(NamedTuple):
    """What raises the noise at the beginning of a step, x̂ = p x + r z, and the step of the flow that is left.

    Attributes:
        of_x: p = â/a.
        of_noise: r.
        step: From t̂, when the noise level is σ̂, to the end.
    """

    of_x: Number
    of_noise: Number
    step: Planned


class SigmaHeun:
    """Heun's method for y = x/a in σ = s/a, where dy/dσ = x̂₀; its first stage is DDIM. Noise is a kick before the step."""

    places = (0.0, 0.5, 1.0)
    error_order = None

    def plan(self, process: Process, times: Sequence[Times], x: Tensor) -> Sequence[Any] | None:
        if process.noise == "none":
            return leaps(process, times, x, 2)
        t, _, n = (torch.tensor(v, device=x.device) for v in times)
        noise = known_noise(process, t)
        kicks = None if noise is None else numbers(torch.stack(raised(process, t, n, noise)))
        if kicks is None:
            return None
        later, of_x, of_noise = kicks
        steps = planned(process, np.asarray(later), times[2], x, 2)
        return steps and list(map(Kick, of_x, of_noise, steps))

    def step(self, terms: Terms, times: Sequence[Any], x: Tensor, first: Any = None, error: bool = False) -> Advance:
        if terms.W is None:
            return Advance(heun(terms, leap_at(terms, times, x), x))
        if isinstance(times, Kick):
            terms.counter.diffusion += 1  # the process was asked for it, with the other steps
            kick = times
        else:
            t, _, n = times
            later, of_x, of_noise = raised(terms.process, t, n, terms.diffusion(t, x))
            kick = Kick(of_x, of_noise, alone(terms.process, later, n))
        return Advance(heun(terms, kick.step, mixed(kick.of_x, x, (kick.of_noise / root(terms.h), terms.W))))


def heun(terms: Terms, whole: Planned, x: Tensor) -> Tensor:
    """The step of the flow, y = p x + q x̂₁ and half the change of x̂₀ from its beginning to its end."""
    step, here, there = whole
    data = denoised(terms, here, step.start, x)
    y = mixed(step.of_x, x, (step.of_data, data))
    if of_first_order(step):
        return y
    later = denoised(terms, there, step.end, y)
    (a, s), (a_n, s_n) = step.start, step.end
    half = 0.5 * (s_n - a_n * quotient(s, a))
    if isinstance(step.h, Tensor):
        half = torch.where(step.h.isfinite(), half, 0.0)
    u, v = quotient(half, s_n), quotient(half, s)  # of x̂₀ = (x − a x̂₁)/s
    return mixed(1 + u, y, (-u * a_n, later), (-v, x), (v * a, data))


def raised(process: Process, t: Tensor, n: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(t̂, p, r) of the kick, where the diffusion at the beginning is given, for one step or for many."""
    schedule, (t0, t1) = process.schedule, process.interval
    assert schedule is not None
    t, n = t.to(torch.float64), n.to(torch.float64)
    a, s, inflation = schedule.a(t), schedule.s(t), _inflation(process)
    added = (n - t) * (noise.to(torch.float64) / inflation).square() / 2
    # Where there is no noise there is none to multiply, and where there is only noise no more to add.
    some = (s > 0) & (a > 0)
    gamma = torch.where(some, added / torch.where(s > 0, s, 1.0).square(), 0.0).clamp(max=MOST)
    # No noise level beyond those of the process: its network knows no others.
    later = schedule.time_of_log_snr(schedule.log_snr(t) - 2 * torch.log1p(gamma)).clamp(t0, t1)
    time = torch.where(gamma > 0, later, t)
    ratio = torch.where(gamma > 0, schedule.a(time) / a, 1.0)
    fresh = (schedule.variance(time) - (ratio * s).square()).clamp_min(0).sqrt()
    return time, ratio, inflation * torch.where(gamma > 0, fresh, 0.0)


def _inflation(process: Process) -> float:
    """S_noise."""
    while isinstance(process, (DerivedSDE, FlippedSDE)):
        process = process.original
    return process.inflation if isinstance(process, Churn) else 1.0
