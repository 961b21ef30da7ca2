"""The Brownian path: additive, order-free, with the law of (W, H), cheap on its grid, at home in torchsde."""

import math
import pickle
import random
import tracemalloc
from functools import reduce
from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
import torchsde
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow.brownian.path as path_module
from sdeflow.brownian import BrownianPath, Stream, philox, sfc
from sdeflow.brownian.area import Piece, combine, foster_area, split
from sdeflow.brownian.lattice import DEPTH
from sdeflow.errors import ArgumentError

torch.set_num_threads(1)

T0, T1 = -0.3, 1.4
GRID = [T0, -0.1, 0.0, 0.45, 0.5, 1.3, T1]
seeded = settings(derandomize=True, deadline=None, max_examples=40)
times = st.floats(T0, T1)
cells = st.sampled_from([1, 3, 10, GRID])
intervals = st.tuples(times, times).map(sorted).filter(lambda ends: ends[1] - ends[0] > 1e-4)


def make(shape=(3, 2), seed=0, **options):
    return BrownianPath(shape, T0, T1, **{"levy": "space-time", "dtype": torch.float64, "seed": seed, **options})


def chen(path, ends):
    """(W, H) over consecutive intervals, combined."""
    pieces = [Piece(t - s, *(part.numpy() for part in path.levy(s, t))) for s, t in pairwise(ends) if s < t]
    return reduce(combine, pieces)


# --- consistency --------------------------------------------------------------------------------------------


@seeded
@given(seed=st.integers(0, 2**64 - 1), cells=cells, ends=st.lists(times, min_size=2, max_size=6, unique=True))
def test_increments_add_and_levy_areas_obey_chen(seed, cells, ends):
    ends = sorted(round(t, 4) for t in ends)
    if ends[0] == ends[-1]:
        return
    path = make(seed=seed, cells=cells)
    W, H = path.levy(ends[0], ends[-1])
    whole = chen(path, ends)
    # Rounding a time to the lattice moves it by 2e-10 at most, an interval of 1e-4 by 4e-6 of itself.
    np.testing.assert_allclose(whole.W, W, atol=1e-12)
    np.testing.assert_allclose(whole.H, H, atol=1e-5)


@seeded
@given(cells=cells, places=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 64)), min_size=2, max_size=6))
def test_chen_is_exact_on_the_lattice(cells, places):
    path = make(cells=cells)

    def time(place):
        left, right = (path.edge(place[0] % path.cells + side) for side in (0, 1))
        return left + (right - left) * place[1] / 64

    ends = sorted(map(time, places))
    if ends[0] < ends[-1]:
        np.testing.assert_allclose(chen(path, ends).H, path.levy(ends[0], ends[-1])[1], atol=1e-12)


@seeded
@given(cells=cells, queries=st.lists(intervals, min_size=2, max_size=8), order=st.randoms(use_true_random=False))
def test_answers_do_not_depend_on_what_was_asked_before(cells, queries, order: random.Random):
    path = make(cells=cells)
    alone = {tuple(q): make(cells=cells).levy(*q) for q in queries}
    order.shuffle(queries)
    for s, t in queries + queries[::-1]:
        W, H = path.levy(s, t)
        assert torch.equal(W, alone[s, t][0])
        assert torch.equal(H, alone[s, t][1])
        assert torch.equal(W, path(s, t)) or torch.allclose(W, path(s, t), atol=1e-13)
        W.zero_(), H.zero_()  # an answer is the caller's own


@seeded
@given(cells=cells, query=intervals, seed=st.integers(0, 99))
def test_the_path_is_the_same_in_float32_and_without_levy(cells, query, seed):
    double = make(cells=cells, seed=seed)(*query)
    assert torch.equal(make(cells=cells, seed=seed, levy="none")(*query), double)
    single = make(cells=cells, seed=seed, dtype=torch.float32)(*query)
    torch.testing.assert_close(single, double.float(), rtol=0, atol=60 * 2.0**-24 * math.sqrt(T1 - T0))  # of 60 pieces
    assert torch.equal(
        make(cells=cells, seed=seed, levy="none").reverse()(T0, T1), -make(cells=cells, seed=seed)(T0, T1)
    )


@seeded
@given(
    cells=cells,
    seed=st.integers(0, 99),
    first_row=st.integers(0, 9),
    queries=st.lists(intervals, min_size=2, max_size=6),
    event=st.sampled_from([(), (1,), (3,), (2, 4)]),
    mirrored=st.booleans(),
)
def test_rows_may_have_times_of_their_own(cells, seed, first_row, queries, event, mirrored):
    """Each row gets what it gets when all are asked about its interval, be it empty, a cell, or across cells."""
    path = make((len(queries), *event), cells=cells, seed=seed, first_row=first_row)
    path = path.reverse() if mirrored else path
    start, stop = torch.tensor(queries, dtype=torch.float64).T
    W, H = path.levy(start, stop)
    for row, query in enumerate(queries):
        alone = path.levy(*query)
        torch.testing.assert_close(W[row], alone[0][row], rtol=0, atol=1e-13)
        torch.testing.assert_close(H[row], alone[1][row], rtol=0, atol=1e-13)
    assert torch.equal(path(start, stop), W)


def test_rows_that_ask_outside_the_path_are_refused():
    for start, stop in [
        (torch.tensor([0.0, 0.5, 0.2]), 0.4),
        (0.0, torch.tensor([0.5, T1 + 1, 0.7])),
        (torch.tensor([T0, torch.nan, 0.0]), 1.0),
    ]:
        with pytest.raises(ArgumentError, match="The rows ask for intervals"):
            make()(start, stop)


@seeded
@given(cells=cells, interval=intervals, part=st.sampled_from([1.0, 0.1, 1e-3, 1e-6]))
def test_a_shortened_interval_takes_few_draws(cells, interval, part):
    path, (start, stop) = make(cells=cells), interval
    stop = start + part * (stop - start)
    shorter = path.shorten(start, stop)
    assert stop - 0.063 * (stop - start) <= shorter <= stop
    assert shorter > start or stop == start
    both = path.shorten(*(torch.tensor([v, T1], dtype=torch.float64) for v in (start, stop)))
    assert both[0] == shorter
    first, last = (path._lattice.position(t, 2.0**-52) for t in (start, shorter))
    if last - first > 16:  # a multiple of a power of two that is a sizeable part of the interval
        assert (last & -last) >= (last - first) / 64 or last % path_module.WHOLE == 0


@seeded
@given(cells=cells, first=st.integers(0, 5), count=st.integers(1, 6), mirrored=st.booleans())
def test_cells_drawn_together_are_the_cells(cells, first, count, mirrored):
    path = make(cells=cells).reverse() if mirrored else make(cells=cells)
    first = first % path.cells
    count = min(count, path.cells - first)
    W, H = path.cell_levies(first, count)
    assert torch.equal(path.cell_increments(first, count), W)
    for i in range(count):
        assert torch.equal(path.cell(first + i), W[i])
        assert torch.equal(path.cell_levy(first + i)[1], H[i])
        asked = path.levy(path.edge(first + i), path.edge(first + i + 1))
        torch.testing.assert_close(asked, (W[i], H[i]), rtol=0, atol=1e-13)


@seeded
@given(query=intervals, first=st.integers(0, 9000), rows=st.integers(1, 5))
def test_first_row_is_a_slice_of_the_larger_path(query, first, rows):
    event = (2,)
    later = make((rows, *event), first_row=first)
    W, H = make((first + rows, *event), cells=2).cell_levy(1)
    np.testing.assert_array_equal(make((rows, *event), cells=2, first_row=first).cell_levy(1)[1], H[first:])
    np.testing.assert_array_equal(make((rows, *event), cells=2, first_row=first).cell(1), W[first:])
    parts = [make((1, *event), first_row=first + r) for r in range(rows)]
    assert torch.equal(later(*query), torch.cat([part(*query) for part in parts]))
    assert torch.equal(later.area(*query), torch.cat([part.area(*query) for part in parts]))


def test_paths_of_other_seeds_cells_and_rows_are_other_paths():
    paths = [make(seed=0), make(seed=1), make(seed=0, first_row=3), make(seed=0, cells=2)]
    values = torch.stack([path(T0, T1)[0, 0] for path in paths])
    assert len(values.unique()) == 4


def test_pickling_keeps_the_path_and_drops_the_cache():
    path = make(cells=GRID)
    W = path(0.1, 0.77)
    copy = pickle.loads(pickle.dumps(path))
    assert len(pickle.dumps(path)) < 4_000
    assert torch.equal(copy(0.1, 0.77), W)
    assert torch.equal(pickle.loads(pickle.dumps(path.reverse()))(0.2, 0.3), path.reverse()(0.2, 0.3))


def test_global_generators_are_neither_read_nor_changed():
    torch.manual_seed(0)
    before = torch.get_rng_state(), str(np.random.get_state())
    first = make().levy(0.1, 0.2)[1]
    make().area(0.1, 0.2)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())
    torch.manual_seed(1)
    assert torch.equal(make().levy(0.1, 0.2)[1], first)


def test_without_a_seed_torch_manual_seed_decides():
    torch.manual_seed(3)
    path = BrownianPath((2, 1), 0.0, 1.0, seed=None)
    torch.manual_seed(3)
    assert torch.equal(path(0.0, 1.0), BrownianPath((2, 1), 0.0, 1.0, seed=None)(0.0, 1.0))


# --- law ----------------------------------------------------------------------------------------------------


def exact_covariance(p, q):
    """Of two functionals, W = ∫ dB and H = ∫ ((b − r)/(b − a) − 1/2) dB, exact by Simpson's rule."""
    low, high = max(p[1], q[1]), min(p[2], q[2])
    if low >= high:
        return 0.0

    def weight(functional, r):
        kind, a, b = functional
        return 1.0 if kind == "W" else (b - r) / (b - a) - 0.5

    ends, middle = (weight(p, low) * weight(q, low), weight(p, high) * weight(q, high)), (low + high) / 2
    return (high - low) / 6 * (sum(ends) + 4 * weight(p, middle) * weight(q, middle))


def largest_deviation(path, queries):
    """The largest difference of sample and exact covariances of all (W, H), in standard errors."""
    functionals = [(kind, s, t) for s, t in queries for kind in "WH"]
    samples = [part.flatten() for s, t in queries for part in path.levy(s, t)]
    deviations = []
    for (p, x), (q, y) in combinations_with_replacement(list(zip(functionals, samples, strict=True)), 2):
        exact = exact_covariance(p, q)
        error = math.sqrt((exact_covariance(p, p) * exact_covariance(q, q) + exact**2) / x.numel())
        deviations.append(abs(float((x * y).mean()) - exact) / error)
    return max(deviations)


BOUND = 6.5  # standard errors
PINNED = [(0.1, 0.6), (0.2, 1.3), (T0, T1), (0.53, 0.56)]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(cells=cells, queries=st.lists(intervals, min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_covariances_of_overlapping_queries(cells, queries, seed):
    """Var W = h, Var H = h/12, and all covariances, of 12,000 rows.

    At most 25 · 36 comparisons at 6.5 standard errors; with 12,000 rows the skewness of a sample covariance
    at most quadruples the normal tail of 8e-11: false alarms below 3e-7.
    """
    assert largest_deviation(make((12_000, 1), seed=seed, cells=cells), queries) < BOUND


def with_other_noise(z_scale, n_scale):
    return lambda whole, z, n: split(whole, z_scale * z, n_scale * n)


def without_levy_area(whole, z, n):
    return split(whole._replace(H=0 * whole.H), 2 * z, n)  # the midpoint's variance is right, H is lost


@pytest.mark.parametrize(
    "wrong",
    [with_other_noise(1.5, 1.0), with_other_noise(1.0, 1.5), without_levy_area],
    ids=["z", "n", "no-H"],
)
def test_a_wrong_tree_is_noticed(monkeypatch, wrong):
    assert largest_deviation(make((12_000, 1)), PINNED) < BOUND
    monkeypatch.setattr(path_module, "split", wrong)
    assert largest_deviation(make((12_000, 1)), PINNED) > BOUND


def kolmogorov_distance(x):
    x = x.flatten().sort().values
    cdf = torch.special.ndtr(x)
    rank = torch.arange(len(x) + 1, dtype=torch.float64) / len(x)
    return float(torch.maximum((rank[1:] - cdf).abs(), (rank[:-1] - cdf).abs()).max())


def innovations(path, s, t):
    """What a node of the tree adds to its parent: z and n, standardised, from public queries alone."""
    h, middle = t - s, (s + t) / 2
    (W, H), (W1, H1), (_, H2) = path.levy(s, t), path.levy(s, middle), path.levy(middle, t)
    return (W1 - W / 2 - 1.5 * H) / math.sqrt(h / 16), (H1 - H2) / math.sqrt(h / 12)


def test_midpoints_are_gaussian(monkeypatch):
    """Dvoretzky–Kiefer–Wolfowitz: each exceeds the bound with probability 1e-8, false alarms below 1e-7."""
    count = 12_000
    bound = math.sqrt(math.log(2e8) / (2 * count))
    path = BrownianPath((count, 1), 0.0, 1.0, seed=0, levy="space-time", dtype=torch.float64)
    for s, t in [(0.0, 1.0), (0.5, 0.75), (0.375, 0.5)]:
        assert all(kolmogorov_distance(x) < bound for x in innovations(path, s, t))
    monkeypatch.setattr(path_module, "split", lambda whole, z, n: split(whole, np.sign(z), n))
    assert kolmogorov_distance(innovations(path, 0.0, 0.25)[0]) > bound


def test_no_two_draws_share_a_key():
    """Every innovation of 4 levels beneath 4 cells, and every cell's own draws: all numbers differ."""
    path = BrownianPath((3, 2), 0.0, 4.0, seed=0, cells=4, levy="space-time", dtype=torch.float64)
    draws = [part for k in range(4) for part in path.cell_levy(k)]
    draws[1::2] = [H * math.sqrt(12) for H in draws[1::2]]
    for level in range(4):
        for j in range(4 * 2**level):
            draws += innovations(path, j / 2**level, (j + 1) / 2**level)
    values = torch.stack(draws).flatten()
    assert len(draws) == 8 + 2 * 4 * 15
    assert len((values * 1e8).round().unique()) == values.numel()


def recorded_draws(monkeypatch):
    """The names of all draws to come: (generator, seed, stream, key, block)."""
    drawn = []

    def recorder(generator):
        original = generator.keyed_bits

        def record(seed, stream, key, block):
            drawn.append((generator, seed, int(stream), key, block))
            return original(seed, stream, key, block)

        monkeypatch.setattr(generator, "keyed_bits", record)

    recorder(philox)
    recorder(sfc)
    return drawn


def test_keys_name_one_thing_each(monkeypatch):
    """From random queries: cells and nodes in range, W and H on streams of their own, no key twice."""
    drawn = recorded_draws(monkeypatch)
    random_times = random.Random(0)
    path = make((9000, 2), cells=GRID)  # drawn in parts
    for _ in range(20):
        s, t = sorted(random_times.uniform(T0, T1) for _ in range(2))
        before = len(drawn)
        path.levy(s, t)
        assert len(set(drawn[before:])) == len(drawn[before:])
    for generator, seed, stream, key, block in drawn:
        assert seed == 0
        if generator is sfc:
            assert stream in (Stream.CELL_W, Stream.CELL_H)
            assert 0 <= key < 6
            assert 0 <= block <= 9000 // sfc.BLOCK
        else:
            cell, node, last = key
            assert stream == Stream.TREE
            assert last == 0
            assert 0 <= cell < 6
            assert 1 <= node < 2**DEPTH
            assert 0 <= block <= 18_000 // 4
    assert {name[2] for name in drawn} == {0, 1, 2}


# --- cost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edges",
    [
        [0.1 + k * (1.0 / 50) for k in range(51)],
        np.linspace(0.1, 1.1, 51).tolist(),
        np.cumsum([0.1] + [0.02] * 50).tolist(),
        list(torch.linspace(0.1, 1.1, 51, dtype=torch.float32)),
    ],
    ids=["product", "linspace", "accumulated", "float32-tensors"],
)
@pytest.mark.parametrize("given_grid", [False, True])
def test_a_step_of_the_grid_is_one_draw(monkeypatch, edges, given_grid):
    grid = [0.1 + 0.02 * k for k in range(50)] + [1.1]
    path = BrownianPath((9000, 2), 0.1, 1.1, seed=0, cells=grid if given_grid else 50, dtype=torch.float64)
    drawn = recorded_draws(monkeypatch)
    for k, (s, t) in enumerate(pairwise(edges)):
        drawn.clear()
        W = path(s, t)
        assert drawn == [(sfc, 0, Stream.CELL_W, k, block) for block in (0, 1)]  # 9000 words in parts of 8192
        assert torch.equal(W, path.cell(k))
        assert path.edge(k) == pytest.approx(float(s), abs=1e-7)


def test_memory_does_not_grow_with_cells_or_queries():
    path = BrownianPath((4, 2), 0.0, 1.0, seed=0, cells=10**6, levy="space-time")
    generator = random.Random(0)

    def ask(count):
        for _ in range(count):
            path.cell_levy(generator.randrange(10**6))
            start = generator.random() * 0.999
            path.levy(start, start + 5e-6)
            assert len(path._recent) <= 2 * 2 * (DEPTH + 1)

    ask(10)
    tracemalloc.start()
    ask(100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000


def test_a_query_across_cells_holds_a_few_of_them_at_a_time():
    path = BrownianPath((1000, 10), 0.0, 1.0, seed=0, cells=500, levy="space-time")
    tracemalloc.start()
    path(0.0, 1.0)
    path.levy(0.0, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 80_000  # an array is 80 kB


def test_the_cache_is_bounded_for_large_batches():
    path = BrownianPath((256, 784), 0.0, 1.0, seed=0)
    path(0.0, 1 / 2**14)
    assert len(path._recent) * 4 * 4 * 256 * 784 <= path_module.CACHE_BYTES


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", [GRID, tuple(GRID), torch.from_numpy(np.array(GRID)), np.array(GRID)])
def test_given_cells_are_the_edges_however_they_come(edges):
    path = make(cells=edges)
    assert path.cells == 6
    assert [path.edge(k) for k in range(7)] == GRID
    for k, (s, t) in enumerate(pairwise(GRID)):
        assert torch.equal(path(s, t), path.cell(k))
        assert all(map(torch.equal, path.levy(s, t), path.cell_levy(k)))


def test_given_equal_cells_are_equal_cells():
    grid = [0.0, 0.25, 0.5, 0.75, 1.0]
    given_cells, equal_cells = (BrownianPath((3, 2), 0.0, 1.0, seed=0, cells=cells) for cells in (grid, 4))
    assert torch.equal(given_cells(0.1, 0.8), equal_cells(0.1, 0.8))


def test_an_interval_without_length_gives_zeros():
    path = make()
    for W in (path(0.2, 0.2), *path.levy(0.2, 0.2), path.reverse()(T1, T1)):
        assert torch.equal(W, torch.zeros(3, 2, dtype=torch.float64))
    assert not path.area(0.2, 0.2).any()


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_a_batch_may_be_empty(shape):
    path = make(shape)
    assert path(0.1, 0.2).shape == path.levy(0.1, 0.2)[1].shape == shape
    assert path.area(0.1, 0.2).numel() == 0


def test_one_time_is_the_path_from_its_beginning():
    assert torch.equal(make()(0.5), make()(T0, 0.5))


@pytest.mark.parametrize("as_time", [float, torch.tensor, np.float64, lambda t: torch.tensor([t])])
def test_times_may_be_numbers_or_tensors(as_time):
    path = BrownianPath((3, 2), 0.0, 1.0, seed=0)
    assert torch.equal(path(as_time(0.25), as_time(0.5)), path(0.25, 0.5))


def test_a_time_outside_by_rounding_is_at_the_end():
    path = make()
    assert torch.equal(path(T0 - 1e-12, T1 + 1e-12), path(T0, T1))
    assert torch.equal(path(torch.tensor(T0), torch.tensor(T1)), path(T0, T1))  # float32(1.4) is above 1.4


# --- reversal -----------------------------------------------------------------------------------------------


@seeded
@given(cells=cells, query=intervals)
def test_the_reversed_path_mirrors_the_original(cells, query):
    path, (s, t) = make(cells=cells), query
    reverse = path.reverse()
    W, H = path.levy(T0 + T1 - t, T0 + T1 - s)
    A = path.area(T0 + T1 - t, T0 + T1 - s)
    W_reverse, U, A_reverse = reverse(s, t, return_U=True, return_A=True)
    assert torch.equal(W_reverse, -W)
    assert torch.equal(reverse.levy(s, t)[1], H)
    torch.testing.assert_close(U, (t - s) * (H - W / 2))
    torch.testing.assert_close(A_reverse, -A)
    assert torch.equal(reverse(s, t), -path(T0 + T1 - t, T0 + T1 - s))
    assert reverse.reverse() is path


def test_the_reversed_levy_area_is_that_of_the_definition():
    """H = (1/h) ∫ (B_r − B_s) dr − W/2 by the trapezoidal rule, whose error has standard deviation 1e-4."""
    reverse = make(cells=4096).reverse()
    h = (T1 - T0) / 4096
    values = torch.stack([torch.zeros(3, 2), *(reverse.cell(k) for k in range(4096))]).cumsum(0)
    integral = torch.trapezoid(values, dx=h, dim=0)
    W, H = reverse.levy(T0, T1)
    torch.testing.assert_close(W, values[-1])
    torch.testing.assert_close(H, integral / (T1 - T0) - W / 2, atol=1e-3, rtol=0)


def test_the_reversed_cells_are_mirrored():
    path = make(cells=GRID)
    reverse = path.reverse()
    for k in range(6):
        assert torch.equal(reverse.cell(k), -path.cell(5 - k))
        assert torch.equal(reverse.cell_levy(k)[1], path.cell_levy(5 - k)[1])
        torch.testing.assert_close(reverse(reverse.edge(k), reverse.edge(k + 1)), reverse.cell(k))


# --- Lévy area ----------------------------------------------------------------------------------------------


def test_levy_area_has_the_moments_of_the_true_one_given_w_and_h():
    """Against the area of a 256 times finer path, whose variance is 0.4 % short (a third of an error).

    Five comparisons within 6 standard errors of 16,000 rows, estimated; heavy tails at most multiply the
    normal 2e-9 by 10: false alarms below 1e-7. Noise of twice the variance is noticed.
    """
    path = BrownianPath((16_000, 2), 0.0, 1.0, seed=0, cells=256, levy="space-time", dtype=torch.float64)
    position, true = torch.zeros(16_000, 2, dtype=torch.float64), torch.zeros(16_000, dtype=torch.float64)
    for k in range(256):
        W = path.cell(k)
        true += 0.5 * (position[:, 0] * W[:, 1] - position[:, 1] * W[:, 0])
        position += W
    W, H = path.levy(0.0, 1.0)
    A = path.area(0.0, 1.0)
    mean = H[:, 0] * W[:, 1] - H[:, 1] * W[:, 0]
    squares = H.square().sum(1)
    assert torch.equal(A, -A.mT)
    torch.testing.assert_close(A, path(0.0, 1.0, return_A=True)[1])

    def agree(x, y):
        return abs(float((x - y).mean())) < 6 * float((x - y).std()) / len(x) ** 0.5

    approximate = A[:, 0, 1]
    assert agree(approximate**2, torch.full_like(true, 1 / 4))
    assert agree(true * mean, mean**2)
    assert agree(approximate * mean, mean**2)
    assert agree((true - mean) ** 2, (approximate - mean) ** 2)
    assert agree((true - mean) ** 2 * squares, (approximate - mean) ** 2 * squares)
    noisy = foster_area(W, H, 1.0, math.sqrt(2) * path._area_noise(path._interval(0.0, 1.0)))[:, 0, 1]
    assert not agree((true - mean) ** 2, (noisy - mean) ** 2)


def test_levy_area_is_a_function_of_the_interval():
    path = make((3, 4), cells=2)
    A = path.area(0.1, 0.9)
    assert A.shape == (3, 4, 4)
    path.area(0.1, 0.8), path.levy(0.5, 1.0)
    assert torch.equal(path.area(0.1, 0.9), A)
    assert not torch.equal(path._area_noise(path._interval(0.1, 0.9)), path._area_noise(path._interval(0.1, 0.8)))
    assert torch.equal(make((3,)).area(0.1, 0.9), torch.zeros(3, dtype=torch.float64))
    assert make((3, 5, 2)).area(0.1, 0.9).shape == (3, 5, 2, 2)


# --- torchsde -----------------------------------------------------------------------------------------------


class Geometric(torch.nn.Module):
    """dX = 0.3 X dt + 0.5 X dW, with diagonal noise: X_t = X_0 exp((0.3 − 0.125) t + 0.5 W_t)."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, x):
        return 0.3 * x

    def g(self, t, x):
        return 0.5 * x


class OrnsteinUhlenbeck(torch.nn.Module):
    """dX = −X dt + dW."""

    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, x):
        return -x

    def g(self, t, x):
        return torch.ones_like(x)


class General(torch.nn.Module):
    """Stratonovich, two noises that do not commute."""

    noise_type, sde_type = "general", "stratonovich"

    def f(self, t, x):
        return -x

    def g(self, t, x):
        return torch.stack([torch.cos(x), torch.sin(x).flip(-1)], dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torchsde_euler_is_the_hand_loop_on_the_same_increments(dtype):
    path = BrownianPath((5, 3), 0.0, 1.0, seed=0, cells=64, dtype=dtype)
    x = x0 = torch.ones(5, 3, dtype=dtype)
    solved = torchsde.sdeint(Geometric(), x0, [0.0, 1.0], bm=path, method="euler", dt=1 / 64)[-1]
    for k in range(64):
        x = x + 0.3 * x / 64 + 0.5 * x * path.cell(k)
    torch.testing.assert_close(solved, x)


def test_torchsde_srk_reads_the_right_space_time_area():
    """Strong order 1.5 on dX = −X dt + dW, X_1 = W_1 − ∫ exp(r − 1) W_r dr; with −H it is order 1."""
    path = BrownianPath((200, 1), 0.0, 1.0, seed=0, cells=1024, levy="space-time", dtype=torch.float64)
    exact, position = path(0.0, 1.0), torch.zeros(200, 1, dtype=torch.float64)
    for k in range(1024):
        W, U = path(path.edge(k), path.edge(k + 1), return_U=True)
        exact = exact - math.exp((k + 0.5) / 1024 - 1) * (position / 1024 + U)
        position = position + W

    def error():
        x0 = torch.zeros(200, 1, dtype=torch.float64)
        solved = torchsde.sdeint(OrnsteinUhlenbeck(), x0, [0.0, 1.0], bm=path, method="srk", dt=1 / 64)[-1]
        return float((solved - exact).square().mean().sqrt())

    assert error() < 1e-3
    right = path._increment_and_levy
    path._increment_and_levy = lambda interval: (right(interval)[0], -right(interval)[1])
    assert error() > 5e-3


def test_torchsde_log_ode_and_adjoint_run():
    path = BrownianPath((5, 2), 0.0, 1.0, seed=0, cells=16, levy="space-time", dtype=torch.float64)
    x0 = torch.full((5, 2), 0.3, dtype=torch.float64, requires_grad=True)
    solved = torchsde.sdeint(General(), x0, [0.0, 1.0], bm=path, method="log_ode", dt=1 / 16)[-1]
    assert solved.isfinite().all()
    adjoint = torchsde.sdeint_adjoint(
        General(), x0, torch.tensor([0.0, 1.0]), bm=path, method="midpoint", dt=1 / 16, adjoint_params=()
    )
    adjoint[-1].sum().backward()
    assert x0.grad is not None
    assert x0.grad.isfinite().all()


def test_torchsde_refuses_methods_that_need_levy_area_of_a_path_without():
    path = make((5, 2), levy="none")
    with pytest.raises(ValueError, match="levy_area_approximation"):
        torchsde.sdeint(General(), torch.ones(5, 2), [0.0, 1.0], bm=path, method="log_ode", dt=0.1)


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shape": ()}, "shape=.*give \\(B, \\*event\\)"),
        ({"shape": 3}, "shape=3.*give"),
        ({"shape": (3, 0)}, "shape\\[1\\]=0.*from 1"),
        ({"shape": (-3, 2)}, "shape\\[0\\]=-3.*from 0"),
        ({"shape": (3.0, 2)}, "shape\\[0\\]=3.0"),
        ({"t1": 0.0}, "t0=0.0 and t1=0.0.*t0 < t1"),
        ({"t1": math.inf}, "finite"),
        ({"t0": math.nan}, "finite"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": True}, "seed=True"),
        ({"cells": 0}, "cells=0.*from 1"),
        ({"cells": 2.5}, "cells=2.5"),
        ({"cells": [0.0]}, "at least two"),
        ({"cells": [0.0, 0.9]}, "the last t1=1.0"),
        ({"cells": [0.1, 1.0]}, "the first t0=0.0"),
        ({"cells": [0.0, 0.5, 0.5, 1.0]}, "not strictly increasing"),
        ({"cells": [0.0, math.nan, 1.0]}, "not strictly increasing"),
        ({"levy": "spacetime"}, "Did you mean 'space-time'"),
        ({"levy": True}, "levy=True"),
        ({"first_row": -1}, "first_row=-1"),
        ({"dtype": torch.float16}, "torch.float32 or torch.float64"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(options, sentence):
    arguments = {"shape": (3, 2), "t0": 0.0, "t1": 1.0, "seed": 0, **options}
    with pytest.raises(ArgumentError, match=sentence):
        BrownianPath(**arguments)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        ((0.5, 0.4), "from 0.5 to 0.4.*runs backward.*earlier time first"),
        ((0.5, 1.5), "\\[0.5, 1.5\\].*path is on \\[-0.3, 1.4\\] only"),
        ((-0.4, 0.5), "path is on"),
        ((math.nan, 0.5), "path is on"),
        ((0.1, math.nan), "path is on"),
        (("now", 0.5), "time 'now' was given"),
        ((torch.zeros(2), 0.5), "time tensor.*number"),
    ],
)
def test_wrong_times_are_refused_in_a_sentence(ends, sentence, mirrored):
    path = make().reverse() if mirrored else make()
    for ask in (path, path.levy, path.area):
        with pytest.raises(ArgumentError, match=sentence):
            ask(*ends)


@pytest.mark.parametrize(
    "ask",
    [
        lambda path: path.levy(0.1, 0.2),
        lambda path: path.area(0.1, 0.2),
        lambda path: path.cell_levy(0),
        lambda path: path(0.1, 0.2, return_U=True),
        lambda path: path(0.1, 0.2, return_A=True),
    ],
)
def test_levy_area_must_be_asked_for_when_the_path_is_made(ask):
    for path in (make(levy="none"), make(levy="none").reverse()):
        with pytest.raises(ArgumentError, match=r'make it with levy="space-time"'):
            ask(path)


@pytest.mark.parametrize("k", [-1, 6, 1.0])
def test_a_cell_that_is_not_there_is_refused(k):
    for path in (make(cells=GRID), make(cells=GRID).reverse()):
        with pytest.raises(ArgumentError, match=r"k=.* was given"):
            path.cell(k)
