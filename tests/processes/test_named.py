"""Every named process against its own closed-form law, by simulation.

Each comparison is within 6 standard errors: two numbers at three times for eight processes, so a false alarm has
probability below 1e-6 for the file. Halving the step on the same Brownian path moves the mean and the variance by less
than one standard error.
"""

import math

import numpy as np
import pytest
import torch
from stats import assert_mean, assert_moments
from torch.distributions import Normal, kl_divergence

import sdeflow as sf

P = sf.processes
N = 20_000

CASES = {
    "brownian": (P.BrownianMotion(0.7), (0.2, 0.5, 1.0), 50),
    "ou": (P.OrnsteinUhlenbeck(1.5, 0.4, 0.8, interval=(0.0, 2.0)), (0.3, 1.0, 2.0), 200),
    "gbm": (P.GeometricBrownianMotion(0.3, 0.6), (0.2, 0.5, 1.0), 200),
    "vp": (P.VariancePreserving(), (0.1, 0.4, 1.0), 400),
    "sub-vp": (P.SubVariancePreserving(), (0.1, 0.4, 1.0), 400),
    "ve": (P.VarianceExploding(0.05, 8.0), (0.2, 0.5, 1.0), 400),
    "cosine": (P.CosineVariancePreserving(), (0.2, 0.5, 0.9), 400),
    "bridge": (P.BrownianBridge(1.5, 0.8), (0.2, 0.5, 0.9), 400),
}


def simulate(process, x0, times, steps):
    """On one path, with the steps and with half of them, by Heun: a noise that is not additive in Stratonovich form."""
    if not process.additive:
        process = process.to_stratonovich()
    grid = torch.linspace(process.interval[0], times[-1], 2 * steps + 1, dtype=torch.float64)
    path = sf.BrownianPath(x0.shape, grid[0], grid[-1], seed=5, cells=grid, dtype=x0.dtype)
    saves = [process.interval[0], *times]
    return [sf.solve(process, x0, saves, steps=grid[::stride], method="heun", brownian=path).x[1:] for stride in (1, 2)]


@pytest.mark.parametrize("name", CASES)
def test_simulated_moments_match_marginal(name):
    process, times, steps = CASES[name]
    x0 = torch.full((N, 1), 1.2, dtype=torch.float64)
    fine, coarse = simulate(process, x0, times, steps)
    for x, y, t in zip(fine, coarse, times, strict=True):
        law = process.marginal(x0[:1], t)
        assert_moments(x, law.mean[0], law.variance[0])
        standard_error = x.std(0) / N**0.5
        assert ((x.mean(0) - y.mean(0)).abs() < standard_error).all()
        assert ((x.var(0) - y.var(0)).abs() < 2**0.5 * x.std(0) * standard_error).all()


@pytest.mark.parametrize("name", CASES)
def test_marginals_compose(name):
    """p(x_u | x_s) has the moments of p(x_u | x_t) averaged over p(x_t | x_s): Chapman and Kolmogorov, by quadrature."""
    process, (s, t, u), _ = CASES[name]
    x = torch.full((1, 1), 1.2, dtype=torch.float64)
    nodes, weights = (torch.as_tensor(v)[:, None] for v in np.polynomial.hermite_e.hermegauss(40))
    weights = weights / weights.sum()
    middle = process.marginal(x, t, s)
    if name == "gbm":
        points = (middle.base_dist.loc + middle.base_dist.scale * nodes).exp()
    else:
        points = middle.mean + middle.stddev * nodes
    last = process.marginal(points, u, t)
    mean = (weights * last.mean).sum()
    second = (weights * (last.variance + last.mean**2)).sum()
    direct = process.marginal(x, u, s)
    assert mean.item() == pytest.approx(direct.mean.item(), rel=1e-10)
    assert (second - mean**2).item() == pytest.approx(direct.variance.item(), rel=1e-8)


def test_exact_variance_of_ve_subtracts_the_start():
    ve = P.VarianceExploding(0.5, 2.0)
    assert ve.schedule.variance(torch.zeros((), dtype=torch.float64)) == 0
    assert ve.marginal(torch.zeros(1, 1), 1.0).variance.item() == pytest.approx(4.0 - 0.25, rel=1e-6)


@pytest.mark.parametrize("theta", [0.5, 1.0, 2.0])
def test_ou_forgets_at_rate_two_theta(theta):
    """KL(p_T ‖ prior) ~ e^{−2θT}: the ratio over one unit of time tends to e^{−2θ}."""
    x0 = torch.full((1, 1), 2.0, dtype=torch.float64)
    process = P.OrnsteinUhlenbeck(theta, 0.3, 0.9, interval=(0.0, 20.0))
    prior = process.prior((1,)).base_dist

    def kl(T):
        law = process.marginal(x0, T).base_dist
        return kl_divergence(Normal(law.loc, law.scale), Normal(prior.loc.double(), prior.scale.double())).item()

    T = 3.0 / theta
    assert kl(T + 1) / kl(T) == pytest.approx(math.exp(-2 * theta), rel=5e-3)


def test_prior_is_the_law_at_the_noise_end():
    for process in (P.VariancePreserving(), P.SubVariancePreserving(), P.CosineVariancePreserving()):
        law = process.marginal(torch.zeros(1, 3), process.interval[1])
        assert torch.allclose(law.stddev[0], process.prior((3,)).stddev, atol=1e-4)
    ve = P.VarianceExploding()
    assert torch.allclose(ve.prior((2, 2)).stddev, torch.full((2, 2), 50.0), rtol=1e-6)


def test_langevin_reaches_its_target():
    """∇log π = −x/.25 at temperature 2: N(0, .5)."""
    process = P.Langevin(lambda x: -x / 0.25, 2.0, interval=(0.0, 3.0))
    sol = sf.solve(process, torch.zeros(N, 1, dtype=torch.float64), steps=600, method="heun", seed=3)
    assert_moments(sol.final, 0.0, 0.5)


def test_underdamped_langevin_reaches_its_target():
    """π = N(0, .25), temperature 2: positions N(0, .5), momenta N(0, 2), uncorrelated."""
    process = P.UnderdampedLangevin(lambda q: -q / 0.25, 1.5, 2.0, interval=(0.0, 8.0))
    sol = sf.solve(process, torch.zeros(N, 2, 1, dtype=torch.float64), steps=1600, method="heun", seed=4)
    q, p = sol.final.unbind(1)
    assert_moments(q, 0.0, 0.5)
    assert_moments(p, 0.0, 2.0)
    assert_mean(q * p, 0.0)


def test_parameters_are_trainable_and_move():
    theta = torch.nn.Parameter(torch.tensor(1.0))
    process = P.OrnsteinUhlenbeck(theta, torch.tensor([0.0, 1.0]), 1.0)
    assert next(process.parameters()) is theta
    assert process.schedule is None  # one curve for all coordinates exists for numbers and mean 0 only
    sf.solve(process, torch.ones(4, 2), steps=5, seed=0).final.sum().backward()
    assert theta.grad is not None and theta.grad.isfinite()
    assert process.double().mean.dtype is torch.float64


@pytest.mark.parametrize("name", CASES)
def test_coefficients_are_finite_on_the_whole_interval_in_float32(name):
    process = CASES[name][0]
    x = torch.ones(2, 3)
    for t in (*process.interval, sum(process.interval) / 2):
        assert process.drift(t, x).isfinite().all() and process.drift(t, x).dtype is torch.float32
        assert process.diffusion(t, x).isfinite().all() and process.diffusion(t, x).dtype is torch.float32


@pytest.mark.parametrize("name", CASES)
def test_one_time_per_row_equals_one_at_a_time(name):
    process = CASES[name][0]
    x = torch.rand(3, 2, 2, dtype=torch.float64) + 0.5
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    rows = [process.drift(ti, xi[None]) for ti, xi in zip(t, x, strict=True)]
    assert torch.allclose(process.drift(t, x), torch.cat(rows), rtol=1e-14)
    rows = [process.diffusion(ti, xi[None]).expand(1, 2, 2) for ti, xi in zip(t, x, strict=True)]
    assert torch.allclose(process.diffusion(t, x).expand(3, 2, 2), torch.cat(rows), rtol=1e-14)


def test_friction_broadcasts_against_the_momentum():
    """Each coordinate with its own γ is the process of that γ alone."""
    x = torch.randn(4, 2, 2)
    both = P.UnderdampedLangevin(lambda q: -q, friction=torch.tensor([1.0, 2.0]), temperature=0.5)
    for i, friction in enumerate((1.0, 2.0)):
        alone = P.UnderdampedLangevin(lambda q: -q, friction=friction, temperature=0.5)
        column = x[..., i : i + 1]
        assert torch.equal(both.drift(0.0, x)[..., i : i + 1], alone.drift(0.0, column))
        assert torch.equal(
            both.diffusion(0.0, x).expand_as(x)[..., i : i + 1], alone.diffusion(0.0, column).expand_as(column)
        )
    assert sf.solve(both, x, steps=4, seed=0).final.shape == x.shape


def test_an_ode_may_override_either_name():
    """drift and velocity are one method: forward, backward and as a flow."""

    class Named(sf.ODE):
        def drift(self, t, x):
            return x

    class Doubled(Named):
        def velocity(self, t, x):
            return 2 * super().velocity(t, x)

    class Again(Doubled):
        def drift(self, t, x):
            return super().drift(t, x) / 2

    class Given(sf.ODE):
        def drift(self, t, x):
            return 2 * super().drift(t, x)

    x = torch.ones(1, 2, dtype=torch.float64)
    for ode, rate in ((Named(), 1), (Doubled(), 2), (Again(), 1), (Given(lambda t, x: 1.5 * x), 3)):
        assert torch.equal(ode.drift(0.0, x), rate * x) and torch.equal(ode.velocity(0.0, x), rate * x)
        assert torch.equal(ode.flip().drift(0.0, x), -rate * x)
        there = sf.solve(ode, x, rtol=1e-9).final
        assert torch.allclose(there, math.exp(rate) * x) and torch.allclose(
            sf.solve(ode, there, (1.0, 0.0), rtol=1e-9).final, x
        )


def test_a_schedule_with_a_constant_a_is_variance_exploding():
    t = torch.tensor([0.2, 0.5], dtype=torch.float64)
    for a in (lambda t: 1.0, lambda t: torch.ones(()), lambda t: 0 * t + 1):
        schedule = P.CustomSchedule(a, lambda t: t)
        assert torch.equal(schedule.a(t), torch.ones_like(t)) and torch.equal(schedule.a_dot(t), torch.zeros_like(t))
        sde = P.ScheduledDiffusion(schedule)
        assert torch.allclose(sde.diffusion(0.5, torch.ones(1, 1, dtype=torch.float64)).square(), t.new_tensor(1.0))


@pytest.mark.parametrize("name", ["vp", "sub-vp", "ve", "cosine", "brownian"])
def test_schedules_take_numbers(name):
    schedule = CASES[name][0].schedule
    for one in (schedule, schedule.flip(schedule.interval)):
        for method in one.of_time:
            value = getattr(one, method)(0.5)
            assert value.dtype is torch.float64 and value.ndim == 0
            assert torch.equal(value, getattr(one, method)(torch.tensor(0.5, dtype=torch.float64)))


def test_a_turned_schedule_has_a_diffusion():
    schedule = P.CustomSchedule(lambda t: t, lambda t: 1 - t, interval=(0.01, 1.0))
    sde = P.ScheduledDiffusion(schedule.flip(schedule.interval))
    assert torch.allclose(sde.diffusion(0.51, torch.ones(1, 1)), torch.tensor(2.0).sqrt())


def test_an_epsilon_that_rounds_below_zero_is_zero():
    """sin(πt) at t = 1 is −9e-8 in float32."""
    family = P.VariancePreserving().marginal_preserving(lambda t, x: -x, lambda t: torch.sin(math.pi * t))
    assert torch.equal(family.diffusion(1.0, torch.ones(1, 1)), torch.zeros(()))
    assert sf.solve(family, torch.zeros(2, 1), steps=4, seed=0).success.all()
