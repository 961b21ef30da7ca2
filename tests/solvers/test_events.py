"""Events: times and states against closed forms, whose they are, and their derivatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.solvers.events import itp

DOUBLE = torch.float64
FIXED = settings(derandomize=True, deadline=None, max_examples=25)
STEPPINGS = ["shared", "per-sample"]
METHODS = ["tsit5", "dopri5", "bosh3", "dopri8", "rodas5p"]
G = 9.81

fall = sf.ODE(lambda t, x: torch.stack([x[:, 1], -G + 0 * x[:, 1]], 1), interval=(0.0, 5.0))
oscillator = sf.ODE(lambda t, x: torch.stack([x[:, 1], -x[:, 0]], 1), interval=(0.0, 20.0))
ground = sf.Event(lambda t, x: x[:, 0], direction=-1)


def landing(x0):
    """When a ball thrown from x0 = (height, speed) is at height 0, and its speed there."""
    root = (x0[:, 1].square() + 2 * G * x0[:, 0]).sqrt()
    return (x0[:, 1] + root) / G, -root


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_ball_lands_each_at_its_own_time(method, stepping):
    """The flight is a parabola, which every method follows exactly; one ball is still in the air at the end."""
    x0 = torch.tensor([[10.0, 0.0], [1.0, 3.0], [40.0, -2.0], [1000.0, 0.0]], dtype=DOUBLE)
    sol = sf.solve(fall, x0, [0.0, 1.0, 2.0, 5.0], rtol=1e-6, method=method, stepping=stepping, event=ground)
    t, speed = landing(x0)
    (landed,) = sol.events
    assert landed.sample.tolist() == [0, 1, 2]
    assert torch.allclose(landed.t, t[:3], atol=1e-10)
    assert torch.allclose(landed.x[:, 1], speed[:3], atol=1e-9) and landed.x[:, 0].abs().max() < 1e-9
    assert sol.status.tolist() == [sf.Status.EVENT] * 3 + [sf.Status.SUCCESS] and sol.success.all()
    assert torch.allclose(sol.stats["t_reached"][:3], t[:3], atol=1e-10)
    for time, x in zip(sol.t, sol.x, strict=True):  # held where it landed
        then = torch.minimum(time, t)
        assert torch.allclose(x[:, 1], x0[:, 1] - G * then, atol=1e-9)
    assert torch.allclose(sol.final[:3], landed.x)


@FIXED
@given(
    phase=st.lists(st.floats(0.05, 6.2), min_size=1, max_size=4),
    direction=st.sampled_from([-1, 0, 1]),
    forward=st.booleans(),
    stepping=st.sampled_from(STEPPINGS),
)
def test_zeros_of_an_oscillator_by_direction(phase, direction, forward, stepping):
    """x = sin(t + φ): zeros at kπ − φ, upwards for even k as t grows and for odd k as it falls; recorded, not terminal."""
    angle = torch.tensor(phase, dtype=DOUBLE)
    start, end = (0.0, 20.0) if forward else (20.0, 0.0)
    x0 = torch.stack([torch.sin(angle + start), torch.cos(angle + start)], 1)
    zero = sf.Event(lambda t, x: x[:, 0], direction=direction, terminal=False)
    sol = sf.solve(oscillator, x0, (start, end), rtol=1e-9, stepping=stepping, event=zero)
    sign = 1 if forward else -1
    for i, shift in enumerate(phase):
        expected = [
            (k * math.pi - shift)
            for k in range(12)
            if 0 < k * math.pi - shift < 20 and direction in (0, sign * (1 if k % 2 == 0 else -1))
        ]
        found = sol.events[0].t[sol.events[0].sample == i].tolist()
        near_an_end = any(min(abs(e), abs(e - 20)) < 1e-6 for e in (k * math.pi - shift for k in range(12)))
        assert near_an_end or found == pytest.approx(expected if forward else expected[::-1], abs=1e-6)
    assert (sol.status == 0).all()


def test_nothing_happens():
    sol = sf.solve(oscillator, torch.tensor([[1.0, 0.0]]), rtol=1e-6, event=lambda t, x: x[:, 0] - 2)
    assert len(sol.events[0]) == 0 and sol.status.tolist() == [0]
    assert torch.equal(sol.final, sf.solve(oscillator, torch.tensor([[1.0, 0.0]]), rtol=1e-6).final)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_what_comes_after_a_terminal_event_has_not_happened(stepping):
    """Also within the step in which it ends a sample: three functions, of which the second ends it."""
    late = sf.Event(lambda t, x: x[:, 0] - 0.5 + 0.001, direction=-1, terminal=False)
    stop = sf.Event(lambda t, x: x[:, 0] - 0.5, direction=-1)
    early = sf.Event(lambda t, x: x[:, 0] - 0.5 - 0.001, direction=-1, terminal=False)
    x0 = torch.tensor([[1.0, 0.0], [0.8, 0.0]], dtype=DOUBLE)
    sol = sf.solve(oscillator, x0, rtol=1e-8, stepping=stepping, event=[late, stop, early])
    assert [len(events) for events in sol.events] == [0, 2, 2]
    assert sol.events[1].t.tolist() == pytest.approx([math.acos(0.5), math.acos(0.5 / 0.8)], abs=1e-6)
    assert (sol.events[2].t < sol.events[1].t).all()


def test_the_first_of_two_terminal_events_counts():
    up, down = (sf.Event(lambda t, x, s=s: x[:, 0] - s) for s in (0.5, 0.501))
    sol = sf.solve(oscillator, torch.tensor([[1.0, 0.0]], dtype=DOUBLE), rtol=1e-8, event=[up, down])
    assert [len(events) for events in sol.events] == [0, 1]
    assert sol.final[0, 0].item() == pytest.approx(0.501, abs=1e-9)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("times", [(0.0, 5.0), [0.0, 1.0, 5.0]])
def test_a_shared_batch_is_not_spoiled_by_those_who_have_landed(stepping, times):
    """Below the ground the velocity is NaN, which a ball that has landed must not see."""
    field = sf.ODE(
        lambda t, x: torch.where(x[:, :1] < -5.0, float("nan"), torch.stack([x[:, 1], -G + 0 * x[:, 1]], 1)),
        interval=(0.0, 5.0),
    )
    x0 = torch.tensor([[1.0, 0.0], [2.0, 0.0], [900.0, 0.0]], dtype=DOUBLE)
    sol = sf.solve(field, x0, times, rtol=1e-6, stepping=stepping, event=ground, first_step=0.05)
    assert torch.allclose(sol.events[0].t, landing(x0)[0][:2], atol=1e-9)
    assert sol.final[2, 0].item() == pytest.approx(900 - G * 12.5, abs=1e-6)


@pytest.mark.parametrize("stepping", STEPPINGS)
@pytest.mark.parametrize("method", ["tsit5", "dopri8", "rodas5p"])
def test_times_and_states_of_events_have_derivatives(stepping, method):
    """gradcheck of the times and of the states that are held, by the implicit function theorem; a moving ground, so that ∂g/∂t
    counts; and the closed form dt/dh = 1/√(v² + 2Gh)."""
    x0 = torch.tensor([[10.0, 0.0], [1.0, 3.0]], dtype=DOUBLE, requires_grad=True)

    def solve(x0, event):
        return sf.solve(fall, x0, [0.0, 0.3, 5.0], rtol=1e-9, method=method, stepping=stepping, event=event)

    def moving(x0):
        sol = solve(x0, sf.Event(lambda t, x: x[:, 0] - 0.4 * t.flatten(), direction=-1))
        return sol.events[0].t, sol.events[0].x, sol.x

    assert torch.autograd.gradcheck(moving, (x0,), eps=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(solve(x0, ground).events[0].t.sum(), x0)
    root = (x0[:, 1].square() + 2 * G * x0[:, 0]).sqrt()
    assert torch.allclose(slope[:, 0], 1 / root, rtol=1e-7)


@pytest.mark.parametrize("stepping", STEPPINGS)
def test_what_an_event_is_made_of_has_derivatives(stepping):
    """e^{−t} = c at t = −ln c, with dt/dc = −1/c and x = c, although nothing in the solution itself wants a gradient."""
    level = torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)
    decay = sf.ODE(lambda t, x: -x, interval=(0.0, 3.0))
    event = sf.Event(lambda t, x: x[:, 0] - level)
    sol = sf.solve(decay, torch.ones(2, 1, dtype=DOUBLE), rtol=1e-10, stepping=stepping, event=event)
    for value, slope in ((sol.events[0].t, -1 / 0.4), (sol.events[0].x, 1.0), (sol.final, 1.0)):
        (derivative,) = torch.autograd.grad(value.sum(), level, retain_graph=True)
        assert float(derivative) == pytest.approx(2 * slope, rel=1e-8)


def test_the_time_given_to_an_event_is_the_callers():
    """On the way down from 20 as well, in float32 and of a shape that broadcasts."""
    seen = []

    def event(t, x):
        seen.append(t)
        return (t - 7.0).expand(x.shape)[:, 0]

    for times in ((0.0, 20.0), (20.0, 0.0)):
        sol = sf.solve(oscillator, torch.ones(3, 2), times, rtol=1e-4, event=event)
        assert sol.events[0].t.tolist() == pytest.approx([7.0] * 3, abs=1e-5)
    assert all(t.dtype is torch.float32 and t.shape in ((3, 1), (1, 1), ()) for t in seen)


@FIXED
@given(seed=st.integers(0, 2**32 - 1))
def test_zeros_are_found_for_all_at_once(seed):
    """Cubics with one real zero in (0, 1), and both signs; to the precision, in few evaluations."""
    generator = torch.Generator().manual_seed(seed)
    zero, steep = (torch.rand(50, generator=generator, dtype=DOUBLE) for _ in range(2))
    sign = torch.where(torch.rand(50, generator=generator) < 0.5, -1.0, 1.0).double()
    calls = []

    def g(p):
        calls.append(1)
        return sign * ((p - zero) + 50 * steep * (p - zero) ** 3)

    found = itp(g, g(torch.zeros_like(zero)), g(torch.ones_like(zero)))
    assert (found - zero).abs().max() < 1e-12 and len(calls) <= 50


def test_refusals():
    x = torch.ones(2, 2)
    with pytest.raises(sf.MethodError, match="polynomial"):
        sf.solve(oscillator, x, steps=10, event=ground)
    with pytest.raises(sf.ArgumentError, match="direction=2"):
        sf.Event(lambda t, x: x[:, 0], direction=2)
    with pytest.raises(sf.ArgumentError, match=r"\(2, 2\).*one number for each"):
        sf.solve(oscillator, x, rtol=1e-3, event=lambda t, x: x)
    with pytest.raises(sf.ArgumentError, match="function of"):
        sf.solve(oscillator, x, rtol=1e-3, event=3.0)


@pytest.mark.parametrize("stepping", ["shared", "per-sample"])
@pytest.mark.parametrize("method", ["tsit5", "dopri8", "rodas5p"])
def test_two_crossings_in_one_step_are_both_found(method, stepping):
    """x = t takes one step, at both ends of which g is positive; samples cross at places of their own, or not at all."""
    width = torch.tensor([0.1, 0.2, 0.3, 0.0], dtype=torch.float64)
    below = torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64)

    def g(t, x):
        return (x[:, 0] - 0.5) ** 2 - below * width**2 + (below < 0) * 1e-3

    ode, x = sf.ODE(lambda t, x: torch.ones_like(x)), torch.zeros(4, 1, dtype=torch.float64)
    options = {"rtol": 1e-6, "method": method, "stepping": stepping, "first_step": 1.0}
    sol = sf.solve(ode, x, event=sf.Event(g, terminal=False), **options)
    assert int(torch.as_tensor(sol.stats["accepted"]).max()) == 1
    both = torch.stack([0.5 - width[:3], 0.5 + width[:3]], 1)
    torch.testing.assert_close(sol.events[0].t, both.flatten(), rtol=0.0, atol=1e-9)
    assert sol.events[0].sample.tolist() == [0, 0, 1, 1, 2, 2]
    upwards = sf.solve(ode, x, event=sf.Event(g, direction=1, terminal=False), **options)
    torch.testing.assert_close(upwards.events[0].t, both[:, 1], rtol=0.0, atol=1e-9)
    first = sf.solve(ode, x, event=g, **options)  # the first of the two ends them
    torch.testing.assert_close(first.final[:, 0], torch.cat([both[:, 0], torch.ones(1, dtype=torch.float64)]))
    assert first.status.tolist() == [sf.Status.EVENT] * 3 + [sf.Status.SUCCESS]
