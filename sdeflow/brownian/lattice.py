"""The times a Brownian path is known at: cells, and beneath each a dyadic lattice.

A *position* is an integer: ``k * 2**DEPTH`` is the left edge of cell k, and the integers between two edges
are 2^32 equal steps across the cell. A time is rounded to the nearest position once, here; beyond this file
there are no floating-point times, so nothing is drawn twice or left out because two times differ in their
last digit.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

__all__ = ["DEPTH", "EqualCells", "GivenCells", "Lattice"]

DEPTH = 32  # halvings of a cell: finer than any step worth taking, at no more than 32 levels a time
COARSE = 16  # steps of the lattice in an interval that may be shortened to lie on it
EDGE_ROUNDING = 8  # in units of eps * max(|t0|, |t1|): what k * dt, linspace or adding a few steps loses


class Lattice(ABC):
    """Cells between ``t0`` and ``t1``, numbered from 0.

    Arguments:
        t0: The left edge of the first cell.
        t1: The right edge of the last cell.
        count: The number of cells.

    Attributes:
        longest: The length of the longest cell.
    """

    longest: float

    def __init__(self, t0: float, t1: float, count: int) -> None:
        self.t0 = t0
        self.t1 = t1
        self.count = count
        self._edge_slack = EDGE_ROUNDING * max(abs(t0), abs(t1))

    @abstractmethod
    def edge(self, k: int) -> float:
        """The left edge of cell k; that of ``k = count`` is t1."""

    @abstractmethod
    def length(self, k: int) -> float:
        """The length of cell k."""

    def lengths(self, first: int, count: int) -> Floats:
        """The lengths of consecutive cells."""
        return np.asarray([self.length(k) for k in range(first, first + count)])

    @abstractmethod
    def cell_of(self, t: float) -> int:
        """The cell around t; near an edge, to rounding, either of the two."""

    @abstractmethod
    def edges(self, k: Any) -> Floats:
        """The left edges of many cells."""

    @abstractmethod
    def cells_of(self, t: Floats) -> Integers:
        """The cells around many times."""

    def position(self, t: float, eps: float) -> int:
        """The nearest position to a time in [t0, t1].

        Arguments:
            t: A time.
            eps: The relative rounding of t. An edge this close to t (8 eps) *is* t, so that a grid computed
                another way, or in float32, still meets the edges.
        """
        k = self.cell_of(t)
        left, right = self.edge(k), self.edge(k + 1)
        before, after = t - left, right - t
        if min(before, after) <= self._edge_slack * eps:
            return (k if before <= after else k + 1) << DEPTH
        return (k << DEPTH) + round(math.ldexp(before / (right - left), DEPTH))

    def positions(self, t: Floats, eps: float) -> Integers:
        """:meth:`position` of many times at once."""
        k = self.cells_of(t)
        left, right = self.edges(k), self.edges(k + 1)
        before, after = t - left, right - t
        inside = (k << DEPTH) + np.rint(np.ldexp(before / (right - left), DEPTH)).astype(np.int64)
        nearest = np.where(before <= after, k, k + 1) << DEPTH
        return np.where(np.minimum(before, after) <= self._edge_slack * eps, nearest, inside)

    def times(self, position: Integers) -> Floats:
        """The times of many positions."""
        k = np.minimum(position >> DEPTH, self.count - 1)
        left, right = self.edges(k), self.edges(k + 1)
        steps = position - (k << DEPTH)
        return np.where(steps == 1 << DEPTH, right, left + np.ldexp(right - left, -DEPTH) * steps)

    def coarser(self, start: Integers, stop: Integers) -> Integers:
        """The last position up to ``stop`` on the coarsest lattice with at least 16 steps between the two."""
        drop = np.maximum(np.frexp((stop - start) / COARSE)[1] - 1, 0)
        last: Integers = (stop >> drop) << drop
        return last


class EqualCells(Lattice):
    """``count`` cells of equal length.

    Example:
        >>> cells = EqualCells(0.0, 1.0, 10)
        >>> cells.position(3 * 0.1, eps=2.0**-52) == 3 << DEPTH
        True
    """

    def __init__(self, t0: float, t1: float, count: int) -> None:
        super().__init__(t0, t1, count)
        self._length = self.longest = (t1 - t0) / count

    def edge(self, k: int) -> float:
        return self.t1 if k == self.count else self.t0 + k * self._length

    def length(self, k: int) -> float:
        return self._length

    def lengths(self, first: int, count: int) -> Floats:
        return np.full(count, self._length)

    def cell_of(self, t: float) -> int:
        return min(int((t - self.t0) / self._length), self.count - 1)

    def edges(self, k: Any) -> Floats:
        return np.where(k == self.count, self.t1, self.t0 + k * self._length)

    def cells_of(self, t: Floats) -> Integers:
        return np.minimum(((t - self.t0) / self._length).astype(np.int64), self.count - 1)


class GivenCells(Lattice):
    """The cells between given edges, strictly increasing.

    Example:
        >>> GivenCells([0.0, 0.1, 1.0]).position(0.1, eps=2.0**-52) == 1 << DEPTH
        True
    """

    def __init__(self, edges: Sequence[float]) -> None:
        super().__init__(edges[0], edges[-1], len(edges) - 1)
        self._edges = list(edges)
        self._array = np.asarray(edges)
        self.longest = float(np.diff(self._array).max())

    def edge(self, k: int) -> float:
        return self._edges[k]

    def length(self, k: int) -> float:
        return self._edges[k + 1] - self._edges[k]

    def cell_of(self, t: float) -> int:
        return min(bisect_right(self._edges, t), self.count) - 1

    def edges(self, k: Any) -> Floats:
        left: Floats = self._array[k]
        return left

    def cells_of(self, t: Floats) -> Integers:
        return np.minimum(self._array.searchsorted(t, side="right"), self.count) - 1
