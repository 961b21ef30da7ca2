"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdeflow.solvers.status import Status

__all__ = ["Solution"]


@dataclass(frozen=True, eq=False)
class Solution:
    """The states at the save times, and how they were come by.

    Attributes:
        t: The save times, float64 with shape ``(T,)``, in the order of the solve; t[0] is where it started.
        x: The states, with shape ``(T, B, *event)``, in the dtype and on the device of x0.
        status: How each sample ended, an int tensor of :class:`~sdeflow.Status` with shape ``(B,)``.
        stats: ``method``, ``nfe_drift`` and ``nfe_diffusion`` (evaluations, each of the whole batch), ``accepted`` and
            ``rejected`` steps, ``seconds``, and what a method has to add. With ``stepping="per-sample"`` the counts are those
            of each sample, ``(B,)``, and ``calls`` says how often the velocity was called.
    """

    t: Tensor
    x: Tensor
    status: Tensor
    stats: dict[str, Any]

    @property
    def final(self) -> Tensor:
        """The state at the last save time, with shape ``(B, *event)``."""
        return self.x[-1]

    @property
    def success(self) -> Tensor:
        """Which samples came to the end, a bool tensor with shape ``(B,)``."""
        return self.status == Status.SUCCESS

    def __repr__(self) -> str:
        method, f, g = (self.stats.get(key) for key in ("method", "nfe_drift", "nfe_diffusion"))
        return (
            f"Solution(t: {self.t[0].item():g} → {self.t[-1].item():g} in {len(self.t)} save times, "
            f"x: {tuple(self.x.shape)}, method={method!r}, nfe_drift={f}, nfe_diffusion={g}, "
            f"{int(self.success.sum())} of {len(self.status)} samples succeeded)"
        )
