"""Adaptive Runge–Kutta methods, every sample on its own clock or the batch on one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.processes.integrals import WithIntegrals
from sdeflow.solvers.clocks import most
from sdeflow.solvers.dop853 import DOPRI8
from sdeflow.solvers.driven import Driven
from sdeflow.solvers.explicit import ExplicitRungeKutta
from sdeflow.solvers.job import Counter, Job, Outcome
from sdeflow.solvers.methods import Method
from sdeflow.solvers.native_methods import STEPPERS
from sdeflow.solvers.quadrature import Quadrature
from sdeflow.solvers.rosenbrock import RODAS5P, Rosenbrock, RosenbrockTableau
from sdeflow.solvers.shared_clock import SharedClock
from sdeflow.solvers.status import Status
from sdeflow.solvers.stepper import Stepper
from sdeflow.solvers.tableaus import BOSH3, DOPRI5, TSIT5, Tableau
from sdeflow.solvers.trajectories import Trajectories
from sdeflow.solvers.velocity import Velocity

__all__ = ["RUNGE_KUTTA_METHODS", "TABLEAUS", "run"]

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, DOPRI5, BOSH3, DOPRI8)}

_COSTS: list[tuple[Tableau | RosenbrockTableau, int]] = [
    *((t, len(t.b) - 1) for t in TABLEAUS.values()),
    (RODAS5P, len(RODAS5P.c)),
]

RUNGE_KUTTA_METHODS = tuple(
    Method(
        tableau.name,
        "adaptive",
        ode_order=tableau.order,
        drift_evaluations=evaluations,
        fixed=False,
        adaptive=True,
        stepping=("shared", "per-sample"),
        gradients=("backprop", "checkpoint"),
        paper=tableau.paper,
    )
    for tableau, evaluations in _COSTS
)


def _stepper(job: Job, counter: Counter) -> Stepper:
    process, span, shared = job.process, (job.times[0], job.times[-1]), job.stepping == "shared"
    if isinstance(process, WithIntegrals) and job.method.name in TABLEAUS and not job.compile:
        velocity = Velocity(process.ode, process.part(job.x0)[0], span, bool(job.breakpoints), counter)
        return Quadrature(TABLEAUS[job.method.name], process, velocity, job.x0, shared)
    velocity = Velocity(process, job.x0, span, bool(job.breakpoints), counter)
    if job.brownian is not None:
        return Driven(job, STEPPERS[job.method.name], velocity, counter)
    if job.method.name == RODAS5P.name:
        return Rosenbrock(RODAS5P, velocity, job.x0, job.jacobian)
    return ExplicitRungeKutta(TABLEAUS[job.method.name], velocity, job.x0, shared)


def run(job: Job) -> Outcome:
    """Solve from the first save time to the last."""
    counter = Counter()
    stepper = _stepper(job, counter)
    remember = job.gradient == "checkpoint" and torch.is_grad_enabled()
    if remember and (job.events or job.dense):
        raise ArgumentError(
            "gradient='checkpoint' keeps nothing between the save times, and so has neither events nor dense output; "
            "take gradient='backprop'."
        )
    samples = Trajectories(job, stepper, remember)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not remember):
        samples.run()
    if remember:
        samples.again(lambda: _stepper(job, Counter()))
    clocks, states = samples.clocks, samples.states()
    extra: dict[str, Any] = {}
    accepted: int | Tensor
    attempts: int | Tensor
    if isinstance(clocks, SharedClock):
        accepted, attempts = clocks.accepted, clocks.attempts
    else:
        clocks.put_away()
        accepted, attempts, base = (clocks.tensor(count) for count in clocks.totals.values())
        # Each sample's own; "calls" is how often the velocity was called at all, for those along and for checks too.
        nfe = base + attempts * stepper.evaluations
        extra = {"nfe_drift": nfe, "accepted": accepted, "rejected": attempts - accepted, "calls": counter.drift}
    if samples.ahead is not None:
        extra |= {"compiled_steps": samples.ahead.steps, "compile_seconds": samples.ahead.seconds}
    status, reached = clocks.status, clocks.reached
    message, failed = "", (status != Status.SUCCESS) & (status != Status.EVENT)
    if bool((status != Status.SUCCESS).any()):
        extra["t_reached"] = reached.new_tensor([job.caller_time(value) for value in reached.tolist()])
    if bool(failed.any()):
        message = _message(job, status, failed, reached, _stiff(samples, failed))
    flipped = job.owner is not job.process
    if samples.dense is not None:
        samples.dense.total = sum(job.process.interval) if flipped else None
        samples.dense.failed = failed if bool(failed.any()) else None
    return Outcome(
        states,
        counter,
        accepted=most(accepted),
        rejected=most(attempts - accepted),
        status=status,
        message=message,
        extra=extra,
        events=()
        if samples.watch is None
        else samples.watch.occurrences(job.x0, job.process.reflect if flipped else _same),
        dense=samples.dense,
    )


def _same(t: Tensor) -> Tensor:
    return t


def _stiff(samples: Trajectories, failed: Tensor) -> bool:
    """Whether a sample that failed was held back by stability: h ρ was mostly near the limit of the method."""
    tableau = TABLEAUS.get(samples.job.method.name)
    if tableau is None or not samples.rates:
        return False
    rates = torch.stack(list(samples.rates))
    if rates.shape[1] == len(failed):
        rates = rates[:, failed]
    return bool(rates.amax(1).median() > 0.6 * tableau.stability)


def _message(job: Job, status: Tensor, failed: Tensor, reached: Tensor, stiff: bool) -> str:
    count, when = int(failed.sum()), job.caller_time(float(reached[failed].min()))
    who = "the batch" if job.stepping == "shared" else f"{count} of {len(status)} samples"
    kinds = set(status[failed].tolist())
    if kinds == {Status.MAX_STEPS}:
        return f"{who} took max_steps={job.max_steps} steps without arriving (the earliest is at t = {when:g}). " + (
            f"The problem is stiff: the steps of {job.method.name!r} are as long as its stability allows, however loose the "
            f"tolerance. Take method={RODAS5P.name!r}."
            if stiff
            else f"Raise max_steps or the tolerances; a stiff problem is for method={RODAS5P.name!r}."
        )
    if kinds == {Status.NON_FINITE}:
        return f"the velocity of {who} is infinite or NaN near t = {when:g}, however small the step."
    return (
        f"the step of {who} became too small for float64 near t = {when:g}: the solution blows up there, the velocity "
        f"jumps (say where with breakpoints=), or {job.rtol:g} is below what {job.x0.dtype} resolves (use x0.double())."
    )
