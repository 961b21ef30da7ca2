"""Weights by name: the same model compiled or not, and buffers that have many elements in one place."""

import pytest
import torch

import sdeflow as sf

DATA = sf.data.moons(200, seed=0)


def model(compiled=False, seed=0):
    torch.manual_seed(seed)
    network = sf.networks.MLP(2, width=8, depth=1)
    network = torch.compile(network, backend="eager") if compiled else network
    return sf.models.FlowMatching(network, sf.paths.LinearPath().base((2,)))


def fit(made, steps=8, **options):
    return sf.fit(made, DATA, steps, **{"seed": 3, "batch_size": 64, "progress": False, **options})


def weights(made):
    return torch.cat([value.detach().flatten() for value in made.parameters()])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_run_of_a_compiled_network_is_one_of_the_plain_network(compiled, tmp_path):
    """Both ways, with the average, the best weights and the state of the optimiser."""
    options = {"held_out": DATA[:20], "evaluate_every": 2, "patience": 9, "criterion": "loss"}
    whole, first, second = model(), model(compiled), model(not compiled, seed=4)
    expected = fit(whole, **options)
    fit(first, steps=4, folder=tmp_path, **options)
    assert not any("_orig_mod" in name for name in sf.training.checkpoint.read(tmp_path).tensors)
    assert torch.equal(weights(sf.load(tmp_path, model(not compiled, seed=5))), weights(first))
    run = fit(second, folder=tmp_path, resume=True, **options)
    torch.testing.assert_close(run.losses, expected.losses)
    torch.testing.assert_close(weights(second), weights(whole))
    assert torch.equal(weights(sf.load(tmp_path, model(compiled, seed=5))), weights(second))


def test_a_model_that_is_compiled_as_a_whole_is_that_model(tmp_path):
    made = model()
    fit(torch.compile(made, backend="eager"), folder=tmp_path)
    assert torch.equal(weights(sf.load(tmp_path, model(seed=4))), weights(made))


class Scaled(torch.nn.Module):
    """A scale that is one number seen as many, beside one that is many."""

    def __init__(self, own=False, scale=2.0):
        super().__init__()
        self.net = sf.networks.MLP(2, width=8, depth=1)
        one = torch.full((1, 1), scale).expand(3, 2)
        self.register_buffer("scale", one.clone() if own else one)
        self.register_buffer("steps", torch.zeros(1).expand(3))

    def forward(self, t, x):
        return self.net(t, x) * self.scale[0]


def scaled(seed=0, **options):
    torch.manual_seed(seed)
    return sf.models.FlowMatching(Scaled(**options), sf.paths.LinearPath().base((2,)))


def test_expanded_buffers_are_written_loaded_and_taken_up_again(tmp_path):
    whole, first, second = scaled(), scaled(), scaled(seed=4, scale=5.0)
    expected = fit(whole, held_out=DATA[:9], criterion="loss")
    fit(first, steps=4, folder=tmp_path)
    loaded = sf.load(tmp_path, scaled(seed=5, scale=7.0))
    assert torch.equal(loaded.net.scale, torch.full((3, 2), 2.0)) and torch.equal(weights(loaded), weights(first))
    run = fit(second, folder=tmp_path, resume=True)
    assert torch.equal(run.losses, expected.losses) and torch.equal(weights(second), weights(whole))
    assert second.net.scale.stride() == (0, 0) and torch.equal(second.net.scale, torch.full((3, 2), 2.0))


class Viewing(torch.nn.Module):
    """Buffers that are views of another."""

    def __init__(self):
        super().__init__()
        self.net = sf.networks.MLP(2, width=8, depth=1)
        self.register_buffer("frequencies", torch.arange(6.0))
        self.register_buffer("low", self.frequencies[:3])
        self.register_buffer("square", self.frequencies.view(2, 3).mT)

    def forward(self, t, x):
        return self.net(t, x) + self.low.sum() - 3 * self.square[0, 0]


def test_views_of_one_another_are_written_and_stay_views(tmp_path):
    def viewing(seed):
        torch.manual_seed(seed)
        return sf.models.FlowMatching(Viewing(), sf.paths.LinearPath().base((2,)))

    whole, first, second = viewing(0), viewing(0), viewing(4)
    expected = fit(whole)
    fit(first, steps=4, folder=tmp_path)
    run = fit(second, folder=tmp_path, resume=True)
    assert torch.equal(run.losses, expected.losses) and torch.equal(weights(second), weights(whole))
    second.net.frequencies += 1
    assert torch.equal(second.net.low, torch.arange(1.0, 4.0))


def test_different_numbers_do_not_go_into_one_place(tmp_path):
    made = scaled(own=True)
    made.net.scale[1, 1] = 3.0
    fit(made, steps=1, folder=tmp_path)
    with pytest.raises(sf.ArgumentError, match=r"net\.scale is expanded along axis 0.*\.clone\(\)"):
        sf.load(tmp_path, scaled())
