"""Action matching: the loss by its identity, its minimum, its flow."""

import pytest
import torch
from closed_forms import LAW, close, normal
from stats import assert_mean, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import ActionMatching
from sdeflow.models.times import Grid, Importance
from sdeflow.processes.boundary import as_time

PATH = sf.paths.VariancePreservingPath(0.5, 6.0)
TRUTH = LAW.along(PATH.schedule)


def potential(t, x):
    """s with ∇s = v: ȧ/(2a)‖x‖² + (ȧ s²/a − ½(s²)˙) log p_t, since v = ȧ/a x + (ȧ s²/a − ½(s²)˙)∇log p_t."""
    time, schedule = as_time(t, x), PATH.schedule
    rate = schedule.drift_rate(time).flatten()
    factor = (rate * schedule.variance(time).flatten()) - 0.5 * schedule.variance_dot(time).flatten()
    return 0.5 * rate * x.square().sum(1) + factor * TRUTH.log_prob(t, x)


def test_the_potential_is_one():
    model = ActionMatching(potential, normal(), path=PATH)
    x = LAW.draw(4, seed=0)
    for t in (0.0, 0.3, 0.9):
        close(model.velocity(t, x), TRUTH.velocity(t, x), 1e-7)


def test_the_loss_is_half_the_distance_to_the_flow():
    """L(s) = ½∫E‖∇s − v‖² − ½∫E‖v‖² for the exact s and for one that is bent: 2 numbers at 6 standard errors, 40000 samples."""
    x = LAW.draw(40_000, seed=0)

    def bent(t, x):
        return potential(t, x) + 0.4 * (as_time(t, x).flatten() * x[:, 0]).sin()

    exact = ActionMatching(potential, normal(), path=PATH)
    other = ActionMatching(bent, normal(), path=PATH)
    losses = [model.loss(x, seed=1, reduction="none") for model in (exact, other)]
    t = torch.rand(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    state = TRUTH.sample(t, 40_000, seed=3)
    speed = TRUTH.velocity(t, state)
    energy = 0.5 * speed.square().sum(1)
    distance = 0.5 * (0.4 * t * (t * state[:, 0]).cos()).square()
    assert_mean(losses[0] + energy, 0.0)
    assert_mean(losses[1] - losses[0] - distance, 0.0)
    assert standard_errors(losses[1] - losses[0], 0.0) > 6


def test_log_prob_with_the_exact_action():
    model = ActionMatching(potential, normal(), path=PATH)
    model.base = TRUTH.at(0.0)  # which the path really begins with
    x = LAW.draw(3, seed=2)
    close(model.log_prob(x, solver={"rtol": 1e-9}), TRUTH.log_prob(1.0, x), 1e-6)


def test_it_trains_and_has_no_score():
    torch.manual_seed(0)
    model = ActionMatching(sf.networks.MLP(2, width=8, scalar=True).double(), normal())
    model.loss(LAW.draw(16, seed=0), seed=0).backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "last.bias" not in name)
    with torch.no_grad():
        assert not model.loss(LAW.draw(16, seed=0), seed=0).requires_grad
    with pytest.raises(ArgumentError, match="flow of its own"):
        model.score(0.5, torch.zeros(1, 2).double())
    with pytest.raises(ArgumentError, match="GaussianPath"):
        ActionMatching(potential, normal(), path="line")
    with pytest.raises(ArgumentError, match="one number a row"):
        ActionMatching(lambda t, x: x, normal()).velocity(0.5, torch.zeros(1, 2).double())


@pytest.mark.parametrize(
    "time", ["logit-normal", "lognormal", Grid([0.1, 0.5])], ids=["logit-normal", "lognormal", "grid"]
)
def test_times_of_another_weight_are_refused(time):
    """The action is an integral over all times: with other weights its minimum is not the flow's."""
    with pytest.raises(ArgumentError, match="no weight that undoes"):
        ActionMatching(potential, normal(), path=PATH, time=time)


def test_importance_keeps_the_action():
    """With their weights the losses of two laws of times have one mean: 1 number at 6 standard errors, 40000 samples."""
    x, density = LAW.draw(40_000, seed=0), lambda t: 0.2 + t
    uniform, weighted = (
        ActionMatching(potential, normal(), path=PATH, time=time).loss(x, seed=1, reduction="none")
        for time in ("uniform", Importance(density))
    )
    assert_mean(uniform - weighted, 0.0)


def test_a_base_that_is_not_the_paths_own_is_refused():
    with pytest.raises(ArgumentError, match="its own"):
        ActionMatching(potential, LAW, path=PATH)
