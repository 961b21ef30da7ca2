r"""Where on its way a sampler should stop: times to give as ``steps=``.

All of them are (process, n) → n + 1 times in the direction of the solve. But for :func:`uniform` they are equidistant in a
function of the noise-to-signal ratio σ = s/a of the process's schedule:

==================  ==========================================================================
:func:`log_snr`     ln σ: every step takes away the same share of the noise
:func:`karras`      σ^{1/ρ}: finer than uniform at small σ, coarser than :func:`log_snr` there
:func:`cosine`      arctan σ: equal angles, the uniform times of the cosine schedule
==================  ==========================================================================

Where the span ends without noise (σ = 0) or begins with nothing else (σ = ∞), the first two go to ``sigma_min`` and from
``sigma_max``, and a single step leaps from there to the end.

Example:
    >>> from sdeflow.solvers import time_grids
    >>> law = sf.laws.GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [0.1, 0.1])
    >>> sde = sf.processes.VariancePreserving()
    >>> flow = sde.probability_flow(law.along(sde).score)
    >>> times = time_grids.karras(flow, 20, (1.0, 0.0))
    >>> sf.solve(flow, torch.randn(8, 1), (1.0, 0.0), steps=times, method="dpmpp-2m").stats["nfe_drift"]
    20
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.process import Process
from sdeflow.processes.schedule import Schedule
from sdeflow.solvers.grid import save_times

__all__ = ["cosine", "karras", "log_snr", "uniform"]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # of Karras et al., for data of about unit size


def uniform(process: Process, n: int, t: Sequence[float] | None = None) -> list[float]:
    """n equal steps in time: what ``steps=n`` is.

    Arguments:
        process: The process.
        n: The number of steps.
        t: (from, to); the process's interval in its own direction by default.

    Raises:
        ArgumentError: n is no whole number ≥ 1, or t is not a pair of different times.

    Example:
        >>> from sdeflow.solvers import time_grids
        >>> time_grids.uniform(sf.processes.VariancePreserving(), 4)
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    start, end = _span(process, t)
    return _with_ends(start, torch.linspace(start, end, _count(n) + 1, dtype=torch.float64, device="cpu")[1:-1], end)


def log_snr(
    process: Process,
    n: int,
    t: Sequence[float] | None = None,
    *,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> list[float]:
    """n steps that are equal in the logarithm of the signal-to-noise ratio.

    Arguments:
        process: A process with a schedule.
        n: The number of steps.
        t: (from, to); the process's interval in its own direction by default.
        sigma_min: Where σ = s/a is 0 at an end of the span: the level from which a single step goes there.
        sigma_max: Likewise where it is infinite.

    Raises:
        ArgumentError: The process has no schedule, n is too small for the leaps, or a level is not inside the span.

    References:
        DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling (Lu et al., 2022),
        https://arxiv.org/abs/2206.00927

    Example:
        >>> from sdeflow.solvers import time_grids
        >>> [round(t, 3) for t in time_grids.log_snr(sf.processes.VarianceExploding(), 4, (0.9, 0.1))]
        [0.9, 0.697, 0.494, 0.292, 0.1]
    """
    return _spaced(process, n, t, torch.log, torch.exp, sigma_min, sigma_max)


def karras(
    process: Process,
    n: int,
    t: Sequence[float] | None = None,
    *,
    rho: float = 7.0,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
) -> list[float]:
    r"""n steps that are equal in σ^{1/ρ}.

    .. math:: \sigma_i = \big(\sigma_0^{1/\rho} + \tfrac in\,(\sigma_n^{1/\rho} - \sigma_0^{1/\rho})\big)^\rho

    Arguments:
        process: A process with a schedule.
        n: The number of steps.
        t: (from, to); the process's interval in its own direction by default.
        rho: ρ > 0; 1 is uniform in σ, and the greater it is, the nearer to :func:`log_snr`.
        sigma_min: As in :func:`log_snr`.
        sigma_max: As in :func:`log_snr`.

    Raises:
        ArgumentError: As in :func:`log_snr`, or ρ is not positive.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364

    Example:
        >>> from sdeflow.solvers import time_grids
        >>> times = time_grids.karras(sf.processes.VariancePreserving(), 5, (1.0, 0.0))
        >>> [round(t, 3) for t in times]
        [1.0, 0.83, 0.54, 0.074, 0.0, 0.0]
    """
    if not (isinstance(rho, (int, float)) and 0 < rho < math.inf):
        raise ArgumentError(f"rho={rho!r} is not a positive number; the usual one is 7.")
    return _spaced(process, n, t, lambda v: v ** (1 / rho), lambda v: v**rho, sigma_min, sigma_max)


def cosine(process: Process, n: int, t: Sequence[float] | None = None) -> list[float]:
    """n steps of equal angles arctan(s/a), which is finite at both ends.

    Arguments:
        process: A process with a schedule.
        n: The number of steps.
        t: (from, to); the process's interval in its own direction by default.

    Raises:
        ArgumentError: The process has no schedule, or n is no whole number ≥ 1.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol & Dhariwal, 2021), https://arxiv.org/abs/2102.09672

    Example:
        >>> from sdeflow.solvers import time_grids
        >>> path = sf.processes.LinearSchedule()
        >>> ode = sf.models.FlowMatching(sf.networks.MLP(2), sf.paths.LinearPath().base((2,))).ode()
        >>> [round(t, 3) for t in time_grids.cosine(ode, 4)]  # s/a = (1 − t)/t
        [0.0, 0.293, 0.5, 0.707, 1.0]
    """
    return _spaced(process, n, t, torch.arctan, torch.tan, 0.0, math.inf)


Map = Callable[[Tensor], Tensor]


def _spaced(
    process: Process, n: Any, t: Any, function: Map, inverse: Map, sigma_min: float, sigma_max: float
) -> list[float]:
    """Times that are equidistant in a function of σ, with leaps from sigma_max and to sigma_min where the span is infinite."""
    schedule = process.schedule
    if not isinstance(schedule, Schedule):
        raise ArgumentError(
            f"{process.title} has no schedule, so no signal-to-noise ratio; time_grids.uniform needs none."
        )
    start, end = _span(process, t)
    ends = (schedule.log_snr(torch.tensor([start, end], dtype=torch.float64, device="cpu")) / -2).exp()
    inner = torch.where(ends == 0, sigma_min, torch.where(ends.isinf(), sigma_max, ends))
    leaps = (inner != ends).tolist()
    equal = _count(n) - sum(leaps)
    if equal < 1:
        raise ArgumentError(f"n={n!r}: {sum(leaps)} steps leap to an end where s/a is 0 or infinite; give more.")
    if not (inner[0] - inner[1]) * (ends[0] - ends[1]) > 0:
        raise ArgumentError(
            f"sigma_min={sigma_min!r} and sigma_max={sigma_max!r} leave nothing of the span, where s/a goes from "
            f"{ends[0]:g} to {ends[1]:g}; choose them between these."
        )
    first, last = function(inner)
    share = torch.linspace(0, 1, equal + 1, dtype=torch.float64, device="cpu")
    times = schedule.time_of_log_snr(-2 * inverse(first + share * (last - first)).log())
    return _with_ends(start, times[1 - leaps[0] : equal + leaps[1]], end)


def _span(process: Process, t: Any) -> tuple[float, float]:
    times = save_times(t, process.interval, process.direction)
    if len(times) != 2:
        raise ArgumentError(f"t={t!r} has {len(times)} times; give (from, to).")
    return times[0], times[1]


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ArgumentError(f"n={n!r} is not a whole number of steps ≥ 1.")
    return n


def _with_ends(start: float, inner: Tensor, end: float) -> list[float]:
    """The times between the ends that were asked for, which are kept to the last bit."""
    return [start, *inner.tolist(), end]
