"""scipy's LSODA through torchdiffeq: the one method here for stiff problems.

A scipy solver may be a class, so this one is watched from within. Otherwise a failed solve returns fewer times and does
not say so, a NaN is integrated to the end, a blow-up is approached for ever, and t is rounded to float32 even in float64
(LSODA hands on a Python float, of which torchdiffeq makes a tensor of the default dtype).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.integrate import LSODA
from torch import Tensor
from torchdiffeq import odeint

from sdeflow.errors import MethodError
from sdeflow.solvers.backends.torchdiffeq_calls import Failure, Velocity, captured
from sdeflow.solvers.backends.torchdiffeq_table import SCIPY
from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.status import Status

__all__ = ["run_scipy"]


class Watch:
    """What is to be known of an LSODA solve: its steps, and why it ended."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.accepted = 0
        self.failure: Failure | None = None

    def before(self, t: float) -> None:
        if self.accepted >= self.job.max_steps:
            self.fail(Status.MAX_STEPS, t, f"has taken max_steps={self.job.max_steps} steps and is")

    def after(self, t: float, x: Any, message: str | None) -> None:
        self.accepted += 1
        self.job.progress(t)
        if not np.isfinite(x).all():
            self.fail(Status.NON_FINITE, t, "met a state or velocity that is infinite or NaN")
        elif message:
            self.fail(Status.STEP_TOO_SMALL, t, f"gave up ({message.rstrip('.')})")

    def fail(self, status: Status, t: float, what: str) -> None:
        now = f"t={self.job.caller_time(t):.12g}"
        advice = "Loosen rtol and atol, raise max_steps, or look at the velocity there."
        self.failure = Failure(status, f"{self.job.method.name} {what} at {now}. {advice}")

    def solver(self) -> type:
        """LSODA, reporting here."""
        watch = self

        class WatchedLSODA(LSODA):  # type: ignore[misc]
            def __init__(self, fun: Any, t0: float, y0: Any, t_bound: float, **options: Any) -> None:
                first = watch.job.first_step
                if first is not None:
                    options["first_step"] = min(first, t_bound - t0)
                super().__init__(lambda t, y: fun(np.float64(t), y), t0, y0, t_bound, **options)

            def _step_impl(self) -> tuple[bool, str | None]:
                watch.before(self.t)
                if watch.failure is None:
                    success, message = super()._step_impl()
                    watch.after(self.t, self.y, None if success else message)
                failure = watch.failure
                return failure is None, None if failure is None else failure.message

        return WatchedLSODA


def run_scipy(job: Job) -> Outcome:
    """Solve an ODE with LSODA, without a gradient."""
    velocity = Velocity(job, job.times, ())
    if torch.is_grad_enabled() and (job.x0.requires_grad or captured(job, velocity)):
        raise MethodError(
            f"method={job.method.name!r} has no gradient, and something requires one here. "
            f"Solve under torch.no_grad(), or take torchdiffeq:dopri5."
        )
    watch = Watch(job)

    def function(t: Tensor, x: Tensor) -> Tensor:
        return velocity(t, x.to(job.x0.dtype)).to(x.dtype)

    x = odeint(
        function,
        job.x0.double(),  # scipy computes in float64 anyway, and torchdiffeq rounds the time to the dtype of the state
        torch.tensor(job.times, dtype=torch.float64, device=job.x0.device),
        rtol=job.rtol,
        atol=job.atol,
        method=SCIPY,
        options={"solver": watch.solver()},
    )
    x = torch.cat([job.x0[None], x[1:].to(job.x0.dtype)])  # the first is an interpolant's, off by rounding
    if watch.failure is None:
        return Outcome(x, velocity.counter, watch.accepted)
    return Outcome(x, velocity.counter, watch.accepted, 0, watch.failure.status, watch.failure.message)
