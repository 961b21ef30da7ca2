"""Kernel densities: a real data set, smoothed, is a mixture whose score and likelihood are known exactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError
from sdeflow.laws.gaussian_mixture import GaussianMixture
from sdeflow.laws.posterior import CHUNK_ELEMENTS

__all__ = ["kernel_density"]


def kernel_density(data: Tensor, bandwidth: float | None = None) -> GaussianMixture:
    r"""The mixture :math:`\frac1n\sum_i \mathcal N(x_i, h^2 I)` around the points of a data set.

    Arguments:
        data: ``(n, *event)``.
        bandwidth: h > 0, in the units of the data. None chooses the h of the greatest leave-one-out likelihood,
            :math:`\sum_i \log \frac{1}{n-1}\sum_{j\neq i} \mathcal N(x_i; x_j, h^2 I)`.

    Raises:
        ArgumentError: The bandwidth is not positive; or it is to be chosen and there are fewer than 3 points, or
            every point has a duplicate, so that the likelihood has no maximum.

    References:
        On the Choice of Smoothing Parameters for Parzen Estimators of Probability Density Functions
        (Duin, 1976), https://doi.org/10.1109/TC.1976.1674577

    Example:
        >>> law = sf.laws.kernel_density(torch.tensor([[0.0], [1.0], [3.0]]), bandwidth=0.5)
        >>> law.mean
        tensor([1.3333])
    """
    if not isinstance(data, Tensor) or data.ndim == 0 or not len(data) or not data.is_floating_point():
        raise ArgumentError(f"the data are {_describe(data)}; give a floating-point tensor (n, *event).")
    if bandwidth is None:
        bandwidth = leave_one_out_bandwidth(data)
    elif not (isinstance(bandwidth, (int, float)) and 0 < bandwidth < float("inf")):
        raise ArgumentError(
            f"bandwidth={bandwidth!r}: give a positive number in the units of the data, or None to have one chosen."
        )
    count = len(data)
    return GaussianMixture(torch.ones(count), data, torch.full((count,), bandwidth**2, dtype=torch.float64))


def leave_one_out_bandwidth(data: Tensor) -> float:
    """The h of greatest leave-one-out likelihood, by expectation–maximisation.

    h² ← Σ_ij r_ij |x_i − x_j|²/(nD) with r_ij ∝ exp(−|x_i − x_j|²/2h²), j ≠ i, starting from the mean distance to the
    nearest neighbour. Every step raises the likelihood.
    """
    points = data.detach().to(torch.float64).reshape(len(data), -1)
    points = points - points.mean(0)
    count, size = points.shape
    if count < 3 or not bool(points.isfinite().all()):
        raise ArgumentError(
            f"to choose a bandwidth takes at least 3 points, all finite; these are {count}. Give bandwidth=."
        )
    norms = points.square().sum(1)

    def distances(start: int, rows: int) -> Tensor:
        """Squared distances of some points to all, their own put aside."""
        block = slice(start, start + rows)
        squares = (norms[block, None] + norms - 2 * points[block] @ points.mT).clamp_min(0)
        squares[torch.arange(len(squares)), torch.arange(start, start + len(squares))] = float("inf")
        return squares

    rows = max(1, CHUNK_ELEMENTS // count)
    starts = range(0, count, rows)
    nearest = torch.cat([distances(start, rows).amin(1) for start in starts])
    resolution = 1e-14 * norms.max()
    if bool((nearest <= resolution).all()):
        raise ArgumentError(
            "every point has a duplicate, so the leave-one-out likelihood grows without end as h → 0; give bandwidth=."
        )
    variance = nearest.mean() / size
    for _ in range(500):
        total = points.new_zeros(())
        for start in starts:
            squares = distances(start, rows)
            weights = (squares / (-2 * variance)).softmax(1)
            total = total + (weights * squares.nan_to_num(posinf=0.0)).sum()
        previous, variance = variance, total / (count * size)
        if abs(float(variance / previous) - 1) < 1e-7:
            break
    return float(variance.sqrt())


def _describe(data: Any) -> str:
    return f"a {data.dtype} tensor of shape {tuple(data.shape)}" if isinstance(data, Tensor) else repr(data)
