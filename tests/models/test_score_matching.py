"""Score matching without noise, Langevin dynamics, and annealing."""

import pytest
import torch
from closed_forms import LAW, close, network, normal
from stats import assert_mean, assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import AnnealedLangevin, DenoisingScoreMatching, ScoreMatching


def exact(t, x):
    return LAW.score(x)


@pytest.mark.parametrize("options", [{}, {"method": "sliced"}, {"method": "sliced", "slices": "gaussian"}])
def test_the_loss_is_half_the_distance_to_the_score(options):
    """E[½‖s‖² + ∇·s] = ½E‖s − ∇log p‖² − ½E‖∇log p‖²: for the exact score, and for one bent by a known field."""
    x = LAW.draw(40_000, seed=0)
    losses = [
        ScoreMatching(net, normal(), **options).loss(x, seed=1, reduction="none")
        for net in (exact, lambda t, x: LAW.score(x) + 0.5 * x.tanh())
    ]
    assert_mean(losses[0] + 0.5 * LAW.score(x).square().sum(1), 0.0)
    assert_mean(losses[1] - losses[0] - 0.125 * x.tanh().square().sum(1), 0.0)
    assert standard_errors(losses[0] + LAW.score(x).square().sum(1), 0.0) > 6


def test_implicit_loss_by_hand():
    """½‖s‖² + tr ∇s, with the Jacobian of torch."""
    net, x = network(), LAW.draw(3, seed=0)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda y: net(0.0, y[None])[0], row) for row in x])
    by_hand = 0.5 * net(0.0, x).square().sum(1) + jacobian.diagonal(dim1=1, dim2=2).sum(1)
    close(ScoreMatching(net, normal()).loss(x, reduction="none"), by_hand)


def test_langevin_samples_the_law():
    """From the law itself the dynamics stay in it; at temperature 1 only. Moments of 4000 samples after a unit of time."""
    law = sf.laws.GaussianMixture([0.5, 0.5], torch.tensor([[-0.7], [0.7]], dtype=torch.float64), [0.25, 0.25])
    model = ScoreMatching(lambda t, x: law.score(x), law, time=1.0)
    x = model.sample(4000, seed=0, solver={"steps": 400})
    assert_moments(x, 0.0, law.variance)
    hot = model.sample(4000, seed=0, process=model.sde(2.0), solver={"steps": 400})
    assert standard_errors(hot.square(), law.variance) > 6


def test_langevin_carries_the_parameters_of_the_network():
    model = ScoreMatching(network(), normal())
    assert set(map(id, model.net.parameters())) <= set(map(id, model.sde().parameters()))


def test_annealing_visits_every_mode():
    """Two modes 8 deviations apart with weights .2 and .8: plain Langevin keeps to its side, annealing does not."""
    law = sf.laws.GaussianMixture([0.2, 0.8], torch.tensor([[-4.0], [4.0]], dtype=torch.float64), [0.25, 0.25])
    schedule = sf.paths.EDMSchedule(0.05, 20.0)
    levels = [20.0 * (0.05 / 20.0) ** (k / 14) for k in range(15)]
    process = AnnealedLangevin(law.along(schedule).score, schedule, levels, rate=2.0)
    n = 2000
    start = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    annealed = sf.solve(process, 20 * start, steps=15 * 60, seed=1).final
    assert_mean((annealed > 0).double(), 0.8, sigmas=8)  # the levels are finitely many, so it is near .8 and not at it
    plain = sf.solve(sf.processes.Langevin(law.score, interval=(0.0, 5.0)), start, steps=500, seed=1).final
    assert standard_errors((plain > 0).double(), 0.8) > 12


def test_annealing_steps_are_those_of_the_paper():
    """With N steps a level the drift times dt is κs²/N = α_i/2 times the score, and the noise √(2κs²/N) = √α_i."""
    schedule = sf.paths.EDMSchedule(0.1, 10.0)
    process = AnnealedLangevin(lambda t, x: torch.ones_like(x) * t, schedule, [4.0, 1.0, 0.5], rate=0.3)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for r, level in ((0.0, 4.0), (0.99, 4.0), (1.0, 1.0), (2.5, 0.5), (3.0, 0.5)):
        close(process.drift(r, x), torch.full_like(x, 0.3 * level**2 * level))
        close(process.diffusion(r, x), torch.tensor((2 * 0.3 * level**2) ** 0.5).double(), 1e-7)
    assert process.interval == (0.0, 3.0)


def test_annealing_is_the_update_of_the_paper():
    """x + ½α score + √α z with α_i = ε σ_i²/σ_L², ε = 2κσ_L²/N, for one level after another: 8 numbers at 6 standard errors.

    The score is a constant, so the mean of a level's steps is ½Nα·score and their variance Nα; without the factor 2 in ε both
    are twice as large.
    """
    schedule, levels, rate, steps, n = sf.paths.EDMSchedule(0.1, 10.0), [2.0, 1.0, 0.5], 0.3, 5, 20_000
    process = AnnealedLangevin(lambda t, x: 3 + 0 * x, schedule, levels, rate=rate)
    zeros = torch.zeros(n, 1, dtype=torch.float64)
    x = sf.solve(process, zeros, [0.0, 1.0, 2.0, 3.0], steps=15, seed=0, method="euler-maruyama").x
    epsilon = 2 * rate * levels[-1] ** 2 / steps
    for level, moved in zip(levels, x.diff(dim=0), strict=True):
        alpha = epsilon * level**2 / levels[-1] ** 2
        assert_moments(moved, steps * alpha / 2 * 3, steps * alpha)
        assert standard_errors(moved, steps * alpha / 4 * 3) > 6


def test_every_step_of_a_grid_is_at_its_own_level():
    """One step a level, 49 levels: 49·(1/49) is a rounding unit below 1, and is the beginning of the second level."""
    levels, seen = [2.0 - k / 49 for k in range(49)], []

    def score(t, x):
        seen.append(float(t))
        return -x

    process = AnnealedLangevin(score, sf.paths.EDMSchedule(0.1, 10.0), levels)
    sf.solve(process, torch.zeros(1, 1, dtype=torch.float64), steps=49, seed=0, method="euler-maruyama")
    assert seen == pytest.approx(levels, abs=1e-12)


def test_annealing_takes_a_trained_model():
    model = DenoisingScoreMatching(network(), sf.processes.VariancePreserving(), (2,), base=normal())
    process = AnnealedLangevin(model.score, model.schedule, [1.0, 0.5, 0.1, 0.01])
    assert model.sample(3, seed=0, process=process, solver={"steps": 8}).isfinite().all()


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda m: m.flow(), "Langevin"),
        (lambda m: m.log_prob(torch.zeros(1, 2).double()), "Langevin"),
        (lambda m: m.velocity(0.5, torch.zeros(1, 2).double()), "does not move"),
        (lambda m: m.loss(torch.zeros(2, 2).double(), x0=torch.zeros(2, 2)), "no use for x0"),
        (lambda m: ScoreMatching(m.net, normal(), method="naive"), "'implicit'"),
        (lambda m: ScoreMatching(m.net, normal(), time=0.0), "time=0"),
        (lambda m: AnnealedLangevin(m.net, sf.paths.EDMSchedule(), [1.0, 2.0]), "falling noise"),
        (lambda m: AnnealedLangevin(m.net, sf.paths.EDMSchedule(), []), "no levels"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask(ScoreMatching(network(), normal()))
