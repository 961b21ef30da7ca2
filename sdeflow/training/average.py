"""The exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sdeflow.training.state import plain

__all__ = ["Average"]


class Average:
    r"""w̄ ← d w̄ + (1 − d) w after each step, of the trainable parameters.

    In step k the decay is min(d, k/(9 + k)): early averages forget the start.

    Arguments:
        model: Whose parameters are averaged.
        decay: d in [0, 1); 0 is the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names, self.parameters = zip(
            *((plain(name), value) for name, value in model.named_parameters() if value.requires_grad), strict=True
        )
        self.values = [value.detach().clone() for value in self.parameters]

    def update(self, step: int) -> None:
        """Take in the weights after step 1, 2, …"""
        decay = min(self.decay, step / (9 + step)) if self.decay else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(self.values, self.parameters, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside, and its own ones afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the averages and the weights of the model; nothing is copied."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.data, value.data = value.data, parameter.data

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.values, strict=True))
