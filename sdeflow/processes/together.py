"""A field at many times: what follows from the times alone is worked out for all of them together.

A solver knows the times of all its steps before the first. A field that says how it is asked about many of them, a function of
(times, dtype), gets the chance to prepare them in a few operations on vectors; any other is asked time by time. A subclass that
overrides a method leaves behind how the old one was asked: no answer can come from what was overridden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["At", "combined", "fields_at", "together"]

At = Callable[[Tensor], Tensor]
"""A field at one time: a function of x."""

Method = TypeVar("Method", bound=Callable[..., Any])


def together(many: Callable[..., Sequence[At]]) -> Callable[[Method], Method]:
    """Mark a method of (*first, t, x, **condition) with what answers at many times, of (*first, times, dtype, **condition)."""

    def mark(method: Method) -> Method:
        method.at_times = many  # type: ignore[attr-defined]
        return method

    return mark


def fields_at(field: Any, times: Tensor, dtype: torch.dtype, *first: Any, **condition: Any) -> Sequence[At]:
    """A field at each of some times, as functions of x.

    Arguments:
        field: A method that was marked, an object with ``at_times(times, dtype)``, or any function of (t, x).
        times: float64, with shape ``(n,)``, on the device of the states.
        dtype: The dtype of the states.
        first: What the field is given before the time.
        condition: What it is given besides.

    Example:
        >>> ode = sf.ODE(lambda t, x: t * x)
        >>> early, late = fields_at(ode.velocity, torch.tensor([0.25, 0.5], dtype=torch.float64), torch.float32)
        >>> late(torch.ones(1, 1))
        tensor([[0.5000]])
    """
    many = getattr(field, "at_times", None)
    if many is None:
        return [partial(field, *first, t, **condition) for t in times.unbind()]
    owner = getattr(field, "__self__", None)
    fields: Sequence[At] = many(*(() if owner is None else (owner,)), *first, times, dtype, **condition)
    return fields


def combined(of_x: Tensor, of_value: Tensor, fields: Sequence[At], dtype: torch.dtype) -> Sequence[At]:
    """p x + q f(x) at each of some times, for numbers p and q of each."""

    def one(p: Tensor, q: Tensor, field: At) -> At:
        return lambda x: torch.addcmul(p * x, q, field(x))

    columns = (v.to(dtype).expand(len(fields)).unbind() for v in (of_x, of_value))
    return [one(p, q, field) for p, q, field in zip(*columns, fields, strict=True)]
