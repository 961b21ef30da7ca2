"""Kernel densities, and the bandwidth of greatest leave-one-out likelihood."""

import importlib
import math

import pytest
import torch

from sdeflow.errors import ArgumentError
from sdeflow.laws import GaussianMixture, kernel_density

module = importlib.import_module("sdeflow.laws.kernel_density")  # the function has its module's name


def points(count: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def leave_one_out(data: torch.Tensor, bandwidth: float) -> float:
    """By its definition: the density of each point in the mixture of all others."""
    total = 0.0
    for i in range(len(data)):
        others = torch.cat([data[:i], data[i + 1 :]])
        law = GaussianMixture(torch.ones(len(others)), others, torch.full((len(others),), bandwidth**2))
        total += law.log_prob(data[i : i + 1]).item()
    return total


def test_it_is_the_mixture_around_the_points():
    data = points(7, 2)
    law = kernel_density(data, 0.3)
    assert len(law.weights) == 7 and law.event_shape == (2,)
    torch.testing.assert_close(law.mean, data.mean(0))
    torch.testing.assert_close(law.variance, data.var(0, correction=0) + 0.09)


@pytest.mark.parametrize(("count", "size"), [(40, 1), (40, 2), (30, 16)])
def test_the_chosen_bandwidth_has_the_greatest_likelihood(count, size):
    data = points(count, size)
    chosen = kernel_density(data).covariances[0].sqrt().item()
    best = leave_one_out(data, chosen)
    for factor in (0.5, 0.8, 0.99, 1.01, 1.25, 2.0):
        assert leave_one_out(data, chosen * factor) < best
    step = 1e-3
    slope = (leave_one_out(data, chosen * (1 + step)) - leave_one_out(data, chosen * (1 - step))) / (2 * step)
    assert abs(slope) < 1e-2  # the second derivative is of the order of count · size


def test_chunks_change_nothing(monkeypatch):
    data = points(50, 3)
    whole = kernel_density(data).covariances[0].item()
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 7 * 50)
    assert kernel_density(data).covariances[0].item() == pytest.approx(whole, rel=1e-12)


def test_images_keep_their_shape_and_dtype():
    law = kernel_density(points(20, 16).reshape(20, 4, 4).float())
    assert law.event_shape == (4, 4) and law.sample((3,)).dtype is torch.float32


@pytest.mark.parametrize(
    ("data", "bandwidth", "sentence"),
    [
        (torch.zeros(4, 2).long(), None, "the data are a torch.int64 tensor of shape"),
        ([1.0, 2.0], 1.0, r"the data are \[1.0, 2.0\]; give a floating-point tensor"),
        (points(4, 2), 0.0, "bandwidth=0.0: give a positive number in the units of the data"),
        (points(4, 2), math.nan, "bandwidth=nan"),
        (points(4, 2), "silverman", "bandwidth='silverman'"),
        (points(2, 2), None, "at least 3 points, all finite; these are 2"),
        (points(4, 2).repeat(2, 1), None, "every point has a duplicate"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(data, bandwidth, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        kernel_density(data, bandwidth)


def test_some_duplicates_are_harmless():
    data = points(20, 2)
    chosen = kernel_density(torch.cat([data, data[:3]])).covariances[0].sqrt().item()
    assert 0.05 < chosen < 1
