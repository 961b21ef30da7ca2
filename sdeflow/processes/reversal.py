r"""The time reversal of an SDE.

For an Itô process on a clock that runs forward, with marginals p_t and Σ = σσᵀ,

.. math:: f^- = f - \nabla\cdot\Sigma - \Sigma\,\nabla\log p_t

is the drift of the same paths run with t decreasing. For a process that itself runs backward the two added terms change
sign, so that reversing twice is the identity. Dropping ∇·Σ is silent and wrong wherever the noise depends on the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from sdeflow.errors import choose
from sdeflow.processes.boundary import UserField
from sdeflow.processes.derived import DerivedSDE, drifts_with_score
from sdeflow.processes.flipped import FlippedSDE
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, doubles_of, together
from sdeflow.types import Field, Time, Times

__all__ = ["CLOCKS", "BackwardReversal", "reverse"]

CLOCKS = ("flipped", "backward")


class BackwardReversal(DerivedSDE, precise_time=True):
    """The reversal on the original time axis, in Itô form, running the other way."""

    plain_name = "the reversal"

    def __init__(self, original: SDE, score: Field) -> None:
        super().__init__(original)
        self.direction = -original.direction
        self.score = UserField(score, "score", original.interval)

    def _drifts(self, times: Times, like: Tensor) -> Sequence[At]:
        planned = drifts_with_score(self.original, self.score, self.direction, times, like)
        return [partial(self.drift, t) for t in doubles_of(times, like).unbind()] if planned is None else planned

    @together(_drifts)
    def drift(self, t: Time, x: Tensor) -> Tensor:
        assert self.score is not None
        f = self.original.drift(t, x)
        sigma_score = self.original.covariance_times(t, x, self.score(t, x))
        if not self.additive:
            sigma_score = sigma_score + self.original.diffusion_divergence(t, x)
        return f + self.direction * sigma_score


def reverse(sde: SDE, score: Field, clock: str = "flipped") -> SDE:
    """See :meth:`sdeflow.SDE.reverse`: through Itô form, and back to the calculus of the process."""
    choose("clock", clock, CLOCKS)
    backward: SDE = BackwardReversal(sde.to_ito(), score)
    if sde.calculus == "stratonovich":
        backward = backward.to_stratonovich()
    return FlippedSDE(backward) if clock == "flipped" else backward
