"""The types that the whole package speaks in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Field", "Time", "Times"]

Time: TypeAlias = Any
"""A time as a caller gives it: a number, a 0-d tensor, ``(B,)``, or already broadcasting against the state.

The guard around every coefficient turns it into a tensor before the body sees it; hence Any and not a union.
"""

Times: TypeAlias = NDArray[np.float64]
"""The times of a solve ``(n,)``: numbers, which are known before the first step and have no derivatives."""

Field: TypeAlias = Callable[[Time, Tensor], Tensor]
"""A function of (t, x): a drift, a diffusion, a score, a velocity, a network."""
