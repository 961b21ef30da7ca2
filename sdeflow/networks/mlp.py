"""A multilayer perceptron of time and state, for data of few dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError
from sdeflow.networks.embedding import ConditionEmbedding, TimeFeatures, as_times
from sdeflow.processes.together import At, has_hooks, together

__all__ = ["MLP"]


class MLP(nn.Module):
    """A perceptron (t, x) → the shape of x, or ``(B,)``: smooth in both, since its activations are SiLUs.

    Arguments:
        shape: The number of coordinates, or the shape of the events, which are flattened.
        width: Units in a hidden layer.
        depth: Hidden layers.
        classes: The number of labels that ``label=`` takes, int64 ``(B,)``; −1, or no label, is none of them.
        context: The length of the vector that ``context=`` takes, ``(B, context)``.
        time_features: Frequencies that the time is seen at.
        scalar: Whether it has one value a row, as the action of :class:`~sdeflow.networks.Gradient` does.

    Raises:
        ArgumentError: A size is not a positive whole number.

    Example:
        >>> net = sf.networks.MLP(2, width=32, classes=3)
        >>> net(0.5, torch.zeros(4, 2), label=torch.tensor([0, 1, 2, -1])).shape
        torch.Size([4, 2])
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        *,
        width: int = 64,
        depth: int = 3,
        classes: int = 0,
        context: int = 0,
        time_features: int = 4,
        scalar: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dims = math.prod(self.shape)
        if min(dims, width, depth) < 1 or min(classes, context, time_features) < 0:
            raise ArgumentError(f"shape={shape!r}, width={width!r}, depth={depth!r}: give whole numbers ≥ 1.")
        self.scalar = scalar
        self.time = TimeFeatures(time_features)
        self.condition = ConditionEmbedding(width, classes, context)
        self.first = nn.Linear(dims + self.time.size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, 1 if scalar else dims)

    def _at_times(self, times: Tensor, like: Tensor, **condition: Any) -> Sequence[At]:
        features, said = self.time(times), self.condition(len(like), **condition)
        if type(self.first) is not nn.Linear or has_hooks(self.first):
            return [partial(self._seen, one, said) for one in features.split(1)]
        # The first layer is linear: what a time adds to it is the same for all rows.
        of_x, of_time = self.first.weight.split((self.first.in_features - self.time.size, self.time.size), dim=1)
        shifts, of_x = nn.functional.linear(features, of_time, self.first.bias), of_x.t()
        return [partial(self._shifted, shift, of_x, said) for shift in shifts.unbind()]

    @together(_at_times)
    def forward(
        self, t: Tensor | float, x: Tensor, *, label: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        return self._seen(self.time(as_times(t, x)), self.condition(len(x), label, context), x)

    def _seen(self, time: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """The answer at a time that is given by its features, of one for all rows or one for each."""
        return self._behind(self.first(torch.cat([x.flatten(1), time.expand(len(x), -1)], dim=1)), condition, x)

    def _shifted(self, shift: Tensor, of_x: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """The answer at a time that is given by what it adds to the first layer."""
        return self._behind(torch.addmm(shift, x.flatten(1), of_x), condition, x)

    def _behind(self, h: Tensor, condition: Tensor | None, x: Tensor) -> Tensor:
        """What the layers behind the first make of it."""
        if condition is not None:
            h = h + condition
        for layer in self.hidden:
            h = layer(nn.functional.silu(h))
        out: Tensor = self.last(nn.functional.silu(h))
        return out[:, 0] if self.scalar else out.reshape(x.shape)
