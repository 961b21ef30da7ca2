"""torchdiffeq behind sdeflow's checks.

What is different from calling it directly:

- no time outside the span is handed to the velocity, forward or in the adjoint's backward pass; save times and breakpoints end
  a step, and none is an interpolant's;
- the error norm is the maximum over samples of the root mean square of each, so an easy batch does not hide a hard sample;
- a solve that fails says why and where, and returns the save times it reached;
- the adjoint finds every tensor the velocity depends on, also those that a closure captured, and its absolute tolerance is
  relative to the gradient it is given, since a loss has no scale of its own: with the mean over 10,000 samples it would be void.

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366;
    "Hey, that's not an ODE": Faster ODE Adjoints via Seminorms (Kidger et al., 2021), https://arxiv.org/abs/2009.09457
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from sdeflow.calculus import leaves
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning
from sdeflow.solvers.backends.torchdiffeq_calls import AdaptiveSteps, Failure, FixedSteps, Velocity
from sdeflow.solvers.backends.torchdiffeq_table import ADAMS, PREFIX, SCIPY, stages, table
from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.methods import Method
from sdeflow.solvers.status import Status

__all__ = ["run", "torchdiffeq_methods"]


def torchdiffeq_methods() -> tuple[Method, ...]:
    """Every method that the installed torchdiffeq lists, as ``"torchdiffeq:NAME"``."""
    return table()


def run(job: Job) -> Outcome:
    """Solve an ODE with torchdiffeq."""
    name = job.method.name.removeprefix(PREFIX)
    if name == SCIPY:
        return _scipy(job)
    if job.grid is None:
        return _adaptive(job, name)
    return _adams(job, name) if name in ADAMS else _fixed(job, name)


def _adaptive(job: Job, name: str) -> Outcome:
    clock = _clock(job, job.times)
    steps = AdaptiveSteps(job, sorted({*clock.tolist(), *job.breakpoints}), stages(name))
    norm = _row_norm(job)
    options: dict[str, Any] = {"norm": norm, "dtype": clock.dtype, **job.method.options}
    saves = [t for t in clock.tolist() if t not in steps.breakpoints]  # torchdiffeq refuses times that are in both
    options["step_t"] = clock.new_tensor(saves)
    if job.breakpoints:
        options["jump_t"] = clock.new_tensor(job.breakpoints)
    backward = {**options, "norm": lambda state: max(norm(state[1]), norm(state[2]))}  # the state and its adjoint
    if job.first_step is not None:
        options["first_step"] = job.first_step
    try:
        x = _odeint(job, steps, clock, name, (job.rtol, job.atol), options, backward)
    except Failure as failure:
        reached = torch.stack(steps.reached)
        return Outcome(reached, steps.counter, steps.accepted, steps.rejected, failure.status, failure.message)
    steps.forward_is_done()
    return Outcome(x, steps.counter, steps.accepted, steps.rejected)


def _fixed(job: Job, name: str, tolerance: float = 0.0) -> Outcome:
    assert job.grid is not None
    nodes = _clock(job, job.grid.nodes)
    stops = nodes.tolist()
    index = {t: k for k, t in enumerate(stops)}

    def grid(velocity: Any, x: Tensor, t: Tensor) -> Tensor:
        """The nodes from t[0] to t[-1], which decrease in the adjoint's backward pass."""
        first, last = index[t[0].item()], index[t[-1].item()]
        return nodes[first : last + 1] if first < last else nodes[last : first + 1].flip(0)

    steps = FixedSteps(job, stops, stages(name))
    # perturb moves the ends of steps off the jumps, each to its own side, by a rounding unit.
    options = {"grid_constructor": grid, "perturb": bool(job.breakpoints), **job.method.options}
    x = _odeint(job, steps, nodes[list(job.grid.saves)], name, (tolerance, tolerance), options, options)
    return Outcome(x, steps.counter, accepted=job.grid.steps)


def _adams(job: Job, name: str) -> Outcome:
    """The multistep methods: on equal steps, and with the corrector brought to convergence."""
    assert job.grid is not None
    sizes = np.diff(job.grid.nodes)
    if job.breakpoints or np.ptp(sizes) > 1e-6 * sizes.mean():
        raise MethodError(
            f"method={job.method.name!r} cannot solve this: its coefficients are for equal steps, without breakpoints. "
            f"Give steps=n with save times on the grid, or take torchdiffeq:rk4."
        )
    complaint = "Functional iteration did not converge"
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=complaint)
        outcome = _fixed(job, name, tolerance=64 * torch.finfo(job.x0.dtype).eps)
    others = [entry for entry in caught if not str(entry.message).startswith(complaint)]
    for entry in others:
        warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)
    if missed := len(caught) - len(others):
        warnings.warn(
            f"The corrector of {job.method.name} did not converge in {missed} of {job.grid.steps} steps, so the result may "
            f"be wrong. Take smaller steps, or an explicit method.",
            SdeflowWarning,
            stacklevel=4,
        )
        outcome.extra["not_converged"] = missed
    return outcome


def _scipy(job: Job) -> Outcome:
    """scipy's LSODA through torchdiffeq. It does not tell of its steps, so max_steps counts evaluations."""
    velocity = Velocity(job, job.times, ())
    if torch.is_grad_enabled() and (job.x0.requires_grad or _parameters(job, velocity)):
        raise MethodError(
            f"method={job.method.name!r} has no gradient, and something requires one here. "
            f"Solve under torch.no_grad(), or take torchdiffeq:dopri5."
        )
    times, x, failure = list(job.times), job.x0[None], None
    while len(times) > 1:
        try:
            x = _limited_scipy(job, velocity, times)
            break
        except Failure as stopped:  # what it had is lost with the exception: once more, up to the save times before
            failure = failure or stopped
            times = [t for t in times[:-1] if t < velocity.right]
    if failure is None and len(x) < len(times):  # torchdiffeq does not say that scipy gave up
        finite = velocity.last is None or bool(velocity.last.isfinite().all())
        failure = Failure(
            Status.STEP_TOO_SMALL if finite else Status.NON_FINITE,
            f"{job.method.name} gave up between t={job.caller_time(times[len(x) - 1]):.12g} and "
            f"t={job.caller_time(times[len(x)]):.12g}; the velocity {'is finite' if finite else 'became infinite or NaN'} there.",
        )
    if failure is None:
        return Outcome(x, velocity.counter, accepted=0)
    return Outcome(x, velocity.counter, accepted=0, status=failure.status, message=failure.message)


def _limited_scipy(job: Job, velocity: Velocity, times: Sequence[float]) -> Tensor:
    """The states at the times, within max_steps evaluations."""
    most = velocity.counter.drift + job.max_steps

    def function(t: Tensor, x: Tensor) -> Tensor:
        velocity.right = t.item()
        if velocity.counter.drift >= most:
            raise Failure(
                Status.MAX_STEPS,
                f"{job.method.name} has evaluated the velocity max_steps={job.max_steps} times and is at "
                f"t={job.caller_time(velocity.right):.12g}. Loosen rtol and atol, or raise max_steps; is it singular there?",
            )
        return velocity(t, x.to(job.x0.dtype)).to(x.dtype)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*min_step")  # torchdiffeq gives it to solvers that have none
        # In float64, as scipy computes anyway: torchdiffeq would round the time to the dtype of the state.
        x = odeint(
            function,
            job.x0.double(),
            torch.tensor(times, dtype=torch.float64, device=job.x0.device),
            rtol=job.rtol,
            atol=job.atol,
            method=SCIPY,
            options=dict(job.method.options),
        )
    return x.to(job.x0.dtype)


def _odeint(
    job: Job,
    velocity: Velocity,
    times: Tensor,
    name: str,
    tolerances: tuple[float, float],
    options: dict[str, Any],
    backward: dict[str, Any],
) -> Tensor:
    """The states at the times, by backprop or by the adjoint."""
    rtol, atol = tolerances
    if job.gradient != "adjoint":
        x: Tensor = odeint(velocity, job.x0, times, rtol=rtol, atol=atol, method=name, options=options)
        return x
    parameters = _parameters(job, velocity)
    adjoint_atol = _AdjointTolerance(atol, len(parameters))
    x = odeint_adjoint(
        velocity,
        job.x0,
        times,
        rtol=rtol,
        atol=atol,
        method=name,
        options=options,
        adjoint_options=backward,
        adjoint_atol=adjoint_atol,
        adjoint_params=parameters,
    )
    if x.requires_grad:
        x.register_hook(adjoint_atol.receive)
    return x


class _AdjointTolerance:
    """The absolute tolerances of the backward pass, for: the time, the state, its adjoint, and each parameter.

    The adjoint is linear in the gradient it starts from, so its tolerance is relative to the largest entry of that. torchdiffeq
    iterates over this when the backward pass begins, after :meth:`receive` has been called.
    """

    def __init__(self, atol: float, parameters: int) -> None:
        self.atol = atol
        self.parameters = parameters
        self.scale = 1.0

    def receive(self, gradient: Tensor) -> None:
        if torch.is_grad_enabled():
            raise ArgumentError(
                "The adjoint has first derivatives only, and create_graph=True asks for more: solve with gradient='backprop'."
            )
        largest = float(gradient.abs().max())
        self.scale = largest if 0 < largest < math.inf else 1.0

    def __iter__(self) -> Iterator[float]:
        yield self.atol
        yield self.atol
        yield from [self.atol * self.scale] * (1 + self.parameters)


def _parameters(job: Job, velocity: Velocity) -> tuple[Tensor, ...]:
    """What the velocity depends on and requires grad: the process's parameters, and what its graph leads to.

    The graph is looked at once in each piece between breakpoints; a captured tensor that is used at other times only is missed.
    """
    if not torch.is_grad_enabled():
        return ()
    found = [p for p in job.process.parameters() if p.requires_grad]
    edges = (*job.breakpoints, job.times[-1])
    pieces = [job.times[0], *((a + b) / 2 for a, b in zip(edges[:-1], edges[1:], strict=True))]
    with torch.enable_grad():
        x = job.x0.detach().requires_grad_()
        for t in pieces:
            found += [leaf for leaf in leaves(velocity(x.new_tensor(t, dtype=torch.float64), x)) if leaf is not x]
    return tuple({id(tensor): tensor for tensor in found}.values())


def _row_norm(job: Job) -> Callable[[Tensor], Tensor]:
    """The maximum over rows of the root mean square of each, over the coordinates that the process's error_mask names."""
    mask = getattr(job.process, "error_mask", None)
    counted = None
    if mask is not None:
        counted = torch.broadcast_to(mask.to(job.x0.device) != 0, job.x0.shape[1:]).flatten().nonzero().flatten()

    # Without grad: the size of a step is a choice, not a function to differentiate, and sqrt has none at a row of zeros.
    @torch.no_grad()
    def norm(ratio: Tensor) -> Tensor:
        square = ratio.flatten(1).square()
        if counted is not None:
            square = square[:, counted]
        return square.mean(1).amax().sqrt()

    return norm


def _clock(job: Job, times: Any) -> Tensor:
    """Times as torchdiffeq is given them: in float64, where the device has it."""
    dtype = torch.float32 if job.x0.device.type == "mps" else torch.float64
    return torch.as_tensor(np.asarray(times, dtype=float), dtype=dtype, device=job.x0.device)
