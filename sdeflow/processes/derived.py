"""Processes made from an SDE: what all of them take over from it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sdeflow.processes.affine import Values, added, scaled
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at, together
from sdeflow.types import Field, Time, Times

__all__ = ["DerivedSDE", "drifts_with_score", "take_over"]


def take_over(derived: Process, original: Process) -> None:
    """A derived process on the same clock: its direction, and what makes it semi-linear."""
    derived.direction = original.direction
    derived.confined = original.confined
    derived.schedule = original.schedule
    derived.score = original.score


def drifts_with_score(sde: SDE, score: Field | None, factor: float, times: Times, like: Tensor) -> Sequence[At] | None:
    """f + c Σ∇log p at many times, for an SDE in Itô form whose noise is a number at each; None for any other."""
    noise = fields_at(sde.diffusion, times, like)
    if not isinstance(noise, Values) or sde.noise != "diagonal":
        return None
    f = fields_at(sde.drift, times, like)
    return added(f, scaled(factor * noise.values.square(), fields_at(score, times, like), like))


class DerivedSDE(SDE, precise_time=True):
    """An SDE with the noise of another one, on the same clock, in the same or another calculus."""

    def __init__(self, original: SDE, calculus: str | None = None) -> None:
        super().__init__(
            noise=original.noise,
            additive=original.additive,
            commutative=original.commutative,
            calculus=calculus or original.calculus,
            interval=original.interval,
        )
        self.original = original
        take_over(self, original)

    def _diffusions(self, times: Times, like: Tensor) -> Sequence[At]:
        return fields_at(self.original.diffusion, times, like)

    @together(_diffusions)
    def diffusion(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion(t, x)

    def diffusion_divergence(self, t: Time, x: Tensor) -> Tensor:
        return self.original.diffusion_divergence(t, x)

    def ito_correction(self, t: Time, x: Tensor) -> Tensor:
        return self.original.ito_correction(t, x)
