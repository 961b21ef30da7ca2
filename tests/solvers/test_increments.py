"""Noise drawn ahead: the same as asking the path for each step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow.solvers.increments as module
from sdeflow.brownian import BrownianPath
from sdeflow.solvers.increments import Increments, is_own_grid

seeded = settings(derandomize=True, deadline=None, max_examples=30)


def path(cells, reverse=False):
    driver = BrownianPath((3, 2), 0.0, 1.0, seed=0, cells=cells, levy="space-time", dtype=torch.float64)
    return driver.reverse() if reverse else driver


@seeded
@given(
    cells=st.integers(1, 200),
    own=st.booleans(),
    reverse=st.booleans(),
    levy=st.booleans(),
    data=st.data(),
)
def test_steps_in_any_order_are_those_of_the_path(cells, own, reverse, levy, data):
    driver = path(cells if own else cells + 1, reverse)
    nodes = torch.linspace(0, 1, cells + 1, dtype=torch.float64).tolist()
    draw = Increments(driver, nodes, levy)
    assert draw.own is own
    for k in data.draw(st.lists(st.integers(0, cells - 1), max_size=8)):
        W, H = driver.levy(nodes[k], nodes[k + 1])
        drawn = draw(k)
        torch.testing.assert_close(drawn[0], W, rtol=1e-12, atol=1e-12)
        assert (drawn[1] is not None) is levy
        if levy:
            torch.testing.assert_close(drawn[1], H, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("levy", [True, False])
def test_a_block_is_its_steps(own, levy):
    nodes = [k / 10 for k in range(11)]
    draw = Increments(path(10 if own else 7), nodes, levy)
    blocks = [(first, count, *draw.block(first, count)) for first, count in ((3, 4), (5, 2), (7, 3), (0, 2))]
    for first, count, W, H in blocks:
        assert (H is not None) is levy
        for i in range(count):
            torch.testing.assert_close(W[i], draw(first + i)[0], rtol=0, atol=1e-13)
            if levy:
                torch.testing.assert_close(H[i], draw(first + i)[1], rtol=0, atol=1e-13)


def test_cells_are_drawn_ahead_together_in_both_directions(monkeypatch):
    driver, calls = path(100), []
    monkeypatch.setattr(module, "AHEAD", 32)
    original = driver.cell_increments
    driver.cell_increments = lambda first, count: calls.append((first, count)) or original(first, count)
    draw = Increments(driver, driver.edges().tolist(), levy=False)
    for k in [*range(100), *range(99, -1, -1)]:
        draw(k)
    assert calls == [(0, 32), (32, 32), (64, 32), (96, 4), (64, 32), (32, 32), (0, 32)]


def test_a_grid_that_is_not_the_cells_is_told_apart():
    assert is_own_grid(path(10), [k / 10 for k in range(11)])
    assert not is_own_grid(path(10), [k / 11 for k in range(12)])
    assert not is_own_grid(path(10), [*[k / 10 for k in range(9)], 0.91, 1.0])


def test_equal_parts_of_another_whole_are_other_cells():
    nodes = [k / 20 for k in range(11)]
    assert not is_own_grid(path(10), nodes, equal=True)
    assert is_own_grid(path(10), [k / 10 for k in range(11)], equal=True)
