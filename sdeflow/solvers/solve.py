"""solve(): the one way from a process to a solution."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from sdeflow.brownian import Driver
from sdeflow.calculus import all_finite, outside_inference_mode
from sdeflow.errors import ArgumentError, SolveError, choose
from sdeflow.processes.process import Process
from sdeflow.solvers import adaptive, native
from sdeflow.solvers.arguments import (
    adapts,
    check_compile,
    check_extras,
    check_forward_mode,
    check_span,
    check_state,
    check_steps,
    check_vmap,
    events_on_clock,
    field_on_clock,
    inner_breakpoints,
    tolerances,
)
from sdeflow.solvers.backends import run_torchdiffeq, run_torchsde
from sdeflow.solvers.events import Event
from sdeflow.solvers.grid import Grid, as_sequence, fixed_grid, save_times, time_rounding
from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.moving_times import arrived, begun, shifts
from sdeflow.solvers.noise import driver_for
from sdeflow.solvers.registry import choose_method
from sdeflow.solvers.solution import Solution
from sdeflow.solvers.status import Status
from sdeflow.types import Field

__all__ = ["solve"]

ENGINES = {"native": native.run, "adaptive": adaptive.run, "torchsde": run_torchsde, "torchdiffeq": run_torchdiffeq}

GRADIENTS = ("backprop", "checkpoint", "adjoint")
STEPPINGS = ("shared", "per-sample")


@outside_inference_mode
def solve(
    process: Process,
    x0: Tensor,
    t: Sequence[float] | Tensor | None = None,
    *,
    method: str | None = None,
    dt: float | None = None,
    steps: int | Sequence[float] | Tensor | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    first_step: float | None = None,
    min_step: float | None = None,
    stepping: Literal["shared", "per-sample"] = "shared",
    seed: int | None = None,
    brownian: Driver | None = None,
    breakpoints: Sequence[float] | None = None,
    jacobian: Field | None = None,
    event: Event | Field | Sequence[Event | Field] | None = None,
    dense: bool = False,
    gradient: Literal["backprop", "checkpoint", "adjoint"] = "backprop",
    compile: bool = False,
    progress: bool = False,
    max_steps: int = 100_000,
    on_failure: Literal["raise", "return"] = "raise",
    **unknown: Any,
) -> Solution:
    r"""Solve an SDE or an ODE.

    Arguments:
        process: An :class:`~sdeflow.SDE` or :class:`~sdeflow.ODE`.
        x0: The state at the first time, with shape ``(B, *event)``, float32 or float64. The result has its dtype and device.
        t: None for the process's interval in its own direction, (from, to), or the save times. Save times are hit exactly,
            never interpolated for SDEs; the solution of an ODE has derivatives with respect to them. An ODE may be solved
            either way; an SDE runs in its own direction, so t decreases exactly for reversals on the backward clock.
        method: A name of :func:`sdeflow.methods`, or None to choose by the process; ``sol.stats["method"]`` says which.
        dt: The step: each gap between save times is split into ceil(gap/dt) equal steps.
        steps: A number of equal steps, or the grid itself (save times not on it are added).
        rtol: Relative tolerance of adaptive steps. Of rtol and atol, one that is not given is as the other.
        atol: Absolute tolerance. An ODE with no step rule gets tolerances of 1e-5; an SDE needs a rule.
        first_step: The first step of an adaptive solve.
        min_step: The shortest step of an adaptive solve by a native method, in units of t; a sample that would need a shorter
            one ends with ``STEP_TOO_SMALL``. Steps that are cut short to end at a save time or breakpoint may be shorter.
        stepping: ``"shared"``: one step size for the batch, by its worst sample; ``"per-sample"``: every sample on its own
            clock, so that none depends on its batch-mates (``tsit5``, ``dopri5``, ``bosh3``, ``dopri8``).
        seed: For the noise. With it, the global generators are neither read nor changed; without, it is drawn from torch's
            and reported in ``sol.stats["seed"]``. Other steps are another path: to compare methods or step sizes on one
            path, pass one ``brownian=``.
        brownian: A :class:`~sdeflow.BrownianPath` that covers the span (for a decreasing solve, on s = t0 + t1 − t).
        breakpoints: Times at which a coefficient jumps; steps end there.
        jacobian: ∂v/∂x of an ODE for a stiff method, a function of (t, x) with shape ``(B, D, D)``; without, the velocity is
            differentiated.
        event: An :class:`~sdeflow.Event` or several: zeros of functions of (t, x), shape ``(B,)``, to be found on the way of
            an ODE with adaptive steps. A function by itself ends a sample where it is zero; ``sol.events`` has times, states.
        dense: Whether to keep the solution between the save times, ``sol(t)`` (adaptive native methods).
        gradient: ``"backprop"`` through the steps; ``"checkpoint"``, the same gradients with memory for √n of n steps, at the
            price of taking each step twice (native methods); or the wrapped libraries' ``"adjoint"``.
        compile: Whether steps are to be fused by ``torch.compile``: several native ones of fixed size in one graph, or all
            adaptive ones of ``tsit5``, ``dopri5``, ``bosh3`` and ``dopri8`` in one loop, which has no gradients. The first
            solve of a process and shape waits for the compiler, ``sol.stats["compile_seconds"]``; later ones find its work
            done.
        progress: Whether to show a progress bar.
        max_steps: The greatest number of attempted steps of an adaptive solve.
        on_failure: ``"raise"`` a SolveError that carries what was computed, or ``"return"`` it with its status.

    Returns:
        A :class:`~sdeflow.solvers.Solution`: ``sol.t``, ``sol.x`` with shape ``(T, B, *event)``, ``sol.final``, ``sol.stats``.

    Raises:
        ArgumentError: An argument is wrong; the message says what was expected.
        MethodError: The method does not fit the process; the message names those that do.
        SolveError: Some samples did not come to the end; it carries the partial Solution.

    Example:
        >>> sde = sf.processes.OrnsteinUhlenbeck(theta=1.0, mean=0.0, sigma=0.5)
        >>> sol = sf.solve(sde, torch.ones(1000, 2), t=[0.0, 0.5, 1.0], dt=0.01, seed=0)
        >>> sol.x.shape, sol.stats["method"]
        (torch.Size([3, 1000, 2]), 'shark')
    """
    if unknown:
        raise _unknown(unknown)
    if not isinstance(process, Process):
        raise ArgumentError(f"the process is {type(process).__name__}; give an sf.SDE or an sf.ODE.")
    choose("gradient", gradient, GRADIENTS)
    choose("stepping", stepping, STEPPINGS)
    choose("on_failure", on_failure, ("raise", "return"))
    check_state(x0)
    check_vmap(dt is None and steps is None, on_failure)
    check_forward_mode(dt is None and steps is None, x0)
    times = save_times(t, process.interval, process.direction)
    check_span(process, times)
    shifted = shifts(t, process, event is not None)
    if shifted is not None:
        x0 = begun(process, times[0], x0, shifted[0])
    runner, forward = _forward(process, times)

    adaptive_steps = adapts(process, dt, steps, rtol, atol)
    chosen = choose_method(method, runner, adaptive_steps, stepping, gradient)
    check_compile(compile, chosen, gradient, adaptive_steps, event is not None or dense is True)
    check_extras(chosen, event=event is not None, dense=dense, jacobian=jacobian is not None)
    jumps = inner_breakpoints(process, times, forward, breakpoints)
    grid = None if adaptive_steps else _grid(process, t, forward, dt, steps, jumps, runner is not process)
    rtol, atol = tolerances(rtol, atol, x0) if adaptive_steps else (0.0, 0.0)
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ArgumentError(f"max_steps={max_steps!r} is not a whole number ≥ 1.")
    check_steps(chosen, adaptive_steps, first_step, min_step)

    driver = driver_for(runner, x0, forward, grid, chosen, seed, brownian)
    began = time.perf_counter()
    with _bar(chosen.name, forward) if progress else nullcontext(_nothing) as show:
        # A native method's steps adapt in the loop that is there for that.
        engine = "adaptive" if grid is None and chosen.engine == "native" else chosen.engine
        outcome = ENGINES[engine](
            Job(
                process=runner,
                x0=x0,
                times=tuple(forward),
                method=chosen,
                grid=grid,
                brownian=driver,
                rtol=rtol,
                atol=atol,
                first_step=first_step,
                min_step=min_step or 0.0,
                breakpoints=jumps,
                max_steps=max_steps,
                stepping=stepping,
                gradient=gradient,
                owner=process,
                compile=compile,
                jacobian=field_on_clock("jacobian", jacobian, process, runner, sign=-1),
                events=events_on_clock(event, process, runner),
                dense=dense,
                progress=show,
                caller_time=float if runner is process else runner.reflect,
            )
        )
    if shifted is not None:
        outcome.x = arrived(process, times, outcome.x, shifted)
    stats = {
        "method": chosen.name,
        "nfe_drift": outcome.counter.drift,
        "nfe_diffusion": outcome.counter.diffusion,
        "accepted": outcome.accepted,
        "rejected": outcome.rejected,
        "seconds": time.perf_counter() - began,
        **({} if driver is None else {"seed": driver.seed}),
        **outcome.extra,
    }
    return _finish(outcome, times, stats, on_failure)


def _unknown(options: dict[str, Any]) -> ArgumentError:
    import inspect

    from sdeflow.errors import nearest

    names = [name for name in inspect.signature(solve).parameters if name != "unknown"]
    name = next(iter(options))
    return ArgumentError(f"solve() has no option {name!r}. {nearest(name, names)}")


def _nothing(now: float) -> None:
    """Nobody is looking."""


@contextmanager
def _bar(name: str, times: Sequence[float]) -> Iterator[Callable[[float], None]]:
    """A progress bar, and what is to be called with the time reached."""
    start, span = times[0], times[-1] - times[0]
    with tqdm(total=1.0, desc=name, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}") as bar:

        def show(now: float) -> None:
            bar.update((now - start) / span - bar.n)

        yield show


def _forward(process: Process, times: list[float]) -> tuple[Process, list[float]]:
    """The process on a clock on which the solve runs forward, and the save times on it."""
    if times[-1] > times[0]:
        return process, times
    flipped = process.flip()
    total = process.interval[0] + process.interval[1]
    return flipped, [total - value for value in times]


def _grid(
    process: Process,
    t: Any,
    forward: list[float],
    dt: Any,
    steps: Any,
    breakpoints: tuple[float, ...],
    decreasing: bool,
) -> Grid:
    rounding = max(time_rounding(t), time_rounding(steps))
    steps = as_sequence(steps)
    if decreasing and isinstance(steps, Sequence) and not isinstance(steps, str):
        steps = [process.reflect(float(value)) for value in steps]
    return fixed_grid(forward, dt, steps, breakpoints, rounding, process.reflect if decreasing else float)


def _finish(outcome: Outcome, times: list[float], stats: dict[str, Any], on_failure: str) -> Solution:
    x = outcome.x
    reached = torch.tensor(times[: len(x)], dtype=torch.float64, device=x.device)

    def solution(status: Tensor) -> Solution:
        return Solution(reached, x, status, stats, outcome.events, outcome.dense)

    ended = outcome.status if isinstance(outcome.status, Tensor) else int(outcome.status)  # each sample, or all
    all_came = not isinstance(ended, Tensor) and ended == Status.SUCCESS
    if on_failure == "raise" and all_came and all_finite(x):  # most solves, with nothing to be found out of each sample
        return solution(torch.full((x.shape[1],), int(Status.SUCCESS), device=x.device))
    finite = x.detach().isfinite().flatten(2).all(2).all(0)
    found = solution(
        torch.where(finite if all_came else finite | (ended != Status.SUCCESS), ended, int(Status.NON_FINITE))
    )
    if on_failure == "raise" and not bool((finite if all_came else found.success).all()):
        message = outcome.message or (
            f"{int((~finite).sum())} of {len(finite)} samples became infinite or NaN. Take smaller steps, "
            f"or look at the drift and diffusion there."
        )
        raise SolveError(
            f"{message} What was computed is in the error's .solution; on_failure='return' returns it.", found
        )
    return found
