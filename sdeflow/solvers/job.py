"""What solve() hands to an engine, and what it gets back. Everything in a job is checked and runs forward in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sdeflow.brownian import Driver
from sdeflow.processes.process import Process
from sdeflow.solvers.dense import Dense
from sdeflow.solvers.events import Event, Occurrences
from sdeflow.solvers.grid import Grid
from sdeflow.solvers.methods import Method
from sdeflow.solvers.status import Status
from sdeflow.types import Field

__all__ = ["Counter", "Job", "Outcome"]


@dataclass
class Counter:
    """Evaluations of the coefficients, as they happen."""

    drift: int = 0
    diffusion: int = 0


@dataclass(frozen=True)
class Job:
    """One solve: a process that runs forward from x0 through the save times.

    Attributes:
        process: The process on a clock that runs forward (a decreasing solve is that of the flipped process).
        x0: The first state, with shape ``(B, *event)``, of a floating dtype.
        times: The save times, increasing; times[0] is where x0 is.
        method: The method, which fits the process.
        grid: The nodes of a fixed-step solve, or None where the method is to choose its steps.
        brownian: What drives an SDE: it covers times[0] to times[-1]; None for an ODE.
        rtol: The relative tolerance of an adaptive solve.
        atol: The absolute one.
        first_step: The first step of an adaptive solve, or None.
        min_step: The shortest step of an adaptive solve, or 0.
        breakpoints: Times at which a coefficient jumps, increasing, inside the span.
        max_steps: The greatest number of attempted steps.
        stepping: ``"shared"`` or ``"per-sample"``.
        gradient: ``"backprop"``, ``"checkpoint"`` or ``"adjoint"``.
        progress: To be called with the time reached, as often as one likes; it throttles itself.
        owner: The process that the caller gave, on whichever clock; compiled steps are kept with it.
        compile: Whether steps are to be compiled.
        jacobian: ∂f/∂x of a velocity on this clock, a function of (t, x), where the user has given one.
        events: What to look out for, on this clock.
        dense: Whether the solution between the save times is to be kept.
        caller_time: A time of this clock on the caller's, for messages.
    """

    process: Process
    x0: Tensor
    times: tuple[float, ...]
    method: Method
    grid: Grid | None
    brownian: Driver | None
    rtol: float
    atol: float
    first_step: float | None
    breakpoints: tuple[float, ...]
    max_steps: int
    stepping: str
    gradient: str
    progress: Callable[[float], None]
    owner: Process
    compile: bool = False
    min_step: float = 0.0
    jacobian: Field | None = None
    events: tuple[Event, ...] = ()
    dense: bool = False
    caller_time: Callable[[float], float] = float


@dataclass
class Outcome:
    """What an engine returns.

    Attributes:
        x: The states at the save times that were reached, with shape ``(T', B, *event)``, x0 first.
        counter: Evaluations.
        accepted: Steps taken.
        rejected: Steps attempted in vain.
        status: Why it ended before the last save time, if it did: of the batch, or of each sample, ``(B,)``.
        message: What happened, in a sentence, if it did not succeed.
        extra: What else is worth reporting in ``sol.stats``.
        events: What has happened, for each event.
        dense: The solution between the save times, if it was kept.
    """

    x: Tensor
    counter: Counter
    accepted: int
    rejected: int = 0
    status: Status | Tensor = Status.SUCCESS
    message: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    events: tuple[Occurrences, ...] = ()
    dense: Dense | None = None
