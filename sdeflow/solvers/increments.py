"""The noise of each step of a fixed grid, drawn ahead of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor

from sdeflow.brownian import Driver

__all__ = ["Increments", "is_own_grid"]

AHEAD = 64  # cells at most, drawn together, ...
VALUES = 2**17  # ... and not more values than stay in the cache

Drawn = tuple[Tensor, Tensor | None]


class Increments:
    """W, and H where it is wanted, over each step of a grid.

    Where the steps are the path's own cells, they are drawn some at a time, which is what makes noise cheap for small states;
    otherwise the path is asked. Steps may be asked for in any order, and are fastest in order, forward or back.

    Arguments:
        path: The path.
        nodes: The grid, one node more than there are steps.
        levy: Whether H is wanted.
        equal: Whether the steps are equal by construction.
    """

    def __init__(self, path: Driver, nodes: Sequence[float], levy: bool, equal: bool = False) -> None:
        self.path, self.nodes, self.levy = path, nodes, levy
        self.own = is_own_grid(path, nodes, equal)
        self.ahead = max(1, min(AHEAD, VALUES // max(1, prod(path.shape)))) if self.own else 1
        self._first, self._count = 0, 0  # the steps that are ready
        self._drawn: Drawn = (torch.empty(0, device="cpu"), None)
        self._each: list[Drawn] = []

    def __call__(self, step: int) -> Drawn:
        place = step - self._first
        return self._each[place] if 0 <= place < len(self._each) else self.ready(step)[0]

    def ready(self, step: int) -> list[Drawn]:
        """Those of a step and of some that follow it."""
        place = step - self._first
        if not 0 <= place < len(self._each):
            first = step - step % self.ahead
            W, H = self._draw(first, min(self.ahead, len(self.nodes) - 1 - first))
            parts = [None] * len(W) if H is None else H.unbind()
            self._each = list(zip(W.unbind(), parts, strict=True))
            place = step - first
        return self._each[place:]

    def block(self, first: int, count: int) -> Drawn:
        """The same of some consecutive steps, ``(count, B, *event)``."""
        if not self._first <= first <= first + count <= self._first + self._count:
            some = min(max(self.ahead // count, 1) * count, len(self.nodes) - 1 - first)
            self._draw(first, max(some, count))
            self._each = []
        start = first - self._first
        W, H = self._drawn
        return W[start : start + count], None if H is None else H[start : start + count]

    def _draw(self, first: int, count: int) -> Drawn:
        W, H = self._cells(first, count) if self.own else self._query(first, count)
        self._first, self._count, self._drawn = first, count, (W, H)
        return W, H

    def _cells(self, first: int, count: int) -> Drawn:
        return self.path.cell_levies(first, count) if self.levy else (self.path.cell_increments(first, count), None)

    def _query(self, first: int, count: int) -> Drawn:
        intervals = list(pairwise(self.nodes[first : first + count + 1]))
        if not self.levy:
            return torch.stack([self.path(s, t) for s, t in intervals]), None
        W, H = zip(*(self.path.levy(s, t) for s, t in intervals), strict=True)
        return torch.stack(W), torch.stack(H)


def is_own_grid(path: Driver, nodes: Sequence[float], equal: bool = False) -> bool:
    """Whether the steps of a grid are the path's own cells, which are its fastest answers."""
    if path.cells != len(nodes) - 1:
        return False
    if equal and path.equal_cells and (path.t0, path.t1) == (nodes[0], nodes[-1]):
        return True  # as many equal parts of the same whole
    return bool(np.abs(path.edges() - nodes).max() <= 1e-12 * (nodes[-1] - nodes[0]))
