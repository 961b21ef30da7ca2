"""Distances between samples by pairs of points: energy distance, maximum mean discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.analysis.metrics.measured import Measured, check_samples, distances, permutation_p_value
from sdeflow.errors import ArgumentError

__all__ = ["energy_distance", "mmd"]


def energy_distance(x: Tensor, y: Tensor, *, permutations: int = 199, seed: int = 0) -> Measured:
    r"""The energy distance :math:`2E|X - Y| - E|X - X'| - E|Y - Y'|`, unbiased, with a permutation p-value.

    It is 0 for one law and positive for two; the estimate may be negative.

    Arguments:
        x: Samples with shape ``(N, *event)``.
        y: Samples with shape ``(M, *event)``.
        permutations: Of the test; 0 for none.
        seed: Of the permutations.

    Raises:
        ArgumentError: The samples do not fit each other, are not finite, or are more than 10,000.

    References:
        Energy statistics: a class of statistics based on distances (Székely & Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> sf.analysis.metrics.energy_distance(x, x + 1.0).p_value
        0.005
    """
    a, b = check_samples(x, y, pooled=True)
    return _of_pairs(-distances(torch.cat([a, b])), len(a), permutations, seed)


def mmd(x: Tensor, y: Tensor, *, bandwidth: float | None = None, permutations: int = 199, seed: int = 0) -> Measured:
    r"""The squared maximum mean discrepancy with a Gaussian kernel, unbiased, with a permutation p-value.

    .. math:: E\,k(X, X') + E\,k(Y, Y') - 2 E\,k(X, Y), \qquad k(x, y) = \exp(-|x - y|^2 / 2 \ell^2).

    Arguments:
        x: Samples with shape ``(N, *event)``.
        y: Samples with shape ``(M, *event)``.
        bandwidth: ℓ > 0; by default the median distance between pooled points.
        permutations: Of the test; 0 for none.
        seed: Of the permutations.

    Raises:
        ArgumentError: As :func:`energy_distance`; or the bandwidth is not positive.

    References:
        A kernel two-sample test (Gretton et al., 2012), https://jmlr.org/papers/v13/gretton12a.html

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> sf.analysis.metrics.mmd(x, 2.0 * x).p_value
        0.005
    """
    a, b = check_samples(x, y, pooled=True)
    pooled = torch.cat([a, b])
    apart = distances(pooled)
    if bandwidth is None:
        upper = torch.triu_indices(len(pooled), len(pooled), 1, device=pooled.device)
        bandwidth = apart[upper[0], upper[1]].median().item()
    if not bandwidth > 0:
        raise ArgumentError(f"the bandwidth is {bandwidth!r}, not a positive number; give one.")
    return _of_pairs((-0.5 * (apart / bandwidth).square()).exp(), len(a), permutations, seed)


def _of_pairs(similarity: Tensor, n: int, permutations: int, seed: int) -> Measured:
    """E s(X, X') + E s(Y, Y') − 2 E s(X, Y) over different points, and its permutation p-value."""
    m = len(similarity) - n
    similarity = similarity - torch.diag(similarity.diagonal())
    row_sums = similarity.sum(1)
    total = row_sums.sum()

    def statistic(order: Tensor) -> float:
        first = order[:n].to(similarity.device)
        member = torch.zeros(n + m, dtype=similarity.dtype, device=similarity.device).index_fill_(0, first, 1.0)
        within = member @ similarity @ member
        across = member @ row_sums - within
        rest = total - within - 2 * across
        return float(within / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m))

    observed = statistic(torch.arange(n + m))
    return Measured(observed, p_value=permutation_p_value(observed, statistic, n + m, permutations, seed))
