"""Lobatto's rules: what they are exact for, and what their null rules see."""

import math

import pytest
import torch

from sdeflow.solvers.lobatto import LOBATTO

DOUBLE = torch.float64
each_rule = pytest.mark.parametrize("n", LOBATTO)


@each_rule
def test_the_rule_is_exact_for_degree_2n_minus_3_and_no_more(n):
    nodes, weights = (torch.tensor(row, dtype=DOUBLE) for row in LOBATTO[n][:2])
    assert nodes[0] == 0 and nodes[-1] == 1
    for degree in range(2 * n - 1):
        error = abs((weights * nodes**degree).sum().item() - 1 / (degree + 1))
        assert error < 1e-15 if degree <= 2 * n - 3 else error > 1e-5


@each_rule
def test_null_rules_are_orthogonal_see_their_degree_and_none_below(n):
    nodes, weights = (torch.tensor(row, dtype=DOUBLE) for row in LOBATTO[n][:2])
    null = torch.tensor(LOBATTO[n].null, dtype=DOUBLE)
    assert torch.allclose(null @ null.T, weights.square().sum() * torch.eye(n - 1, dtype=DOUBLE), atol=1e-14)
    for row, degree in zip(null, range(n - 1, 0, -1), strict=True):
        for lower in range(degree):
            assert abs((row * nodes**lower).sum().item()) < 1e-14
        assert abs((row * nodes**degree).sum().item()) > 1e-3


@each_rule
def test_the_estimate_has_the_order_of_the_rule(n):
    """c²/|c| of exp(h θ) on two steps, per unit of time: order 2n − 3 for an error of 2n − 2."""
    nodes, null = torch.tensor(LOBATTO[n].nodes, dtype=DOUBLE), torch.tensor(LOBATTO[n].null, dtype=DOUBLE)

    def estimate(h):
        parts = null @ torch.exp(h * nodes)
        return (parts[0] ** 2 / parts.norm()).item()

    slope = math.log2(estimate(0.2) / estimate(0.1))
    assert abs(slope - (2 * n - 3)) < 0.2
