"""Entropic optimal transport between two equal weights, in the logarithm."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from sdeflow.errors import SdeflowWarning

__all__ = ["sinkhorn"]

CHECK_EVERY = 10  # iterations between two looks at the error, each of which waits for the device


@torch.no_grad()
def sinkhorn(cost: Tensor, regularisation: float, *, tolerance: float = 1e-3, max_iterations: int = 2000) -> Tensor:
    r"""The plan π that minimises :math:`\langle\pi, C\rangle + \epsilon\,\mathrm{KL}(\pi \mid u \otimes v)`, u and v uniform.

    Arguments:
        cost: C, with shape ``(n, m)``.
        regularisation: ε > 0, in the units of the cost.
        tolerance: How far the row sums, times n, may be off 1; column sums are exact. (A batch is itself a sample: a
            thousandth more is nothing. Where ε is a hundredth of the cost, each digit takes thousands of rounds.)
        max_iterations: After which it warns and returns what it has.

    Returns:
        log π, float64, ``(n, m)``.

    References:
        Sinkhorn Distances: Lightspeed Computation of Optimal Transport (Cuturi, 2013), https://arxiv.org/abs/1306.0895;
        Stabilized Sparse Scaling Algorithms for Entropy Regularized Transport Problems (Schmitzer, 2019),
        https://arxiv.org/abs/1610.06519

    Example:
        >>> from sdeflow.paths.sinkhorn import sinkhorn
        >>> sinkhorn(torch.tensor([[0.0, 9.0], [9.0, 0.0]]), 1.0).exp()
        tensor([[0.4999, 0.0001],
                [0.0001, 0.4999]], dtype=torch.float64)
    """
    kernel = -cost.to(torch.float64) / regularisation
    rows, columns = cost.shape
    f, g = _round(kernel, kernel.new_zeros(1, columns))
    for _ in range(math.ceil(max_iterations / CHECK_EVERY)):
        plan = (kernel + f + g).exp_()
        error = (rows * plan.sum(1) - 1).abs().max()
        if bool(error <= tolerance):
            break
        # Products with the plan so far take a tenth of the time of sums in the logarithm. A scaling that leaves the range of
        # numbers, as it may where ε is very small, is thrown away.
        u, v = plan.new_ones(rows), plan.new_ones(columns)
        for _ in range(CHECK_EVERY):
            u = 1 / (rows * (plan @ v))
            v = 1 / (columns * (u @ plan))
        ahead = f + u.log()[:, None], g + v.log()
        usable = ahead[0].isfinite().all() & ahead[1].isfinite().all()
        f, g = ahead if bool(usable) else _round(kernel, g)
    else:
        warnings.warn(
            f"Sinkhorn's iteration stopped after {max_iterations} rounds with row sums off by {float(error):.1g}; "
            f"take a greater regularisation than {regularisation:g}.",
            SdeflowWarning,
            stacklevel=2,
        )
    return kernel + f + g


def _round(kernel: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Row sums right, then column sums, in the logarithm."""
    rows, columns = kernel.shape
    f = -math.log(rows) - (kernel + g).logsumexp(1, keepdim=True)
    return f, -math.log(columns) - (kernel + f).logsumexp(0, keepdim=True)
