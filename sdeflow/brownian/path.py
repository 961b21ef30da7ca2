"""The Brownian path: a pure function of its identity and the queried interval."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdeflow.brownian import philox, sfc
from sdeflow.brownian.area import Piece, combine, split
from sdeflow.brownian.driver import DOUBLE_EPS, OUTSIDE, Driver, Interval, ReversedPath
from sdeflow.brownian.gaussian import Normals, normal_rows, pairs, pairs_at
from sdeflow.brownian.keyed import NUMPY_DTYPES, WORD, FloatArray, Stream, fresh_seed, to_tensor, whole_number
from sdeflow.brownian.lattice import DEPTH, EqualCells, GivenCells, Integers, Lattice
from sdeflow.brownian.rows import Memory, descend_rows, join_rows
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

    Normals have the digits of float32 and are the same in both dtypes; all that is made from them is made in ``dtype``.
    Rows are independent motions: row r of a path with ``first_row=f`` is row f + r of the path with ``first_row=0``,
    so a batch may be split anywhere. Rows may also be asked about times of their own, ``path(s, t)`` with s and t of
    shape ``(B,)``.

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
        self.cells, self.equal_cells = self._lattice.count, isinstance(self._lattice, EqualCells)
        self.resolution = math.ldexp(self._lattice.longest, -DEPTH)
        self.has_levy = choose("levy", levy, ("none", "space-time")) == "space-time"
        self.first_row = whole_number("first_row", first_row, WORD)
        self.dtype = torch.get_default_dtype() if dtype is None else dtype
        if self.dtype not in NUMPY_DTYPES:
            raise ArgumentError(f"dtype={self.dtype} was given; a path is in torch.float32 or torch.float64.")
        self.device = torch.get_default_device() if device is None else torch.device(device)
        self.seed = fresh_seed(seed)
        self._values = math.prod(self.shape[1:])  # in a row
        self._array_dtype = NUMPY_DTYPES[self.dtype]
        self._recent: dict[Node, tuple[Piece, ...]] = {}
        self._memory: tuple[int, Memory] | None = None
        self._most_recent = CACHE_BYTES // (4 * self.dtype.itemsize * max(1, math.prod(self.shape)))

    def __repr__(self) -> str:
        levy = "space-time" if self.has_levy else "none"
        return (
            f"BrownianPath({self.shape}, {self.t0}, {self.t1}, seed={self.seed}, cells={self.cells}, "
            f"levy={levy!r}, first_row={self.first_row}, dtype={self.dtype}, device={str(self.device)!r})"
        )

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_recent": {}, "_memory": None}

    def edge(self, k: int) -> float:
        return self._lattice.edge(whole_number("k", k, self.cells + 1))

    def edges(self) -> NDArray[np.float64]:
        return self._lattice.edges(np.arange(self.cells + 1))

    def cell_increments(self, first: int, count: int) -> Tensor:
        return self._tensor(self._cells(Stream.CELL_W, *self._checked_cells(first, count), 1.0))

    def cell_levies(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        self._require_levy()
        first, count = self._checked_cells(first, count)
        return (
            self._tensor(self._cells(Stream.CELL_W, first, count, 1.0)),
            self._tensor(self._cells(Stream.CELL_H, first, count, 1 / 12)),
        )

    def _shorten(self, s: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
        lattice = self._lattice
        start, stop = (lattice.positions(v.clip(self.t0, self.t1), DOUBLE_EPS) for v in (s, t))
        shorter = lattice.coarser(start, stop)
        return np.where((shorter == stop) | (stop - start < 2), t, lattice.times(shorter))

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
        values = self._values * self.shape[-1]
        draw = partial(philox.words, self.seed, Stream.LEVY_AREA, (first, last, 0))
        drawn = normal_rows([draw], self.first_row * values, self.shape[0] * values)
        return self._tensor(drawn.astype(self._array_dtype).reshape(*self.shape, self.shape[-1]))

    def _rows(self, start: Tensor, stop: Tensor) -> tuple[Tensor, Tensor]:
        """Cell by cell, for the rows whose intervals meet it."""
        first, last = (self._lattice.positions(t.numpy(), DOUBLE_EPS) for t in (start, stop))
        rows = (self.shape[0], self._values)
        W, H = np.zeros((2, *rows), self._array_dtype)
        total = Piece(np.zeros((rows[0], 1)), W, H)
        for cell in range(int(first.min()) >> DEPTH, -(-int(last.max()) // WHOLE)):
            left = cell << DEPTH
            some = np.flatnonzero((first < left + WHOLE) & (last > left))
            if len(some):
                inside = [(place[some] - left).clip(0, WHOLE) for place in (first, last)]
                new = join_rows(_rows_of(total, some), self._rows_of_cell(cell, some, *inside))
                for array, part in zip(total, new, strict=True):
                    array[some] = part  # type: ignore[index]
        return self._tensor(W.reshape(self.shape)), self._tensor(H.reshape(self.shape))

    def _rows_of_cell(self, cell: int, some: Integers, start: Integers, stop: Integers) -> Piece:
        whole = self._recent.get((cell, 0)) or (self._cell(cell),)
        self._recent.setdefault((cell, 0), whole)

        def draw(rows: Integers, nodes: Integers) -> tuple[Normals, Normals]:
            first = (self.first_row + rows.astype(np.uint64)) * np.uint64(self._values)
            cells = np.full(len(rows), cell, np.uint64)
            return pairs_at(self.seed, Stream.TREE, first, self._values, cells, nodes.astype(np.uint64))

        if self._memory is None or self._memory[0] != cell:
            self._memory = (cell, Memory(self.shape[0]))
        recall = self._memory[1]
        piece = whole[0]
        flat = Piece(piece.length, piece.W.reshape(self.shape[0], -1)[some], piece.H.reshape(self.shape[0], -1)[some])
        return descend_rows(
            flat, start, stop, lambda kind, level, rows, nodes: recall(draw, kind, level, some[rows], nodes)
        )

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

    def _cells(self, stream: Stream, first: int, count: int, variance: float) -> FloatArray:
        """Draws for consecutive cells, scaled, ``(count, *shape)``; the variance is that over a time of 1."""
        # Equal cells in float32 are scaled on the way to normals; others, and those that go on in float64, afterwards.
        at_once = self._array_dtype is np.float32 and self.equal_cells
        drawn = normal_rows(
            [partial(sfc.words, self.seed, stream, k) for k in range(first, first + count)],
            self.first_row * self._values,
            self.shape[0] * self._values,
            variance * self._lattice.longest if at_once else 1.0,
        )
        if not at_once:
            scale = np.sqrt(variance * self._lattice.lengths(first, count)).astype(self._array_dtype)
            drawn = np.multiply(drawn, scale[:, None], dtype=self._array_dtype)
        scaled: FloatArray = drawn.reshape(count, *self.shape)
        return scaled

    def _cell_increment(self, cell: int) -> FloatArray:
        increment: FloatArray = self._cells(Stream.CELL_W, cell, 1, 1.0)[0]
        return increment

    def _cell(self, cell: int) -> Piece:
        H = self._cells(Stream.CELL_H, cell, 1, 1 / 12)[0]
        return Piece(self._lattice.length(cell), self._cell_increment(cell), H)

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
        first, count = self.first_row * self._values, self.shape[0] * self._values
        z, n = pairs(self.seed, Stream.TREE, (cell, node, 0), first, count)
        dtype = self._array_dtype
        return split(
            piece, z.astype(dtype, copy=False).reshape(self.shape), n.astype(dtype, copy=False).reshape(self.shape)
        )

    def _checked_cells(self, first: int, count: int) -> tuple[int, int]:
        first = whole_number("k", first, self.cells)
        return first, whole_number("count", count, self.cells - first + 1, start=1)

    def _tensor(self, array: FloatArray) -> Tensor:
        return to_tensor(array, self.dtype, self.device)

    def _zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


def _rows_of(piece: Piece, rows: Integers) -> Piece:
    assert isinstance(piece.length, np.ndarray)
    return Piece(piece.length[rows], piece.W[rows], piece.H[rows])


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
    edges = torch.as_tensor(cells, dtype=torch.float64, device="cpu").flatten().tolist()
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
