"""The toy laws are where they say they are."""

import math

import pytest
import torch
from stats import assert_mean, assert_moments

import sdeflow as sf
from sdeflow.errors import ArgumentError


def test_eight_gaussians_stand_on_their_circle():
    law = sf.data.eight_gaussians(3.0, 0.1, dtype=torch.float64)
    x = law.draw(20_000, seed=0)
    angle = torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)
    which = angle.round()
    centres = 3 * torch.stack([(which * math.pi / 4).cos(), (which * math.pi / 4).sin()], 1)
    assert_moments(x - centres, 0.0, 0.01)
    assert_mean(torch.nn.functional.one_hot((which.long() % 8), 8).double(), 1 / 8)
    assert sf.data.eight_gaussians(count=5).means.shape == (5, 2)


def test_checkerboard_is_uniform_on_its_dark_squares():
    x = sf.data.checkerboard(20_000, seed=0, dtype=torch.float64)
    cell = (x.floor() + 2).long()
    counts = torch.nn.functional.one_hot(4 * cell[:, 0] + cell[:, 1], 16).double()
    dark = torch.tensor([(i + j) % 2 == 0 for i in range(4) for j in range(4)]).double()
    assert_mean(counts[:, dark == 1], 1 / 8)
    assert counts[:, dark == 0].sum() == 0
    assert_moments(x - x.floor(), 0.5, 1 / 12)


@pytest.mark.parametrize("make", [sf.data.moons, sf.data.s_curve, sf.data.checkerboard])
def test_a_seed_is_the_data(make):
    state = torch.get_rng_state()
    assert torch.equal(make(10, seed=1), make(10, seed=1))
    assert not torch.equal(make(10, seed=1), make(10, seed=2))
    assert torch.equal(state, torch.get_rng_state())
    assert make(10, seed=1).dtype is torch.float32
    assert not torch.equal(make(10), make(10))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: sf.data.eight_gaussians(radius=0.0), "radius=0"),
        (lambda: sf.data.eight_gaussians(sd=-1.0), "sd=-1"),
        (lambda: sf.data.moons(0), "n=0"),
        (lambda: sf.data.checkerboard(3, seed=-1), "seed=-1"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
