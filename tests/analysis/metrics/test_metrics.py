"""Metrics against closed forms for Gaussians, and their errors and p-values against what they claim."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

import sdeflow as sf
from sdeflow.errors import ArgumentError

metrics = sf.analysis.metrics
properties = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def normal(n, d, seed, mean=0.0, sd=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + sd * torch.randn(n, d, generator=generator, dtype=torch.float64)


# --- transport ---------------------------------------------------------------------------------------------------------


@properties
@given(seed=seeds, n=st.integers(2, 40), m=st.integers(2, 40))
def test_on_the_line_it_is_scipys(seed, n, m):
    x, y = normal(n, 1, seed), normal(m, 1, seed + 1, mean=0.5, sd=2.0)
    expected = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert metrics.wasserstein(x, y, 1).value == pytest.approx(expected, rel=1e-10)
    # W₂² by cutting both quantile functions at every level of both
    a, b = x.sort(0).values.repeat_interleave(m, 0), y.sort(0).values.repeat_interleave(n, 0)
    assert metrics.wasserstein(x, y, 2).value == pytest.approx((a - b).square().mean().sqrt().item(), rel=1e-10)


@properties
@given(seed=seeds, d=st.integers(2, 4), order=st.sampled_from([1, 2]))
def test_a_shift_is_its_length_and_assignments_are_best(seed, d, order):
    x, shift = normal(30, d, seed), normal(1, d, seed + 1)
    permuted = x[torch.randperm(30, generator=torch.Generator().manual_seed(seed))]
    if order == 2:  # among assignments of a shifted sample, the shift is the best for squared distances
        assert metrics.wasserstein(x, permuted + shift).value == pytest.approx(shift.norm().item(), rel=1e-9)
    assert metrics.wasserstein(x, permuted, order).value == pytest.approx(0.0, abs=1e-12)
    y = normal(30, d, seed + 2)
    plain = (x - y).norm(dim=1).pow(order).mean().item() ** (1 / order)
    assert metrics.wasserstein(x, y, order).value <= plain + 1e-12


def test_gaussians_on_the_line():
    """W₂² = (m − n)² + (s − r)² between N(m, s²) and N(n, r²): within 6 standard errors, about √(2/N)·2."""
    x, y = normal(40_000, 1, 0), normal(40_000, 1, 1, mean=1.0, sd=2.0)
    assert metrics.wasserstein(x, y).value == pytest.approx(2**0.5, abs=0.05)


def test_slices_of_gaussians():
    """Along any direction N(0, I) and N(0, 9 I) are 2 apart, and a shift by u is |u·θ| with mean square |u|²/D."""
    x = normal(5_000, 3, 0)
    assert metrics.sliced_wasserstein(x, normal(5_000, 3, 1, sd=3.0)).value == pytest.approx(2.0, abs=0.12)
    far = metrics.sliced_wasserstein(x, x + 2.0, projections=500)
    assert abs(far.value - 2.0) < 6 * far.stderr < 0.4
    repeats = [metrics.sliced_wasserstein(x[:200], x[:200] + 2.0, seed=s).value for s in range(60)]
    claimed = metrics.sliced_wasserstein(x[:200], x[:200] + 2.0).stderr
    assert torch.tensor(repeats).std().item() == pytest.approx(claimed, rel=0.6)  # sd of 60 values: 9 %; of 128: 6 %


# --- kernels -----------------------------------------------------------------------------------------------------------


def folded(mean, variance):
    """E|Z| for Z ~ N(mean, variance)."""
    s = variance**0.5
    return s * math.sqrt(2 / math.pi) * math.exp(-(mean**2) / (2 * variance)) + mean * math.erf(mean / (s * 2**0.5))


def within(estimates, expected):
    """The mean of independent unbiased estimates is as expected, within 6 standard errors."""
    values = torch.tensor(estimates)
    assert abs(values.mean().item() - expected) < 6 * values.std().item() / len(values) ** 0.5


def pairs(x, y, similarity):
    """E s(X, X') + E s(Y, Y') − 2 E s(X, Y) over pairs of different points, one by one."""
    a, b = x.tolist(), y.tolist()
    own = [[similarity(p, q) for i, p in enumerate(c) for j, q in enumerate(c) if i != j] for c in (a, b)]
    across = [similarity(p, q) for p in a for q in b]
    return sum(sum(values) / len(values) for values in own) - 2 * sum(across) / len(across)


@properties
@given(seed=seeds, n=st.integers(2, 6), m=st.integers(2, 6))
def test_distances_by_pairs_are_means_over_pairs_of_different_points(seed, n, m):
    x, y = normal(n, 2, seed), normal(m, 2, seed + 1, mean=1.0)
    energy = metrics.energy_distance(x, y, permutations=0).value
    assert energy == pytest.approx(pairs(x, y, lambda p, q: -math.dist(p, q)), rel=1e-9, abs=1e-12)
    mmd = metrics.mmd(x, y, bandwidth=0.8, permutations=0).value
    kernel = pairs(x, y, lambda p, q: math.exp(-(math.dist(p, q) ** 2) / (2 * 0.8**2)))
    assert mmd == pytest.approx(kernel, rel=1e-9, abs=1e-12)


def test_energy_distance_of_gaussians_is_unbiased():
    expected = 2 * folded(0.7, 1 + 2.25) - folded(0.0, 2.0) - folded(0.0, 4.5)
    draws = [
        metrics.energy_distance(normal(40, 1, s), normal(60, 1, s + 500, 0.7, 1.5), permutations=0).value
        for s in range(300)
    ]
    within(draws, expected)


def test_mmd_of_gaussians_is_unbiased():
    width, variance, shift = 1.3, 2.25, 0.7

    def kernel(total, mean):  # E k(X, Y), X − Y ~ N(mean, total I) in 2 dimensions
        return width**2 / (width**2 + total) * math.exp(-2 * mean**2 / (2 * (width**2 + total)))

    expected = kernel(2.0, 0.0) + kernel(2 * variance, 0.0) - 2 * kernel(1 + variance, shift)
    draws = [
        metrics.mmd(normal(40, 2, s), normal(60, 2, s + 500, shift, 1.5), bandwidth=width, permutations=0).value
        for s in range(300)
    ]
    within(draws, expected)


TESTS = {
    "energy": lambda x, y, s: metrics.energy_distance(x, y, permutations=39, seed=s),
    "mmd": lambda x, y, s: metrics.mmd(x, y, permutations=39, seed=s),
    "sliced": lambda x, y, s: metrics.sliced_wasserstein(x, y, projections=8, permutations=39, seed=s),
    "exact": lambda x, y, s: metrics.wasserstein(x, y, permutations=39, seed=s),
}


@pytest.mark.parametrize("name", TESTS)
def test_p_values_are_uniform_under_one_law_and_small_under_two(name):
    """300 tests at level .1 reject 30 ± 5.2 times: bounds at five and a half standard errors."""
    p = [TESTS[name](normal(20, 2, s), normal(20, 2, s + 9000), s).p_value for s in range(300)]
    assert 2 <= sum(v <= 0.1 for v in p) <= 59 and 102 <= sum(v <= 0.5 for v in p) <= 198
    assert TESTS[name](normal(60, 2, 0), normal(60, 2, 1, mean=1.5), 0).p_value == 1 / 40


# --- likelihood and Gaussians ------------------------------------------------------------------------------------------


def test_nll_has_the_error_of_a_mean():
    x = normal(5000, 2, 0)
    law = sf.laws.GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), [1.0])
    nll = metrics.negative_log_likelihood(law, x)
    assert abs(nll.value - math.log(2 * math.pi * math.e)) < 6 * nll.stderr
    assert nll.stderr == pytest.approx(1 / 5000**0.5, rel=0.2)  # the variance of |x|²/2 is 1
    assert metrics.negative_log_likelihood(law.log_prob(x)) == nll


@properties
@given(seed=seeds, d=st.integers(1, 5))
def test_kl_is_torchs(seed, d):
    m, n = normal(2, d, seed)
    a, b = normal(2, d * d, seed + 1).reshape(2, d, d)
    c, s = a @ a.mT + 0.1 * torch.eye(d), b @ b.mT + 0.1 * torch.eye(d)
    laws = [torch.distributions.MultivariateNormal(*pair) for pair in ((m, c), (n, s))]
    expected = torch.distributions.kl_divergence(*laws)
    assert torch.allclose(metrics.gaussian_kl(m, c, n, s), expected, rtol=1e-8, atol=1e-10)


def test_kl_of_samples_has_its_error_and_no_bias():
    cov = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
    one, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    expected = metrics.gaussian_kl(mean, cov, zero, one).item()
    root = torch.linalg.cholesky(cov)
    runs = [metrics.kl_to_gaussian(mean + normal(200, 2, s) @ root.mT, zero, one, resamples=30) for s in range(100)]
    within([r.value for r in runs], expected)
    spread = torch.tensor([r.value for r in runs]).std().item()
    assert sum(r.stderr for r in runs) / 100 == pytest.approx(spread, rel=0.45)  # 7 % in sd of 100 values


# --- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [None, (1.0, 0.0)])
def test_energy_and_straightness_of_an_affine_flow(span):
    """x = (1 + 2t) x₀: the velocity is 2 x₀, so paths are straight, and the energy is 4 |x₀|² = W₂² of the ends."""
    ode = sf.ODE(lambda t, x: 2 * x / (1 + 2 * t))
    x0 = normal(500, 3, 0)
    start = x0 if span is None else 3 * x0
    energy = metrics.path_energy(ode, start, span)
    assert energy.value == pytest.approx(4 * x0.square().sum(1).mean().item(), rel=1e-5)
    assert energy.stderr == pytest.approx(4 * x0.square().sum(1).std().item() / 500**0.5, rel=1e-5)
    assert metrics.straightness(ode, start, span).value == pytest.approx(0.0, abs=1e-6)


def test_straightness_of_growth():
    """x = eᵗ x₀ over [0, T]: ∫(eᵗ)² − (e^T − 1)²/T, times x₀²."""
    ode = sf.ODE(lambda t, x: x, interval=(0.0, 2.0))
    x0 = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    expected = 2.5 * ((math.exp(4) - 1) / 2 - (math.exp(2) - 1) ** 2 / 2)
    assert metrics.straightness(ode, x0).value == pytest.approx(expected, rel=1e-6)


X = normal(10, 2, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.wasserstein(X, X[:5]), "as many of each"),
        (lambda: metrics.wasserstein(X, X, 3), "order=3"),
        (lambda: metrics.sliced_wasserstein(X, X, projections=1), "projections=1"),
        (lambda: metrics.energy_distance(X, X[:, :1]), "events of shape"),
        (lambda: metrics.energy_distance(X, X[:1]), "two samples"),
        (lambda: metrics.energy_distance(X, X / 0), "infinite or NaN"),
        (lambda: metrics.energy_distance(torch.zeros(9000, 1), torch.zeros(9000, 1)), "18000 points"),
        (lambda: metrics.mmd(X, X, bandwidth=0.0), "bandwidth"),
        (lambda: metrics.mmd(X, X, permutations=-1), "permutations=-1"),
        (lambda: metrics.negative_log_likelihood(X), r"\(N,\)"),
        (lambda: metrics.negative_log_likelihood(X[:, 0] / 0), "infinite or NaN"),
        (lambda: metrics.kl_to_gaussian(X[:3], torch.zeros(2), torch.eye(2)), "full rank"),
        (lambda: metrics.gaussian_kl(X[0], -torch.eye(2).double(), X[0], torch.eye(2).double()), "positive definite"),
        (lambda: metrics.path_energy(sf.processes.BrownianMotion(), X), "sf.ODE"),
        (lambda: metrics.path_energy(sf.ODE(lambda t, x: x), X, steps=3), "even"),
        (lambda: metrics.straightness(sf.ODE(lambda t, x: x), X[:1]), "two samples"),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


def test_a_figure_prints_with_its_error():
    assert str(metrics.Measured(1.23456, 0.012)) == "1.235 ± 0.012" and float(metrics.Measured(2.0)) == 2.0
    assert str(metrics.Measured(0.5, p_value=0.005)) == "0.5 (p = 0.005)"
