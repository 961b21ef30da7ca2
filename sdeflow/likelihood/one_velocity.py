"""A flow has one velocity: a network that draws dropout masks, or takes statistics of its batch, has another in each call."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from sdeflow.errors import SdeflowWarning
from sdeflow.processes.ode import ODE

__all__ = ["warn_unless_one_velocity"]


def warn_unless_one_velocity(ode: ODE) -> None:
    """An SdeflowWarning where a layer of the velocity is random or looks at the batch."""
    for module in _modules(ode):
        if reason := _changes(module):
            warnings.warn(
                f"the velocity contains {type(module).__name__}, which {reason}: what is integrated is no single velocity, so "
                f"its density, and the way back, are those of no flow. Call .eval() on the network first.",
                SdeflowWarning,
                stacklevel=3,
            )
            return


def _changes(module: nn.Module) -> str:
    """How a module's output changes from call to call, or with the batch; empty where it does not."""
    if isinstance(module, _BatchNorm):
        if module.training or module.running_mean is None:
            return "takes the statistics of the batch" + (" in training mode" if module.training else "")
    elif isinstance(module, _DropoutNd):
        if module.training and module.p > 0:
            return "draws a mask in each call in training mode"
    elif isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.training and module.dropout > 0:
        return "draws a dropout mask in each call in training mode"
    return ""


def _modules(ode: ODE) -> Iterator[nn.Module]:
    """The modules that the process holds, and those that its velocity functions mention."""
    for module in ode.modules():
        yield module
        function = getattr(module, "velocity_function", None)
        if inspect.isfunction(function):
            named = inspect.getclosurevars(function)
            for value in (*named.nonlocals.values(), *named.globals.values()):
                yield from _inside(value)
        elif inspect.ismethod(function):
            yield from _inside(function.__self__)


def _inside(value: Any) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield from value.modules()
