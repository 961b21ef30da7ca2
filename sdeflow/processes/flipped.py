"""A process on the clock s = t0 + t1 − t. Every solve that runs with t decreasing is a solve of the flipped process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdeflow.processes.affine import scaled
from sdeflow.processes.boundary import as_time
from sdeflow.processes.ode import ODE
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at, together
from sdeflow.types import Field, Time, Times

if TYPE_CHECKING:
    from sdeflow.processes.schedule import Schedule

__all__ = ["FlippedODE", "FlippedSDE", "flip"]


class FlippedField(nn.Module):
    """field(t0 + t1 − s, x)."""

    def __init__(self, field: Field, interval: tuple[float, float]) -> None:
        super().__init__()
        self.field = field
        self.total = interval[0] + interval[1]

    def forward(self, t: Time, x: Tensor) -> Tensor:
        return self.field(self.total - as_time(t, x), x)

    def at_times(self, times: Times, like: Tensor) -> Sequence[At]:
        return fields_at(self.field, self.total - times, like)


def _of_the_original(name: str) -> Any:
    return property(lambda self: getattr(self.original, name))  # which the compiler can follow, as no attrgetter


def _denoisers(self: FlippedSDE | FlippedODE, times: Times, like: Tensor) -> Sequence[At]:
    return fields_at(self.original.denoiser, self.reflect(times), like)


def _drifts(self: FlippedSDE | FlippedODE, times: Times, like: Tensor) -> Sequence[At]:
    mirrored = fields_at(self.original.drift, self.reflect(times), like)
    return scaled(torch.full((len(times),), -1.0, dtype=torch.float64, device=like.device), mirrored, like)


def _diffusions(self: FlippedSDE, times: Times, like: Tensor) -> Sequence[At]:
    return fields_at(self.original.diffusion, self.reflect(times), like)


class Flipped(Process):
    """What a flipped process has from the original: looked up there, so that making one for a solve costs next to nothing."""

    original: Process
    plain_name = "the flipped process"
    interval, confined, semi_linear = map(_of_the_original, ("interval", "confined", "semi_linear"))

    def __init__(self, original: Process) -> None:
        nn.Module.__init__(self)
        self.original, self.direction = original, -original.direction

    @property
    def schedule(self) -> Schedule | None:  # type: ignore[override]
        schedule = self.original.schedule
        return None if schedule is None else schedule.flip(self.interval)

    @property
    def score(self) -> Field | None:  # type: ignore[override]
        score = self.original.score
        return None if score is None else FlippedField(score, self.interval)


class FlippedSDE(Flipped, SDE, precise_time=True):
    """dx = −f(t0 + t1 − s, x) ds + σ(t0 + t1 − s, x) dW."""

    original: SDE
    noise, additive, commutative, calculus = map(_of_the_original, ("noise", "additive", "commutative", "calculus"))

    @together(_drifts)
    def drift(self, t: Time, x: Tensor) -> Tensor:
        return -self.original.drift(self.reflect(t), x)

    @together(_denoisers)
    def denoiser(self, t: Time, x: Tensor) -> Tensor:
        return self.original.denoiser(self.reflect(t), x)

    @together(_diffusions)
    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion(self.reflect(t), x)

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion_divergence(self.reflect(t), x)

    def ito_correction(self, t: Time, x: Tensor) -> Tensor:
        return self.original.ito_correction(self.reflect(t), x)


class FlippedODE(Flipped, ODE, precise_time=True):
    """dx/ds = −v(t0 + t1 − s, x)."""

    original: ODE
    error_mask = _of_the_original("error_mask")

    def rows(self, keep: Tensor) -> Process:
        narrow = self.original.rows(keep)
        return self if narrow is self.original else flip(narrow)

    @together(_drifts)
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
