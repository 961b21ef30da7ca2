"""Bits per dimension: a likelihood on the scale of a lossless code for the data's integer levels."""

from __future__ import annotations

import math

from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["bits_per_dim"]


def bits_per_dim(
    log_prob: Tensor, dims: int, levels: int = 256, data_range: float | tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    r"""Bits per dimension, :math:`-\frac{\log p}{D\ln 2} + \log_2\frac{\text{levels}}{\text{range}}`.

    The second term turns a density of real numbers into one of integer levels; it is right for data that were dequantised:
    level k became k plus a uniform number in [0, 1), times the width of a bin.

    Arguments:
        log_prob: log p of the dequantised data, any shape.
        dims: D, the number of coordinates.
        levels: The number of levels: 256 for 8-bit images, 17 for the digits of scikit-learn.
        data_range: Where the levels lie: (low, high) or high − low, which is levels × the width of a bin. 256 levels add 8
            bits on [0, 1] and 7 on [−1, 1].

    Returns:
        Bits per dimension, with the shape of ``log_prob``.

    References:
        A note on the evaluation of generative models (Theis et al., 2016), https://arxiv.org/abs/1511.01844

    Example:
        >>> sf.bits_per_dim(torch.tensor(0.0), dims=3072, levels=256, data_range=(-1.0, 1.0))
        tensor(7.)
    """
    width = data_range[1] - data_range[0] if isinstance(data_range, tuple) else float(data_range)
    if dims < 1 or levels < 1 or not 0 < width < math.inf:
        raise ArgumentError(
            f"dims={dims!r}, levels={levels!r}, data_range={data_range!r}: dims and levels are at least 1, "
            f"and the range is (low, high) with low < high."
        )
    return -log_prob / (dims * math.log(2)) + math.log2(levels / width)
