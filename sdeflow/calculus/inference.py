"""Out of inference mode: derivatives are part of the answer here, and inference mode drops them without a word."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

__all__ = ["in_inference_mode", "outside_inference_mode"]

Function = TypeVar("Function", bound=Callable[..., Any])


def _thaw(value: Any) -> Any:
    """An inference tensor as an ordinary one."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def in_inference_mode() -> bool:
    """Whether inference mode is on. Never while compiling: what is compiled was called from outside, and cannot ask."""
    return not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()


def outside_inference_mode(function: Function) -> Function:
    """The function, run without gradients but outside inference mode where it is called inside it.

    ∇·Σ, the Itô correction and the divergence of a flow are derivatives. ``torch.inference_mode()`` switches autograd off
    in a way that ``torch.enable_grad()`` does not undo, so they would all come out as zero.

    Example:
        >>> square = outside_inference_mode(lambda x: torch.is_inference_mode_enabled())
        >>> with torch.inference_mode():
        ...     square(torch.ones(1))
        False
    """

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not in_inference_mode():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return function(*map(_thaw, args), **{name: _thaw(value) for name, value in kwargs.items()})

    return cast(Function, call)
