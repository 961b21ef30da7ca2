"""What solve() is told, checked before anything is computed: each refusal says what was given and what to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sdeflow.calculus import all_finite
from sdeflow.errors import ArgumentError, MethodError, SdeflowWarning
from sdeflow.processes.boundary import state_time
from sdeflow.processes.process import Process
from sdeflow.solvers.events import Event, as_events
from sdeflow.solvers.methods import Method
from sdeflow.types import Field

__all__ = [
    "adapts",
    "check_compile",
    "check_extras",
    "check_span",
    "check_state",
    "check_steps",
    "check_vmap",
    "events_on_clock",
    "field_on_clock",
    "inner_breakpoints",
    "tolerances",
]

TOLERANCE = 1e-5


def check_state(x0: Any) -> None:
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
    if not _inside("Vmap") and not all_finite(x0):
        raise ArgumentError(
            f"x0 is not finite in {int((~x0.isfinite().flatten(1).all(1)).sum())} of {len(x0)} samples."
        )


def _inside(transform: str) -> bool:
    """Whether this is inside of a transform of torch.func."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == getattr(torch._C._functorch.TransformType, transform) for level in stack)


def check_forward_mode(adaptive: bool, x0: Tensor) -> None:
    """Whether derivatives in forward mode can be taken along, if they are."""
    if adaptive and (_inside("Jvp") or forward_ad.unpack_dual(x0).tangent is not None):
        raise ArgumentError(
            "this solve is differentiated in forward mode (torch.func.jvp, jacfwd or dual tensors), which adaptive steps are "
            "not. Give steps= or dt=, or differentiate in reverse mode (torch.func.vjp, jacrev, autograd.grad)."
        )


def check_vmap(adaptive: bool, on_failure: str) -> None:
    """Whether a solve can be done inside of torch.func.vmap, if it is."""
    if _inside("Vmap") and (adaptive or on_failure == "raise"):
        raise ArgumentError(
            "this solve is inside of torch.func.vmap, where nothing may be decided by a value, neither a step size nor whether "
            "to raise. Give steps= or dt= and on_failure='return'; or put what you map over into the batch, x0 of shape "
            "(B, *event), where stepping='per-sample' gives each sample steps of its own."
        )


def check_steps(method: Method, adaptive: bool, first_step: Any, min_step: Any) -> None:
    """The first step and the shortest."""
    for name, value in (("first_step", first_step), ("min_step", min_step)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 < value < math.inf):
            raise ArgumentError(f"{name}={value!r} is not a positive number; give one, or None.")
    if min_step is None:
        return
    if not adaptive:
        raise ArgumentError(
            "min_step= is for steps that adapt, and these are of fixed size; give rtol=, or leave it away."
        )
    if method.engine not in ("adaptive", "native"):
        raise MethodError(
            f"min_step= is for native methods, and the steps of method={method.name!r} are chosen elsewhere. Leave it away, or "
            f"take a native one: tsit5, dopri5, dopri8, bosh3, rodas5p."
        )
    if first_step is not None and first_step < min_step:
        raise ArgumentError(f"first_step={first_step:g} is shorter than min_step={min_step:g}; give one that is not.")


def check_compile(compile: Any, method: Method, gradient: str, adaptive: bool, looks_inside: bool) -> None:
    """Whether steps can be compiled: our own, unless how many evaluations they take depends on the state.

    Arguments:
        compile: What was given.
        method: The method.
        gradient: The mode of ``gradient=``.
        adaptive: Whether it adapts its steps.
        looks_inside: Whether events or dense output are wanted.
    """
    if not isinstance(compile, bool):
        raise ArgumentError(f"compile={compile!r} is neither True nor False.")
    if not compile:
        return
    explicit = method.engine == "adaptive" and method.name != "rodas5p"
    if not explicit and (adaptive or method.engine != "native" or method.drift_evaluations is None):
        raise MethodError(
            f"compile=True fuses native steps of fixed size, and the adaptive ones of tsit5, dopri5, bosh3 and dopri8 on ODEs; "
            f"method={method.name!r} has none that are alike{' where it adapts them' if adaptive else ''}. Choose another "
            f"method, or compile the drift and diffusion themselves with torch.compile."
        )
    if gradient == "checkpoint":
        raise ArgumentError(
            "compile=True and gradient='checkpoint' are given together; checkpointing takes steps again one by one. Give one."
        )
    if looks_inside:
        raise ArgumentError(
            "compile=True keeps nothing of the inside of its steps, and so has neither events nor dense output. Leave it away."
        )


def check_span(process: Process, times: list[float]) -> None:
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
            f"t runs from {times[0]:g} to {times[-1]:g}, but {process.title} is defined on "
            f"[{start:g}, {end:g}] only; stay inside, or make the process with another interval=."
        )


def adapts(process: Process, dt: Any, steps: Any, rtol: Any, atol: Any) -> bool:
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


def tolerances(rtol: Any, atol: Any, x0: Tensor) -> tuple[float, float]:
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
        warnings.warn(
            f"rtol={values[0]:g} is below what {x0.dtype} can resolve ({smallest:.1g}); use x0.double().",
            SdeflowWarning,
            stacklevel=3,
        )
    return values[0], values[1]


def inner_breakpoints(
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


def field_on_clock(name: str, field: Any, process: Process, runner: Process, sign: int = 1) -> Field | None:
    """A user's function of (t, x) on the clock of the solve, with the time that users are promised."""
    if field is None:
        return None
    if not callable(field):
        raise ArgumentError(f"{name}={field!r} is no function; give one of (t, x).")
    if runner is process:
        return lambda t, x: field(state_time(t, x, process.interval), x)
    return lambda t, x: sign * field(state_time(process.reflect(t), x, process.interval), x)


def events_on_clock(event: Any, process: Process, runner: Process) -> tuple[Event, ...]:
    """The events, their functions on the clock of the solve."""
    moved = ((one, field_on_clock("event", one.function, process, runner)) for one in as_events(event))
    return tuple(replace(one, function=function) for one, function in moved if function is not None)


def check_extras(method: Method, *, event: bool, dense: bool, jacobian: bool) -> None:
    """Whether the method has what is asked for besides the solution."""
    if not isinstance(dense, bool):
        raise ArgumentError(f"dense={dense!r} is neither True nor False.")
    for name, wanted in (("event=", event), ("dense=True", dense)):
        if wanted and method.engine != "adaptive":
            raise MethodError(
                f"{name} needs the polynomial through each step, and method={method.name!r} has none. Take an ODE with "
                f"adaptive steps (rtol=) and a native method: tsit5, dopri5, dopri8, bosh3, rodas5p."
            )
    if jacobian and method.name != "rodas5p":
        raise MethodError(f"jacobian= is for stiff methods (rodas5p), and method={method.name!r} makes no use of it.")
