"""A figure and how far it is to be trusted; permutation tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["Measured", "check_samples", "distances", "permutation_p_value"]

MOST_POINTS = 10_000  # of both samples together, where all distances are kept: 0.8 GB


@dataclass(frozen=True)
class Measured:
    """A figure with its standard error, its p-value, or both.

    Attributes:
        value: The figure.
        stderr: Its standard error, where it is a mean; else None.
        p_value: Of the hypothesis that both samples are of one law, by permutation; None where there is no such test or it
            was not asked for.
    """

    value: float
    stderr: float | None = None
    p_value: float | None = None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        error = "" if self.stderr is None else f" ± {self.stderr:.2g}"
        return f"{self.value:.4g}{error}" + ("" if self.p_value is None else f" (p = {self.p_value:.3g})")


def check_samples(x: Tensor, y: Tensor, *, pooled: bool = False) -> tuple[Tensor, Tensor]:
    """Two samples as float64 matrices ``(N, D)`` and ``(M, D)``, or a sentence that says what is wrong with them."""
    for name, sample in (("x", x), ("y", y)):
        if not isinstance(sample, Tensor) or sample.ndim < 1 or len(sample) < 2:
            given = tuple(sample.shape) if isinstance(sample, Tensor) else type(sample).__name__
            raise ArgumentError(f"{name} is {given}; give at least two samples, a tensor with shape (N, *event).")
        if not bool(sample.isfinite().all()):
            raise ArgumentError(f"{name} has values that are infinite or NaN; leave out the samples that failed.")
    if x.shape[1:] != y.shape[1:]:
        raise ArgumentError(f"x has events of shape {tuple(x.shape[1:])} and y of shape {tuple(y.shape[1:])}.")
    if pooled and len(x) + len(y) > MOST_POINTS:
        raise ArgumentError(
            f"there are {len(x) + len(y)} points, and all their distances are kept; take subsets of {MOST_POINTS // 2} each."
        )
    return x.detach().double().reshape(len(x), -1), y.detach().double().reshape(len(y), -1)


def distances(points: Tensor) -> Tensor:
    """|x_i − x_j|, not by way of inner products, which would leave 1e-8 between a point and itself."""
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def permutation_p_value(
    observed: float, statistic: Callable[[Tensor], float], points: int, permutations: int, seed: int
) -> float | None:
    """How often a random division of the pooled points is as far apart: (1 + those at least as far) / (1 + all).

    Under one law the p-value is below any level with at most that probability, whatever the law.

    Arguments:
        observed: The statistic of the division as it is.
        statistic: Of a division, given as an order of the points, ``(N + M,)``: the first N are x.
        points: N + M.
        permutations: How many, 0 for no test.
        seed: Of the permutations.
    """
    if permutations < 0:
        raise ArgumentError(f"permutations={permutations!r} is negative; give 0 for no test.")
    if permutations == 0:
        return None
    generator = torch.Generator().manual_seed(seed)
    slack = 1e-12 * abs(observed)
    as_far = sum(
        statistic(torch.randperm(points, generator=generator)) >= observed - slack for _ in range(permutations)
    )
    return (1 + as_far) / (1 + permutations)
