"""Kullback–Leibler divergence between Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor

from sdeflow.analysis.metrics.measured import Measured, check_samples
from sdeflow.errors import ArgumentError

__all__ = ["gaussian_kl", "kl_to_gaussian"]


def gaussian_kl(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> Tensor:
    r"""KL(N(m, C) ‖ N(n, S)) in nats.

    .. math:: \tfrac12 \left(\operatorname{tr} S^{-1} C + (n - m)^\top S^{-1} (n - m) - D + \log\det S - \log\det C\right).

    Arguments:
        mean: m with shape ``(…, D)``.
        covariance: C with shape ``(…, D, D)``, positive definite.
        other_mean: n, likewise.
        other_covariance: S, likewise.

    Raises:
        ArgumentError: A covariance is not positive definite.

    Example:
        >>> one = torch.eye(1)
        >>> sf.analysis.metrics.gaussian_kl(torch.ones(1), one, torch.zeros(1), one)
        tensor(0.5000)
    """
    roots = []
    for name, matrix in (("covariance", covariance), ("other_covariance", other_covariance)):
        root, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed.any()):
            raise ArgumentError(f"{name} is not positive definite.")
        roots.append(root)
    own, other = roots
    scaled = torch.linalg.solve_triangular(other, own, upper=False)
    shift = torch.linalg.solve_triangular(other, (other_mean - mean)[..., None], upper=False)
    log_ratio = (other.diagonal(dim1=-2, dim2=-1).log() - own.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    divergence: Tensor = (
        0.5 * (scaled.square().sum((-2, -1)) + shift.square().sum((-2, -1)) - mean.shape[-1]) + log_ratio
    )
    return divergence


def kl_to_gaussian(x: Tensor, mean: Tensor, covariance: Tensor, *, resamples: int = 200, seed: int = 0) -> Measured:
    """KL of the Gaussian with the mean and covariance of samples to a given one, with a bootstrap standard error.

    The estimate is biased upward by about D(D + 3)/4N, which is subtracted.

    Arguments:
        x: Samples with shape ``(N, D)``, N > D + 1.
        mean: Of the given law, ``(D,)``.
        covariance: ``(D, D)``.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ArgumentError: There are too few samples, or a covariance is not positive definite.

    Example:
        >>> x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
        >>> kl = sf.analysis.metrics.kl_to_gaussian(x, torch.ones(2), torch.eye(2))
        >>> abs(kl.value - 1.0) < 4 * kl.stderr
        True
    """
    samples, _ = check_samples(x, x)
    n, dimensions = samples.shape
    if n <= dimensions + 1:
        raise ArgumentError(
            f"{n} samples in {dimensions} dimensions have no covariance matrix of full rank; give more."
        )
    mean, covariance = mean.to(samples), covariance.to(samples)

    def divergence(rows: Tensor) -> Tensor:
        return gaussian_kl(rows.mean(0), torch.cov(rows.mT).reshape(dimensions, dimensions), mean, covariance)

    generator = torch.Generator().manual_seed(seed)
    draws = [
        divergence(samples[torch.randint(n, (n,), generator=generator).to(samples.device)]) for _ in range(resamples)
    ]
    bias = dimensions * (dimensions + 3) / (4 * n)
    return Measured(divergence(samples).item() - bias, stderr=torch.stack(draws).std().item())
