"""Profiles of a real landscape, from matplotlib's sample data: functions of one variable."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.extras import require

__all__ = ["terrain"]


def terrain(length: int = 64, *, stride: int = 16, dtype: torch.dtype | None = None) -> Tensor:
    """Windows of the elevation along 344 lines across the Jacksboro fault in Tennessee, ``(n, 1, length)``.

    A window has mean 0, and all of them together deviation 1: the shape of the ground, and not how high it lies.
    Neighbouring lines and overlapping windows are alike, so hold out lines, not windows: they come line by line.

    Arguments:
        length: Points of a window, of the 403 on a line, about 80 metres apart.
        stride: Points from the start of a window to that of the next.
        dtype: torch's default dtype if None.

    Raises:
        ArgumentError: A line has no such window.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> sf.data.terrain(64).shape  # 344 lines of 22 windows
        torch.Size([7568, 1, 64])
    """
    cbook = require("matplotlib.cbook", extra="plot", purpose="sdeflow.data.terrain()")
    with cbook.get_sample_data("jacksboro_fault_dem.npz") as archive:
        lines = torch.as_tensor(archive["elevation"], dtype=torch.float64)
    for name, value in (("length", length), ("stride", stride)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= lines.shape[1]:
            raise ArgumentError(
                f"{name}={value!r}: give a whole number from 1 to {lines.shape[1]}, the points of a line."
            )
    if length < 2:
        raise ArgumentError("length=1: a window of one point less its mean is 0; give at least 2.")
    windows = lines.unfold(1, length, stride).reshape(-1, 1, length)
    windows = windows - windows.mean(2, keepdim=True)
    return (windows / windows.std()).to(dtype or torch.get_default_dtype())
