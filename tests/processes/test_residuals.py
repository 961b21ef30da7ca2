"""The Fokker–Planck equation: zero for every process with its own density, and visibly not for a wrong one.

Wrong versions are the ones people write: a flipped sign, ∇·Σ left out, the Stratonovich correction of the other clock.
"""

import math

import pytest
import torch

import sdeflow as sf
from sdeflow.calculus import gradient, jacobian
from sdeflow.errors import ArgumentError
from sdeflow.processes import CustomSchedule, ScheduledDiffusion

ZERO, VISIBLE = 1e-8, 1e-2
CLOCKS = ("flipped", "backward")
DIFFUSIONS = {
    "vp": sf.processes.VariancePreserving(),
    "sub-vp": sf.processes.SubVariancePreserving(),
    "ve": sf.processes.VarianceExploding(0.1, 10.0),
    "ve by default": sf.processes.VarianceExploding(),  # from 0.01 to 50
    "cosine": sf.processes.CosineVariancePreserving(),
    "ou": sf.processes.OrnsteinUhlenbeck(0.7, 0.0, 1.3),
    "brownian": sf.processes.BrownianMotion(0.8, interval=(0.5, 1.5)),
    "custom": ScheduledDiffusion(CustomSchedule(lambda t: 1 - t**2, lambda t: t * (1 + t), interval=(0.0, 0.9))),
}
every_diffusion = pytest.mark.parametrize("name", DIFFUSIONS)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


PLANE = sf.laws.GaussianMixture([1.0, 2.0, 0.5], 1.5 * normal(3, 2), [0.3, 0.6, 1.0])
FACTORS = normal(2, 3, 3, seed=1)
SPACE = sf.laws.GaussianMixture([1.0, 2.0], normal(2, 3, seed=2), FACTORS @ FACTORS.mT + 0.4 * torch.eye(3))
LAWS = {"2-D": PLANE, "3-D full": SPACE}
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())


def residual(process, log_prob, x, times=(0.1, 0.45, 0.8)):
    """The largest residual over three times (as fractions of the interval) and all rows."""
    start, end = process.interval
    found = [sf.fokker_planck_residual(process, log_prob, start + u * (end - start), x) for u in times]
    assert all(value.shape == x.shape[:1] for value in found)
    return torch.stack(found).abs().max().item()


def own(law, process, x):
    """The residual of a process that has a schedule, with the law's density on the process's own clock."""
    return residual(process, law.along(process).log_prob, x)


def on_clock(process, direction):
    """Coefficients given by hand, on a forward or a backward clock."""
    process.direction = direction
    return process


@every_law
@every_diffusion
def test_a_diffusion_and_its_marginals(name, law):
    sde, x = DIFFUSIONS[name], normal(6, *law.event_shape, seed=3)
    assert own(law, sde, x) < ZERO
    slower = sf.SDE(sde.drift, lambda t, x: 0.9 * sde.diffusion(t, x), additive=True, interval=sde.interval)
    assert residual(slower, law.along(sde).log_prob, x) > VISIBLE
    pushed = sf.SDE(lambda t, x: sde.drift(t, x) + 0.1 * x, sde.diffusion, additive=True, interval=sde.interval)
    assert residual(pushed, law.along(sde).log_prob, x) > VISIBLE


@every_law
@pytest.mark.parametrize("clock", CLOCKS)
@every_diffusion
def test_its_reversal_on_both_clocks(name, clock, law):
    sde, x = DIFFUSIONS[name], normal(6, *law.event_shape, seed=4)
    score = law.along(sde).score
    reverse = sde.reverse(score, clock=clock)
    assert own(law, reverse, x) < ZERO
    wrong = sde.reverse(lambda t, x: -score(t, x), clock=clock)
    assert own(law, wrong, x) > VISIBLE
    other = on_clock(sde.reverse(score, clock=clock), -reverse.direction)
    assert residual(other, law.along(reverse).log_prob, x) > VISIBLE


@every_law
@every_diffusion
def test_its_probability_flow(name, law):
    sde, x = DIFFUSIONS[name], normal(6, *law.event_shape, seed=5)
    truth = law.along(sde)
    flow = sde.probability_flow(truth.score)
    assert own(law, flow, x) < ZERO
    torch.testing.assert_close(flow.velocity(0.6, x), truth.velocity(0.6, x), rtol=1e-9, atol=1e-9)
    for clock in CLOCKS:  # the reversal's flow, with the score on the reversal's clock
        reverse = sde.reverse(truth.score, clock=clock)
        back = reverse.probability_flow(reverse.score)
        assert own(law, back, x) < ZERO
    assert own(law, sde.probability_flow(lambda t, x: -truth.score(t, x)), x) > VISIBLE
    assert own(law, sde.probability_flow(lambda t, x: 2 * truth.score(t, x)), x) > VISIBLE


@pytest.mark.parametrize("epsilon", [0, 0.5, 2.0, lambda t: 0.3 + t**2], ids=["0", "0.5", "2", "0.3+t²"])
@every_diffusion
def test_marginal_preserving_noise(name, epsilon):
    sde, x = DIFFUSIONS[name], normal(6, 2, seed=6)
    truth = PLANE.along(sde)
    family = [sde.marginal_preserving(truth.score, epsilon)]
    family += [sde.probability_flow(truth.score).marginal_preserving(truth.score, epsilon)]
    velocity = sf.ODE(truth.velocity, interval=sde.interval)
    assert residual(velocity.marginal_preserving(truth.score, epsilon), truth.log_prob, x) < ZERO
    for clock in CLOCKS:
        reverse = sde.reverse(truth.score, clock=clock)
        family += [reverse.marginal_preserving(reverse.score, epsilon)]
    for member in family:
        assert own(PLANE, member, x) < ZERO
    if callable(epsilon) or epsilon > 0:  # the drift of one ε with the noise of another
        start, end = sde.interval
        member = sde.marginal_preserving(truth.score, epsilon)
        noise = sf.SDE(member.drift, lambda t, x: 1.1 * member.diffusion(t, x), additive=True, interval=(start, end))
        assert residual(noise, truth.log_prob, x) > VISIBLE
        sign = sf.SDE(
            lambda t, x: 2 * truth.velocity(t, x) - member.drift(t, x), member.diffusion, interval=(start, end)
        )
        assert residual(sign, truth.log_prob, x) > VISIBLE


def test_additive_processes_are_the_same_in_both_calculi():
    sde, x = DIFFUSIONS["vp"], normal(6, 2, seed=7)
    assert own(PLANE, sde.to_stratonovich(), x) < ZERO
    for clock in CLOCKS:
        reverse = sde.to_stratonovich().reverse(PLANE.along(sde).score, clock=clock)
        assert reverse.calculus == "stratonovich"
        assert own(PLANE, reverse, x) < ZERO


# --- noise that depends on the state: geometric Brownian motion with log-normal data ----------------------------------

MU, SIGMA, MEAN, VARIANCE = 0.3, 0.6, 0.1, 0.09
GBM = sf.processes.GeometricBrownianMotion(MU, SIGMA)
POSITIVE = (0.4 * normal(8, 2, seed=8)).exp()


def gbm_log_prob(t, x):
    """ln x_t is N(MEAN + (μ − σ²/2)t, VARIANCE + σ²t), coordinate by coordinate."""
    mean, variance = MEAN + (MU - SIGMA**2 / 2) * t, VARIANCE + SIGMA**2 * t
    y = x.log()
    return (-0.5 * (y - mean) ** 2 / variance - 0.5 * torch.log(2 * math.pi * variance) - y).sum(1)


def gbm_score(t, x):
    mean, variance = MEAN + (MU - SIGMA**2 / 2) * t, VARIANCE + SIGMA**2 * t
    return -(1 + (x.log() - mean) / variance) / x


def flipped(log_prob):
    return lambda t, x: log_prob(1 - t, x)


def rewrapped(process, calculus=None, drift=None):
    """A process from coefficients alone: no closed form of ∇·Σ, no memory of the process it was made from."""
    return on_clock(
        sf.SDE(
            drift or process.drift,
            process.diffusion,
            noise=process.noise,
            calculus=calculus or process.calculus,
            interval=process.interval,
        ),
        process.direction,
    )


def test_geometric_brownian_motion():
    torch.testing.assert_close(
        gbm_score(0.5, POSITIVE), gradient(lambda x: gbm_log_prob(torch.tensor(0.5), x), POSITIVE)[1]
    )
    for process in (GBM, rewrapped(GBM), GBM.to_stratonovich(), rewrapped(GBM.to_stratonovich())):
        assert residual(process, gbm_log_prob, POSITIVE) < ZERO
    for wrong in (
        rewrapped(GBM, "stratonovich"),
        rewrapped(GBM.to_stratonovich(), "ito"),
        sf.SDE(lambda t, x: -GBM.drift(t, x), GBM.diffusion),
    ):
        assert residual(wrong, gbm_log_prob, POSITIVE) > VISIBLE


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
@pytest.mark.parametrize("clock", CLOCKS)
def test_its_reversal_in_both_calculi_on_both_clocks(clock, calculus):
    density = flipped(gbm_log_prob) if clock == "flipped" else gbm_log_prob
    for sde in (GBM, rewrapped(GBM)):
        sde = sde.to_stratonovich() if calculus == "stratonovich" else sde
        reverse = sde.reverse(gbm_score, clock=clock)
        assert reverse.calculus == calculus
        assert residual(reverse, density, POSITIVE) < ZERO
        assert residual(rewrapped(reverse), density, POSITIVE) < ZERO
        other = reverse.to_ito() if calculus == "stratonovich" else reverse.to_stratonovich()
        assert residual(rewrapped(other), density, POSITIVE) < ZERO


def test_its_stratonovich_form_on_the_backward_clock_is_one_on_the_flipped_clock():
    """By hand, on s = 1 − t with the drift turned: a mistaken sign of the correction closes round trips, but not this."""
    strat = GBM.reverse(gbm_score, clock="backward").to_stratonovich()

    def on_flipped_clock(drift):
        return sf.SDE(lambda s, x: -drift(1 - s, x), lambda s, x: strat.diffusion(1 - s, x), calculus="stratonovich")

    assert residual(on_flipped_clock(strat.drift), flipped(gbm_log_prob), POSITIVE) < ZERO
    ito = GBM.reverse(gbm_score, clock="backward")
    mistaken = on_flipped_clock(lambda t, x: 2 * ito.drift(t, x) - strat.drift(t, x))
    assert residual(mistaken, flipped(gbm_log_prob), POSITIVE) > VISIBLE


@pytest.mark.parametrize("clock", CLOCKS)
def test_wrong_reversals_of_it_are_seen(clock):
    density = flipped(gbm_log_prob) if clock == "flipped" else gbm_log_prob
    reverse = GBM.reverse(gbm_score, clock=clock)
    strat = reverse.to_stratonovich()
    sign = 1 if clock == "flipped" else -1  # of Σ∇log p and ∇·Σ on this clock
    spread = reverse.diffusion_divergence
    without = rewrapped(reverse, drift=lambda t, x: reverse.drift(t, x) - sign * spread(t, x))
    assert residual(without, density, POSITIVE) > VISIBLE
    half = rewrapped(reverse, drift=lambda t, x: reverse.drift(t, x) - sign * 0.5 * spread(t, x))
    assert residual(half, density, POSITIVE) > VISIBLE
    # The correction of the forward clock on the backward one, and the other way round: Itô drift ± ½ Σ_k (∂σ_k)σ_k
    mistaken = rewrapped(strat, drift=lambda t, x: 2 * reverse.drift(t, x) - strat.drift(t, x))
    assert residual(mistaken, density, POSITIVE) > VISIBLE


@pytest.mark.parametrize("calculus", ["ito", "stratonovich"])
def test_its_flow_and_its_relatives(calculus):
    sde = GBM if calculus == "ito" else rewrapped(GBM.to_stratonovich())
    flow = sde.probability_flow(gbm_score)
    assert residual(flow, gbm_log_prob, POSITIVE) < ZERO
    assert residual(sde.reverse(gbm_score, "backward").probability_flow(gbm_score), gbm_log_prob, POSITIVE) < ZERO
    for epsilon in (0, 0.5, 2.0, lambda t: 0.1 + t):
        assert residual(sde.marginal_preserving(gbm_score, epsilon), gbm_log_prob, POSITIVE) < ZERO
        reverse = sde.reverse(gbm_score, "backward").marginal_preserving(gbm_score, epsilon)
        assert residual(reverse, gbm_log_prob, POSITIVE) < ZERO
    half = sf.ODE(lambda t, x: flow.velocity(t, x) + 0.5 * GBM.diffusion_divergence(t, x))  # without ½∇·Σ
    assert residual(half, gbm_log_prob, POSITIVE) > VISIBLE


# --- processes without a schedule: Langevin dynamics, the bridge, scalar noise -----------------------------------------


def gaussian(means, covariances, x):
    """log N(x; m, S) with an event of any shape, one mean and one covariance per row."""
    off = x.flatten(1) - means
    return -0.5 * ((off * torch.linalg.solve(covariances, off)).sum(1) + torch.logdet(covariances))


def linear_law(A, stationary, mean, covariance):
    """log p_t of dx = A x dt + noise from N(mean, covariance): S_t = S∞ + e^{At}(S_0 − S∞)e^{Aᵀt}, A S∞ + S∞ Aᵀ + Σ = 0."""

    def log_prob(t, x):
        t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1, 1)
        turn = torch.matrix_exp(A * t)
        return gaussian(turn @ mean, stationary + turn @ (covariance - stationary) @ turn.mT, x)

    return log_prob


def bridge_law(bridge, start):
    """log p_t of a bridge that starts in one point, from the process's own marginal."""

    def log_prob(t, x):
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1).expand(len(x))
        return torch.cat([bridge.marginal(start, s).log_prob(row) for s, row in zip(times, x[:, None], strict=True)])

    return log_prob


LINE = torch.tensor([0.8, -0.5, 1.1], dtype=torch.float64)  # one Brownian motion moves all three coordinates along it
START, WIDTH = normal(3, seed=16), FACTORS[0] @ FACTORS[0].mT + 0.3 * torch.eye(3)
FORCE, FRICTION, HEAT = 4.0, 1.5, 1.7  # π = N(0, 1/FORCE), so the stationary law has the variances HEAT/FORCE and HEAT
KINETIC = torch.tensor([[0.0, 1.0], [-FORCE, -FRICTION]], dtype=torch.float64)
REST = torch.tensor([HEAT / FORCE, HEAT], dtype=torch.float64).diag()
BRIDGE = sf.processes.BrownianBridge(torch.tensor([0.4, -1.0]), 0.8, time=1.2)


def kinetic(temperature=HEAT):
    return sf.processes.UnderdampedLangevin(lambda q: -FORCE * q, FRICTION, temperature)


def boltzmann(log_density, temperature):
    """log of π^{1/τ}(q) N(p; 0, τ), up to a constant."""
    return lambda t, x: (log_density(x[:, 0]) - 0.5 * x[:, 1].square().sum(1)) / temperature


WITHOUT_SCHEDULE = {
    "langevin, gaussian": (
        sf.processes.Langevin(lambda x: -FORCE * x, HEAT),
        lambda t, x: -0.5 * FORCE / HEAT * x.square().sum(1),
        (6, 2),
    ),
    "langevin, mixture": (
        sf.processes.Langevin(PLANE.score, 0.7),
        lambda t, x: PLANE.log_prob(x) / 0.7,
        (6, 2),
    ),
    "underdamped, gaussian": (kinetic(), boltzmann(lambda q: -0.5 * FORCE * q.square().sum(1), HEAT), (6, 2, 3)),
    "underdamped, mixture": (
        sf.processes.UnderdampedLangevin(PLANE.score, FRICTION, 0.7),
        boltzmann(PLANE.log_prob, 0.7),
        (6, 2, 2),
    ),
    "underdamped, on its way": (kinetic(), linear_law(KINETIC, REST, normal(2, seed=17), WIDTH[:2, :2]), (6, 2, 1)),
    "bridge": (BRIDGE, bridge_law(BRIDGE, normal(1, 2, seed=18)), (6, 2)),
    "scalar noise": (
        sf.SDE(lambda t, x: -x, lambda t, x: LINE, noise="scalar", additive=True),
        linear_law(-torch.eye(3, dtype=torch.float64), 0.5 * torch.outer(LINE, LINE), START, WIDTH),
        (6, 3),
    ),
}
every_other = pytest.mark.parametrize("name", WITHOUT_SCHEDULE)


def score_of(log_prob):
    return lambda t, x: gradient(lambda y: log_prob(t, y), x)[1]


@every_other
def test_a_process_without_a_schedule_and_its_law(name):
    sde, log_prob, shape = WITHOUT_SCHEDULE[name]
    x = normal(*shape, seed=19)
    for process in (sde, sde.to_stratonovich(), rewrapped(sde)):
        assert residual(process, log_prob, x) < ZERO
    slower = sf.SDE(sde.drift, lambda t, x: 0.9 * sde.diffusion(t, x), noise=sde.noise, interval=sde.interval)
    assert residual(slower, log_prob, x) > VISIBLE
    turned = sf.SDE(lambda t, x: -sde.drift(t, x), sde.diffusion, noise=sde.noise, interval=sde.interval)
    assert residual(turned, log_prob, x) > VISIBLE


@every_other
def test_all_that_is_made_from_it(name):
    """Reversal on both clocks, the flow of either, and noise added to them; a score of the other sign is seen in each."""
    sde, log_prob, shape = WITHOUT_SCHEDULE[name]
    x, score = normal(*shape, seed=20), score_of(log_prob)
    opposite = lambda t, x: -score(t, x)  # noqa: E731
    mirrored = lambda t, x: log_prob(sum(sde.interval) - t, x)  # noqa: E731
    assert residual(sde.probability_flow(score), log_prob, x) < ZERO
    assert residual(sde.probability_flow(opposite), log_prob, x) > VISIBLE
    for epsilon in (0, 0.5, 2.0):
        assert residual(sde.marginal_preserving(score, epsilon), log_prob, x) < ZERO
        assert residual(sde.marginal_preserving(opposite, epsilon), log_prob, x) > VISIBLE
    for clock, density in zip(CLOCKS, (mirrored, log_prob), strict=True):
        reverse = sde.reverse(score, clock=clock)
        assert residual(reverse, density, x) < ZERO
        assert residual(reverse.probability_flow(reverse.score), density, x) < ZERO
        assert residual(reverse.marginal_preserving(reverse.score, 0.5), density, x) < ZERO
        assert residual(sde.reverse(opposite, clock=clock), density, x) > VISIBLE


@pytest.mark.parametrize("temperature", [0.5 * HEAT, 1.05 * HEAT])
def test_langevin_dynamics_of_another_temperature_is_seen(temperature):
    _, log_prob, shape = WITHOUT_SCHEDULE["langevin, gaussian"]
    wrong = sf.processes.Langevin(lambda x: -FORCE * x, temperature)
    assert residual(wrong, log_prob, normal(*shape, seed=21)) > VISIBLE
    _, log_prob, shape = WITHOUT_SCHEDULE["underdamped, gaussian"]
    assert residual(kinetic(temperature), log_prob, normal(*shape, seed=21)) > VISIBLE
    _, log_prob, shape = WITHOUT_SCHEDULE["underdamped, on its way"]
    assert residual(kinetic(temperature), log_prob, normal(*shape, seed=21)) > VISIBLE


# --- general noise: radial contraction, noise along the axes, and a random rotation, in Stratonovich form --------------

TURN = torch.tensor([[0.0, 0.9], [-0.9, 0.0]], dtype=torch.float64)


def rotating_diffusion(t, x):
    axes = (2**0.5 * torch.eye(2, dtype=x.dtype)).expand(len(x), 2, 2)
    return torch.cat([axes, (x @ TURN.mT)[:, :, None]], dim=2)


def rotating_log_prob(t, x):
    """N(0, c I) with c = 1 + e^{−2t}: the rotation does not show in a radial law."""
    c = 1 + torch.exp(-2 * t)
    return (-0.5 * x.square() / c.reshape(-1, 1) - 0.5 * torch.log(2 * math.pi * c).reshape(-1, 1)).sum(1)


def rotating_score(t, x):
    return -x / (1 + torch.exp(-2 * t))


@pytest.mark.parametrize("clock", CLOCKS)
def test_general_noise(clock):
    x = normal(6, 2, seed=9)
    sde = sf.SDE(lambda t, x: -x, rotating_diffusion, noise="general", calculus="stratonovich")
    assert residual(sde, rotating_log_prob, x) < ZERO
    assert residual(rewrapped(sde.to_ito()), rotating_log_prob, x) < ZERO
    assert residual(rewrapped(sde, "ito"), rotating_log_prob, x) > VISIBLE
    density = flipped(rotating_log_prob) if clock == "flipped" else rotating_log_prob
    for forward in (sde, sde.to_ito()):
        reverse = forward.reverse(rotating_score, clock=clock)
        assert residual(rewrapped(reverse), density, x) < ZERO
        mistaken = "ito" if reverse.calculus == "stratonovich" else "stratonovich"
        assert residual(rewrapped(reverse, mistaken), density, x) > VISIBLE
    assert residual(sde.probability_flow(rotating_score), rotating_log_prob, x) < ZERO
    assert residual(sde.marginal_preserving(rotating_score, 0.7), rotating_log_prob, x) < ZERO


# --- conditioning ------------------------------------------------------------------------------------------------------

END, LATE = torch.tensor([0.7, -1.2], dtype=torch.float64), 1.0
LINEAR = {
    "brownian": (sf.processes.BrownianMotion(0.8, interval=(0.0, 0.9)), 0.0),
    "ou": (sf.processes.OrnsteinUhlenbeck(0.7, 0.4, 1.3, interval=(0.0, 0.9)), 0.7),
}
every_bridge = pytest.mark.parametrize("name", LINEAR)


def log_h(name):
    """log p(x_1 = END | x_t = x), up to a constant, in closed form."""
    sde, theta = LINEAR[name]

    def log_density(t, x):
        tau = LATE - torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1)
        if theta == 0:
            mean, variance = x, sde.sigma**2 * tau
        else:
            mean = sde.mean + torch.exp(-theta * tau) * (x - sde.mean)
            variance = sde.sigma**2 * (1 - torch.exp(-2 * theta * tau)) / (2 * theta)
        return (-0.5 * (END - mean) ** 2 / variance - 0.5 * torch.log(variance)).sum(1)

    return log_density


def grad_log_h(name):
    return lambda t, x: gradient(lambda y: log_h(name)(t, y), x)[1]


@every_bridge
def test_h_solves_the_backward_equation(name):
    """(∂_t + f·∇ + ½ Σ:∇∇) h = 0, divided by h."""
    sde, _ = LINEAR[name]
    x = normal(6, 2, seed=10)

    def equation(drift):
        t = torch.full((6,), 0.35, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (rate,) = torch.autograd.grad(log_h(name)(t, x).sum(), t)
            points = x.clone().requires_grad_()
            slope, hessian = jacobian(lambda y: gradient(lambda z: log_h(name)(0.35, z), y)[1], points)
        g = sde.diffusion(0.35, x)
        trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
        return (rate + (drift * slope).sum(1) + 0.5 * g**2 * (trace + slope.square().sum(1))).detach()

    assert equation(sde.drift(0.35, x)).abs().max() < ZERO
    assert equation(sde.drift(0.35, x) + 0.1).abs().max() > VISIBLE


@every_bridge
def test_the_conditioned_process_has_the_law_of_the_bridge(name):
    """Started at one point, p_t(x) ∝ p(x_t = x | x_0) h(t, x)."""
    sde, _ = LINEAR[name]
    start = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    bridge = sde.condition(grad_log_h(name))

    def log_prob(t, x):
        times = torch.as_tensor(t, dtype=torch.float64).reshape(-1)
        rows = [sde.marginal(start, s).log_prob(row) for s, row in zip(times, x[:, None], strict=True)]
        return torch.cat(rows) + log_h(name)(t, x)

    x = normal(4, 2, seed=11)
    assert residual(bridge, log_prob, x, times=(0.3, 0.8)) < ZERO
    assert residual(sde, log_prob, x, times=(0.3, 0.8)) > VISIBLE
    against = sde.condition(lambda t, x: -grad_log_h(name)(t, x))
    assert residual(against, log_prob, x, times=(0.3, 0.8)) > VISIBLE


def test_brownian_motion_given_its_end_is_the_brownian_bridge():
    sde, _ = LINEAR["brownian"]
    bridge = sf.processes.BrownianBridge(END, 0.8, time=LATE, interval=(0.0, 0.9))
    x = normal(5, 2, seed=12)
    for t in (0.0, 0.4, 0.9):
        torch.testing.assert_close(sde.condition(grad_log_h("brownian")).drift(t, x), bridge.drift(t, x))


@pytest.mark.parametrize("clock", CLOCKS)
def test_guidance_of_the_reversal_samples_the_posterior(clock):
    """y = x_data + ½ noise is observed. Then p_t(x | y) is a mixture along the same path, and h = p_t(y | x)."""
    sde, x = DIFFUSIONS["vp"], normal(6, 2, seed=13)
    y, spread = torch.tensor([0.8, -0.3], dtype=torch.float64), 0.25
    total = PLANE.covariances + spread
    evidence = (-0.5 * (y - PLANE.means).square().sum(1) / total - total.log()).exp()  # N(y; m_k, total I) in 2-D
    gain = (PLANE.covariances / total)[:, None]
    posterior = sf.laws.GaussianMixture(
        PLANE.weights * evidence, PLANE.means + gain * (y - PLANE.means), PLANE.covariances * spread / total
    )
    prior_path, posterior_path = PLANE.along(sde), posterior.along(sde)
    reverse = sde.reverse(prior_path.score, clock=clock)
    prior, given = PLANE.along(reverse), posterior.along(reverse)

    def guidance(t, x):  # ∇log p_t(y | x) = ∇log p_t(x | y) − ∇log p_t(x), on the reversal's clock
        return given.score(t, x) - prior.score(t, x)

    assert residual(reverse.condition(guidance), given.log_prob, x) < ZERO
    assert residual(reverse, given.log_prob, x) > VISIBLE
    assert residual(reverse.condition(lambda t, x: -guidance(t, x)), given.log_prob, x) > VISIBLE
    # conditioning and reversal commute: the posterior's own reversal has the same drift
    own_reversal = sde.reverse(posterior_path.score, clock=clock)
    torch.testing.assert_close(reverse.condition(guidance).drift(0.3, x), own_reversal.drift(0.3, x))


# --- the residual itself ----------------------------------------------------------------------------------------------


def test_one_time_per_row_and_no_graph_left():
    sde, x = DIFFUSIONS["ou"], normal(5, 2, seed=14)
    truth = PLANE.along(sde)
    wrong = sf.SDE(lambda t, x: -0.2 * x, sde.diffusion, additive=True)
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    rows = sf.fokker_planck_residual(wrong, truth.log_prob, t, x)
    for i in range(5):
        one = sf.fokker_planck_residual(wrong, truth.log_prob, t[i], x[i : i + 1])
        torch.testing.assert_close(rows[i : i + 1], one)
    assert not rows.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(sf.fokker_planck_residual(wrong, truth.log_prob, t, x), rows)


def test_the_residual_of_a_known_mistake_is_known():
    """With N(0, I) stationary under drift −x, the drift −(1 + δ)x has the residual −δ(D − |x|²)."""
    x = normal(5, 3, seed=15)
    delta = 0.3
    sde = sf.SDE(lambda t, x: -(1 + delta) * x, lambda t, x: 2**0.5, additive=True)
    stationary = lambda t, x: -0.5 * x.square().sum(1)  # noqa: E731
    expected = -delta * (3 - x.square().sum(1))
    torch.testing.assert_close(sf.fokker_planck_residual(sde, stationary, 0.5, x), expected)


def test_integer_states_are_refused():
    with pytest.raises(ArgumentError, match=r"x is torch.int64; give a floating-point state"):
        sf.fokker_planck_residual(DIFFUSIONS["ou"], gbm_log_prob, 0.5, torch.zeros(2, 2).long())
