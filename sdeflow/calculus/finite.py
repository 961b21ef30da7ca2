"""Whether all values are finite, by one pass over them."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["all_finite"]


def all_finite(x: Tensor) -> bool:
    """Whether every value is finite: their sum is, and only where it is not, as where it overflows, are they looked at.

    Example:
        >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([1.0, torch.inf, -torch.inf]))
        (True, False)
    """
    return math.isfinite(x.detach().sum().item()) or bool(x.isfinite().all())
