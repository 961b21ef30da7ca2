"""The Brownian path: a pure function of its identity and the queried interval."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sdeflow.brownian.area import Piece, combine, split
from sdeflow.brownian.driver import OUTSIDE, Driver, Interval, ReversedPath
from sdeflow.brownian.keyed import (
    NUMPY_DTYPES,
    WORD,
    FloatArray,
    RowBlocks,
    Stream,
    fresh_seed,
    to_tensor,
    whole_number,
)
from sdeflow.brownian.lattice import DEPTH, EqualCells, GivenCells, Lattice
from sdeflow.errors import ArgumentError, choose

__all__ = ["BrownianPath"]

WHOLE = 1 << DEPTH
MOST_CELLS = 2**31  # so that a lattice position is one word of a key
CACHE_BYTES = 2**26  # for the nodes met last; those nearest the root come first, and are met again

Node = tuple[int, int]


class BrownianPath(Driver):
    r"""A Brownian path on [t0, t1]: increments W and space-time Lévy areas H over any interval, from a seed.

    The path is a function of (seed, shape, t0, t1, cells). Nothing is stored but the nodes of the last query,
    any interval can be asked for at any time, and the answers fit together:

    .. math:: W_{s,u} = W_{s,t} + W_{t,u}, \qquad
              H_{s,u} = \frac{h_1 H_{s,t} + h_2 H_{t,u}}{h_1 + h_2}
                      + \frac{h_2 W_{s,t} - h_1 W_{t,u}}{2 (h_1 + h_2)}.

    [t0, t1] is divided into cells. Each has its own keyed draws of :math:`W \sim N(0, h)` and, where needed,
    :math:`H \sim N(0, h/12)`; a query inside a cell refines them by a binary tree of conditional halves. So

    - a whole cell costs one keyed draw for W, two for (W, H);
    - a time inside a cell costs two draws for each binary digit of its place in the cell, at most 32, less
      those it shares with the last query: with one cell, t0 + (t1 − t0) j / 2^m costs m of them. Times are
      rounded to the lattice of 2^-32 of a cell, on which the law is exact;
    - a query across cells costs as much as they do, one after the other.

    All arithmetic is float64; ``dtype`` is what answers are rounded to. Rows are independent motions with
    keys of their own: row r of a path with ``first_row=f`` is row f + r of the path with ``first_row=0``.

    Arguments:
        shape: The shape of an increment, with shape ``(B, *event)``.
        t0: Where the path begins.
        t1: Where it ends, t0 < t1.
        seed: An integer in [0, 2^64), or None to draw one from torch's global generator.
        cells: The base grid: a number of equal cells, or their edges from t0 to t1, strictly increasing.
            Other cells are another path.
        levy: ``"space-time"`` where H is wanted. W is the same either way.
        first_row: The row, counted from 0, that is the first of this batch.
        dtype: ``torch.float32`` or ``torch.float64``; torch's default dtype if None.
        device: Where answers are to be; torch's default device if None. Draws are made on the CPU and moved,
            so the path is the same on every device.

    Raises:
        ArgumentError: If an argument is not as described here.

    References:
        Brownian bridges as a tree: Efficient and accurate gradients for neural SDEs (Kidger, Foster, Li and
        Lyons, 2021), https://arxiv.org/abs/2105.13493

        The tree for (W, H): Single-seed generation of Brownian paths and integrals for adaptive and high
        order SDE solvers (Jelinčič, Foster and Kidger, 2024), https://arxiv.org/abs/2405.06464

    Example:
        >>> path = BrownianPath((3, 2), 0.0, 1.0, seed=0, cells=4, levy="space-time")
        >>> path(0.25, 0.5).shape
        torch.Size([3, 2])
        >>> torch.allclose(path(0.0, 0.3) + path(0.3, 1.0), path(0.0, 1.0), atol=1e-6)
        True
        >>> W, H = path.levy(0.1, 0.7)
        >>> torch.equal(W, path(0.1, 0.7))
        True
    """

    def __init__(
        self,
        shape: Sequence[int],
        t0: float,
        t1: float,
        *,
        seed: int | None,
        cells: int | Sequence[float] | Tensor = 1,
        levy: Literal["none", "space-time"] = "none",
        first_row: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.shape = _checked_shape(shape)
        self.t0, self.t1 = _checked_ends(t0, t1)
        self._lattice = _lattice(self.t0, self.t1, cells)
        self.cells = self._lattice.count
        self.has_levy = choose("levy", levy, ("none", "space-time")) == "space-time"
        self.first_row = whole_number("first_row", first_row, WORD)
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        if self.dtype not in NUMPY_DTYPES:
            raise ArgumentError(f"dtype={self.dtype} was given; a path is in torch.float32 or torch.float64.")
        self.device = torch.get_default_device() if device is None else torch.device(device)
        self.seed = fresh_seed(seed)
        self._rows = RowBlocks(self.shape, self.first_row)
        self._recent: dict[Node, tuple[Piece, ...]] = {}
        self._most_recent = CACHE_BYTES // (32 * max(1, math.prod(self.shape)))

    def __repr__(self) -> str:
        levy = "space-time" if self.has_levy else "none"
        return (
            f"BrownianPath({self.shape}, {self.t0}, {self.t1}, seed={self.seed}, cells={self.cells}, "
            f"levy={levy!r}, first_row={self.first_row}, dtype={self.dtype}, device={str(self.device)!r})"
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_recent": {}}

    def edge(self, k: int) -> float:
        return self._lattice.edge(whole_number("k", k, self.cells + 1))

    def cell(self, k: int) -> Tensor:
        return self._tensor(self._cell_increment(whole_number("k", k, self.cells)))

    def cell_levy(self, k: int) -> tuple[Tensor, Tensor]:
        self._require_levy()
        piece = self._cell(whole_number("k", k, self.cells))
        return self._tensor(piece.W), self._tensor(piece.H)

    def reverse(self) -> Driver:
        return ReversedPath(self)

    def _increment(self, interval: Interval) -> Tensor:
        increments = self._increments(interval)
        first = next(increments, None)
        return self._zeros() if first is None else self._tensor(reduce(operator.iadd, increments, first))

    def _increment_and_levy(self, interval: Interval) -> tuple[Tensor, Tensor]:
        pieces = self._pieces(interval)
        first = next(pieces, None)
        if first is None:
            return self._zeros(), self._zeros()
        whole = reduce(combine, pieces, first)
        return self._tensor(whole.W), self._tensor(whole.H)

    def _increments(self, interval: Interval) -> Iterator[FloatArray]:
        """Increments that add up to that of the interval; a whole cell needs no H."""
        for cell, start, stop in self._parts(interval):
            if stop - start == WHOLE:
                yield self._cell_increment(cell)
            else:
                yield from (piece.W for piece in self._descend(cell, start, stop))

    def _pieces(self, interval: Interval) -> Iterator[Piece]:
        """Pieces that combine to that of the interval, in order."""
        for cell, start, stop in self._parts(interval):
            if stop - start == WHOLE:
                yield self._cell(cell)
            else:
                yield from self._descend(cell, start, stop)

    def _area_noise(self, interval: Interval) -> Tensor:
        first, last = self._positions(interval)
        rows = RowBlocks((*self.shape, self.shape[-1]), self.first_row)
        return self._tensor(rows.normals(self.seed, Stream.LEVY_AREA, first, last))

    def _positions(self, interval: Interval) -> tuple[int, int]:
        position = self._lattice.position
        return position(interval.start, interval.eps), position(interval.stop, interval.eps)

    def _parts(self, interval: Interval) -> Iterator[tuple[int, int, int]]:
        """The cells of the interval in order, each with the range of its 2^DEPTH lattice steps inside it."""
        first, last = self._positions(interval)
        while first < last:
            cell = first >> DEPTH
            left = cell << DEPTH
            stop = min(last, left + WHOLE)
            yield cell, first - left, stop - left
            first = stop

    def _draw(self, stream: Stream, cell: int, node: int) -> FloatArray:
        return self._rows.normals(self.seed, stream, cell, node)

    def _cell_increment(self, cell: int) -> FloatArray:
        W = self._draw(Stream.CELL_W, cell, 0)
        W *= math.sqrt(self._lattice.length(cell))
        return W

    def _cell(self, cell: int) -> Piece:
        length = self._lattice.length(cell)
        H = self._draw(Stream.CELL_H, cell, 0)
        H *= math.sqrt(length / 12)
        return Piece(length, self._cell_increment(cell), H)

    def _descend(self, cell: int, start: int, stop: int) -> Iterator[Piece]:
        """The largest dyadic pieces of the cell that make up its lattice steps from start to stop, in order.

        Nodes are numbered as in a heap: the cell is 1, the halves of node n are 2n and 2n + 1. Every piece
        comes from its parent by halving, never as a difference of longer pieces, so short intervals keep
        their digits.
        """
        known, met = self._recent, dict[Node, tuple[Piece, ...]]()
        met[cell, 0] = known.get((cell, 0)) or (self._cell(cell),)
        ahead: list[tuple[int, int, int, Piece]] = [(1, 0, WHOLE, met[cell, 0][0])]
        while ahead:
            node, left, width, piece = ahead.pop()
            if start <= left and left + width <= stop:
                # Copies, since a caller may write to its answer.
                yield Piece(piece.length, piece.W.copy(), piece.H.copy())
                continue
            halves = known.get((cell, node)) or self._halves(cell, node, piece)
            if len(met) < self._most_recent:
                met[cell, node] = halves
            middle, width = left + width // 2, width // 2
            if middle < stop:
                ahead.append((2 * node + 1, middle, width, halves[1]))
            if start < middle:
                ahead.append((2 * node, left, width, halves[0]))
        self._recent = met

    def _halves(self, cell: int, node: int, piece: Piece) -> tuple[Piece, Piece]:
        return split(piece, self._draw(Stream.TREE_Z, cell, node), self._draw(Stream.TREE_N, cell, node))

    def _tensor(self, array: FloatArray) -> Tensor:
        return to_tensor(array, self.dtype, self.device)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape if it is (B, *event), with at least one value in a row."""
    if isinstance(shape, int) or len(shape) == 0:
        raise ArgumentError(f"shape={shape!r} was given; give (B, *event), with at least the batch axis.")
    batch, *event = shape
    return (
        whole_number("shape[0]", batch, WORD),
        *(whole_number(f"shape[{i}]", size, WORD, start=1) for i, size in enumerate(event, 1)),
    )


def _checked_ends(t0: float, t1: float) -> tuple[float, float]:
    """The ends if they are finite and in order."""
    start, stop = float(t0), float(t1)
    if not -math.inf < start < stop < math.inf:
        raise ArgumentError(f"t0={t0} and t1={t1} were given; give finite times with t0 < t1.")
    return start, stop


def _lattice(t0: float, t1: float, cells: int | Sequence[float] | Tensor) -> Lattice:
    """Equal cells if a number is given, else the cells between the given edges."""
    if not isinstance(cells, Tensor) and not hasattr(cells, "__len__"):
        return EqualCells(t0, t1, whole_number("cells", cells, MOST_CELLS, start=1))
    edges = torch.as_tensor(cells, dtype=torch.float64).flatten().tolist()
    if len(edges) < 2 or max(abs(edges[0] - t0), abs(edges[-1] - t1)) > OUTSIDE * (t1 - t0):
        raise ArgumentError(f"cells has edges {_shown(edges)}; give at least two, the first t0={t0}, the last t1={t1}.")
    edges[0], edges[-1] = t0, t1
    if not all(left < right for left, right in pairwise(edges)):
        raise ArgumentError(
            f"cells has edges {_shown(edges)}, which are not strictly increasing; sort them, drop repeats."
        )
    return GivenCells(edges)


def _shown(edges: list[float]) -> str:
    return str(edges) if len(edges) <= 6 else f"[{edges[0]}, {edges[1]}, …, {edges[-1]}]"
