"""Our networks at the times of a grid: what follows from the times is worked out once, and the answers are those of calls."""

import numpy as np
import pytest
import torch
from torch import nn

import sdeflow as sf
from sdeflow.processes.together import fields_at

EXACT = {"rtol": 1e-9, "atol": 1e-12}
TIMES = torch.linspace(0.05, 0.95, 7)
NETWORKS = {
    "mlp": lambda **options: sf.networks.MLP(3, width=16, **options),
    "scalar": lambda **options: sf.networks.MLP(3, width=16, scalar=True, **options),
    "unet": lambda **options: sf.networks.UNet((4, 4), width=8, **options),
}
CONDITIONS = {
    "nothing": ({}, {}),
    "labels": ({"classes": 3}, {"label": torch.tensor([0, 2, -1, 1, 2])}),
    "one label": ({"classes": 3}, {"label": torch.tensor([1])}),
    "contexts": ({"context": 2}, {"context": torch.arange(10.0).reshape(5, 2)}),
    "both": ({"classes": 3, "context": 2}, {"label": torch.tensor([2]), "context": torch.ones(1, 2)}),
}


def made(name, **options):
    torch.manual_seed(0)
    return NETWORKS[name](**options)


def states(name):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, 4, generator=generator) if name == "unet" else torch.randn(5, 3, generator=generator)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_answers_and_gradients_are_those_of_calls(name, condition):
    """Of a time for all rows and of one for each, too; up to the rounding of a product by few rows or many."""
    options, said = CONDITIONS[condition]
    said = {key: value.double() if value.is_floating_point() else value for key, value in said.items()}
    net, x, times = made(name, **options).double(), states(name).double(), TIMES.double()
    planned = [field(x) for field in fields_at(net, times, x, **said)]
    called = [net(t, x, **said) for t in times]
    by_row = [net(t.expand(5, *[1] * (x.ndim - 1)), x, **said) for t in times]
    for a, b, c in zip(planned, called, by_row, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, **EXACT)
        torch.testing.assert_close(a, c, **EXACT)
    used = [p for p in net.parameters() if p.requires_grad]
    found, expected = (
        torch.autograd.grad(sum(v.square().sum() for v in values), used, allow_unused=True)
        for values in (planned, called)
    )
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **EXACT)


def solved(net):
    model = sf.models.FlowMatching(net, sf.paths.LinearPath().base((3,)))
    return sf.solve(model.ode(), states("mlp"), steps=5, method="ddim").final


def test_a_solve_asks_for_the_features_of_its_times_once():
    net, seen = made("mlp"), []
    net.time.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    solved(net)
    assert seen == [5]


@pytest.mark.parametrize("change", ["hook", "other layer"])
def test_a_first_layer_that_is_not_plain_is_called(change):
    """As one that is watched, or that an adapter of low rank has taken the place of."""
    net, calls = made("mlp"), []

    class Adapter(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.weight = layer, layer.weight

        def forward(self, x):
            calls.append(1)
            return 3 * self.layer(x)

    if change == "hook":
        net.first.register_forward_hook(lambda module, given, out: (calls.append(1), 3 * out)[1])
    else:
        net.first = Adapter(net.first)
    for t, field in zip(TIMES, fields_at(net, TIMES, states("mlp")), strict=True):
        torch.testing.assert_close(field(states("mlp")), net(t, states("mlp")))
    assert len(calls) == 2 * len(TIMES)


def test_a_preconditioned_network_is_asked_at_its_own_times():
    schedule = sf.paths.EDMSchedule(0.05, 10.0)
    net = sf.models.Preconditioned(made("mlp"), schedule, 0.7).double()
    times, x = torch.linspace(0.05, 10.0, 6, dtype=torch.float64), states("mlp").double()
    for t, field in zip(times, fields_at(net, times, x), strict=True):
        torch.testing.assert_close(field(x), net(t, x), **EXACT)


@pytest.mark.parametrize("how", ["hook", "hook before", "hook of all"])
def test_a_network_with_hooks_is_called(how):
    net, calls = made("mlp"), []

    def note(module, *_):
        if module is net:
            calls.append(1)

    handle = (
        net.register_forward_hook(note)
        if how == "hook"
        else net.register_forward_pre_hook(note)
        if how == "hook before"
        else nn.modules.module.register_module_forward_hook(note)
    )
    expected = solved(made("mlp"))
    torch.testing.assert_close(solved(net), expected)
    handle.remove()
    assert len(calls) == (10 if how == "hook of all" and len(calls) > 5 else 5)


def test_what_has_another_forward_is_asked_by_it():
    """A subclass that overrides it, a module whose forward was replaced, and one that another wraps."""

    class Doubled(sf.networks.MLP):
        def forward(self, t, x, **condition):
            return 2 * super().forward(t, x, **condition)

    x, plain = states("mlp"), made("mlp")
    torch.manual_seed(0)
    doubled = Doubled(3, width=16)
    replaced = made("mlp")
    replaced.forward = lambda t, x: 2 * sf.networks.MLP.forward(replaced, t, x)
    compiled = torch.compile(made("mlp"), backend="eager")
    one = plain(TIMES[0], x)
    for net, factor in ((doubled, 2), (replaced, 2), (compiled, 1)):
        torch.testing.assert_close(fields_at(net, TIMES, x)[0](x), factor * one)


@pytest.mark.parametrize("method", ["ddim", "dpmpp-2m", "exponential-heun", "edm-heun"])
def test_the_gradient_of_a_solve_is_that_with_calls(method):
    """In both modes: what is worked out beforehand leads to the weights as well."""
    found = {}
    for hooked in (False, True):
        for gradient in ("backprop", "checkpoint"):
            net = made("mlp")
            if hooked:
                net.register_forward_hook(lambda *_: None)
            model = sf.models.FlowMatching(net, sf.paths.LinearPath().base((3,)))
            final = sf.solve(model.ode(), states("mlp"), steps=6, method=method, gradient=gradient).final
            found[hooked, gradient] = torch.autograd.grad(final.square().sum(), list(net.parameters()))
    for key in found:
        for a, b in zip(found[key], found[True, "backprop"], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * b.abs().max().item())


def test_a_plan_is_made_once_where_steps_are_taken_again():
    """Of more steps than are planned at a time."""
    net, found = made("mlp"), {}
    model = sf.models.FlowMatching(net, sf.paths.LinearPath().base((3,)))
    for gradient in ("backprop", "checkpoint"):
        final = sf.solve(model.ode(), states("mlp"), steps=1100, method="ddim", gradient=gradient).final
        found[gradient] = torch.autograd.grad(final.square().sum(), list(net.parameters()))
    for a, b in zip(*found.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
