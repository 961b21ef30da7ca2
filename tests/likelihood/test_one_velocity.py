"""A network whose output is not a function of (t, x) alone has no density, and a flow says so."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import sdeflow as sf


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), layer, nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, x):
        return self.layers(x)


def flow(velocity):
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    return sf.Flow(sf.ODE(velocity), base, steps=2, method="rk4")


USES = ("log_prob", "log_prob_with_error", "encode", "round_trip")


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.AlphaDropout(0.1), nn.BatchNorm1d(8)], ids=repr)
def test_training_mode_is_reported_and_evaluation_mode_is_not(layer, use):
    net = Net(layer).train()
    with pytest.warns(sf.SdeflowWarning, match=r"\.eval\(\)"):
        getattr(flow(net), use)(torch.ones(3, 2))
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(flow(net), use)(torch.ones(3, 2))


def test_networks_that_a_function_mentions_are_seen_too():
    net = Net(nn.Dropout(0.5))
    for velocity in (lambda t, x: net(t, x), net.forward):
        with pytest.warns(sf.SdeflowWarning, match="Dropout"):
            flow(velocity).encode(torch.ones(3, 2))


def test_layers_that_do_nothing_random_and_other_norms_are_quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in (nn.Dropout(0.0), nn.LayerNorm(8)):
            flow(Net(layer).train()).log_prob(torch.ones(3, 2))


def test_a_batch_norm_without_running_statistics_looks_at_the_batch_in_either_mode():
    net = Net(nn.BatchNorm1d(8, track_running_stats=False)).eval()
    with pytest.warns(sf.SdeflowWarning, match="statistics of the batch"):
        flow(net).log_prob(torch.ones(3, 2))
