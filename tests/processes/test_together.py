"""A field at many times is the field at each of them, and nothing that a subclass overrides is passed by."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sdeflow as sf
from sdeflow.processes.together import fields_at

D = torch.float64
VP = sf.processes.VariancePreserving()
LAW = sf.laws.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=D),
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=D),
    torch.tensor([0.2, 0.4], dtype=D),
)


def net(t, x, *, shift=0.0):
    return torch.sin(x + 3 * t) + shift


def denoising(predicts):
    return sf.models.DenoisingScoreMatching(net, VP, (2,), predicts=predicts)


def straight():
    return sf.models.FlowMatching(net, sf.paths.LinearPath().base((2,)))


class Halved(sf.models.DenoisingScoreMatching):
    def prediction(self, t, x, **condition):
        return 0.5 * super().prediction(t, x, **condition)


class Doubled(sf.models.DenoisingScoreMatching):
    def denoiser(self, t, x, **condition):
        return 2 * super().denoiser(t, x, **condition)


class Still(sf.models.DenoisingScoreMatching):
    def quantity(self, wanted, t, x, **condition):
        return x


class Zero(sf.processes.ODE, precise_time=True):
    """A flow that knows its denoiser."""

    def __init__(self):
        super().__init__()
        self.schedule, self.score = VP.schedule, lambda t, x: -x

    def denoiser(self, t, x):
        return 0 * x + t.to(x.dtype)


PROCESSES = {
    "flow": lambda: VP.probability_flow(LAW.along(VP).score),
    "reversal": lambda: VP.reverse(LAW.along(VP).score, clock="backward"),
    "flipped": lambda: VP.reverse(LAW.along(VP).score),
    "reversal again": lambda: VP.reverse(LAW.along(VP).score).reverse(lambda t, x: LAW.along(VP).score(1 - t, x)),
    "preserving": lambda: denoising("noise").sde(0.5),
    **{f"model of {p}": lambda p=p: denoising(p).ode() for p in ("noise", "score", "data", "v")},
    "model reversed": lambda: denoising("v").sde(),
    "conditioned": lambda: denoising("noise").ode(shift=torch.tensor([[0.5], [1.0], [2.0]])),
    "straight": lambda: straight().ode(),
    "straight with noise": lambda: straight().sde(0.3),
    "rescheduled": lambda: sf.paths.change_schedule(straight().ode(), sf.paths.CosinePath().schedule),
    "halved": lambda: Halved(net, VP, (2,)).ode(),
    "doubled": lambda: Doubled(net, VP, (2,)).sde(),
    "still": lambda: Still(net, VP, (2,)).ode(),
    "own": Zero,
}


@pytest.mark.parametrize("name", PROCESSES)
@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, D]),
    seed=st.integers(0, 99),
)
def test_the_denoiser_at_many_times_is_that_at_each(name, places, dtype, seed):
    """Ends included, where a float32 time must not be rounded onto an end that it has not reached."""
    for process in (one := PROCESSES[name](), one.flip()):
        start, end = process.interval
        inside = [1e-9, *places]
        times = torch.tensor([start + (end - start) * (0.001 + 0.998 * p) for p in inside], dtype=D)
        times[0] = end - 1e-9 * (end - start) if process is one else start + 1e-9 * (end - start)
        x = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        for t, field in zip(times, fields_at(process.denoiser, times.numpy(), x), strict=True):
            found, expected = field(x), process.denoiser(t, x)
            assert found.dtype is dtype
            torch.testing.assert_close(found, expected, equal_nan=True)


def own_noise(t, x):
    return 0.3 + 0.1 * torch.sin(x)


COEFFICIENTS = {
    **{name: make for name, make in PROCESSES.items() if name != "own"},
    "diffusion": sf.processes.VariancePreserving,
    "sub-VP flow": lambda: (p := sf.processes.SubVariancePreserving()).probability_flow(LAW.along(p).score),
    "Ornstein-Uhlenbeck reversed": lambda: sf.processes.OrnsteinUhlenbeck().reverse(lambda t, x: -x * (1 + t)),
    "own noise reversed": lambda: sf.SDE(lambda t, x: -t * x, own_noise).reverse(lambda t, x: -x),
    "Stratonovich": lambda: sf.SDE(lambda t, x: -t * x, own_noise, calculus="stratonovich").reverse(
        lambda t, x: -x, clock="backward"
    ),
    "noise of time": lambda: straight().sde(lambda t: t * (1 - t)),
    "preserving the diffusion": lambda: VP.marginal_preserving(LAW.along(VP).score, lambda t: 0.5 + 0 * t),
    "churned": lambda: sf.processes.Churn(denoising("data").ode(), 5.0, low=0.05),
    "two networks": lambda: sf.models.StochasticInterpolant(
        net, sf.paths.LinearPath().base((2,)), score_net=lambda t, x: -x
    ).sde(lambda t: t * (1 - t)),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, D]),
    seed=st.integers(0, 99),
)
def test_coefficients_at_many_times_are_those_at_each(name, places, dtype, seed):
    """Up to the rounding of a chain of conversions in the dtype of the state."""
    for process in (one := COEFFICIENTS[name](), one.flip()):
        start, end = process.interval
        times = torch.tensor([start + (end - start) * p for p in places], dtype=D)
        x = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)
        rounding = {"rtol": 1e-4, "atol": 1e-4} if dtype is torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
        for kind in ("drift", "diffusion") if process.noise != "none" else ("drift", "velocity"):
            coefficient = getattr(process, kind)
            for t, field in zip(times, fields_at(coefficient, times.numpy(), x), strict=True):
                found, expected = field(x), coefficient(t, x)
                assert found.dtype is dtype
                torch.testing.assert_close(found.expand_as(x), expected.expand_as(x), **rounding)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "euler-maruyama", "shark", "slowrk"])
def test_a_step_that_was_planned_is_the_step(method):
    """A subclass whose drift is its own has the same solution; both have asked the model as often as the counter says."""
    calls = []

    def counted(t, x):
        calls.append(t)
        return torch.sin(x + 3 * t)

    class Own(sf.processes.reversal.BackwardReversal, precise_time=True):
        def drift(self, t, x):
            return super().drift(t, x)

    class OwnFlow(sf.models.ode.ModelODE, precise_time=True):
        def velocity(self, t, x):
            return super().velocity(t, x)

    model = sf.models.DenoisingScoreMatching(counted, VP, (2,))
    noisy = method not in ("euler", "heun", "rk4")
    plain = model.sde() if noisy else model.ode()
    own = Own(model.process, plain.score.function) if noisy else OwnFlow(model, {}, model.interval)
    x, finals = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=D), []
    for process in (plain, own):
        calls.clear()
        sol = sf.solve(process, x, steps=12, method=method, seed=0)
        assert len(calls) == sol.stats["nfe_drift"]
        finals.append(sol.final)
    torch.testing.assert_close(*finals, rtol=1e-9, atol=1e-9)


def test_a_velocity_and_a_score_of_one_prediction_are_one_evaluation():
    """Not those of two networks, nor of one under other conditions."""
    calls = []

    def counted(t, x, shift=0.0):
        calls.append(shift)
        return torch.sin(x + 3 * t) + shift

    model = sf.models.FlowMatching(counted, sf.paths.LinearPath().base((2,)))
    x = torch.zeros(1, 2)
    sf.solve(model.sde(lambda t: t * (1 - t)), x, steps=5, method="euler-maruyama", seed=0)
    assert len(calls) == 5
    calls.clear()
    other = sf.models.ode.Conditional(model, "score", {"shift": 1.0})
    mixed = model.ode().marginal_preserving(other, lambda t: t * (1 - t))
    sf.solve(mixed, x, (0.0, 0.9), steps=5, method="euler-maruyama", seed=0)
    assert sorted(calls) == [0.0] * 5 + [1.0] * 5


def test_what_a_subclass_overrides_is_asked():
    x, t = torch.ones(3, 2), np.array([0.5])
    plain, halved, doubled, still = (
        fields_at(kind(net, VP, (2,), predicts="data").ode().denoiser, t, x)[0](x)
        for kind in (sf.models.DenoisingScoreMatching, Halved, Doubled, Still)
    )
    torch.testing.assert_close(halved, plain / 2)
    torch.testing.assert_close(doubled, 2 * plain)
    assert (still == x).all() and (plain != x).all()


def test_a_network_is_given_the_times_that_it_is_promised():
    """In the dtype of x, 0-d, and short of an end that was not reached."""
    seen = []

    def asked(t, x):
        seen.append(t)
        return x

    model = sf.models.FlowMatching(asked, sf.paths.LinearPath().base((2,)))
    for field in fields_at(model.denoiser, np.array([0.25, 1 - 1e-12, 1.0]), torch.zeros(1, 2)):
        field(torch.zeros(1, 2))
    assert all(t.dtype is torch.float32 and t.ndim == 0 for t in seen)
    assert seen[0] == 0.25 and seen[1] < 1 and seen[2] == 1
