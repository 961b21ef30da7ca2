"""The velocity of a flipped ODE, reflected for all stages at once: the same values at the same times."""

import pytest
import torch

import sdeflow as sf
from sdeflow.solvers.job import Counter
from sdeflow.solvers.reflected import Reflected
from sdeflow.solvers.velocity import Velocity

DOUBLE = torch.float64
INTERVAL = (0.5, 3.0)


def both(x, jumps=False, velocity=lambda t, x: torch.cos(t) * x):
    ode = sf.ODE(velocity, interval=INTERVAL)
    counter = Counter()
    flipped = Velocity(ode.flip(), x, (0.75, 2.5), jumps, counter)
    reflected = Reflected(ode, flipped, x)
    for v in (flipped, reflected):
        v.within(0.75, 2.0)
    return flipped, reflected


@pytest.mark.parametrize("jumps", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_it_says_what_the_flipped_ode_says(own, jumps):
    x = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(3, 2)
    flipped, reflected = both(x, jumps)
    places = (0.0, 0.3, 1.0)
    step = (
        (torch.tensor([0.75, 0.9, 1.0], dtype=DOUBLE), torch.tensor([0.1, 0.2, 1.0], dtype=DOUBLE))
        if own
        else (1.0, 0.5)
    )
    t, h = step
    pairs = zip(*(v.times(t, h, t + h, places) for v in (flipped, reflected)), strict=True)
    for one, other in pairs:
        assert torch.allclose(reflected.function(other, x), flipped.function(one, x), rtol=1e-13)
    assert torch.allclose(reflected.at(t, x), flipped.at(t, x), rtol=1e-13)
    assert reflected.counter is flipped.counter and flipped.counter.drift == 2


def test_no_end_is_rounded_onto():
    """In float32 a stage a billionth before t0, where a score is infinite, is not at t0; nor is one at t1."""
    x = torch.ones(1, 1)
    asked = []

    def velocity(t, x):
        asked.append(float(t))
        return x

    _, reflected = both(x, velocity=velocity)
    reflected.span = INTERVAL
    reflected.within(*INTERVAL)
    for t, h in ((3.0 - 1e-9, 1e-9), (0.5, 1e-9)):
        for time in reflected.times(t, h, t + h, (0.0, 0.5)):
            reflected.function(time, x)
    assert len(asked) == 4 and all(0.5 < t < 3.0 for t in asked)


def test_some_rows_only():
    x = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(3, 2)
    _, reflected = both(x)
    t, keep = torch.tensor([0.8, 0.9, 1.0], dtype=DOUBLE), torch.tensor([0, 2])
    f = reflected.at(t, x)
    narrow = reflected.narrow(keep, t[keep], x[keep], f[keep])
    assert narrow is not None
    assert torch.allclose(narrow.at(t[keep], x[keep]), f[keep], rtol=1e-13)
    assert reflected.narrow(keep, t[keep], x[keep], -f[keep]) is None
