"""Maximum likelihood through every mode of gradient=, and the way there and back."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

import sdeflow as sf

DOUBLE = torch.float64


def base(dims=2):
    return Independent(Normal(torch.zeros(dims, dtype=DOUBLE), torch.ones(dims, dtype=DOUBLE)), 1)


class Net(torch.nn.Module):
    def __init__(self, dims=2):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dims + 1, 16), torch.nn.Tanh(), torch.nn.Linear(16, dims)
        ).double()

    def forward(self, t, x):
        return self.layers(torch.cat([x, t.expand(len(x), 1)], 1))


MODES = {
    "backprop": {"rtol": 1e-9},
    "backprop, one clock": {"rtol": 1e-9, "stepping": "shared"},
    "backprop, fixed": {"steps": 40, "method": "rk4"},
    "checkpoint, fixed": {"steps": 40, "method": "rk4", "gradient": "checkpoint"},
    "checkpoint": {"rtol": 1e-9, "gradient": "checkpoint"},
    "adjoint": {"rtol": 1e-9, "gradient": "adjoint"},
}
DIVERGENCES = {"exact": {}, "hutchinson": {"divergence": "hutchinson", "probes": 3, "seed": 1}}


def gradients(net, use, options):
    flow = sf.Flow(sf.ODE(net), base(), **options)
    torch.manual_seed(1)
    x = torch.randn(6, 2, dtype=DOUBLE, requires_grad=True)
    loss = flow.log_prob(x).mean() if use == "log_prob" else flow.decode(x).square().mean()
    return torch.autograd.grad(loss, [x, *net.parameters()], allow_unused=True)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_the_gradients_of_maximum_likelihood(mode, divergence):
    """With respect to x and to every parameter, against fine fixed steps: RK4 with 160 of them."""
    net = Net()
    options = DIVERGENCES[divergence]
    truth = gradients(net, "log_prob", {"steps": 160, "method": "rk4", **options})
    for found, expected in zip(gradients(net, "log_prob", {**MODES[mode], **options}), truth, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_the_gradients_of_samples(mode):
    net = Net()
    truth = gradients(net, "decode", {"steps": 160, "method": "rk4"})
    for found, expected in zip(gradients(net, "decode", MODES[mode]), truth, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["backprop", "checkpoint", "adjoint"])
def test_a_flow_learns_the_scale_of_its_data(mode):
    """Data 3·N(0, I), velocity θx: the likelihood is greatest at θ = ln of the root mean square."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(100, 2, generator=generator, dtype=DOUBLE)
    theta = torch.nn.Parameter(torch.tensor(0.0, dtype=DOUBLE))

    class Scale(sf.ODE):
        def __init__(self):
            super().__init__()
            self.theta = theta

        def velocity(self, t, x):
            return self.theta * x

    ode = Scale()
    optimiser = torch.optim.LBFGS(ode.parameters(), max_iter=20, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        value = -sf.Flow(ode, base(), rtol=1e-7, gradient=mode).log_prob(x).mean()
        value.backward()
        return value

    optimiser.step(loss)
    assert theta.item() == pytest.approx(math.log(x.square().mean().item()) / 2, abs=1e-5)


@pytest.mark.parametrize("base_at", ["start", "end"])
def test_the_round_trip_is_the_distance_to_where_it_started(base_at):
    """One number per sample, with leading axes; it falls with the tolerance, and is no constant."""
    net = Net()
    x = torch.randn(4, 3, 2, dtype=DOUBLE)
    errors = {}
    for rtol in (1e-3, 1e-8):
        flow = sf.Flow(sf.ODE(net), base(), base_at, rtol=rtol)
        errors[rtol] = flow.round_trip(x)
        assert errors[rtol].shape == (4, 3) and not errors[rtol].requires_grad
        there_and_back = flow.decode(flow.encode(x))
        assert torch.allclose(errors[rtol], (there_and_back - x).abs().amax(-1), rtol=1e-3, atol=1e-12)
    assert 0 < errors[1e-8].max() < 1e-6 and errors[1e-3].max() > 10 * errors[1e-8].max()
    assert flow.round_trip(x[:0]).shape == (0, 3)


def test_the_round_trip_sees_what_rounding_does_to_a_flow_that_contracts():
    """x' = −40 x takes x to e^{−40} x, relative to which an absolute tolerance is everything."""
    flow = sf.Flow(sf.ODE(lambda t, x: -40 * x), base(), "end", rtol=1e-6)
    assert flow.round_trip(torch.ones(1, 2, dtype=DOUBLE)).item() > 0.1
