"""EDM's stochastic sampler: Algorithm 2 of Karras et al. by hand, its marginals, its order, what it refuses."""

import itertools
import math

import numpy as np
import pytest
import torch
from affine_samplers import GivenOnGrid, moments_at_end
from stats import assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.processes import Churn

D = torch.float64
KARRAS = sf.paths.EDMPath(0.02, 10.0).process()
VP = sf.processes.VariancePreserving(interval=(1e-3, 1.0))
LAW = sf.laws.GaussianMixture(
    torch.tensor([0.4, 0.6], dtype=D),
    torch.tensor([[-1.0, 0.5], [1.0, 0.0]], dtype=D),
    torch.tensor([0.2, 0.4], dtype=D),
)


def churned(sde, amount, law=LAW, **options):
    return Churn(sde.reverse(law.along(sde).score, clock="backward"), amount, **options)


def algorithm_2(denoiser, x, sigmas, z, S_churn, S_tmin, S_tmax, S_noise):
    """As printed, for σ(t) = t."""
    N = len(sigmas) - 1
    for i, (t, t_next) in enumerate(itertools.pairwise(sigmas)):
        gamma = min(S_churn / N, math.sqrt(2) - 1) if S_tmin <= t <= S_tmax else 0.0
        t_hat = t + gamma * t
        x_hat = x + math.sqrt(t_hat**2 - t**2) * S_noise * z[i]
        d = (x_hat - denoiser(t_hat, x_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if t_next != 0:
            d_next = (x - denoiser(t_next, x)) / t_next
            x = x_hat + (t_next - t_hat) * (d + d_next) / 2
    return x


@pytest.mark.parametrize(
    "amount, low, high, inflation",
    [(3.0, 0.0, 9.0, 1.0), (3.0, 0.3, 3.0, 1.0), (3.0, 0.05, 5.0, 1.05), (40.0, 0.1, 5.0, 1.0)],
)
def test_it_is_algorithm_2(amount, low, high, inflation):
    """On Karras's grid, given the same noise: γ = S_churn/N within the window, its bound √2 − 1, S_noise."""
    N, process = 12, churned(KARRAS, amount, low=low, high=high, inflation=inflation)
    sigmas = KARRAS.schedule.s(torch.linspace(1, 0, N + 1, dtype=D)).tolist()
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(N, 5, 2, generator=generator, dtype=D)
    x = 10 * torch.randn(5, 2, generator=generator, dtype=D)

    def denoiser(sigma, y):
        t = KARRAS.schedule.time_of_log_snr(torch.tensor(-2 * math.log(sigma), dtype=D))
        return LAW.along(KARRAS).denoiser(t, y)

    nodes = torch.linspace(0, 1, N + 1, dtype=D).tolist()
    path = GivenOnGrid(z * math.sqrt(1 / N), torch.zeros_like(z), nodes)
    found = sf.solve(process, x, steps=N, method="edm-heun", brownian=path).final
    expected = algorithm_2(denoiser, x, sigmas, z, amount, low, high, inflation)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    other = algorithm_2(denoiser, x, sigmas, z, 0.5 * amount, low, high, inflation)
    assert (other - expected).abs().max() > 1e-2 or amount == 40.0  # where both are at the bound


@pytest.mark.parametrize("sde", [KARRAS, VP], ids=["karras", "vp"])
def test_without_churn_it_is_heuns_method(sde):
    x = sde.schedule.s(sde.interval[1]) * torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=D)
    flow = sde.probability_flow(LAW.along(sde).score)
    expected = sf.solve(flow, x, sde.interval[::-1], steps=9, method="edm-heun").final
    for still in (churned(sde, 0.0), churned(sde, 30.0, low=1e4)):
        torch.testing.assert_close(sf.solve(still, x, steps=9, method="edm-heun", seed=0).final, expected)
    assert (sf.solve(churned(sde, 3.0), x, steps=9, method="edm-heun", seed=0).final - expected).abs().max() > 1e-2


@pytest.mark.parametrize("sde", [KARRAS, VP], ids=["karras", "vp"])
@pytest.mark.parametrize("amount", [2.0, 30.0])
def test_marginals_are_kept(sde, amount):
    """Mean and variance of two coordinates at three times, 12 comparisons of 4,000 samples at 6 standard errors; without its
    drift the noise is seen at once."""
    truth, (start, end) = LAW.along(sde), sde.interval
    times = [end, 0.6 * end + 0.4 * start, 0.2 * end + 0.8 * start, start]
    x0 = truth.sample(end, 4000, seed=3)
    grid = [end + (start - end) * k / 200 for k in range(201)]
    for k, stop in enumerate((80, 160, 200)):
        grid[stop] = times[k + 1]
    sol = sf.solve(churned(sde, amount), x0, times, steps=grid, method="edm-heun", seed=4)
    for t, x in zip(times[1:], sol.x[1:], strict=True):
        law = truth.at(t)
        assert_moments(x, law.mean, law.variance)
    wrong = sf.solve(churned(sde, 30.0, inflation=1.5), x0, times, steps=grid, method="edm-heun", seed=4).final
    assert standard_errors((wrong - truth.at(start).mean).square(), truth.at(start).variance) > 6


@pytest.mark.parametrize("sde", [KARRAS, VP], ids=["karras", "vp"])
def test_the_order_of_its_law_is_that_of_heun(sde):
    """For Gaussian data mean and variance are sums (see ``affine_samplers``): from the law itself they are right to order 2."""
    mean, variance = 0.7, 0.3
    law = sf.laws.GaussianMixture(
        torch.ones(1, dtype=D), torch.tensor([[mean]], dtype=D), torch.tensor([variance], dtype=D)
    )
    process, counts, errors = churned(sde, 5.0, law), (40, 80, 160), []
    start, end = 0.6, 0.3

    def level(t):
        a = float(sde.schedule.a(t))
        return a * mean, a * a * variance + float(sde.schedule.variance(t))

    for n in counts:
        nodes = [start + (end - start) * k / n for k in range(n + 1)]
        found = moments_at_end(process, "edm-heun", nodes, *level(start))
        errors.append(math.dist(found, level(end)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - 2) < 0.25, errors


def test_steps_planned_together_are_those_made_one_by_one():
    """A schedule with a gradient is worked out step by step; with one for each row too."""
    rate = torch.tensor(1.0, dtype=D, requires_grad=True)
    x = 10 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=D)
    score = LAW.along(KARRAS).score
    back = KARRAS.reverse(score, clock="backward")
    plain = back.marginal_preserving(score, lambda t: 2 * KARRAS.schedule.variance(t.double()))
    learned = back.marginal_preserving(score, lambda t: 2 * rate * KARRAS.schedule.variance(t.double()))
    for method in ("edm-heun", "ancestral", "sde-dpmpp-2m", "exponential-heun"):
        final = [sf.solve(p, x, steps=8, method=method, seed=1).final for p in (plain, learned)]
        torch.testing.assert_close(final[0], final[1])
        (slope,) = torch.autograd.grad(final[1].sum(), rate)
        assert slope.isfinite() and slope != 0
        checkpointed = sf.solve(learned, x, steps=8, method=method, seed=1, gradient="checkpoint").final
        (again,) = torch.autograd.grad(checkpointed.sum(), rate)
        torch.testing.assert_close(again, slope)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Churn(sf.ODE(lambda t, x: -x), 1.0), "no schedule"),
        (lambda: churned(VP, -1.0), "amount ≥ 0"),
        (lambda: churned(VP, 1.0, low=2.0, high=1.0), "low ≤ high"),
        (lambda: churned(VP, 1.0, inflation=0.0), "inflation > 0"),
        (lambda: churned(VP, "much"), "amount"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_noise_that_is_all_there_is_is_not_added_to():
    """Linear paths begin at a = 0, where σ is infinite: the exact model of normal data ends at their law, from pure noise."""
    deviation = 0.5

    class Exact(torch.nn.Module):
        def forward(self, t, x):
            s, a = 1 - t, t
            return (a * deviation**2 - s) / (a**2 * deviation**2 + s**2) * x

    model = sf.models.FlowMatching(Exact(), sf.paths.LinearPath().base((2,)))
    x0 = sf.paths.Draws(0).samples(model.base, 4000).double()
    final = sf.solve(model.sde(0.5), x0, steps=100, method="edm-heun", seed=0).final
    end = model.sde(0.5).interval[1]
    assert_moments(final, torch.zeros(2, dtype=D), torch.full((2,), (end * deviation) ** 2 + (1 - end) ** 2, dtype=D))
