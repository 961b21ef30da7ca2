"""The tree beneath a cell for rows that each ask about an interval of their own, level by level.

The nodes that a row must halve are known from its interval alone: at each level the one that its start is inside of, and the
one that its stop is inside of. So their keys are made first, one call of the cipher draws for all rows and levels, and what is
left is arithmetic. Rows get what they would get if the whole batch were asked about their interval, since a draw does not
depend on what else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdeflow.brownian.area import Piece, combine, split
from sdeflow.brownian.gaussian import FloatArray, Normals
from sdeflow.brownian.lattice import DEPTH, Integers

__all__ = ["Memory", "descend_rows", "join_rows"]

Draw = Callable[[Integers, Integers], tuple[Normals, Normals]]
Rows = NDArray[np.intp]


class Memory:
    """The draws of the last call: the next one begins where it ended, as a rule, and shares most of its nodes.

    Arguments:
        rows: The number of rows of the whole batch.
    """

    def __init__(self, rows: int) -> None:
        self.nodes = np.zeros((2, DEPTH, rows), np.int64)  # by start or stop, level and row; no node is 0
        self.index = np.zeros((2, DEPTH, rows), np.int64)
        self.z: Normals = np.empty((0, 0), np.float32)
        self.n: Normals = self.z

    def __call__(
        self, draw: Draw, kind: Integers, level: Integers, rows: Rows, nodes: Integers
    ) -> tuple[Normals, Normals]:
        """The pairs (z, n) of some rows and nodes: those drawn last time, and new ones."""
        index = np.full(len(rows), -1)
        for known, place in zip(self.nodes, self.index, strict=True):
            index = np.where(known[level, rows] == nodes, place[level, rows], index)
        old, new = np.flatnonzero(index >= 0), np.flatnonzero(index < 0)
        fresh = draw(rows[new], nodes[new])
        both = []
        for before, drawn in zip((self.z, self.n), fresh, strict=True):
            values = np.empty((len(rows), drawn.shape[1]), np.float32)
            values[new], values[old] = drawn, before[index[old]] if len(old) else drawn[:0]
            both.append(values)
        self.z, self.n = both
        self.nodes[:] = 0
        self.nodes[kind, level, rows] = nodes
        self.index[kind, level, rows] = np.arange(len(rows))
        return self.z, self.n


def descend_rows(cell: Piece, start: Integers, stop: Integers, draw: Callable[..., tuple[Normals, Normals]]) -> Piece:
    """The piece of one cell between two of its lattice steps, which differ from row to row.

    Arguments:
        cell: The cell's own piece, with W and H of shape ``(n, values)``, one row for each interval.
        start: Where the intervals begin, from 0 to 2^DEPTH.
        stop: Where they end.
        draw: The pairs (z, n), with shape ``(m, values)``, given for each whether a start (0) or a stop (1) is inside of it,
            its level, row and node. Nodes are numbered as in a heap: the cell is 1, the halves of node k are 2k and 2k + 1.
    """
    plan = [_inside(start, stop, level) for level in range(DEPTH)]
    parts = [
        (kind, level, where, part)
        for level, (by_start, by_stop, _) in enumerate(plan)
        for kind, where, part in ((0, start, by_start), (1, stop, by_stop))
        if len(part)
    ]
    if parts:
        z, n = draw(
            np.repeat([kind for kind, *_ in parts], [len(part) for *_, part in parts]),
            np.repeat([level for _, level, *_ in parts], [len(part) for *_, part in parts]),
            np.concatenate([part for *_, part in parts]),
            np.concatenate([(1 << level) + (where[part] >> (DEPTH - level)) for _, level, where, part in parts]),
        )
        z, n = z.astype(cell.W.dtype, copy=False), n.astype(cell.W.dtype, copy=False)

    nothing = Piece(np.zeros((len(start), 1)), np.zeros_like(cell.W), np.zeros_like(cell.H))
    whole = ((start == 0) & (stop == 1 << DEPTH))[:, None]
    early, late = nothing, Piece(*(np.where(whole, full, 0.0 * full) for full in cell))
    at_start, at_stop = (
        Piece(cell.length, cell.W.copy(), cell.H.copy()),
        Piece(cell.length, cell.W.copy(), cell.H.copy()),
    )
    drawn = 0
    for level, (by_start, by_stop, shared) in enumerate(plan):
        half = 1 << (DEPTH - level - 1)
        length = cell.length / 2 ** (level + 1)
        for at_its_start, part, place, node in ((True, by_start, start, at_start), (False, by_stop, stop, at_stop)):
            if not len(part):
                continue
            taken = slice(drawn, drawn + len(part))
            drawn += len(part)
            left, right = split(Piece(2 * length, node.W[part], node.H[part]), z[taken], n[taken])
            middle = (place[part] & -(2 * half)) + half
            _follow(node, part, place[part] > middle, left, right)
            if at_its_start:  # what lies beyond the middle is covered, unless the interval ends in it
                both = np.isin(part, shared)
                _follow(at_stop, part[both], stop[part[both]] > middle[both], *(_only(p, both) for p in (left, right)))
                covered = (place[part] <= middle) & (stop[part] >= middle + half)
                early = _joined(early, part[covered], _only(right, covered), before=True)
            else:
                covered = (place[part] >= middle) & (start[part] <= middle - half)
                late = _joined(late, part[covered], _only(left, covered), before=False)
    return join_rows(early, late)


def _inside(start: Integers, stop: Integers, level: int) -> tuple[Rows, Rows, Rows]:
    """The rows whose start is inside a node of a level; whose stop is inside another one; and whose both are in one."""
    bits = DEPTH - level
    rest = (1 << bits) - 1
    a, b = (start & rest) != 0, (stop & rest) != 0
    same = a & b & ((start >> bits) == (stop >> bits))
    return np.flatnonzero(a), np.flatnonzero(b & ~same), np.flatnonzero(same)


def _only(piece: Piece, rows: FloatArray) -> Piece:
    return Piece(piece.length, piece.W[rows], piece.H[rows])


def _follow(node: Piece, rows: Rows, to_the_right: NDArray[np.bool_], left: Piece, right: Piece) -> None:
    """Go on to the half that a place is in."""
    here = to_the_right[:, None]
    node.W[rows] = np.where(here, right.W, left.W)
    node.H[rows] = np.where(here, right.H, left.H)


def _joined(total: Piece, rows: Rows, piece: Piece, before: bool) -> Piece:
    """The total with a piece put before or after it in some rows."""
    if len(rows):
        assert isinstance(total.length, np.ndarray)
        old = Piece(total.length[rows], total.W[rows], total.H[rows])
        new = combine(piece, old) if before else combine(old, piece)
        for all_rows, some in zip(total, new, strict=True):
            all_rows[rows] = some  # type: ignore[index]
    return total


def join_rows(left: Piece, right: Piece) -> Piece:
    """The piece over two adjacent intervals in every row, either of which may have no length."""
    both = np.asarray(left.length + right.length)
    one = np.where(both > 0, both, 1.0)
    a, b = left.length / one, right.length / one
    dtype = left.W.dtype
    H = a * (left.H - 0.5 * right.W) + b * (right.H + 0.5 * left.W)
    return Piece(both, (left.W + right.W).astype(dtype, copy=False), H.astype(dtype, copy=False))
