"""Adaptive explicit Runge–Kutta methods, every sample on its own clock or the batch on one.

The two ways of stepping are one loop: times, steps and errors are vectors with an entry for each clock, and a batch that
shares its steps has a single clock. Samples that have arrived leave the batch when that pays. The interval is never left: a
step ends on its end, and no stage looks beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sdeflow.processes.boundary import rounding_unit, state_time
from sdeflow.processes.process import Process
from sdeflow.solvers.controller import Tolerance, first_step, next_factor
from sdeflow.solvers.job import Counter, Job, Outcome
from sdeflow.solvers.methods import Method
from sdeflow.solvers.status import Status
from sdeflow.solvers.tableaus import BOSH3, DOPRI5, DOPRI8, TSIT5

__all__ = ["RUNGE_KUTTA_METHODS", "TABLEAUS", "run"]

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, DOPRI5, BOSH3, DOPRI8)}

RUNGE_KUTTA_METHODS = tuple(
    Method(
        tableau.name,
        "adaptive",
        ode_order=tableau.order,
        drift_evaluations=len(tableau.b) - 1,
        fixed=False,
        adaptive=True,
        stepping=("shared", "per-sample"),
        paper=tableau.paper,
    )
    for tableau in TABLEAUS.values()
)

COUNTS = ("accepted", "rejected", "nfe")

PAYS = 0.75  # the batch is narrowed when at most this part of it is still under way


def combine(weights: Sequence[float], stages: Sequence[Tensor]) -> Tensor:
    """Σ_i w_i k_i, without the stages that do not count."""
    total: Tensor | None = None
    for weight, stage in zip(weights, stages, strict=False):
        if weight != 0.0:
            total = stage * weight if total is None else torch.add(total, stage, alpha=weight)
    assert total is not None
    return total


def polynomial(coefficients: Sequence[float], place: Tensor) -> Tensor:
    """Σ_m d_m θ^(m+1), by Horner's rule."""
    value = torch.full_like(place, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = value * place + coefficient
    return value * place


class Trajectories:
    """The samples that are under way, their clocks, and what has been saved of them.

    Attributes:
        rows: Which rows of the batch they are.
        t: The clocks, float64, ``(n,)`` with n = 1 where the batch shares its steps.
        h: The steps to try next.
        x: The states.
        velocity: f(t, x).
        error: The error of the last accepted step, for the controller.
        due: For each clock the index of the next save time.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.tableau = TABLEAUS[job.method.name]
        self.places = job.x0.new_tensor(self.tableau.c, dtype=torch.float64)
        self.at_end = self.places == 1
        self.shared = job.stepping == "shared"
        self.process: Process = job.process
        self.tolerance = Tolerance(job.rtol, job.atol, getattr(job.process, "error_mask", None), self.shared)
        self.counter = Counter()
        batch, device = len(job.x0), job.x0.device
        clocks = 1 if self.shared else batch
        self.x = job.x0
        self.rows = torch.arange(batch, device=device)
        self.t = torch.full((clocks,), job.times[0], dtype=torch.float64, device=device)
        self.saves = torch.tensor([*job.times, float("inf")], dtype=torch.float64, device=device)
        self.due = torch.ones(clocks, dtype=torch.int64, device=device)
        self.saved = job.x0.new_full((len(job.times), *job.x0.shape), float("nan"))
        self.saved[0] = job.x0
        self.can_narrow = not self.shared
        self.accepted, self.rejected, self.nfe = (
            torch.zeros(clocks, dtype=torch.int64, device=device) for _ in range(3)
        )
        self.status = torch.full((clocks,), int(Status.SUCCESS), device=device)
        self.alive = torch.ones(clocks, dtype=torch.bool, device=device)  # not given up
        self.reached = self.t.clone()
        # A step that changes no digit of t is no step.
        self.smallest = 4 * torch.finfo(torch.float64).eps * max(abs(job.times[0]), abs(job.times[-1]))
        self.low, self.high = job.times[0], job.times[-1]
        # Counts of samples that have left the batch stay here.
        self.archive = {name: getattr(self, name) for name in COUNTS}
        self.archive_rows = torch.arange(clocks, device=device)

    # --- evaluation ----------------------------------------------------------------------------------------------------

    def wide(self, v: Tensor) -> Tensor:
        """A vector over the clocks, broadcasting against the states, in their dtype."""
        return v.to(self.x.dtype).reshape(-1, *[1] * (self.x.ndim - 1))

    def times(self, t: Tensor) -> list[Tensor]:
        """Times ``(clocks, stages)`` as the process wants them, one tensor for each stage."""
        if self.job.breakpoints:  # a coefficient that jumps at an end of the segment is not asked there
            unit = rounding_unit(self.x, *self.process.interval, self.low, self.high)
            t = t.clamp(self.low + unit, self.high - unit)
        if not self.process.precise_time:
            like = self.x.new_empty(t.numel(), 1)
            t = state_time(t.reshape(-1), like, self.process.interval).reshape(t.shape)
        if self.shared:
            return list(t.reshape(-1).unbind())
        return [column.reshape(-1, *[1] * (self.x.ndim - 1)) for column in t.unbind(1)]

    def evaluate(self, t: Tensor, x: Tensor) -> Tensor:
        """f at one time for each clock."""
        self.counter.drift += 1
        return self.process.drift(self.times(t[:, None])[0], x)

    def stages(self, h: Tensor, t1: Tensor) -> tuple[list[Tensor], Tensor]:
        """The velocities of a step to t1, and the state there."""
        at = torch.where(self.at_end, t1[:, None], self.t[:, None] + self.places * h[:, None])
        times, step = self.times(at), self.wide(h)
        velocities, y = [self.velocity], self.x
        for row, time in zip(self.tableau.a, times[1:], strict=True):
            y = self.x + step * combine(row, velocities)
            velocities.append(self.process.drift(time, y))
        self.counter.drift += len(self.tableau.a)
        return velocities, y

    # --- stepping ------------------------------------------------------------------------------------------------------

    def cross(self, low: float, high: float) -> None:
        """Take all samples from one time to another, between which no coefficient jumps."""
        if not bool(self.alive.any()):
            return
        self.low, self.high = low, high
        self.velocity = self.evaluate(self.t, self.x)
        self.nfe += 1
        with torch.no_grad():
            if low == self.job.times[0]:
                self.error = torch.ones_like(self.t)
                self.h = self._first_step(high - low)
        attempts = int((self.accepted + self.rejected).max())
        while attempts < self.job.max_steps:
            if not self._step():
                return
            attempts += 1
        self._give_up(self.alive & (self.t < self.high), Status.MAX_STEPS)

    def _first_step(self, longest: float) -> Tensor:
        if self.job.first_step is not None:
            return torch.full_like(self.t, min(self.job.first_step, longest))
        self.nfe += 1
        return first_step(
            self.evaluate, self.tolerance, self.t, self.x, self.velocity, self.tableau.error_order, longest, self.wide
        )

    def _step(self) -> bool:
        """Try one step on every clock; whether any is still under way."""
        bound = torch.full_like(self.t, self.high)
        if not self.tableau.dense:
            bound = torch.minimum(bound, self.saves[self.due])
        left = torch.where(self.alive, bound - self.t, 0.0)  # those given up stay where they are
        lands = self.h >= left * (1 - 1e-10)
        h = torch.where(lands, left, self.h)
        t1 = torch.where(lands & self.alive, bound, self.t + h)
        moving = left > 0
        velocities, x1 = self.stages(h, t1)
        with torch.no_grad():
            step = self.wide(h)
            estimates = [step * combine(weights, velocities) for weights in self.tableau.errors]
            error = self.tolerance.error(estimates, self.x, x1)
            ok = error <= 1  # not so where it is NaN
            factor = next_factor(error, self.error, ok, self.tableau.error_order)
            proposed = h * factor
            # A step cut short to land somewhere says nothing against the length that was intended.
            self.h = torch.where(ok & lands, torch.maximum(proposed, self.h), proposed)
            self.error = torch.where(ok, error.clamp_min(1e-4), self.error)
            accepted, stuck = ok & moving, ~ok & ~(self.h > self.smallest) & self.alive
            self.accepted += accepted
            self.rejected += ~ok & moving
            self.nfe += moving * len(self.tableau.a)
            passes = accepted & (t1 >= self.saves[self.due])
            # All that the loop has to know, in one transfer from the device.
            all_ok, any_pass, any_stuck = torch.stack([(ok & self.alive).all(), passes.any(), stuck.any()]).tolist()
        if any_pass:
            self._save(passes, t1, h, x1, velocities)
        if all_ok:
            self.t, self.x, self.velocity = t1, x1, velocities[-1]
        else:
            ok = ok & self.alive
            here = ok.reshape(-1, *[1] * (self.x.ndim - 1))
            self.t = torch.where(ok, t1, self.t)
            self.x = torch.where(here, x1, self.x)
            self.velocity = torch.where(here, velocities[-1], self.velocity)
        if any_stuck:
            finite = torch.stack([k.detach().isfinite().flatten(1).all(1) for k in velocities]).all(0)
            bad = ~(finite.all(0, keepdim=True) if self.shared else finite)
            self._give_up(stuck & bad, Status.NON_FINITE)
            self._give_up(stuck & ~bad, Status.STEP_TOO_SMALL)
        return self._go_on()

    def _go_on(self) -> bool:
        """Whether a sample is still under way; those that are not leave the batch when that pays."""
        going = self.alive & (self.t < self.high)
        count = int(going.sum())
        self.job.progress(float(torch.where(self.alive, self.t, self.high).min()))
        if self.can_narrow and 0 < count <= PAYS * len(self.t) and self.high == self.job.times[-1]:
            self._narrow(going.nonzero().flatten())
        return count > 0

    def _give_up(self, on: Tensor, status: Status) -> None:
        """End the solve on some clocks; where they are is kept."""
        if bool(on.any()):
            clocks = on if self.shared else torch.zeros_like(self.status, dtype=torch.bool).index_put_((self.rows,), on)
            self.status = torch.where(clocks, int(status), self.status)
            self.reached[clocks] = self.t[on]
            self.alive = self.alive & ~on

    def _narrow(self, keep: Tensor) -> None:
        """Go on with some rows only, if the process can: it must have, for them, the velocity that it had among all."""
        narrow = self.process.rows(keep)
        try:
            with torch.no_grad():
                times = self.times(self.t[keep, None])[0]
                self.counter.drift += 1
                same = torch.allclose(narrow.drift(times, self.x[keep]), self.velocity[keep], rtol=1e-3, atol=1e-6)
        except Exception:  # a velocity with data of its own for each row cannot be asked about some of them
            same = False
        if not same:
            self.can_narrow = False
            return
        self.process = narrow
        self.rows = self.rows[keep]
        self.x, self.velocity = self.x[keep], self.velocity[keep]
        self.t, self.h, self.error, self.due = self.t[keep], self.h[keep], self.error[keep], self.due[keep]
        self.alive = self.alive[keep]
        self.put_away()
        for name in COUNTS:
            setattr(self, name, getattr(self, name)[keep])
        self.archive_rows = self.rows

    def put_away(self) -> None:
        """Take the counts of the samples in the batch to the archive."""
        for name in COUNTS:
            self.archive[name] = self.archive[name].index_put((self.archive_rows,), getattr(self, name))

    # --- saving --------------------------------------------------------------------------------------------------------

    def _save(self, passes: Tensor, t1: Tensor, h: Tensor, x1: Tensor, velocities: list[Tensor]) -> None:
        """Save the states at the save times that this step has passed, by dense output, or as they are at its end."""
        while bool(passes.any()):
            target = self.saves[self.due]
            value = x1
            if self.tableau.dense and bool((passes & (target < t1)).any()):
                place = torch.where(passes, (target - self.t) / h, 1.0)
                change = sum(
                    self.wide(polynomial(row, place)) * k for row, k in zip(self.tableau.dense, velocities, strict=True)
                )
                end = (place == 1).reshape(-1, *[1] * (x1.ndim - 1))
                value = torch.where(end, x1, self.x + self.wide(h) * change)
            if self.shared:
                self.saved[int(self.due)] = value
            else:
                index = passes.nonzero().flatten()
                self.saved[self.due[index], self.rows[index]] = value[index]
            self.due = self.due + passes
            passes = passes & (t1 >= self.saves[self.due])


def run(job: Job) -> Outcome:
    """Solve from the first save time to the last, segment by segment between the times at which a coefficient jumps."""
    samples = Trajectories(job)
    for low, high in pairwise((job.times[0], *job.breakpoints, job.times[-1])):
        samples.cross(low, high)
    samples.put_away()
    accepted, rejected, nfe = (samples.archive[name] for name in COUNTS)
    # Each sample's own; and how often the velocity was called at all, with those who were along and the checks of narrowing.
    own = {"nfe_drift": nfe, "accepted": accepted, "rejected": rejected, "calls": samples.counter.drift}
    extra: dict[str, Any] = {} if samples.shared else own
    saved, status, message = samples.saved, samples.status, ""
    failed = status != Status.SUCCESS
    if bool(failed.any()):
        stopped = torch.where(failed, samples.reached, job.times[-1])
        extra["t_reached"] = stopped.new_tensor([job.caller_time(value) for value in stopped.tolist()])
        message = _message(job, status, samples.reached)
        if samples.shared:
            saved = saved[: 1 + int((samples.saves[1:-1] <= samples.reached).sum())]
    return Outcome(
        saved,
        samples.counter,
        accepted=int(accepted.max()),
        rejected=int(rejected.max()),
        status=status.expand(len(job.x0)),
        message=message,
        extra=extra,
    )


def _message(job: Job, status: Tensor, reached: Tensor) -> str:
    failed = status != Status.SUCCESS
    count, when = int(failed.sum()), job.caller_time(float(reached[failed].min()))
    who = "the batch" if job.stepping == "shared" else f"{count} of {len(status)} samples"
    kinds = set(status[failed].tolist())
    if kinds == {Status.MAX_STEPS}:
        return (
            f"{who} took max_steps={job.max_steps} steps without arriving (the earliest is at t = {when:g}). Raise "
            f"max_steps or the tolerances; if the steps are small everywhere, the problem is stiff for {job.method.name!r}."
        )
    if kinds == {Status.NON_FINITE}:
        return f"the velocity of {who} is infinite or NaN near t = {when:g}, however small the step."
    return (
        f"the step of {who} became too small for float64 near t = {when:g}: the solution blows up there, the velocity "
        f"jumps (say where with breakpoints=), or {job.rtol:g} is below what {job.x0.dtype} resolves (use x0.double())."
    )
