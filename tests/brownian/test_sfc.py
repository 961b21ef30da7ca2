"""The generator of cells: numpy's, named by integers, and what near names give has nothing in common."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdeflow.brownian import Stream, sfc

word = st.integers(0, 2**64 - 1)
seeded = settings(derandomize=True, deadline=None, max_examples=50)


def by_hand(a, b, c, count):
    """The published step on integers, from counter 1."""
    made, mask = [], 2**64 - 1
    for counter in range(1, count + 1):
        made.append((a + b + counter) & mask)
        a, b, c = b ^ (b >> 11), (c + (c << 3)) & mask, (((c << 24) | (c >> 40)) + made[-1]) & mask
    return made


@seeded
@given(seed=word, stream=st.integers(0, 255), number=word, first=st.integers(0, 20), count=st.integers(0, 20))
def test_words_are_those_of_the_published_step(seed, stream, number, first, count):
    drawn = sfc.words(seed, stream, number, first, count)
    assert drawn.tolist() == by_hand(seed, number, stream, sfc.WARM_UP + first + count)[sfc.WARM_UP + first :]


@seeded
@given(first=st.integers(0, 3 * sfc.BLOCK), count=st.integers(0, 3 * sfc.BLOCK), number=word)
def test_a_part_of_a_draw_is_a_part_of_the_whole(first, count, number):
    whole = sfc.words(3, 1, number, 0, first + count)
    assert np.array_equal(sfc.words(3, 1, number, first, count), whole[first:])


def test_names_are_injective(monkeypatch):
    """The three words of a key give back the seed, the number, the block and the stream."""
    assert max(Stream) < 2**8
    states = [
        sfc.keyed_bits(seed, stream, number, block).state["state"]["state"].tolist()
        for seed in (0, 1)
        for stream in Stream
        for number in (0, 1)
        for block in (0, 1, 2**50)
    ]
    assert len({tuple(state) for state in states}) == len(states)
    assert {state[3] for state in states} == {1}  # one counter, so that no run meets another


@pytest.mark.parametrize("seed", [0, 12345, 2**63])
def test_one_bit_of_a_name_changes_half_of_all_bits(seed):
    """Bits of the key against all bits of the first word, over 400 names: no count beyond 6.5 s.e.

    29 · 64 counts, each out of bounds with probability 1e-10: false alarms below 2e-7 a seed. A warm-up of 3 words fails.
    """
    names = 400
    rng = np.random.default_rng(seed)
    near = [(seed, int(rng.integers(0, 4)), k, 0) for k in range(names)]  # seed, stream, number, block

    def first(flip=None, warm_up=sfc.WARM_UP):
        out = []
        for name in near:
            name = list(name)
            if flip is not None:
                name[flip[0]] ^= 1 << flip[1]
            bits = sfc.keyed_bits(*name[:3], name[3])
            out.append(bits.random_raw(warm_up + 1)[-1])
        return np.array(out, np.uint64)

    def worst(warm_up):
        base, most = first(warm_up=warm_up), 0.0
        for which, wide in ((0, 64), (1, 8), (2, 64), (3, 48)):
            for bit in range(0, wide, 7):
                changed = np.unpackbits((base ^ first((which, bit), warm_up)).view(np.uint8).reshape(-1, 8), axis=1)
                most = max(most, np.abs(changed.mean(0) - 0.5).max() * 2 * np.sqrt(names))
        return most

    assert worst(sfc.WARM_UP) < 6.5
    assert worst(3) > 10


def test_consecutive_numbers_are_not_correlated():
    """Bits of 2,000 cells that follow each other: 2 · 64² correlations within 6.5 standard errors (7e-7 in all)."""
    first = np.array([sfc.words(0, 0, k, 0, 16) for k in range(2001)])
    bits = 2.0 * np.unpackbits(first.view(np.uint8).reshape(2001, 16, 8), axis=2).reshape(2001, 16, 64) - 1
    for lag in (1, 2):
        a, b = bits[:-lag].reshape(-1, 64), bits[lag:].reshape(-1, 64)
        assert np.abs(a.T @ b / len(a)).max() < 6.5 / np.sqrt(len(a))


def test_a_generator_whose_state_is_not_where_it_is_looked_for_is_set_by_its_name(monkeypatch):
    expected = sfc.words(3, 1, 7, 100, 50)
    monkeypatch.setattr(sfc, "_state_in_memory", lambda bits: None)
    monkeypatch.setattr(sfc, "_per_thread", sfc._PerThread())
    assert sfc._per_thread.state is not None
    assert np.array_equal(sfc.words(3, 1, 7, 100, 50), expected)
    assert np.array_equal(sfc.words(3, 1, 7, 100, 50), expected)
