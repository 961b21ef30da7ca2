r"""SFC64: random words for the cells of a path, in order and at half the price of a cipher.

A cell is drawn from its first row on, so its words need not be had one by one, as those of a node of the tree must: a
generator that runs on from a key will do, if runs from different keys never meet. The state of SFC64 (*small, fast,
chaotic, counting*) is three words and a counter that goes up by one with each word that it makes, and its step can be undone.
So two runs that both begin at counter 1 are in one state only if they began in one: runs with different keys share nothing,
however near their keys, within 2^64 words. The key of block j of a draw is

.. math:: (\text{seed}, \; \text{number}, \; 2^8 j + \text{stream}) \in [0, 2^{64})^3,

injective for streams below 2^8 and blocks below 2^56. Near keys begin with near words, so the first :data:`WARM_UP` are
dropped; PractRand, where the generator comes from, drops 12 to 18. A draw is cut into blocks so that its middle is had without
its beginning.

References:
    PractRand (Chris Doty-Humphrey, 2010–2020), https://pracrand.sourceforge.net
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.random import SFC64

from sdeflow.brownian.philox import Words

__all__ = ["BLOCK", "words"]

BLOCK = 8192  # words: setting the state costs as much as 500 of them
WARM_UP = 24


class _PerThread(threading.local):
    """One reusable generator a thread, so that no state is shared and none outlives a draw."""

    def __init__(self) -> None:
        self.bits = SFC64(0)
        self.state: Any = None
        words = _state_in_memory(self.bits)
        if words is None:
            state = np.ones(4, np.uint64)
            words = memoryview(state.data)
            self.state = {"bit_generator": "SFC64", "state": {"state": state}, "has_uint32": 0, "uinteger": 0}
        self.words = words


def _state_in_memory(bits: SFC64) -> memoryview | None:
    """The four words of the state where the generator keeps them, if they are where numpy's SFC64 has always had them.

    Writing them there takes a sixth of the time that ``bits.state = …`` does, which is as much as drawing 400 words.
    """
    words = memoryview((ctypes.c_uint64 * 4).from_address(bits.ctypes.state_address)).cast("B").cast("Q")
    return words if words.tolist() == bits.state["state"]["state"].tolist() else None


_per_thread = _PerThread()


def keyed_bits(seed: int, stream: int, number: int, block: int) -> SFC64:
    """This thread's generator, set to the beginning of a block of a draw (valid until the thread's next draw)."""
    own = _per_thread
    words = own.words
    words[0], words[1], words[2], words[3] = seed, number, (block << 8) | stream, 1
    if own.state is not None:
        own.bits.state = own.state
    return own.bits


def words(seed: int, stream: int, number: int, first: int, count: int) -> Words:
    """Words ``first, …, first + count − 1`` of the draw with a number.

    Raises:
        ValueError: If an integer is outside [0, 2^64).

    Example:
        >>> a, b = words(0, 1, 5, 0, 5000), words(0, 1, 5, 4000, 1000)
        >>> bool((a[4000:] == b).all())
        True
    """
    block, start = divmod(first, BLOCK)
    skipped, here = WARM_UP + start, BLOCK - start
    if count <= here:
        return keyed_bits(seed, stream, number, block).random_raw(skipped + count)[skipped:]
    return np.concatenate(
        [words(seed, stream, number, first, here), words(seed, stream, number, first + here, count - here)]
    )
