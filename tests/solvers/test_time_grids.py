"""Time grids: each is equidistant in what it says, between the ends that were asked for."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.processes import CustomSchedule, ScheduledDiffusion
from sdeflow.solvers import time_grids

D = torch.float64
PROCESSES = {
    "vp": sf.processes.VariancePreserving(),
    "sub-vp": sf.processes.SubVariancePreserving(),
    "ve": sf.processes.VarianceExploding(),
    "cosine": sf.processes.CosineVariancePreserving(),
    "straight": ScheduledDiffusion(CustomSchedule(lambda t: 1 - t, lambda t: t, interval=(0.0, 0.99))),
}
SCALES = {
    "uniform": lambda t, sigma: t,
    "log_snr": lambda t, sigma: sigma.log(),
    "karras": lambda t, sigma: sigma ** (1 / 7),
    "cosine": lambda t, sigma: sigma.atan(),
}


def sigma(process, t):
    t = torch.tensor(t, dtype=D)
    return process.schedule.s(t) / process.schedule.a(t)


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    name=st.sampled_from(sorted(PROCESSES)),
    kind=st.sampled_from(sorted(SCALES)),
    ends=st.tuples(st.floats(0.01, 0.4), st.floats(0.5, 0.95)),
    turned=st.booleans(),
    flipped=st.booleans(),
    n=st.integers(1, 30),
)
def test_steps_are_equal_in_what_the_grid_is_named_after(name, kind, ends, turned, flipped, n):
    process = PROCESSES[name]
    if flipped:
        process = process.reverse(lambda t, x: -x)
        ends = tuple(process.reflect(t) for t in ends)
    span = ends[::-1] if turned else ends
    times = getattr(time_grids, kind)(process, n, span)
    assert len(times) == n + 1 and (times[0], times[-1]) == span
    assert all((b - a) * (span[1] - span[0]) > 0 for a, b in pairwise(times))
    gaps = SCALES[kind](torch.tensor(times, dtype=D), sigma(process, times)).diff()
    assert (gaps - gaps.mean()).abs().max() <= 1e-6 * gaps.mean().abs()


@pytest.mark.parametrize("kind", ["log_snr", "karras"])
def test_the_leap_to_no_noise_is_from_sigma_min(kind):
    """The levels of Karras et al.: from σ_max to σ_min in n − 1 steps, and then 0."""
    process = PROCESSES["vp"]
    times = getattr(time_grids, kind)(process, 6, (1.0, 0.0), sigma_min=0.01)
    assert len(times) == 7 and times[-1] == 0.0
    assert sigma(process, times)[-2].item() == pytest.approx(0.01, rel=1e-6)
    gaps = SCALES[kind](None, sigma(process, times[:-1])).diff()
    assert (gaps - gaps.mean()).abs().max() < 1e-6 * gaps.mean().abs()


def test_a_path_with_two_infinite_ends_leaps_at_both():
    model = sf.models.FlowMatching(lambda t, x: -x, sf.paths.LinearPath().base((2,)))
    ode = model.ode()
    times = time_grids.karras(ode, 8)
    assert len(times) == 9 and (times[0], times[-1]) == (0.0, 1.0)
    inner = [(1 - t) / t for t in times[1:-1]]
    assert inner[0] == pytest.approx(80.0) and inner[-1] == pytest.approx(0.002)
    angles = [math.atan2(1 - t, t) for t in time_grids.cosine(ode, 4)]
    assert angles == pytest.approx([k * math.pi / 8 for k in (4, 3, 2, 1, 0)])


def test_a_uniform_grid_is_that_of_a_number_of_steps():
    ode, x = sf.ODE(lambda t, x: t * x), torch.ones(1, 1, dtype=D)
    one, other = (sf.solve(ode, x, steps=steps, method="heun").final for steps in (7, time_grids.uniform(ode, 7)))
    torch.testing.assert_close(one, other)


def test_refusals():
    vp = PROCESSES["vp"]
    for call, words in (
        (lambda: time_grids.karras(sf.ODE(lambda t, x: x), 4), "no schedule"),
        (lambda: time_grids.uniform(vp, 0), "n=0"),
        (lambda: time_grids.log_snr(vp, 2.5), "n=2.5"),
        (lambda: time_grids.log_snr(vp, 1, (1.0, 0.0)), "leap"),
        (lambda: time_grids.karras(vp, 4, rho=0), "rho=0"),
        (lambda: time_grids.karras(vp, 4, (0.5, 0.0), sigma_min=1e4), "sigma_min"),
        (lambda: time_grids.cosine(vp, 4, (0.0, 0.5, 1.0)), "3 times"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()
