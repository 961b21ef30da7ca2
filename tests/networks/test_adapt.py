"""Networks of other libraries, as they are: called as they want, trained, and sampled from."""

import pytest
import torch
from closed_forms import LAW, close, normal

import sdeflow as sf
from sdeflow.errors import ArgumentError
from sdeflow.models import DenoisingScoreMatching, FlowMatching
from sdeflow.processes import ScheduledDiffusion


class TorchCfmMLP(torch.nn.Module):
    """In torchcfm the perceptron takes time as a last coordinate."""

    def __init__(self, dim=2):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(dim + 1, 32), torch.nn.SELU(), torch.nn.Linear(32, dim))

    def forward(self, x):
        assert x.ndim == 2
        return self.net(x)


class TorchCfmUNet(torch.nn.Module):
    """Its U-Net is (t, x, y=label) with t of shape (B,)."""

    def __init__(self):
        super().__init__()
        self.labels, self.net = torch.nn.Embedding(3, 2), TorchCfmMLP()

    def forward(self, t, x, y=None):
        assert t.shape == (len(x),)
        return self.net(torch.cat([x, t[:, None]], 1)) + (0 if y is None else self.labels(y))


class FlowMatchingVelocity(torch.nn.Module):
    """In flow_matching a model is (x, t), t of shape (B,), and extra arguments by name."""

    def __init__(self):
        super().__init__()
        self.net = TorchCfmMLP()

    def forward(self, x, t, **extras):
        assert t.shape == (len(x),) and not extras
        return self.net(torch.cat([x, t[:, None]], 1))


class DiffusersUNet(torch.nn.Module):
    """In diffusers it is (sample, timestep) with integer timesteps, and an object with .sample comes back."""

    def __init__(self):
        super().__init__()
        self.net = TorchCfmMLP()

    def forward(self, sample, timestep):
        assert timestep.dtype is torch.int64 and timestep.shape == (len(sample),)
        out = self.net(torch.cat([sample, timestep[:, None].to(sample) / 1000], 1))
        return type("UNet2DOutput", (), {"sample": out})()


class TorchdynField(torch.nn.Module):
    """In torchdyn a vector field is (t, x, args=…), t of any shape."""

    def __init__(self):
        super().__init__()
        self.net = TorchCfmMLP()

    def forward(self, t, x, args=None):
        return self.net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], 1))


class ScalarTime(torch.nn.Module):
    """Some nets take one time for the batch."""

    def forward(self, t, x):
        assert t.ndim == 0
        return t * x


FOREIGN = {
    "torchcfm MLP": (TorchCfmMLP, {"order": "x|t"}, {}),
    "torchcfm U-Net": (TorchCfmUNet, {"time": "flat", "rename": {"label": "y"}}, {"label": torch.tensor([0, 1, 2, 0])}),
    "flow_matching": (FlowMatchingVelocity, {"order": "xt", "time": "flat"}, {}),
    "torchdyn": (TorchdynField, {"time": "flat"}, {}),
    "diffusers": (DiffusersUNet, {"order": "xt", "time": "integer", "time_scale": 1000.0}, {}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_networks_train_and_sample(name):
    make, form, condition = FOREIGN[name]
    torch.manual_seed(0)
    model = FlowMatching(sf.adapt(make(), **form), sf.paths.LinearPath().base((2,)))
    x = sf.data.moons(4, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    before = model.loss(x, seed=0, **condition)
    for _ in range(30):
        optimiser.zero_grad()
        model.loss(x, seed=0, **condition).backward()
        optimiser.step()
    assert model.loss(x, seed=0, **condition) < 0.7 * before
    for solver in ({"steps": 4}, {"rtol": 1e-2, "stepping": "per-sample"}):
        assert model.sample(4, seed=0, solver=solver, **condition).isfinite().all()
    flow = model.flow(solver={"rtol": 1e-2}, **condition)
    assert flow.log_prob(x).isfinite().all()


@pytest.mark.parametrize("style", ["torchcfm", "torchdyn"])
def test_a_foreign_velocity_has_an_exact_likelihood_in_three_lines(style):
    """The velocity of a mixture in either form: log p of the flow is that of the mixture, within 1e-6."""
    truth = LAW.along(sf.paths.LinearPath().schedule)
    theirs = {
        "torchcfm": (lambda xt: truth.velocity(xt[:, -1:], xt[:, :-1]), {"order": "x|t"}),
        "torchdyn": (lambda t, x, args=None: truth.velocity(t, x), {"time": "flat"}),
    }
    net, form = theirs[style]
    x = LAW.draw(5, seed=0)
    velocity = sf.adapt(net, **form)
    flow = sf.Flow(sf.ODE(velocity), normal(), base_at="start", rtol=1e-9)
    close(flow.log_prob(x), LAW.log_prob(x), 1e-6)


def test_a_diffusers_network_on_its_own_schedule():
    """On the clock of the timesteps no scale is needed, and the reversed SDE asks for every timestep."""
    torch.manual_seed(0)
    process = ScheduledDiffusion(sf.paths.DiscreteSchedule(torch.linspace(1e-4, 0.02, 1000)))
    net = sf.adapt(DiffusersUNet(), order="xt", time="integer")
    model = DenoisingScoreMatching(net, process, (2,), time=sf.models.times.Grid(range(1000)))
    model.loss(sf.data.moons(8, seed=0), seed=0).backward()
    assert model.sample(3, seed=0, process=model.sde(), solver={"steps": 30}).isfinite().all()


@pytest.mark.parametrize("t", [0.25, torch.tensor(0.25), torch.tensor([0.25, 0.25]), torch.full((2, 1, 1), 0.25)])
def test_every_form_of_time_from_every_form(t):
    x = torch.ones(2, 3, 4)
    seen = {}

    def net(time, state):
        seen["t"] = time
        return state

    shapes = {"broadcast": (2, 1, 1), "flat": (2,), "integer": (2,)}
    for form, shape in shapes.items():
        sf.adapt(net, time=form, time_scale=8.0)(t, x)
        assert seen["t"].shape == shape and torch.equal(seen["t"].double().unique(), torch.tensor([2.0]).double())


def test_scalar_time_solves_and_does_not_train():
    net = sf.adapt(ScalarTime(), time="scalar", time_scale=2.0)
    close(net(torch.tensor([[0.5]]), torch.ones(1, 2)), torch.ones(1, 2), 0.0)
    model = FlowMatching(net, sf.paths.LinearPath().base((2,)))
    assert model.sample(3, seed=0, solver={"steps": 4}).isfinite().all()
    with pytest.raises(ArgumentError, match="time='flat'"):
        model.loss(torch.zeros(3, 2))


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda: sf.adapt(3), "the network is int"),
        (lambda: sf.adapt(ScalarTime(), order="x,t"), "'xt'"),
        (lambda: sf.adapt(ScalarTime(), time="vector"), "'flat'"),
        (lambda: sf.adapt(ScalarTime(), time_scale="ms"), "time_scale"),
        (lambda: sf.adapt(ScalarTime(), rename={"label": 3}), "dictionary of names"),
        (lambda: sf.adapt(TorchCfmMLP(), order="x|t", time="scalar"), "does not apply"),
        (lambda: sf.adapt(TorchCfmMLP(), order="x|t")(0.5, torch.zeros(1, 2, 2)), r"shape \(B, D\)"),
        (lambda: sf.adapt(lambda t, x: {"out": x})(0.5, torch.zeros(1, 2)), "returned dict"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask()
