"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.solvers.dense import Dense
from sdeflow.solvers.events import Occurrences
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
        events: For each event of ``solve(event=…)`` where it has happened.
        dense: What :meth:`__call__` asks; None unless ``solve(dense=True)``.
    """

    t: Tensor
    x: Tensor
    status: Tensor
    stats: dict[str, Any]
    events: tuple[Occurrences, ...] = ()
    dense: Dense | None = None

    def __call__(self, t: Any) -> Tensor:
        """The solution between the save times, by the polynomials of the steps, which are one order below the method.

        Arguments:
            t: A number or times ``(K,)``, in the span of the solve. A sample that an event has ended stays where that was.

        Returns:
            The states, with shape ``(B, *event)``, or ``(K, B, *event)`` for ``(K,)`` times.

        Raises:
            ArgumentError: The solve kept no dense output, or a time is outside the span.

        Example:
            >>> sol = sf.solve(sf.ODE(lambda t, x: -x), torch.ones(1, 1), rtol=1e-6, dense=True)
            >>> sol([0.25, 0.5]).flatten()
            tensor([0.7788, 0.6065])
        """
        if self.dense is None:
            raise ArgumentError(
                "this solve kept nothing between its save times. solve(…, dense=True) keeps it, with an adaptive method such "
                "as 'tsit5'; or name the times in t= beforehand."
            )
        return self.dense(t)

    @property
    def final(self) -> Tensor:
        """The state at the last save time, with shape ``(B, *event)``."""
        return self.x[-1]

    @property
    def success(self) -> Tensor:
        """Which samples came to the end, or to an event that ended them, a bool tensor with shape ``(B,)``."""
        return (self.status == Status.SUCCESS) | (self.status == Status.EVENT)

    def __repr__(self) -> str:
        method, f, g = (self.stats.get(key) for key in ("method", "nfe_drift", "nfe_diffusion"))
        return (
            f"Solution(t: {self.t[0].item():g} → {self.t[-1].item():g} in {len(self.t)} save times, "
            f"x: {tuple(self.x.shape)}, method={method!r}, nfe_drift={f}, nfe_diffusion={g}, "
            f"{int(self.success.sum())} of {len(self.status)} samples succeeded)"
        )
