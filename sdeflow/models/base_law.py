"""The base of a model: checked when the model is made, and taken along where the model goes."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform

from sdeflow.errors import ArgumentError

__all__ = ["check_base", "moved"]

Law = TypeVar("Law", bound=Distribution | Transform)


def check_base(base: Any) -> None:
    """One law of whole events, or an ArgumentError."""
    if not isinstance(base, Distribution):
        raise ArgumentError(f"the base is {type(base).__name__}; give a torch.distributions.Distribution.")
    if not base.event_shape or base.batch_shape:
        raise ArgumentError(
            f"the base has batch_shape {tuple(base.batch_shape)} and event_shape {tuple(base.event_shape)}; one law of "
            f"whole events is needed: torch.distributions.Independent(base, {len(base.batch_shape) or 1})."
        )


def moved(law: Law, fn: Callable[[Tensor], Tensor]) -> Law:
    """A copy of a law, or of a transform in it, with a function applied to its tensors: to move them, or to change their dtype.

    States are float32 or float64, so a law stays in its own dtype where a network goes to half precision.

    Example:
        >>> moved(sf.paths.LinearPath().base((2,)), lambda v: v.double()).mean
        tensor([0., 0.], dtype=torch.float64)
    """
    if hasattr(law, "remade"):  # a law of ours, which computes in float64 whatever it is given
        remade: Law = law.remade(partial(_moved, fn=fn))
        return remade
    new = copy(law)
    new.__dict__.update((name, _moved(value, fn)) for name, value in vars(law).items())
    return new


def _moved(value: Any, fn: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        result = fn(value)
        half = value.is_floating_point() and result.dtype not in (torch.float32, torch.float64)
        return result.to(value.dtype) if half else result
    if isinstance(value, (Distribution, Transform)):
        return moved(value, fn)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields") and type(value) is not torch.Size:
        return type(value)(_moved(part, fn) for part in value)
    return value
