"""Identities between a process and those made from it, on random SDEs with noise of every shape.

The SDEs are dx = A x dt + Σ_k σ_k(x) dW_k with random stable A and σ_k(x) = B_k x + c_k (B_k = 0 where additive); the
score is an arbitrary smooth field, since these identities are algebra and hold whether or not it belongs to the process.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_sdes import CLOCKS, INTERVAL, NOISES, Drawn, dimensions, drawn, matrix, reflected, seeds

import sdeflow as sf
from sdeflow.calculus import covariance
from sdeflow.errors import ArgumentError

properties = settings(derandomize=True, deadline=None, max_examples=25)
each_noise = pytest.mark.parametrize("noise", NOISES)
each_clock = pytest.mark.parametrize("clock", CLOCKS)
each_calculus = pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
times = st.floats(-0.3, 1.1, width=64)


def rewrapped(process, calculus=None):
    """From coefficients alone, so that no closed form or shortcut of the original takes part."""
    wrapped = sf.SDE(
        process.drift,
        process.diffusion,
        noise=process.noise,
        calculus=calculus or process.calculus,
        interval=process.interval,
    )
    wrapped.direction = process.direction
    return wrapped


def close(value, expected, tolerance=1e-9):
    torch.testing.assert_close(value, expected, rtol=tolerance, atol=tolerance)


def same(one, other, t, x, tolerance=1e-9):
    assert one.direction == other.direction and one.noise == other.noise and one.interval == other.interval
    close(one.drift(t, x), other.drift(t, x), tolerance)
    close(one.diffusion(t, x), other.diffusion(t, x), tolerance)


@each_calculus
@each_noise
@pytest.mark.parametrize("second", CLOCKS)
@pytest.mark.parametrize("first", CLOCKS)
@properties
@given(data=st.data(), t=times)
def test_reversing_twice_is_the_identity(first, second, noise, calculus, data, t):
    case = data.draw(drawn(noise, calculus=calculus))
    once = case.sde.reverse(case.score, clock=first)
    assert once.calculus == calculus
    score = case.score if first == "backward" else reflected(case.score)  # on the reversal's clock
    close(once.score(t, case.x), score(t, case.x), 1e-12)
    for start in (once, rewrapped(once)):
        twice = start.reverse(score, clock=second)
        expected = case.sde if first == second else case.sde.flip()
        same(twice, expected, t, case.x)


@each_calculus
@each_noise
@properties
@given(data=st.data(), t=times)
def test_the_two_clocks_are_one_process(noise, calculus, data, t):
    case = data.draw(drawn(noise, calculus=calculus))
    flipped, backward = (case.sde.reverse(case.score, clock=clock) for clock in CLOCKS)
    assert (flipped.direction, backward.direction) == (1, -1)
    same(flipped, backward.flip(), t, case.x, 1e-12)
    close(flipped.drift(t, case.x), -backward.drift(sum(INTERVAL) - t, case.x), 1e-12)


@each_noise
@properties
@given(data=st.data(), t=times)
def test_the_reversal_is_its_formula(noise, data, t):
    """Backward f − ∇·Σ − Σ∇log p, flipped −f + ∇·Σ + Σ∇log p, with ∇·Σ by finite differences."""
    case = data.draw(drawn(noise))
    sde, x = case.sde, case.x
    sigma = covariance(noise, sde.diffusion(t, x), x)
    added = finite_divergence(sde, t, x) + torch.einsum("bij,bj->bi", sigma, case.score(t, x))
    close(sde.reverse(case.score, "backward").drift(t, x), sde.drift(t, x) - added, 1e-7)
    close(sde.reverse(case.score).drift(sum(INTERVAL) - t, x), added - sde.drift(t, x), 1e-7)
    divergence = finite_divergence(sde, t, x)
    if not sde.additive:  # and leaving ∇·Σ out would be seen
        close(sde.diffusion_divergence(t, x), divergence, 1e-7)
        assert divergence.abs().max() > 1e-3


@each_noise
@properties
@given(data=st.data(), t=times, epsilon=st.floats(0, 3, width=64))
def test_the_flow_is_halfway_between_forward_and_backward(noise, data, t, epsilon):
    case = data.draw(drawn(noise))
    sde, x = case.sde, case.x
    flow = sde.probability_flow(case.score)
    backward = sde.reverse(case.score, "backward")
    close(flow.velocity(t, x), 0.5 * (sde.drift(t, x) + backward.drift(t, x)))
    close(backward.probability_flow(case.score).velocity(t, x), flow.velocity(t, x))
    none = sde.marginal_preserving(case.score, 0)
    close(none.drift(t, x), flow.velocity(t, x), 0)
    assert not none.diffusion(t, x).any()
    some = sde.marginal_preserving(case.score, epsilon)
    close(some.drift(t, x), flow.velocity(t, x) + epsilon * case.score(t, x), 1e-12)
    close(some.diffusion(t, x).square(), torch.tensor(2 * epsilon, dtype=torch.float64), 1e-12)
    on_flow = flow.marginal_preserving(case.score, epsilon)
    same(on_flow, some, t, x, 1e-12)
    reverse = backward.marginal_preserving(case.score, epsilon)
    close(reverse.drift(t, x), flow.velocity(t, x) - epsilon * case.score(t, x), 1e-12)


@properties
@given(seed=seeds, size=dimensions, t=times)
def test_as_much_noise_as_before_is_the_process_itself(seed, size, t):
    """E = Σ/2 for Σ = g²I."""
    case = Drawn(seed, size, "diagonal", True)
    strength = lambda t: 1.5 + torch.sin(torch.as_tensor(t, dtype=torch.float64))  # noqa: E731
    sde = sf.SDE(case.sde.drift, lambda t, x: strength(t), additive=True, interval=INTERVAL)
    again = sde.marginal_preserving(case.score, lambda t: strength(t) ** 2 / 2)
    close(again.drift(t, case.x), sde.drift(t, case.x), 1e-12)
    close(again.diffusion(t, case.x), sde.diffusion(t, case.x), 1e-12)
    backward = sde.reverse(case.score, "backward")
    again = backward.marginal_preserving(case.score, lambda t: strength(t) ** 2 / 2)
    same(again, backward, t, case.x, 1e-12)


def test_a_negative_epsilon_is_refused():
    with pytest.raises(ArgumentError, match=r"epsilon=-0\.1 is not a number ≥ 0"):
        Drawn(0, 2, "diagonal", True).sde.marginal_preserving(lambda t, x: -x, -0.1)


# --- Nelson's relation ------------------------------------------------------------------------------------------------


@each_calculus
@each_clock
@each_noise
@properties
@given(seed=seeds, size=dimensions, additive=st.booleans(), t=times)
def test_forward_and_reverse_determine_the_score(noise, clock, calculus, seed, size, additive, t):
    size = 1 if noise == "scalar" else size
    case = Drawn(seed, size, noise, additive, columns=size, calculus=calculus)
    reverse = case.sde.reverse(case.score, clock=clock)
    for found in (reverse, rewrapped(reverse)):
        close(sf.nelson_score(case.sde, found)(t, case.x), case.score(t, case.x), 1e-7)
    # The reversal's own score, from the two processes in the other order
    back = case.score if clock == "backward" else reflected(case.score)
    close(sf.nelson_score(reverse, case.sde)(t, case.x), back(t, case.x), 1e-7)


def test_a_singular_covariance_determines_no_score():
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for noise, columns in (("scalar", 1), ("general", 1)):
        case = Drawn(1, 2, noise, True, columns=columns)
        found = sf.nelson_score(case.sde, case.sde.reverse(case.score))
        with pytest.raises(ArgumentError, match=r"Σ is singular at t = 0\.5: the noise does not reach every direction"):
            found(0.5, x)
    kinetic = sf.processes.UnderdampedLangevin(lambda q: -q)
    with pytest.raises(ArgumentError, match="underdamped Langevin"):
        sf.nelson_score(kinetic, kinetic.reverse(lambda t, x: -x))(0.5, x[:, :, None])


def test_processes_on_different_intervals_determine_no_score():
    one, other = sf.processes.BrownianMotion(), sf.processes.BrownianMotion(interval=(0.0, 2.0))
    with pytest.raises(ArgumentError, match=r"different intervals, \(0.0, 1.0\) and \(0.0, 2.0\)"):
        sf.nelson_score(one, other)


# --- calculus ------------------------------------------------------------------------------------------------------------


@each_noise
@pytest.mark.parametrize("way", ["forward", *CLOCKS])
@properties
@given(data=st.data(), t=times)
def test_to_stratonovich_and_back_is_the_identity(way, noise, data, t):
    case = data.draw(drawn(noise))
    ito = case.sde if way == "forward" else case.sde.reverse(case.score, clock=way)
    strat = ito.to_stratonovich()
    assert (strat.calculus, strat.direction) == ("stratonovich", ito.direction)
    same(strat.to_ito(), ito, t, case.x)
    same(rewrapped(strat).to_ito(), ito, t, case.x)
    same(rewrapped(rewrapped(ito).to_stratonovich()).to_ito(), ito, t, case.x)
    assert ito.to_ito() is ito and strat.to_stratonovich() is strat


@each_noise
@properties
@given(data=st.data(), t=times)
def test_the_correction_is_its_formula(noise, data, t):
    """Half of Σ_k (∂σ_k)σ_k, minus on the forward clock and plus on the backward one; the derivative by differences."""
    case = data.draw(drawn(noise))
    sde, x, h = case.sde, case.x, 1e-4
    columns = matrix(sde, t, x)
    correction = torch.zeros_like(x)
    for k in range(columns.shape[2]):
        step = h * columns[:, :, k]
        correction += (matrix(sde, t, x + step)[:, :, k] - matrix(sde, t, x - step)[:, :, k]) / (2 * h)
    close(sde.to_stratonovich().drift(t, x), sde.drift(t, x) - 0.5 * correction, 1e-7)
    backward = sde.reverse(case.score, "backward")
    close(backward.to_stratonovich().drift(t, x), backward.drift(t, x) + 0.5 * correction, 1e-7)
    assert sde.additive or correction.abs().max() > 1e-3


@each_noise
@properties
@given(data=st.data(), t=times)
def test_stratonovich_reversal_goes_through_ito(noise, data, t):
    case = data.draw(drawn(noise, calculus="stratonovich"))
    for clock in CLOCKS:
        reverse = case.sde.reverse(case.score, clock=clock)
        assert reverse.calculus == "stratonovich"
        same(reverse.to_ito(), rewrapped(case.sde.to_ito()).reverse(case.score, clock=clock), t, case.x)
    flow = case.sde.probability_flow(case.score)
    close(flow.velocity(t, case.x), rewrapped(case.sde.to_ito()).probability_flow(case.score).velocity(t, case.x))


# --- ∇·Σ -----------------------------------------------------------------------------------------------------------------


def finite_divergence(sde, t, x, h=1e-3):
    """Central differences of Σ, exact for a quadratic up to rounding."""
    total = torch.zeros_like(x)
    for j in range(x.shape[1]):
        step = torch.zeros_like(x)
        step[:, j] = h
        up, down = (matrix(sde, t, y) for y in (x + step, x - step))
        total += ((up @ up.mT - down @ down.mT)[:, :, j]) / (2 * h)
    return total


@each_noise
@properties
@given(data=st.data(), t=times)
def test_divergence_of_the_covariance(noise, data, t):
    case = data.draw(drawn(noise))
    expected = finite_divergence(case.sde, t, case.x)
    close(case.sde.diffusion_divergence(t, case.x), expected, 1e-8)
    for clock in CLOCKS:
        reverse = case.sde.reverse(case.score, clock=clock)
        s = t if clock == "backward" else sum(INTERVAL) - t
        close(reverse.diffusion_divergence(s, case.x), expected, 1e-8)


@each_noise
def test_additive_noise_is_never_differentiated(noise):
    """Nor evaluated for the sake of a derivative: once a drift of the reversal, not at all for a correction."""
    calls = []

    def diffusion(t, x):
        assert not x.requires_grad, "an additive diffusion was differentiated"
        calls.append(t)
        return {"general": torch.eye(2).expand(len(x), 2, 2), "scalar": torch.ones(2), "diagonal": torch.tensor(0.5)}[
            noise
        ]

    sde = sf.SDE(lambda t, x: -x, diffusion, noise=noise, additive=True)
    x = torch.ones(3, 2)
    for evaluate, expected in (
        (lambda: sde.diffusion_divergence(0.5, x), 0),
        (lambda: sde.ito_correction(0.5, x), 0),
        (lambda: sde.to_stratonovich().drift(0.5, x), 0),
        (lambda: sde.reverse(lambda t, x: -x).drift(0.5, x), 1),
        (lambda: sde.probability_flow(lambda t, x: -x).velocity(0.5, x), 1),
    ):
        calls.clear()
        evaluate()
        assert len(calls) == expected


# --- Bayes ---------------------------------------------------------------------------------------------------------------

MIXTURE = sf.laws.GaussianMixture([1.0, 2.0], torch.tensor([[-1.0], [0.8]], dtype=torch.float64), [0.3, 0.2])
GBM = sf.processes.GeometricBrownianMotion(0.3, 0.6)


def log_normal(t, x):
    mean, variance = 0.1 + (0.3 - 0.18) * t, 0.09 + 0.36 * t
    y = x.log()
    return (-0.5 * (y - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance) - y)[:, 0]


def log_normal_score(t, x):
    mean, variance = 0.1 + (0.3 - 0.18) * t, 0.09 + 0.36 * t
    return -(1 + (x.log() - mean) / variance) / x


def posterior_moments(sde, log_prob, t, step, later):
    """Mean and variance of p(x_t | x_{t+δ} = later) ∝ p_t(x) N(later; x + fδ, g²δ), by the trapezoidal rule."""
    width = 14 * float(sde.diffusion(t, later.abs() + 0.5).max()) * math.sqrt(step)
    grid = torch.linspace(-1, 1, 8001, dtype=torch.float64)
    moments = []
    for value in later[:, 0]:
        x = (value + width * grid)[:, None]
        x = x[x[:, 0] > 1e-3] if sde is GBM else x
        f, g = sde.drift(t, x)[:, 0], sde.diffusion(t, x).expand_as(x)[:, 0]
        logits = log_prob(t, x) - 0.5 * (value - x[:, 0] - f * step) ** 2 / (g**2 * step) - g.log()
        weights = logits.softmax(0)
        mean = (weights * x[:, 0]).sum()
        moments.append((mean, (weights * (x[:, 0] - mean) ** 2).sum()))
    return torch.tensor(moments, dtype=torch.float64).unbind(1)


@pytest.mark.parametrize("name", ["vp", "ou", "ve", "gbm"])
def test_one_reversed_step_is_bayes_rule_up_to_second_order(name):
    sde = {
        "vp": sf.processes.VariancePreserving(),
        "ou": sf.processes.OrnsteinUhlenbeck(0.7, 0.0, 1.3),
        "ve": sf.processes.VarianceExploding(0.1, 5.0),
        "gbm": GBM,
    }[name]
    log_prob, score = (log_normal, log_normal_score)
    if name != "gbm":
        log_prob, score = MIXTURE.along(sde).log_prob, MIXTURE.along(sde).score
    reverse = sde.reverse(score, clock="backward")
    without = sf.SDE(lambda t, x: reverse.drift(t, x) + sde.diffusion_divergence(t, x), sde.diffusion)
    t, later = 0.4, torch.tensor([[0.6], [1.1], [1.7]], dtype=torch.float64)

    def errors(step, process):
        mean, variance = posterior_moments(sde, log_prob, t, step, later)
        stepped = later - step * process.drift(t + step, later)
        spread = step * process.diffusion(t + step, later).expand_as(later).square()
        return (stepped[:, 0] - mean).norm(), (spread[:, 0] - variance).norm()

    steps = (0.002, 0.001, 0.0005)
    found = torch.tensor([errors(step, reverse) for step in steps])
    ratios = found[:-1] / found[1:]
    assert ((ratios > 3.7) & (ratios < 4.3)).all(), ratios
    if name == "gbm":  # without ∇·Σ the mean is wrong to first order
        wrong = torch.tensor([errors(step, without)[0] for step in steps])
        assert (wrong[:-1] / wrong[1:] < 2.2).all()


class Step:
    """A 1-D mixture that drifts along, as p_t, and an SDE dx = (αx + β + γ sin x) dt + κ(1 + λ sin(x + φ)) dW.

    Bayes' rule for one step asks nothing else of the two: p_t need not be the law of the SDE.
    """

    def __init__(self, draw, additive):
        def number(low, high):
            return draw(st.floats(low, high, width=64))

        count = draw(st.integers(1, 3))
        law = sf.laws.GaussianMixture(
            [number(0.2, 1) for _ in range(count)],
            torch.tensor([[number(-1.5, 1.5)] for _ in range(count)], dtype=torch.float64),
            torch.tensor([number(0.3, 1) for _ in range(count)], dtype=torch.float64),
        )
        speed = number(-1, 1)
        self.t = number(-0.2, 1)
        self.log_prob = lambda t, x: law.log_prob(x - speed * t)
        self.score = lambda t, x: law.score(x - speed * t)
        alpha, beta, gamma = number(-1.5, 1.5), number(-1, 1), number(-1, 1)
        kappa, wave, phase = number(0.4, 1), 0 if additive else number(0.2, 0.5), number(-3, 3)
        self.sde = sf.SDE(
            lambda t, x: (1 + t) * alpha * x + beta + gamma * torch.sin(x),
            lambda t, x: kappa * (1 + wave * torch.sin(x + phase)) * torch.ones_like(x),
            additive=additive,
            interval=INTERVAL,
        )


@st.composite
def drawn_steps(draw, additive):
    return Step(draw, additive)


def slopes(errors, steps):
    return torch.tensor(errors[:-1]).div(torch.tensor(errors[1:])).log2() / math.log2(steps[0] / steps[1])


@pytest.mark.parametrize("additive", [True, False], ids=["additive", "state-dependent"])
@each_clock
@properties
@given(data=st.data())
def test_one_reversed_step_is_bayes_rule_for_any_mixture_drift_and_diffusion(clock, additive, data):
    """O(δ²): the slope of the error, over nine states together, is 2 − .25 at least, and about 1 for the wrong versions.

    The error is the largest of nine, so that a δ² that happens to vanish at one of them does not show; no draw is refused.
    """
    case = data.draw(drawn_steps(additive))
    sde, t, later = case.sde, case.t, torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    reverse = sde.reverse(case.score, clock=clock)

    def wrong(missing):
        """The reversal less a part of it."""
        part = lambda s, x: missing(s if clock == "backward" else sum(INTERVAL) - s, x)  # noqa: E731
        return lambda s, x: reverse.drift(s, x) - reverse.direction * part(s, x)

    def twice_the_pull(t, x):
        return 2 * sde.covariance_times(t, x, case.score(t, x))

    drifts = [reverse.drift, wrong(twice_the_pull), *([] if additive else [wrong(sde.diffusion_divergence)])]
    steps = (4e-4, 2e-4, 1e-4)
    means, spreads = [[] for _ in drifts], []
    for step in steps:
        mean, variance = posterior_moments(sde, case.log_prob, t, step, later)
        now = t + step if clock == "backward" else sum(INTERVAL) - t - step
        for found, drift in zip(means, drifts, strict=True):
            found.append(float((later + step * reverse.direction * drift(now, later) - mean[:, None]).abs().max()))
        spreads.append(float((step * reverse.diffusion(now, later).square()[:, 0] - variance).abs().max()))
    assert (slopes(means[0], steps) > 1.75).all(), means[0]
    assert (slopes(spreads, steps) > 1.75).all(), spreads
    for found in means[1:]:
        assert (slopes(found, steps) < 1.25).all(), found


# --- where things belong ---------------------------------------------------------------------------------------------------


def test_unknown_clocks_are_refused_with_the_nearest():
    with pytest.raises(ArgumentError, match=r"clock='backwards' is not known. Did you mean 'backward'\?"):
        GBM.reverse(log_normal_score, clock="backwards")


def test_parameters_of_a_learned_score_are_parameters_of_what_is_made_from_it():
    class Score(torch.nn.Linear):
        def forward(self, t, x):
            return super().forward(x)

    net = Score(2, 2)
    sde = sf.processes.VariancePreserving()
    made = [
        sde.reverse(net),
        sde.reverse(net, "backward"),
        sde.probability_flow(net),
        sde.marginal_preserving(net, 0.3),
    ]
    for process in [*made, made[0].probability_flow(made[0].score), sde.condition(net)]:
        assert {id(p) for p in process.parameters()} == {id(p) for p in net.parameters()}
        process.drift(0.5, torch.ones(3, 2)).square().sum().backward()
        assert net.weight.grad is not None and net.weight.grad.abs().max() > 0
        net.zero_grad()
