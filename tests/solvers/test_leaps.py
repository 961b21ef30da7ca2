"""Steps planned as numbers for a whole grid, and made one by one where a derivative goes through them."""

import pytest
import torch

import sdeflow as sf
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
    steps = leaps(forward, (t, (t + n) / 2, n), D, 1)
    for step, whole in zip(steps, leap_rows(forward, t, n), strict=True):
        assert step.of_x == pytest.approx(whole)
    assert known_share(forward, t) == 1.0
    part = sde.marginal_preserving(lambda t, x: -x, lambda t: 0.25 * sde.schedule.squared_diffusion(t.double()))
    torch.testing.assert_close(known_share(part, t), torch.full_like(t, 0.5), rtol=1e-5, atol=0)


def leap_rows(process, t, n):
    schedule = process.schedule
    h = (schedule.log_snr(n) - schedule.log_snr(t)) / 2
    return (schedule.s(n) / schedule.s(t) * (-h).exp()).tolist()


def test_what_a_step_takes_of_the_data_is_what_it_takes_of_its_change():
    """q = a_n − p a_t = a_n (1 − e^{−(h+K)}), which saves a number a step."""
    for share in (None, 0.3, 1.0):
        flow = sf.processes.VariancePreserving().probability_flow(lambda t, x: -x)
        step = leap(flow, TIMES[:-1], TIMES[1:], share)
        torch.testing.assert_close(step.of_data, -step.end.a * torch.expm1(-step.decay), rtol=1e-9, atol=0)
