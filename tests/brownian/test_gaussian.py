"""Normals from words: their law, and the same values however they are asked for."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sdeflow.brownian import gaussian, philox, sfc
from sdeflow.brownian.gaussian import box_muller, normal_rows, pairs, pairs_at

seeded = settings(derandomize=True, deadline=None, max_examples=50)


def ciphered(k, seed=0):
    return partial(philox.words, seed, 1, (k, 7, 0))


def run_on(k, seed=0):
    return partial(sfc.words, seed, 1, k)


generators = pytest.mark.parametrize("draw", [ciphered, run_on])


def transformed(*bits):
    z, n = np.empty((2, len(bits)), np.float32)
    box_muller(np.array(bits, np.uint64), z, n)
    return z, n


def test_a_word_is_the_pair_of_the_formula():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    upper, lower = (bits >> np.uint64(32)).astype(float), (bits & np.uint64(2**32 - 1)).astype(np.uint32).view(np.int32)
    r, angle = np.sqrt(-2 * np.log((upper + 0.5) / 2**32)), np.pi * lower / 2**31
    z, n = transformed(*bits)
    assert np.allclose(z, r * np.cos(angle), atol=2e-6)
    assert np.allclose(n, r * np.sin(angle), atol=2e-6)


def test_the_extreme_words_give_finite_numbers():
    z, n = transformed(0, 2**64 - 1, 2**32 - 1, 2**63, 2**31)
    assert np.isfinite([z, n]).all()
    assert z[0] == pytest.approx(np.sqrt(66 * np.log(2)))  # U = 0: the furthest there is, 6.76


@pytest.mark.parametrize("kind", ["philox", "sfc", "pairs"])
def test_the_law_is_normal(kind):
    """10^6 values: Kolmogorov's distance, and counts beyond 2, 3, 4 and 4.5, each wrong with probability 1e-7 or less."""
    count = 10**6
    if kind == "pairs":
        x = np.concatenate(pairs(1, 2, (3, 4, 5), 0, count // 2))
    else:
        x = normal_rows([(ciphered if kind == "philox" else run_on)(3)], 0, count)[0]
    assert (
        np.abs(np.sort(stats.norm.cdf(x)) - np.arange(1, count + 1) / count).max()
        < np.sqrt(np.log(2e7) / (2 * count)) + 1e-6
    )
    for bound in (2, 3, 4, 4.5):
        p = 2 * stats.norm.sf(bound)
        assert 5e-8 < stats.binom.cdf((np.abs(x) > bound).sum(), count, p) < 1 - 5e-8


@generators
def test_neighbours_and_pairs_are_independent(draw):
    """Correlations of values and of squares at lags 1 to 9 and across keys, within 6 standard errors: 4e-8 in all."""
    x = normal_rows([draw(k) for k in range(4)], 0, 50_000).astype(float)
    for y in (x, (x**2 - 1) / np.sqrt(2)):
        products = [y[:, lag:] * y[:, :-lag] for lag in range(1, 10)] + [y[1:] * y[:-1]]
        for product in products:
            assert abs(product.mean()) < 6 / np.sqrt(product.size)


@generators
@seeded
@given(
    count=st.sampled_from([1, 2, 5, 300, 16_384, 40_001]),
    first=st.integers(0, 40),
    cut=st.integers(0, 40),
    keys=st.integers(1, 40),
    which=st.integers(0, 39),
)
def test_values_do_not_depend_on_what_they_are_drawn_with(draw, count, first, cut, keys, which):
    keys = min(keys, 200_000 // count + 1)
    draws = [draw(k, seed=5) for k in range(keys)]
    which, cut = which % keys, min(cut, count)
    alone = normal_rows([draws[which]], first + cut, count - cut)[0]
    assert np.array_equal(normal_rows(draws, first, count)[which, cut:], alone)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 784])
@pytest.mark.parametrize("aligned", [False, True])
def test_pairs_of_many_keys_are_those_of_each(count, aligned):
    rng = np.random.default_rng(0)
    many = 50
    first = rng.integers(0, 1000, many).astype(np.uint64) * np.uint64(4 if aligned else 1)
    cell, node = rng.integers(0, 2**40, (2, many)).astype(np.uint64)
    z, n = pairs_at(9, 2, first, count, cell, node)
    for i in range(many):
        one = pairs(9, 2, (int(cell[i]), int(node[i]), 0), int(first[i]), count)
        assert np.array_equal(z[i], one[0])
        assert np.array_equal(n[i], one[1])


def test_large_draws_are_made_in_parts(monkeypatch):
    whole = normal_rows([run_on(0)], 0, 5000), pairs(0, 0, (0, 0, 0), 0, 5000)
    monkeypatch.setattr(gaussian, "CHUNK", 128)
    monkeypatch.setattr(gaussian, "PART", 50)
    assert np.array_equal(normal_rows([run_on(0)], 0, 5000), whole[0])
    assert np.array_equal(pairs(0, 0, (0, 0, 0), 0, 5000), whole[1])
