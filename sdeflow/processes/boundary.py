"""Where sdeflow calls a user's function: its time is prepared, its answer is checked.

Inside the library time is a float64 tensor that broadcasts against the state, so that coefficients near a singular end
keep their digits. A user's function is given time in the dtype and on the device of x, still broadcasting, and never
rounded onto an end of the interval that has not been reached: in float32, 1 − 1e-9 would be 1, where a score is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from sdeflow.errors import ArgumentError
from sdeflow.processes.together import At, fields_at
from sdeflow.types import Time, Times

__all__ = [
    "UserField",
    "as_time",
    "check_diffusion",
    "check_field",
    "check_interval",
    "numbers",
    "state_time",
    "times_for",
]


def as_time(t: Time, x: Tensor) -> Tensor:
    """A time as a float64 tensor that broadcasts against x: 0-d, or ``(B, 1, …, 1)`` with one time per row."""
    if not isinstance(t, Tensor):
        return torch.tensor(_number(t), dtype=torch.float64, device=x.device)
    time: Tensor = t
    if time.dtype is not torch.float64 or time.device != x.device:
        time = time.to(x.device, torch.float64)
    if time.ndim == 0 or (time.ndim == x.ndim and time.numel() == len(time) and len(time) in (1, len(x))):
        return time
    if time.numel() == 1:
        return time.reshape(())
    if time.numel() == len(time) == len(x):
        return time.reshape(-1, *[1] * (x.ndim - 1))
    raise ArgumentError(
        f"the time has shape {tuple(t.shape)} for a state of shape {tuple(x.shape)}. "
        f"Give a number, a 0-d tensor, or one time per row with shape ({len(x)},)."
    )


def state_time(t: Time, x: Tensor, interval: tuple[float, float]) -> Tensor:
    """A time in the dtype of x, moved inward by one rounding unit where rounding put it on an end it had not reached."""
    ready = isinstance(t, Tensor) and t.dtype is x.dtype and t.device == x.device
    if ready and (t.ndim == 0 or (t.ndim == x.ndim and t.numel() == len(t) == len(x))):
        prepared: Tensor = t  # the fast path of every solver: it has prepared the times of all its stages together
        return prepared
    if not isinstance(t, Tensor):
        low, high = interval
        number = _number(t)
        if low < number < high and x.dtype is not torch.float64:
            first, last = innermost(interval, x.dtype)
            number = min(max(number, first), last)
        return x.new_full((), number)
    return state_times(as_time(t, x), x.dtype, interval)


def state_times(times: Tensor, dtype: torch.dtype, interval: tuple[float, float]) -> Tensor:
    """:func:`state_time` of float64 times of any shape."""
    if dtype is torch.float64:
        return times.to(dtype)
    rounded = times.to(dtype)
    low, high = interval
    inside = (times > low) & (times < high)
    return torch.where(inside, rounded.clamp(*innermost(interval, dtype)), rounded)


def numbers(v: Tensor) -> Any:
    """A tensor as a list, nested as its axes, by one transfer from its device; None where a derivative goes through it."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(v)
    return None if v.requires_grad or wrapped or forward_ad.unpack_dual(v).tangent is not None else v.tolist()


def _number(t: Any) -> float:
    try:
        return float(t)
    except (TypeError, ValueError):
        raise ArgumentError(f"the time is {t!r}; give a number or a tensor.") from None


def times_for(times: Times, like: Tensor, interval: tuple[float, float]) -> Tensor:
    """:func:`state_time` of many numbers, ``(n,)``: rounded as such, which takes one operation on the device for six."""
    if like.dtype is torch.float64:
        return torch.tensor(times, device=like.device)
    (low, high), (first, last) = interval, innermost(interval, like.dtype)
    inside = [min(max(t, first), last) if low < t < high else t for t in times.tolist()]
    return torch.tensor(inside, dtype=like.dtype, device=like.device)


@lru_cache
def _innermost(interval: tuple[float, float], dtype: torch.dtype) -> tuple[float, float]:
    ends = torch.tensor(interval, dtype=dtype, device="cpu")
    first, last = torch.nextafter(ends, ends.flip(0)).tolist()
    return first, last


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def innermost(interval: tuple[float, float], dtype: torch.dtype) -> tuple[float, float]:
    """The numbers of a dtype next to the ends of an interval, inside it."""
    return _innermost(interval, dtype)  # the compiler warns of a cache that it sees


def rounding_unit(x: Tensor, *times: float) -> float:
    """A step in time that survives rounding to the dtype of x on either clock, and is otherwise nothing."""
    return 4 * torch.finfo(x.dtype).eps * max(map(abs, times))


def check_interval(interval: tuple[float, float]) -> tuple[float, float]:
    """(t0, t1) as floats, t0 < t1, both finite."""
    try:
        start, end = (float(value) for value in interval)
    except (TypeError, ValueError):
        raise ArgumentError(f"interval={interval!r} is not a pair of numbers (t0, t1).") from None
    if not (start < end and abs(start) < float("inf") and abs(end) < float("inf")):
        raise ArgumentError(
            f"interval={interval!r} is empty or not finite; give (t0, t1) with t0 < t1. "
            f"The direction of a process is not in its interval."
        )
    return start, end


def _describe(value: Any) -> str:
    return (
        f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__} {value!r}"
    )


def _in_dtype(name: str, value: Any, x: Tensor) -> Tensor:
    if isinstance(value, (int, float)):
        return x.new_full((), float(value))  # several times faster than torch.tensor
    if not isinstance(value, Tensor):
        raise ArgumentError(f"the {name} returned {_describe(value)}; return a tensor.")
    # Half precision is what autocast returns, and a 0-d tensor is a number: neither says what the state should be.
    if value.ndim == 0 or value.dtype in (torch.float16, torch.bfloat16):
        return value.to(x.dtype)
    raise ArgumentError(
        f"the {name} returned {value.dtype} for a state of {x.dtype}. "
        f"Make them agree: solve with x0.to({value.dtype}), or build the {name} in {x.dtype}."
    )


def check_field(name: str, value: Any, x: Tensor) -> Tensor:
    """A drift, velocity or score: it has the shape and dtype of the state."""
    if not isinstance(value, Tensor) or value.dtype is not x.dtype:
        value = _in_dtype(name, value, x)
    if value.shape != x.shape:
        raise ArgumentError(
            f"the {name} returned {_describe(value)} for a state of shape {tuple(x.shape)}; return the state's shape."
        )
    checked: Tensor = value
    return checked


def check_diffusion(noise: str, value: Any, x: Tensor) -> Tensor:
    """A diffusion: it broadcasts to x, or is ``(B, D, M)`` for general noise."""
    if not isinstance(value, Tensor) or value.dtype is not x.dtype:
        value = _in_dtype("diffusion", value, x)
    if value.ndim == 0 and noise != "general":
        number: Tensor = value
        return number
    if noise == "general":
        if x.ndim != 2:
            raise ArgumentError(
                f"noise='general' needs a state of shape (B, D); this one has shape {tuple(x.shape)}. "
                f"Flatten the event, or use noise='diagonal' or 'scalar', which take any event shape."
            )
        if value.ndim != 3 or value.shape[:2] != x.shape:
            raise ArgumentError(
                f"the diffusion returned {_describe(value)}; with noise='general' and a state of shape "
                f"{tuple(x.shape)} it returns ({x.shape[0]}, {x.shape[1]}, M), one column per Brownian motion."
            )
    elif value.ndim > x.ndim or any(v not in (1, n) for v, n in zip(value.shape[::-1], x.shape[::-1], strict=False)):
        raise ArgumentError(
            f"the diffusion returned {_describe(value)}, which does not broadcast to the state's shape "
            f"{tuple(x.shape)}, as noise={noise!r} needs. A matrix (B, D, M) is noise='general'."
        )
    checked: Tensor = value
    return checked


class UserField(nn.Module):
    """A user's function of (t, x), called with the time it is promised and checked for the shape it promises.

    Arguments:
        function: A function of (t, x); parameters of a module become parameters of this one.
        name: What it is, for error messages.
        interval: The interval of the process it belongs to.
    """

    def __init__(self, function: Callable[..., Any], name: str, interval: tuple[float, float]) -> None:
        super().__init__()
        if not callable(function):
            raise ArgumentError(f"the {name} is {_describe(function)}; give a function of (t, x).")
        self.function = function
        self.name = name
        self.interval = interval
        # A model's score brings E[x_data | x_t] along, which it knows without the detour over the score.
        self.expected_data: Callable[[Time, Tensor], Tensor] | None = getattr(function, "expected_data", None)

    def forward(self, t: Time, x: Tensor) -> Tensor:
        return check_field(self.name, self.function(state_time(t, x, self.interval), x), x)

    def at_times(self, times: Times, like: Tensor) -> Sequence[At]:
        """See :func:`~sdeflow.processes.together.fields_at`."""
        if hasattr(self.function, "at_times"):  # a field of the library's own, which checks and prepares for itself
            return fields_at(self.function, times, like)
        return [partial(self, t) for t in times_for(times, like, self.interval).unbind()]
