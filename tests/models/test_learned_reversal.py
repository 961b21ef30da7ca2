"""Learned reversals: with the exact c the reversal and the flow are those of the process, and the loss finds c."""

import pytest
import torch
from closed_forms import LAW, close, normal
from stats import assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import LearnedReversal

GBM = sf.processes.GeometricBrownianMotion(0.3, 0.6)
START, SPREAD = 0.1, 0.3  # ln x₀ ~ N(.1, .09)


def log_moments(t):
    return START + (0.3 - 0.18) * t, SPREAD**2 + 0.36 * t


def gbm_difference(t, x):
    """c = ∇·Σ + Σ∇log p = 2σ²x + σ²x²·(−1/x)(1 + (ln x − m)/v)."""
    mean, variance = log_moments(t)
    return 0.36 * x * (2 - 1 - (x.log() - mean) / variance)


def lognormal(t):
    mean, variance = (torch.tensor([value], dtype=torch.float64) for value in log_moments(t))
    return torch.distributions.Independent(torch.distributions.LogNormal(mean, variance.sqrt()), 1)


def test_state_dependent_noise_is_reversed():
    """Geometric Brownian motion, whose reversal without ∇·Σ comes out at −.19 for .1: moments of ln x₀, 8000 samples."""
    model = LearnedReversal(gbm_difference, GBM, lognormal(1.0))
    x = model.sample(8000, seed=0, process=model.sde(), solver={"steps": 400})
    assert_moments(x.log(), START, SPREAD**2)
    wrong = LearnedReversal(lambda t, x: gbm_difference(t, x) - 0.72 * x, GBM, lognormal(1.0))
    x = wrong.sample(8000, seed=0, process=wrong.sde(), solver={"steps": 400})
    assert standard_errors(x.log(), START) > 6


def test_the_flow_has_the_density():
    """f − ½c carries the law at t1 to that at t0: log p within 1e-6, with no score and no schedule."""
    model = LearnedReversal(gbm_difference, GBM, lognormal(1.0))
    x = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    close(model.log_prob(x, solver={"rtol": 1e-10}), lognormal(0.0).log_prob(x), 1e-6)


def test_the_score_is_found_by_nelson():
    model = LearnedReversal(gbm_difference, GBM, lognormal(1.0))
    x = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    t = 0.4
    mean, variance = log_moments(t)
    close(model.score(t, x), -(1 + (x.log() - mean) / variance) / x, 1e-9)


def test_marginals_are_kept_by_any_noise():
    """An SDE of additive noise with the marginals of a multiplicative one: moments of ln x at t = 0, 4000 samples."""
    model = LearnedReversal(gbm_difference, GBM, lognormal(1.0))
    x = model.sample(4000, seed=0, process=model.sde(0.02), solver={"steps": 1000})
    assert_moments(x.log(), START, SPREAD**2)


def test_it_agrees_with_the_reversal_by_the_score():
    process = sf.processes.VariancePreserving(0.1, 8.0)
    truth = LAW.along(process)
    model = LearnedReversal(lambda t, x: process.covariance_times(t, x, truth.score(t, x)), process, normal(), steps=50)
    x = LAW.draw(4, seed=0)
    close(model.sde().drift(0.3, x), process.reverse(truth.score, clock="backward").drift(0.3, x))
    close(model.velocity(0.3, x), truth.velocity(0.3, x), 1e-8)
    close(model.score(0.3, x), truth.score(0.3, x), 1e-8)


def test_the_loss_finds_the_difference():
    """Regression of the loss's target on multiples of c over simulated paths: the best multiple is 1 (±6 standard errors + δ).

    The loss is a parabola in the multiple k; its vertex is computed from three values on the same draws.
    """
    steps, n = 100, 100_000
    normals = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (START + SPREAD * normals).exp()
    values = {}
    for k in (0.0, 1.0, 2.0):
        model = LearnedReversal(lambda t, x, k=k: k * gbm_difference(t, x), GBM, lognormal(1.0), steps=steps)
        values[k] = model.loss(x, seed=1, reduction="none")
    curvature = (values[0.0] - 2 * values[1.0] + values[2.0]).mean()
    slope = values[2.0] - values[0.0]
    vertex = 1 - slope.mean() / (2 * curvature)
    error = slope.std() / n**0.5 / (2 * curvature)
    assert abs(vertex - 1) < 6 * error + 2 / steps
    assert 6 * error + 2 / steps < 0.5  # so that 0 (no reversal) and 2 (half of it forgotten) are told apart


def test_loss_by_hand():
    """δ‖f(t, X_{k+1}) − (X_{k+1} − X_k)/δ − c‖² on the paths that solve simulates with the seed."""
    model = LearnedReversal(lambda t, x: 0.1 * x * t, GBM, lognormal(1.0), steps=10)
    x = torch.rand(5, 1, dtype=torch.float64) + 0.5
    grid = torch.linspace(0, 1, 11, dtype=torch.float64)
    paths = sf.solve(GBM, x, grid, steps=grid, seed=3, method="euler-maruyama").x
    loss = model.loss(x, seed=3, reduction="none")
    candidates = torch.stack(
        [
            0.1 * (0.3 * after - (after - before) / 0.1 - 0.1 * after * t).square().sum(1)
            for before, after, t in zip(paths[:-1], paths[1:], grid[1:], strict=True)
        ]
    )
    assert ((candidates - loss).abs().min(0).values < 1e-12).all()


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LearnedReversal(gbm_difference, sf.ODE(lambda t, x: x), normal()), "runs forward"),
        (lambda: LearnedReversal(gbm_difference, GBM, normal(1), steps=1), "steps=1"),
        (
            lambda: LearnedReversal(gbm_difference, GBM, normal(1)).loss(torch.ones(2, 1), x0=torch.ones(2, 1)),
            "no use for x0",
        ),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
