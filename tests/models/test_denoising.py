"""Denoising score matching: every prediction and process against the mixture's closed form, losses by hand, discrete grids."""

import math

import pytest
import torch
from closed_forms import LAW, close, network
from stats import assert_mean, assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import DenoisingScoreMatching, Preconditioned
from sdeflow.models.times import Grid, Importance, LogNormal
from sdeflow.paths import Draws, EDMSchedule, Purpose
from sdeflow.processes import ScheduledDiffusion

PROCESSES = {
    "vp": sf.processes.VariancePreserving(0.1, 12.0),
    "sub-vp": sf.processes.SubVariancePreserving(0.1, 12.0),
    "ve": sf.processes.VarianceExploding(0.05, 8.0),
    "cosine": sf.processes.CosineVariancePreserving(interval=(0.0, 0.98)),
    "ou": sf.processes.OrnsteinUhlenbeck(1.5, 0.0, 1.2),
    "edm": ScheduledDiffusion(EDMSchedule(0.02, 8.0)),
}
PREDICTIONS = ("noise", "score", "data", "v")


def closed_form(process, predicts):
    truth = LAW.along(process)
    if predicts == "v":

        def v(t, x):
            time = sf.processes.boundary.as_time(t, x)
            a, s = process.schedule.a(time), process.schedule.s(time)
            return a * truth.noise(time, x) - s * truth.denoiser(time, x)

        return v
    return {"noise": truth.noise, "score": truth.score, "data": truth.denoiser}[predicts]


def exact_model(name, predicts="score", **options):
    """A model with the closed form for a network, and the true law at t1 for a base."""
    process = PROCESSES[name]
    truth = LAW.along(process)
    base = truth.at(process.interval[1])
    return DenoisingScoreMatching(
        closed_form(process, predicts), process, (2,), predicts=predicts, base=base, **options
    ), truth


# --- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("name", PROCESSES)
def test_loss_is_one_whatever_is_predicted(name, predicts):
    """λ‖s_θ − ∇log p(x_t | x)‖² by hand, from the score that the prediction implies, at the seed's t and ε."""
    process = PROCESSES[name]
    torch.manual_seed(0)
    net = sf.networks.MLP(2, width=8, depth=1).double()
    model = DenoisingScoreMatching(net, process, (2,), predicts=predicts)
    x = LAW.draw(5, seed=1)
    noise = Draws(2).normals(Purpose.NOISE, x)
    start, end = model.interval
    t = start + (end - start) * Draws(2).uniforms(Purpose.TIME, (5, 1), x.device)
    a, s = process.schedule.a(t), process.schedule.s(t)
    state = a * x + s * noise
    error = (model.score(t, state) + noise / s).square().sum(1)
    close(model.loss(x, seed=2, reduction="none"), (s.squeeze(1) ** 2 * error), 1e-8)
    g2 = process.schedule.squared_diffusion(t)
    weights = {
        "likelihood": (end - start) * g2 / 2,
        "min-snr": (a / s).square().clamp_max(5) * s**4 / a**2,
        "edm": ((s / a) ** 2 + 0.25) / (0.5 * s / a) ** 2 * s**4 / a**2,
        "data": s**4 / a**2,
        lambda t: t**2: t**2,
    }
    for weighting, weight in weights.items():
        model = DenoisingScoreMatching(net, process, (2,), predicts=predicts, weighting=weighting)
        close(model.loss(x, seed=2, reduction="none"), weight.squeeze(1) * error, 1e-7)


@pytest.mark.parametrize("name", PROCESSES)
def test_the_closed_form_is_the_minimum(name):
    """A field added to the exact noise raises the loss by its mean square: 2 · 2 numbers at 6 standard errors."""
    model, truth = exact_model(name, "noise")
    x = LAW.draw(40_000, seed=0)
    least = model.loss(x, seed=1, reduction="none")
    for scale in (0.3, -0.3):
        model.net = lambda t, x, c=scale: truth.noise(t, x) + c * x.tanh()
        excess = model.loss(x, seed=1, reduction="none") - least
        assert excess.mean() > 6 * excess.std() / 200
        t, _ = model.time.draw(x, Draws(1), model.interval, model.schedule)
        state = model.schedule.a(t) * x + model.schedule.s(t) * Draws(1).normals(Purpose.NOISE, x)
        assert_mean(excess - (0.3 * state.tanh()).square().sum(1), 0.0)


def test_importance_sampling_keeps_the_loss_and_lowers_its_variance():
    """With times drawn as g²/s² the weighted loss of the zero score is the same, and only ε makes it vary."""
    process = PROCESSES["vp"]
    still = lambda t, x: torch.zeros_like(x)  # noqa: E731
    density = lambda t: process.schedule.squared_diffusion(t) / process.schedule.variance(t)  # noqa: E731
    x = LAW.draw(20_000, seed=0)
    losses = {
        name: DenoisingScoreMatching(still, process, (2,), weighting="likelihood", time=time, cut=1e-3).loss(
            x, seed=1, reduction="none"
        )
        for name, time in (("uniform", "uniform"), ("importance", Importance(density)))
    }
    assert_mean(losses["importance"] - losses["uniform"], 0.0)
    spread = {name: loss.std() / loss.mean() for name, loss in losses.items()}
    assert abs(spread["importance"] - 1) < 0.06 and spread["uniform"] > 2  # that of a χ² of 2 degrees, of ‖ε‖² alone
    assert standard_errors(losses["importance"] * 1.2 - losses["uniform"], 0.0) > 6


def test_the_likelihood_weighting_bounds_the_likelihood():
    """E over data and noise: ½∫g²(‖s_θ − ∇log p(x_t|x)‖² − ‖∇log p(x_t|x)‖² ) + … is the NLL where s_θ is exact.

    The evidence bound of the reversed SDE is tight at the exact score: E log p = E log p_T − ∫E[½g²‖s‖² + g² ∇·s − ∇·f]/…; in
    the difference of two models all of that cancels: the loss of a wrong score exceeds that of the exact one by KL(p ‖ q) at
    least, here with q the reversal's law for the score of N(0, 1) data.
    """
    process = sf.processes.VariancePreserving(0.1, 12.0, interval=(1e-3, 1.0))
    truth = LAW.along(process)
    x = LAW.draw(30_000, seed=0)
    exact = DenoisingScoreMatching(truth.score, process, (2,), predicts="score", weighting="likelihood")
    normal = DenoisingScoreMatching(lambda t, x: -x, process, (2,), predicts="score", weighting="likelihood")
    start, _ = process.interval
    gap = normal.loss(x, seed=1, reduction="none") - exact.loss(x, seed=1, reduction="none")
    noised = truth.sample(start, 30_000, seed=2)
    divergence = truth.log_prob(start, noised) - torch.distributions.Normal(0.0, 1.0).log_prob(noised).sum(1)
    error = (gap.var() + divergence.var()).sqrt() / 30_000**0.5
    # for an exact Gaussian reversal the bound is attained (Song et al., 2021, theorem 2)
    assert abs(gap.mean() - divergence.mean()) < 6 * error
    assert abs(gap.mean() / 2 - divergence.mean()) > 6 * error


TIMESTEPS = ScheduledDiffusion(sf.paths.DiscreteSchedule(torch.linspace(1e-4, 0.02, 1000)))


@pytest.mark.parametrize("time", ["uniform", "importance"])
@pytest.mark.parametrize(
    "process",
    [
        sf.processes.OrnsteinUhlenbeck(0.5, 0.0, 1.0, interval=(0.01, 1.01)),
        sf.processes.OrnsteinUhlenbeck(0.5, 0.0, 1.0, interval=(0.01, 5.01)),
        TIMESTEPS,
    ],
    ids=["T=1", "T=5", "timesteps"],
)
def test_the_likelihood_weighting_is_an_integral_over_time(process, time):
    """Scores that are off by ±1 exceed the exact one's loss by ½∫g² dt on average, whatever the unit of time.

    1 number at 6 standard errors, 20000 samples of ½(L(c) + L(−c)) − L(0), of which only the times vary.
    """
    truth, schedule = LAW.along(process), process.schedule
    start, end = process.interval
    law = "uniform" if time == "uniform" else Importance(lambda t: schedule.squared_diffusion(t))
    x, losses = LAW.draw(20_000, seed=0), {}
    for off in (-1.0, 0.0, 1.0):
        net = lambda t, x, c=off: truth.score(t, x) + c * torch.tensor([0.6, 0.8])  # noqa: E731
        model = DenoisingScoreMatching(net, process, (2,), predicts="score", weighting="likelihood", time=law)
        losses[off] = model.loss(x, seed=1, reduction="none")
    excess = (losses[1.0] + losses[-1.0]) / 2 - losses[0.0]
    middles = start + (end - start) * (torch.arange(9990, dtype=torch.float64) + 0.5) / 9990
    expected = 0.5 * (end - start) * schedule.squared_diffusion(middles).mean()
    if time == "uniform" and process is TIMESTEPS:
        assert_mean(excess, expected)
    else:  # g² is constant, or what the times are drawn by
        close(excess.mean(), expected, 1e-3)


# --- the processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("name", PROCESSES)
def test_every_prediction_is_every_quantity(name, predicts):
    model, truth = exact_model(name, predicts)
    start, end = model.interval
    x = LAW.draw(4, seed=0)
    t = torch.tensor([0.02, 0.3, 0.6, 0.95], dtype=torch.float64) * (end - start) + start
    close(model.score(t, x), truth.score(t, x), 1e-7)
    close(model.denoiser(t, x), truth.denoiser(t, x), 1e-7)
    close(model.velocity(t, x), truth.velocity(t, x), 1e-7)


@pytest.mark.parametrize("name", PROCESSES)
def test_log_prob_with_the_exact_score(name):
    """The probability flow from the true law at t1 has the true density at the data end: within 1e-6."""
    model, truth = exact_model(name, "v")
    x = LAW.draw(5, seed=2)
    found = model.log_prob(x, solver={"rtol": 1e-10})
    torch.testing.assert_close(found, truth.log_prob(model.interval[0], x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vp", "ve"])
@pytest.mark.parametrize("epsilon", [None, 0.0, 0.5, 2.0])
def test_marginals_are_kept(name, epsilon):
    """Reversed SDE and every amount of noise: mean and variance at 3 times, 12 comparisons at 6 standard errors."""
    model, truth = exact_model(name, "noise", cut=0.01)
    process = model.sde(epsilon)
    assert process.direction == -1
    start, end = model.interval
    grid = [end * (start / end) ** (k / 250) for k in range(251)]
    times = [end, grid[90], grid[170], start]
    x0, method = truth.sample(end, 4000, seed=3), "heun" if epsilon == 0 else None
    sol = sf.solve(process, x0, times, steps=grid, seed=4, method=method)
    for t, x in zip(times[1:], sol.x[1:], strict=True):
        law = truth.at(t)
        assert_moments(x, law.mean, law.variance)


def test_the_reversal_is_the_case_of_half_the_noise():
    model, _ = exact_model("vp")
    x = LAW.draw(3, seed=0)
    half = model.sde(lambda t: model.schedule.squared_diffusion(t) / 2)
    for t in (0.1, 0.5, 0.9):
        close(half.drift(t, x), model.sde().drift(t, x))
        close(half.diffusion(t, x), model.sde().diffusion(t, x))


def test_sample_goes_from_the_prior_to_the_data():
    model, truth = exact_model("vp", "data", cut=1e-3)
    model.base = PROCESSES["vp"].prior((2,))
    x = model.sample(4000, seed=0, process=model.sde(), solver={"steps": 200})
    law = truth.at(model.interval[0])
    assert (x.double().mean(0) - law.mean).abs().max() < 0.1
    assert not torch.equal(x[:10], model.sample(10, seed=0, solver={"steps": 20}))
    assert x.dtype == torch.float32


# --- discrete grids ----------------------------------------------------------------------------------------------------


def test_ddpm_is_the_same_model_on_its_grid():
    """α̅ is the product, times are the timesteps, and the loss is ‖ε̂ − ε‖² at x = √α̅ x + √(1 − α̅) ε."""
    betas = torch.linspace(1e-3, 0.3, 20, dtype=torch.float64)
    schedule = sf.paths.DiscreteSchedule(betas)
    alpha_bar = (1 - betas).cumprod(0)
    steps = torch.arange(20, dtype=torch.float64)
    close(schedule.a(steps).square(), alpha_bar)
    close(schedule.variance(steps), 1 - alpha_bar)
    close(schedule.squared_diffusion(steps[1:] - 0.4), -torch.log1p(-betas[1:]))  # the SDE between timesteps
    close(schedule.a(steps[1:] - 0.5), (schedule.a(steps[1:]) * schedule.a(steps[:-1])).sqrt())
    seen = {}

    def unet(sample, timestep):
        seen["t"] = timestep
        return type("Output", (), {"sample": 0.1 * sample})

    model = DenoisingScoreMatching(
        sf.adapt(unet, order="xt", time="integer"), ScheduledDiffusion(schedule), (2,), time=Grid(range(20))
    )
    assert model.interval == (0.0, 19.0)
    x = LAW.draw(64, seed=0)
    loss = model.loss(x, seed=1, reduction="none")
    i, noise = seen["t"], Draws(1).normals(Purpose.NOISE, x)
    assert i.dtype is torch.int64 and i.min() >= 0 and i.max() <= 19 and len(i.unique()) > 10
    state = alpha_bar[i, None].sqrt() * x + (1 - alpha_bar[i, None]).sqrt() * noise
    close(loss, (0.1 * state - noise).square().sum(1))


def test_ncsn_is_the_same_model_on_its_grid():
    """x + σ_i ε with geometric levels, and λ = σ²: the loss of the noise-conditional score network."""
    levels = torch.tensor([0.02 * 400 ** (k / 9) for k in range(10)], dtype=torch.float64)
    net = lambda t, x: -x / (1 + t**2)  # noqa: E731
    model = DenoisingScoreMatching(net, PROCESSES["edm"], (2,), predicts="score", time=Grid(levels))
    x = LAW.draw(64, seed=0)
    t, _ = model.time.draw(x, Draws(1), model.interval)
    noise = Draws(1).normals(Purpose.NOISE, x)
    state = x + t * noise
    close(model.loss(x, seed=1, reduction="none"), t[:, 0] ** 2 * (net(t, state) + noise / t).square().sum(1), 1e-8)
    assert len(t.unique()) == 10


# --- preconditioning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, times", [("edm", (0.05, 0.5, 5.0)), ("vp", (0.1, 0.4, 0.9))])
def test_preconditioning_has_unit_inputs_and_targets(name, times):
    """For N(0, σ_d²) data c_in x and (x_1 − c_skip x)/c_out have variance 1 at every level."""
    schedule, deviation = PROCESSES[name].schedule, 0.5
    generator = torch.Generator().manual_seed(0)
    x1, noise = torch.randn(2, 20_000, 1, dtype=torch.float64, generator=generator)
    for t in times:
        state = schedule.a(t) * deviation * x1 + schedule.s(t) * noise
        seen = {}

        def raw(t, x, seen=seen):
            seen["t"], seen["x"] = t, x
            return torch.zeros_like(x)

        skip = Preconditioned(raw, schedule, deviation)(t, state)
        assert float(seen["t"]) == pytest.approx(math.log(schedule.s(t) / schedule.a(t)) / 4)
        out = Preconditioned(lambda t, x: torch.ones_like(x), schedule, deviation)(t, state) - skip
        assert_moments(seen["x"], 0.0, 1.0)
        assert_moments((deviation * x1 - skip) / out, 0.0, 1.0)


@pytest.mark.parametrize("name", ["edm", "vp"])
def test_preconditioned_loss_is_that_of_the_raw_network(name):
    """With its weighting the loss is the plain squared error of F against (x_1 − c_skip x)/c_out."""
    process = PROCESSES[name]
    net = Preconditioned(network(), process.schedule, 0.7)
    model = DenoisingScoreMatching(net, process, (2,), predicts="data", weighting=net.weighting)
    x, noise = LAW.draw(6, seed=0), Draws(1).normals(Purpose.NOISE, LAW.draw(6, seed=0))
    t, _ = model.time.draw(x, Draws(1), model.interval)
    state = model.schedule.a(t) * x + model.schedule.s(t) * noise
    skip, unit = (
        Preconditioned(f, process.schedule, 0.7)(t, state) for f in (lambda t, x: 0 * x, lambda t, x: 1 + 0 * x)
    )
    raw, target = (net(t, state) - skip) / (unit - skip), (x - skip) / (unit - skip)
    close(model.loss(x, seed=1, reduction="none"), (raw - target).square().sum(1), 1e-7)
    half = Preconditioned(network(), process.schedule)
    named = DenoisingScoreMatching(half, process, (2,), predicts="data", weighting="edm")
    own = DenoisingScoreMatching(half, process, (2,), predicts="data", weighting=half.weighting)
    close(named.loss(x, seed=1), own.loss(x, seed=1), 1e-8)


def test_preconditioned_model_on_another_schedule():
    """The raw network that makes D exact gives the exact score on EDM's own schedule and on a VP one."""
    for name in ("edm", "vp"):
        process = PROCESSES[name]
        model = DenoisingScoreMatching(
            lambda t, x: x, process, (2,), predicts="data", weighting="edm", time=LogNormal()
        )
        still = Preconditioned(lambda t, x: torch.zeros_like(x), model.schedule, 0.7)
        model.net = still  # c_skip alone is the denoiser of N(0, σ_d²)
        normal = sf.laws.GaussianMixture(
            [1.0], torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0.49], dtype=torch.float64)
        ).along(process)
        x = LAW.draw(3, seed=0)
        close(model.score(0.4, x), normal.score(0.4, x), 1e-8)
        assert model.loss(x, seed=0).isfinite()


def test_lognormal_times_are_lognormal_levels():
    for name in ("edm", "vp"):
        schedule = PROCESSES[name].schedule
        x = torch.zeros(20_000, 1, dtype=torch.float64)
        t, weight = LogNormal(-0.5, 0.4).draw(x, Draws(0), PROCESSES[name].interval, schedule)
        assert weight == 1.0
        assert_moments(-0.5 * schedule.log_snr(t), -0.5, 0.16)


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda net: DenoisingScoreMatching(net, sf.processes.GeometricBrownianMotion(0.1, 0.2), (2,)),
            "LearnedReversal",
        ),
        (lambda net: DenoisingScoreMatching(net, PROCESSES["vp"].reverse(net), (2,)), "not a noising process"),
        (lambda net: DenoisingScoreMatching(net, PROCESSES["vp"], (2,), predicts="epsilon"), "'noise'"),
        (lambda net: DenoisingScoreMatching(net, PROCESSES["vp"], (2,), weighting="snr"), "'min-snr'"),
        (lambda net: DenoisingScoreMatching(net, PROCESSES["vp"], (2,), weighting=3), "neither"),
        (lambda net: DenoisingScoreMatching(net, PROCESSES["vp"], (2,), cut=0.0), "cut=0"),
        (
            lambda net: DenoisingScoreMatching(net, PROCESSES["vp"], (2,), time=Grid([2.0])).loss(torch.zeros(2, 2)),
            "outside",
        ),
        (lambda net: Preconditioned(net, PROCESSES["vp"].schedule, 0.0), "> 0"),
        (lambda net: sf.paths.DiscreteSchedule([0.1, 1.5]), "between 0 and 1"),
        (lambda net: Importance(lambda t: -t).draw(torch.zeros(2, 1), Draws(0), (0.0, 1.0)), "not positive"),
        (lambda net: LogNormal().draw(torch.zeros(2, 1), Draws(0), (0.0, 1.0)), "no schedule"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make(lambda t, x: x)


def test_eight_gaussians_are_learned():
    """600 steps of a small network, both samplers: 9 samples of 10 within 4 deviations of a centre, and every mode is found."""
    torch.manual_seed(0)
    law = sf.data.eight_gaussians(2.0, 0.2)
    model = DenoisingScoreMatching(
        sf.networks.MLP(2, width=96, time_features=2), sf.processes.VariancePreserving(), (2,), predicts="v"
    )
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 600)
    for step in range(600):
        optimiser.zero_grad()
        model.loss(law.draw(512, seed=step), seed=step).backward()
        optimiser.step()
        schedule.step()
    for process, solver in ((model.sde(), {"steps": 100}), (None, {"steps": 30, "method": "heun"})):
        distance = torch.cdist(model.sample(1000, seed=0, process=process, solver=solver), law.means.float())
        assert (distance.min(1).values < 0.8).float().mean() > 0.9
        assert torch.bincount(distance.argmin(1), minlength=8).min() > 60  # of 125
