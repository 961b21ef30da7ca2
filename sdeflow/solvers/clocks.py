"""What the clocks of a batch tell the adaptive loop.

A clock knows where it is, where its segment ends, how long a step to try next, and which save time it has passed last. One that
all samples share (:mod:`~sdeflow.solvers.shared_clock`) is numbers, those of each sample (:mod:`~sdeflow.solvers.own_clocks`)
are vectors, and both are on the host: what they do costs no operation on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Saves", "Verdict", "most", "smallest_step"]


class Verdict(NamedTuple):
    """What became of an attempt.

    Attributes:
        accepted: Where it was accepted, ``(n,)``; None where that is everywhere.
        some: Whether it was accepted anywhere.
        stuck: Whether a step that was rejected may have been as short as can be.
        saves: Whether an accepted step has passed a save time.
    """

    accepted: Tensor | None
    some: bool
    stuck: bool
    saves: bool


class Saves(NamedTuple):
    """Save times that a step has passed.

    Attributes:
        save: Which save time it is: a number, or one for each of the rows.
        rows: Which rows of the samples under way have passed it; None for all.
        place: θ, where in the step, broadcasting against their states; None for the end of the step on all of them.
        at_end: Where θ is 1, of the shape of place.
    """

    save: int | Tensor
    rows: Tensor | None
    place: float | Tensor | None
    at_end: Tensor | None = None

    def looking(self) -> Tensor | None:
        """Which rows look into the step; None for all."""
        if self.rows is None or self.at_end is None:
            return self.rows
        return self.rows[~self.at_end.flatten()]


def most(count: int | Tensor) -> int:
    """A count, and of those of all samples the greatest."""
    return int(count.max()) if isinstance(count, Tensor) else count


def smallest_step(times: Sequence[float]) -> float:
    """A step that changes no digit of t is no step."""
    return 4 * torch.finfo(torch.float64).eps * max(abs(times[0]), abs(times[-1]))
