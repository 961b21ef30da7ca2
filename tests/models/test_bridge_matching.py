"""Bridge matching: Doob's transform in closed form, its law, its loss."""

import pytest
import torch
from closed_forms import LAW, close, network, normal
from stats import assert_mean, assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import BridgeMatching
from sdeflow.paths import Draws, Purpose
from sdeflow.processes.boundary import as_time

SIGMA = 0.8


def denoiser_from_origin(t, x):
    """E[x1 | x_t] for bridges from 0: x_t = t x1 + σ√(t(1 − t)) ε, a Gaussian path of the mixture."""
    schedule = sf.processes.CustomSchedule(lambda t: t, lambda t: SIGMA * (t * (1 - t)).sqrt())
    return LAW.along(schedule).denoiser(as_time(t, x).clamp_min(1e-12), x)  # at 0 it is the mean of the data, as 0/0


def test_from_one_point_it_is_a_doob_transform():
    """h(t, x) = E[dP_data/dN(0, σ²)(X_1) | X_t = x]: the drift is σ²∇log h, and ends in the data."""
    model = BridgeMatching(denoiser_from_origin, normal(), sigma=SIGMA)
    sde = model.sde()
    steps = [1 - (1 - sde.interval[1]) ** (k / 300) for k in range(301)]
    sol = sf.solve(sde, torch.zeros(4000, 2, dtype=torch.float64), [0.0, steps[60], steps[-1]], steps=steps, seed=0)
    schedule = sf.processes.CustomSchedule(lambda t: t, lambda t: SIGMA * (t * (1 - t)).sqrt())
    for t, x in zip((steps[60], steps[-1]), sol.x[1:], strict=True):
        law = LAW.along(schedule).at(t)
        assert_moments(x, law.mean, law.variance)
    x = LAW.draw(3, seed=0)
    free = sf.processes.BrownianMotion(SIGMA, interval=(0.0, 0.999))
    by_doob = free.condition(model.grad_log_h)
    close(by_doob.drift(0.4, x), (denoiser_from_origin(0.4, x) - x) / 0.6)
    close(sde.drift(0.4, x), by_doob.drift(0.4, x))
    # log h = log p_t(x) − log N(x; 0, σ²t) up to a function of t: its gradient is that of the transform
    log_h = LAW.along(schedule).score(0.4, x) + x / (SIGMA**2 * 0.4)
    close(model.grad_log_h(0.4, x), log_h, 1e-8)


def test_loss_by_hand():
    """‖D − x1‖² at (1 − t) x0 + t x1 + σ√(t(1 − t)) ε."""
    net, x = network(), LAW.draw(6, seed=0)
    model = BridgeMatching(net, normal(), sigma=SIGMA)
    x0, noise = Draws(2).normals(Purpose.BASE, x), Draws(2).normals(Purpose.NOISE, x)
    t = 1e-3 + (1 - 2e-3) * Draws(2).uniforms(Purpose.TIME, (6, 1), x.device)
    state = (1 - t) * x0 + t * x + SIGMA * (t * (1 - t)).sqrt() * noise
    close(model.loss(x, seed=2, reduction="none"), (net(t, state) - x).square().sum(1), 1e-9)


def test_the_closed_form_is_the_minimum():
    x = LAW.draw(40_000, seed=0)
    origin = torch.zeros_like(x)
    model = BridgeMatching(denoiser_from_origin, normal(), sigma=SIGMA, coupling="given")
    least = model.loss(x, x0=origin, seed=1, reduction="none")
    for sign in (0.2, -0.2):
        model.net = lambda t, x, s=sign: denoiser_from_origin(t, x) + s * x.tanh()
        excess = model.loss(x, x0=origin, seed=1, reduction="none") - least
        assert excess.mean() > 6 * excess.std() / 200


def test_it_samples_and_transports():
    model = BridgeMatching(network(), normal(), sigma=SIGMA)
    assert model.sample(3, seed=0, solver={"steps": 10}).shape == (3, 2)
    x0 = torch.zeros(3, 2, dtype=torch.float64)
    ends = [model.transport(x0, solver={"steps": 10, "seed": 1}) for _ in range(2)]
    assert torch.equal(*ends)
    shift = BridgeMatching(lambda t, x: 2.0 + 0 * x, normal(), sigma=SIGMA)
    end = shift.transport(torch.zeros(2000, 2, dtype=torch.float64), solver={"steps": 100, "seed": 0})
    assert_mean(end, 2 * 0.999)
    assert standard_errors(end, 1.9) > 6


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda m: m.flow(), "SchrodingerBridge"),
        (lambda m: m.sde(0.5), "its sigma"),
        (lambda m: m.score(0.5, torch.zeros(1, 2).double()), "score is not learned"),
        (lambda m: BridgeMatching(m.net, normal(), sigma=0.0), "σ > 0"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask(BridgeMatching(network(), normal()))
