"""How a solve ended, sample by sample."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Status"]


class Status(IntEnum):
    """How the solve of one sample ended; ``sol.status`` holds one for each.

    Example:
        >>> sf.Status(0)
        <Status.SUCCESS: 0>
    """

    SUCCESS = 0
    MAX_STEPS = 1
    NON_FINITE = 2
    STEP_TOO_SMALL = 3
    EVENT = 4
    NOT_CONVERGED = 5
