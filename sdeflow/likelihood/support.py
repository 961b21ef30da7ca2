"""The log-density of a base, which may be on a part of the space only."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

__all__ = ["log_density"]


def log_density(base: Distribution, x: Tensor) -> Tensor:
    """log p(x), −∞ outside the support; torch refuses the whole batch there.

    Example:
        >>> uniform = torch.distributions.Independent(torch.distributions.Uniform(torch.zeros(2), 1.0), 1)
        >>> log_density(uniform, torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
        tensor([0., -inf])
    """
    try:
        return base.log_prob(x)
    except ValueError:
        inside = base.support.check(x)  # type: ignore[union-attr]
        if bool(inside.all()):
            raise
        with torch.random.fork_rng():  # some point of the support: its density is not looked at
            there = base.sample()
        event = inside.reshape(*inside.shape, *[1] * len(base.event_shape))
        return base.log_prob(torch.where(event, x, there)).masked_fill(~inside, -math.inf)
