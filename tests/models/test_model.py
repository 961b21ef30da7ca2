"""The base class: a user's model in under 30 lines, devices of randomness, and time laws."""

import inspect
import io

import pytest
import torch
from closed_forms import LAW, close, network, normal
from stats import assert_mean, assert_moments

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import times
from sdeflow.paths import Draws, Purpose


class DataPrediction(sf.models.GenerativeModel):
    """A user's model: the straight path, learned by predicting the data, with velocity, score and SDEs for nothing."""

    def __init__(self, net, base):
        schedule = sf.paths.LinearPath().schedule
        super().__init__(net, base, predicts="data", schedule=schedule)

    def losses(self, x, x0, draws, **condition):
        x0 = self.base_points(x, x0, draws)
        t = draws.times(x)
        error = self.prediction(t, torch.lerp(x0, x, t.to(x)), **condition) - x
        return error.square().flatten(1).sum(1)


def test_a_model_of_ones_own_is_short_and_complete():
    assert len(inspect.getsource(DataPrediction).splitlines()) < 30
    truth = LAW.along(sf.paths.LinearPath().schedule)
    model = DataPrediction(truth.denoiser, normal())
    x = LAW.draw(4, seed=0)
    close(model.velocity(0.4, x), truth.velocity(0.4, x), 1e-8)
    close(model.score(0.4, x), truth.score(0.4, x), 1e-8)
    assert_moments(
        model.sample(4000, seed=0, process=model.sde(0.5), solver={"steps": 300}),
        truth.at(0.999).mean,
        truth.at(0.999).variance,
    )
    trained = DataPrediction(network(), normal())
    trained.loss(x, seed=0).backward()
    assert trained.flow(solver={"steps": 4}).sample((3,)).shape == (3, 2)


def test_a_model_without_losses_is_none():
    with pytest.raises(TypeError, match="losses"):
        sf.models.GenerativeModel(network(), normal())


def test_samples_have_no_graph_and_transports_do():
    model = sf.models.FlowMatching(sf.networks.MLP(2, width=4, depth=1), sf.paths.LinearPath().base((2,)))
    assert not model.sample(3, seed=0, solver={"steps": 2}).requires_grad
    assert model.transport(torch.zeros(3, 2), solver={"steps": 2}).requires_grad


def test_processes_carry_the_parameters():
    """Adjoints and optimisers find the network in the flow and in the SDEs."""
    net = network()
    model = sf.models.FlowMatching(net, normal())
    noising = sf.models.DenoisingScoreMatching(net, sf.processes.VariancePreserving(), (2,))
    expected = set(map(id, net.parameters()))
    for process in (model.ode(), model.sde(0.5), noising.sde(), noising.sde(0.5), noising.ode()):
        assert expected <= set(map(id, process.parameters()))


def test_conditions_of_a_likelihood_are_counted():
    """One row per sample, whatever the leading axes, or one for all; any other number is refused in a sentence."""
    model = sf.models.FlowMatching(network(classes=3), normal())
    x, label = LAW.draw(6, seed=0), torch.tensor([0, 1, 2, 2, 1, 0])
    each = model.log_prob(x, label=label)
    close(model.log_prob(x.reshape(2, 3, 2), label=label), each.reshape(2, 3))
    close(model.log_prob(x, label=torch.tensor([1])), model.log_prob(x, label=torch.tensor(1)))
    for wrong in (label[:2], label.reshape(2, 3)):
        with pytest.raises(ArgumentError, match="2 rows for 6 samples"):
            model.log_prob(x.reshape(2, 3, 2), label=wrong)


def test_images_and_float32():
    """Any event shape, and x's dtype throughout."""
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)), 3)
    torch.manual_seed(0)
    for model in (
        sf.models.FlowMatching(sf.networks.UNet((1, 4, 4), width=8), base, coupling="optimal-transport"),
        sf.models.DenoisingScoreMatching(
            sf.networks.UNet((1, 4, 4), width=8), sf.processes.VariancePreserving(), (1, 4, 4)
        ),
        sf.models.StochasticInterpolant(sf.networks.UNet((1, 4, 4), width=8), base),
        sf.models.ActionMatching(sf.networks.MLP((1, 4, 4), width=8, scalar=True), base),
        sf.models.ContinuousFlow(sf.networks.MLP((1, 4, 4), width=8), base, jacobian=0.1, solver={"steps": 2}),
    ):
        x = torch.rand(3, 1, 4, 4)
        assert model.loss(x, seed=0, reduction="none").shape == (3,)
        assert model.loss(x, seed=0).dtype is torch.float32
        sample = model.sample(3, seed=0, solver={"steps": 2})
        assert sample.shape == (3, 1, 4, 4) and sample.dtype is torch.float32


def test_draws_for_different_purposes_are_independent():
    """Base, noise, slices and times of one seed share no numbers: correlations of 20000 at 6 standard errors."""
    like = torch.empty(20_000, 1, dtype=torch.float64)
    drawn = torch.cat([Draws(0).normals(purpose, like) for purpose in Purpose], 1)
    times = Draws(0).uniforms(Purpose.BASE, (20_000, 1), like.device) - 0.5
    drawn = torch.cat([drawn, times], 1)
    for i in range(drawn.shape[1]):
        for j in range(i):
            assert_mean(drawn[:, i] * drawn[:, j], 0.0)
    assert_moments(Draws(0).uniforms(Purpose.TIME, (20_000, 1), like.device), 0.5, 1 / 12)


# --- laws of times -----------------------------------------------------------------------------------------------------

X = torch.zeros(20_000, 1, dtype=torch.float64)


def test_uniform_and_logit_normal():
    t, weight = times.Uniform().draw(X, Draws(0), (1.0, 3.0))
    assert weight == 1.0
    assert_moments(t, 2.0, 4 / 12)
    t, _ = times.LogitNormal(0.3, 0.5).draw(X, Draws(0), (1.0, 3.0))
    assert_moments(((t - 1) / 2).logit(), 0.3, 0.25)


@pytest.mark.parametrize("law", [times.Uniform, times.LogitNormal])
def test_stratified_times_have_the_law_and_less_variance(law):
    """Pooled over 300 batches of 16 they have the same moments; the mean of a batch varies far less."""
    batches = [
        [law(stratified=flag).draw(X[:16], Draws(seed), (0.0, 1.0))[0] for seed in range(300)] for flag in (False, True)
    ]
    plain, spread = (torch.stack(b).squeeze(-1) for b in batches)
    assert_mean(spread.mean(1, keepdim=True), 0.5)
    assert_mean(spread[:, :1], 0.5)
    assert_mean((spread[:, :1] - 0.5).square(), (plain - 0.5).square().mean())
    # a lattice of 16 shifted by u/16 in the quantile: its mean is uniform on an interval of length 1/16
    assert abs(spread.mean(1).var() * 12 * 16**2 - 1) < 0.31  # 6 standard errors of the variance of 300
    assert plain.mean(1).var() * 12 * 16**2 > 5


def test_importance_undoes_its_density():
    """E[w f(t)] is the mean of f whatever the density, which the times do follow."""
    law = times.Importance(lambda t: 1 + 5 * t)
    t, weight = law.draw(X, Draws(0), (0.0, 2.0))
    assert_mean(weight * t.square(), 4 / 3)
    assert_mean(t, (2 + 5 * 8 / 3) / 12)


def test_grid_has_its_times_equally_often():
    t, _ = times.Grid([0.1, 0.5, 0.7]).draw(X, Draws(0), (0.0, 1.0))
    counts = torch.stack([(t == value).double() for value in (0.1, 0.5, 0.7)], 1).squeeze(-1)
    assert_mean(counts, 1 / 3)
    with pytest.raises(ArgumentError, match="empty"):
        times.Grid([])


EVERY = {
    "flow matching": lambda net, base, **o: sf.models.FlowMatching(net, base, **o),
    "bridge matching": lambda net, base, **o: sf.models.BridgeMatching(net, base, **o),
    "interpolant": lambda net, base, **o: sf.models.StochasticInterpolant(net, base, score_net=net, **o),
    "Schrödinger bridge": lambda net, base, **o: sf.models.SchrodingerBridge(net, net, base, **o),
    "action matching": lambda net, base, **o: sf.models.ActionMatching(
        sf.networks.MLP(2, width=8, scalar=True).double(), base, **o
    ),
    "rectified flow": lambda net, base, **o: sf.models.RectifiedFlow(net, base, **o),
}


@pytest.mark.parametrize("name", EVERY)
def test_given_pairs_are_given(name):
    """A model of pairs does not make up the partners of its data."""
    x = LAW.draw(4, seed=0)
    with pytest.raises(ArgumentError, match="give x0="):
        EVERY[name](network(), normal(), coupling="given").loss(x, seed=0)
    assert EVERY[name](network(), normal(), coupling="given").loss(x, x0=x - 1, seed=0).isfinite()
    assert EVERY[name](network(), normal()).loss(x, seed=0).isfinite()


def squared(t):
    return t.square()


VP = sf.processes.VariancePreserving()
KEPT = {
    **EVERY,
    "trigonometric": lambda net, base: sf.models.StochasticInterpolant(
        net, base, score_net=net, path=sf.paths.Interpolant("trigonometric", "sine")
    ),
    "no noise": lambda net, base: sf.models.FlowMatching(net, base, path=sf.paths.Interpolant(noise="none")),
    "quadratic": lambda net, base: sf.models.FlowMatching(net, base, path=sf.paths.Interpolant(noise="quadratic")),
    "score matching": lambda net, base: sf.models.ScoreMatching(net, base),
    "continuous flow": lambda net, base: sf.models.ContinuousFlow(net, base),
    "a function for a weight": lambda net, base: sf.models.DenoisingScoreMatching(net, VP, (2,), weighting=squared),
    "guided": lambda net, base: sf.models.guided(sf.models.FlowMatching(net, base), network(1)),
    "classifier-free": lambda net, base: sf.models.classifier_free(
        sf.models.FlowMatching(network(classes=3), base), 2.0, {"label": torch.tensor(-1)}
    ),
    **{
        weighting: lambda net, base, w=weighting: sf.models.DenoisingScoreMatching(net, VP, (2,), weighting=w)
        for weighting in ("variance", "likelihood", "data", "edm", "min-snr")
    },
}


@pytest.mark.parametrize("name", KEPT)
def test_a_model_is_kept_as_a_whole(name):
    """torch.save takes it, and what is loaded has the same loss."""
    model, file = KEPT[name](network(), normal()), io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    x, told = LAW.draw(4, seed=0), ({"label": torch.tensor(1)} if name == "classifier-free" else {})
    assert torch.equal(again.loss(x, seed=0, **told), model.loss(x, seed=0, **told))
