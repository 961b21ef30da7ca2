"""A process on the clock s = t0 + t1 − t. Every solve that runs with t decreasing is a solve of the flipped process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sdeflow.processes.boundary import as_time
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at, together
from sdeflow.types import Field, Time

__all__ = ["FlippedODE", "FlippedSDE", "flip"]


class FlippedField(nn.Module):
    """field(t0 + t1 − s, x)."""

    def __init__(self, field: Field, interval: tuple[float, float]) -> None:
        super().__init__()
        self.field = field
        self.total = interval[0] + interval[1]

    def forward(self, t: Time, x: Tensor) -> Tensor:
        return self.field(self.total - as_time(t, x), x)

    def at_times(self, times: Tensor, dtype: torch.dtype) -> Sequence[At]:
        return fields_at(self.field, self.total - times, dtype)


def _take_over(flipped: Process, original: Process) -> None:
    flipped.direction = -original.direction
    flipped.confined = original.confined
    if original.schedule is not None:
        flipped.schedule = original.schedule.flip(original.interval)
    if original.score is not None:
        flipped.score = FlippedField(original.score, original.interval)


def _denoisers(self: FlippedSDE | FlippedODE, times: Tensor, dtype: torch.dtype) -> Sequence[At]:
    return fields_at(self.original.denoiser, self.reflect(times), dtype)


class FlippedSDE(SDE, precise_time=True):
    """dx = −f(t0 + t1 − s, x) ds + σ(t0 + t1 − s, x) dW."""

    plain_name = "the flipped process"

    def __init__(self, original: SDE) -> None:
        super().__init__(
            noise=original.noise,
            additive=original.additive,
            commutative=original.commutative,
            calculus=original.calculus,
            interval=original.interval,
        )
        self.original = original
        _take_over(self, original)

    def drift(self, t: Time, x: Tensor) -> Tensor:
        return -self.original.drift(self.reflect(t), x)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        return self.original.denoiser(self.reflect(t), x)

    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion(self.reflect(t), x)

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion_divergence(self.reflect(t), x)

    def ito_correction(self, t: Time, x: Tensor) -> Tensor:
        return self.original.ito_correction(self.reflect(t), x)


class FlippedODE(ODE, precise_time=True):
    """dx/ds = −v(t0 + t1 − s, x)."""

    plain_name = "the flipped process"

    def __init__(self, original: ODE) -> None:
        super().__init__(interval=original.interval)
        self.original = original
        self.error_mask = original.error_mask
        _take_over(self, original)

    def rows(self, keep: Tensor) -> Process:
        narrow = self.original.rows(keep)
        return self if narrow is self.original else flip(narrow)

    def velocity(self, t: Time, x: Tensor) -> Tensor:
        return -self.original.velocity(self.reflect(t), x)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        return self.original.denoiser(self.reflect(t), x)


def flip(process: Process) -> Process:
    """The process on the flipped clock; flipping twice gives the process itself."""
    if isinstance(process, (FlippedSDE, FlippedODE)):
        return process.original
    if isinstance(process, SDE):
        return FlippedSDE(process)
    assert isinstance(process, ODE)
    return FlippedODE(process)
