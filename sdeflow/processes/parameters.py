"""The parameters of named processes: numbers, tensors that broadcast against the state, or trainable parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sdeflow.errors import ArgumentError

__all__ = ["doubles", "finite_number", "gaussian", "like", "parameter", "plain_number"]


def parameter(process: nn.Module, name: str, value: Any, *, positive: bool = False) -> None:
    """Store a number as it is, a tensor as a buffer (a trainable one as a parameter), and refuse what is not finite."""
    tensor = value.detach() if isinstance(value, Tensor) else None
    if tensor is None:
        try:
            value = float(value)
        except (TypeError, ValueError):
            raise ArgumentError(f"{name}={value!r} is neither a number nor a tensor.") from None
        fine = math.isfinite(value) and (value > 0 or not positive)
    else:
        fine = bool(tensor.isfinite().all()) and (bool((tensor > 0).all()) or not positive)
    if not fine:
        raise ArgumentError(f"{name}={value!r} must be finite{' and positive' if positive else ''}.")
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        process.register_buffer(name, value)
    else:
        setattr(process, name, value)


def finite_number(name: str, value: Any) -> float:
    """One finite number, which a schedule is made of."""
    try:
        number = float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ArgumentError(f"{name}={value!r} is not one finite number.")
    return number


def plain_number(*values: Any) -> bool:
    """Whether all of them are numbers, so that a schedule, which is one curve for all coordinates, exists."""
    return all(isinstance(value, float) for value in values)


def like(value: Any, x: Tensor) -> Tensor:
    """A parameter in the dtype and on the device of the state; a number stays a number, which multiplies faster."""
    return value.to(x) if isinstance(value, Tensor) else value


def doubles(value: Any) -> Tensor:
    """In float64: a tensor where it is, a number on the default device (where ``as_tensor`` would take the tensor too)."""
    return value.to(torch.float64) if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def gaussian(mean: Tensor, deviation: Any) -> Distribution:
    """N(mean, deviation²) with independent coordinates, one event per row of the mean."""
    deviation = torch.as_tensor(deviation, dtype=mean.dtype, device=mean.device).expand_as(mean)
    if not bool((deviation > 0).all()):
        raise ArgumentError("p(x_t | x_s) is a point mass, since t is not after s; ask for a later t.")
    return Independent(Normal(mean, deviation, validate_args=False), mean.ndim - 1, validate_args=False)
