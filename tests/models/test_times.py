"""Laws of times: what a network is given is inside the interval where the law is, and an end only where the law means it."""

import pytest
import torch

import sdeflow as sf
from sdeflow.models.times import Grid, Importance, LogitNormal, LogNormal, Uniform

U = torch.tensor([5e-324, 1e-40, 0.5, 1 - 1e-9, 1 - 2**-53], dtype=torch.float64)[:, None]
LAWS = {
    "uniform": Uniform(),
    "logit-normal": LogitNormal(),
    "lognormal": LogNormal(),
    "importance": Importance(lambda t: 1 + t),
}


class Chosen:
    """Draws whose uniform numbers are chosen."""

    def times(self, x):
        return U


@pytest.mark.parametrize("interval", [(0.0, 1.0), (1e-3, 1.0)])
@pytest.mark.parametrize("name", LAWS)
def test_rounding_makes_no_time_an_end(name, interval):
    """Uniform numbers next to 0 and to 1: in float32 all times are inside."""
    x = torch.zeros(len(U), 2)
    law, schedule = LAWS[name], sf.processes.VariancePreserving().schedule
    t, _ = law.draw(x, Chosen(), interval, schedule)
    assert t.dtype is torch.float64
    seen = law.seen(t, x)
    assert seen.dtype is x.dtype and bool((seen.double() > interval[0]).all() & (seen.double() < interval[1]).all())
    assert name != "uniform" or interval[1] - float(seen.max()) < 1e-6
    torch.testing.assert_close(seen.double(), t, rtol=1e-7, atol=1e-44)


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.1, 0.7)])
@pytest.mark.parametrize("law", [*LAWS.values(), Grid([0.2, 0.5])], ids=[*LAWS, "grid"])
def test_a_law_is_unbiased_where_its_weighted_means_are_those_of_uniform_times(law, interval):
    """By quadrature in u: the means of t and of t²."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t, weight = law.quantile(u, interval, sf.processes.VariancePreserving().schedule)
    start, end = interval
    means = torch.stack([(weight * t).mean(), (weight * t * t).mean()])
    uniform = torch.tensor([(start + end) / 2, (start**2 + start * end + end**2) / 3], dtype=torch.float64)
    assert law.unbiased == bool(((means - uniform).abs() < 1e-4).all())


def test_times_of_a_grid_are_as_they_are_given():
    """A network that counts timesteps is given 0 and 999, and not their neighbours."""
    x = torch.zeros(len(U), 2)
    law = Grid(torch.arange(1000))
    t, _ = law.draw(x, Chosen(), (0.0, 999.0))
    assert float(t.min()) == 0 and float(t.max()) == 999 and law.seen(t, x) is t
    given = []
    process = sf.processes.ScheduledDiffusion(sf.paths.DiscreteSchedule(torch.linspace(1e-4, 0.02, 1000)))
    model = sf.models.DenoisingScoreMatching(lambda t, x: given.append(t) or x, process, (2,), time=Grid([0, 999.0]))
    model.loss(torch.randn(64, 2), seed=0)
    assert set(given[0].flatten().tolist()) == {0.0, 999.0}


def test_times_of_a_loss_are_seen_as_the_coefficients_have_them():
    """The network's time and that of the state are one: a network that undoes the path exactly has no loss."""
    data = torch.full((256, 1), 3.0)
    base = sf.paths.LinearPath().base((1,))
    model = sf.models.FlowMatching(lambda t, x: (3.0 - x) / (1 - t).clamp_min(1e-6), base)
    late = model.loss(data, seed=0, reduction="none")
    assert late.max() < 1e-4
