"""Sampling on another schedule: the same law at equal signal-to-noise ratio, the same data at the end."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.errors import ArgumentError

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


def test_a_noising_clock_runs_to_its_data():
    path = PATHS["linear"]
    model = sf.models.FlowMatching(LAW.along(path.schedule).velocity, path.base((2,)))
    noising = sf.processes.VariancePreserving().schedule
    flow = sf.paths.change_schedule(model.ode(), noising)
    assert flow.direction == -1 and flow.interval == (0.001, 1.0)
    x = torch.zeros(1, 2, dtype=torch.float64)
    torch.testing.assert_close(flow.velocity(0.4, x), LAW.along(noising).velocity(0.4, x), rtol=1e-5, atol=1e-5)


def test_refusals():
    with pytest.raises(ArgumentError, match="no schedule"):
        sf.paths.change_schedule(sf.ODE(lambda t, x: x), PATHS["vp"].schedule)
    with pytest.raises(ArgumentError, match="give an sf"):
        sf.paths.change_schedule(sf.ODE(lambda t, x: x), PATHS["vp"])
