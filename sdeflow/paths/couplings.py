"""Couplings: which base point belongs to which data point of a batch.

A coupling leaves the data where they are and chooses a base point for each, so labels and contexts need not move: they
stay with their x1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from sdeflow.errors import ArgumentError, choose
from sdeflow.paths.assignment import assign
from sdeflow.paths.draws import Draws, Purpose
from sdeflow.paths.sinkhorn import sinkhorn
from sdeflow.processes.parameters import finite_number

__all__ = ["Coupling", "Entropic", "Given", "Independent", "OptimalTransport", "as_coupling"]


class Coupling(ABC):
    """A rule that pairs the base points and the data points of a batch.

    Attributes:
        independent: Whether base and data stay independent, as every conversion between velocity and score needs.
    """

    independent: bool = False

    @abstractmethod
    def partners(self, x0: Tensor, x1: Tensor, draws: Draws) -> Tensor:
        """For each row of x1 the row of x0 that belongs to it, int64 with shape ``(B,)``."""

    def __call__(self, x0: Tensor, x1: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        """The pairs: x0 in the order of its partners, and x1 as it was, both ``(B, *event)``."""
        return x0[self.partners(x0, x1, draws or Draws())], x1

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class _ByRow(Coupling):
    """Base and data as their rows have it."""

    def partners(self, x0: Tensor, x1: Tensor, draws: Draws) -> Tensor:
        return rows(x1)

    def __call__(self, x0: Tensor, x1: Tensor, draws: Draws | None = None) -> tuple[Tensor, Tensor]:
        return x0, x1


class Independent(_ByRow):
    """Every base point with the data point of its row: two independent draws stay independent."""

    independent = True


class Given(_ByRow):
    """The pairs as they come in, as with the pairs of a reflow: base and data belong together by their rows."""


class OptimalTransport(Coupling):
    """The exact assignment of least squared distance within the batch (the linear-sum assignment problem, O(B³)).

    The laws of x0 and of x1 are kept. Drawing pairs from the plan with replacement, as is often done, has the same law for
    each pair, and more variance. It is solved on the CPU.

    References:
        Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport (Tong et al., 2024),
        https://arxiv.org/abs/2302.00482

    Example:
        >>> x0, x1 = sf.paths.OptimalTransport()(torch.tensor([[0.0], [5.0]]), torch.tensor([[6.0], [1.0]]))
        >>> x0
        tensor([[5.],
                [0.]])
    """

    def partners(self, x0: Tensor, x1: Tensor, draws: Draws) -> Tensor:
        costs = squared_distances(x1, x0)
        return assign(costs).to(x1.device) if are_finite(costs) else rows(x1)


class Entropic(Coupling):
    r"""Pairs drawn from the entropic plan of the batch, which is the Schrödinger bridge between its points.

    For each data point a base point is drawn from its column of the plan, so every data point is used once.

    Arguments:
        regularisation: ε > 0 on the squared distance; 2σ² for a Brownian motion of diffusion σ over a unit of time.

    Raises:
        ArgumentError: ε is not positive.

    References:
        Simulation-Free Schrödinger Bridges via Score and Flow Matching (Tong et al., 2024),
        https://arxiv.org/abs/2307.03672
    """

    def __init__(self, regularisation: float = 1.0) -> None:
        self.regularisation = finite_number("regularisation", regularisation)
        if self.regularisation <= 0:
            raise ArgumentError(f"regularisation={regularisation!r}: give ε > 0; OptimalTransport() is the limit at 0.")

    def partners(self, x0: Tensor, x1: Tensor, draws: Draws) -> Tensor:
        costs = squared_distances(x0, x1)
        if not are_finite(costs):
            return rows(x1)
        plan = sinkhorn(costs, self.regularisation)
        cumulative = (plan + math.log(len(x1))).exp().cumsum(0).mT.contiguous()  # of each column, whose sum is 1
        uniform = draws.uniforms(Purpose.COUPLING, (len(x1), 1), x1.device)
        return torch.searchsorted(cumulative, uniform).squeeze(1).clamp_max(len(x0) - 1)

    def __repr__(self) -> str:
        return f"Entropic({self.regularisation:g})"


def rows(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device)


def are_finite(costs: Tensor) -> bool:
    """Whether there is a plan: else pairs stay as they are, and what is made of them, such as a loss, is not finite either."""
    return bool(costs.isfinite().all())


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖², ``(n, m)``, without a graph."""
    with torch.no_grad():
        # The matrix product behind large distances loses digits of near points; batches are small enough to do without.
        return torch.cdist(x.flatten(1), y.flatten(1), compute_mode="donot_use_mm_for_euclid_dist").square()


COUPLINGS: dict[str, Callable[[], Coupling]] = {
    "independent": Independent,
    "optimal-transport": OptimalTransport,
    "entropic": Entropic,
    "given": Given,
}


def as_coupling(coupling: str | Coupling) -> Coupling:
    """A coupling by its name, or as it is.

    Example:
        >>> from sdeflow.paths import as_coupling
        >>> as_coupling("optimal-transport")
        OptimalTransport()
    """
    if isinstance(coupling, Coupling):
        return coupling
    return COUPLINGS[choose("coupling", coupling, COUPLINGS)]()
