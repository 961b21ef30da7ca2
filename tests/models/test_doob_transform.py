"""Learned Doob transforms: Brownian motion and Ornstein–Uhlenbeck given a noisy end, where h is known."""

import pytest
import torch
from closed_forms import close, normal
from stats import assert_mean, assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import DoobTransform
from sdeflow.processes.boundary import as_time

OU = sf.processes.OrnsteinUhlenbeck(1.2, 0.0, 0.9)
END, SPREAD = 1.0, 0.3  # the end is seen as 1 with an error of variance .3


def likelihood(x):
    return (-0.5 * (x[:, 0] - END).square() / SPREAD).exp()


def log_h(t, x):
    """log E[L(X_1) | X_t = x] for the Gaussian transition N(m x, v)."""
    left = 1 - as_time(t, x).flatten()
    mean, variance = (-1.2 * left).exp() * x[:, 0], 0.81 * -torch.expm1(-2.4 * left) / 2.4
    total = SPREAD + variance
    return 0.5 * (SPREAD / total).log() - 0.5 * (mean - END).square() / total


def exact_model():
    return DoobTransform(log_h, OU, normal(1, 0.5), likelihood, steps=40)


def test_the_closed_form_is_the_minimum():
    """Fields added to log h raise the loss by more than 6 standard errors; so does forgetting log h altogether."""
    x = 0.5 * torch.randn(40_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    least = exact_model().loss(x, seed=1, reduction="none")
    bends = (
        lambda t, x: 0.3 + 0 * x[:, 0],
        lambda t, x: 0.3 * x[:, 0],
        lambda t, x: 0.3 * (6 * as_time(t, x)).sin().flatten(),
    )
    for bend in bends:
        for sign in (1.0, -1.0):
            bent = DoobTransform(
                lambda t, x, b=bend, s=sign: log_h(t, x) + s * b(t, x), OU, normal(1), likelihood, steps=40
            )
            excess = bent.loss(x, seed=1, reduction="none") - least
            assert excess.mean() > 6 * excess.std() / 200
    # e^n is the mean of L there: E[e^n − L] = 0
    assert_mean(log_h(torch.zeros(40_000), x).exp() - likelihood(sf.solve(OU, x, steps=400, seed=2).final), 0.0)


def test_its_paths_end_as_bayes_has_it():
    """From one point the ends are the Gaussian transition times L: moments of 20000 samples."""
    start = torch.full((20_000, 1), 0.4, dtype=torch.float64)
    end = sf.solve(exact_model().sde(), start, steps=400, seed=0).final
    free = OU.marginal(start[:1], 1.0)
    mean, variance = free.mean.item(), free.variance.item()
    gain = variance / (variance + SPREAD)
    assert_moments(end, mean + gain * (END - mean), (1 - gain) * variance)
    assert standard_errors(end, mean) > 6


def test_the_transform_is_that_of_the_process():
    x = torch.randn(3, 1, dtype=torch.float64)
    model = exact_model()
    slope = torch.autograd.functional.jacobian(lambda y: log_h(0.3, y).sum(), x)
    close(model.sde().drift(0.3, x), -1.2 * x + 0.81 * slope)


def test_loss_by_hand():
    model = exact_model()
    x = torch.randn(5, 1, dtype=torch.float64)
    grid = torch.linspace(0, 1, 41, dtype=torch.float64)
    paths = sf.solve(OU, x, grid, steps=grid, seed=3).x
    each = torch.stack(
        [log_h(t, y).exp() - likelihood(paths[-1]) * log_h(t, y) for t, y in zip(grid, paths, strict=True)]
    )
    assert ((each - model.loss(x, seed=3, reduction="none")).abs().min(0).values < 1e-12).all()


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda m: m.flow(), "no flow"),
        (lambda m: m.sde(0.5), "another ε"),
        (lambda m: m.score(0.5, torch.zeros(1, 1).double()), "no score"),
        (lambda m: DoobTransform(m.net, sf.ODE(lambda t, x: x), normal(1), likelihood), "runs forward"),
        (lambda m: DoobTransform(m.net, OU, normal(1), 3.0), "likelihood is 3"),
        (lambda m: DoobTransform(log_h, OU, normal(1), lambda x: x).loss(torch.zeros(2, 1).double()), r"shape \(2,\)"),
        (lambda m: m.loss(torch.zeros(2, 1), x0=torch.zeros(2, 1)), "no use for x0"),
        (lambda m: DoobTransform(log_h, OU, normal(1), likelihood, steps=0), "steps=0"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask(exact_model())


def test_a_network_learns_it():
    """200 steps: half of the starting points on either side come to end on the right."""
    torch.manual_seed(0)
    net = sf.networks.MLP(1, width=16, depth=2, time_features=1, scalar=True).double()
    process = sf.processes.BrownianMotion(1.0)
    model = DoobTransform(net, process, normal(1, 0.5), lambda x: (x[:, 0] > 0).to(x), steps=20)
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        optimiser.zero_grad()
        model.loss(0.5 * torch.randn(256, 1, dtype=torch.float64, generator=generator), seed=step).backward()
        optimiser.step()
    end = model.sample(1000, seed=0, solver={"steps": 50})
    free = model.sample(1000, seed=0, process=process, solver={"steps": 50})
    assert (end > 0).double().mean() > 0.9 and 0.4 < (free > 0).double().mean() < 0.6
