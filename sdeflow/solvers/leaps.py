r"""The steps of exponential integrators as numbers, worked out for many steps at once.

A step from t to n that holds x̂₁ is :math:`x_n = p\,x + q\,\hat x_1 + r\,z` (see :mod:`~sdeflow.solvers.exponential`), with

.. math:: p = \frac{s_n}{s_t}e^{-K}, \qquad q = a_n - p\,a_t, \qquad r = s_n\sqrt{1 - e^{-2K}} .

Schedules are functions of time, so the numbers of a whole grid cost hardly more operations than those of one step, and one
transfer from the device brings them all: a planned step has numbers where one that is made by itself has tensors of float64.
Steps are made by themselves where a derivative goes through the schedule, in a compiled graph, and where the diffusion is a
user's function, which is asked for when its step is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.diffusions import ScheduledDiffusion
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at
from sdeflow.solvers.terms import Terms

__all__ = [
    "Leap",
    "Level",
    "Number",
    "between",
    "columns",
    "denoised",
    "each_of",
    "known_noise",
    "known_share",
    "leap",
    "leap_at",
    "leaps",
    "like",
    "mixed",
    "noise_share",
    "of_first_order",
    "plus",
    "quotient",
    "rows",
]

Number = float | Tensor
"""What a step multiplies with: a float where it was planned, else a float64 tensor, 0-d or with one number a row."""


class Level(NamedTuple):
    """Where on the path a time is."""

    a: Number
    s: Number


class Leap(NamedTuple):
    """A step with x̂₁ held, or vectors of the numbers of many.

    Attributes:
        start: The level at its beginning.
        end: The level at its end.
        h: λ_n − λ_t with λ = ln(a/s); infinite where s or a is 0 at an end.
        decay: h + K, what x̂₁ is forgotten by.
        of_x: p.
        of_data: q = a_n (1 − e^{−(h+K)}), which is also what x_n takes of a change of x̂₁.
        of_noise: r; None for the flow.
        here: The denoiser at its beginning, a function of x.
        there: The denoiser at its end; None where it is planned for a method of one stage.
    """

    start: Level
    end: Level
    h: Number
    decay: Number
    of_x: Number
    of_data: Number
    of_noise: Number | None
    here: At
    there: At | None


# --- the numbers of a step, or of many ---------------------------------------------------------------------------------


def between(process: Process, t: Tensor, n: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """(a, s) at t, (a, s) at n, and h."""
    schedule = process.schedule
    assert schedule is not None  # the registry says that it is needed
    both = torch.stack((t, n)).to(torch.float64)
    (a, a_n), (s, s_n), (log_snr, log_snr_n) = (_all(v, both).unbind() for v in schedule.levels(both))
    return (a, s), (a_n, s_n), (log_snr_n - log_snr) / 2


def _all(v: Tensor, like: Tensor) -> Tensor:
    """One for each time, where a schedule has one for all."""
    return v if v.shape == like.shape else v.expand(like.shape)


def leap(process: Process, t: Tensor, n: Tensor, share: Number | None = None) -> Leap:
    """The step from t to n with a share of the schedule's own noise, K = share · |h|; without any it is that of the flow."""
    (a, s), (a_n, s_n), h = between(process, t, n)
    # Nothing divides by 0: what is not taken would still be in the gradient.
    noisy, decay, of_noise = s > 0, h, None
    kept = s_n / torch.where(noisy, s, 1.0)
    if share is not None:
        # A share of 0 is none, of an infinite h too.
        K = torch.where(share > 0, h.abs() * share, 0.0) if isinstance(share, Tensor) else h.abs() * share
        kept, of_noise = kept * (-K).exp(), s_n * (-torch.expm1(-2 * K)).sqrt()
        decay = torch.where(h.isfinite(), h + K, h)
    p = torch.where(noisy, kept, 0.0)
    here, there = partial(process.denoiser, t), partial(process.denoiser, n)
    return Leap(Level(a, s), Level(a_n, s_n), h, decay, p, a_n - p * a, of_noise, here, there)


def noise_share(process: Process, t: Tensor, noise: Tensor) -> Tensor:
    """2ε/g² = σ²/g² where the diffusion at t is σ."""
    assert process.schedule is not None
    squared = noise.to(torch.float64).square()
    g2 = process.schedule.squared_diffusion(t.to(torch.float64)).abs()
    return torch.where(squared > 0, squared / g2, 0.0)


def known_share(process: Process, t: Tensor) -> Number | None:
    """The share of the schedule's noise at many times; None where only the diffusion can say, when its step is there."""
    if _origin(process, t)[1] is ScheduledDiffusion:
        return 1.0  # a reversal has the noise of its diffusion, which is that of the schedule
    noise = known_noise(process, t)
    return None if noise is None else noise_share(process, t, noise)


def known_noise(process: Process, t: Tensor) -> Tensor | None:
    """The diffusion at many times, where it is the library's own: a function of time alone; else None."""
    source, maker, t = _origin(process, t)
    if not (isinstance(source, SDE) and source.additive and issubclass(maker, SDE) and maker.precise_time):
        return None
    column = t.to(torch.float64).reshape(-1, 1)
    return source.diffusion(column, column).expand_as(column).reshape(t.shape)


def _origin(process: Process, t: Tensor) -> tuple[Process, type, Tensor]:
    """The process whose diffusion this one has, the class that defines it, and times on its clock."""
    while isinstance(process, (DerivedSDE, FlippedSDE)):
        t = process.reflect(t) if isinstance(process, FlippedSDE) else t
        process = process.original
    return process, next(kind for kind in type(process).__mro__ if "diffusion" in kind.__dict__), t


# --- many steps at once ------------------------------------------------------------------------------------------------


def leaps(process: Process, times: Sequence[Tensor], dtype: torch.dtype, stages: int) -> list[Leap] | None:
    """The steps of vectors of (beginning, middle, end), one by one; None where each has to be made by itself.

    A method of two stages asks for the denoiser at the end of a step as well.
    """
    t, middle, n = times
    share = None if process.noise == "none" else known_share(process, middle)
    if share is None and process.noise != "none":
        return None
    table = rows(*columns(leap(process, t, n, share)))
    return None if table is None else each_of(process, (t, n)[:stages], dtype, table)


def columns(many: Leap) -> list[Tensor]:
    """The vectors of many steps."""
    numbers: list[Any] = [*many.start, *many.end, *many[2:7]]
    return [v for v in numbers if v is not None]


def rows(*vectors: Tensor) -> list[list[float]] | None:
    """The numbers of each step, from one transfer from the device; None where a derivative goes through them.

    A derivative wants each made in its own step: what is taken again in the backward pass has to be made again there.
    """
    table = torch.stack(vectors, 1)
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(table)
    if table.requires_grad or wrapped or forward_ad.unpack_dual(table).tangent is not None:
        return None
    numbers: list[list[float]] = table.tolist()
    return numbers


def each_of(
    process: Process, ends: Sequence[Tensor], dtype: torch.dtype, table: Sequence[Sequence[float]]
) -> list[Leap]:
    """Steps from their numbers, with the denoiser at their beginnings, and at their ends where those are given."""
    times = ends[0] if len(ends) == 1 else torch.cat(tuple(ends))
    fields = fields_at(process.denoiser, times.to(torch.float64), dtype)
    here: Sequence[At] = fields[: len(table)]
    there: Sequence[At | None] = fields[len(table) :] or [None] * len(table)
    return [
        Leap(Level(a, s), Level(a_n, s_n), h, decay, p, q, r[0] if r else None, start, end)
        for (a, s, a_n, s_n, h, decay, p, q, *r), start, end in zip(table, here, there, strict=True)
    ]


# --- taking one --------------------------------------------------------------------------------------------------------


def leap_at(terms: Terms, times: Leap | Sequence[Tensor], x: Tensor) -> Leap:
    """A step: as it was planned, or made here from (its beginning, its middle, its end)."""
    if isinstance(times, Leap):
        if times.of_noise is not None:
            terms.counter.diffusion += 1  # the process was asked for it, with the other steps
        return times
    t, middle, n = times
    share = None if terms.W is None else noise_share(terms.process, middle, terms.diffusion(middle, x))
    return leap(terms.process, t, n, share)


def denoised(terms: Terms, field: At | None, level: Level, x: Tensor) -> Tensor:
    """x̂₁ from one evaluation of the denoiser, and x/a where there is no noise."""
    a, s = level
    if not isinstance(s, Tensor) and s == 0:
        return x / a
    assert field is not None
    data = terms.denoised(field, x)
    if not isinstance(s, Tensor):
        return data
    # No branch divides by 0: what is not taken would still be in the gradient.
    return torch.where(s > 0, data, x / like(torch.where(s > 0, 1.0, a), x))


def mixed(weight: Number, x: Tensor, *others: tuple[Number, Tensor]) -> Tensor:
    """w x + Σ w_i v_i."""
    total = x * like(weight, x)
    for w, v in others:
        total = total + like(w, x) * v if isinstance(w, Tensor) else torch.add(total, v, alpha=w)
    return total


def plus(x: Tensor, weight: Number, v: Tensor) -> Tensor:
    """x + w v."""
    return x + like(weight, x) * v if isinstance(weight, Tensor) else torch.add(x, v, alpha=weight)


def like(v: Number, x: Tensor) -> Number:
    """A number for products with x: as it is if it is one for all, and in the dtype of x if there is one a row."""
    return v.to(x.dtype) if isinstance(v, Tensor) and v.ndim else v


def quotient(u: Number, v: Number) -> Number:
    """u/v, and 0 where that is no finite number, as at an end where λ is infinite."""
    if isinstance(v, Tensor):
        ratio = u / torch.where(v != 0, v, 1.0)
        return torch.where((v != 0) & ratio.isfinite(), ratio, 0.0)
    value = u / v if v else 0.0
    return value if isinstance(value, Tensor) or math.isfinite(value) else 0.0


def of_first_order(step: Leap) -> bool:
    """Whether a planned step begins or ends at an infinite λ, and is of the first order."""
    return not isinstance(step.h, Tensor) and not math.isfinite(step.h)
