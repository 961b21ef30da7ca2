"""What a training run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

__all__ = ["Run"]


@dataclass(eq=False)
class Run:
    """The result of :func:`sdeflow.fit`.

    Attributes:
        model: The model that was given, in evaluation mode, with the averaged weights, or the best ones where training watched
            for them.
        losses: The training loss of each step, float64, ``(steps,)``, those before an interruption included.
        held_out: One entry for each evaluation: ``step``, ``value`` (the mean of the criterion, larger is better) and
            ``stderr``.
        status: ``"finished"``, ``"stopped early"``, ``"interrupted"`` or ``"diverged"``.
        seed: Of the run; drawn if none was given.
        seconds: What this call took.
        folder: Where the checkpoint is, or None.
    """

    model: nn.Module
    losses: Tensor
    status: str
    seed: int
    seconds: float
    folder: Path | None = None
    held_out: list[dict[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """How many steps were taken in all."""
        return len(self.losses)

    def __str__(self) -> str:
        last = self.losses[-100:]
        said = f"{self.status} after {self.steps} steps"
        if len(last):
            said += f", a loss of {last.mean():.4g} over the last {len(last)}"
        if self.held_out:
            best = max(self.held_out, key=lambda row: row["value"])
            said += f"; held out {best['value']:.4g} ± {best['stderr']:.2g} at best, in step {best['step']}"
        return said + "."
