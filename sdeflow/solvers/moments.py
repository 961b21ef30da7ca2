"""The coefficients of a process at the times of a step, where they can be asked for with those of many steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sdeflow.processes.process import Process
from sdeflow.processes.sde import SDE
from sdeflow.processes.together import At, fields_at
from sdeflow.types import Times

__all__ = ["Moment", "moments"]


class Moment(NamedTuple):
    """What comes to a step in place of a time.

    Attributes:
        drift: The drift at that time, a function of x.
        diffusion: The diffusion; None for an ODE.
    """

    drift: At
    diffusion: At | None


def moments(process: Process, times: Sequence[Times], x: Tensor) -> Sequence[tuple[Moment, ...]] | None:
    """The moments of each step, from vectors of the times of its places; None where the drift is asked time by time."""
    if getattr(process.drift, "at_times", None) is None:
        return None
    every, count = np.concatenate(times), len(times[0])
    drifts = fields_at(process.drift, every, x)
    diffusions = fields_at(process.diffusion, every, x) if isinstance(process, SDE) else repeat(None)
    each = list(map(Moment, drifts, diffusions))
    return list(zip(*(each[k : k + count] for k in range(0, len(each), count)), strict=True))
