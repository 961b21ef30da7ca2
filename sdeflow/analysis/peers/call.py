"""What an adapter of another library is: how to make the call that a user of it would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from sdeflow.analysis.problem import Problem
from sdeflow.analysis.run import Run
from sdeflow.brownian import Driver
from sdeflow.processes import Process
from sdeflow.types import Field

__all__ = ["Call", "Counted", "Peer", "raw_diffusion", "raw_drift"]


@dataclass(frozen=True)
class Call:
    """One solve by a peer.

    Attributes:
        solve: From nothing to the state at the end, with shape ``(B, *event)``: on the given path where one was given.
        counted: How often drift and diffusion were evaluated since it was last asked.
    """

    solve: Callable[[], Tensor]
    counted: Callable[[], tuple[int, int]]


class Peer(Protocol):
    """Another library.

    Attributes:
        name: What comes after ``peer:`` in names.
        package: What must be installed.
    """

    name: str
    package: str

    def rules(self, method: str) -> tuple[str, ...]:
        """What steps a method of it takes: ``"dt"``, ``"tolerance"`` or both; empty where it has no such method."""
        ...

    def misfit(self, problem: Problem, method: str) -> str:
        """Why it cannot solve this problem, or an empty string."""
        ...

    def prepare(
        self, problem: Problem, method: str, rule: str, value: float, path: Driver | None, count: bool
    ) -> Call | Run:
        """The call; on the given path or, where None, on noise of its own. Coefficients are wrapped only to be counted.

        A peer that runs in an interpreter of its own returns the run instead.
        """
        ...


class Counted:
    """A coefficient whose evaluations are counted."""

    def __init__(self, function: Field) -> None:
        self.function, self.calls = function, 0

    def __call__(self, t: Any, x: Tensor) -> Tensor:
        self.calls += 1
        return self.function(t, x)


def raw_drift(process: Process) -> Field:
    """The user's own function where there is one: a peer's user has no checks of ours around it."""
    for name in ("drift_function", "velocity_function"):
        if callable(function := getattr(process, name, None)):
            return function  # type: ignore[no-any-return]
    return process.drift


def raw_diffusion(process: Any) -> Field:
    """Likewise."""
    function: Any = getattr(process, "diffusion_function", None)
    return function if callable(function) else process.diffusion  # type: ignore[no-any-return]
