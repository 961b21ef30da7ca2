"""The cipher: numpy's for consecutive words, ours on arrays of counters, and the two are one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox

from sdeflow.brownian.philox import words, words_at

word = st.integers(0, 2**64 - 1)
seeded = settings(derandomize=True, deadline=None, max_examples=50)


@seeded
@given(seed=word, stream=word, key=st.tuples(word, word, word), first=st.integers(0, 50), count=st.integers(0, 20))
def test_words_are_those_of_a_fresh_philox(seed, stream, key, first, count):
    name = {
        "counter": np.array([0, *key], np.uint64),
        "key": np.array([seed, stream], np.uint64),
    }  # lists become floats
    fresh = Philox(**name).random_raw(first + count)
    assert np.array_equal(words(seed, stream, key, first, count), fresh[first:])


@seeded
@given(
    seed=word, stream=word, blocks=st.lists(st.tuples(st.integers(0, 2**63), word, word, word), min_size=1, max_size=5)
)
def test_the_cipher_on_arrays_is_numpys(seed, stream, blocks):
    counters = np.array(blocks, np.uint64).T
    expected = [words(seed, stream, (k0, k1, k2), 4 * block, 4) for block, k0, k1, k2 in blocks]
    assert np.array_equal(words_at(seed, stream, *counters), expected)


def test_published_words():
    """The first block of key 0 and counter 1, as Random123's Philox4x64-10 gives it (numpy counts before it draws)."""
    zero = np.zeros(1, np.uint64)
    drawn = [int(w) for w in words_at(0, 0, np.array([2**64 - 1], np.uint64), zero, zero, zero)[0]]  # counter 0
    assert drawn == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
