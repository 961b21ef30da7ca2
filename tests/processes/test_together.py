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
