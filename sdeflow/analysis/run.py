"""One run of a method on a problem: what came out, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Run"]


@dataclass(frozen=True)
class Run:
    """One method at one step size or tolerance.

    Attributes:
        method: Its name.
        rule: ``"dt"`` or ``"tolerance"``.
        value: The step or the tolerance.
        error: Root-mean-square distance to the truth at the end, over samples and coordinates; None where it failed.
        spread: The standard error of the squared error's mean, carried over to the error.
        nfe_drift: Evaluations of the drift.
        nfe_diffusion: Evaluations of the diffusion.
        seconds: The median wall time of a solve on a path of its own.
        interquartile: Of those times.
        peak_bytes: The most memory that tensors took besides what was there before; None where it was not measured.
        metrics: The metrics that were asked for, by name.
        message: Why it failed or was not run, or empty.
    """

    method: str
    rule: str
    value: float
    error: float | None = None
    spread: float | None = None
    nfe_drift: int | None = None
    nfe_diffusion: int | None = None
    seconds: float | None = None
    interquartile: float | None = None
    peak_bytes: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""

    @property
    def key(self) -> tuple[str, str, float]:
        """What was run."""
        return self.method, self.rule, self.value

    @property
    def evaluations(self) -> int:
        """Of drift and diffusion together."""
        return (self.nfe_drift or 0) + (self.nfe_diffusion or 0)
