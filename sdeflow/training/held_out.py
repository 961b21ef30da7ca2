"""How a model does on data that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from sdeflow.errors import ArgumentError, SolveError
from sdeflow.training.batches import Batch, as_rows, parts_of
from sdeflow.training.loaders import generators_of
from sdeflow.training.modes import evaluating
from sdeflow.training.randomness import Purpose, key, seed_torch

__all__ = ["CRITERIA", "HeldOut"]


def log_prob(model: Any, x: Tensor, solver: dict[str, Any], condition: dict[str, Any]) -> Tensor:
    condition.pop("x0", None)  # the flow finds the base points itself
    value: Tensor = model.log_prob(x, solver=solver, **condition)
    return value


def negative_loss(model: Any, x: Tensor, solver: dict[str, Any], condition: dict[str, Any]) -> Tensor:
    value: Tensor = -model.loss(x, reduction="none", **condition)
    return value


CRITERIA: dict[str, Callable[[Any, Tensor, dict[str, Any], dict[str, Any]], Tensor]] = {
    "log_prob": log_prob,
    "loss": negative_loss,
}


class HeldOut:
    """The mean of a criterion over held-out data, larger is better, by the same random numbers each time.

    Arguments:
        data: Tensors, or a ``torch.utils.data`` data set or loader.
        criterion: ``"log_prob"``, or ``"loss"`` (its negative) for models without a likelihood.
        solver: Options of the flow, for ``"log_prob"``.
        size: Rows that are evaluated together.
        seed: Of the criterion's random numbers.
        arguments: From a batch to the arguments of the loss.
    """

    def __init__(
        self,
        data: Any,
        names: Sequence[str | None],
        criterion: str,
        solver: dict[str, Any],
        size: int,
        seed: int,
        arguments: Callable[[Batch], dict[str, Any]],
    ) -> None:
        self.names, self.criterion, self.arguments = names, CRITERIA[criterion], arguments
        self.size, self.key = size, key(seed, Purpose.HELD_OUT, 0)
        self.solver = {"seed": self.key, **solver} if criterion == "log_prob" else solver
        self.loader = data
        if not isinstance(data, DataLoader):
            if not isinstance(data, Dataset):
                data = TensorDataset(*as_rows(data, names))
            self.loader = DataLoader(data, batch_size=size)

    def batches(self) -> Iterator[Batch]:
        for batch in self.loader:
            yield parts_of(batch, self.names)

    def first(self, rows: int) -> Iterator[Batch]:
        """Some rows of the first batch."""
        for batch in islice(self.batches(), 1):
            yield tuple(part[:rows] if part.ndim else part for part in batch)

    def evaluate(self, model: nn.Module, device: torch.device, rows: int | None = None) -> tuple[float, float]:
        """(mean, standard error), of all rows or of the first ones; a flow that cannot be solved has a likelihood of −∞."""
        seed_torch(self.key, device)
        for generator in generators_of(self.loader):
            generator.manual_seed(self.key)
        values = []
        try:
            with evaluating(model), torch.no_grad():
                for batch in self.batches() if rows is None else self.first(rows):
                    arguments = self.arguments(batch)
                    values.append(self.criterion(model, arguments.pop("x"), self.solver, arguments).double().flatten())
        except SolveError:
            return -math.inf, math.nan
        if not values:
            raise ArgumentError("held_out has no rows; give at least one.")
        every = torch.cat(values)
        stderr = float(every.std() / len(every) ** 0.5) if len(every) > 1 else math.nan
        return float(every.mean()), stderr
