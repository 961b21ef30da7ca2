"""Rectified flow: one velocity with flow matching, pairs, straightness, and what a reflow may not be asked."""

import pytest
import torch
from closed_forms import LAW, close, network, normal

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import FlowMatching, RectifiedFlow, StochasticInterpolant


def test_three_names_of_one_loss():
    """Flow matching, the interpolant without noise and the first round of a rectified flow: one loss, so one velocity."""
    net, x = network(), LAW.draw(40, seed=0)
    models = [
        FlowMatching(net, normal()),
        RectifiedFlow(net, normal()),
        StochasticInterpolant(net, normal(), path=sf.paths.Interpolant("linear", "none")),
    ]
    losses = [model.loss(x, seed=3, reduction="none") for model in models]
    for loss in losses[1:]:
        close(loss, losses[0], 1e-12)
    for model in models:
        close(model.velocity(0.3, x), net(0.3, x), 0.0)


def test_reflow_learns_from_its_pairs():
    """The copy has its own parameters, wants pairs, and keeps them together."""
    model = RectifiedFlow(network(), normal())
    z0, z1 = model.pairs(16, seed=1, solver={"steps": 5})
    close(z1, model.transport(z0, solver={"steps": 5}), 0.0)
    again = model.reflow()
    assert again.net is not model.net and torch.equal(again.velocity(0.5, z0), model.velocity(0.5, z0))
    still = RectifiedFlow(lambda t, x: 0 * x, normal(), coupling="given")
    close(still.loss(z1, x0=z0, seed=0, reduction="none"), (z1 - z0).square().sum(1))
    with pytest.raises(ArgumentError, match="give x0="):
        again.loss(z1)
    with pytest.raises(ArgumentError, match="depend on the data"):
        again.score(0.5, z0)
    assert model.score(0.5, z0).shape == z0.shape


def test_straightness_of_known_flows():
    """x' = (c, 0) is straight; x' = 2πk (y, −x) goes around: ∫‖(Z₁ − Z₀) − v‖² = ‖Z₁ − Z₀‖² − 2⟨Z₁ − Z₀, Z₁ − Z₀⟩ + ∫‖v‖²."""
    z = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    straight = RectifiedFlow(lambda t, x: torch.ones_like(x), normal())
    assert straight.straightness(z, solver={"steps": 3}) < 1e-20
    turn = 0.7
    round_about = RectifiedFlow(lambda t, x: turn * torch.stack([x[:, 1], -x[:, 0]], 1), normal())
    chord = 2 - 2 * torch.tensor(turn).cos()
    expected = (turn**2 - chord) * z.square().sum(1).mean()
    close(round_about.straightness(z, solver={"rtol": 1e-9}), expected, 1e-6)


def test_path_energy_of_known_flows():
    """A shift is optimal transport: 0. A turn by the angle φ costs φ²‖x‖², and its end is no further away than that."""
    z = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift = RectifiedFlow(lambda t, x: 3 + 0 * x, normal())
    close(shift.path_energy(z, z + 3, solver={"steps": 3}), torch.zeros((), dtype=torch.float64), 1e-12)
    turn = RectifiedFlow(lambda t, x: 0.1 * torch.stack([x[:, 1], -x[:, 0]], 1), normal())
    end = turn.transport(z)
    assert turn.path_energy(z, end) > 0
    with pytest.raises(ArgumentError, match="as many"):
        turn.path_energy(z, end[:5])


def test_reflow_straightens():
    """A field learned from two clusters, then one round on its own pairs: the second is straighter (200 + 200 steps)."""
    torch.manual_seed(0)
    law = sf.laws.GaussianMixture([0.5, 0.5], torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), [0.05, 0.05])
    base = sf.paths.LinearPath().base((2,))
    first = RectifiedFlow(sf.networks.MLP(2, time_features=1), base)

    def fit(model, batch):
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for step in range(200):
            x, x0 = batch(step)
            optimiser.zero_grad()
            model.loss(x, x0=x0, seed=step).backward()
            optimiser.step()

    fit(first, lambda step: (law.draw(256, seed=step), None))
    z0, z1 = first.pairs(1024, seed=0, solver={"steps": 10})
    second = first.reflow()
    fit(second, lambda step: (z1[step % 4 :: 4], z0[step % 4 :: 4]))
    z = base.sample((256,))
    bends = [model.straightness(z, solver={"steps": 20, "method": "heun"}) for model in (first, second)]
    assert bends[1] < bends[0] / 3
