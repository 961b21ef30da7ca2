"""Reversal, conditioning and their wrong versions, by the laws of simulated paths.

Comparisons are within 6 standard errors (2e-9 each; about sixty in the file, so below 1e-6 in all), and each has a stated
wrong version that is off by more than 20.
"""

import math

import pytest
import torch
from stats import assert_mean, assert_moments, assert_variance, standard_errors

import sdeflow as sf

MU, SIGMA, MEAN, VAR = 0.3, 0.6, 0.1, 0.09  # geometric Brownian motion, ln x0 ~ N(.1, .09)
PATHS, STEPS = 100_000, 400
CLOCKS = ["flipped", "backward"]


def log_moments(t):
    return MEAN + (MU - SIGMA**2 / 2) * t, VAR + SIGMA**2 * t


def gbm_score(t, x):
    m, v = log_moments(t)
    return -(1 + (x.log() - m) / v) / x


def noise(n, seed):
    return torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def end_of_gbm(n=PATHS):
    m, v = log_moments(1.0)
    return (m + v**0.5 * noise(n, 7)).exp()


def solve_back(process, clock, steps=STEPS, brownian=None):
    times = (1.0, 0.0) if clock == "backward" else (0.0, 1.0)
    noise = {"seed": 11} if brownian is None else {"brownian": brownian}
    return sf.solve(process, end_of_gbm(), times, steps=steps, **noise).final.log()


def assert_the_original_law(y):
    """The test of a reversal, which right versions pass and wrong ones fail: ln x is again N(MEAN, VAR)."""
    assert_moments(y, MEAN, VAR)


def assert_wrong(y, mean):
    """The test fails, by more than 20 standard errors, at the mean that this mistake is known to give."""
    with pytest.raises(AssertionError, match="standard errors"):
        assert_the_original_law(y)
    assert standard_errors(y, MEAN) > 20
    assert y.mean().item() == pytest.approx(mean, abs=0.01)


def by_coefficients(drift, diffusion, like, calculus):
    process = sf.SDE(drift, diffusion, calculus=calculus)
    process.direction = like.direction
    return process


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_reversed_gbm_has_the_law_it_started_from(clock, calculus):
    gbm = sf.processes.GeometricBrownianMotion(MU, SIGMA)
    forward = gbm if calculus == "ito" else gbm.to_stratonovich()
    reverse = forward.reverse(gbm_score, clock=clock)
    assert reverse.calculus == calculus
    steps = 800 if calculus == "ito" else 200
    path = sf.BrownianPath((PATHS, 1), 0.0, 1.0, seed=11, cells=steps, dtype=torch.float64)
    y = solve_back(reverse, clock, steps, path)
    assert_the_original_law(y)
    coarse = solve_back(reverse, clock, steps // 2, path)
    assert abs(y.mean() - coarse.mean()) < y.std() / PATHS**0.5
    assert abs(y.var() - coarse.var()) < 2**0.5 * y.var() / PATHS**0.5


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_without_the_divergence_the_reversed_mean_is_wrong(clock, calculus):
    """The published trap: −.191 for .1. It is the same mistake in either calculus, and the Stratonovich correction is right."""
    gbm = sf.processes.GeometricBrownianMotion(MU, SIGMA)
    right = sf.processes.GeometricBrownianMotion(MU, SIGMA).reverse(gbm_score, clock=clock)
    gbm.diffusion_divergence = lambda t, x: torch.zeros_like(x)
    wrong = gbm.reverse(gbm_score, clock=clock)
    if calculus == "stratonovich":  # −½ Σ_k (∂σ_k)σ_k on the flipped clock, + on the backward one
        correction = -0.5 * right.direction * SIGMA**2
        wrong, right = (
            by_coefficients(lambda t, x, ito=ito: ito.drift(t, x) + correction * x, ito.diffusion, ito, calculus)
            for ito in (wrong, right)
        )
        assert_the_original_law(solve_back(right, clock, 100))  # nothing else is wrong with it
    assert_wrong(solve_back(wrong, clock, STEPS if calculus == "ito" else 100), -0.191)


@pytest.mark.parametrize("clock", CLOCKS)
def test_with_the_correction_of_the_other_clock_the_mean_is_wrong(clock):
    """On the flipped clock the Stratonovich correction is −½ Σ_k (∂σ_k)σ_k, on the backward one +: else .247 for .1."""
    gbm = sf.processes.GeometricBrownianMotion(MU, SIGMA)
    right = gbm.reverse(gbm_score, clock=clock)
    wrong = by_coefficients(
        lambda t, x: right.drift(t, x) + 0.5 * right.direction * SIGMA**2 * x, right.diffusion, right, "stratonovich"
    )
    assert_wrong(solve_back(wrong, clock, 100), 0.247)


def ou_and_score():
    """OU from N(1, .2): its marginals are Gaussian, so its score is known."""
    ou = sf.processes.OrnsteinUhlenbeck(0.8, 0.0, 1.0, interval=(0.0, 2.0))

    def moments(t):
        a = math.exp(-0.8 * t)
        return a, 0.2 * a**2 + (1 - a**2) / 1.6

    def score(t, x):
        a = torch.exp(-0.8 * t)
        return -(x - a) / (0.2 * a**2 + (1 - a**2) / 1.6)

    return ou, score, moments


@pytest.mark.parametrize("clock", CLOCKS)
def test_reversed_ou_has_the_path_law_of_the_forward_one(clock):
    """E[x_s x_t] at three pairs of original times: the reversal has the same paths, not only the same marginals."""
    ou, score, moments = ou_and_score()
    times = [2.0, 1.4, 0.7, 0.0]
    m, v = moments(2.0)
    process = ou.reverse(score, clock=clock)
    axis = times if clock == "backward" else [2.0 - t for t in times]
    states = sf.solve(process, m + v**0.5 * noise(40_000, 3), axis, dt=0.01, method="heun", seed=5).x
    x = dict(zip(times, states, strict=True))
    for s, t in ((0.0, 0.7), (0.7, 1.4), (0.0, 2.0)):
        (ms, vs), (mt, _) = moments(s), moments(t)
        assert_mean(x[s] * x[t], math.exp(-0.8 * (t - s)) * vs + ms * mt)
    assert_moments(x[0.0], *moments(0.0))


def test_the_probability_flow_has_the_marginals_but_not_the_path_law():
    """The stated wrong version of the test above."""
    ou, score, moments = ou_and_score()
    m, v = moments(2.0)
    x_end = m + v**0.5 * noise(40_000, 3)
    x = sf.solve(ou.probability_flow(score), x_end, [2.0, 0.7, 0.0], dt=0.01, method="rk4").x
    assert_moments(x[-1], *moments(0.0))
    (ms, vs), (mt, _) = moments(0.0), moments(0.7)
    assert standard_errors(x[1] * x[2], math.exp(-0.8 * 0.7) * vs + ms * mt) > 20


@pytest.mark.parametrize("epsilon", [0.0, 0.4, lambda t: 0.5 + t])
def test_marginal_preserving_keeps_the_marginals(epsilon):
    ou, score, moments = ou_and_score()
    m, v = moments(0.0)
    x0 = m + v**0.5 * noise(40_000, 4)
    for family in (
        ou.marginal_preserving(score, epsilon),
        ou.probability_flow(score).marginal_preserving(score, epsilon),
    ):
        x = sf.solve(family, x0, [0.0, 0.5, 2.0], dt=0.01, method="heun", seed=6).x
        assert_moments(x[1], *moments(0.5))
        assert_moments(x[2], *moments(2.0))


def test_with_one_seed_both_clocks_give_one_trajectory():
    gbm = sf.processes.GeometricBrownianMotion(MU, SIGMA)
    flipped, backward = (gbm.reverse(gbm_score, clock=c) for c in CLOCKS)
    x = end_of_gbm(50)
    a = sf.solve(flipped, x, [0.0, 0.3, 1.0], dt=0.1, seed=1).x
    b = sf.solve(backward, x, [1.0, 0.7, 0.0], dt=0.1, seed=1).x
    assert torch.allclose(a, b, rtol=1e-12)


def test_one_trajectory_on_an_interval_that_does_not_start_at_zero():
    ou = sf.processes.OrnsteinUhlenbeck(1.0, 0.0, 1.0, interval=(0.5, 2.0))
    x = torch.ones(20, 1, dtype=torch.float64)
    a = sf.solve(ou.reverse(lambda t, x: -2 * x * t), x, [0.5, 0.9, 1.7], dt=0.05, seed=1)
    b = sf.solve(ou.reverse(lambda t, x: -2 * x * t, clock="backward"), x, [2.0, 1.6, 0.8], dt=0.05, seed=1)
    assert torch.allclose(a.x, b.x, rtol=1e-10)


# --- Doob ------------------------------------------------------------------------------------------------------------


def test_brownian_motion_given_its_end_is_the_bridge():
    y, T, sigma, n = 1.3, 1.0, 0.7, 40_000
    brownian = sf.processes.BrownianMotion(sigma, interval=(0.0, 0.95))
    doob = brownian.condition(lambda t, x: (y - x) / (sigma**2 * (T - t)))
    bridge = sf.processes.BrownianBridge(y, sigma)
    x0 = torch.zeros(n, 1, dtype=torch.float64)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    assert torch.allclose(doob.drift(0.4, x), bridge.drift(0.4, x))
    states = sf.solve(doob, x0, [0.0, 0.3, 0.6, 0.95], dt=0.0025, method="heun", seed=8).x
    for xt, t in zip(states[1:], (0.3, 0.6, 0.95), strict=True):
        law = bridge.marginal(x0[:1], t)
        assert_moments(xt, law.mean[0], law.variance[0])


def test_ou_given_its_end_is_its_bridge_on_both_clocks():
    """The bridge's law by conditioning the Gaussian (x_t, x_T); on the backward clock the added term has the other sign."""
    theta, T, y, n = 1.2, 1.0, 0.9, 40_000
    ou = sf.processes.OrnsteinUhlenbeck(theta, 0.0, 1.0, interval=(0.0, 1.0))

    def spread(tau):
        return -math.expm1(-2 * theta * tau) / (2 * theta)

    def grad_log_h(t, x):
        a = torch.exp(-theta * (T - t))
        return a * (y - a * x) / (-torch.expm1(-2 * theta * (T - t)) / (2 * theta))

    def bridge(t, x0):
        a = math.exp(-theta * (T - t))
        prior_mean, prior_var = x0 * math.exp(-theta * t), spread(t)
        gain = prior_var * a / (a**2 * prior_var + spread(T - t))
        return prior_mean + gain * (y - a * prior_mean), prior_var * (1 - gain * a)

    x0 = torch.full((n, 1), -0.5, dtype=torch.float64)
    times = [0.0, 0.3, 0.6, 0.9]
    states = sf.solve(ou.condition(grad_log_h), x0, times, dt=0.0025, method="heun", seed=9).x
    for xt, t in zip(states[1:], times[1:], strict=True):
        mean, variance = bridge(t, -0.5)
        assert_mean(xt, mean)
        assert_variance(xt, variance)
    # the same dynamics written on the backward clock: flip, condition there, solve with t decreasing
    conditioned = ou.flip().condition(lambda s, x: grad_log_h(1.0 - s, x))
    again = sf.solve(conditioned, x0, [1.0, 0.7, 0.4, 0.1], dt=0.0025, method="heun", seed=9).x
    assert torch.allclose(again, states, atol=1e-9)


def test_a_time_before_a_singular_end_is_not_rounded_onto_it():
    """In float32, 1 − 1e-9 is 1: a user's score must not be asked there."""
    seen = []

    def drift(t, x):
        seen.append(t)
        return -x / (1 - t)

    sde = sf.SDE(drift, lambda t, x: 1.0, additive=True, interval=(0.0, 1.0))
    sol = sf.solve(sde, torch.ones(2, 1), steps=[0.0, 0.5, 1 - 1e-9, 1.0], seed=0)
    assert sol.final.isfinite().all()
    near = 1 - 1e-9
    assert sde.drift(near, torch.ones(2, 1)).isfinite().all()
    assert sde.drift(torch.tensor(near, dtype=torch.float64), torch.ones(2, 1)).isfinite().all()
    assert all(t.dtype is torch.float32 and t < 1 for t in seen)
