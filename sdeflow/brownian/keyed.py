r"""Keyed random numbers: a draw is a pure function of integers.

A sequential generator makes a number depend on how many were drawn before it. A *counter-based* one is a
fixed bijection of (key, counter), so any draw can be had at any time, in any order, and again, without being
stored. Here the counter-based generator is Philox4x64, and a draw is named by

.. math:: (\text{seed}, \text{stream}) \;\text{: the 128-bit key}, \qquad
          (\cdot, k_0, k_1, k_2) \;\text{: the 256-bit counter},

each a word of 64 bits; the lowest word of the counter counts along the draw. Nothing is hashed, so two draws
share numbers only if all five integers are equal (the lowest word would have to overflow first, after 2^66
numbers).

Draws are always made in float64 on the CPU, and then rounded and moved: the same integers give the same
numbers in float32 and in float64, on every device.

References:
    Parallel random numbers: as easy as 1, 2, 3 (Salmon, Moraes, Dror and Shaw, 2011),
    https://doi.org/10.1145/2063384.2063405
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from enum import IntEnum
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor

from sdeflow.errors import ArgumentError

__all__ = ["FloatArray", "RowBlocks", "Stream", "fresh_seed", "normals", "signs", "to_tensor"]

FloatArray = NDArray[np.float64]
Key = tuple[int, int, int]

BLOCK_VALUES = 16_384  # the least number of values in a block of rows; drawn in 0.2 ms
WORD = 2**64
CPU = torch.device("cpu")
NUMPY_DTYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Stream(IntEnum):
    """What a draw is for: draws for different purposes never share numbers."""

    CELL_W = 0  # the increment W of a base cell of a Brownian path
    CELL_H = 1  # its space-time Lévy area H
    TREE_Z = 2  # the midpoint of a node of the tree beneath a cell
    TREE_N = 3  # how the node's Lévy area parts between its halves
    LEVY_AREA = 4  # the part of the Lévy area that W and H leave open
    PROBES = 5  # Hutchinson probes
    START = 6  # starting points, and samples of a base distribution


class _PerThread(threading.local):
    """One reusable generator a thread, so that no state is shared and none outlives a draw."""

    def __init__(self) -> None:
        self.bits = Philox(0)
        self.generator = Generator(self.bits)


_per_thread = _PerThread()


def keyed_generator(seed: int, stream: int, key: Key) -> Generator:
    """This thread's generator, set to the beginning of a draw (valid until the thread's next draw)."""
    # Setting the state takes 0.9 us (as lists; as arrays 1.5 us), constructing Generator(Philox(...)) 7.2 us.
    state: Any = {
        "bit_generator": "Philox",
        "state": {"counter": [0, *key], "key": [seed, stream]},
        "buffer": [0, 0, 0, 0],
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    _per_thread.bits.state = state
    return _per_thread.generator


def normals(
    seed: int,
    stream: int,
    key: Key,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normals, a pure function of ``(seed, stream, key)``.

    Prefix-stable by rows: a draw of more rows begins with the draw of fewer, so a row does not depend on the
    size of its batch. Drawn in float64 on the CPU, then rounded to ``dtype`` and moved to ``device``.

    Arguments:
        seed: An integer in [0, 2^64), see :func:`fresh_seed`.
        stream: What the draw is for, a :class:`Stream` or another integer in [0, 2^64).
        key: Three integers in [0, 2^64).
        shape: The shape of the draw, with shape ``(rows, *event)``.
        dtype: ``torch.float32`` or ``torch.float64``.
        device: Where the result is to be.

    Raises:
        OverflowError: If an integer is outside [0, 2^64).

    Example:
        >>> a = normals(0, Stream.START, (0, 0, 0), (2, 3))
        >>> b = normals(0, Stream.START, (0, 0, 0), (5, 3))
        >>> torch.equal(a, b[:2])
        True
    """
    return to_tensor(keyed_generator(seed, stream, key).standard_normal(shape), dtype, device)


def signs(
    seed: int,
    stream: int,
    key: Key,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Independent signs, −1 or +1 with probability 1/2 (Rademacher), a function of ``(seed, stream, key)``.

    One bit a sign. Arguments, errors and prefix-stability as in :func:`normals`.

    Example:
        >>> signs(0, Stream.PROBES, (0, 0, 0), (2, 3)).abs()
        tensor([[1., 1., 1.],
                [1., 1., 1.]], dtype=torch.float64)
    """
    count = prod(shape)
    keyed_generator(seed, stream, key)
    words = np.asarray(_per_thread.bits.random_raw(-(-count // 64)), dtype="<u8")
    bits = np.unpackbits(words.view(np.uint8), count=count, bitorder="little")
    return to_tensor(2.0 * bits.astype(np.float64).reshape(shape) - 1.0, dtype, device)


class RowBlocks:
    """Keyed draws for the rows ``first_row, first_row + 1, …`` of a batch that has no end.

    Rows come in blocks of at least 16,384 values, each with a key of its own. A block is drawn from its first
    row, so a batch may begin at any row, at the cost of at most one block, and splits anywhere without a
    change.

    Arguments:
        shape: The shape of a draw, with shape ``(B, *event)``.
        first_row: The row, counted from 0, that is the first of the batch.

    Example:
        >>> rows = RowBlocks((4, 2)).normals(0, Stream.CELL_W, 0, 0)
        >>> last = RowBlocks((1, 2), first_row=3).normals(0, Stream.CELL_W, 0, 0)
        >>> bool((rows[3:] == last).all())
        True
    """

    def __init__(self, shape: tuple[int, ...], first_row: int = 0) -> None:
        self.shape = shape
        self.first_row = first_row
        self.values_per_row = prod(shape[1:])
        self.rows_per_block = -(-BLOCK_VALUES // self.values_per_row)
        self._blocks = list(self._split())

    def _split(self) -> Iterator[tuple[int, int, slice]]:
        """For each block: its number, how many of its values precede the batch, and its rows of the batch."""
        row = 0
        while row < self.shape[0]:
            block, skipped = divmod(self.first_row + row, self.rows_per_block)
            stop = min(self.shape[0], row + self.rows_per_block - skipped)
            yield block, skipped * self.values_per_row, slice(row, stop)
            row = stop

    def normals(self, seed: int, stream: int, first: int, second: int) -> FloatArray:
        """Standard normals with shape ``(B, *event)``; a block's key is ``(block, first, second)``."""
        out = np.empty(self.shape)
        for block, skipped, rows in self._blocks:
            generator = keyed_generator(seed, stream, (block, first, second))
            if skipped:
                generator.standard_normal(skipped)
            generator.standard_normal(out=out[rows])
        return out


def to_tensor(array: FloatArray, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """The array as a tensor, rounded and moved; in float64 on the CPU it shares the array's memory."""
    # Rounding in numpy: 0.4 us for a small array, where Tensor.to takes 3.4 us.
    tensor = torch.from_numpy(array.astype(NUMPY_DTYPES[dtype], copy=False))
    return tensor if device in ("cpu", CPU) else tensor.to(device)


def fresh_seed(seed: int | None) -> int:
    """The seed itself if there is one, else a new one from torch's global generator.

    So ``torch.manual_seed`` makes a run without seeds repeatable, and a run with a seed neither reads nor
    changes any global generator.

    Arguments:
        seed: An integer in [0, 2^64), or None.

    Raises:
        ArgumentError: If the seed is not an integer (a bool is not), or outside [0, 2^64).

    Example:
        >>> fresh_seed(7)
        7
        >>> _ = torch.manual_seed(0)
        >>> seed = fresh_seed(None)
        >>> _ = torch.manual_seed(0)
        >>> seed == fresh_seed(None)
        True
    """
    if seed is None:
        return int(torch.randint(2**63 - 1, (), device="cpu"))
    return whole_number("seed", seed, WORD)


def whole_number(name: str, value: object, stop: int, start: int = 0) -> int:
    """The value if it is an integer in [start, stop), else an ArgumentError that says so."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not start <= int(value) < stop:
        bound = "2^64" if stop == WORD else str(stop)
        raise ArgumentError(f"{name}={value!r} was given; give an integer from {start} to below {bound}.")
    return int(value)
