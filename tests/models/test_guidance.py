"""Guidance: Bayes on a mixture, and the algebra of classifier-free guidance in every parametrisation."""

import pytest
import torch
from closed_forms import LAW, close, network, normal

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import (
    DenoisingScoreMatching,
    FlowMatching,
    SchrodingerBridge,
    StochasticInterpolant,
    classifier_free,
    drop_conditions,
    guided,
)

PROCESS = sf.processes.VariancePreserving(0.1, 12.0)
ONE = sf.laws.GaussianMixture([1.0], LAW.means[1:], LAW.covariances[1:])


def grad_log_posterior(schedule):
    """∇_x log p_t(component 2 | x), from the closed forms of the mixture and of its component."""
    whole, part = LAW.along(schedule), ONE.along(schedule)
    return lambda t, x: part.score(t, x) - whole.score(t, x)


def models():
    path = sf.paths.LinearPath()
    yield FlowMatching(LAW.along(path.schedule).velocity, normal()), path.schedule
    truth = LAW.along(PROCESS)

    def truth_of_v(t, x):
        a, s = PROCESS.schedule.a(torch.as_tensor(t)), PROCESS.schedule.s(torch.as_tensor(t))
        return a * truth.noise(t, x) - s * truth.denoiser(t, x)

    for predicts in ("noise", "score", "data", "v"):
        net = {"noise": truth.noise, "score": truth.score, "data": truth.denoiser, "v": truth_of_v}[predicts]
        yield DenoisingScoreMatching(net, PROCESS, (2,), predicts=predicts, base=normal()), PROCESS.schedule


def test_guidance_by_the_posterior_is_the_conditional_law():
    """With ∇log p_t(y | x) in closed form every field of the guided model is that of the component y."""
    x = LAW.draw(4, seed=0)
    for model, schedule in models():
        bent, part = guided(model, grad_log_posterior(schedule)), ONE.along(schedule)
        close(bent.score(0.4, x), part.score(0.4, x), 1e-7)
        close(bent.velocity(0.4, x), part.velocity(0.4, x), 1e-7)
        close(bent.denoiser(0.4, x), part.denoiser(0.4, x), 1e-7)
        assert not torch.allclose(model.score(0.4, x), part.score(0.4, x))
        close(model.score(0.4, x), LAW.along(schedule).score(0.4, x), 1e-7)  # the model itself is as it was


def test_guided_flow_samples_the_component():
    for model, schedule in models():
        bent = guided(model, grad_log_posterior(schedule))
        x = bent.sample(200, seed=0, solver={"rtol": 1e-5})
        assert (x.mean(0) - ONE.mean).abs().max() < 0.2
        nearest = torch.cdist(x, LAW.means).argmin(1)
        assert (nearest == 1).double().mean() > 0.97
        direct = bent.sde(0.0).drift(0.5, x[:3])
        close(direct, bent.velocity(0.5, x[:3]))


PATHS = {
    "linear": sf.paths.LinearPath(),
    "cosine": sf.paths.CosinePath(),
    "vp": sf.paths.VariancePreservingPath(),
    "sub-vp": sf.paths.SubVariancePreservingPath(),
    "ve": sf.paths.VarianceExplodingPath(0.02, 8.0),
    "edm": sf.paths.EDMPath(0.02, 8.0),
}


@pytest.mark.parametrize("name", PATHS)
def test_a_guided_flow_goes_all_the_way_to_the_data(name):
    """At t = 1, where s is 0 and its slope may be infinite, an addition to the score is a finite one to the velocity."""
    path = PATHS[name]
    schedule = path.schedule
    truth, part = LAW.along(schedule), ONE.along(schedule)
    model = FlowMatching(truth.velocity, normal(2, path.base_deviation), path=path)
    bent = guided(model, grad_log_posterior(schedule))
    assert bent.interval[1] == 1.0
    x = ONE.draw(4, seed=0)
    for t in (0.3, 0.999, 1 - 1e-9, 1.0):
        close(bent.velocity(t, x), part.velocity(t, x), 1e-6)
    begun = part.at(bent.interval[0])
    bent.base = begun  # the law that the component has there, so that the flow is its own
    close(bent.log_prob(x, solver={"rtol": 1e-8}), part.at(1.0).log_prob(x), 1e-5)
    assert bent.sample(3, seed=0).isfinite().all()


@pytest.mark.parametrize("predicts", ["data", "noise", "score", "velocity"])
def test_what_the_pull_is_to_each_prediction(predicts):
    """An addition to the score by way of the prediction and back, on a model of one's own."""

    class Own(sf.models.GenerativeModel):
        def losses(self, x, x0, draws, **condition):
            raise AssertionError

    net, schedule, x = network(), sf.paths.LinearPath().schedule, LAW.draw(3, seed=0)
    model = Own(net, normal(), predicts=predicts, schedule=schedule)
    pulled = guided(model, lambda t, x: 1 + x, 0.7)
    for t in (0.05, 0.5, 0.95):
        close(pulled.score(t, x) - model.score(t, x), 0.7 * (1 + x), 1e-8)


def test_doob_on_the_process_is_the_same_guidance():
    """sde.condition(∇log p(y | x)) on the reversal and the guided model's own reversal have one drift."""
    *_, (model, schedule) = models()
    pull = grad_log_posterior(schedule)
    x = LAW.draw(3, seed=0)
    close(model.sde().condition(pull).drift(0.5, x), guided(model, pull).sde().drift(0.5, x), 1e-8)


def test_classifier_free_guidance_blends_every_quantity():
    """f(∅) + w (f(y) − f(∅)) for the score, the velocity and the data, whatever the network predicts."""
    label, null, x = torch.tensor([0, 2, 1]), {"label": torch.tensor(-1)}, LAW.draw(3, seed=0)
    net = network(classes=3)
    made = [FlowMatching(net, normal())]
    made += [
        DenoisingScoreMatching(net, PROCESS, (2,), predicts=p, base=normal()) for p in ("noise", "score", "data", "v")
    ]
    for model in made:
        sharp = classifier_free(model, 2.5, null)
        for field in ("score", "velocity", "denoiser"):
            without, with_it = (getattr(model, field)(0.4, x, label=y) for y in (torch.tensor(-1), label))
            close(getattr(sharp, field)(0.4, x, label=label), without + 2.5 * (with_it - without), 1e-8)
        assert set(map(id, sharp.parameters())) == set(map(id, model.parameters()))
        assert sharp.sample(3, seed=0, label=label, solver={"steps": 3}).shape == (3, 2)
        close(classifier_free(model, 1.0, null).score(0.4, x, label=label), model.score(0.4, x, label=label))


def test_classifier_free_guidance_blends_both_networks_of_a_model():
    """An interpolant and a Schrödinger bridge have a network for the velocity and another for the score."""
    label, null, x = torch.tensor([0, 2, 1]), {"label": torch.tensor(-1)}, LAW.draw(3, seed=0)
    net, second = network(classes=3), network(classes=3, seed=1)
    for model in (
        StochasticInterpolant(net, normal(), score_net=second),
        StochasticInterpolant(net, normal(), score_net=second, score_predicts="score"),
        SchrodingerBridge(net, second, normal()),
    ):
        sharp = classifier_free(model, 2.5, null)
        for field in ("score", "velocity"):
            without, with_it = (getattr(model, field)(0.4, x, label=y) for y in (torch.tensor(-1), label))
            close(getattr(sharp, field)(0.4, x, label=label), without + 2.5 * (with_it - without), 1e-8)
        drift = sharp.velocity(0.4, x, label=label) + 0.3 * sharp.score(0.4, x, label=label)
        close(sharp.sde(0.3, label=label).drift(0.4, x), drift, 1e-8)
        assert set(map(id, sharp.parameters())) == set(map(id, model.parameters()))
    flow = classifier_free(StochasticInterpolant(net, normal()), 2.5, null)  # no second network: a flow alone
    assert flow.sample(3, seed=0, label=label, solver={"steps": 3}).shape == (3, 2)


def test_conditions_are_dropped_row_by_row_together():
    label, context = torch.arange(1000), torch.arange(1000.0)[:, None] + 1
    dropped = drop_conditions({"label": label, "context": context}, {"label": -1, "context": 0.0}, 0.3, seed=0)
    lost = dropped["label"] == -1
    assert torch.equal(lost, dropped["context"][:, 0] == 0.0)
    assert torch.equal(dropped["label"][~lost], label[~lost])
    assert abs(int(lost.sum()) - 300) < 6 * (1000 * 0.3 * 0.7) ** 0.5
    again = drop_conditions({"label": label, "context": context}, {"label": -1, "context": 0.0}, 0.3, seed=0)
    assert torch.equal(dropped["label"], again["label"])


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda m: guided(FlowMatching(m.net, normal(), coupling="optimal-transport"), m.net), "Guide its SDE"),
        (lambda m: guided(m, 3.0), "function of"),
        (lambda m: classifier_free(m, 2.0, {}), "stand for none"),
        (lambda m: drop_conditions({"label": torch.zeros(3)}, {"y": 0}), "same names"),
        (lambda m: drop_conditions({"label": torch.zeros(3)}, {"label": 0}, 1.5), "between 0 and 1"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask(FlowMatching(network(), normal()))
