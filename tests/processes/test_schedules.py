"""Schedules: derivatives, the diffusion they imply, the log-SNR and its inverse, and digits at the ends."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.processes import CustomSchedule, LinearSchedule, ScheduledDiffusion
from sdeflow.processes.schedules import CosineVPSchedule, OUSchedule, SubVPSchedule, VESchedule, VPSchedule

properties = settings(derandomize=True, deadline=None, max_examples=30)


def number(low, high):
    return st.floats(low, high, allow_nan=False, width=64)


@st.composite
def vp_like(draw, schedule):
    low, width = draw(number(0, 2)), draw(number(0.5, 20))
    return schedule(low, low + width)


@st.composite
def exploding(draw):
    low = draw(number(0.01, 0.5))
    return VESchedule(low, low * draw(number(2, 500)))


@st.composite
def ornstein_uhlenbeck(draw):
    start = draw(number(-1, 1))
    return OUSchedule(draw(st.just(0.0) | number(0.1, 3)), draw(number(0.2, 2)), (start, start + draw(number(0.5, 3))))


@st.composite
def custom(draw):
    p, q = draw(number(0.5, 3)), draw(number(0.2, 2))
    return CustomSchedule(lambda t: (1 - t / 2) ** p, lambda t: q * t.sin(), (0.0, 1.0))


FAMILIES = {
    "vp": vp_like(VPSchedule),
    "sub-vp": vp_like(SubVPSchedule),
    "cosine": st.just(CosineVPSchedule((0.0, 0.999))),
    "ve": exploding(),
    "ou": ornstein_uhlenbeck(),
    "linear": st.just(LinearSchedule()),
    "custom": custom(),
}
NOISING = [name for name in FAMILIES if name != "linear"]
every_family = pytest.mark.parametrize("family", FAMILIES)


@st.composite
def schedule_and_time(draw, family, flips=True):
    """A schedule, as it is or on the flipped clock, and times inside its interval."""
    schedule = draw(FAMILIES[family])
    if flips and draw(st.booleans()):
        schedule = schedule.flip(schedule.interval)
    start, end = schedule.interval
    parts = draw(st.lists(number(0.02, 0.98), min_size=3, max_size=3))
    return schedule, torch.tensor([start + u * (end - start) for u in parts], dtype=torch.float64)


def slope(function, t):
    t = t.detach().requires_grad_()
    value = function(t)
    return torch.autograd.grad(value.sum(), t)[0] if value.requires_grad else torch.zeros_like(t)  # a constant


def close(value, expected, tolerance=1e-9):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


@every_family
@properties
@given(data=st.data())
def test_derivatives_are_those_of_the_coefficients(family, data):
    schedule, t = data.draw(schedule_and_time(family))
    with torch.no_grad():
        h = 1e-6
        for value, derivative in ((schedule.a, schedule.a_dot), (schedule.s, schedule.s_dot)):
            central = (value(t + h) - value(t - h)) / (2 * h)
            torch.testing.assert_close(derivative(t), central, rtol=1e-6, atol=1e-6)
    for value, derivative in (
        (schedule.a, schedule.a_dot),
        (schedule.s, schedule.s_dot),
        (schedule.variance, schedule.variance_dot),
        (lambda t: schedule.a(t).log(), schedule.drift_rate),
    ):
        close(derivative(t), slope(value, t))
    close(schedule.s(t).square(), schedule.variance(t))


@every_family
@properties
@given(data=st.data())
def test_squared_diffusion_is_its_formula(family, data):
    schedule, t = data.draw(schedule_and_time(family))
    formula = schedule.variance_dot(t) - 2 * schedule.a_dot(t) / schedule.a(t) * schedule.variance(t)
    close(schedule.squared_diffusion(t), formula)


@pytest.mark.parametrize("family", NOISING)
@properties
@given(data=st.data())
def test_squared_diffusion_has_the_sign_of_the_clock(family, data):
    schedule, t = data.draw(schedule_and_time(family, flips=False))
    flipped = schedule.flip(schedule.interval)
    assert (schedule.squared_diffusion(t) > 0).all()
    assert (flipped.squared_diffusion(sum(schedule.interval) - t) < 0).all()


@properties
@given(data=st.data(), low=number(0, 2), width=number(0.5, 20))
def test_squared_diffusions_are_those_of_the_papers(data, low, width):
    u = data.draw(number(0.0, 1.0))
    t = torch.tensor(u, dtype=torch.float64)
    beta, integral = low + u * width, low * u + width * u * u / 2
    close(VPSchedule(low, low + width).squared_diffusion(t), t.new_tensor(beta), 1e-12)
    close(VPSchedule(low, low + width).a(t), t.new_tensor(math.exp(-integral / 2)), 1e-12)
    sub = t.new_tensor(beta * (1 - math.exp(-2 * integral)))  # β(1 − a⁴)
    close(SubVPSchedule(low, low + width).squared_diffusion(t), sub, 1e-12)
    sigma_min, ratio = 0.01 + low / 10, 1 + width
    exploding = VESchedule(sigma_min, sigma_min * ratio)
    sigma = sigma_min * ratio**u
    close(exploding.squared_diffusion(t), t.new_tensor(2 * math.log(ratio) * sigma**2), 1e-12)
    close(exploding.variance(t), t.new_tensor(sigma**2 - sigma_min**2), 1e-12)
    close(OUSchedule(low, ratio).squared_diffusion(t), t.new_tensor(ratio**2), 1e-12)
    cosine = CosineVPSchedule((0.0, 0.999)).squared_diffusion(0.999 * t)
    close(cosine, t.new_tensor(math.pi * math.tan(math.pi * 0.999 * u / 2)), 1e-12)


@every_family
@properties
@given(data=st.data())
def test_log_snr_and_its_inverse(family, data):
    schedule, t = data.draw(schedule_and_time(family))
    value = schedule.log_snr(t)
    close(value, 2 * (schedule.a(t) / schedule.s(t)).log())
    close(schedule.time_of_log_snr(value), t)
    close(schedule.time_of_log_snr(value[0]), t[0])


@every_family
@properties
@given(data=st.data())
def test_flipping_is_reading_the_axis_from_the_other_end(family, data):
    schedule, t = data.draw(schedule_and_time(family, flips=False))
    start, end = schedule.interval
    flipped, back = schedule.flip((start, end)), start + end - t
    for name, sign in (
        ("a", 1),
        ("s", 1),
        ("variance", 1),
        ("log_snr", 1),
        ("a_dot", -1),
        ("s_dot", -1),
        ("variance_dot", -1),
        ("drift_rate", -1),
        ("squared_diffusion", -1),
    ):
        close(getattr(flipped, name)(t), sign * getattr(schedule, name)(back), 1e-12)
    assert flipped.flip((start, end)) is schedule
    other = flipped.flip((start, end + 1))  # another axis: not the inverse
    close(other.a(t), schedule.a(t - 1), 1e-12)


def first_terms(y):
    """1 − exp(−y) for small y."""
    return y - y**2 / 2 + y**3 / 6


@pytest.mark.parametrize(
    ("schedule", "deviation"),
    [
        (VPSchedule(0.1, 20.0), lambda t: math.sqrt(first_terms(0.1 * t + 19.9 * t * t / 2))),
        (SubVPSchedule(0.1, 20.0), lambda t: first_terms(0.1 * t + 19.9 * t * t / 2)),
        (VESchedule(0.01, 50.0), lambda t: 0.01 * math.sqrt(-first_terms(-2 * math.log(5000) * t))),
        (OUSchedule(0.7, 1.3), lambda t: 1.3 * math.sqrt(first_terms(1.4 * t) / 1.4)),
        (OUSchedule(0.0, 1.3), lambda t: 1.3 * math.sqrt(t)),
        (CosineVPSchedule((0.0, 0.999)), lambda t: math.sin(math.pi * t / 2)),
    ],
)
@pytest.mark.parametrize("time", [1e-12, 1e-9, 1e-7])
def test_the_deviation_keeps_its_digits_near_the_data(schedule, deviation, time):
    t = torch.tensor(time, dtype=torch.float64)
    assert schedule.s(t).item() == pytest.approx(deviation(time), rel=1e-13)
    assert schedule.variance(t).item() == pytest.approx(deviation(time) ** 2, rel=1e-13)
    assert schedule.log_snr(t).item() == pytest.approx(
        2 * (schedule.a(t).log().item() - math.log(deviation(time))), rel=1e-13
    )
    found = schedule.time_of_log_snr(schedule.log_snr(t)).item()
    assert found == pytest.approx(time, rel=1e-10)


def test_the_log_snr_is_finite_where_the_signal_underflows():
    schedule = VPSchedule(0.1, 4000.0)  # a(1) = e^{−1000}
    t = torch.tensor(1.0, dtype=torch.float64)
    assert schedule.log_snr(t).item() == pytest.approx(-2000.05, rel=1e-12)
    assert schedule.flip((0.0, 1.0)).log_snr(1 - t).item() == pytest.approx(-2000.05, rel=1e-12)


def test_the_straight_line_is_exact_at_both_ends():
    line = LinearSchedule()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert line.a(ends).tolist() == [0, 1] and line.s(ends).tolist() == [1, 0]
    assert line.variance_dot(ends).tolist() == [-2, 0]


@pytest.mark.parametrize("family", NOISING)
@properties
@given(data=st.data())
def test_the_diffusion_of_a_schedule_has_its_marginals(family, data):
    """Moments by the linear equations m' = (ȧ/a) m and v' = 2(ȧ/a) v + g², and the transition law composes."""
    schedule, t = data.draw(schedule_and_time(family, flips=False))
    sde = ScheduledDiffusion(schedule)
    x = torch.tensor([[1.5, -2.0]], dtype=torch.float64)
    s, m, e = t.sort().values.tolist()
    e = e + 0.01 * (schedule.interval[1] - e)
    rate, g = sde.drift(m, torch.ones(1, 1, dtype=torch.float64)).item(), sde.diffusion(m, x).item()
    time = torch.tensor(m, dtype=torch.float64)
    assert schedule.a_dot(time).item() == pytest.approx(rate * schedule.a(time).item(), rel=1e-9, abs=1e-12)
    v, v_dot = schedule.variance(time).item(), schedule.variance_dot(time).item()
    assert v_dot == pytest.approx(2 * rate * v + g**2, rel=1e-9, abs=1e-9)
    start = schedule.interval[0] + 0.01 * (s - schedule.interval[0])
    first = sde.marginal(x, m, start)
    whole, second = sde.marginal(x, e, start), sde.marginal(first.mean, e, m)
    carried = schedule.a(torch.tensor(e, dtype=torch.float64)) / schedule.a(time)
    close(second.mean, whole.mean)
    close(second.variance + carried**2 * first.variance, whole.variance)


def test_a_schedule_is_made_of_functions():
    with pytest.raises(ArgumentError, match="two functions of time"):
        CustomSchedule(1.0, lambda t: t)
    with pytest.raises(ArgumentError, match="is empty or not finite"):
        CustomSchedule(lambda t: t, lambda t: 1 - t, interval=(1.0, 0.0))


def test_named_processes_state_an_interval_on_which_they_are_finite():
    for process in (
        sf.processes.VariancePreserving(),
        sf.processes.SubVariancePreserving(),
        sf.processes.CosineVariancePreserving(),
        sf.processes.VarianceExploding(),
    ):
        x = torch.ones(2, 3)
        for t in process.interval:
            assert process.drift(t, x).isfinite().all()
            assert process.diffusion(t, x).isfinite().all()
    with pytest.raises(ArgumentError, match="infinite β at t = 1"):
        sf.processes.CosineVariancePreserving(interval=(0.0, 1.0))
