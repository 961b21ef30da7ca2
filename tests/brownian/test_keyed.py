"""Keyed draws: a pure function of five integers, stable under batch size, blind to global state."""

from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdeflow.brownian import Stream, fresh_seed, normals, signs
from sdeflow.errors import ArgumentError

words = st.integers(0, 2**64 - 1)
keys = st.tuples(words, words, words)
rows = st.integers(0, 70)
seeded = settings(derandomize=True, deadline=None, max_examples=50)


@pytest.mark.parametrize("draw", [normals, signs])
@seeded
@given(seed=words, key=keys, few=rows, more=rows, event=st.sampled_from([(), (1,), (3,), (2, 5)]))
def test_a_draw_of_more_rows_begins_with_the_draw_of_fewer(draw, seed, key, few, more, event):
    short = draw(seed, 0, key, (few, *event))
    long = draw(seed, 0, key, (few + more, *event))
    assert torch.equal(short, long[:few])


@pytest.mark.parametrize("draw", [normals, signs])
def test_float32_is_float64_rounded(draw):
    double = draw(3, 1, (4, 1, 5), (9, 2), torch.float64)
    single = draw(3, 1, (4, 1, 5), (9, 2), torch.float32)
    assert single.dtype == torch.float32
    assert torch.equal(single, double.float())


def test_each_of_the_five_integers_matters():
    """All 3^5 names that differ in any word, in its lowest or its highest bit, give different numbers."""
    names = list(product([0, 1, 2**63], repeat=5))
    drawn = {tuple(normals(a, b, (c, d, e), (2,)).tolist()) for a, b, c, d, e in names}
    assert len(drawn) == len(names)


def test_long_draws_do_not_run_into_the_next_key():
    """Neighbours in the lowest word of the key differ by 2^64 in the counter: no pair in common."""
    first, second = (set(map(tuple, normals(0, 0, (k, 0, 0), (20_000, 2)).tolist())) for k in (0, 1))
    assert not first & second


def test_signs_are_fair_and_independent():
    """Mean and lagged products of 65,536 signs within 6 standard errors: false alarms below 2e-8."""
    drawn = signs(0, Stream.PROBES, (0, 0, 0), (65_536,))
    assert set(drawn.tolist()) == {-1.0, 1.0}
    for statistic in [drawn, *(drawn[lag:] * drawn[:-lag] for lag in (1, 2, 7, 8, 9, 32, 63, 64))]:
        assert abs(statistic.mean()) < 6 / statistic.numel() ** 0.5


def test_threads_do_not_disturb_each_other():
    def draw(k: int) -> torch.Tensor:
        return normals(0, 0, (k, 0, 0), (20_000,))  # long enough for numpy to let other threads run

    alone = [draw(k) for k in range(64)]
    with ThreadPoolExecutor(8) as pool:
        assert all(map(torch.equal, alone, pool.map(draw, range(64))))


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), 2**64 - 1])
def test_a_seed_is_itself_and_leaves_the_global_generators_alone(seed):
    before = torch.get_rng_state(), str(np.random.get_state())
    assert fresh_seed(seed) == seed
    normals(fresh_seed(seed), 0, (0, 0, 0), (10,))
    signs(fresh_seed(seed), 0, (0, 0, 0), (10,))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())


def test_no_seed_follows_torch_manual_seed():
    torch.manual_seed(1)
    first, second = fresh_seed(None), fresh_seed(None)
    torch.manual_seed(1)
    assert first == fresh_seed(None)
    assert first != second


@pytest.mark.parametrize("seed", [True, -1, 2**64, 1.0, "1", torch.tensor(1.5)])
def test_a_wrong_seed_is_refused_in_a_sentence(seed):
    with pytest.raises(ArgumentError, match=r"seed=.* was given; give an integer from 0 to below 2\^64\."):
        fresh_seed(seed)
