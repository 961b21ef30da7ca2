"""Losses recomputed by hand on a fixed batch, and minima at the exact quantity, for the kinds whose own files lack one."""

import pytest
import torch
from closed_forms import LAW, close, network, normal
from stats import assert_mean, standard_errors

import sdeflow as sf
from sdeflow.brownian import Stream, signs
from sdeflow.models import ActionMatching, ContinuousFlow, SchrodingerBridge, ScoreMatching
from sdeflow.paths import Draws, Purpose


def test_action_matching():
    """s(0, x0) − s(1, x1) + ½‖∇s‖² + ∂_t s on the line between pairs, with derivatives by torch."""
    torch.manual_seed(0)
    action = sf.networks.MLP(2, width=8, depth=2, scalar=True).double()
    x = LAW.draw(6, seed=0)
    x0, t = Draws(2).normals(Purpose.BASE, x), Draws(2).uniforms(Purpose.TIME, (6, 1), x.device).double()
    time, state = t.clone().requires_grad_(), ((1 - t) * x0 + t * x).requires_grad_()
    by_time, by_state = torch.autograd.grad(action(time, state).sum(), [time, state])
    zero, one = torch.zeros(6, 1).double(), torch.ones(6, 1).double()
    expected = action(zero, x0) - action(one, x) + 0.5 * by_state.square().sum(1) + by_time[:, 0]
    close(ActionMatching(action, normal()).loss(x, seed=2, reduction="none"), expected, 1e-9)


def test_schrodinger_bridge():
    """‖v − u‖² + γ²‖s + ε/γ‖² with u = (1 − 2t)/(2t(1 − t)) (x − μ) + x1 − x0 and γ = σ√(t(1 − t))."""
    sigma, x = 0.8, LAW.draw(6, seed=0)
    velocity, score = network(0), network(1)
    model = SchrodingerBridge(velocity, score, normal(), sigma=sigma, coupling="given")
    x0, noise = Draws(3).normals(Purpose.BASE, x), Draws(2).normals(Purpose.NOISE, x)
    t = 1e-3 + (1 - 2e-3) * Draws(2).uniforms(Purpose.TIME, (6, 1), x.device).double()
    gamma, mean = sigma * (t * (1 - t)).sqrt(), (1 - t) * x0 + t * x
    state = mean + gamma * noise
    u = (1 - 2 * t) / (2 * t * (1 - t)) * (state - mean) + x - x0
    flow, bent = (velocity(t, state) - u).square().sum(1), (score(t, state) + noise / gamma).square().sum(1)
    close(model.loss(x, x0=x0, seed=2, reduction="none"), flow + gamma[:, 0] ** 2 * bent, 1e-8)


def test_sliced_score_matching():
    """½‖s‖² + eᵀ(∇s)e for the signs e of the seed."""
    net, x = network(), LAW.draw(4, seed=0)
    e = signs(5, Stream.PROBES, (0, 0, 2), (4, 2), dtype=x.dtype, device=x.device)
    rows = [torch.autograd.functional.jacobian(lambda y: net(0.0, y[None])[0], row) for row in x]
    traces = torch.stack([v @ jacobian @ v for v, jacobian in zip(e, rows, strict=True)])
    expected = 0.5 * net(0.0, x).square().sum(1) + traces
    close(ScoreMatching(net, normal(), method="sliced").loss(x, seed=5, reduction="none"), expected, 1e-9)


@pytest.mark.parametrize("size", [0.3, -0.3])
def test_maximum_likelihood_is_least_at_the_flow_of_the_data(size):
    """The mean of −log p is the entropy at the exact velocity, and more by a KL divergence at any other: 6 standard errors."""
    truth = LAW.along(sf.paths.LinearPath().schedule)
    x, solver = LAW.draw(4000, seed=0), {"steps": 40, "method": "heun"}
    exact = ContinuousFlow(truth.velocity, normal(), solver=solver).loss(x, reduction="none")
    assert (exact + LAW.log_prob(x)).abs().mean() < 2e-3
    bent = ContinuousFlow(lambda t, x: truth.velocity(t, x) + size * x.sin(), normal(), solver=solver)
    excess = bent.loss(x, reduction="none") - exact
    assert excess.mean() > 0 and standard_errors(excess, 0.0) > 6
    assert_mean(exact, -LAW.log_prob(LAW.draw(4000, seed=0)).mean())
