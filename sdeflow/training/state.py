"""The state of a run, as named tensors and a record: all that the next step depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sdeflow.errors import ArgumentError

__all__ = ["load_optimiser", "load_weights", "optimiser_state", "weights"]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers; of tied ones the first name stands for all.

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
            found[name] = value.detach()
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
            value.copy_(values[name])


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
