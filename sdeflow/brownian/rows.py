"""The tree beneath a cell for rows that each ask about an interval of their own, level by level.

The nodes that a row must halve are known from its interval alone: at each level the one that its start is inside of, and the
one that its stop is inside of. So their keys are made first, one call of the cipher draws for all rows and levels, and what is
left is arithmetic. Rows get what they would get if the whole batch were asked about their interval, since a draw does not depend on
what else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sdeflow.brownian.area import Piece, combine, split
from sdeflow.brownian.gaussian import FloatArray, Normals
from sdeflow.brownian.lattice import DEPTH, Integers

__all__ = ["descend_rows", "join_rows"]

Draw = Callable[[Integers, Integers], tuple[Normals, Normals]]
Rows = NDArray[np.intp]


def descend_rows(cell: Piece, start: Integers, stop: Integers, draw: Draw) -> Piece:
    """The piece of one cell between two of its lattice steps, which differ from row to row.

    Arguments:
        cell: The cell's own piece, with W and H of shape ``(n, values)``, one row for each interval.
        start: Where the intervals begin, from 0 to 2^DEPTH.
        stop: Where they end.
        draw: The pairs (z, n), with shape ``(m, values)``, of some rows and the nodes they halve. Nodes are numbered as in a
            heap: the cell is 1, the halves of node k are 2k and 2k + 1.
    """
    plan = [_inside(start, stop, level) for level in range(DEPTH)]
    rows = np.concatenate([part for by_start, by_stop, _ in plan for part in (by_start, by_stop)])
    nodes = np.concatenate(
        [
            (1 << level) + (where[part] >> (DEPTH - level))
            for level, (by_start, by_stop, _) in enumerate(plan)
            for where, part in ((start, by_start), (stop, by_stop))
        ]
    )
    z, n = draw(rows, nodes)
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
