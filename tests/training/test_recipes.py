"""Recipes: every kind is made and learns, parts by name and of one's own, what is taken from the data, refusals."""

import json
import sys

import pytest
import torch
from stats import assert_moments, standard_errors

import sdeflow as sf
from sdeflow.errors import ArgumentError, SdeflowWarning
from sdeflow.solvers import time_grids
from sdeflow.training import build, completed
from sdeflow.training.parts import FITS, PARTS, Levels
from sdeflow.training.recipes import KINDS, check_same_recipe
from sdeflow.training.rescaled import Rescaled, rescaled_law

SMALL = {"name": "mlp", "width": 8, "depth": 1}
X = 3 + 0.5 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def recipe(kind, **parts):
    needed = {"process": {"name": "ou", "theta": 2.0}, "options": {"steps": 5}} if kind == "learned-reversal" else {}
    return {"kind": kind, "event": [2], "network": SMALL, **needed, **parts}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_from_json_and_learns(kind):
    made = json.loads(json.dumps(completed(recipe(kind), X, seed=0)))
    model = build(made, seed=0)
    loss = model.loss(X, seed=0)
    loss.backward()
    assert loss.isfinite() and any(bool((p.grad != 0).any()) for p in model.parameters() if p.grad is not None)
    again = build(made, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_numbers_alone_are_those_of_the_usual_part():
    model = build(recipe("score", process={"beta_max": 5.0}))
    assert model.process.schedule.a(1.0) == pytest.approx(sf.processes.VariancePreserving(0.1, 5.0).schedule.a(1.0))


def test_time_and_coupling_have_numbers():
    times = {"name": "logit-normal", "mean": 1.5}
    model = build(recipe("flow-matching", time=times, coupling={"name": "entropic", "regularisation": 0.3}))
    assert model.time.mean == 1.5 and model.coupling.regularisation == 0.3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (recipe("doob"), "bends a process towards what happens at its end"),
        ({"kind": "learned-reversal", "event": [2]}, "is made for a process, and none is given: name one of 'vp'"),
        (recipe("score", path="vp"), "'path' is no part of a recipe for 'score'"),
        (recipe("flow-matching", options={"coupling": "independent"}), "is a part of 'flow-matching' and no option"),
        (recipe("flow-matching", options={"cupling": "independent"}), "Did you mean 'coupling'"),
        (recipe("flow-matching", base={"name": "normal", "deviation": -1.0}), "give numbers > 0"),
        (recipe("flow-matching", base={"name": "normal", "mean": [0.0, 1.0, 2.0]}), "does not fit an event"),
        (recipe("flow-matching", time={"name": "levels", "count": 1}), "is not a whole number ≥ 2"),
        (recipe("score", process="gbm"), "sf.models.LearnedReversal"),
        (recipe("score", process="nowhere_at_all:sde"), "no module 'nowhere_at_all'"),
        (recipe("score", process="sdeflow:nothing"), "sdeflow has no 'nothing'"),
    ],
)
def test_what_is_wrong_is_refused(given, words):
    with pytest.raises(ArgumentError) as caught:
        build(given)
    assert words in str(caught.value)


# --- one's own ---------------------------------------------------------------------------------------------------------

OWN = """
import torch
import sdeflow as sf

def sde(theta=1.0):
    return sf.SDE(lambda t, x: -theta * x, lambda t, x: 0.5 + 0.1 * x.cos())

fixed = sde(3.0)

class Net(torch.nn.Module):
    def __init__(self, event, width=4):
        super().__init__()
        self.inner = sf.networks.MLP(event, width=width, depth=1)

    def forward(self, t, x):
        return self.inner(t, x)

one = Net((2,))
law = sf.data.eight_gaussians()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_parts.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "own_parts.py"
    sys.modules.pop("own_parts", None)


def test_any_part_can_be_ones_own(own):
    x = torch.ones(1, 2)
    given = {"process": {"name": "own_parts:sde", "theta": 2.0}, "network": {"name": "own_parts:Net", "width": 6}}
    model = build(recipe("learned-reversal", base="own_parts:law", **given), seed=0)
    assert torch.equal(model.process.drift(0.0, x), -2.0 * x)
    assert model.net.inner.first.out_features == 6
    assert model.base.event_shape == (2,) and model.loss(X, seed=0).isfinite()
    model = build(recipe("learned-reversal", process="own_parts:fixed"))
    assert torch.equal(model.process.drift(0.0, x), -3.0 * x)
    for wrong, words in (
        ({"network": "own_parts:one"}, "a function or a class"),
        ({"process": "own_parts:law"}, "SDE"),
    ):
        with pytest.raises(ArgumentError, match=words):
            build(recipe("learned-reversal", **wrong))
    with pytest.raises(ArgumentError, match="Did you mean 'theta'"):
        build(recipe("learned-reversal", process={"name": "own_parts:sde", "thet": 2.0}))


def test_a_module_that_has_changed_is_warned_of(own):
    made = completed(recipe("learned-reversal", process="own_parts:sde"), X)
    build(made)
    own.write_text(OWN + "\n# another version\n")
    with pytest.warns(SdeflowWarning, match="own_parts:sde has changed"):
        build(made)


def test_another_recipe_is_another_run():
    check_same_recipe(recipe("score"), {**recipe("score"), "data": {"source": "elsewhere.npy"}}, "run")
    with pytest.raises(ArgumentError, match="with process=None, and now process='ve'"):
        check_same_recipe(recipe("score"), recipe("score", process="ve"), "run")


# --- from the data -----------------------------------------------------------------------------------------------------


def test_the_base_of_a_reversal_has_the_moments_of_the_ends():
    """An Ornstein–Uhlenbeck process from correlated points: e^{−θ} of their covariance and the stationary part, 4000 paths."""
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)) @ torch.tensor([[20.0, 8.0], [0.0, 1.0]])
    given = recipe("learned-reversal", process={"name": "ou", "theta": 1.0, "mean": 50.0, "sigma": 3.0})
    given["options"] = {"steps": 400}
    before = torch.random.get_rng_state()
    made = completed(given, x, seed=0)
    assert torch.equal(before, torch.random.get_rng_state()) and made == completed(given, x, seed=0)
    decay = torch.tensor(-1.0).exp()
    mean, spread = 50 * (1 - decay) + decay * x.mean(0), 9 * (1 - decay**2) / 2
    covariance = decay**2 * torch.cov(x.mT) + spread * torch.eye(2)
    found = torch.tensor(made["base"]["covariance"])
    # given the points, only the noise is random: in the mean, and in the covariance crossed with the points as well
    close = 6 * (spread / 4000).sqrt()
    assert (torch.tensor(made["base"]["mean"]) - mean).abs().max() < close + 0.01 * 50 * decay  # and the step's error
    assert (found - covariance).abs().max() / covariance.abs().max() < 0.05
    law = build(made).base
    assert law.sample((3,)).shape == (3, 2)


def test_a_base_that_was_given_is_kept():
    given = recipe("learned-reversal", base={"name": "normal", "deviation": 7.0})
    assert completed(given, X)["base"] == {"name": "normal", "deviation": 7.0}


def test_fitted_laws_have_the_moments_of_the_points():
    y = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.2, 0.5]) + 1.0
    law = PARTS["base"]["log-normal"]((2,), **FITS["log-normal"](y.exp()))
    drawn = sf.paths.Draws(0).samples(law, 20_000).log()
    for k, sd in enumerate((0.2, 0.5)):
        assert_moments(drawn[:, k].double(), float(y[:, k].mean()), float(y[:, k].var()))
        assert standard_errors(drawn[:, k].double(), 1.0 + 0.1 * sd) > 6
    with pytest.raises(ArgumentError, match="a law of positive numbers, and 1 of 3"):
        FITS["log-normal"](torch.tensor([[1.0], [-1.0], [2.0]]))


SHIFT, SCALE = [100.0, -2.0], [30.0, 0.05]
PROCESSES = {
    "diagonal": sf.SDE(lambda t, x: -x, lambda t, x: 0.1 * x),
    "scalar": sf.SDE(lambda t, x: t * x.sin(), lambda t, x: 0.1 * x, noise="scalar"),
    "general": sf.SDE(
        lambda t, x: -x,
        lambda t, x: torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.1, 0.2]]).to(x) * x[:, :1, None],
        noise="general",
    ),
    "stratonovich": sf.SDE(lambda t, x: -x, lambda t, x: 0.1 * x + 0.3 * x.cos(), calculus="stratonovich"),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_paths_in_other_units_are_the_paths(name):
    """The same noise: x = shift + scale z along the path, to rounding; the Itô form too."""
    process = PROCESSES[name]
    shift, scale = (torch.tensor(v, dtype=torch.float64) for v in (SHIFT, SCALE))
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    other = Rescaled(process, shift, scale)
    for one, two in ((process, other), (process.to_ito(), other.to_ito())):
        method = {"steps": 8, "seed": 0}
        expected = sf.solve(one, shift + scale * z, **method).final
        torch.testing.assert_close(shift + scale * sf.solve(two, z, **method).final, expected, rtol=1e-10, atol=1e-10)
    t, x = 0.3, shift + scale * z
    torch.testing.assert_close(other.diffusion_divergence(t, z), process.diffusion_divergence(t, x) / scale)


def test_a_law_in_other_units_has_the_density():
    law = sf.data.eight_gaussians()
    scale = torch.tensor([2.0, 0.5])
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(4))
    moved = rescaled_law(law, [1.0, -1.0], scale)
    expected = law.log_prob(torch.tensor([1.0, -1.0]) + scale * z) + scale.log().sum()
    torch.testing.assert_close(moved.log_prob(z), expected)


def test_the_data_say_the_deviation_of_an_elucidated_model():
    made = completed({**recipe("edm"), "data": {"shift": [3.0, 3.0], "scale": [0.25, 0.25]}}, X)
    assert made["options"]["data_deviation"] == pytest.approx(float(((X - 3) / 0.25).std()))
    assert build(made).net.data_deviation == made["options"]["data_deviation"]
    given = recipe("edm", options={"data_deviation": 0.7})
    assert completed(given, X)["options"] == {"data_deviation": 0.7}


def test_equal_steps_of_the_elucidated_clock_are_karras_grid():
    process, clock = PARTS["process"]["edm"](), sf.processes.ScheduledDiffusion(sf.paths.EDMSchedule())
    t = torch.linspace(1, 0, 11, dtype=torch.float64)
    expected = torch.as_tensor(time_grids.karras(clock, 10, (80.0, 0.002)), dtype=torch.float64)
    torch.testing.assert_close(process.schedule.s(t), expected, rtol=1e-6, atol=1e-9)


def test_levels_are_looked_at_each_as_often_and_nothing_between():
    """5 levels, 50 000 draws: the count of each within 6 standard errors; and they are the nodes of 4 equal steps."""
    t, weight = Levels(5).draw(torch.zeros(50_000, 1), sf.paths.Draws(0), (0.2, 1.0))
    values, counts = t.unique(return_counts=True)
    torch.testing.assert_close(values, torch.linspace(0.2, 1.0, 5, dtype=torch.float64))
    assert weight == 1.0
    assert (counts - 10_000).abs().max() < 6 * (50_000 * 0.2 * 0.8) ** 0.5


def test_score_matching_is_by_slices_in_many_dimensions():
    few, many = (build({"kind": "score-matching", "event": [n], "network": SMALL}) for n in (16, 17))
    assert few.method == "implicit" and many.method == "sliced"
    with pytest.raises(ArgumentError, match="no likelihood"):
        few.flow()
