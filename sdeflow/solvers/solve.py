"""solve(): the one way from a process to a solution."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from sdeflow.brownian import BrownianPath, Driver, fresh_seed
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning, SolveError, choose
from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.solvers import adaptive, native
from sdeflow.solvers.backends import run_torchdiffeq, run_torchsde
from sdeflow.solvers.grid import Grid, as_sequence, fixed_grid, save_times
from sdeflow.solvers.job import Job, Outcome
from sdeflow.solvers.methods import Method, get_method, methods
from sdeflow.solvers.solution import Solution
from sdeflow.solvers.status import Status

__all__ = ["solve"]

ENGINES = {"native": native.run, "adaptive": adaptive.run, "torchsde": run_torchsde, "torchdiffeq": run_torchdiffeq}

TOLERANCE = 1e-5
GRADIENTS = ("backprop", "adjoint")
STEPPINGS = ("shared", "per-sample")


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
    stepping: Literal["shared", "per-sample"] = "shared",
    seed: int | None = None,
    brownian: Driver | None = None,
    breakpoints: Sequence[float] | None = None,
    gradient: Literal["backprop", "adjoint"] = "backprop",
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
            never interpolated for SDEs. An ODE may be solved either way; an SDE runs in its own direction, so t decreases
            exactly for reversals on the backward clock.
        method: A name of :func:`sdeflow.methods`, or None to choose by the process; ``sol.stats["method"]`` says which.
        dt: The step: each gap between save times is split into ceil(gap/dt) equal steps.
        steps: A number of equal steps, or the grid itself (save times not on it are added).
        rtol: Relative tolerance of adaptive steps. Of rtol and atol, one that is not given is as the other.
        atol: Absolute tolerance. An ODE with no step rule gets tolerances of 1e-5; an SDE needs a rule.
        first_step: The first step of an adaptive solve.
        stepping: ``"shared"``: one step size for the batch, by its worst sample; ``"per-sample"``: every sample on its own
            clock, so that none depends on its batch-mates (``tsit5``, ``dopri5``, ``bosh3``, ``dopri8``).
        seed: For the noise. With it, the global generators are neither read nor changed; without, it is drawn from torch's
            and reported in ``sol.stats["seed"]``. Other steps are another path: to compare methods or step sizes on one
            path, pass one ``brownian=``.
        brownian: A :class:`~sdeflow.BrownianPath` that covers the span (for a decreasing solve, on s = t0 + t1 − t).
        breakpoints: Times at which a coefficient jumps; steps end there.
        gradient: ``"backprop"`` through the steps, or the wrapped libraries' ``"adjoint"``.
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
        (torch.Size([3, 1000, 2]), 'euler-maruyama')
    """
    if unknown:
        raise _unknown(unknown)
    if not isinstance(process, Process):
        raise ArgumentError(f"the process is {type(process).__name__}; give an sf.SDE or an sf.ODE.")
    choose("gradient", gradient, GRADIENTS)
    choose("stepping", stepping, STEPPINGS)
    choose("on_failure", on_failure, ("raise", "return"))
    _check_state(x0)
    times = save_times(t, process.interval, process.direction)
    _check_span(process, times)
    runner, forward = _forward(process, times)

    adapts = _step_rule(process, dt, steps, rtol, atol)
    chosen = _method(method, runner, adapts, stepping, gradient)
    grid = None if adapts else _grid(process, times, forward, dt, steps, breakpoints)
    rtol, atol = _tolerances(rtol, atol, x0) if adapts else (0.0, 0.0)
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ArgumentError(f"max_steps={max_steps!r} is not a whole number ≥ 1.")
    if first_step is not None and not (isinstance(first_step, (int, float)) and 0 < first_step < math.inf):
        raise ArgumentError(f"first_step={first_step!r} is not a positive number; give one, or None.")

    driver = _driver(runner, x0, forward, grid, chosen, seed, brownian)
    began = time.perf_counter()
    with tqdm(
        total=1.0,
        disable=not progress,
        desc=chosen.name,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
    ) as bar:
        start, span = forward[0], forward[-1] - forward[0]
        outcome = ENGINES[chosen.engine](
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
                breakpoints=_breakpoints(process, times, forward, breakpoints),
                max_steps=max_steps,
                stepping=stepping,
                gradient=gradient,
                progress=lambda now: bar.update((now - start) / span - bar.n) if progress else None,
                caller_time=float if runner is process else runner.reflect,
            )
        )
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


def _check_state(x0: Any) -> None:
    if not isinstance(x0, Tensor):
        raise ArgumentError(f"x0 is {type(x0).__name__}; give a tensor of shape (B, *event).")
    if x0.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(
            f"x0 has dtype {x0.dtype}; states are float32 or float64: x0.float(). "
            f"(Networks in half precision work under autocast.)"
        )
    if x0.ndim < 2:
        raise ArgumentError(
            f"x0 has shape {tuple(x0.shape)}; the batch is the first axis, and there is at least one more: "
            f"(B, *event). One sample of D numbers is x0[None], B samples of one number are x0[:, None]."
        )
    if x0.numel() == 0:
        raise ArgumentError(f"x0 has shape {tuple(x0.shape)}, which is empty; give at least one sample.")
    if not bool(x0.isfinite().all()):
        raise ArgumentError(
            f"x0 is not finite in {int((~x0.isfinite().flatten(1).all(1)).sum())} of {len(x0)} samples."
        )


def _check_span(process: Process, times: list[float]) -> None:
    increasing = times[-1] > times[0]
    if process.noise != "none" and increasing != (process.direction > 0):
        if process.direction > 0:
            raise ArgumentError(
                f"t runs from {times[0]:g} down to {times[-1]:g}, but this SDE runs forward. "
                f"What you want is its reversal: process.reverse(score, clock='backward')."
            )
        raise ArgumentError(
            f"t runs from {times[0]:g} up to {times[-1]:g}, but this SDE is on the backward clock: "
            f"give decreasing times, or use reverse(score, clock='flipped')."
        )
    start, end = process.interval
    slack = 1e-9 * (end - start)
    if process.confined and not (min(times) >= start - slack and max(times) <= end + slack):
        raise ArgumentError(
            f"t runs from {times[0]:g} to {times[-1]:g}, but {type(process).__name__} is defined on "
            f"[{start:g}, {end:g}] only; stay inside, or make the process with another interval=."
        )


def _forward(process: Process, times: list[float]) -> tuple[Process, list[float]]:
    """The process on a clock on which the solve runs forward, and the save times on it."""
    if times[-1] > times[0]:
        return process, times
    flipped = process.flip()
    total = process.interval[0] + process.interval[1]
    return flipped, [total - value for value in times]


def _step_rule(process: Process, dt: Any, steps: Any, rtol: Any, atol: Any) -> bool:
    """Whether steps are adaptive: exactly one of dt, steps and tolerances is given."""
    given = [
        name
        for name, there in (
            ("dt", dt is not None),
            ("steps", steps is not None),
            ("rtol/atol", not (rtol is atol is None)),
        )
        if there
    ]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} are given together; give exactly one of dt, steps, or rtol/atol.")
    if not given and process.noise != "none":
        raise ArgumentError(
            "an SDE needs a step rule: dt=0.01, steps=100, or rtol=/atol= with a method that adapts its steps."
        )
    return not given or given == ["rtol/atol"]


def _tolerances(rtol: Any, atol: Any, x0: Tensor) -> tuple[float, float]:
    pair = [rtol, atol] if not (rtol is atol is None) else [TOLERANCE, TOLERANCE]
    values = []
    for name, value in (("rtol", pair[0]), ("atol", pair[1])):
        value = pair[1] if value is None and name == "rtol" else pair[0] if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ArgumentError(f"{name}={value!r} is not a number ≥ 0; give one such as 1e-5.")
        values.append(float(value))
    if values[0] == values[1] == 0:
        raise ArgumentError("rtol and atol are both 0; no step can meet that.")
    smallest = 4 * torch.finfo(x0.dtype).eps
    if 0 < values[0] < smallest and values[1] < smallest:
        import warnings

        warnings.warn(
            f"rtol={values[0]:g} is below what {x0.dtype} can resolve ({smallest:.1g}); use x0.double().",
            SdeflowWarning,
            stacklevel=3,
        )
    return values[0], values[1]


def _method(name: str | None, process: Process, adaptive: bool, stepping: str, gradient: str) -> Method:
    """The method that was asked for, if it can do this; the default, if none was."""
    chosen = get_method(_default(process, adaptive, gradient) if name is None else name)
    wanted: dict[str, Any] = {"adaptive": adaptive, "stepping": stepping, "gradient": gradient}
    if misfit := chosen.misfit(process, **wanted):
        fitting = methods().fitting(process, **wanted)
        raise MethodError(
            f"method={chosen.name!r} cannot solve this: {misfit}. "
            f"Methods that can{' with adaptive steps' if adaptive else ''}: {', '.join(fitting) or 'none'}."
        )
    return chosen


def _default(process: Process, adaptive: bool, gradient: str) -> str:
    if process.noise == "none":
        native, wrapped = ("tsit5", "torchdiffeq:dopri5") if adaptive else ("rk4", "torchdiffeq:rk4")
        return native if gradient == "backprop" else wrapped
    ito = process.calculus == "ito"
    if adaptive:
        return "torchsde:srk" if ito and (process.additive or process.noise != "general") else "torchsde:midpoint"
    if gradient == "adjoint":
        return "torchsde:euler" if ito else "torchsde:reversible_heun"
    return "euler-maruyama" if ito else "heun"


def _breakpoints(
    process: Process, times: list[float], forward: list[float], breakpoints: Sequence[float] | None
) -> tuple[float, ...]:
    """The breakpoints inside the span, increasing on the forward clock."""
    if breakpoints is None:
        return ()
    try:
        values = [float(value) for value in breakpoints]
    except (TypeError, ValueError):
        raise ArgumentError(f"breakpoints={breakpoints!r} is not a sequence of times.") from None
    if times[-1] < times[0]:
        values = [process.interval[0] + process.interval[1] - value for value in values]
    return tuple(sorted(value for value in set(values) if forward[0] < value < forward[-1]))


def _grid(
    process: Process, times: list[float], forward: list[float], dt: Any, steps: Any, breakpoints: Sequence[float] | None
) -> Grid:
    steps = as_sequence(steps)
    if steps is not None and not isinstance(steps, (int, float, str)) and times[-1] < times[0]:
        steps = [process.interval[0] + process.interval[1] - float(value) for value in steps]
    return fixed_grid(forward, dt, steps, _breakpoints(process, times, forward, breakpoints))


def _driver(
    process: Process,
    x0: Tensor,
    times: list[float],
    grid: Grid | None,
    method: Method,
    seed: int | None,
    brownian: Driver | None,
) -> Driver | None:
    """What drives an SDE on the forward clock: the caller's path if it fits, else one whose cells are the solve's steps."""
    if not isinstance(process, SDE):
        if brownian is not None:
            raise ArgumentError("brownian= is given, but an ODE has no noise.")
        return None
    _check_additive(process, times[0], x0)
    shape = _noise_shape(process, times[0], x0)
    levy = bool({"H", "A"} & set(method.needs))
    if brownian is None:
        cells: Any = 1 if grid is None else grid.steps if grid.uniform else grid.nodes.tolist()
        return BrownianPath(
            shape,
            times[0],
            times[-1],
            seed=fresh_seed(seed),
            cells=cells,
            levy="space-time" if levy else "none",
            dtype=x0.dtype,
            device=x0.device,
        )
    if seed is not None:
        raise ArgumentError("seed and brownian are given together; a path carries its own seed.")
    if not isinstance(brownian, Driver):
        raise ArgumentError(f"brownian is {type(brownian).__name__}; give an sf.BrownianPath.")
    slack = 1e-9 * (times[-1] - times[0])
    if brownian.t0 > times[0] + slack or brownian.t1 < times[-1] - slack:
        raise ArgumentError(
            f"the path covers [{brownian.t0:g}, {brownian.t1:g}], but the solve needs [{times[0]:g}, {times[-1]:g}] "
            f"(for decreasing t, on the flipped clock)."
        )
    if tuple(brownian.shape) != tuple(shape) or brownian.dtype != x0.dtype or brownian.device != x0.device:
        raise ArgumentError(
            f"the path has shape {tuple(brownian.shape)}, {brownian.dtype} on {brownian.device}; with "
            f"noise={process.noise!r} this solve needs {tuple(shape)}, {x0.dtype} on {x0.device}."
        )
    if levy and not brownian.has_levy:
        raise ArgumentError(f"method={method.name!r} needs space-time Lévy area; make the path with levy='space-time'.")
    return brownian


def _noise_shape(process: SDE, t: float, x0: Tensor) -> tuple[int, ...]:
    if process.noise == "diagonal":
        return tuple(x0.shape)
    if process.noise == "scalar":
        return (len(x0), *[1] * (x0.ndim - 1))
    with torch.no_grad():  # the number of columns is only known from the diffusion itself
        return (len(x0), process.diffusion(t, x0).shape[2])


def _check_additive(process: SDE, t: float, x0: Tensor) -> None:
    """A diffusion that was declared additive and depends on x would silently lose its correction terms."""
    root: Any = process
    while hasattr(root, "original"):
        root = root.original
    if not root.additive or type(root).precise_time:  # the library's own are what they say
        return
    with torch.no_grad():
        here, there = root.diffusion(t, x0), root.diffusion(t, x0 + 1)
    if not torch.equal(here, there):
        raise ArgumentError("the process says additive=True, but its diffusion changes with x; drop additive=True.")


def _finish(outcome: Outcome, times: list[float], stats: dict[str, Any], on_failure: str) -> Solution:
    x = outcome.x
    status = torch.as_tensor(outcome.status, device=x.device).expand(x.shape[1])
    finite = x.detach().isfinite().flatten(2).all(2).all(0)
    status = torch.where(finite | (status != Status.SUCCESS), status, int(Status.NON_FINITE))
    reached = torch.tensor(times[: len(x)], dtype=torch.float64, device=x.device)
    solution = Solution(reached, x, status, stats)
    if on_failure == "raise" and not bool((status == Status.SUCCESS).all()):
        message = outcome.message or (
            f"{int((~finite).sum())} of {len(finite)} samples became infinite or NaN. Take smaller steps, "
            f"or look at the drift and diffusion there."
        )
        raise SolveError(
            f"{message} What was computed is in the error's .solution; on_failure='return' returns it.", solution
        )
    return solution
