"""The step-size controller by itself."""

import math
from itertools import pairwise

import pytest
import torch

import sdeflow as sf
from sdeflow.solvers.controller import (
    OWN_SAFETY,
    RISE,
    SHARED_SAFETY,
    UNKNOWN,
    WORST,
    Controller,
    Tolerance,
    shared_error,
    shared_size,
)

DOUBLE = torch.float64


@pytest.mark.parametrize("on", ["host", "device"])
@pytest.mark.parametrize("order", [3, 5, 8])
def test_a_factor_does_not_depend_on_the_size_of_the_batch(order, on):
    """Bitwise, for every slice of a batch: torch's powers differ in the last digit between slices of one tensor."""
    generator = torch.Generator().manual_seed(0)
    error, h = torch.rand(2, 64, generator=generator, dtype=DOUBLE) * 3 + 1e-3
    before = torch.randn(64, generator=generator, dtype=DOUBLE)
    clocks = [v.numpy() if on == "host" else v for v in (error, h, before)]
    controller = Controller(order, shared=False)
    whole = torch.as_tensor(controller.vector(*clocks)[0])
    for size in range(1, 20):
        for start in range(40):
            part = slice(start, start + size)
            factor = controller.vector(*(v[part] for v in clocks))[0]
            assert torch.equal(torch.as_tensor(factor), whole[part])


ERRORS = [0.0, 1e-30, 1e-12, 1e-3, 0.1, 0.4, 0.9, 1.0, 1.01, 2.0, 40.0, 1e6, 1e300, math.inf, math.nan]


def factors(controller, errors, h=0.3, before=UNKNOWN):
    return [controller.number(error, h, before)[0] for error in errors]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", [3.0, 5.0, 8.0])
def test_the_factor_grows_shrinks_and_is_bounded(order, shared):
    controller = Controller(order, shared)
    found = factors(controller, ERRORS)
    assert found[:3] == [10.0] * 3 and found[-4:] == pytest.approx([0.2] * 4, rel=0.1 if order == 8 else 1e-12)
    assert all(a >= b for a, b in pairwise(found)) and found[7] < 1
    aim = (SHARED_SAFETY if shared else OWN_SAFETY) ** order
    assert controller.number(aim, 0.3, UNKNOWN)[0] == pytest.approx(1.0)
    # What is rejected is tried where the error should be that which is steered to, if it goes with the power of the step.
    assert 2.0 * controller.number(2.0, 0.3, UNKNOWN)[0] ** order == pytest.approx(aim, rel=0.02)


def test_what_becomes_harder_is_expected_to_become_harder_still():
    """φ = error / h^k grows by e a step: a step that has the error to be steered to is followed by a shorter one."""
    controller, h = Controller(5.0, shared=True), 0.3
    aim = SHARED_SAFETY**5
    _, now = controller.number(aim, h, UNKNOWN)
    grown, _ = controller.number(aim, h, now - 1.0)
    assert (h * grown / h) ** 5 == pytest.approx(math.exp(-1.0), rel=0.01)
    assert controller.number(aim, h, now + 1.0)[0] == pytest.approx(1.0)  # nothing is expected of what became easier
    assert controller.number(aim, h, now - 50.0)[0] == pytest.approx(math.exp(-RISE / 5), rel=0.01)
    assert (
        controller.number(2.0, h, now - 50.0)[0] == controller.number(2.0, h, UNKNOWN)[0]
    )  # tried again from the same place
    noisy = Controller(5.0, shared=True, noisy=True)
    assert noisy.number(0.4, h, -50.0)[0] == pytest.approx(1.0)


def test_fewer_steps_are_rejected_where_a_problem_becomes_harder():
    """x' = x²: towards the blow-up each step is harder than the last by the same factor."""
    ode = sf.ODE(lambda t, x: x**2)
    for stepping in ("shared", "per-sample"):
        stats = sf.solve(ode, torch.ones(3, 1, dtype=DOUBLE), (0.0, 1 - 1e-8), rtol=1e-6, stepping=stepping).stats
        accepted, rejected = (torch.as_tensor(stats[name]).max() for name in ("accepted", "rejected"))
        assert accepted > 40 and rejected <= 0.1 * accepted


def test_the_clock_on_the_host_is_controlled_as_those_on_the_device():
    h = [0.3] * len(ERRORS)
    for order, noisy in ((3.0, False), (5.0, False), (8.0, False), (2.0, True)):
        controller = Controller(order, shared=False, noisy=noisy)
        for before in (UNKNOWN, 0.0, 5.0, -100.0):
            plain = [controller.number(error, 0.3, before) for error in ERRORS]
            inputs = [torch.tensor(v, dtype=DOUBLE) for v in (ERRORS, h, [before] * len(h))]
            for clocks in (inputs, [v.numpy() for v in inputs]):
                factor, hardness = controller.vector(*clocks)
                assert [f for f, _ in plain] == pytest.approx(factor.tolist(), rel=1e-6)
                known = slice(0, 12)  # beyond, nothing is accepted
                assert [p for _, p in plain][known] == pytest.approx(hardness.tolist()[known])


def test_the_error_of_a_batch_hides_no_sample():
    """Root-mean-square, but at least an eighth of the worst: one sample among a million may err by eight tolerances."""
    assert shared_error(torch.tensor([3.0, 4.0])) == pytest.approx(math.sqrt(12.5))
    errors = torch.zeros(1_000_000)
    errors[17] = 2.0
    assert shared_error(errors) == pytest.approx(2.0 / WORST)
    assert WORST <= 8
    for some in (errors, torch.tensor([3.0, 4.0]), torch.tensor([3.0])):
        assert shared_size(some) == pytest.approx(float(shared_error(some)))
    errors[3] = math.nan
    assert not shared_error(errors) <= 1 and not shared_size(errors) <= 1


def test_the_error_is_measured_in_tolerances_coordinate_by_coordinate():
    like = torch.tensor([[10.0, 0.0], [1.0, -3.0]], dtype=DOUBLE)
    tolerance = Tolerance.of(0.1, 0.5, None, like)
    estimate = torch.tensor([[3.0, 0.5], [0.0, 0.8]], dtype=DOUBLE)
    expected = [math.sqrt((2.0**2 + 1.0**2) / 2), 1.0 / math.sqrt(2)]
    assert tolerance.error(estimate[None], like, 0 * like).tolist() == pytest.approx(expected)
    masked = Tolerance.of(0.1, 0.5, torch.tensor([0.0, 1.0]), like)
    assert masked.error(estimate[None], like, 0 * like).tolist() == pytest.approx([1.0, 1.0])
    resting = Tolerance.of(0.1, 0.0, None, like)
    assert resting.error(0 * estimate[None], 0 * like, 0 * like).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_of_two_estimates_the_second_makes_the_first_believed_less(dtype):
    """|e|² / √(|e|² + (|e′|/10)²), also where the squares would overflow, and nothing where both are nothing."""
    like = torch.zeros(4, 1, dtype=dtype)
    first, second = torch.tensor([[3.0, 1e-3, 1e30, 0.0], [40.0, 1e-1, 1e30, 0.0]], dtype=dtype)
    estimates = torch.stack([first, second])[..., None]
    expected = [9 / 5, 1e-6 / math.hypot(1e-3, 1e-2), 1e30 / math.sqrt(1.01), 0.0]
    assert Tolerance.of(0.0, 1.0, None, like).error(estimates, like, like).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
def test_the_first_step_knows_a_velocity_that_hardly_changes(stepping):
    """x' = ε cos t + 1: for small ε one step goes all the way, whatever the size of the velocity in tolerances."""
    x = torch.linspace(1.5, 3.0, 4, dtype=DOUBLE)[:, None]  # a first step goes no farther than x is large
    attempts = {}
    for change in (0.0, 1e-3, 1.0):
        ode = sf.ODE(lambda t, x, change=change: 1 + change * torch.cos(3 * t) * torch.ones_like(x))
        stats = sf.solve(ode, x, rtol=1e-6, stepping=stepping).stats
        attempts[change] = int(torch.as_tensor(stats["accepted"] + stats["rejected"]).max())
    assert attempts[0.0] == 1 and attempts[1e-3] <= 3 < attempts[1.0]
