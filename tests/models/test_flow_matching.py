"""Flow matching: its loss by hand, its minimum, its processes with the exact velocity, and what it refuses."""

import pytest
import torch
from closed_forms import LAW, network, normal
from stats import assert_mean, assert_moments

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import FlowMatching
from sdeflow.paths import Draws, LinearPath, PairPath, Purpose

PATHS = {
    "linear": LinearPath(),
    "cosine": sf.paths.CosinePath(),
    "vp": sf.paths.VariancePreservingPath(),
    "ve": sf.paths.VarianceExplodingPath(0.02, 8.0),
    "edm": sf.paths.EDMPath(0.02, 8.0),
}


def exact_model(name, **options):
    """A model whose network is the closed form, and whose base is the law that the path really begins with."""
    path = PATHS[name]
    truth = LAW.along(path.schedule)
    return FlowMatching(truth.velocity, normal(2, path.base_deviation), path=path, **options), truth


# --- the loss ----------------------------------------------------------------------------------------------------------


def test_loss_by_hand():
    """‖v(t, (1 − t) x0 + t x1) − (x1 − x0)‖², summed over the event, with t and x0 of the seed."""
    model = FlowMatching(network(), normal())
    x1 = LAW.draw(6, seed=1)
    x0 = Draws(3).normals(Purpose.BASE, x1)
    t = Draws(3).uniforms(Purpose.TIME, (6, 1), x1.device)
    by_hand = (model.net(t, (1 - t) * x0 + t * x1) - (x1 - x0)).square().sum(1)
    torch.testing.assert_close(model.loss(x1, seed=3, reduction="none"), by_hand, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.loss(x1, seed=3), by_hand.mean(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.loss(x1, seed=3, reduction="sum"), by_hand.sum(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.loss(x1, x0=x0, seed=3), by_hand.mean(), rtol=1e-12, atol=1e-12)


def test_linear_and_pair_paths_are_one_loss_on_equal_draws():
    net, x = network(), LAW.draw(50, seed=0)
    linear, pair = (FlowMatching(net, normal(), path=path) for path in (LinearPath(), PairPath(0.0)))
    torch.testing.assert_close(linear.loss(x, seed=5), pair.loss(x, seed=5), rtol=1e-12, atol=1e-12)
    tube = FlowMatching(net, normal(), path=PairPath(0.2))
    assert abs(linear.loss(x, seed=5) - tube.loss(x, seed=5)) > 1e-4


@pytest.mark.parametrize("name", PATHS)
def test_the_closed_form_is_the_minimum(name):
    """The loss grows in every direction away from E[u | x]: paired differences, 8 numbers at 6 standard errors."""
    model, truth = exact_model(name)
    x = LAW.draw(40_000, seed=0)
    least = model.loss(x, seed=1, reduction="none")
    for bend in (lambda t, x: 0.3, lambda t, x: 0.3 * x.tanh(), lambda t, x: 0.3 * torch.sin(6 * t) + 0 * x):
        for sign in (1.0, -1.0):
            model.net = lambda t, x, b=bend, s=sign: truth.velocity(t, x) + s * b(t, x)
            excess = model.loss(x, seed=1, reduction="none") - least
            assert name in ("ve", "edm") or excess.mean() > 6 * excess.std() / 200
            # the excess is E‖bend‖² exactly, whatever the variance of the target
            t, _ = model.time.draw(x, Draws(1), model.path.regular)
            state, _ = model.path.at(t, *model.path.split(model.base_points(x, None, Draws(1)), x, Draws(1)))
            size = torch.as_tensor(bend(t, state)).expand_as(x).square().sum(1)
            assert_mean(excess - size, 0.0)


def test_gradients_of_the_conditional_and_the_marginal_loss_agree():
    """∇E‖v − u(x|z)‖² = ∇E‖v − u(x)‖², within 5 standard errors in all 130 parameters, and the losses differ by a constant.

    False-alarm rate: 130 · 6e-7 < 1e-4 for one seed drawn at random; the seed is fixed.
    """
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 20), torch.nn.Tanh(), torch.nn.Linear(20, 2)).double()
    field = sf.adapt(lambda xt: net(xt), order="x|t")
    truth = LAW.along(LinearPath().schedule)
    batches, size = 120, 256
    gradients, gaps = [], []
    for scale in (1.0, 1.5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(scale)
        constants = []
        for seed in range(batches):
            x1 = LAW.draw(size, seed=seed)
            draws = Draws(seed)
            x0, t = draws.normals(Purpose.BASE, x1), draws.uniforms(Purpose.TIME, (size, 1), x1.device)
            x = (1 - t) * x0 + t * x1
            value = field(t, x)
            conditional = (value - (x1 - x0)).square().sum(1).mean()
            marginal = (value - truth.velocity(t, x)).square().sum(1).mean()
            difference = torch.autograd.grad(conditional - marginal, list(net.parameters()))
            gradients.append(torch.cat([g.flatten() for g in difference]))
            constants.append((conditional - marginal).detach())
        gaps.append(torch.stack(constants))
    off = torch.stack(gradients[:batches])
    assert_mean(off, 0.0, sigmas=5.0)
    assert_mean((gaps[1] - gaps[0])[:, None], 0.0)
    assert gaps[0].mean() > 0.5  # the constant is the conditional variance of u, which is not nothing


# --- the processes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_log_prob_with_the_exact_velocity(name):
    """With the closed form for a network, and the law at t = 0 for a base, the flow is the mixture: log p within 1e-6."""
    model, truth = exact_model(name)
    model.base = truth.at(0.0)
    x = LAW.draw(5, seed=2)
    found = model.log_prob(x, solver={"rtol": 1e-10})
    torch.testing.assert_close(found, LAW.along(PATHS[name].schedule).log_prob(1.0, x), rtol=0, atol=1e-6)
    torch.testing.assert_close(model.flow(solver={"rtol": 1e-9}).decode(model.flow(solver={"rtol": 1e-9}).encode(x)), x)


@pytest.mark.parametrize("name", ["linear", "vp"])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
def test_marginals_are_kept_for_every_amount_of_noise(name, epsilon):
    """Mean and variance at t = .4, .8 and at the end: 12 comparisons within 6 standard errors, 4000 samples."""
    model, truth = exact_model(name)
    sde = model.sde(epsilon)
    x0 = truth.sample(0.0, 4000, seed=3)
    # the score grows as 1/s near the data: steps that shrink with it
    end = sde.interval[1]
    grid = [0.0, *(1 - (1 - end) ** (k / 240) for k in range(1, 240)), end]
    sol = sf.solve(sde, x0, [0.0, 0.4, 0.8, end], steps=grid, seed=4, method="heun" if epsilon == 0 else None)
    for t, x in zip(sol.t[1:], sol.x[1:], strict=True):
        law = truth.at(float(t))
        assert_moments(x, law.mean, law.variance)


def test_score_is_converted():
    model, truth = exact_model("linear")
    x = LAW.draw(4, seed=0)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    torch.testing.assert_close(model.score(t, x), truth.score(t, x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(model.denoiser(t, x), truth.denoiser(t, x), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(model.ode().denoiser(t, x), truth.denoiser(t, x), rtol=1e-8, atol=1e-8)


def test_couplings_have_one_minimum_in_one_dimension():
    """The flow of the optimal coupling of equal batches moves points along straight lines: its loss is far smaller."""
    x1, x0 = torch.randn(2, 256, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    still = lambda t, x: 3 + 0 * x  # noqa: E731
    losses = {
        coupling: FlowMatching(still, normal(1), coupling=coupling).loss(x1 + 3, x0=x0, seed=0)
        for coupling in ("independent", "optimal-transport")
    }
    assert losses["optimal-transport"] < 0.05 < 1.0 < losses["independent"]


def test_labels_stay_with_their_data():
    """The network sees, for each row, the label of the data point that the row's path ends in."""
    x1 = torch.arange(32, dtype=torch.float64)[torch.randperm(32, generator=torch.Generator().manual_seed(0))][:, None]
    seen = {}

    def net(t, x, label):
        seen["x"], seen["t"], seen["label"] = x, t, label
        return torch.zeros_like(x)

    for coupling in ("optimal-transport", sf.paths.Entropic(0.5)):
        model = FlowMatching(net, normal(1), path=PairPath(), coupling=coupling, time=sf.models.times.Grid([1.0]))
        model.loss(x1, seed=0, label=x1[:, 0].long())
        assert torch.equal(seen["x"][:, 0].round().long(), seen["label"])


def test_conditions_reach_the_network_row_by_row():
    """With one label a sample, each is carried by its own velocity, whatever solver and clock it has."""
    model = FlowMatching(lambda t, x, label: label[:, None].to(x) + 0 * x, normal())
    label = torch.tensor([0, 1, 2, 5])
    z = Draws(0).samples(model.base, 4)
    for solver in ({"steps": 3}, {"rtol": 1e-6, "stepping": "per-sample"}):
        x = model.sample(4, seed=0, label=label, solver=solver)
        torch.testing.assert_close(x - z, label[:, None].double().expand(4, 2))
    value = model.log_prob(z + label[:, None], label=label)
    torch.testing.assert_close(value, model.base.log_prob(z))


def test_some_rows_of_a_flow_keep_their_conditions():
    """An adaptive solve that goes on with some samples takes their labels along, and what is one for all."""
    model = FlowMatching(lambda t, x, label, scale: scale * label[:, None].to(x) + 0 * x, normal())
    ode = model.ode(label=torch.tensor([0, 1, 2, 5]), scale=torch.tensor([3.0]).double())
    narrow = ode.rows(torch.tensor([True, False, False, True]))
    assert narrow.velocity(0.5, torch.zeros(2, 2).double())[:, 0].tolist() == [0.0, 15.0]
    assert ode.velocity(0.5, torch.zeros(4, 2).double())[:, 0].tolist() == [0.0, 3.0, 6.0, 15.0]
    plain = FlowMatching(network(), normal()).ode()
    assert plain.rows(torch.tensor([True, False])) is plain


def test_transport_is_differentiable_and_samples_are_a_function_of_the_seed():
    model = FlowMatching(network(), normal())
    z = torch.zeros(3, 2, dtype=torch.float64)
    model.transport(z, solver={"steps": 2}).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    state = torch.get_rng_state()
    one, two = (model.sample(4, seed=1, process=model.sde(0.5), solver={"steps": 5}) for _ in range(2))
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(model.loss(one, seed=2), model.loss(one, seed=2))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one, model.sample(4, seed=2, process=model.sde(0.5), solver={"steps": 5}))


def test_any_base_with_a_seed_leaves_the_global_generator():
    base = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    state = torch.get_rng_state()
    assert torch.equal(Draws(3).samples(base, 4), Draws(3).samples(base, 4))
    assert not torch.equal(Draws(3).samples(base, 4), Draws(4).samples(base, 4))
    assert torch.equal(state, torch.get_rng_state())


# --- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, words",
    [
        ({"coupling": "optimal-transport"}, "depend on the data"),
        ({"coupling": "given"}, "depend on the data"),
        ({"path": PairPath(0.1)}, "PairPath, is not"),
        ({"path": sf.paths.BridgePath()}, "BridgePath, is not"),
        ({"base": LAW}, "is not N"),
        ({"path": sf.paths.CosinePath(), "base": normal(2, 2.0)}, "is not N"),
    ],
)
def test_conversions_are_refused_where_they_do_not_hold(options, words):
    """A velocity has a score only where the base is normal and independent of the data."""
    model = FlowMatching(network(), **{"base": normal(), **options})
    x = torch.zeros(2, 2, dtype=torch.float64)
    for ask in (lambda: model.score(0.5, x), lambda: model.sde(0.5), lambda: model.denoiser(0.5, x)):
        with pytest.raises(ArgumentError, match=words):
            ask()
    assert model.ode().schedule is None
    assert model.velocity(0.5, x).shape == (2, 2)


@pytest.mark.parametrize(
    "path", [*PATHS.values(), sf.paths.SubVariancePreservingPath()], ids=lambda p: type(p).__name__
)
def test_a_path_that_begins_with_some_of_the_data_has_its_own_base(path):
    """Any base is taken where a = 0 at the start, so that its draws are what the path begins with; else one alone."""
    own = normal(2, path.base_deviation)
    assert FlowMatching(network(), own, path=path).schedule is not None
    assert FlowMatching(network(), path.base((2,)), path=path).schedule is not None
    for other in (normal(2, 2.5), normal(2, path.base_deviation, mean=0.5), LAW):
        if path.schedule.a(0.0) > 1e-3:
            with pytest.raises(ArgumentError, match=r"its own, path\.base\(\(2,\)\)"):
                FlowMatching(network(), other, path=path)
        else:
            FlowMatching(network(), other, path=path).loss(LAW.draw(2, seed=0))


def test_the_line_between_independent_pairs_has_a_score():
    """PairPath(0) from a normal base and an independent coupling is the linear path, so it is not refused."""
    _, truth = exact_model("linear")
    pair = FlowMatching(truth.velocity, normal(), path=PairPath())
    x = LAW.draw(3, seed=0)
    torch.testing.assert_close(pair.score(0.5, x), truth.score(0.5, x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda m: m.loss(torch.zeros(3)), r"shape \(B, 2\)"),
        (lambda m: m.loss(torch.zeros(3, 2, dtype=torch.int64)), "floating-point"),
        (lambda m: m.loss(torch.zeros(3, 2), x0=torch.zeros(2, 2)), "one x0 for each x"),
        (lambda m: m.loss(torch.zeros(3, 2), reduction="average"), "'mean'"),
        (lambda m: m.loss(torch.zeros(3, 2), label=torch.zeros(5)), "label has 5 rows for 3"),
        (lambda m: m.loss(torch.zeros(3, 2), seed=-1), "seed"),
        (lambda m: m.sample(0), "n=0"),
        (lambda m: m.sample(2, label=torch.zeros(5)), "5 rows for 2"),
        (lambda m: m.sample(2, process=m.ode(), label=torch.zeros(2)), "would be ignored"),
        (lambda m: m.sample(2, solver={"step": 3}), "'step'"),
        (lambda m: m.transport(torch.zeros(2, 3)), r"shape \(B, 2\)"),
        (lambda m: FlowMatching(3, m.base), "the network is int"),
        (lambda m: FlowMatching(m.net, torch.distributions.Normal(torch.zeros(2), 1.0)), "Independent"),
        (lambda m: FlowMatching(m.net, m.base, path="linear"), "LinearPath"),
        (lambda m: FlowMatching(m.net, m.base, coupling="ot"), "optimal-transport"),
        (lambda m: FlowMatching(m.net, m.base, time="lognorm"), "lognormal"),
        (lambda m: FlowMatching(m.net, LAW, path=sf.paths.GaussianPath(given="data")), "PairPath"),
    ],
)
def test_refusals(ask, words):
    torch.manual_seed(0)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    with pytest.raises(ArgumentError, match=words):
        ask(FlowMatching(sf.networks.MLP(2, width=4), base))


def test_two_moons_are_learned():
    """600 steps of a small network: the flow's samples are nearer to the moons than the base's, by far."""
    torch.manual_seed(0)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    model = FlowMatching(sf.networks.MLP(2, time_features=2), base)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 600)
    data = sf.data.moons(2000, seed=0)
    for step in range(600):
        optimiser.zero_grad()
        model.loss(data[step % 8 :: 8], seed=step).backward()
        optimiser.step()
        schedule.step()
    distance = lambda x: torch.cdist(x, data).min(1).values.mean().item()  # noqa: E731
    samples = model.sample(500, seed=0, solver={"steps": 20, "method": "heun"})
    assert distance(samples) < 0.12 < 0.3 < distance(Draws(0).samples(base, 500))


@pytest.mark.parametrize(
    ("base", "standard"),
    [
        (torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)), True),
        (torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1), True),
        (torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2) + 0.1), False),
        (torch.distributions.MultivariateNormal(torch.tensor([0.0, 1.0]), torch.eye(2)), False),
    ],
)
def test_a_standard_normal_base_is_known_in_either_form(base, standard):
    model = sf.models.FlowMatching(sf.networks.MLP((2,)), base)
    if standard:
        assert model.sde(0.5).score is not None
    else:
        with pytest.raises(ArgumentError, match="is not N"):
            model.sde(0.5)
