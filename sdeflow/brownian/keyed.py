r"""Keyed random tensors: a draw is a pure function of integers.

A draw is named by (seed, stream, key): whose it is, what it is for, and which one. How the names become words is
:mod:`~sdeflow.brownian.philox`, and :mod:`~sdeflow.brownian.sfc` for the cells of a path; how words become normals,
:mod:`~sdeflow.brownian.gaussian`. Draws are made on the CPU and then moved, so that the same integers give the same numbers in
float32 and in float64, on every device.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from math import prod
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sdeflow.brownian.gaussian import normal_rows
from sdeflow.brownian.philox import Key, words
from sdeflow.errors import ArgumentError

__all__ = ["FloatArray", "Stream", "fresh_seed", "normals", "signs", "to_tensor"]

FloatArray = NDArray[Any]  # float32 or float64

WORD = 2**64
CPU = torch.device("cpu")
NUMPY_DTYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Stream(IntEnum):
    """What a draw is for: draws for different purposes never share numbers."""

    CELL_W = 0  # the increment W of a base cell of a Brownian path
    CELL_H = 1  # its space-time Lévy area H
    TREE = 2  # the midpoint of a node of the tree beneath a cell, and how its Lévy area parts between the halves
    LEVY_AREA = 4  # the part of the Lévy area that W and H leave open
    PROBES = 5  # Hutchinson probes
    START = 6  # starting points, and samples of a base distribution


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
    size of its batch. Made on the CPU with the digits of float32, then taken to ``dtype`` and ``device``.

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
    return to_tensor(normal_rows([partial(words, seed, stream, key)], 0, prod(shape)).reshape(shape), dtype, device)


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
    raw = words(seed, stream, key, 0, -(-count // 64)).astype("<u8")
    bits = np.unpackbits(raw.view(np.uint8), count=count, bitorder="little")
    return to_tensor(2.0 * bits.astype(np.float64).reshape(shape) - 1.0, dtype, device)


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
