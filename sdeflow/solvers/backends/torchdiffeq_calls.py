"""The velocity as torchdiffeq calls it: counted, at the exact time, never outside the span, and told of every step.

torchdiffeq casts the time to the dtype of the state before the velocity sees it, so that for float32 states a time close
to a singular end may be rounded onto it. It also tells of each step before it takes it (``callback_step``), with float64
times; as the stages of a method stand at known places of the step, the time that was meant can be had back.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdeflow.calculus import leaves
from sdeflow.errors import SolveError
from sdeflow.solvers.job import Counter, Job
from sdeflow.solvers.status import Status

__all__ = ["AdaptiveSteps", "Failure", "FixedSteps", "Velocity", "captured"]


class Failure(Exception):
    """Why a solve cannot go on; it never leaves the backend."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Velocity:
    """v(t, x) of a job, counted, and evaluated within the span only.

    Arguments:
        job: The job.
        stops: The times at which a step is known to end, increasing, the first time of the job included.
        stages: Where in a step the velocity is evaluated.

    Attributes:
        counter: Evaluations.
        last: The last value.
    """

    def __init__(self, job: Job, stops: Sequence[float], stages: tuple[float, ...]) -> None:
        self.job = job
        self.stops = stops
        self.stages = stages
        self.breakpoints = frozenset(job.breakpoints)
        self.counter = Counter()
        self.last: Tensor | None = None
        self.left = self.right = stops[0]
        self._pending: Iterator[float] = iter(())  # the stages of the present step that have not been evaluated
        self._exact = dict(zip(_rounded(stops, job.x0.dtype), stops, strict=True))
        self._ends = _rounded(job.process.interval, job.x0.dtype)

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.counter.drift += 1
        self.last = self.job.process.drift(self._time(t), x)
        return self.last

    def _time(self, t: Tensor) -> Tensor:
        """The time that torchdiffeq means by t."""
        place = next(self._pending, None)
        if place is None:  # before the first step, after a jump, or a method whose stages are not known
            # Its guess of a first step looks ahead without regard to the end of the span.
            given = t.item()
            exact = min(max(self._exact.get(given, given), self.stops[0]), self.stops[-1])
            if exact in self.breakpoints:  # only the adjoint begins at a jump, and it goes down from there
                exact = torch.nextafter(t, torch.full_like(t, -math.inf)).item()
        elif t.dtype is torch.float64:
            return t
        else:
            end = {0.0: self.left, 1.0: self.right}.get(place)
            if end is None:
                exact = self.left + place * (self.right - self.left)
            elif end in self.breakpoints:
                exact = t.item()  # torchdiffeq has moved it off the jump, by a rounding unit of the state's dtype
            else:
                exact = self._at_end(end)
        if not self.job.process.precise_time:  # a conversion less, where rounding cannot reach an end
            near = torch.tensor(exact, dtype=t.dtype, device="cpu")
            if self._ends[0] < near.item() < self._ends[1]:
                return near.to(t.device)
        return torch.tensor(exact, dtype=torch.float64, device=t.device)

    def _at_end(self, end: float) -> float:
        return end

    def _begin(self, left: float, right: float) -> None:
        self.left, self.right = left, right
        self._pending = iter(self.stages)

    def _stop_after(self, t: float, direction: int) -> float:
        """The next stop beyond t."""
        if direction > 0:
            return self.stops[min(bisect_right(self.stops, t), len(self.stops) - 1)]
        return self.stops[max(bisect_left(self.stops, t) - 1, 0)]


class FixedSteps(Velocity):
    """The velocity of a solve whose steps are those of a grid."""

    def callback_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        left = t.item()
        self.job.progress(left)
        self._begin(left, self._stop_after(left, 1))

    def callback_step_adjoint(self, t: Tensor, x: tuple[Tensor, ...], dt: Tensor) -> None:
        left = t.item()
        self._begin(left, self._stop_after(left, -1))


class AdaptiveSteps(Velocity):
    """The velocity of a solve that chooses its steps: it counts them, keeps the save times, and ends it when it must.

    torchdiffeq ends with bare AssertionErrors, and calls a velocity that is NaN "underflow in dt 0.0". Each of these is
    seen here just before it happens, so that an AssertionError which does come out is the user's own.

    Attributes:
        reached: The states at the save times so far.
        accepted: Steps taken.
        rejected: Steps attempted in vain.
    """

    def __init__(self, job: Job, stops: Sequence[float], stages: tuple[float, ...]) -> None:
        super().__init__(job, stops, stages)
        self.reached = [job.x0]
        self.accepted = self.rejected = self._attempts = 0

    def callback_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        self._check_state(t, (x,))
        if len(self.reached) < len(self.job.times) and t.item() == self.job.times[len(self.reached)]:
            self.reached.append(x)
        self._attempt(t, (x,), dt, 1)

    def callback_accept_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        self.accepted += 1
        self.job.progress(self.right)

    def callback_reject_step(self, t: Tensor, x: Tensor, dt: Tensor) -> None:
        self.rejected += 1

    def callback_step_adjoint(self, t: Tensor, x: tuple[Tensor, ...], dt: Tensor) -> None:
        try:
            self._check_state(t, x)
            self._attempt(t, x, dt, -1)
        except Failure as failure:
            raise SolveError(f"In the backward pass of the adjoint: {failure.message}") from None

    def forward_is_done(self) -> None:
        """The backward pass has attempts of its own."""
        self._attempts = 0

    def _at_end(self, end: float) -> float:
        # Where a step ends the velocity is taken just before, as torchdiffeq does in float64.
        return math.nextafter(self.right, self.left) if end == self.right else end

    def _attempt(self, t: Tensor, state: tuple[Tensor, ...], dt: Tensor, direction: int) -> None:
        left, width = t.item(), dt.item()
        self._check_step(left, width, state)
        self._attempts += 1
        stop = self._stop_after(left, direction)
        gap = abs(stop - left)
        # torchdiffeq tests for a stop strictly inside the step: one that a step hits by itself is missed, and so is
        # every later one. A step that falls short of it by rounding would leave a sliver. So both are made longer.
        eps = torch.finfo(dt.dtype).eps
        margin = eps**0.5 * gap + 2 * eps * max(abs(left), abs(stop))
        if abs(width - gap) <= margin:
            dt.fill_(gap + 2 * margin)
        self._begin(left, stop if width >= gap - margin else left + direction * width)

    def _check_state(self, t: Tensor, state: tuple[Tensor, ...]) -> None:
        if not all(bool(part.isfinite().all()) for part in state):
            now = self.job.caller_time(t.item())
            raise Failure(Status.NON_FINITE, f"The state became infinite or NaN at t={now:.12g}.")

    def _check_step(self, left: float, width: float, state: tuple[Tensor, ...]) -> None:
        now = f"t={self.job.caller_time(left):.12g}"
        name = self.job.method.name
        if self._attempts >= self.job.max_steps:
            raise Failure(
                Status.MAX_STEPS,
                f"{name} has attempted max_steps={self.job.max_steps} steps and is at {now}. Loosen rtol and atol, "
                f"raise max_steps, or take torchdiffeq:scipy_solver if the problem is stiff.",
            )
        if left + width > left:
            return
        if not width > 0 and self.job.atol == 0 and any(bool((part == 0).any()) for part in state):
            raise Failure(
                Status.STEP_TOO_SMALL,
                f"At {now} a coordinate is 0, and with atol=0 it has no tolerance; give an atol > 0.",
            )
        value = self.last
        rows = 0 if value is None else int((~value.detach().isfinite().flatten(1).all(1)).sum())
        ahead = self.job.caller_time(self.right)
        if rows and not width > 0:
            raise Failure(
                Status.NON_FINITE,
                f"The velocity became infinite or NaN in {rows} of {len(self.job.x0)} samples, at {now}"
                + ("." if self.left == self.right else f" or in the step from there to t={ahead:.12g}."),
            )
        cause = "is not finite there." if rows else "is finite there: does it jump, or is it stiff?"
        raise Failure(
            Status.STEP_TOO_SMALL,
            f"At {now} the step that {name} needs, {width:.3g}, is too small to change t. The velocity {cause}",
        )


def _rounded(times: Sequence[float], dtype: torch.dtype) -> list[float]:
    rounded: list[float] = torch.tensor(times, dtype=torch.float64, device="cpu").to(dtype).tolist()
    return rounded


def captured(job: Job, velocity: Velocity) -> tuple[Tensor, ...]:
    """What the velocity depends on and requires grad: the process's parameters, and what its graph leads to.

    The graph is looked at once in each piece between breakpoints; what is captured but used at other times only is missed.
    """
    if not torch.is_grad_enabled():
        return ()
    found: list[Tensor] = [p for p in job.process.parameters() if p.requires_grad]
    edges = (*job.breakpoints, job.times[-1])
    pieces = [job.times[0], *((a + b) / 2 for a, b in pairwise(edges))]
    with torch.enable_grad():
        x = job.x0.detach().requires_grad_()
        for t in pieces:
            found += [leaf for leaf in leaves(velocity(x.new_tensor(t, dtype=torch.float64), x)) if leaf is not x]
    return tuple({id(tensor): tensor for tensor in found}.values())
