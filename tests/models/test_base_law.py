"""A model's base goes where the model goes, and samples come from networks in evaluation mode."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    Uniform,
)

import sdeflow as sf

BASES = {
    "normal": lambda: sf.paths.LinearPath().base((2,)),
    "uniform": lambda: Independent(Uniform(-torch.ones(2), torch.ones(2)), 1),
    "multivariate": lambda: MultivariateNormal(torch.zeros(2), torch.eye(2)),
    "mixture": lambda: MixtureSameFamily(Categorical(torch.ones(3)), Independent(Normal(torch.zeros(3, 2), 1.0), 1)),
    "transformed": lambda: TransformedDistribution(
        sf.paths.LinearPath().base((2,)), [AffineTransform(torch.ones(2), 2.0)]
    ),
    "own mixture": lambda: sf.laws.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], [0.1, 0.1]),
}


def model_of(base, net=None):
    return sf.models.FlowMatching(net or sf.networks.MLP(2, width=8), base, path=sf.paths.PairPath())


@pytest.mark.parametrize("name", BASES)
def test_a_model_in_double_precision_samples_in_it(name):
    base = BASES[name]()
    model = model_of(base)
    before = model.base.sample((3,)).dtype
    model.double()
    assert model.base.sample((3,)).dtype is torch.float64 and base.sample((3,)).dtype is before
    x = model.sample(4, seed=0, solver={"steps": 3, "method": "euler"})
    assert x.dtype is torch.float64
    inside = 0.5 * model.base.sample((4,)).clamp(-0.9, 0.9)
    assert model.base.log_prob(inside).dtype is torch.float64
    found, expected = model.base.log_prob(inside), BASES[name]().log_prob(inside.float())
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


def test_a_model_on_another_device_has_its_base_there():
    model = model_of(BASES["normal"]()).to("meta")
    assert model.base.base_dist.loc.device.type == "meta"


def test_a_network_of_half_precision_leaves_the_base():
    model = model_of(BASES["normal"]()).to(torch.bfloat16)
    assert next(model.parameters()).dtype is torch.bfloat16 and model.base.sample((1,)).dtype is torch.float32


def noisy():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 2))

        def forward(self, t, x):
            return self.layers(x)

    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("process", ["flow", "sde"])
def test_samples_are_those_of_evaluation_mode(process):
    """With a seed they are a function of it, the global generator is left alone, and nothing is learned on the way."""
    model = sf.models.FlowMatching(noisy(), sf.paths.LinearPath().base((2,)))
    model.train()
    model.net.layers[3].eval()  # a part that was frozen stays so
    state, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def drawn():
        carrier = None if process == "flow" else model.sde(lambda t: 1 - t)
        return model.sample(8, seed=0, process=carrier, solver={"steps": 5})

    first = drawn()
    assert torch.equal(drawn(), first) and torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training and model.net.layers[2].training and not model.net.layers[3].training
    model.eval()
    assert torch.equal(drawn(), first)


def test_pairs_of_a_reflow_are_those_of_evaluation_mode():
    model = sf.models.RectifiedFlow(noisy(), sf.paths.LinearPath().base((2,)))
    state = copy.deepcopy(model.state_dict())
    first, second = (model.pairs(8, seed=0, solver={"steps": 3, "method": "euler"})[1] for _ in range(2))
    assert torch.equal(first, second) and model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_point_that_comes_from_outside_the_support_has_density_0():
    base = Independent(Uniform(-torch.ones(2), torch.ones(2)), 1)
    flow = sf.Flow(sf.ODE(lambda t, x: 0 * x), base)
    generator = torch.get_rng_state()
    found = flow.log_prob(torch.tensor([[0.5, 0.0], [2.0, 0.0], [0.0, -0.5]]))
    torch.testing.assert_close(found, torch.tensor([0.25, 0.0, 0.25]).log())
    assert torch.equal(torch.get_rng_state(), generator)


def test_what_does_not_fit_is_refused():
    """Conditions that a process brings along, a batch without rows; any kind of whole number is one."""
    model = model_of(BASES["normal"](), sf.networks.MLP(2, width=8, classes=3))
    euler = {"steps": 2, "method": "euler"}
    with pytest.raises(sf.ArgumentError, match="label has 4 rows for 3 samples"):
        model.sample(3, process=model.ode(label=torch.tensor([0, 1, 2, 0])), solver=euler)
    with pytest.raises(sf.ArgumentError, match=r"shape \(0, 2\)"):
        model.loss(torch.zeros(0, 2))
    assert model.sample(np.int64(3), seed=0, solver=euler).shape == (3, 2)
