"""What solve() is told, checked before anything is computed: each refusal says what was given and what to do."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, SdeflowWarning
from sdeflow.processes.process import Process

__all__ = ["adapts", "check_span", "check_state", "inner_breakpoints", "tolerances"]

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
    if not bool(x0.isfinite().all()):
        raise ArgumentError(
            f"x0 is not finite in {int((~x0.isfinite().flatten(1).all(1)).sum())} of {len(x0)} samples."
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
