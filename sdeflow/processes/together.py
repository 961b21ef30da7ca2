"""A field at many times: what follows from the times alone is worked out for all of them together.

A solver knows the times of all its steps before the first. A field that says how it is asked about many of them, a function of
(times, a state like those to come), gets the chance to prepare them in a few operations on vectors; any other is asked time by
time. A subclass that overrides a method leaves behind how the old one was asked: no answer can come from what was overridden.
A module with hooks is called, as they expect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from sdeflow.types import Times

__all__ = ["At", "doubles_of", "fields_at", "has_hooks", "together"]

At = Callable[[Tensor], Tensor]
"""A field at one time: a function of x."""

Method = TypeVar("Method", bound=Callable[..., Any])


def together(many: Callable[..., Sequence[At]]) -> Callable[[Method], Method]:
    """Mark a method of (*first, t, x, **condition) with what answers at many times, of (*first, times, like, **condition)."""

    def mark(method: Method) -> Method:
        method.at_times = many  # type: ignore[attr-defined]
        return method

    return mark


def fields_at(field: Any, times: Times | Tensor, like: Tensor, *first: Any, **condition: Any) -> Sequence[At]:
    """A field at each of some times, as functions of x.

    Arguments:
        field: A method that was marked, an object with ``at_times(times, like)``, a module whose ``forward`` was
            marked, or any function of (t, x).
        times: Numbers, with shape ``(n,)``; for a network the tensor of them that it is promised.
        like: A state, of the shape, dtype and device of those to come.
        first: What the field is given before the time.
        condition: What it is given besides.

    Example:
        >>> ode = sf.ODE(lambda t, x: t * x)
        >>> early, late = fields_at(ode.velocity, torch.tensor([0.25, 0.5]).double().numpy(), torch.ones(1, 1))
        >>> late(torch.ones(1, 1))
        tensor([[0.5000]])
    """
    method = _method(field)
    many = getattr(method, "at_times", None)
    if many is None:
        return [partial(field, *first, t, **condition) for t in doubles_of(times, like).unbind()]
    owner = getattr(method, "__self__", None)
    fields: Sequence[At] = many(*(() if owner is None else (owner,)), *first, times, like, **condition)
    return fields


def doubles_of(times: Times | Tensor, like: Tensor) -> Tensor:
    """Numbers as a float64 tensor on the device of a state; a tensor as it is."""
    return times if isinstance(times, Tensor) else torch.tensor(times, device=like.device)


def _method(field: Any) -> Any:
    """What a call of a field comes to: of a module its ``forward``, unless it has hooks or something in its place."""
    if not isinstance(field, nn.Module) or hasattr(field, "at_times") or has_hooks(field):
        return field
    forward = field.forward
    return forward if getattr(forward, "__self__", None) is field else field


def has_hooks(module: nn.Module) -> bool:
    """Whether more happens in a call of a module than its ``forward``."""
    own = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(own or _has_any_global_hook())
