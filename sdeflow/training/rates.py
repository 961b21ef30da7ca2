"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["SCHEDULES", "rate"]

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}


def rate(schedule: str, step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate in step 0, 1, …: a linear rise over ``warmup`` steps, and then the schedule.

    Example:
        >>> [round(rate("cosine", step, 8, 4), 2) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / max(1, steps - warmup))
