"""Save times and steps: the rule, and that asking for more output changes no bit of the result."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.solvers.grid import fixed_grid

FIXED = settings(derandomize=True, deadline=None, max_examples=100)
X = torch.ones(2, 1, dtype=torch.float64)
SDE = sf.SDE(lambda t, x: torch.sin(5 * t) - x, lambda t, x: 0.3 * x, interval=(0.0, 2.0))


@FIXED
@given(
    start=st.floats(-10, 10),
    gaps=st.lists(st.floats(0.01, 3), min_size=1, max_size=6),
    dt=st.floats(0.003, 1),
)
def test_each_gap_is_split_into_the_fewest_equal_steps_not_longer_than_dt(start, gaps, dt):
    times = list(start + np.concatenate([[0], np.cumsum(gaps)]))
    grid = fixed_grid(times, dt, None)
    assert np.diff(grid.nodes).min() > 0
    for left, right, i, j in zip(times, times[1:], grid.saves, grid.saves[1:], strict=False):
        assert grid.nodes[i] == pytest.approx(left, abs=1e-9) and grid.nodes[j] == pytest.approx(right, abs=1e-9)
        steps = np.diff(grid.nodes[i : j + 1])
        assert np.ptp(steps) < 1e-9
        assert j - i == max(1, math.ceil((right - left) / dt - 1e-7)) or (right - left) / dt % 1 < 1e-6


@FIXED
@given(count=st.integers(2, 40), data=st.data())
def test_a_save_time_on_the_grid_changes_nothing(count, data):
    """Bitwise: for dt, for steps, and with a seed."""
    chosen = data.draw(st.sets(st.integers(1, count - 1), max_size=5)) if count > 1 else set()
    times = [0.0, *(2.0 * k / count for k in sorted(chosen)), 2.0]
    for rule in ({"dt": 2.0 / count}, {"steps": count}):
        plain = sf.solve(SDE, X, seed=3, **rule)
        more = sf.solve(SDE, X, times, seed=3, **rule)
        assert torch.equal(plain.final, more.final)
        assert more.t.tolist() == times and more.stats["nfe_drift"] == plain.stats["nfe_drift"] == count


def test_tenths_make_ten_steps():
    """.1 is not a binary fraction, and accumulated it makes an eleventh, tiny step."""
    for dt, count in ((0.1, 10), (0.01, 100), (1e-3, 1000)):
        sol = sf.solve(SDE, X.float(), (0.0, 1.0), dt=dt, seed=0)
        assert sol.stats["nfe_drift"] == sol.stats["accepted"] == count
    assert (0.4 - 0.1) / 0.1 > 3  # in floating point; it is three steps all the same
    assert sf.solve(SDE, X, (0.1, 0.4), dt=0.1, seed=0).stats["accepted"] == 3


def test_save_times_off_the_grid_are_nodes_not_interpolations():
    """Brownian motion at t = .5 with dt = 1 has variance .5; a chord of one step of length 1 has .25."""
    brownian = sf.processes.BrownianMotion()
    x = sf.solve(brownian, torch.zeros(20_000, 1), [0.0, 0.5, 1.0], dt=1.0, seed=0).x
    assert abs(x[1].var().item() - 0.5) < 6 * 0.5 * math.sqrt(2 / 20_000)
    assert abs((x[1] * x[2]).mean().item() - 0.5) < 6 * math.sqrt(0.75 / 20_000)


def test_a_given_grid_takes_in_the_save_times():
    nodes = [0.0, 0.1, 0.5, 2.0]
    sol = sf.solve(SDE, X, [0.0, 0.3, 2.0], steps=nodes, seed=0)
    assert sol.stats["accepted"] == 4
    again = sf.solve(SDE, X, steps=torch.tensor([0.0, 0.1, 0.3, 0.5, 2.0]).double(), seed=0)
    assert torch.allclose(sol.final, again.final)


def test_a_decreasing_grid_for_a_decreasing_solve():
    ode = sf.ODE(lambda t, x: t * x, interval=(0.0, 2.0))
    nodes = np.linspace(2, 0, 41)
    a = sf.solve(ode, X, (2.0, 0.0), steps=nodes, method="rk4").final
    b = sf.solve(ode, X, (2.0, 0.0), steps=40, method="rk4").final
    assert torch.allclose(a, b, rtol=1e-12)
    assert a[0].item() == pytest.approx(math.exp(-2.0), rel=1e-5)


def test_breakpoints_become_nodes():
    jump = sf.ODE(lambda t, x: torch.where(t < 0.35, 1.0, -2.0) * torch.ones_like(x))
    right = sf.solve(jump, X, dt=0.25, breakpoints=[0.35], method="euler").final
    wrong = sf.solve(jump, X, dt=0.25, method="euler").final
    assert right[0].item() == pytest.approx(1 + 0.35 - 2 * 0.65, abs=1e-12)
    assert abs(wrong[0].item() - right[0].item()) > 0.1


def test_the_interval_is_the_default_in_the_direction_of_the_process():
    rev = sf.processes.OrnsteinUhlenbeck(interval=(0.0, 2.0)).reverse(lambda t, x: -2 * x, clock="backward")
    assert sf.solve(rev, X, steps=4, seed=0).t.tolist() == [2.0, 0.0]
    assert sf.solve(SDE, X, steps=4, seed=0).t.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_save_times_in_float32_are_the_ones_that_were_meant(count):
    """torch.linspace is float32 by default: its inner times are nodes all the same, of dt, of steps and of a given grid."""
    plain = sf.solve(SDE, X, (0.0, 1.0), dt=1 / count, seed=2)
    for times in (torch.linspace(0, 1, count + 1), np.linspace(0, 1, count + 1, dtype=np.float32)):
        for rule in ({"dt": 1 / count}, {"steps": count}):
            sol = sf.solve(SDE, X, times, seed=2, **rule)
            assert sol.stats["accepted"] == count and torch.equal(sol.final, plain.final)
    given_grid = sf.solve(SDE, X, torch.linspace(0, 1, 5), steps=torch.linspace(0, 1, count // 5 * 4 + 1), seed=2)
    assert given_grid.stats["accepted"] == count // 5 * 4


def test_the_end_of_an_interval_in_float32_is_its_end():
    process = sf.processes.CosineVariancePreserving()  # to .999, which float32 has as .99900001
    assert sf.solve(process, X, torch.linspace(0, 0.999, 5), steps=8, seed=0).stats["accepted"] == 8


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "torchdiffeq:rk4"])
def test_fixed_steps_keep_their_order_at_a_breakpoint(method):
    """x' = ±1, turning at .5: every method is exact if no stage looks beyond the jump."""
    jump = sf.ODE(lambda t, x: torch.where(t < 0.5, 1.0, -1.0) * torch.ones_like(x))
    for times in ((0.0, 1.0), (1.0, 0.0)):
        for dtype in (torch.float32, torch.float64):
            final = sf.solve(
                jump, torch.zeros(2, 1, dtype=dtype), times, steps=10, breakpoints=[0.5], method=method
            ).final
            assert final.abs().max() < 1e-5 * (dtype is torch.float32) + 1e-12


@pytest.mark.parametrize(
    "method", ["heun", "euler-heun", "torchsde:heun", "torchsde:srk", "torchsde:reversible_heun", "torchsde:midpoint"]
)
def test_sde_methods_do_not_look_beyond_a_breakpoint(method):
    jump = sf.SDE(
        lambda t, x: torch.where(t < 0.5, 1.0, -1.0) * torch.ones_like(x), lambda t, x: 0.0 * t, additive=True
    )
    for rule in ({"steps": 10}, {"steps": [0.0, 0.2, 0.5, 0.6, 1.0]}):
        final = sf.solve(
            jump, torch.zeros(2, 1, dtype=torch.float64), breakpoints=[0.5], method=method, seed=0, **rule
        ).final
        assert final.abs().max() < 1e-9


@pytest.mark.parametrize("method", ["shark", "sra1", "sosra"])
def test_nothing_is_carried_over_a_jump(method):
    """A diffusion of .1 before .5 and 1 after, a number on each side: with the breakpoint the answer is exact."""
    jump = sf.SDE(lambda t, x: 0 * x, lambda t, x: 0.1 + 0.9 * (t >= 0.5).to(x), additive=True)
    path = sf.BrownianPath((3, 1), 0.0, 1.0, seed=0, cells=10, levy="space-time", dtype=torch.float64)
    x0 = torch.zeros(3, 1, dtype=torch.float64)
    final = sf.solve(jump, x0, steps=10, breakpoints=[0.5], method=method, brownian=path).final
    torch.testing.assert_close(final, 0.1 * path(0.0, 0.5) + path(0.5, 1.0), rtol=0, atol=1e-12)


def test_a_grid_that_ends_elsewhere_is_named_on_the_callers_clock():
    process = sf.processes.VariancePreserving(interval=(0.001, 1.0)).reverse(lambda t, x: -x, clock="backward")
    with pytest.raises(sf.ArgumentError, match=r"steps runs from 1 to 0\.01 but the solve from 1 to 0\.001"):
        sf.solve(process, torch.zeros(1, 1), steps=[1.0, 0.5, 0.01], seed=0)
