"""The likelihood of held-out samples under a model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdeflow.analysis.metrics.measured import Measured
from sdeflow.errors import ArgumentError

__all__ = ["negative_log_likelihood"]


def negative_log_likelihood(log_prob: Tensor | Any, x: Tensor | None = None) -> Measured:
    """−E log p(x) in nats, with the standard error of the mean over samples.

    Arguments:
        log_prob: log p of each sample with shape ``(N,)``; or a distribution (such as a :class:`~sdeflow.Flow`) of which x
            are samples.
        x: Samples with shape ``(N, *event)``, for a distribution.

    Raises:
        ArgumentError: There are fewer than two values, or one is infinite or NaN.

    Example:
        >>> law = sf.laws.GaussianMixture([1.0], [[0.0, 0.0]], [1.0])
        >>> nll = sf.analysis.metrics.negative_log_likelihood(law, law.draw(1000, seed=0))
        >>> abs(nll.value - 2.8379) < 4 * nll.stderr  # the entropy, log 2πe
        True
    """
    if x is not None:
        law: Any = log_prob
        log_prob = law.log_prob(x)
    if not isinstance(log_prob, Tensor) or log_prob.ndim != 1 or len(log_prob) < 2:
        given = tuple(log_prob.shape) if isinstance(log_prob, Tensor) else type(log_prob).__name__
        raise ArgumentError(
            f"log_prob is {given}; give a tensor with shape (N,), or a distribution and its samples x=."
        )
    values = log_prob.detach().double()
    if not bool(values.isfinite().all()):
        raise ArgumentError(f"{int((~values.isfinite()).sum())} of {len(values)} values are infinite or NaN.")
    return Measured(-values.mean().item(), stderr=values.std().item() / len(values) ** 0.5)
