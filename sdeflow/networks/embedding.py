"""Times and conditions as vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sdeflow.errors import ArgumentError

__all__ = ["ConditionEmbedding", "TimeFeatures", "as_times"]


def as_times(t: Tensor | float, x: Tensor) -> Tensor:
    """A time for all rows ``(1,)``, or one for each ``(B,)``, in the dtype of x."""
    return torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1)


class TimeFeatures(nn.Module):
    """(t, sin 2πft, cos 2πft) at frequencies f = ½, 1, 2, …: ``(B, 2·count + 1)`` for times ``(B,)``."""

    def __init__(self, count: int = 4) -> None:
        super().__init__()
        self.size = 2 * count + 1
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(count), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies.to(t.dtype)
        return torch.cat([t[:, None], angles.sin(), angles.cos()], dim=1)


class ConditionEmbedding(nn.Module):
    """A label, a context vector, or both or neither, as one vector ``(B, size)``.

    No label is a class of its own, so that one network serves with and without, as classifier-free guidance needs.

    Arguments:
        size: The length of the vector.
        classes: How many labels there are; 0 for none.
        context: The length of the context vector; 0 for none.
    """

    def __init__(self, size: int, classes: int = 0, context: int = 0) -> None:
        super().__init__()
        self.classes, self.context = classes, context
        self.labels = nn.Embedding(classes + 1, size) if classes else None
        self.contexts = nn.Linear(context, size) if context else None

    def forward(self, rows: int, label: Tensor | None = None, context: Tensor | None = None) -> Tensor | None:
        """The vector, or None where there is nothing to say."""
        total: Tensor | None = None
        if self.labels is not None:
            none = torch.full((rows,), -1, device=self.labels.weight.device)
            chosen = none if label is None else torch.as_tensor(label, device=none.device).long().expand(rows)
            # One label too many would be the row that stands for none, so it is moved on, out of the table.
            rows_of = torch.where(chosen < 0, self.classes, chosen + (chosen >= self.classes))
            try:
                total = self.labels(rows_of)
            except IndexError:
                raise ArgumentError(
                    f"a label is not below {self.classes}, as many classes as the network was made for; labels are "
                    f"0 … {self.classes - 1}, and −1 for none."
                ) from None
        elif label is not None:
            raise ArgumentError("the network was given a label but knows no classes; make it with classes=….")
        if self.contexts is not None and context is not None:
            said = self.contexts(context.expand(rows, self.context))
            total = said if total is None else total + said
        elif context is not None:
            raise ArgumentError("the network was given a context but none was announced; make it with context=….")
        return total
