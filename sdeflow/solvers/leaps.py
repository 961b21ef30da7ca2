r"""The steps of exponential integrators as numbers, worked out for many steps at once.

A step from t to n that holds x̂₁ is :math:`x_n = p\,x + q\,\hat x_1 + r\,z` (see :mod:`~sdeflow.solvers.exponential`), with

.. math:: p = \frac{s_n}{s_t}e^{-K}, \qquad q = a_n - p\,a_t, \qquad r = s_n\sqrt{1 - e^{-2K}} .

Schedules are functions of time, so the numbers of a whole grid cost hardly more operations than those of one step: a planned
step has numbers where one that is made by itself has tensors of float64. If the schedule is a function of a few numbers, these
are kept for the next solve on its grid. Steps are made by themselves where a derivative goes through the schedule, in a
compiled graph, and where the diffusion is a user's function, which is asked for when its step is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdeflow.processes.boundary import numbers
from sdeflow.processes.derived import DerivedSDE
from sdeflow.processes.diffusions import ScheduledDiffusion
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at
from sdeflow.solvers.terms import Terms, root
from sdeflow.types import Times

__all__ = [
    "Leap",
    "Level",
    "Number",
    "Planned",
    "alone",
    "denoised",
    "held",
    "known_noise",
    "known_share",
    "leap",
    "leap_at",
    "leaps",
    "like",
    "mixed",
    "noise_share",
    "of_first_order",
    "planned",
    "plus",
    "quotient",
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
    """

    start: Level
    end: Level
    h: Number
    decay: Number
    of_x: Number
    of_data: Number
    of_noise: Number | None


class Planned(NamedTuple):
    """A step and the model on its way.

    Attributes:
        leap: Its numbers.
        here: The denoiser at its beginning, a function of x.
        there: The denoiser at its end; None where it is planned for a method of one stage.
    """

    leap: Leap
    here: At
    there: At | None


# --- the numbers of a step, or of many ---------------------------------------------------------------------------------


def holding(module: Any, a: Any, s: Any, a_n: Any, s_n: Any, h: Any, share: Any = None) -> tuple[Any, Any, Any, Any]:
    """h + K, p, q and r with a share of the schedule's own noise, K = share · |h|; r is None without any, for the flow.

    Of tensors by ``torch``, or of the numbers of many steps by ``numpy``.
    """
    noisy, decay, of_noise = s > 0, h, None
    # Nothing divides by 0: what is not taken would still be in the gradient.
    kept = s_n / module.where(noisy, s, 1.0)
    if share is not None:
        K = module.where(share > 0, abs(h) * share, 0.0)  # a share of 0 is none, of an infinite h too
        kept, of_noise = kept * module.exp(-K), s_n * module.sqrt(-module.expm1(-2 * K))
        decay = module.where(module.isfinite(h), h + K, h)
    p = module.where(noisy, kept, 0.0)
    return decay, p, a_n - p * a, of_noise


def leap(schedule: Schedule, t: Tensor, n: Tensor, share: Tensor | None = None) -> Leap:
    """The step from t to n."""
    (a, a_n), (s, s_n), (log_snr, log_snr_n) = _levels(schedule, t, n)
    h = (log_snr_n - log_snr) / 2
    return Leap(Level(a, s), Level(a_n, s_n), h, *holding(torch, a, s, a_n, s_n, h, share))


def _levels(schedule: Schedule, t: Tensor, n: Tensor) -> Tensor:
    """a, s and the log-SNR, each at t and at n, float64."""
    both = torch.stack((t, n)).to(torch.float64)
    # Where a schedule has one number for all times, each gets it.
    return torch.stack([v if v.shape == both.shape else v.expand_as(both) for v in schedule.levels(both)])


def noise_share(process: Process, t: Tensor, noise: Tensor) -> Tensor:
    """2ε/g² = σ²/g² where the diffusion at t is σ."""
    assert process.schedule is not None
    squared = noise.to(torch.float64).square()
    g2 = process.schedule.squared_diffusion(t.to(torch.float64)).abs()
    return torch.where(squared > 0, squared / g2, 0.0)


def known_share(process: Process, t: Times, device: torch.device) -> float | Sequence[float] | None:
    """The share of the schedule's noise at many times, one or one for each.

    None where only the diffusion can say, when its step is there, or where a derivative goes through it.
    """
    if _origin(process)[1] is ScheduledDiffusion:
        return 1.0  # a reversal has the noise of its diffusion, which is that of the schedule
    times = torch.tensor(t, device=device)
    noise = known_noise(process, times)
    return None if noise is None else numbers(noise_share(process, times, noise))


def known_noise(process: Process, t: Tensor) -> Tensor | None:
    """The diffusion at many times, float64, where it is the library's own: a function of time alone; else None."""
    source, maker, flips = _origin(process)
    if not (isinstance(source, SDE) and source.additive and issubclass(maker, SDE) and maker.precise_time):
        return None
    for flipped in flips:
        t = flipped.reflect(t)
    column = t.reshape(-1, 1)
    return source.diffusion(column, column).expand_as(column).reshape(t.shape)


def _origin(process: Process) -> tuple[Process, type, Sequence[FlippedSDE]]:
    """The process whose diffusion this one has, the class that defines it, and the flips on the way to its clock."""
    flips = []
    while isinstance(process, (DerivedSDE, FlippedSDE)):
        if isinstance(process, FlippedSDE):
            flips.append(process)
        process = process.original
    return process, next(kind for kind in type(process).__mro__ if "diffusion" in kind.__dict__), flips


# --- many steps at once ------------------------------------------------------------------------------------------------


def leaps(process: Process, times: Sequence[Times], x: Tensor, stages: int) -> Sequence[Planned] | None:
    """The steps of vectors of (beginning, middle, end), one by one; None where each has to be made by itself.

    A method of two stages asks for the denoiser at the end of a step as well.
    """
    t, middle, n = times
    if process.noise == "none":
        return planned(process, t, n, x, stages)
    share = known_share(process, middle, x.device)
    return None if share is None else planned(process, t, n, x, stages, share)


def planned(
    process: Process, t: Times, n: Times, x: Tensor, stages: int, share: float | Sequence[float] | None = None
) -> Sequence[Planned] | None:
    """The steps from t to n of a process with a share of its schedule's noise, or None."""
    schedule = process.schedule
    assert schedule is not None  # the registry says that it is needed
    key = _OfValue(schedule)
    one = share is None or isinstance(share, float)
    keep = one and key.value is not None
    steps = _kept(key, t.tobytes(), n.tobytes(), share) if keep else _made(schedule, t, n, share, x.device)
    if steps is None:
        return None
    ends = t if stages == 1 else np.concatenate((t, n))
    fields = fields_at(process.denoiser, ends, x)
    return list(map(Planned, steps, fields, fields[len(t) :] or repeat(None)))


class _OfValue:
    """A schedule as a key: equal to another one of the same value, which it had when it became one."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.value = schedule, schedule.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OfValue) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


@lru_cache(maxsize=64)
def _kept(key: _OfValue, t: bytes, n: bytes, share: float | None) -> Sequence[Leap]:
    """What one solve has worked out for the next on its grid."""
    steps = _made(key.schedule, np.frombuffer(t), np.frombuffer(n), share, torch.device("cpu"))
    assert steps is not None  # a function of numbers has no derivatives
    return steps


def _made(
    schedule: Schedule, t: Times, n: Times, share: float | Sequence[float] | None, device: torch.device
) -> Sequence[Leap] | None:
    """The numbers of each step; None where a derivative goes through them.

    A derivative wants each made in its own step: what is taken again in the backward pass has to be made again there.
    """
    levels = numbers(_levels(schedule, *(torch.tensor(v, device=device) for v in (t, n))))
    if levels is None:
        return None
    (a, a_n), (s, s_n), (log_snr, log_snr_n) = np.asarray(levels)
    with np.errstate(all="ignore"):  # where λ is infinite, as torch does
        h = (log_snr_n - log_snr) / 2
        decay, p, q, r = holding(np, a, s, a_n, s_n, h, None if share is None else np.asarray(share))
    start, end = (map(Level, u.tolist(), v.tolist()) for u, v in ((a, s), (a_n, s_n)))
    columns = (h.tolist(), decay.tolist(), p.tolist(), q.tolist())
    return tuple(map(Leap, start, end, *columns, repeat(None) if r is None else r.tolist()))


# --- taking one --------------------------------------------------------------------------------------------------------


def leap_at(terms: Terms, times: Planned | Sequence[Tensor], x: Tensor) -> Planned:
    """A step: as it was planned, or made here from (its beginning, its middle, its end)."""
    if isinstance(times, Planned):
        if times.leap.of_noise is not None:
            terms.counter.diffusion += 1  # the process was asked for it, with the other steps
        return times
    t, middle, n = times
    share = None if terms.W is None else noise_share(terms.process, middle, terms.diffusion(middle, x))
    return alone(terms.process, t, n, share)


def alone(process: Process, t: Tensor, n: Tensor, share: Tensor | None = None) -> Planned:
    """A step made by itself."""
    assert process.schedule is not None
    step = leap(process.schedule, t, n, share)
    return Planned(step, partial(process.denoiser, t), partial(process.denoiser, n))


def denoised(terms: Terms, field: At | None, level: Level, x: Tensor) -> Tensor:
    """x̂₁ from one evaluation of the denoiser, and x/a where there is no noise."""
    a, s = level
    if isinstance(s, Tensor):
        assert field is not None
        # No branch divides by 0: what is not taken would still be in the gradient.
        return torch.where(s > 0, terms.denoised(field, x), x / like(torch.where(s > 0, 1.0, a), x))
    return terms.denoised(field, x) if s else x / a  # type: ignore[arg-type]


def held(terms: Terms, step: Leap, x: Tensor, data: Tensor, more: Number = 0.0) -> Tensor:
    """p x + q x̂₁ + r z, or with more of x̂₁."""
    y = plus(x * like(step.of_x, x), step.of_data + more, data)
    if step.of_noise is None:
        return y
    assert terms.W is not None
    return plus(y, step.of_noise / root(terms.h), terms.W)


def mixed(weight: Number, x: Tensor, *others: tuple[Number, Tensor]) -> Tensor:
    """w x + Σ w_i v_i."""
    total = x * like(weight, x)
    for w, v in others:
        total = plus(total, w, v)
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
