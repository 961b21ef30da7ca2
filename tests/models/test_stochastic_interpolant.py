"""Stochastic interpolants and Schrödinger bridges: both regressions, both drifts, marginals, and the bridge's own law."""

import pytest
import torch
from closed_forms import LAW, close, network, normal
from stats import assert_mean, assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import SchrodingerBridge, StochasticInterpolant
from sdeflow.paths import Draws, GaussianPath, Interpolant, PairPath, Purpose
from sdeflow.processes import CustomSchedule

NOISES = {
    "root": lambda t: (2 * t * (1 - t)).sqrt(),
    "quadratic": lambda t: t * (1 - t),
    "sine": lambda t: (torch.pi * t).sin().square(),
}


SQUARES = {
    "root": lambda t: 2 * t * (1 - t),
    "quadratic": lambda t: (t * (1 - t)) ** 2,
    "sine": lambda t: (torch.pi * t).sin() ** 4,
}


class ByVariance(CustomSchedule):
    """a = t and s² as a function, whose slope is finite at the ends where that of s is not."""

    def __init__(self, variance):
        super().__init__(lambda t: t, lambda t: variance(t).sqrt())
        self.squared = variance

    def variance(self, t):
        return self.squared(t)

    def variance_dot(self, t):
        return self._slope(self.squared, t)


def truth_of(noise):
    """From a normal base x_t is t x1 + √((1 − t)² + γ²) ε: a Gaussian path, with the mixture in closed form."""
    return LAW.along(ByVariance(lambda t: (1 - t) ** 2 + SQUARES[noise](t)))


def exact_model(noise="root", **options):
    truth = truth_of(noise)

    def eta(t, x):
        return -NOISES[noise](torch.as_tensor(t, dtype=torch.float64)) * truth.score(t, x)

    second = truth.score if options.get("score_predicts") == "score" else eta
    model = StochasticInterpolant(
        truth.velocity, normal(), score_net=second, path=Interpolant("linear", noise), **options
    )
    return model, truth


@pytest.mark.parametrize("curve", ["linear", "trigonometric"])
@pytest.mark.parametrize("noise", ["none", *NOISES])
def test_interpolants_by_the_general_path(curve, noise):
    path = Interpolant(curve, noise, scale=0.7)
    x0, x1, z = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    for own, general in zip(path.rates(t, (x0, x1)), GaussianPath.rates(path, t, (x0, x1)), strict=True):
        close(own, general)
    for end, point in ((0.0, x0), (1.0, x1)):
        close(path.mean(torch.tensor(end).double(), (x0, x1)), point, 1e-12)
        assert path.std(torch.tensor(end).double(), (x0, x1)) < 1e-12
    assert path.at(path.regular[0], z, (x0, x1))[1].isfinite().all()


def test_loss_by_hand():
    """‖b − (∂_t I + γ̇ z)‖² + ‖η − z‖², and the second as γ²‖s + z/γ‖² where the score is predicted."""
    nets = network(0), network(1)
    x = LAW.draw(6, seed=0)
    x0, z = Draws(2).normals(Purpose.BASE, x), Draws(2).normals(Purpose.NOISE, x)
    t = 1e-4 + (1 - 2e-4) * Draws(2).uniforms(Purpose.TIME, (6, 1), x.device)
    gamma, gamma_dot = (2 * t * (1 - t)).sqrt(), (1 - 2 * t) / (2 * t * (1 - t)).sqrt()
    state = (1 - t) * x0 + t * x + gamma * z
    first = (nets[0](t, state) - (x - x0 + gamma_dot * z)).square().sum(1)
    second = {
        "noise": (nets[1](t, state) - z).square().sum(1),
        "score": (gamma * nets[1](t, state) + z).square().sum(1),
    }
    for predicts, expected in second.items():
        model = StochasticInterpolant(nets[0], normal(), score_net=nets[1], score_predicts=predicts)
        close(model.loss(x, seed=2, reduction="none"), first + expected, 1e-9)
    close(StochasticInterpolant(nets[0], normal()).loss(x, seed=2, reduction="none"), first, 1e-9)


def test_the_closed_form_is_the_minimum():
    """Fields added to the exact b and η raise the loss by their mean squares, within 6 standard errors."""
    model, truth = exact_model("quadratic")
    x = LAW.draw(40_000, seed=0)
    least = model.loss(x, seed=1, reduction="none")
    x0, z = Draws(1).normals(Purpose.BASE, x), Draws(1).normals(Purpose.NOISE, x)
    t = Draws(1).uniforms(Purpose.TIME, (len(x), 1), x.device)
    state = (1 - t) * x0 + t * x + t * (1 - t) * z
    bend, exact = lambda x: 0.3 * x.tanh(), (model.net, model.score_net)
    for which in ("net", "score_net"):
        model.net, model.score_net = exact
        field = getattr(model, which)
        setattr(model, which, lambda t, x, f=field: f(t, x) + bend(x))
        excess = model.loss(x, seed=1, reduction="none") - least
        assert excess.mean() > 6 * excess.std() / 200
        assert_mean(excess - bend(state).square().sum(1), 0.0)
    model.net, model.score_net = exact
    close(model.score(0.4, x[:3]), truth.score(0.4, x[:3]), 1e-8)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_marginals_are_kept_forward_and_backward(epsilon):
    """Drift b + ε∇log p forward and b − ε∇log p backward: moments at three times, 24 comparisons, 4000 samples."""
    model, truth = exact_model("root", score_predicts="score")
    forward = model.sde(epsilon)
    backward = forward.reverse(model.score, clock="backward")
    x = LAW.draw(3, seed=0)
    close(backward.drift(0.4, x), truth.velocity(0.4, x) - epsilon * truth.score(0.4, x), 1e-8)
    for process, times in ((forward, [0.0, 0.3, 0.7, 1.0]), (backward, [1.0, 0.7, 0.3, 0.0])):
        method = "heun" if epsilon == 0 else None
        x0 = truth.sample(times[0], 4000, seed=3)
        sol = sf.solve(process, x0, times, dt=0.005, seed=4, method=method)
        for t, states in zip(times[1:], sol.x[1:], strict=True):
            law = truth.at(t)
            assert_moments(states, law.mean, law.variance)


def test_log_prob_with_the_exact_velocity():
    model, truth = exact_model("sine")
    x = LAW.draw(5, seed=2)
    close(model.log_prob(x, solver={"rtol": 1e-10}), truth.log_prob(1.0, x), 1e-6)


def test_noise_prediction_keeps_away_from_the_ends():
    model, _ = exact_model("root")
    assert model.sde(0.5).interval == (1e-4, 1 - 1e-4)
    assert exact_model("root", score_predicts="score")[0].sde(0.5).interval == (0.0, 1.0)


# --- the Schrödinger bridge ----------------------------------------------------------------------------------------------


def bridge_of_normals(sigma, mean):
    """Between N(0, 1) and N(m, 1): pairs of covariance c, c² + σ²c = 1, and the Gaussian law of x_t, in closed form."""
    c = (-(sigma**2) + (sigma**4 + 4) ** 0.5) / 2

    def moments(t):
        variance = (1 - t) ** 2 + t**2 + 2 * c * t * (1 - t) + sigma**2 * t * (1 - t)
        slope = -2 * (1 - t) + 2 * t + (2 * c + sigma**2) * (1 - 2 * t)
        return t * mean, variance, slope

    def score(t, x):
        centre, variance, _ = moments(t)
        return -(x - centre) / variance

    def velocity(t, x):
        centre, variance, slope = moments(t)
        return mean + slope / (2 * variance) * (x - centre)

    return c, moments, velocity, score


def test_the_bridge_has_the_law_of_the_entropic_plan():
    """Its SDE ends in the data and joins ends with the plan's covariance: 4 numbers at 6 standard errors, 20000 samples."""
    sigma, mean = 0.8, 1.5
    c, moments, velocity, score = bridge_of_normals(sigma, mean)
    model = SchrodingerBridge(velocity, score, normal(1), sigma=sigma)
    assert model.coupling.regularisation == pytest.approx(2 * sigma**2)
    x0 = Draws(0).samples(normal(1), 20_000)
    sol = sf.solve(model.sde(), x0, [0.0, 0.5, 1.0], steps=200, seed=1)
    assert_moments(sol.x[1], *moments(0.5)[:2])
    assert_moments(sol.final, *moments(1.0)[:2])
    assert_mean(sol.x[0] * (sol.final - mean), c)
    flow = sf.solve(model.ode(), x0, steps=50, method="heun").final
    assert standard_errors(x0 * (flow - mean), c) > 6  # the flow has the marginals and not the pairs
    other = sf.solve(model.sde(2.0), x0, steps=200, seed=1).final
    assert standard_errors(x0 * (other - mean), c) > 6  # nor has another amount of noise


def test_the_bridge_is_the_minimum_of_its_loss():
    """With pairs from the exact plan, fields added to the closed form raise the loss by their mean squares."""
    sigma, mean = 0.8, 1.5
    c, _, velocity, score = bridge_of_normals(sigma, mean)
    x0, noise = torch.randn(2, 40_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x1 = mean + c * x0 + (1 - c**2) ** 0.5 * noise
    model = SchrodingerBridge(velocity, score, normal(1), sigma=sigma, coupling="given")
    least = model.loss(x1, x0=x0, seed=1, reduction="none")
    for which, size in (("net", 0.2), ("score_net", 0.8)):
        field = getattr(model, which)
        for sign in (size, -size):
            setattr(model, which, lambda t, x, f=field, s=sign: f(t, x) + s * (x - t).tanh())
            excess = model.loss(x1, x0=x0, seed=1, reduction="none") - least
            assert excess.mean() > 6 * excess.std() / 200
        setattr(model, which, field)


def test_bridge_conditional_velocity_by_the_formula():
    """(1 − 2t)/(2t(1 − t)) (x − μ_t) + x1 − x0."""
    path = sf.paths.BridgePath(0.7)
    x0, x1, x = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = 0.3
    expected = (1 - 2 * t) / (2 * t * (1 - t)) * (x - (1 - t) * x0 - t * x1) + x1 - x0
    close(path.velocity(t, x, (x0, x1)), expected)
    close(path.std(torch.tensor(t), (x0, x1)), torch.tensor(0.7 * (t * (1 - t)) ** 0.5).double(), 1e-6)


def line(t, z):
    return torch.lerp(*z, t)


def with_score(path, **options):
    return StochasticInterpolant(network(), normal(), score_net=network(1), path=path, **options)


def test_a_score_is_learned_where_the_noise_is_a_function_of_time():
    """Also where it is another for each coordinate; without a score_net any path between pairs has a flow."""
    widths = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for path in (PairPath(0.1), GaussianPath(line, lambda t, z: widths * (1 + t))):
        std = path.std(torch.tensor(0.5), (widths, widths))
        close(with_score(path).score(0.5, widths[None]), -network(1)(0.5, widths[None]) / std)
    for path in (PairPath(), GaussianPath(line, lambda t, z: 0.1 + z[1].abs())):
        assert StochasticInterpolant(network(), normal(), path=path).loss(LAW.draw(3, seed=0), seed=0) > 0


@pytest.mark.parametrize(
    "ask, words",
    [
        (
            lambda: StochasticInterpolant(network(), normal()).score(0.5, torch.zeros(1, 2).double()),
            "without a score_net",
        ),
        (lambda: StochasticInterpolant(network(), normal()).sde(0.5), "without a score_net"),
        (lambda: StochasticInterpolant(network(), normal(), path=sf.paths.LinearPath()), "between pairs"),
        (lambda: StochasticInterpolant(network(), normal(), score_predicts="eta"), "'noise'"),
        (lambda: StochasticInterpolant(network(), normal(), score_net=3), "score_net is int"),
        (lambda: with_score(Interpolant(noise="none")), "no noise at t"),
        (lambda: with_score(PairPath(), score_predicts="score"), "no noise at t"),
        (lambda: with_score(GaussianPath(line, lambda t, z: 0.1 + z[1].abs())), "depends on z"),
        (lambda: with_score(GaussianPath(line, lambda t, z: 1 + (z[0] > 0))), "depends on z"),
        (lambda: Interpolant(scale=0.0), "noise='none'"),
        (lambda: Interpolant("straight"), "'linear'"),
        (lambda: SchrodingerBridge(network(), network(), normal(), sigma=-1.0), "σ > 0"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask()
