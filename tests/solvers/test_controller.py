"""The step-size controller by itself."""

import math

import pytest
import torch

import sdeflow as sf
from sdeflow.solvers.controller import WORST, Controller, Tolerance, shared_error

DOUBLE = torch.float64


@pytest.mark.parametrize("order", [3, 5, 8])
def test_a_factor_does_not_depend_on_the_size_of_the_batch(order):
    """Bitwise, for every slice of a batch: torch's powers differ in the last digit between slices of one tensor."""
    generator = torch.Generator().manual_seed(0)
    error = torch.rand(64, generator=generator, dtype=DOUBLE) * 3 + 1e-3
    controller = Controller(order)
    whole = controller.vector(error)
    for size in range(1, 20):
        for start in range(40):
            part = slice(start, start + size)
            assert torch.equal(controller.vector(error[part]), whole[part])


def test_the_factor_grows_shrinks_and_is_bounded():
    error = torch.tensor([0.0, 1e-30, 0.4, 1.0, 2.0, 1e6, float("nan"), float("inf")], dtype=DOUBLE)
    factor = Controller(5, target=0.4).vector(error)
    assert factor[0] == factor[1] == 10.0 and factor[2] == pytest.approx(1.0)
    assert factor[2] > factor[3] > factor[4] and factor[3] < 0.9
    assert all(value == pytest.approx(0.2) for value in factor[5:])


def test_the_clock_on_the_host_is_controlled_as_those_on_the_device():
    errors = [0.0, 1e-12, 1e-3, 0.4, 1.0, 2.0, 40.0, 1e6, math.nan, math.inf]
    for order in (3.0, 5.0, 8.0):
        controller = Controller(order)
        vector = controller.vector(torch.tensor(errors, dtype=DOUBLE))
        assert [controller.number(error) for error in errors] == pytest.approx(vector.tolist(), rel=1e-6)


def test_the_error_of_a_batch_hides_no_sample():
    """Root-mean-square, but at least a quarter of the worst: one sample among a million may err by four tolerances."""
    assert shared_error(torch.tensor([3.0, 4.0])) == pytest.approx(math.sqrt(12.5))
    errors = torch.zeros(1_000_000)
    errors[17] = 2.0
    assert shared_error(errors) == pytest.approx(2.0 / WORST)
    assert WORST <= 4
    errors[3] = math.nan
    assert not shared_error(errors) <= 1


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
