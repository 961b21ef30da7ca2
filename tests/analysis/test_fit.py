"""The estimator of orders is judged on synthetic errors of known order; the family stands in order_data.py."""

import math

import order_data
import pytest
import torch

import sdeflow as sf

SETS = 120
# Bounds that a share of 94 % (covered) or 97 % (within .1) leaves with a probability below 1e-6: five standard errors. What
# 2,000 sets of each kind say is recorded in benchmarks/results/order_estimator.json.
DEVIATION = 5 * math.sqrt(0.94 * 0.06 / SETS)


@pytest.mark.parametrize("kind", ["strong", "weak", "ode"])
def test_intervals_cover_and_estimates_are_close(kind):
    verdict = order_data.judge(kind, SETS, seed=11)
    assert verdict["covered"] >= 0.94 - DEVIATION
    assert verdict["within"] >= 0.97 - 5 * math.sqrt(0.97 * 0.03 / SETS)
    assert verdict["refused"] < 0.03 and verdict["width"] < 0.15  # so that covering is no matter of saying nothing


def straight(kind, level):
    """A plain least-squares line through all points with a normal interval: the wrong version that the family shows."""
    generator = torch.Generator().manual_seed(11)
    covered = 0
    for _ in range(SETS):
        dts, errors, _, order = order_data.draw(kind, generator)
        y = (errors.square().mean(0).sqrt() if kind == "strong" else errors.abs()).log()
        x = dts.log() - dts.log().mean()
        slope = (x @ y) / (x @ x)
        residual = y - y.mean() - slope * x
        spread = (residual.square().sum() / (len(x) - 2) / (x @ x)).sqrt()
        covered += abs(slope - order) <= level * spread
    return covered / SETS


@pytest.mark.parametrize("kind", ["strong", "ode"])
def test_a_straight_line_through_all_points_would_not_pass(kind):
    assert straight(kind, 2.5) < 0.94 - DEVIATION


def test_most_intervals_are_not_too_wide():
    """A level of one half covers about half: an interval that always covers would pass the test above."""
    generator, covered = torch.Generator().manual_seed(5), 0
    for _ in range(SETS):
        dts, errors, floor, order = order_data.draw("strong", generator)
        fit = sf.analysis.fit_order(dts, errors, floor=floor, level=0.5, resamples=200)
        covered += fit.low <= order <= fit.high
    assert abs(covered / SETS - 0.5) < 5 * math.sqrt(0.25 / SETS) + 0.04


def test_floor_bound_points_are_left_out():
    h = 2.0 ** -torch.arange(2, 12).double()
    generator = torch.Generator().manual_seed(0)
    z, n = torch.randn(2, 2000, len(h), generator=generator, dtype=torch.float64)
    fit = sf.analysis.fit_order(h, h**2 * z + 1e-4 * n, floor=1e-4)
    assert fit.used == (0, 4)  # h² is above 8e-4 to h = 2^-5
    assert fit.low < 2 < fit.high and not fit.bent
    blind = sf.analysis.fit_order(h, h**2 * z + 1e-4 * n)
    assert blind.slope < 1.9


def test_the_floor_is_taken_away_in_quadrature():
    """Mean squares h² + floor², the same on every path: without the square of the floor only h is left, of slope 1."""
    h = 2.0 ** -torch.arange(2, 8).double()
    floor = h[-1].item() / 9
    errors = (h.square() + floor**2).sqrt().expand(50, -1)
    fit = sf.analysis.fit_order(h, errors, floor=floor)
    assert fit.used == (0, 6) and fit.slope == pytest.approx(1, abs=1e-9)
    assert sf.analysis.fit_order(h, errors).slope < 1 - 1e-3


def test_pre_asymptotic_points_are_left_out():
    h = 2.0 ** -torch.arange(0, 9).double()
    fit = sf.analysis.fit_order(h, h * (1 + (h / 0.1) ** 2), kind="ode")
    assert fit.used[0] >= 3 and fit.low < 1 < fit.high and abs(fit.slope - 1) < 0.05


@pytest.mark.parametrize("levels", [5, 6, 7])
def test_a_bend_that_levels_off_is_not_taken_for_slope(levels):
    """1 + 2√u: a series in powers of √h alone does not converge at the coarse steps, and its interval misses the order."""
    h = 2.0 ** -torch.arange(2, 2 + levels).double()
    fit = sf.analysis.fit_order(h, h * (1 + 2 * (h / h[0]).sqrt()), kind="ode", powers="half")
    assert fit.low < 1 < fit.high and abs(fit.slope - 1) < 0.045


def test_points_that_never_become_asymptotic_are_told():
    h = 2.0 ** -torch.arange(0, 5).double()
    fit = sf.analysis.fit_order(h, torch.exp(6 * h) - 1 + 50 * h**6, kind="ode")
    assert fit.bent and "take smaller steps" in str(fit)


def test_coupled_paths_count_once():
    """The same paths at all step sizes: the slope of E |z| h is exact however few they are, and the interval knows."""
    h = 2.0 ** -torch.arange(2, 9).double()
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    many = torch.randn(50, len(h), generator=generator, dtype=torch.float64)
    coupled, single = (sf.analysis.fit_order(h, h * z) for z in (one, many))
    assert coupled.high - coupled.low < 0.5 * (single.high - single.low)


def test_the_order_of_steps_does_not_matter_and_seeds_do_little():
    h = 2.0 ** -torch.arange(2, 8).double()
    generator = torch.Generator().manual_seed(3)
    e = h**1.5 * torch.randn(300, len(h), generator=generator, dtype=torch.float64)
    a, b = sf.analysis.fit_order(h, e), sf.analysis.fit_order(h.flip(0), e.flip(1))
    assert (a.slope, a.low, a.high) == pytest.approx((b.slope, b.low, b.high))
    c = sf.analysis.fit_order(h, e, seed=1)
    assert c.slope == pytest.approx(a.slope, abs=0.02) and c.low == pytest.approx(a.low, abs=0.05)


H = 2.0 ** -torch.arange(2, 8).double()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sf.analysis.fit_order(H, torch.ones(5, 6)), "N ≥ 20"),
        (lambda: sf.analysis.fit_order(H, torch.ones(6), kind="weak"), r"\(6,\)"),
        (lambda: sf.analysis.fit_order(H, torch.ones(7), kind="ode"), "6 dts"),
        (lambda: sf.analysis.fit_order(-H, H, kind="ode"), "not positive"),
        (lambda: sf.analysis.fit_order([1, 1, 2], H[:3], kind="ode"), "differ"),
        (lambda: sf.analysis.fit_order(H, H / 0, kind="ode"), "infinite"),
        (lambda: sf.analysis.fit_order(H, H, kind="ode", floor=1.0), "0 of 6 errors"),
        (lambda: sf.analysis.fit_order(H, H, kind="ode", floor=-1.0), "floor=-1"),
        (lambda: sf.analysis.fit_order(H, H, kind="ode", level=95), "level=95"),
        (lambda: sf.analysis.fit_order(H, H, kind="ode", resamples=3), "resamples=3"),
        (lambda: sf.analysis.fit_order(H, H, kind="week"), "'weak'"),
        (lambda: sf.analysis.fit_order(H, torch.randn(100, 6), kind="weak"), "more paths"),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(sf.errors.ArgumentError, match=words):
        call()
