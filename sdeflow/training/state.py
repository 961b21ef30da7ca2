"""The state of a run, as named tensors and a record: all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sdeflow.errors import ArgumentError

__all__ = ["load_optimiser", "load_weights", "optimiser_state", "plain", "put", "weights"]

COMPILED = "_orig_mod."  # what torch.compile puts before the names of what it wraps


def plain(name: str) -> str:
    """The name that a weight has in the model that is not compiled: both are the same model."""
    return name.replace(COMPILED, "")


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers, by their plain names; of tied ones the first name stands for all.

    Raises:
        ArgumentError: The state of the model holds something that is no tensor.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"{name} in the state of the model is {type(value).__name__}; only tensors are written."
            )
        if id(value) not in seen:
            seen.add(id(value))
            found[plain(name)] = value.detach()
    return found


def load_weights(model: nn.Module, values: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model.

    Raises:
        ArgumentError: They belong to another model.
    """
    own = weights(model)
    for name in [*own, *values]:
        here, there = own.get(name), values.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype is not there.dtype:
            raise ArgumentError(
                f"the weights in {source} are those of another model: {name} is {_describe(there)} there and "
                f"{_describe(here)} in the model that was given."
            )
    with torch.no_grad():
        for name, value in own.items():
            put(value, values[name], name)


def put(value: Tensor, new: Tensor, name: str = "a buffer") -> None:
    """Copy numbers into a tensor; where an expanded one has many elements in one place, that place is written once.

    Raises:
        ArgumentError: The elements of one place are to be different numbers.
    """
    for axis, stride in enumerate(value.stride()):
        if stride == 0 and value.shape[axis] > 1:
            one = new.narrow(axis, 0, 1)
            if not bool((one.eq(new) | new.ne(new)).all()):
                raise ArgumentError(
                    f"{name} is expanded along axis {axis}, one number for all, and is to be different ones; give it memory "
                    f"of its own: .clone()."
                )
            value, new = value.narrow(axis, 0, 1), one
    value.copy_(new)


def _describe(value: Tensor | None) -> str:
    return "missing" if value is None else f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def optimiser_state(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors named ``number.name``, a record of the numbers and of the groups)."""
    state = optimiser.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{name}"] = value
            else:
                numbers.setdefault(str(number), {})[name] = value
    return tensors, {"numbers": numbers, "groups": state["param_groups"]}


def load_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Put a state back that :func:`optimiser_state` took apart."""
    state: dict[int, dict[str, Any]] = {int(number): dict(entry) for number, entry in record["numbers"].items()}
    for place, value in tensors.items():
        number, _, name = place.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in record["groups"]
    ]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
