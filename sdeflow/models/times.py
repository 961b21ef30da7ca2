r"""Which times a loss looks at.

A law of times is a map from a uniform number to a time, its quantile function, and a weight. The weight is 1 where the law
is part of the loss (other times, another loss), and 1/density where it is only a cheaper way to the same integral.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, choose
from sdeflow.paths import Draws
from sdeflow.processes.boundary import innermost
from sdeflow.processes.parameters import finite_number
from sdeflow.processes.schedule import Schedule

__all__ = ["Grid", "Importance", "LogNormal", "LogitNormal", "TimeLaw", "Uniform", "as_time_law"]


class TimeLaw(ABC):
    """A law of times on an interval.

    Arguments:
        stratified: Whether the times of a batch are spread evenly, one in each of B cells (Kingma et al., 2021): the same
            law for each, and less variance of their mean.

    Example:
        >>> law = sf.models.times.LogitNormal(stratified=True)
        >>> t, weight = law.draw(torch.zeros(4, 2), sf.paths.Draws(0), (0.0, 1.0))
        >>> t.shape, weight
        (torch.Size([4, 1]), 1.0)
    """

    ends: bool = False
    """Whether a time may be an end of the interval. Where not, rounding to the dtype of the data does not make it one."""

    unbiased: bool = False
    """Whether a mean with its weights is that over uniform times: an integral over the interval, divided by its length."""

    def __init__(self, *, stratified: bool = False) -> None:
        self.stratified = stratified

    @abstractmethod
    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        """(times, weights) of uniform numbers, float64, shaped as u."""

    def draw(
        self, x: Tensor, draws: Draws, interval: tuple[float, float], schedule: Schedule | None = None
    ) -> tuple[Tensor, Tensor | float]:
        """A time for each row of x, ``(B, 1, …, 1)``, and its weight: float64 for coefficients, see :meth:`seen`."""
        u = draws.times(x)
        if self.stratified:
            place = torch.arange(len(x), device=x.device, dtype=u.dtype).reshape(u.shape)
            u = (u[:1] + place / len(x)) % 1
        time, weight = self.quantile(u, interval, schedule)
        return time.clamp(*(interval if self.ends else innermost(interval, x.dtype))), weight

    def seen(self, t: Tensor, x: Tensor) -> Tensor:
        """The times as a network is given them: in the dtype of x, unless the guard of the network has to look at them."""
        return t if self.ends else t.to(x.dtype)


class Uniform(TimeLaw):
    """Uniform on the interval."""

    unbiased = True

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        return (u if interval == (0.0, 1.0) else interval[0] + (interval[1] - interval[0]) * u), 1.0


class LogitNormal(TimeLaw):
    """t = sigmoid(mean + scale·z), z ~ N(0, 1), on the interval: the middle more often than the ends.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024),
        https://arxiv.org/abs/2403.03206
    """

    def __init__(self, mean: float = 0.0, scale: float = 1.0, *, stratified: bool = False) -> None:
        super().__init__(stratified=stratified)
        self.mean, self.scale = finite_number("mean", mean), _positive("scale", scale)

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        place = torch.sigmoid(self.mean + self.scale * torch.special.ndtri(u))
        return interval[0] + (interval[1] - interval[0]) * place, 1.0


class LogNormal(TimeLaw):
    """The time at which the noise level σ = s/a has ln σ ~ N(mean, scale²); it needs a schedule.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
        https://arxiv.org/abs/2206.00364
    """

    def __init__(self, mean: float = -1.2, scale: float = 1.2, *, stratified: bool = False) -> None:
        super().__init__(stratified=stratified)
        self.mean, self.scale = finite_number("mean", mean), _positive("scale", scale)

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        if schedule is None:
            raise ArgumentError("time='lognormal' is a law of the noise level s/a, and this path has no schedule.")
        log_level = self.mean + self.scale * torch.special.ndtri(u)
        return schedule.time_of_log_snr(-2 * log_level), 1.0


class Importance(TimeLaw):
    """Times with a density in proportion to a function, and the weight that undoes it: the same loss, another variance.

    Arguments:
        density: A positive function of float64 times, not normalised; best where it follows the size of the integrand.
        cells: How many cells of equal length its integral is summed over; the law is uniform within each.

    Raises:
        ArgumentError: It is not positive somewhere.

    References:
        Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., 2021), https://arxiv.org/abs/2101.09258
    """

    unbiased = True

    def __init__(self, density: Callable[[Tensor], Tensor], *, cells: int = 1024, stratified: bool = False) -> None:
        super().__init__(stratified=stratified)
        if not callable(density):
            raise ArgumentError(f"the density is {density!r}; give a positive function of t.")
        self.density, self.cells = density, cells

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        start, end = interval
        width = (end - start) / self.cells
        middles = start + width * (torch.arange(self.cells, dtype=u.dtype, device=u.device) + 0.5)
        mass = torch.as_tensor(self.density(middles), dtype=u.dtype, device=u.device).expand(self.cells)
        if not bool((mass > 0).all() & mass.isfinite().all()):
            raise ArgumentError("the density of times is not positive and finite everywhere inside the interval.")
        mass = mass / mass.sum()
        above = mass.cumsum(0)
        cell = torch.searchsorted(above, u.reshape(-1)).clamp_max(self.cells - 1).reshape(u.shape)
        inside = ((u - above[cell]) / mass[cell] + 1).clamp(0, 1)
        return start + width * (cell + inside), 1 / (mass[cell] * self.cells)


class Grid(TimeLaw):
    """One of some times, each as often: the discrete levels of NCSN and DDPM.

    Arguments:
        times: They, within the interval.
    """

    ends = True

    def __init__(self, times: Sequence[float] | Tensor, *, stratified: bool = False) -> None:
        super().__init__(stratified=stratified)
        self.times = torch.as_tensor(times, dtype=torch.float64).flatten()
        if not len(self.times) or not bool(self.times.isfinite().all()):
            raise ArgumentError("the grid of times is empty or not finite; give at least one time.")

    def quantile(
        self, u: Tensor, interval: tuple[float, float], schedule: Schedule | None
    ) -> tuple[Tensor, Tensor | float]:
        outside = (self.times < interval[0] - 1e-12) | (self.times > interval[1] + 1e-12)
        if bool(outside.any()):
            raise ArgumentError(f"{int(outside.sum())} times of the grid are outside the interval {interval}.")
        return self.times.to(u.device)[(u * len(self.times)).long().clamp_max(len(self.times) - 1)], 1.0


TIME_LAWS = {"uniform": Uniform, "logit-normal": LogitNormal, "lognormal": LogNormal}


def as_time_law(time: str | TimeLaw) -> TimeLaw:
    """A law of times by its name, or as it is."""
    if isinstance(time, TimeLaw):
        return time
    law: Any = TIME_LAWS[choose("time", time, TIME_LAWS)]
    made: TimeLaw = law()
    return made


def _positive(name: str, value: float) -> float:
    number = finite_number(name, value)
    if number <= 0:
        raise ArgumentError(f"{name}={value!r}: give a number > 0.")
    return number
