"""Couplings: exact assignments, entropic plans, and what must not move."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stats import assert_mean, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError, SdeflowWarning
from sdeflow.paths import Draws, Entropic, OptimalTransport
from sdeflow.paths.couplings import squared_distances
from sdeflow.paths.sinkhorn import sinkhorn

properties = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 2**31)


def batch(seed, n, *event):
    return torch.randn(2, n, *event, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@properties
@given(seed=seeds)
def test_optimal_transport_is_the_best_of_all_assignments(seed):
    x0, x1 = batch(seed, 5, 2, 2)
    paired, same = OptimalTransport()(x0, x1)
    assert torch.equal(same, x1)
    best = min((x0[list(p)] - x1).square().sum().item() for p in itertools.permutations(range(5)))
    assert (paired - x1).square().sum().item() == pytest.approx(best, rel=1e-12)


@properties
@given(seed=seeds, regularisation=st.floats(1.0, 5.0))
def test_sinkhorn_has_the_marginals_and_the_form_of_an_entropic_plan(seed, regularisation):
    x0, x1 = batch(seed, 12, 2)
    cost = squared_distances(x0, x1)
    log_plan = sinkhorn(cost, regularisation, tolerance=1e-9, max_iterations=100_000)
    plan = log_plan.exp()
    for axis in (0, 1):
        torch.testing.assert_close(plan.sum(axis) * 12, torch.ones(12, dtype=torch.float64), rtol=0, atol=1e-8)
    potential = log_plan + cost / regularisation  # f_i + g_j: its mixed differences vanish
    mixed = potential[1:, 1:] - potential[1:, :1] - potential[:1, 1:] + potential[:1, :1]
    assert mixed.abs().max() < 1e-9


@pytest.mark.parametrize("regularisation", [1e-4, 0.01])
def test_sinkhorn_where_hardly_anything_is_regularised(regularisation):
    """The kernel has entries down to exp(−1e5): its columns stay exact, and the plan is nearly an assignment's."""
    x0, x1 = batch(8, 20, 2)
    cost = squared_distances(x0, x1)
    plan = sinkhorn(cost, regularisation, max_iterations=100_000).exp()
    torch.testing.assert_close(
        20 * plan.sum(0), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-10
    )  # 1e5 has 11 digits after it
    least = (OptimalTransport()(x0, x1)[0] - x1).square().sum(1).mean()
    assert least * (1 - 0.02) < (plan * cost).sum() < least + 20 * regularisation


def test_entropic_pairs_follow_the_plan():
    """How often row i is the partner of column j, against the plan: 12 comparisons within 6 standard errors."""
    x0, x1 = batch(3, 3, 2)
    plan = sinkhorn(squared_distances(x0, x1), 1.5).exp()
    coupling, draws = Entropic(1.5), 1500
    chosen = torch.stack([coupling.partners(x0, x1, Draws(seed)) for seed in range(draws)])
    counts = torch.nn.functional.one_hot(chosen, 3).double()  # (draws, j, i)
    assert_mean(counts, 3 * plan.mT)
    wrong = 3 * sinkhorn(squared_distances(x0, x1), 0.75).exp().mT
    assert standard_errors(counts, wrong) > 6


def test_entropic_tends_to_optimal_transport():
    x0, x1 = batch(4, 16, 2)
    exact = (OptimalTransport()(x0, x1)[0] - x1).square().sum(1).mean()
    costs = [(Entropic(epsilon)(x0, x1, Draws(0))[0] - x1).square().sum(1).mean() for epsilon in (0.05, 0.5, 50.0)]
    assert abs(costs[0] / exact - 1) < 0.05
    assert costs[1] > 1.05 * exact and costs[2] > 1.5 * exact


def test_the_schrodinger_bridge_of_two_normals():
    """Between N(0, 1) and N(m, 1) the entropic plan of ε = 2σ² has covariance c with c² + σ²c = 1."""
    sigma = 1.0
    x0, x1 = batch(5, 1500, 1)
    plan = sinkhorn(squared_distances(x0, x1 + 2.0), 2 * sigma**2).exp()
    centre = lambda x: x - x.mean()  # noqa: E731
    covariance = (plan * (centre(x0) @ centre(x1).mT)).sum().item()
    expected = (-(sigma**2) + (sigma**4 + 4) ** 0.5) / 2
    assert covariance == pytest.approx(expected, abs=0.08)  # sampling error of a covariance of 1500 points: .026
    assert abs(covariance - 2 * expected / 3) > 0.15


def test_a_seed_is_the_coupling():
    x0, x1 = batch(6, 10, 2)
    state = torch.get_rng_state()
    first = Entropic(1.0).partners(x0, x1, Draws(7))
    assert torch.equal(first, Entropic(1.0).partners(x0, x1, Draws(7)))
    assert not torch.equal(first, Entropic(1.0).partners(x0, x1, Draws(8)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("coupling", [OptimalTransport(), Entropic(1.0)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("error")
def test_points_that_are_not_finite_come_through_to_the_loss(bad, coupling):
    x0, x1 = batch(8, 6, 2)
    x1[2, 1] = bad
    paired, same = coupling(x0, x1)
    assert torch.equal(paired, x0) and same is x1
    model = sf.models.FlowMatching(lambda t, x: x, sf.paths.LinearPath().base((2,)), coupling=coupling)
    assert not model.loss(x1.float(), seed=0).isfinite()


def test_sinkhorn_says_when_it_stops_early():
    x0, x1 = batch(7, 10, 2)
    with pytest.warns(SdeflowWarning, match="greater regularisation"):
        sinkhorn(squared_distances(x0, x1), 1e-3, max_iterations=20)


def test_refusals():
    with pytest.raises(ArgumentError, match="OptimalTransport"):
        Entropic(0.0)
    with pytest.raises(ArgumentError, match="optimal-transport"):
        sf.paths.as_coupling("optimal")
