r"""torchsde's methods behind sdeflow's checks, on sdeflow's path, at sdeflow's times.

What it is spared: save times that are interpolated, slivers of steps, noise of another seed, time in float32, a default
step, states that must be ``(B, D)``, matrices for additive noise on the diagonal, endless loops, and gradients that are
silently missing. What remains torchsde's own: adaptive steps are shared by the batch, and hold the root mean square of
the error over all of it to the tolerance, which has a floor of 1e-7; and of its adjoints only the Stratonovich ones, without
that of ``reversible_heun``, give gradients of gradients.

References:
    torchsde, https://github.com/google-research/torchsde

    Scalable gradients for stochastic differential equations (Li, Wong, Chen & Duvenaud, 2020), https://arxiv.org/abs/2001.01328
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torchsde
from torch import Tensor

from sdeflow.errors import SdeflowWarning
from sdeflow.processes.sde import SDE
from sdeflow.solvers.backends.torchsde_adapter import Coefficients, Noise, RealClock, StepClock
from sdeflow.solvers.backends.torchsde_adaptive import BackwardWatch, Stop, Watch, from_step_control
from sdeflow.solvers.backends.torchsde_adjoint import adjoint_options, captured, once_only
from sdeflow.solvers.backends.torchsde_checks import check_jacobian
from sdeflow.solvers.backends.torchsde_methods import torchsde_methods
from sdeflow.solvers.grid import Grid
from sdeflow.solvers.increments import Increments, is_own_grid
from sdeflow.solvers.job import Counter, Job, Outcome

__all__ = ["run", "torchsde_methods"]

EQUAL = 1e-9  # relative difference of step sizes that counts as rounding
FLOOR = 1e-7  # of torchsde's tolerances
DIFFERENTIATING = ("milstein", "log_ode")  # these leave a graph behind, step upon step, even if nobody wants gradients
FIRST_STEP = 0.01  # of the span, where none is given


def run(job: Job) -> Outcome:
    """Solve a job with the torchsde method that it names.

    Raises:
        MethodError: The method would go wrong on this process's diffusion in a way that only its derivatives show.
        SolveError: In the backward pass of an adaptive adjoint solve that does not end.
    """
    solver = _Solver(job)
    with torch.set_grad_enabled(solver.wanted):
        return _fixed(solver, job.grid) if job.grid is not None else _adaptive(solver)


class _Solver:
    """What all calls of torchsde in one job have in common."""

    def __init__(self, job: Job) -> None:
        assert isinstance(job.process, SDE) and job.brownian is not None
        self.job, self.process, self.path = job, job.process, job.brownian
        self.method: str = job.method.options["method"]
        self.options: dict[str, Any] = dict(job.method.options.get("options", {}))
        self.calculus = job.method.calculus
        if self.calculus == "any":  # additive noise is the same in both, and the Stratonovich adjoint is the better one
            self.calculus = "stratonovich" if self.process.additive else self.process.calculus
        self.nodes = [] if job.grid is None else job.grid.nodes.tolist()
        self.counter = Counter()
        self.y0 = job.x0.reshape(len(job.x0), -1)
        check_jacobian(job, self.method, bool(self.options))
        self.wanted = torch.is_grad_enabled()
        self.adjoint_options: dict[str, Any] = {}
        known = job.x0.requires_grad or any(p.requires_grad for p in self.process.parameters())
        if self.wanted and (job.gradient == "adjoint" or (self.method in DIFFERENTIATING and not known)):
            parameters = captured(self.process, job.x0, job.times)
            self.wanted = known or bool(parameters)
            if self.wanted and job.gradient == "adjoint":
                self.adjoint_options = adjoint_options(self.process, self.method, self.calculus, parameters)
        self.adjoint = bool(self.adjoint_options)

    def coefficients(self, clock: Any) -> Coefficients:
        return Coefficients(self.process, self.job.x0.shape, clock, self.calculus, self.counter)

    def __call__(
        self,
        coefficients: Coefficients,
        noise: Noise,
        y: Tensor,
        times: list[float],
        dt: float,
        extra: Any,
        **options: Any,
    ) -> tuple[Tensor, Any]:
        """The states at the times, ``(T, B, D)``, and what the method carries from step to step besides."""
        integrate = torchsde.sdeint_adjoint if self.adjoint else torchsde.sdeint
        ys, extra = integrate(
            coefficients,
            y,
            torch.tensor(times, dtype=torch.float64, device="cpu"),
            bm=noise,
            method=self.method,
            dt=dt,
            options=self.options,
            extra=True,
            extra_solver_state=extra,
            **self.adjoint_options,
            **options,
        )
        once = self.adjoint and (self.calculus == "ito" or self.method == "reversible_heun")
        return once_only(ys) if once else ys, tuple(extra)

    def outcome(self, saved: list[Tensor], **others: Any) -> Outcome:
        x = torch.stack([y.reshape(self.job.x0.shape) for y in saved])
        return Outcome(x, self.counter, **others)


def _fixed(solver: _Solver, grid: Grid) -> Outcome:
    """Steps of fixed size, on a clock that does not round: one call of torchsde for each run of equal steps."""
    process, path, x0 = solver.process, solver.path, solver.job.x0
    own = is_own_grid(path, solver.nodes)
    y, extra = solver.y0, None
    saved, saves = [y], set(grid.saves)
    jumps = set(grid.at(solver.job.breakpoints))
    for first, last in _runs_of_equal_steps(grid, jumps):
        clock = StepClock(process, x0, grid, first, last, jumps)
        if first in jumps:
            extra = None  # what a method remembers of the coefficients is of the other side of the jump
        noise = Noise(
            path,
            process.noise == "general",
            _progress(solver.job, clock),
            clock,
            _steps(solver, first) if own else None,
        )
        marks = [0, *(k - first for k in grid.saves if first < k < last), last - first]
        ys, extra = solver(solver.coefficients(clock), noise, y, [k * clock.h for k in marks], clock.h, extra)
        y = ys[-1]
        saved += [state for k, state in zip(marks[1:], ys[1:], strict=True) if first + k in saves]
    return solver.outcome(saved, accepted=grid.steps)


def _runs_of_equal_steps(grid: Grid, jumps: Collection[int]) -> Iterator[tuple[int, int]]:
    """(first node, last node) of each run of steps that are equal up to rounding, between the nodes of jumps."""
    if grid.uniform:
        yield from pairwise(sorted({0, *jumps, grid.steps}))
        return
    sizes = np.diff(grid.nodes)
    rounding = 4 * np.spacing(np.abs(grid.nodes).max())
    first = 0
    for k in range(1, grid.steps + 1):
        if k == grid.steps or k in jumps or abs(sizes[k] - sizes[first]) > EQUAL * sizes[first] + rounding:
            yield first, k
            first = k


def _steps(solver: _Solver, first: int) -> Callable[[int], tuple[Tensor, Tensor | None]]:
    """The noise of the steps of a run."""
    draw = Increments(solver.path, solver.nodes, "H" in solver.job.method.needs)
    return lambda k: draw(first + k)


def _adaptive(solver: _Solver) -> Outcome:
    """Steps chosen by torchsde: one call for each gap between save times, so that each is hit and none interpolated."""
    job = solver.job
    if max(job.rtol, job.atol) < FLOOR:
        warnings.warn(
            f"rtol={job.rtol:g} and atol={job.atol:g}: torchsde has no tolerances below {FLOOR:g}, and goes by that.",
            SdeflowWarning,
            stacklevel=4,
        )
    span = job.times[-1] - job.times[0]
    watch = Watch(job, job.first_step or FIRST_STEP * span)
    y, extra, saved = solver.y0, None, [solver.y0]
    try:
        for start, end in pairwise(sorted({*job.times, *job.breakpoints})):
            y, extra = _gap(solver, watch, start, end, y, extra)
            if end in job.times:
                saved.append(y)
    except Stop as stop:
        return solver.outcome(
            saved,
            accepted=watch.accepted,
            rejected=watch.attempts - watch.accepted,
            status=stop.status,
            message=f"{job.method.name} {stop.message}",
        )
    return solver.outcome(saved, accepted=watch.accepted, rejected=watch.attempts - watch.accepted)


def _gap(solver: _Solver, watch: Watch, start: float, end: float, y: Tensor, extra: Any) -> tuple[Tensor, Any]:
    """From one time to the next, again with another first step where torchsde met a number that is not finite."""
    job, process = solver.job, solver.process
    backward = {"adjoint_adaptive": True, "adjoint_rtol": job.rtol, "adjoint_atol": job.atol} if solver.adjoint else {}
    while True:
        watch.begin(end)

        def observe(s: float, t: float) -> None:
            watch.observe(s, t)
            job.progress(s)

        noise = Noise(solver.path, process.noise == "general", observe)
        coefficients = solver.coefficients(RealClock(process, job.x0, start, end))
        try:
            with warnings.catch_warnings():  # Euler's with additive noise, sent as diagonal: it does converge
                warnings.filterwarnings("ignore", message="Numerical solution is not guaranteed", module="torchsde")
                ys, extra_after = solver(
                    coefficients,
                    noise,
                    y,
                    [start, end],
                    min(watch.step, end - start),
                    extra,
                    adaptive=True,
                    rtol=job.rtol,
                    atol=job.atol,
                    dt_min=0.0,
                    **backward,
                )
        except (ArithmeticError, AssertionError) as error:
            if not from_step_control(error):
                raise
            watch.retry()
            continue
        watch.finish()
        noise.observe = BackwardWatch(watch, start, end).observe
        return ys[-1], extra_after


def _progress(job: Job, clock: StepClock) -> Any:
    def observe(first: float, last: float) -> None:
        k = clock.node(last)
        if k % 16 == 0:
            job.progress(float(clock.nodes[k]))

    return observe
