"""Steps planned as numbers for a whole grid, and made one by one where a derivative goes through them."""

import pytest
import torch

import sdeflow as sf
from sdeflow.processes.schedules import VPSchedule
from sdeflow.solvers.leaps import known_share, leap, leaps

D = torch.float64
METHODS = [m for m in sf.methods() if "schedule" in m.needs]
TIMES = torch.tensor([0.9, 0.7, 0.4, 0.2], dtype=D)


def process_for(method, rate=1.0):
    """The flow or the reversal of a path with a rate in it, for normal data."""
    schedule = sf.processes.CustomSchedule(lambda t: (-rate * t).exp(), lambda t: (-torch.expm1(-2 * rate * t)).sqrt())
    sde = sf.processes.ScheduledDiffusion(schedule)

    def score(t, x):
        return -x / (0.25 * schedule.a(t.double()).square() + schedule.variance(t.double())).to(x.dtype)

    return sde.probability_flow(score) if method.ode_order else sde.reverse(score, clock="backward")


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_derivatives_go_through_the_schedule_in_each_mode(method):
    """By automatic differentiation backward and forward, and by differences; a planned step has none of them."""
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=D)

    def final(rate):
        return sf.solve(
            process_for(method, rate), x, TIMES[[0, -1]], steps=TIMES, method=method.name, seed=0
        ).final.sum()

    one = torch.tensor(1.0, dtype=D)
    rate = one.clone().requires_grad_()
    (backward,) = torch.autograd.grad(final(rate), rate)
    with torch.autograd.forward_ad.dual_level():
        made = final(torch.autograd.forward_ad.make_dual(one, torch.ones_like(one)))
        forward = torch.autograd.forward_ad.unpack_dual(made).tangent
    differences = (final(one + 1e-5) - final(one - 1e-5)) / 2e-5
    assert differences.abs() > 1e-3
    torch.testing.assert_close(backward, differences, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(forward, differences, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("clock", ["backward", "flipped"])
def test_a_reversal_replaces_as_much_noise_as_its_diffusion_adds(clock):
    """K = |h|, on either clock, so that p = (s_n/s_t) e^{−h}; half the noise is half of it, and so is that of any share."""
    sde = sf.processes.VariancePreserving()
    reversal = sde.reverse(lambda t, x: -x, clock=clock)
    forward = reversal if clock == "flipped" else reversal.flip()
    t, n = 1 - TIMES[:-1], 1 - TIMES[1:]
    steps = leaps(forward, [v.numpy() for v in (t, (t + n) / 2, n)], t, 1)
    for step, whole in zip(steps, leap_rows(forward, t, n), strict=True):
        assert step.leap.of_x == pytest.approx(whole)
    assert known_share(forward, t.numpy(), t.device) == 1.0
    part = sde.marginal_preserving(lambda t, x: -x, lambda t: 0.25 * sde.schedule.squared_diffusion(t.double()))
    assert known_share(part, t.numpy(), t.device) == pytest.approx([0.5] * len(t), rel=1e-5)


def leap_rows(process, t, n):
    schedule = process.schedule
    h = (schedule.log_snr(n) - schedule.log_snr(t)) / 2
    return (schedule.s(n) / schedule.s(t) * (-h).exp()).tolist()


def test_what_a_step_takes_of_the_data_is_what_it_takes_of_its_change():
    """q = a_n − p a_t = a_n (1 − e^{−(h+K)}), which saves a number a step."""
    for share in (None, 0.3, 1.0):
        schedule = sf.processes.VariancePreserving().schedule
        step = leap(schedule, TIMES[:-1], TIMES[1:], share and torch.full_like(TIMES[1:], share))
        torch.testing.assert_close(step.of_data, -step.end.a * torch.expm1(-step.decay), rtol=1e-9, atol=0)


def last_of_vp(schedule, x=None):
    """Where a solve of five DDIM steps ends."""
    flow = sf.processes.ScheduledDiffusion(schedule).probability_flow(lambda t, x: -x / 2)
    x = torch.ones(2, 3, dtype=D) if x is None else x
    return sf.solve(flow, x, (1.0, 0.1), steps=5, method="ddim").final


def test_what_is_kept_for_the_next_solve_is_of_the_schedule_as_it_is():
    """One that was changed, one of equal numbers, and a subclass of its own."""
    first, alike, other = (VPSchedule(0.1, beta) for beta in (20.0, 20.0, 5.0))
    before = last_of_vp(first)
    assert torch.equal(last_of_vp(first), before) and torch.equal(last_of_vp(alike), before)
    assert not torch.allclose(last_of_vp(other), before)
    first.beta_max = 5.0
    assert torch.equal(last_of_vp(first), last_of_vp(other))
    first.beta_max = 20.0
    assert torch.equal(last_of_vp(first), before)

    rate = 1.0

    class Own(VPSchedule):
        def log_a(self, t):
            return rate * super().log_a(t)

    own = Own(0.1, 20.0)
    assert own.value is None and torch.equal(last_of_vp(own), before)
    rate = 0.5
    assert not torch.allclose(last_of_vp(own), before)


def test_what_is_kept_has_no_derivative():
    """A number that was made a tensor is none any more."""
    schedule = VPSchedule(0.1, 20.0)
    last_of_vp(schedule)
    schedule.beta_max = torch.tensor(20.0, dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(last_of_vp(schedule).sum(), schedule.beta_max)
    differences = [last_of_vp(VPSchedule(0.1, 20.0 + e)).sum().item() for e in (1e-4, -1e-4)]
    assert slope.item() == pytest.approx((differences[0] - differences[1]) / 2e-4, rel=1e-5)


def test_a_grid_that_is_kept_is_not_written_to():
    """Not even by a schedule that writes to the times it is given."""
    before = last_of_vp(VPSchedule(0.1, 20.0))

    class Writes(VPSchedule):
        def log_a(self, t):
            value = super().log_a(t)
            t.zero_()
            return value

    last_of_vp(Writes(0.1, 20.0))
    assert torch.equal(last_of_vp(VPSchedule(0.1, 20.0)), before)
