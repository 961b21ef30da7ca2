"""What torchsde does not say about its adaptive steps: how many there were, and whether they lead anywhere.

It reports nothing, accepts whatever is left when its smallest step is reached, and neither counts nor limits its
attempts. But each attempt asks the path three times, for the whole step and its two halves, and from these questions
all of that follows.
"""

from __future__ import annotations

import math
from types import TracebackType

from sdeflow.errors import SolveError
from sdeflow.solvers.job import Job
from sdeflow.solvers.status import Status

__all__ = ["BackwardWatch", "Stop", "Watch", "from_step_control"]

QUERIES = 3  # of the path in an attempt


class Stop(Exception):
    """The end of a solve before its time."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Watch:
    """An observer of the path's queries in an adaptive solve, gap by gap.

    Arguments:
        job: The solve.
        step: The first step.

    Attributes:
        step: The last step that was not cut short by the end of a gap: where to go on in the next.
        attempts: Steps tried.
        accepted: Steps taken.
    """

    def __init__(self, job: Job, step: float) -> None:
        start, end = job.times[0], job.times[-1]
        self.step, self.max_steps, self.caller_time = step, job.max_steps, job.caller_time
        self.resolution = 4 * math.ulp(max(abs(start), abs(end)))
        self.smallest = max(1e-12 * (end - start), self.resolution)
        self.attempts = self.accepted = 0

    def begin(self, end: float) -> None:
        """The next call of torchsde, up to the given time."""
        self.end = end
        self._queries = self._taken = 0
        self._last = (math.nan, math.nan)

    def observe(self, start: float, stop: float) -> None:
        """A query of the forward pass."""
        self._queries += 1
        if self._queries % QUERIES != 1:
            return
        if start > self._last[0]:
            self._taken += 1
        if self.attempts >= self.max_steps:
            raise Stop(
                Status.MAX_STEPS,
                f"has attempted max_steps={self.max_steps} steps and is at {self._time(start)}. Loosen rtol and atol, "
                f"or raise max_steps.",
            )
        if stop < self.end:
            self.step = stop - start
            if self.step < self.smallest:
                raise Stop(
                    Status.STEP_TOO_SMALL,
                    f"cannot meet rtol and atol at {self._time(start)} even with a step of {self.step:.2g}. Loosen "
                    f"them, use float64, or look for a coefficient that jumps or grows without bound there.",
                )
        self.attempts += 1
        self._last = (start, stop)

    def finish(self) -> None:
        """torchsde has come to the end of the gap: the last attempt was accepted too."""
        self.accepted += self._taken + 1

    def retry(self) -> None:
        """torchsde met a number that is not finite: set another first step for the same gap, or stop."""
        start, stop = self._last
        if not self._taken and stop - start > 8 * self.smallest:
            self.step = (stop - start) / 8
        elif self._taken and self.end - start <= self.resolution:
            self.step *= 0.9  # its times, added up, ended next to the end; other ones will not
        else:
            raise Stop(
                Status.NON_FINITE,
                f"met a state that is infinite or NaN right after {self._time(start)}. Look at the drift and diffusion "
                f"there, or give a smaller first_step.",
            )

    def _time(self, t: float) -> str:
        return f"t={self.caller_time(t):.12g}"


class BackwardWatch:
    """The same for the backward pass, which has nothing to report, but must not run for ever either."""

    def __init__(self, watch: Watch, start: float, end: float) -> None:
        self.smallest, self.most, self.ends = watch.smallest, QUERIES * watch.max_steps, (start, end)
        self.queries = 0

    def observe(self, start: float, stop: float) -> None:
        self.queries += 1
        inside = start > self.ends[0] and stop < self.ends[1]
        if self.queries > self.most or (inside and stop - start < self.smallest / 2):
            raise SolveError(
                "the backward pass of gradient='adjoint' does not meet rtol and atol. Loosen them, take fixed steps, "
                "or use gradient='backprop'."
            )


def from_step_control(error: BaseException) -> bool:
    """Whether torchsde's own step control failed, as it does where an error estimate is infinite or NaN."""
    trace: TracebackType | None = error.__traceback__
    module = ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.startswith("torchsde.") and module.endswith("adaptive_stepping")
