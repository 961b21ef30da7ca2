"""torchdiffeq behind sdeflow's checks.

What is different from calling it directly:

- No time outside the span is handed to the velocity, neither forward nor in the adjoint's backward pass. Save times and
  breakpoints end a step. (What adaptive methods return is torchdiffeq's interpolant at the end of the step: the state up
  to rounding, in float32 some 3e-6 of it.)
- The error norm is the maximum over samples of the root mean square of each: an easy batch does not hide a hard sample.
- A solve that fails says why and where, and returns the save times it reached.
- The adjoint finds every tensor that the velocity depends on, also those that a closure captured. Its absolute tolerance
  is relative to the gradient it is given, for a loss has no scale of its own: that of a mean over 10,000 samples would be
  below any absolute tolerance.

References:
    Neural Ordinary Differential Equations (Chen et al., 2018), https://arxiv.org/abs/1806.07366;
    "Hey, that's not an ODE": Faster ODE Adjoints via Seminorms (Kidger et al., 2021), https://arxiv.org/abs/2009.09457
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_adjoint

from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning
from sdeflow.solvers.backends.torchdiffeq_calls import AdaptiveSteps, Failure, FixedSteps, Velocity, captured
from sdeflow.solvers.backends.torchdiffeq_scipy import run_scipy
from sdeflow.solvers.backends.torchdiffeq_table import ADAMS, PREFIX, SCIPY, stages, table
from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.methods import Method

__all__ = ["run", "torchdiffeq_methods"]


def torchdiffeq_methods() -> tuple[Method, ...]:
    """Every method that the installed torchdiffeq lists, as ``"torchdiffeq:NAME"``."""
    return table()


def run(job: Job) -> Outcome:
    """Solve an ODE with torchdiffeq."""
    name = job.method.name.removeprefix(PREFIX)
    if name == SCIPY:
        return run_scipy(job)
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
    # Of the augmented state, the state and its adjoint; torch.maximum keeps a NaN of either.
    backward = {**options, "norm": lambda parts: torch.maximum(norm(parts[1]), norm(parts[2]))}
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
    grid_nodes = job.grid.nodes.copy()
    for t in job.breakpoints:  # exactly, for a rounding unit decides on which side of the jump a stage is
        grid_nodes[np.abs(grid_nodes - t).argmin()] = t
    nodes = _clock(job, grid_nodes)
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
    job.progress(stops[-1])
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
            f"The corrector of {job.method.name} did not converge in {missed} of {job.grid.steps} steps, so the result "
            f"may be wrong. Take smaller steps, or an explicit method.",
            SdeflowWarning,
            stacklevel=4,
        )
        outcome.extra["not_converged"] = missed
    return outcome


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
    parameters = captured(job, velocity)
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

    The adjoint is linear in the gradient it starts from, so its tolerance is relative to the largest entry of that.
    torchdiffeq iterates over this when the backward pass begins, after :meth:`receive` has been called.
    """

    def __init__(self, atol: float, parameters: int) -> None:
        self.atol = atol
        self.parameters = parameters
        self.scale = 1.0

    def receive(self, gradient: Tensor | None) -> None:
        if gradient is None:  # what was computed from the states has no gradient: there will be no backward pass
            return
        if torch.is_grad_enabled():
            raise ArgumentError(
                "The adjoint has first derivatives only, and create_graph=True asks for more: "
                "solve with gradient='backprop'."
            )
        largest = float(gradient.abs().max())
        self.scale = largest if 0 < largest < math.inf else 1.0

    def __iter__(self) -> Iterator[float]:
        yield self.atol
        yield self.atol
        yield from [self.atol * self.scale] * (1 + self.parameters)


def _row_norm(job: Job) -> Callable[[Tensor], Tensor]:
    """The maximum over rows of the root mean square of each, over the coordinates that the error_mask names."""
    mask = getattr(job.process, "error_mask", None)
    counted = None
    if mask is not None:
        counted = torch.broadcast_to(mask.to(job.x0.device) != 0, job.x0.shape[1:]).flatten().nonzero().flatten()

    # Without grad: the size of a step is a choice, but torchdiffeq would differentiate that of the first.
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
