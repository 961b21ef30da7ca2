"""Sampling on another schedule: the same law at equal signal-to-noise ratio, the same data at the end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stats import assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.paths.change import start_scale
from sdeflow.processes.together import fields_at

properties = settings(derandomize=True, deadline=None, max_examples=25)
LAW = sf.laws.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, 0.0]], [0.2, 0.4])
PATHS = {
    "linear": sf.paths.LinearPath(),
    "cosine": sf.paths.CosinePath(),
    "vp": sf.paths.VariancePreservingPath(),
    "ve": sf.paths.VarianceExplodingPath(0.01, 50.0),
}
PAIRS = [(old, new) for old in PATHS for new in PATHS if old != new]


def flow_on(old, new):
    path = PATHS[old]
    model = sf.models.FlowMatching(LAW.along(path.schedule).velocity, path.base((2,)), path=path)
    return sf.paths.change_schedule(model.ode(), PATHS[new].schedule)


@pytest.mark.parametrize("old, new", PAIRS)
@properties
@given(t=st.floats(0.15, 0.95), seed=st.integers(0, 2**31))
def test_the_velocity_is_that_of_the_new_schedule(old, new, t, seed):
    """A model trained on one path, with the exact velocity there, has the exact velocity on the other."""
    truth = LAW.along(PATHS[new].schedule)
    x = truth.sample(t, 4, seed=seed).double()
    flow = flow_on(old, new)
    torch.testing.assert_close(flow.velocity(t, x), truth.velocity(t, x), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(flow.score(t, x), truth.score(t, x), rtol=2e-5, atol=2e-5)


def test_the_end_is_the_data():
    """From draws of the base at 0, the flow on the cosine schedule follows its exact law to 1 − 1e-3."""
    flow = flow_on("linear", "cosine")
    assert flow.interval == (0.0, 0.999) and flow.direction == 1
    truth = LAW.along(PATHS["cosine"].schedule)
    x = torch.randn(2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = sf.solve(sf.ODE(truth.velocity), x, (0.0, 0.999), rtol=1e-9).final
    torch.testing.assert_close(sf.solve(flow, x, rtol=1e-9).final, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("old, new", [("linear", "ve"), ("ve", "cosine"), ("linear", "vp")])
def test_it_begins_with_the_noise_of_the_new_schedule(old, new):
    """Draws of the model's base, scaled, are carried to the data by the flow and by its SDEs, on either clock.

    Means and variances at the end, 2 · 2 · 3 numbers within 6 standard errors of 4000 samples; without the scale they
    are off by more where the two bases differ.
    """
    flow = flow_on(old, new)
    trained = flow.process.schedule
    scale = start_scale(flow, trained)
    assert abs(scale - PATHS[new].base_deviation / PATHS[old].base_deviation) < 1e-4 * scale
    base = PATHS[old].base((2,))
    noisy = flow.marginal_preserving(flow.score, lambda t: PATHS[new].schedule.s(t).square() / 2)
    for process in (flow, flow.flip(), noisy):
        assert start_scale(process, trained) == pytest.approx(scale, rel=1e-12)
        x0 = sf.paths.Draws(1).samples(base, 4000).double()
        options = {"rtol": 1e-4} if process is not noisy else {"steps": 150, "method": "ancestral", "seed": 2}
        x = sf.solve(process, scale * x0, **options).final
        law = LAW.along(PATHS[new].schedule).at(flow.interval[1])
        assert_moments(x, law.mean, law.variance)
        if scale > 2 or scale < 0.5:
            off = sf.solve(process, x0, **options).final
            assert max(standard_errors(off, law.mean), standard_errors((off - off.mean(0)) ** 2, law.variance)) > 6


def test_a_models_own_processes_begin_in_its_base():
    """So does a process that runs the other way, or has no schedule."""
    path = PATHS["linear"]
    model = sf.models.FlowMatching(LAW.along(path.schedule).velocity, path.base((2,)))
    ou = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0)
    noising = sf.models.DenoisingScoreMatching(LAW.along(ou.schedule).noise, ou, (2,))
    for own, schedule in ((model, model.schedule), (noising, noising.schedule)):
        for process in (own.ode(), own.sde(0.1), own.sde(0.1).flip(), ou, sf.processes.Langevin(LAW.score)):
            assert start_scale(process, schedule) == 1.0
    assert start_scale(flow_on("linear", "ve"), None) == 1.0


def test_a_noising_clock_runs_to_its_data():
    path = PATHS["linear"]
    model = sf.models.FlowMatching(LAW.along(path.schedule).velocity, path.base((2,)))
    noising = sf.processes.VariancePreserving().schedule
    flow = sf.paths.change_schedule(model.ode(), noising)
    assert flow.direction == -1 and flow.interval == (0.001, 1.0)
    x = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(flow.velocity(0.4, x), LAW.along(noising).velocity(0.4, x), rtol=1e-5, atol=1e-5)


@settings(properties, max_examples=100)
@given(
    pair=st.sampled_from(PAIRS),
    places=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
def test_the_denoiser_at_the_times_of_a_grid_is_that_at_each(pair, places, dtype, seed):
    """Ends included, on either clock. What differs is the rounding of functions of a vector and of a number."""
    flow = flow_on(*pair)
    x = torch.randn(4, 2, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    exact = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    for process in (flow, flow.flip()):
        start, end = process.interval
        times = torch.tensor([start, end, *(start + (end - start) * p for p in places)], dtype=torch.float64)
        for t, planned in zip(times, fields_at(process.denoiser, times.numpy(), x), strict=True):
            torch.testing.assert_close(planned(x), process.denoiser(t, x), **exact)


@pytest.mark.parametrize("method", ["ddim", "dpmpp-2m", "exponential-heun", "ancestral"])
def test_a_solve_inverts_the_log_snr_once(method):
    """For all its steps together, whatever their number, with noise too."""
    flow, calls = flow_on("ve", "linear"), []
    inverse = flow.trained.time_of_log_snr
    flow.trained.time_of_log_snr = lambda value: (calls.append(value.numel()), inverse(value))[1]
    process = flow if method != "ancestral" else flow.marginal_preserving(flow.score, 0.1)
    for steps in (4, 32):
        sf.solve(process, torch.zeros(3, 2), steps=steps, method=method, seed=0)
        assert len(calls) == 1 and calls.pop() >= steps


def test_a_score_brings_its_denoiser_along():
    """Not by way of the score, which is divided by s and multiplied again, at a time that is rounded: bit by bit the same."""
    flow = flow_on("vp", "linear")
    t, x = torch.tensor(0.998999, dtype=torch.float64), torch.ones(3, 2)
    assert torch.equal(flow.marginal_preserving(flow.score, 0.1).denoiser(t, x), flow.denoiser(t, x))


def test_refusals():
    with pytest.raises(ArgumentError, match="no schedule"):
        sf.paths.change_schedule(sf.ODE(lambda t, x: x), PATHS["vp"].schedule)
    with pytest.raises(ArgumentError, match="give an sf"):
        sf.paths.change_schedule(sf.ODE(lambda t, x: x), PATHS["vp"])


@pytest.mark.parametrize("noise", [None, 0.5])
def test_a_model_samples_on_another_schedule(noise):
    """Straight-line models by EDM's schedule, whose noise is 80 times as wide: 2 · 2 numbers at 6 standard errors."""
    path = PATHS["linear"]
    model = sf.models.FlowMatching(LAW.along(path.schedule).velocity, path.base((2,)))
    flow = sf.paths.change_schedule(model.ode(), sf.paths.EDMPath(0.02).schedule)
    s = flow.schedule.s
    process = flow if noise is None else flow.marginal_preserving(flow.score, lambda t: noise * s(t).square())
    method = "heun" if noise is None else "ancestral"
    x = model.sample(4000, seed=0, process=process, solver={"steps": 200, "method": method})
    law = LAW.along(flow.schedule).at(1.0)
    assert_moments(x.double(), law.mean, law.variance)
