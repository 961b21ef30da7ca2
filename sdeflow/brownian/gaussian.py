r"""Normals from random words, by Box and Muller's transform.

A word of 64 bits makes a pair of independent standard normals: its upper half U and its lower half V, read as an unsigned and a
signed integer of 32 bits, give

.. math:: z = r \cos\theta, \quad n = r \sin\theta, \qquad
          r = \sqrt{-2 \ln\big((U + \tfrac12) \, 2^{-32}\big)}, \quad \theta = \pi V \, 2^{-31}.

Normals are numbers of float32 (24 digits, and none beyond 6.8, which 3·10⁻¹¹ of a normal law is): a path in float64 has the
same ones, and carries on from them in float64. Per normal on one core this takes 2 ns, the words .9 (SFC64) or 1.8 (Philox)
more; numpy's ziggurat takes 8 in float32 and 12 in float64 on Philox, ``torch.randn`` 3.4 and 17 without being keyed.

References:
    A note on the generation of random normal deviates (Box and Muller, 1958), https://doi.org/10.1214/aoms/1177706645
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdeflow.brownian import philox
from sdeflow.brownian.philox import Key, Words, words_at

__all__ = ["Normals", "normal_rows", "pairs", "pairs_at"]

Normals = NDArray[np.float32]
FloatArray = NDArray[Any]
Draw = Callable[[int, int], Words]

CHUNK = 16384  # words that are transformed together: what they turn into stays in the second-level cache
PART = 8192  # words that are asked for together
HIGH, LOW = (1, 0) if sys.byteorder == "little" else (0, 1)  # the halves of a word, in memory
UNIT, HALF_UNIT = np.float32(2.0**-32), np.float32(2.0**-33)
RADIANS = np.float32(np.pi * 2.0**-31)


def box_muller(bits: Words, z: Normals, n: Normals, variance: float = 1.0) -> None:
    """Fill z and n with the pairs of some words, all with the same length, as normals of some variance."""
    halves = bits.view(np.uint32)
    r = halves[HIGH::2].astype(np.float32)
    r *= UNIT
    r += HALF_UNIT
    np.log(r, out=r)
    r *= np.float32(-2.0 * variance)
    np.sqrt(r, out=r)
    angle = halves[LOW::2].view(np.int32).astype(np.float32)
    angle *= RADIANS
    np.multiply(np.cos(angle), r, out=z)
    np.multiply(np.sin(angle, out=angle), r, out=n)


def normal_rows(draws: Sequence[Draw], first: int, count: int, variance: float = 1.0) -> Normals:
    """Values ``first, …, first + count − 1`` of each of some draws, with shape ``(draws, count)``.

    Value 2i of a draw is the z of its word i, and value 2i + 1 the n.

    Arguments:
        draws: What gives the words of each, called with a first word and a number of them.
        first: The first value.
        count: How many there are.
        variance: Their variance.

    Example:
        >>> from functools import partial
        >>> draws = [partial(philox.words, 0, 0, (k, 0, 0)) for k in range(2)]
        >>> rows = normal_rows(draws, 0, 6)
        >>> bool((normal_rows(draws[1:], 3, 2) == rows[1, 3:5]).all())
        True
    """
    skipped = first % 2
    start, stop = first // 2, (first + count + 1) // 2
    out = np.empty((len(draws), 2 * (stop - start)), np.float32)
    edges = [start, *range(start - start % PART + PART, stop, PART), stop]
    parts = [(left, right - left) for left, right in pairwise(edges)]
    flat, bits = out.reshape(-1), np.empty(min(CHUNK, out.size // 2), np.uint64)
    ready = done = 0
    for draw in draws:
        for left, many in parts:
            if ready + many > CHUNK:
                done, ready = _transform(bits[:ready], flat, done, variance), 0
            bits[ready : ready + many] = draw(left, many)
            ready += many
    _transform(bits[:ready], flat, done, variance)
    return out if out.shape[1] == count else out[:, skipped : skipped + count]


def _transform(bits: Words, flat: Normals, done: int, variance: float) -> int:
    """Write the normals of some words behind those that are there; return how many there are then."""
    stop = done + 2 * len(bits)
    box_muller(bits, flat[done:stop:2], flat[done + 1 : stop : 2], variance)
    return stop


def pairs(seed: int, stream: int, key: Key, first: int, count: int) -> tuple[Normals, Normals]:
    """The pairs (z, n) of words ``first, …, first + count − 1`` of a draw."""
    z, n = np.empty((2, count), np.float32)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        box_muller(philox.words(seed, stream, key, first + start, stop - start), z[start:stop], n[start:stop])
    return z, n


def pairs_at(seed: int, stream: int, first: Words, count: int, k0: Words, k1: Words) -> tuple[Normals, Normals]:
    """The pairs (z, n) of ``count`` words from word ``first[i]`` of the draw (k0[i], k1[i], 0), with shape ``(i, count)``.

    What :func:`pairs` gives for one key, for many keys at once.

    Example:
        >>> cell, node, first = np.array([[3, 3], [5, 6], [10, 11]], np.uint64)
        >>> z, n = pairs_at(0, 2, first, 3, cell, node)
        >>> bool((z[1] == pairs(0, 2, (3, 6, 0), 11, 3)[0]).all())
        True
    """
    block, place = np.divmod(first, np.uint64(philox.BLOCK))
    blocks = -(-(count + (philox.BLOCK - 1 if place.any() else 0)) // philox.BLOCK)
    z, n = np.empty((2, len(first), count), np.float32)
    ahead = np.arange(blocks, dtype=np.uint64)
    step = max(1, CHUNK // (philox.BLOCK * blocks))
    for start in range(0, len(first), step):
        rows = slice(start, start + step)
        bits = words_at(
            seed, stream, block[rows, None] + ahead, k0[rows, None], k1[rows, None], np.zeros((1, 1), np.uint64)
        )
        bits = bits.reshape(len(bits), -1)
        wanted = (place[rows, None] + np.arange(count, dtype=np.uint64)).astype(np.intp)
        chosen = np.take_along_axis(bits, wanted, axis=1).reshape(-1)
        box_muller(chosen, z[rows].reshape(-1), n[rows].reshape(-1))
    return z, n
