"""Assignments of least cost: prices help to find them and must not move them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sdeflow.paths import assignment
from sdeflow.paths.assignment import assign

properties = settings(derandomize=True, deadline=None, max_examples=40)


@properties
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 40),
    more=st.integers(0, 5),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    levels=st.sampled_from([0, 2, 5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_no_assignment_costs_less(seed, rows, more, scale, levels, dtype):
    """Whatever the scale, with ties, with columns left over, with prices or without."""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(rows, rows + more, generator=generator, dtype=dtype)
    cost = scale * ((levels * cost).floor() if levels else cost.square())
    chosen = assign(cost)
    assert chosen.dtype is torch.int64 and len(chosen.unique()) == rows
    least = cost.double().numpy()[linear_sum_assignment(cost.numpy())].sum()
    assert cost.double()[torch.arange(rows), chosen].sum().item() == pytest.approx(least, rel=1e-12)


def test_prices_are_near_the_best():
    """Less than a twentieth of the costs is left on the best assignment, and nothing of it where all costs are equal."""
    x, y = torch.randn(2, 200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cost = torch.cdist(x, y + 3).square()
    reduced = assignment._reduced(cost)
    chosen = assign(cost)
    left = reduced[torch.arange(200), chosen].mean() - reduced.amin(1).mean()
    assert left < 0.05 * (cost[torch.arange(200), chosen].mean() - cost.amin(1).mean())
    same = torch.ones(3, 3, dtype=torch.float64)
    assert torch.equal(assignment._reduced(same), same)


def test_costs_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="invalid"):
        assign(torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]))
