"""Noise of one step as it is given, not drawn: what quadrature over the noise is made with."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdeflow.brownian import Driver
from sdeflow.brownian.driver import Interval
from sdeflow.errors import ArgumentError

__all__ = ["GivenIncrement", "normal_quadrature"]


class GivenIncrement(Driver):
    """A path of one cell on [t0, t1] of which W and H are given; it knows nothing of the inside of its cell.

    Arguments:
        W: The increment, with shape ``(B, *event)``.
        H: The space-time Lévy area, likewise, or None for a path without.
        t0: Where the cell begins.
        t1: Where it ends.
    """

    def __init__(self, W: Tensor, H: Tensor | None, t0: float, t1: float) -> None:
        self.W, self.H = W, H
        self.seed, self.shape, self.t0, self.t1 = 0, tuple(W.shape), t0, t1
        self.cells, self.has_levy, self.dtype, self.device = 1, H is not None, W.dtype, W.device

    def _whole(self, start: float, stop: float) -> None:
        slack = 1e-9 * (self.t1 - self.t0)
        if abs(start - self.t0) > slack or abs(stop - self.t1) > slack:
            raise ArgumentError(
                f"the noise is given for one step over [{self.t0:g}, {self.t1:g}], and the method asks for [{start:g}, "
                f"{stop:g}]; quadrature is for methods that take the increment of the step and nothing inside it."
            )

    def _increment(self, interval: Interval) -> Tensor:
        self._whole(interval.start, interval.stop)
        return self.W.clone()

    def _increment_and_levy(self, interval: Interval) -> tuple[Tensor, Tensor]:
        self._whole(interval.start, interval.stop)
        assert self.H is not None
        return self.W.clone(), self.H.clone()

    def _rows(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        self._whole(float(start.max()), float(stop.min()))
        return self.W.clone(), torch.zeros_like(self.W) if self.H is None else self.H.clone()

    def _area_noise(self, interval: Interval) -> Tensor:
        raise ArgumentError("the noise of one step is given as (W, H), and the method asks for a Lévy area besides.")

    def edge(self, k: int) -> float:
        return self.t1 if k else self.t0

    def cell_increments(self, first: int, count: int) -> Tensor:
        return self.W.clone()[None]

    def cell_levies(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        assert self.H is not None
        return self.W.clone()[None], self.H.clone()[None]

    def reverse(self) -> Driver:
        return GivenIncrement(-self.W, self.H, self.t0, self.t1)


def normal_quadrature(nodes: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Nodes ``(nodes^dimensions, dimensions)`` and weights of E φ(Z), Z ~ N(0, I): exact to degree 2·nodes − 1 in each.

    Gauss–Hermite by the eigenvalues of the Jacobi matrix.

    References:
        Calculation of Gauss quadrature rules (Golub & Welsch, 1969), https://doi.org/10.1090/S0025-5718-69-99647-1

    Example:
        >>> from sdeflow.analysis.given import normal_quadrature
        >>> z, w = normal_quadrature(4, 1)
        >>> print(f"{(w * z[:, 0] ** 6).sum():.6f}")  # 15, the sixth moment
        15.000000
    """
    if dimensions == 0:
        return torch.zeros(1, 0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    off = torch.tensor([math.sqrt(k) for k in range(1, nodes)], dtype=torch.float64)
    z, vectors = torch.linalg.eigh(off.diag(1) + off.diag(-1))
    w = vectors[0].square()
    places = torch.cartesian_prod(*[torch.arange(nodes)] * dimensions).reshape(-1, dimensions)
    return z[places], w[places].prod(1)
