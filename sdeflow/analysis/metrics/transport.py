"""Distances between samples by moving one onto the other: exact and sliced Wasserstein distances."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.analysis.metrics.measured import Measured, check_samples, distances, permutation_p_value
from sdeflow.errors import ArgumentError
from sdeflow.extras import require

__all__ = ["sliced_wasserstein", "wasserstein"]


def wasserstein(x: Tensor, y: Tensor, order: int = 2, *, permutations: int = 0, seed: int = 0) -> Measured:
    r"""The Wasserstein distance W_p between two samples, exact, with a permutation p-value if asked for.

    On the line it is the distance of sorted samples (quantile functions, where the sizes differ); in more dimensions that of
    the best assignment, :math:`\min_\pi (\tfrac1N \sum_i |x_i - y_{\pi(i)}|^p)^{1/p}`, for samples of one size.
    Between two samples of *one* law it is not 0, but falls as N^(−1/D) in D > 2 dimensions: compare with a second sample of
    the law, or ask for the p-value.

    Arguments:
        x: Samples with shape ``(N, *event)``.
        y: Samples with shape ``(M, *event)``, M = N unless the event has one coordinate.
        order: p, 1 or 2.
        permutations: Of the test, each of which costs as much as the distance.
        seed: Of the permutations.

    Raises:
        ArgumentError: The samples do not fit each other, or the order is neither 1 nor 2.
        MissingExtraError: There is more than one dimension, and scipy is not installed.

    References:
        Computational Optimal Transport, ch. 2 (Peyré & Cuturi, 2019), https://arxiv.org/abs/1803.00567

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [2.0]])
        >>> print(sf.analysis.metrics.wasserstein(x, x.flip(0) + 0.5))
        0.5
    """
    if order not in (1, 2):
        raise ArgumentError(f"order={order!r} is neither 1 nor 2.")
    line = x.ndim < 2 or x[0].numel() == 1
    a, b = check_samples(x, y, pooled=not line)
    pooled, n = torch.cat([a, b]), len(a)
    if line:
        points = pooled[:, 0]

        def statistic(division: Tensor) -> float:
            division = division.to(points.device)
            return float(_on_the_line(points[division[:n]], points[division[n:]], order) ** (1 / order))

    else:
        if len(a) != len(b):
            raise ArgumentError(
                f"x has {len(a)} samples and y has {len(b)}; in more than one dimension give as many of each."
            )
        assign = require("scipy.optimize", extra="analysis", purpose="wasserstein").linear_sum_assignment
        costs = (distances(pooled) ** order).cpu().numpy()

        def statistic(division: Tensor) -> float:
            block = costs[division[:n].numpy()][:, division[n:].numpy()]
            rows, columns = assign(block)
            return float(block[rows, columns].mean() ** (1 / order))

    observed = statistic(torch.arange(len(pooled)))
    return Measured(observed, p_value=permutation_p_value(observed, statistic, len(pooled), permutations, seed))


def sliced_wasserstein(
    x: Tensor, y: Tensor, order: int = 2, *, projections: int = 128, permutations: int = 0, seed: int = 0
) -> Measured:
    r"""The sliced Wasserstein distance :math:`(E_\theta W_p^p(\theta \cdot X, \theta \cdot Y))^{1/p}` over directions θ.

    Arguments:
        x: Samples with shape ``(N, *event)``.
        y: Samples with shape ``(M, *event)``.
        order: p, 1 or 2.
        projections: Random directions; the standard error is of their mean, carried over to the root.
        permutations: Of the test, on the same directions; 0 for none.
        seed: Of directions and permutations.

    Raises:
        ArgumentError: The samples do not fit each other, the order is neither 1 nor 2, or there are fewer than 2 projections.

    References:
        Sliced and Radon Wasserstein barycenters of measures (Bonneel et al., 2015), https://doi.org/10.1007/s10851-014-0506-3

    Example:
        >>> x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
        >>> shifted = sf.analysis.metrics.sliced_wasserstein(
        ...     x, x + 3.0
        ... )  # |shift| = √27, and √(27/3) along one direction
        >>> abs(shifted.value - 3.0) < 4 * shifted.stderr
        True
    """
    if order not in (1, 2):
        raise ArgumentError(f"order={order!r} is neither 1 nor 2.")
    if projections < 2:
        raise ArgumentError(f"projections={projections!r} have no standard error; give at least 2.")
    a, b = check_samples(x, y)
    pooled, n = torch.cat([a, b]), len(a)
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(pooled.shape[1], projections, generator=generator, dtype=torch.float64).to(pooled.device)
    lines = pooled @ (directions / directions.norm(dim=0))

    def each(division: Tensor) -> Tensor:
        division = division.to(lines.device)
        return _on_the_line(lines[division[:n]], lines[division[n:]], order)

    powers = each(torch.arange(len(pooled)))
    observed = powers.mean().item() ** (1 / order)
    spread = powers.std().item() / projections**0.5
    return Measured(
        observed,
        stderr=spread / (order * observed ** (order - 1)) if observed else 0.0,
        p_value=permutation_p_value(
            observed, lambda d: each(d).mean().item() ** (1 / order), len(pooled), permutations, seed
        ),
    )


def _on_the_line(x: Tensor, y: Tensor, order: int) -> Tensor:
    """W_p^p of samples along the first axis, ``(N, …)`` and ``(M, …)``: the integral over levels of |F⁻¹ − G⁻¹|^p."""
    x, y = x.sort(0).values, y.sort(0).values
    n, m = len(x), len(y)
    if n == m:
        return (x - y).abs().pow(order).mean(0)
    # The quantile functions are steps, constant between the levels i/N and j/M.
    levels = torch.cat([torch.arange(1, n + 1, device=x.device) * m, torch.arange(1, m + 1, device=x.device) * n])
    levels = levels.unique()
    widths = torch.diff(levels, prepend=levels.new_zeros(1)).to(x.dtype) / (n * m)
    inside = levels - 1  # an integer below each level, in the same step
    apart = (x[inside // m] - y[inside // n]).abs().pow(order)
    integral: Tensor = torch.tensordot(widths, apart, dims=1)
    return integral
